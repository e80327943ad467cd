"""The HTTP API against the real thing: a quorum of workers, their Redis, and the web server in front."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.http_api import API, Caller, HangingCall
from tests.integration.installation import Installation
from tests.integration.waiting import eventually


@pytest.fixture(scope="module")
def token(installation: Installation) -> str:
    return installation.new_token("worker")[1]


@pytest.fixture
def worker(installation: Installation, token: str) -> Iterator[Caller]:
    with Caller(installation, token) as caller:
        yield caller


@pytest.fixture(scope="module")
def other_token(installation: Installation) -> str:
    return installation.new_token("other")[1]


@pytest.fixture
def other(installation: Installation, other_token: str) -> Iterator[Caller]:
    with Caller(installation, other_token) as caller:
        yield caller


@pytest.fixture
def admin(installation: Installation) -> Iterator[Caller]:
    with Caller(installation) as caller:
        yield caller.sign_in()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A lock of the test's own."""
    return f"tests/{request.node.name}"


# --- the main job -----------------------------------------------------------------------------------


def test_a_lock_is_taken_kept_released_and_taken_again_with_a_higher_token(worker: Caller, name: str) -> None:
    first = worker.acquire(name, ttl_ms=15000, wait_ms=0)
    assert first.status_code == 200, first.text
    body = first.json()
    assert body["ttl_ms"] == 15000
    lock = worker.lock(name)
    assert lock["name"] == name
    assert lock["holder"]["session"] == body["session"]
    assert lock["token"] == body["token"]
    assert lock["waiters"] == []
    assert 0 < lock["expires_in_ms"] <= 15000
    kept = worker.keep_alive(body["session"])
    assert kept.status_code == 200, kept.text
    assert worker.release(name, body["session"]).status_code == 200
    assert worker.lock(name)["holder"] is None
    again = worker.acquire(name, session=body["session"])
    assert again.json()["token"] > body["token"]


def test_asking_again_while_holding_answers_the_same_token_and_another_is_told_who_holds(
    worker: Caller, other: Caller, name: str
) -> None:
    held = worker.acquire(name, ttl_ms=15000).json()
    again = worker.acquire(name, session=held["session"], ttl_ms=15000)
    assert (again.status_code, again.json()["token"]) == (200, held["token"])
    mismatch = worker.acquire(name, session=held["session"], ttl_ms=20000)
    assert mismatch.status_code == 422
    assert "15000" in mismatch.json()["detail"]
    refused = other.acquire(name, ttl_ms=15000, wait_ms=0)
    assert refused.status_code == 409
    assert refused.json()["holder"]["session"] == held["session"]
    assert refused.json()["holder"]["principal"] == "worker"
    assert other.release(name, held["session"]).status_code == 410
    assert other.keep_alive(held["session"]).status_code == 410


def test_a_person_and_a_program_exclude_each_other(admin: Caller, worker: Caller, name: str) -> None:
    held = admin.acquire(name, ttl_ms=15000)
    assert held.json()["principal"] == "user:admin"
    assert worker.acquire(name).status_code == 409
    assert name in {lock["name"] for lock in worker.http.get(f"{API}/locks", params={"limit": 1000}).json()["locks"]}
    admin.release(name, held.json()["session"])
    assert worker.acquire(name).status_code == 200


def test_a_lease_that_is_not_kept_ends_and_one_that_is_does_not(worker: Caller, other: Caller, name: str) -> None:
    kept = worker.acquire(f"{name}/kept", ttl_ms=700).json()
    let_go = worker.acquire(f"{name}/let-go", ttl_ms=700).json()
    ended = threading.Event()

    def keep() -> int:
        count = 0
        while not ended.wait(0.2):
            assert worker.keep_alive(kept["session"]).status_code == 200
            count += 1
        return count

    with ThreadPoolExecutor() as pool:
        keeping = pool.submit(keep)
        try:
            taken = other.acquire(f"{name}/let-go", ttl_ms=15000, wait_ms=10_000)
        finally:
            ended.set()
        assert keeping.result() >= 2
    assert taken.status_code == 200
    assert taken.json()["token"] > let_go["token"]
    assert worker.lock(f"{name}/kept")["token"] == kept["token"]
    assert worker.keep_alive(let_go["session"]).status_code == 410
    assert worker.acquire(f"{name}/let-go", session=let_go["session"]).status_code == 410


