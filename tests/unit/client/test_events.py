"""Events of locks, and fail-overs, as a client hears them: in order, each once, whatever becomes of leaders."""

from __future__ import annotations

import pytest

from coordinator.client.errors import Compacted, InvalidRequest, Unavailable
from coordinator.client.events import FailOver
from coordinator.statemachine import lock_events
from coordinator.statemachine.files import ChangeView
from coordinator.statemachine.lock_commands import LockEvent, ReadLockEvents
from coordinator.wire import EventsRequest
from tests.unit.client.cluster import Cluster, TestClient


def brief(event: object) -> object:
    if isinstance(event, LockEvent):
        return event.kind, event.name, event.waits
    return event.after and event.after.value if isinstance(event, ChangeView) else event


def test_a_holder_learns_who_wants_what_it_holds(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("a")
    conflicts = hold.conflicts()
    assert conflicts.next(timeout=0.1) is None
    other = cluster.client()
    waiting = other.later_of(other.locks).acquire("a", shared=True)
    event = next(conflicts)
    assert (event.kind, event.mode, event.waits, event.token) == ("conflict", "shared", True, hold.token)
    hold.release()
    mine = waiting.value()
    assert (mine.session, mine.acquisition) == (event.holder.session, event.holder.acquisition)


def test_whoever_was_in_line_before_the_grant_is_told_too(cluster: Cluster, client: TestClient):
    first, third = client.locks.acquire("a"), cluster.client()
    second = cluster.client()
    waits = second.later_of(second.locks).acquire("a")
    cluster.pass_time(0.05)
    third.later_of(third.locks).acquire("a")
    cluster.pass_time(0.05)
    first.release()
    hold = waits.value()
    event = next(hold.conflicts())
    assert (event.revision, event.holder.session) == (hold.token, third.core.sessions[15_000].session)


def test_a_holders_own_wish_for_an_upgrade_is_not_told_to_it(cluster: Cluster, client: TestClient):
    one, other = client.locks.acquire("a", shared=True), cluster.client()
    two = other.locks.acquire("a", shared=True)
    upgrading = client.later_of(one).upgrade()
    cluster.pass_time(0.05)
    assert one.conflicts().next(timeout=0.05) is None
    assert next(two.conflicts()).mode == "exclusive"
    two.release()
    upgrading.value()


def test_of_several_names_one_is_said(client: TestClient):
    hold = client.locks.acquire("a", "b")
    with pytest.raises(InvalidRequest, match="say for which"):
        hold.conflicts()
    with pytest.raises(InvalidRequest, match="not 'c'"):
        hold.conflicts("c")
    assert hold.conflicts("b").next(timeout=0.01) is None


def test_a_watch_of_locks_tells_what_was_asked_for(client: TestClient):
    watch = client.locks.watch("build/", prefix=True)
    grants = client.locks.watch("build/", prefix=True, conflicts=False, released=False)
    ends = client.locks.watch("build/", prefix=True, acquired=False, conflicts=False)
    assert watch.begin() == grants.begin() == ends.begin() == client.cluster.machine.applied + 1
    held = client.locks.acquire("build/1")
    client.locks.acquire("other")
    with pytest.raises(Exception, match="build/1"):
        client.locks.acquire("build/1", wait=0)
    held.release()
    client.locks.acquire("build/1")
    assert [brief(next(watch)) for _ in range(4)] == [
        ("acquired", "build/1", False),
        ("conflict", "build/1", False),
        ("released", "build/1", False),
        ("acquired", "build/1", False),
    ]
    assert [next(grants).kind for _ in range(2)] == ["acquired", "acquired"]
    assert grants.next(timeout=0.05) is None
    client.locks.force_release("build/1", "it hangs")
    assert [next(ends).kind for _ in range(2)] == ["released", "forced"]
    assert next(watch).kind == "forced"
    assert client.locks.breaks()[-1].index == watch.since - 1
    again = client.locks.watch("build/", prefix=True, since=watch.since, skip=watch.skip)
    assert again.next(timeout=0.05) is None


def test_a_fail_over_is_told_where_it_belongs_among_the_events(cluster: Cluster, client: TestClient):
    watch = client.locks.watch("", prefix=True)
    watch.begin()
    client.locks.acquire("a")
    cluster.pass_time(0.05)
    assert brief(next(watch)) == ("acquired", "a", False)
    cluster.kill_leader()
    failed_over = next(watch)
    assert failed_over == FailOver(cluster.leader, cluster.term)
    client.locks.acquire("b")
    assert brief(next(watch)) == ("acquired", "b", False)


def test_a_fail_over_is_told_though_nothing_happens(cluster: Cluster, client: TestClient):
    watch = client.files.events("a")
    waiting = client.later_of(watch).next()
    cluster.pass_time(0.5)
    assert not waiting.is_over
    cluster.kill_leader()
    cluster.pass_time(1)
    assert waiting.value() == FailOver(cluster.leader, cluster.term)
    assert watch.next(timeout=0.1) is None


def test_changes_before_and_behind_a_fail_over(cluster: Cluster, client: TestClient):
    watch = client.files.events("a")
    watch.begin()
    client.put("a", b"1")
    assert brief(next(watch)) == b"1"
    cluster.kill_leader()
    client.put("a", b"2")
    assert [brief(next(watch)) for _ in range(2)] == [FailOver(cluster.leader, cluster.term), b"2"]


def test_fail_overs_are_left_out_where_nobody_wants_them(cluster: Cluster, client: TestClient):
    watch = client.locks.watch("a", failovers=False)
    watch.begin()
    cluster.kill_leader()
    client.locks.acquire("a")
    assert brief(next(watch)) == ("acquired", "a", False)


def test_nothing_is_lost_with_an_answer(cluster: Cluster, client: TestClient):
    writer = cluster.client()
    watch = client.locks.watch("a")
    watch.begin()
    waiting = client.later_of(watch).next()
    cluster.pass_time(0.1)
    cluster.loses = lambda request: isinstance(request, EventsRequest)
    writer.locks.acquire("a")
    cluster.pass_time(0.1)
    cluster.loses = lambda request: False
    assert brief(waiting.value()) == ("acquired", "a", False)
    assert watch.next(timeout=0.1) is None


@pytest.mark.interpreted
def test_a_watch_that_comes_too_late_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 2)
    hold = client.locks.acquire("a")
    for number in range(3):
        client.locks.acquire(f"b{number}")
    with pytest.raises(Compacted) as late:
        next(hold.conflicts())
    watch = client.locks.watch("", prefix=True, since=late.value.oldest + 1)
    assert [next(watch).name for _ in range(2)] == ["b1", "b2"]


