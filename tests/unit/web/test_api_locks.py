"""Locks over HTTP: what is granted, what is refused, what waits; and that a caller that goes away leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from coordinator import access, asgi
from coordinator.api import attempt
from coordinator.client import clock, errors
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token, settled, until

pytestmark = pytest.mark.asyncio

ACQUIRE = f"{API}/locks/deploy/acquire"
RELEASE = f"{API}/locks/deploy/release"
LOCK = f"{API}/locks/deploy"


@pytest_asyncio.fixture(autouse=True)
async def nothing_runs_on() -> AsyncIterator[None]:
    yield
    for each in list(attempt._live):
        each.abandon()
    await asyncio.wait_for(attempt.all_finished(), 5)
    await settled()
    assert not attempt._live
    assert not attempt._waiting


# --- acquire --------------------------------------------------------------------------------------


async def test_acquiring_a_free_lock_opens_a_session_and_answers_with_its_fencing_token(worker: Bearer) -> None:
    response = await worker.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 0})
    assert response.status_code == 200
    body = response.json()
    assert body["session"].startswith("s")
    assert isinstance(body["token"], int)
    assert body["name"] == "deploy"
    assert body["principal"] == "worker"
    assert body["ttl_ms"] == 15000
    assert 14_000 < body["expires_in_ms"] <= 15_000


async def test_no_body_at_all_means_the_defaults(worker: Bearer) -> None:
    response = await worker.post(ACQUIRE)
    assert response.status_code == 200
    assert response.json()["ttl_ms"] == 15_000


async def test_asking_again_with_the_holding_session_answers_the_same_token(worker: Bearer) -> None:
    first = (await worker.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 0})).json()
    again = await worker.post(ACQUIRE, {"session": first["session"], "wait_ms": 0})
    assert again.status_code == 200
    assert (again.json()["token"], again.json()["session"]) == (first["token"], first["session"])
    with_equal_ttl = await worker.post(ACQUIRE, {"session": first["session"], "ttl_ms": 15000})
    assert with_equal_ttl.json()["token"] == first["token"]


async def test_a_ttl_that_differs_from_the_named_sessions_is_refused(worker: Bearer) -> None:
    first = (await worker.post(ACQUIRE, {"ttl_ms": 15000})).json()
    response = await worker.post(ACQUIRE, {"session": first["session"], "ttl_ms": 20000})
    assert response.status_code == 422
    assert response.json()["error"] == "ttl-mismatch"
    assert "15000" in response.json()["detail"]


async def test_a_held_lock_is_refused_naming_the_holder(worker: Bearer, other: Bearer, cluster: FakeCluster) -> None:
    held = (await worker.post(ACQUIRE, {"ttl_ms": 15000})).json()
    response = await other.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 0})
    assert response.status_code == 409
    body = response.json()
    assert body["error"] == "not-acquired"
    assert (body["holder"]["session"], body["holder"]["principal"]) == (held["session"], "worker")
    assert body["token"] == held["token"]
    assert 0 < body["expires_in_ms"] <= 15_000
    assert body["name"] == "deploy"


async def _die_holding(bearer: Bearer, cluster: FakeCluster, name: str) -> None:
    """Leave a lock-delay behind."""
    await bearer.post(f"{API}/locks/{name}/acquire", {"ttl_ms": 1_000, "lock_delay_ms": 60_000})
    cluster.pass_time(2_000)


@pytest.mark.parametrize("how", [{}, {"mode": "shared"}, {"wait_ms": 1}])
async def test_a_name_in_its_lock_delay_is_refused_without_naming_the_dead_as_its_holder(
    worker: Bearer, other: Bearer, cluster: FakeCluster, how: dict[str, Any]
) -> None:
    await _die_holding(worker, cluster, "deploy")
    response = await other.post(ACQUIRE, how)
    assert response.status_code == 409
    body = response.json()
    assert (body["holder"], body["token"], body["expires_in_ms"]) == (None, None, None)
    assert body["detail"].endswith("; its last holder died, and it is kept back for its lock-delay")
    assert "worker" not in body["detail"]


async def test_of_several_names_the_one_in_the_way_is_looked_at(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await _die_holding(worker, cluster, "reindex")
    refused = (await other.post(ACQUIRE, {"also": ["reindex"]})).json()
    assert refused["holder"] is None
    assert "lock-delay" in refused["detail"]
    held = (await worker.post(f"{API}/locks/zoo/acquire")).json()
    refused = (await other.post(ACQUIRE, {"also": ["zoo"]})).json()
    assert refused["holder"]["session"] == held["session"]
    assert refused["expires_in_ms"] > 0


async def test_a_lock_that_is_let_go_before_its_holder_is_looked_at_is_said_to_be(
    worker: Bearer, other: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = (await worker.post(ACQUIRE)).json()
    query = FakeClient.query

    async def letting_go(self: FakeClient, asked: Any, **options: Any) -> Any:
        if isinstance(asked, commands.GetLock):
            await worker.post(RELEASE, {"session": held["session"]})
        return await query(self, asked, **options)

    monkeypatch.setattr(FakeClient, "query", letting_go)
    refused = (await other.post(ACQUIRE)).json()
    assert refused["holder"] is None
    assert refused["detail"].endswith("; it was let go just now")


async def test_a_refused_call_closes_the_session_that_it_opened(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await worker.post(ACQUIRE)
    before = set(cluster.machine.sessions)
    await other.post(ACQUIRE)
    await settled()
    assert set(cluster.machine.sessions) == before


async def test_a_refused_call_leaves_a_session_that_it_was_given(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await worker.post(ACQUIRE)
    session = (await other.post(f"{API}/sessions", {"ttl_ms": 9000})).json()["session"]
    assert (await other.post(ACQUIRE, {"session": session})).status_code == 409
    assert (await other.get(f"{API}/sessions/{session}")).status_code == 200


async def test_two_names_can_be_held_with_one_session(worker: Bearer) -> None:
    session = (await worker.post(ACQUIRE)).json()["session"]
    second = await worker.post(f"{API}/locks/reindex/acquire", {"session": session})
    assert second.status_code == 200
    assert (await worker.get(f"{API}/sessions/{session}")).json()["locks"] == ["deploy", "reindex"]


@pytest.mark.parametrize(
    "body",
    [
        {"ttl_ms": 499},
        {"ttl_ms": 86_400_001},
        {"ttl_ms": -1},
        {"ttl_ms": "15000"},
        {"ttl_ms": 15000.0},
        {"ttl_ms": True},
        {"wait_ms": -1},
        {"wait_ms": 3_600_001},
        {"wait_ms": "0"},
        {"wait_ms": 0.5},
        {"wait_ms": False},
        {"wait_ms": None},
        {"session": 17},
        {"session": "17"},
        {"session": "s"},
        {"session": "s0"},
        {"session": "s-1"},
        {"session": "s1 "},
        {"session": "s\N{ARABIC-INDIC DIGIT ONE}"},
        {"session": "s" + "9" * 17},
        {"surprise": 1},
        [],
        "text",
        7,
    ],
)
async def test_what_is_out_of_range_or_of_the_wrong_kind_is_refused(
    worker: Bearer, cluster: FakeCluster, body: Any
) -> None:
    before = len(cluster.commands)
    response = await worker.post(ACQUIRE, body)
    assert response.status_code == 422
    assert set(response.json()) == {"error", "detail"}
    assert response.json()["error"] == "invalid"
    assert len(cluster.commands) == before


@pytest.mark.parametrize("body", [{"ttl_ms": 500}, {"ttl_ms": 86_400_000}, {"wait_ms": 3_600_000}])
async def test_the_ends_of_the_ranges_are_accepted(worker: Bearer, body: dict[str, int]) -> None:
    assert (await worker.post(ACQUIRE, body)).status_code == 200


async def test_a_body_that_is_no_json_is_refused(worker: Bearer) -> None:
    for text in (b"{", b"\xff", b"[" * 100_000, b"{'ttl_ms': 1}"):
        response = await worker._client.post(ACQUIRE, text, content_type="application/json", headers=worker.headers)
        assert response.status_code == 400, text[:20]
        assert response.json() == {"error": "bad-json", "detail": "the body is not valid JSON"}


async def test_of_a_body_that_is_nothing_but_mistakes_it_is_said_how_many_there_are(worker: Bearer) -> None:
    """To word them all held up everybody for seconds, and was answered with megabytes."""
    response = await worker.post(ACQUIRE, {f"k{number}": 0 for number in range(2_000)})
    assert response.status_code == 422
    assert response.json()["detail"] == "the body: 2000 mistakes are too many to be named"
    few = await worker.post(ACQUIRE, {f"k{number}": 0 for number in range(20)})
    assert few.json()["detail"].count("extra inputs are not permitted") == 20


async def test_a_session_that_is_gone_or_anothers_answers_410(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    mine = (await worker.post(ACQUIRE, {"ttl_ms": 15000})).json()["session"]
    for session in (mine, "s999999999"):
        response = await other.post(f"{API}/locks/free/acquire", {"session": session})
        assert response.status_code == 410
        assert response.json()["error"] == "session-gone"
    cluster.pass_time(15_001)
    assert (await worker.post(ACQUIRE, {"session": mine})).status_code == 410


async def test_a_token_without_the_right_to_lock_is_refused_and_leaves_no_session(cluster: FakeCluster) -> None:
    reader = Bearer(str(new_token(cluster, "reader", ("read",))))
    before = set(cluster.machine.sessions)
    response = await reader.post(ACQUIRE)
    assert response.status_code == 403
    assert response.json()["error"] == "forbidden"
    await settled()
    assert set(cluster.machine.sessions) - before <= {cluster.web_session}


async def test_a_token_narrowed_to_a_prefix_locks_there_and_nowhere_else(cluster: FakeCluster) -> None:
    narrow = Bearer(str(new_token(cluster, "billing", prefixes=("billing/",))))
    assert (await narrow.post(f"{API}/locks/billing/month-end/acquire")).status_code == 200
    assert (await narrow.post(ACQUIRE)).status_code == 403
    assert (await narrow.get(LOCK)).status_code == 403


async def test_without_a_leader_the_answer_is_503_at_once_and_says_when_to_ask_again(
    worker: Bearer, cluster: FakeCluster
) -> None:
    await worker.post(ACQUIRE)
    cluster.has_leader = False
    for response in (await worker.post(ACQUIRE), await worker.get(LOCK), await worker.get(f"{API}/locks")):
        assert response.status_code == 503
        assert response.json()["error"] == "unavailable"
        assert response["Retry-After"] == "1"


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("billing/month-end", "billing/month-end"),
        ("billing%2Fmonth-end", "billing/month-end"),
        ("%2Fdeploy", "deploy"),
        ("%2F.", "."),
        ("%2F..", ".."),
        ("a%20b", "a b"),
        ("50%25", "50%"),
        ("a/acquire", "a/acquire"),
        ("a/release", "a/release"),
        ("locks", "locks"),
        ("what%3F%23", "what?#"),
    ],
)
async def test_names_may_hold_slashes_and_be_percent_encoded(worker: Bearer, address: str, name: str) -> None:
    acquired = await worker.post(f"{API}/locks/{address}/acquire")
    assert acquired.json()["name"] == name
    seen = await worker.get(f"{API}/locks/{address}")
    assert seen.json()["name"] == name
    assert seen.json()["holder"] is not None
    released = await worker.post(f"{API}/locks/{address}/release", {"session": acquired.json()["session"]})
    assert released.status_code == 200


@pytest.mark.parametrize("address", ["%2F%2Fa", "a" * 513, "%7F"])
async def test_names_that_are_none_are_refused(worker: Bearer, address: str) -> None:
    response = await worker.post(f"{API}/locks/{address}/acquire")
    assert response.status_code == 422, response.content
    assert response.json()["error"] == "invalid"


# --- look and list --------------------------------------------------------------------------------


async def test_a_held_lock_shows_holder_token_waiters_and_what_is_left(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = (await worker.post(ACQUIRE, {"ttl_ms": 15000})).json()
    waiting = asyncio.ensure_future(other.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 60_000}))
    await until(lambda: cluster.machine.waiting)
    lock = (await worker.get(LOCK)).json()
    assert lock["name"] == "deploy"
    assert (lock["holder"]["session"], lock["holder"]["principal"]) == (held["session"], "worker")
    assert lock["token"] == held["token"]
    assert [waiter["principal"] for waiter in lock["waiters"]] == ["other"]
    assert 0 < lock["expires_in_ms"] <= 15_000
    await worker.post(RELEASE, {"session": held["session"]})
    assert (await waiting).status_code == 200


async def test_a_free_lock_has_no_holder(worker: Bearer) -> None:
    body = (await worker.get(LOCK)).json()
    assert body == {
        "name": "deploy",
        "holder": None,
        "token": None,
        "waiters": [],
        "waiting": 0,
        "expires_in_ms": None,
        "ttl_ms": None,
    }


async def test_the_list_pages_through_held_locks_by_name(worker: Bearer) -> None:
    for name in ("c", "a", "b"):
        await worker.post(f"{API}/locks/{name}/acquire")
    first = (await worker.get(f"{API}/locks", limit=2)).json()
    assert [lock["name"] for lock in first["locks"]] == ["a", "b"]
    assert (first["held"], first["waiting"], first["next"]) == (3, 0, "b")
    rest = (await worker.get(f"{API}/locks", limit=2, after=first["next"])).json()
    assert [lock["name"] for lock in rest["locks"]] == ["c"]
    assert rest["next"] is None
    for limit in ("0", "1001", "x"):
        assert (await worker.get(f"{API}/locks", limit=limit)).status_code == 422


# --- release --------------------------------------------------------------------------------------


async def test_releasing_frees_the_lock_and_keeps_the_session(worker: Bearer) -> None:
    session = (await worker.post(ACQUIRE)).json()["session"]
    response = await worker.post(RELEASE, {"session": session})
    assert response.status_code == 200
    assert response.json() == {"name": "deploy", "session": session, "released": True}
    assert (await worker.get(LOCK)).json()["holder"] is None
    assert (await worker.get(f"{API}/sessions/{session}")).status_code == 200


async def test_releasing_what_the_session_does_not_hold_is_a_conflict(worker: Bearer) -> None:
    session = (await worker.post(ACQUIRE)).json()["session"]
    for lock in ("free", "deploy"):
        response = await worker.post(f"{API}/locks/{lock}/release", {"session": session})
    response = await worker.post(RELEASE, {"session": session})
    assert response.status_code == 409
    assert response.json()["error"] == "not-held"


async def test_releasing_with_anothers_session_or_none_is_refused(worker: Bearer, other: Bearer) -> None:
    session = (await worker.post(ACQUIRE)).json()["session"]
    assert (await other.post(RELEASE, {"session": session})).status_code == 410
    assert (await worker.post(RELEASE, {})).status_code == 422
    assert (await worker.post(RELEASE)).status_code == 422
    assert (await worker.get(LOCK)).json()["holder"]["session"] == session


async def test_a_token_grows_with_every_grant(worker: Bearer) -> None:
    tokens = []
    for _ in range(3):
        body = (await worker.post(ACQUIRE)).json()
        tokens.append(body["token"])
        await worker.post(RELEASE, {"session": body["session"]})
    assert tokens == sorted(set(tokens))


# --- waiting --------------------------------------------------------------------------------------


async def _hold(who: Bearer) -> str:
    return str((await who.post(ACQUIRE, {"ttl_ms": 15000})).json()["session"])


async def _waiting_call(
    cluster: FakeCluster, who: Bearer, **body: Any
) -> tuple[asyncio.Future[Any], Callable[[], Awaitable[None]]]:
    before = cluster.machine.waiting
    call = asyncio.ensure_future(who.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 60_000} | body))
    await until(lambda: cluster.machine.waiting > before)

    async def hang_up() -> None:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    return call, hang_up


async def _session_in_line(
    cluster: FakeCluster, bearer: Bearer
) -> tuple[str, asyncio.Future[Any], Callable[[], Awaitable[None]]]:
    """A session of its own that waits for the lock; then as above."""
    session = (await bearer.post(f"{API}/sessions", {"ttl_ms": 9000})).json()["session"]
    return session, *(await _waiting_call(cluster, bearer, session=session, ttl_ms=9000))


async def test_a_waiter_is_granted_when_the_holder_lets_go(worker: Bearer, other: Bearer, cluster: FakeCluster) -> None:
    session = await _hold(worker)
    call, _ = await _waiting_call(cluster, other)
    await worker.post(RELEASE, {"session": session})
    response = await call
    assert response.status_code == 200
    assert response.json()["principal"] == "other"
    assert (await worker.get(LOCK)).json()["holder"]["session"] == response.json()["session"]


async def test_a_lease_that_ended_while_the_machine_slept_is_not_answered_as_left(
    worker: Bearer, other: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant lies in this machine's socket while it is suspended, and on the nodes the session runs out. The clock
    of leases runs on then, and CLOCK_MONOTONIC does not."""
    slept_ms = 60_000
    wait, now_us = FakeClient.wait_for_grant, clock.now_us

    async def wait_and_sleep(self: FakeClient, *names: Any, **options: Any) -> Any:
        granted = await wait(self, *names, **options)
        cluster.pass_time(slept_ms)
        monkeypatch.setattr(clock, "now_us", lambda: now_us() + slept_ms * 1_000)
        return granted

    monkeypatch.setattr(FakeClient, "wait_for_grant", wait_and_sleep)
    session = await _hold(worker)
    call, _ = await _waiting_call(cluster, other, ttl_ms=15_000)
    await worker.post(RELEASE, {"session": session})
    response = await call
    assert response.status_code == 410, response.json()