# --- waiting ----------------------------------------------------------------------------------------


def test_waiters_are_granted_in_the_order_of_their_arrival(worker: Caller, other: Caller, name: str) -> None:
    held = worker.acquire(name, ttl_ms=15000).json()
    order: list[int] = []

    def wait(place: int) -> dict[str, Any]:
        answer = other.http.post(f"{API}/locks/{name}/acquire", json={"ttl_ms": 15000, "wait_ms": 15_000})
        order.append(place)
        assert answer.status_code == 200, answer.text
        other.release(name, answer.json()["session"])
        return dict(answer.json())

    with ThreadPoolExecutor(max_workers=4) as pool:
        calls = []
        for place in range(4):
            calls.append(pool.submit(wait, place))
            eventually(
                lambda place=place: len(worker.lock(name)["waiters"]) == place + 1,  # type: ignore[misc]
                timeout_s=5,
                what=f"{place + 1} wait",
            )
        worker.release(name, held["session"])
        tokens = [call.result()["token"] for call in calls]
    assert tokens == sorted(tokens)
    assert order == [0, 1, 2, 3]


def test_a_waiter_with_a_short_time_to_live_outlives_it_in_line(worker: Caller, other: Caller, name: str) -> None:
    held = worker.acquire(name, ttl_ms=15000).json()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(lambda: other.acquire(name, ttl_ms=500, wait_ms=15_000))
        eventually(lambda: worker.lock(name)["waiters"], timeout_s=5, what="it waits")
        waiter = worker.lock(name)["waiters"][0]["session"]
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1.5, timeout_s=5, what="three times to live have passed")
        assert worker.lock(name)["waiters"][0]["session"] == waiter
        worker.release(name, held["session"])
        assert call.result().json()["session"] == waiter


def test_a_wait_that_is_over_answers_409_and_leaves_the_line(worker: Caller, other: Caller, name: str) -> None:
    worker.acquire(name, ttl_ms=15000)
    began = time.monotonic()
    answer = other.acquire(name, ttl_ms=15000, wait_ms=400)
    assert answer.status_code == 409
    assert 0.35 < time.monotonic() - began < 3
    assert answer.json()["holder"]["principal"] == "worker"
    assert worker.lock(name)["waiters"] == []


def test_a_waiter_that_hangs_up_leaves_the_line_at_once_and_the_next_does_not_wait_for_it(
    installation: Installation, token: str, worker: Caller, other: Caller, name: str
) -> None:
    held = worker.acquire(name, ttl_ms=15000).json()
    body = b'{"ttl_ms": 60000, "wait_ms": 60000}'
    gone = HangingCall(installation, token, f"{API}/locks/{name}/acquire", body)
    eventually(lambda: len(worker.lock(name)["waiters"]) == 1, timeout_s=5, what="the first waits")
    with ThreadPoolExecutor() as pool:
        next_in_line = pool.submit(lambda: other.acquire(name, ttl_ms=15000, wait_ms=15_000))
        eventually(lambda: len(worker.lock(name)["waiters"]) == 2, timeout_s=5, what="the second waits")
        gone.hang_up()
        began = time.monotonic()
        eventually(lambda: len(worker.lock(name)["waiters"]) == 1, timeout_s=5, what="the first has left")
        assert time.monotonic() - began < 1.0
        worker.release(name, held["session"])
        began = time.monotonic()
        granted = next_in_line.result()
    assert granted.json()["principal"] == "other"
    assert time.monotonic() - began < 1.0