def test_a_cluster_that_keeps_none_refuses(cluster: Cluster, client: TestClient):
    cluster.machine.state.level = 3
    with pytest.raises(Exception, match="from level 4 on"):
        client.locks.watch("a").begin()


def test_a_page_is_waited_for_from_one_place_on(cluster: Cluster, client: TestClient):
    other = cluster.client()
    query = ReadLockEvents("a")
    waiting = client.later_of(client).wait_for_lock_events(query, wait=30)
    cluster.pass_time(0.2)
    cluster.kill_leader()
    hold = other.locks.acquire("a")
    page, leader, term = waiting.value()
    assert [event.token for event in page.events] == [hold.token]
    assert (leader, term) == ("node2", 2)
    again = ReadLockEvents("a", since=page.since, skip=page.skip)
    assert client.wait_for_lock_events(again, wait=0.2).page.events == ()
    waiting = client.later_of(client).wait_for_lock_events(again, wait=30, term=term)
    cluster.pass_time(0.2)
    assert not waiting.is_over
    began_us = cluster.now_us
    cluster.kill_leader()
    heard = waiting.value()
    assert (heard.leader, heard.term, heard.page.events) == ("node3", 3, ()), "who leads is told though nothing came"
    assert cluster.now_us - began_us < 2_000_000
    cluster.lose_leader()
    with pytest.raises(Unavailable):
        client.wait_for_lock_events(again, wait=0.2)