async def test_a_wait_that_is_over_answers_409_and_leaves_neither_place_nor_session(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    before = set(cluster.machine.sessions)
    response = await other.post(ACQUIRE, {"ttl_ms": 15000, "wait_ms": 30})
    assert response.status_code == 409
    assert response.json()["holder"]["session"] == held
    assert cluster.machine.waiting == 0
    await settled()
    assert set(cluster.machine.sessions) == before


async def test_a_wait_with_a_named_session_that_is_over_leaves_the_line_and_keeps_the_session(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await _hold(worker)
    session = (await other.post(f"{API}/sessions", {"ttl_ms": 9000})).json()["session"]
    assert (await other.post(ACQUIRE, {"session": session, "wait_ms": 30})).status_code == 409
    assert cluster.machine.waiting == 0
    assert (await other.get(f"{API}/sessions/{session}")).status_code == 200


async def test_a_waiters_session_is_kept_alive_while_it_waits(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await _hold(worker)
    _, hang_up = await _waiting_call(cluster, other, ttl_ms=500)
    await until(lambda: len(cluster.kept_alive) >= 2)
    assert len(set(cluster.kept_alive)) == 1
    await hang_up()


async def test_a_waiter_whose_session_is_gone_is_told_so(worker: Bearer, other: Bearer, cluster: FakeCluster) -> None:
    await _hold(worker)
    session, call, _ = await _session_in_line(cluster, other)
    await other.delete(f"{API}/sessions/{session}")
    assert (await call).status_code == 410


async def test_a_waiter_that_hangs_up_leaves_the_line_at_once(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    before = set(cluster.machine.sessions)
    _, hang_up = await _waiting_call(cluster, other)
    await hang_up()
    await settled()
    assert cluster.machine.waiting == 0
    assert set(cluster.machine.sessions) == before
    assert (await worker.get(LOCK)).json()["holder"]["session"] == held


async def test_the_next_in_line_is_granted_when_the_one_before_it_hung_up(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    _, hang_up = await _waiting_call(cluster, other)
    third = Bearer(str(new_token(cluster, "third")))
    call, _ = await _waiting_call(cluster, third)
    await hang_up()
    await worker.post(RELEASE, {"session": held})
    assert (await call).json()["principal"] == "third"


async def test_a_grant_to_a_waiter_that_hung_up_is_given_back(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    """History 9: the grant and the hanging up cross."""
    held = await _hold(worker)
    _, call, _ = await _session_in_line(cluster, other)
    call.cancel()
    await worker.post(RELEASE, {"session": held})
    await asyncio.gather(call, return_exceptions=True)
    await settled()
    assert (await worker.get(LOCK)).json()["holder"] is None


async def test_hanging_up_while_the_request_is_under_way_leaves_nothing_once_it_has_arrived(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    """History 12: the cancel must not overtake what it cancels."""
    held = await _hold(worker)
    await access.client().query(commands.GetLock("deploy"))
    before = set(cluster.machine.sessions)
    cluster.gate.clear()
    call = asyncio.ensure_future(other.post(ACQUIRE, {"wait_ms": 60_000}))
    await until(lambda: attempt._live)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    cluster.gate.set()
    await settled()
    assert cluster.machine.waiting == 0
    assert set(cluster.machine.sessions) == before
    assert (await worker.get(LOCK)).json()["holder"]["session"] == held


async def test_hanging_up_does_not_take_a_lock_away_that_the_session_had_before(
    worker: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    undo = attempt.Attempt(access.client(), "default", "worker", "deploy")
    acquired = await undo.run(int(held[1:]), None, 0)
    undo.abandon()
    await settled()
    assert (await worker.get(LOCK)).json()["token"] == acquired.token


async def test_a_later_call_of_a_session_takes_over_and_the_older_one_takes_nothing_back(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    session, _, hang_up = await _session_in_line(cluster, other)
    before = next(iter(cluster.machine.locks["deploy"].queue))
    retry = asyncio.ensure_future(other.post(ACQUIRE, {"session": session, "wait_ms": 60_000}))
    await until(lambda: before not in cluster.machine.locks["deploy"].queue)
    await hang_up()
    await settled_but_for(retry)
    assert cluster.machine.waiting == 1
    await worker.post(RELEASE, {"session": held})
    assert (await retry).json()["session"] == session
    await settled()
    assert (await worker.get(LOCK)).json()["holder"]["session"] == session


async def test_a_later_call_that_does_not_wait_leaves_no_place_in_line_that_nobody_waits_in(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    """It took the place over, was refused, and left it: the session was granted the lock later, and nobody knew."""
    held = await _hold(worker)
    session, call, _ = await _session_in_line(cluster, other)
    tried = await other.post(ACQUIRE, {"session": session})
    assert (tried.status_code, tried.json()["error"]) == (409, "not-acquired")
    assert (await call).status_code == 409
    await settled()
    assert cluster.machine.waiting == 0
    await worker.post(RELEASE, {"session": held})
    assert (await worker.get(LOCK)).json()["holder"] is None


async def settled_but_for(call: asyncio.Future[Any]) -> None:
    await until(lambda: len(attempt._live) == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not call.done()


async def test_a_waiter_survives_a_time_without_a_leader(
    worker: Bearer, other: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "RETRY_S", 0.001)
    held = await _hold(worker)
    call, _ = await _waiting_call(cluster, other)
    cluster.has_leader = False
    cluster.changed.set()
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert not call.done()
    cluster.has_leader = True
    await worker.post(RELEASE, {"session": held})
    assert (await call).status_code == 200


async def test_a_wait_that_ends_without_a_leader_says_so(worker: Bearer, other: Bearer, cluster: FakeCluster) -> None:
    await _hold(worker)
    call, _ = await _waiting_call(cluster, other, wait_ms=300)
    cluster.has_leader = False
    cluster.changed.set()
    cluster.changed = asyncio.Event()
    assert (await call).status_code == 503


async def test_more_waiting_calls_than_the_bound_are_refused(
    worker: Bearer, other: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "WAITING_MAX", 1)
    await _hold(worker)
    _, hang_up = await _waiting_call(cluster, other)
    response = await other.post(ACQUIRE, {"wait_ms": 1000})
    assert response.status_code == 429
    assert (response.json()["error"], response.json()["retry_after_ms"]) == ("busy", 1_000)
    assert response["Retry-After"] == "1"
    await hang_up()


@pytest.mark.parametrize(("seconds", "told"), [(0.31, "1"), (1.0, "1"), (1.001, "2"), (7.5, "8")])
async def test_where_there_is_no_room_the_answer_says_when_to_ask_again(
    worker: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise errors.Busy("the leader has as much before it as it takes", retry_after=seconds)

    before = set(cluster.machine.sessions)
    with monkeypatch.context() as full:
        full.setattr(FakeClient, "command", refuse)
        response = await worker.post(ACQUIRE)
    body = {
        "error": "busy",
        "detail": "the leader has as much before it as it takes",
        "retry_after_ms": round(seconds * 1_000),
    }
    assert (response.status_code, response.json()) == (429, body)
    assert response["Retry-After"] == told
    await settled()
    assert set(cluster.machine.sessions) == before
    assert (await worker.post(ACQUIRE)).status_code == 200


async def test_when_the_process_ends_its_waiters_are_told_and_leave_nothing(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await _hold(worker)
    before = set(cluster.machine.sessions)
    call, _ = await _waiting_call(cluster, other)
    asgi._answer_all()
    response = await call
    assert response.status_code == 503
    assert response["Retry-After"] == "1"
    await settled()
    assert cluster.machine.waiting == 0
    assert set(cluster.machine.sessions) == before


async def test_when_the_process_ends_a_named_session_keeps_its_place_in_line(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    held = await _hold(worker)
    session, call, _ = await _session_in_line(cluster, other)
    attempt.end_all()
    assert (await call).status_code == 503
    await settled()
    assert cluster.machine.waiting == 1
    again = asyncio.ensure_future(other.post(ACQUIRE, {"session": session, "wait_ms": 60_000}))
    await until(lambda: attempt._waiting)
    await worker.post(RELEASE, {"session": held})
    assert (await again).json()["session"] == session


async def test_when_no_answer_comes_a_caller_without_a_session_is_told_that_nothing_was_acquired(
    worker: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.get(LOCK)
    original = FakeClient.command

    async def lost(self: FakeClient, op: Any, **options: Any) -> Any:
        result = await original(self, op, **options)
        if isinstance(op, commands.AcquireLock):
            raise errors.OutcomeUnknown("sent, and no answer came in time")
        return result

    monkeypatch.setattr(FakeClient, "command", lost)
    response = await worker.post(ACQUIRE)
    assert response.status_code == 503
    assert response.json()["error"] == "unavailable"
    await settled()
    assert "deploy" not in cluster.machine.locks
    session = (await worker.post(f"{API}/sessions")).json()["session"]
    response = await worker.post(ACQUIRE, {"session": session})
    assert response.status_code == 503
    assert response.json()["error"] == "outcome-unknown"
    assert "deploy" in cluster.machine.locks