def test_a_grant_that_meets_a_hanging_up_is_given_back(
    installation: Installation, token: str, worker: Caller, other: Caller, name: str
) -> None:
    """History 9, by brute force: release and hang up at the same moment, over and over."""
    body = b'{"ttl_ms": 60000, "wait_ms": 60000}'
    session = other.http.post(f"{API}/sessions", json={"ttl_ms": 60000}).json()["session"]
    for _ in range(20):
        assert other.acquire(name, session=session).status_code == 200
        gone = HangingCall(installation, token, f"{API}/locks/{name}/acquire", body)
        eventually(lambda: other.lock(name)["waiters"], timeout_s=5, what="it waits")
        hanging_up = threading.Thread(target=gone.hang_up)
        hanging_up.start()
        assert other.release(name, session).status_code == 200
        hanging_up.join()
        eventually(lambda: other.lock(name)["holder"] is None, timeout_s=5, what="nobody holds it")


# --- names, bodies, keys ------------------------------------------------------------------------------


def test_names_hold_slashes_and_any_script(worker: Caller) -> None:
    for address, expected in (
        ("billing/month-end", "billing/month-end"),
        ("billing%2Fmonth-end-2", "billing/month-end-2"),
        ("caf%C3%A9", "café"),
        ("a%20b", "a b"),
        ("x/acquire", "x/acquire"),
    ):
        answer = worker.http.post(f"{API}/locks/{address}/acquire")
        assert answer.status_code == 200, answer.text
        assert answer.json()["name"] == expected
        assert worker.http.get(f"{API}/locks/{address}").json()["holder"]["session"] == answer.json()["session"]


