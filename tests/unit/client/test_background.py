"""What goes on though nobody waits for it, and what is left of those who no longer wait."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from coordinator.client import links, lock_flows
from coordinator.client.core import Core
from coordinator.client.errors import Closed, OutcomeUnknown, Unavailable
from coordinator.client.jobs import Job
from coordinator.client.session import Session
from coordinator.client.sync import Client
from coordinator.statemachine.commands import CancelAcquire, PutKey, ReleaseLock
from coordinator.statemachine.lock_commands import Release
from tests.unit.client.cluster import Cluster, TestClient
from tests.unit.client.test_loop import loop_of
from tests.unit.client.test_sync import TOKEN, FakeChannel, until

# --- in the core ----------------------------------------------------------------------------------


def test_after_a_defect_what_nobody_waits_for_goes_on_under_its_number():
    core = Core(TOKEN, "default", Random(1))
    session = core.sessions[15_000] = Session(7, 15_000, 0)
    asked = core.command(session, PutKey("a", b""), 0, 5_000_000)
    goes_on = core.in_background(session, CancelAcquire("a", 1, 1), 0)
    lost = session.next_number()
    core.fail_all(Unavailable("a defect"))
    assert isinstance(asked.outcome, Unavailable)
    assert not goes_on.done
    assert session.acked == goes_on.number < lost, "the cluster must not forget its result before"
    goes_on.due_us = 1 << 60
    core.link_up(9)
    assert goes_on.due_us == 9
    core.fail_all(Closed())
    assert isinstance(goes_on.outcome, Closed)
    assert session.acked == lost + 1


def test_what_goes_on_is_given_up_after_an_hour():
    core = Core(TOKEN, "default", Random(1))
    goes_on = core.in_background(Session(7, 15_000, 0), CancelAcquire("a", 1, 1), 0)
    core.give_up(3_600_000_000)
    assert goes_on.done


# --- in a client for threads ----------------------------------------------------------------------


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        yield client


def strike(client: Client) -> None:
    """A defect, in the middle of the client's work."""
    FakeChannel.made.breaks = True
    with pytest.raises(Unavailable, match="a defect in the client"):
        client.put("a", b"")


def test_a_lock_whose_release_was_not_answered_is_let_go_through_a_defect_too(client):
    channel = FakeChannel.made
    lease = client.acquire("deploy")
    channel.holds_back = lambda op: isinstance(op, (ReleaseLock, CancelAcquire))
    with pytest.raises(OutcomeUnknown):
        lease.release(timeout=0.05)
    until(lambda: any(isinstance(op, CancelAcquire) for op in channel.ops))
    strike(client)
    channel.holds_back = lambda op: False
    before = len(channel.ops)
    until(lambda: any(isinstance(op, CancelAcquire) for op in channel.ops[before:]))


def test_a_grant_that_is_given_back_goes_back_through_a_defect_too(client):
    channel = FakeChannel.made
    hold = client.locks.acquire("a", "b")
    channel.holds_back = lambda op: isinstance(op, Release)
    loop = loop_of(client)

    def flow(core):
        lock_flows.give_back(core, client.clock, hold._state.grant)
        return
        yield

    loop.ask(Job(loop, flow(loop.core), None))
    until(lambda: any(isinstance(op, Release) for op in channel.ops))
    strike(client)
    before = len(channel.ops)
    until(lambda: any(isinstance(op, Release) for op in channel.ops[before:]))


def test_a_session_is_guarded_through_a_defect_too(client):
    session = client.session(ttl=15, grace=3)
    strike(client)
    core = loop_of(client).core
    assert core._keeper._guards == {session.session: (core.sessions[15_000], 3_000_000)}


# --- what is left ---------------------------------------------------------------------------------


def test_however_often_a_session_is_asked_for_one_guards_it_with_the_least_grace(cluster: Cluster, user: TestClient):
    handles = [user.session(ttl=2, grace=grace) for grace in (30, 5, 10)]
    assert len(user.core._keeper._guards) == 1
    assert user.running == []
    user.is_cut_off = True
    cluster.pass_time(6)
    assert not handles[0]._session.gone
    cluster.pass_time(2)
    assert handles[0]._session.gone
    assert user.core._keeper._guards == {}


@pytest.fixture
def user(cluster: Cluster) -> TestClient:
    return cluster.client()


def test_questions_that_failed_for_want_of_a_leader_leave_nothing_behind(cluster: Cluster, user: TestClient):
    core = user.core
    cluster.lose_leader()
    for _ in range(3):
        with pytest.raises(Unavailable):
            user.files.create("a", ttl=7, timeout=0.2)
    assert len(core._keeper._opening[7_000]) == 0
    assert core.calls_pending == 1, "the session is being opened"
    cluster.elect()
    user.put("a", b"")
    cluster.lose_leader()
    cluster.pass_time(16)
    for _ in range(3):
        with pytest.raises(Unavailable):
            user.files.create("b", timeout=0.2)
    assert [len(waiting) for waiting in core._keeper._revivals.values()] == [0]
    assert core.calls_pending == 0


@pytest.mark.interpreted
def test_a_client_that_is_asked_for_many_times_to_live_is_warned_of_once(
    cluster: Cluster, user: TestClient, monkeypatch, caplog
):
    monkeypatch.setattr("coordinator.client.session_keeper.SESSIONS_MANY", 3)
    for ttl in (2, 2, 3, 4, 5, 6):
        user.files.create(f"f{ttl}", sequential=True, ttl=ttl)
    assert [record.getMessage()[:35] for record in caplog.records] == ["this client keeps 3 sessions alive,"]
