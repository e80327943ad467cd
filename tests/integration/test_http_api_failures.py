"""The HTTP API while parts of the installation die: what callers are told, and that nothing is lost by it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.http_api import API, Caller, HangingCall
from tests.integration.installation import Installation, stands_still
from tests.integration.waiting import eventually

NAMES = re.compile(r"node\d|\d+\.\d+\.\d+\.\d+|:\d{4}")
SERVING = {"leader", "follower"}


@pytest.fixture(scope="module")
def token(installation: Installation) -> str:
    return installation.new_token("worker")[1]


@pytest.fixture
def worker(installation: Installation, token: str) -> Iterator[Caller]:
    with Caller(installation, token) as caller:
        in_step(caller)
        yield caller
        in_step(caller)


@pytest.fixture
def admin(installation: Installation) -> Iterator[Caller]:
    with Caller(installation) as caller:
        yield caller.sign_in()


def in_step(caller: Caller) -> None:
    """Until all replicas serve: leave the installation as it was found."""

    def all_serve() -> bool:
        status = caller.status()
        return bool(status["leader"]) and all(replica["role"] in SERVING for replica in status["replicas"])

    eventually(all_serve, timeout_s=30, what="all replicas serve")


def test_the_leader_is_crashed_over_the_api_and_everything_that_was_held_stays(worker: Caller, admin: Caller) -> None:
    held = worker.acquire("failures/crash", ttl_ms=60_000).json()
    leader = admin.status()["leader"]
    crashed = admin.http.post(f"{API}/nodes/{leader}/crash", json={"reason": "to watch the election"})
    assert crashed.status_code == 200, crashed.text
    taken = worker.acquire("failures/after-the-crash")
    assert taken.status_code == 200, taken.text
    assert taken.json()["token"] > held["token"]
    assert worker.lock("failures/crash")["token"] == held["token"]
    assert worker.keep_alive(held["session"]).status_code == 200
    audit = admin.http.get("/admin/conclave/auditentry/", params={"q": "to watch the election"})
    assert f"default/{leader}" in audit.text


def test_a_waiter_outlives_the_leader(installation: Installation, worker: Caller, admin: Caller) -> None:
    held = worker.acquire("failures/wait", ttl_ms=60_000).json()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(lambda: admin.acquire("failures/wait", ttl_ms=5000, wait_ms=20_000))
        eventually(lambda: worker.lock("failures/wait")["waiters"], timeout_s=5, what="it waits")
        waiter = worker.lock("failures/wait")["waiters"][0]["session"]
        leader = worker.status()["leader"]
        installation.kill(leader)
        eventually(lambda: worker.status()["leader"] not in (None, leader), timeout_s=5, what="another leads")
        worker.release("failures/wait", held["session"])
        granted = call.result()
    assert granted.status_code == 200, granted.text
    assert granted.json()["session"] == waiter


def test_without_a_majority_callers_are_told_and_nothing_is_granted(
    installation: Installation, worker: Caller, admin: Caller
) -> None:
    held = worker.acquire("failures/majority", ttl_ms=60_000).json()
    status = worker.status()
    others = [replica["node"] for replica in status["replicas"] if replica["node"] != status["leader"]]
    assert len(others) == 2, status
    stopped = [installation.part(node) for node in others]
    try:
        for node in others:
            installation.freeze(node)
        refused = worker.acquire("failures/no-majority", ttl_ms=60_000)
        assert [*map(stands_still, stopped)] == [True, True], refused.text
        assert refused.status_code == 503, (refused.text, status, installation.parts())
        assert refused.headers["Retry-After"] == "1"
        eventually(lambda: worker.status()["leader"] is None, timeout_s=10, what="nobody says that it leads")
        for caller in (worker, admin):
            roles = [replica["role"] for replica in caller.status()["replicas"]]
            assert roles.count("unreachable") == 2
        ready = installation.get("/readyz/default")
        assert ready.status == 503
        assert not NAMES.search(ready.body), ready.body
        assert admin.http.get("/readyz/default").json()["nodes"]
        assert installation.get("/readyz").status == 200
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    eventually(lambda: worker.acquire("failures/again").status_code == 200, timeout_s=10, what="service is back")
    assert worker.lock("failures/majority")["token"] == held["token"]
    eventually(
        lambda: worker.lock("failures/no-majority")["holder"] is None,
        timeout_s=10,
        what="what was granted too late for its caller is given back",
    )


def test_a_lock_outlives_the_web_process(installation: Installation, worker: Caller) -> None:
    held = worker.acquire("failures/web", ttl_ms=60_000).json()
    installation.kill("web")
    eventually(lambda: installation.get("/readyz").status == 200, timeout_s=30, what="the web process is back")
    assert worker.keep_alive(held["session"]).status_code == 200
    assert worker.acquire("failures/web", session=held["session"]).json()["token"] == held["token"]


def test_a_web_process_that_is_told_to_end_answers_its_waiters_and_leaves_nothing(
    installation: Installation, token: str, worker: Caller
) -> None:
    worker.acquire("failures/end", ttl_ms=60_000)
    waiting = HangingCall(
        installation, token, f"{API}/locks/failures/end/acquire", b'{"ttl_ms": 60000, "wait_ms": 3600000}'
    )
    eventually(lambda: worker.lock("failures/end")["waiters"], timeout_s=5, what="it waits")
    web = installation.part("web")
    web.terminate()
    answer = b"".join(iter(lambda: waiting.socket.recv(65_536), b"")).decode()
    assert "503" in answer.splitlines()[0]
    assert "unavailable" in answer
    web.wait(5)
    eventually(lambda: installation.get("/readyz").status == 200, timeout_s=30, what="the web process is back")
    assert worker.lock("failures/end")["waiters"] == []