@pytest.mark.parametrize(
    "body",
    [
        {"ttl_ms": 499},
        {"ttl_ms": 86_400_001},
        {"wait_ms": 3_600_001},
        {"wait_ms": -1},
        {"ttl_ms": "1000"},
        {"ttl_ms": True},
    ],
)
def test_what_is_out_of_range_is_refused(worker: Caller, body: dict[str, Any]) -> None:
    answer = worker.acquire("tests/ranges", **body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail"}


def test_a_body_that_is_too_large_is_refused(worker: Caller) -> None:
    value = b"x" * 1_048_576
    assert worker.http.put(f"{API}/keys/tests/large", content=value).status_code == 200
    assert worker.http.get(f"{API}/keys/tests/large").content == value
    assert worker.http.put(f"{API}/keys/tests/large", content=value + b"x").status_code == 413
    try:
        answer = worker.http.put(f"{API}/keys/tests/large", content=value * 8)
    except httpx.TransportError:
        return  # Refused while it was still being sent.
    assert answer.status_code == 413


# --- credentials --------------------------------------------------------------------------------------


def test_without_credentials_nothing_is_answered(installation: Installation) -> None:
    with Caller(installation) as nobody:
        for path in ("status", "locks", "locks/deploy", "keys/a"):
            assert nobody.http.get(f"{API}/{path}").status_code == 401
        assert nobody.acquire("deploy").status_code == 401
        assert nobody.http.get("/").status_code == 302
        assert nobody.http.get("/api/docs").status_code == 302
    with Caller(installation, "nonsense") as stranger:
        assert stranger.http.get(f"{API}/status").status_code == 401


def test_a_change_by_cookie_needs_the_csrf_token(installation: Installation) -> None:
    with Caller(installation) as caller:
        caller.sign_in()
        del caller.http.headers["X-CSRFToken"]
        answer = caller.acquire("tests/csrf")
        assert answer.status_code == 403
        assert answer.json()["error"] == "csrf-failed"


def test_a_narrowed_token_may_what_it_may_and_no_more(installation: Installation) -> None:
    printed = installation.manage("token", "narrow", "--rights", "lock", "--prefix", "narrow/")
    assert len(printed.splitlines()) == 2
    narrow_token = printed.splitlines()[1].removeprefix("CONCLAVE_TOKEN=")
    with Caller(installation, narrow_token) as narrow:
        assert narrow.acquire("narrow/a").status_code == 200
        assert narrow.acquire("wide").status_code == 403
        assert narrow.http.put(f"{API}/keys/narrow/a", content=b"1").status_code == 403
        assert [lock["name"] for lock in narrow.http.get(f"{API}/locks").json()["locks"]] == ["narrow/a"]
        assert narrow.http.get(f"{API}/locks/wide").status_code == 403
        assert narrow.http.post(f"{API}/nodes/node1/crash").status_code == 403


def test_a_revoked_token_is_refused_and_its_locks_run_out(
    installation: Installation, worker: Caller, name: str
) -> None:
    _, secret = installation.new_token("leaver")
    with Caller(installation, secret) as leaver:
        assert leaver.acquire(name, ttl_ms=1_500).status_code == 200
        installation.manage("token", "leaver", "--revoke")
        eventually(lambda: worker.lock(name)["holder"] is None, timeout_s=5, what="its lease has run out")
        eventually(lambda: leaver.acquire(name).status_code == 401, timeout_s=5, what="the token is refused")


def test_a_name_with_other_rights_is_refused(installation: Installation, token: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        installation.manage("token", "worker", "--rights", "read")
    assert refused.value.stdout == ""
    assert "is there already" in refused.value.stderr


# --- status, health, documents --------------------------------------------------------------------------


def test_the_status_names_the_leader_and_every_replica(worker: Caller, admin: Caller) -> None:
    for caller in (worker, admin):
        status = caller.status()
        assert status["leader"] in {"node1", "node2", "node3"}
        assert [replica["node"] for replica in status["replicas"]] == ["node1", "node2", "node3"]
        for replica in status["replicas"]:
            assert replica["role"] == ("leader" if replica["node"] == status["leader"] else "follower")
            assert replica["term"] == status["term"] >= 1
            assert 1 <= replica["applied_index"] <= replica["commit_index"] <= replica["last_index"]
            assert replica["pid"] > 1


def test_health_needs_no_login_and_names_nobody(installation: Installation) -> None:
    for path in ("/healthz", "/readyz", "/readyz/default"):
        answer = installation.get(path)
        assert answer.status == 200, path
        assert "node" not in answer.body
    assert installation.get("/readyz/nowhere").status == 404


def test_the_documents_come_from_here_alone(admin: Caller) -> None:
    page = admin.http.get("/api/docs")
    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    assert admin.http.get("/api/v1/openapi.json").json()["info"]["title"] == "Conclave"
    for path in set(_assets(page.text)) | set(_assets(admin.http.get("/admin/").text)):
        assert admin.http.get(path).status_code == 200, path


def _assets(page: str) -> list[str]:
    return [part.split('"')[0] for part in page.split('"') if part.startswith("/static/")]


# --- files, watches, modes --------------------------------------------------------------------------


def test_a_call_that_waits_for_changes_is_answered_by_the_leader_when_there_is_one(
    installation: Installation, worker: Caller, token: str, name: str
) -> None:
    created = worker.http.post(f"{API}/files/{name}?parents=true", content=b"one")
    assert created.status_code == 201, created.text
    since = created.json()["revision"] + 1
    with Caller(installation, token) as watcher, ThreadPoolExecutor(1) as pool:
        address = f"{API}/changes?start={name}&since={since}&wait_ms=15000"
        waiting = pool.submit(watcher.http.get, address)
        written = worker.http.put(f"{API}/files/{name}?generation=1", content=b"two")
        assert written.status_code == 200, written.text
        page = waiting.result(20)
    assert page.status_code == 200, page.text
    assert [change["revision"] for change in page.json()["changes"]] == [written.json()["revision"]]
    none = worker.http.get(f"{API}/changes?start={name}&since={page.json()['since']}&wait_ms=50")
    assert none.json()["changes"] == []


def test_sharers_and_a_transaction_over_http(worker: Caller, other: Caller, name: str) -> None:
    one, two = worker.acquire(name, mode="shared").json(), other.acquire(name, mode="shared", wait_ms=5_000).json()
    assert (one["mode"], two["mode"]) == ("shared", "shared")
    assert worker.http.get(f"{API}/holds/{name}").json()["holding"] == 2
    body = {"when": [{"key": name, "target": "lock", "number": one["token"]}], "then": [{"do": "create", "path": name}]}
    body["then"][0]["parents"] = True
    done = worker.http.post(f"{API}/transactions", json=body)
    assert done.status_code == 200, done.text
    assert done.json()["succeeded"] is True
    for each, caller in ((one, worker), (two, other)):
        assert caller.release(name, each["session"]).status_code == 200
