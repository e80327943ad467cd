"""Watches over dead leaders, lost answers and compaction: each change once, in order, or a word that some are gone."""

from __future__ import annotations

import pytest

from coordinator.client import transactions as t
from coordinator.client.errors import Closed, Compacted, Unavailable
from coordinator.client.transactions import Transaction
from coordinator.client.watches import Follow, Snapshot, Watch
from coordinator.statemachine.files import ChangeView, KeyView
from coordinator.wire import WatchRequest
from tests.unit.client.cluster import Cluster, TestClient


def told(watch: Watch, count: int) -> list[tuple[str, bytes | None]]:
    found = [watch.next(timeout=5) for _ in range(count)]
    return [(change.key, change.after and change.after.value) for change in found if change is not None]


def test_a_watch_tells_each_change_in_order(client: TestClient):
    first = client.put("a/1", b"1")
    watch = client.files.watch("a/", prefix=True, since=first, previous=True)
    client.put("a/2", b"2")
    client.put("b", b"no")
    client.delete("a/1")
    changes = [watch.next() for _ in range(3)]
    assert [(change.key, change.after is None) for change in changes] == [("a/1", False), ("a/2", False), ("a/1", True)]
    assert changes[2].before.value == b"1"
    assert watch.next(timeout=0.2) is None


def test_a_watch_from_now_on_begins_where_it_is_told_to(client: TestClient):
    client.put("a", b"0")
    watch = client.files.watch("a")
    assert watch.begin() == client.cluster.machine.applied + 1
    client.put("a", b"1")
    assert next(watch).after.value == b"1"


def test_a_watch_from_now_on_loses_nothing_though_its_question_is_asked_again(cluster: Cluster, client: TestClient):
    """ "From now on" would be another place each time."""
    writer = cluster.client()
    watch = client.files.watch("a")
    waiting = client.later_of(watch).next()
    cluster.pass_time(0.1)
    cluster.loses = lambda request: isinstance(request, WatchRequest)
    writer.put("a", b"1")
    cluster.pass_time(0.1)
    cluster.loses = lambda request: False
    assert waiting.value().after.value == b"1"


def test_an_idle_watch_asks_and_knocks_seldom(cluster: Cluster, client: TestClient):
    client.put("a", b"1")
    waiting = client.later_of(client.files.watch("a", since=client.put("a", b"2") + 1)).next()
    cluster.pass_time(1)
    before = cluster.served
    cluster.pass_time(60)
    assert cluster.served - before < 60 * 2, "its questions, knocks, and its session's keep-alives"
    client.put("a", b"3")
    assert waiting.value().after.value == b"3"


def test_what_is_not_asked_for_is_not_told(client: TestClient):
    puts, deletes = client.files.watch("a", since=1, deletes=False), client.files.watch("a", since=1, puts=False)
    client.put("a", b"1")
    client.delete("a")
    assert told(puts, 2) == [("a", b"1")]
    assert told(deletes, 2) == [("a", None)]


def test_a_watch_goes_on_over_dead_leaders_lost_questions_and_lost_answers(cluster: Cluster, client: TestClient):
    writer = cluster.client()
    lost = 0

    def every_third(request: object) -> bool:
        nonlocal lost
        lost += isinstance(request, WatchRequest)
        return isinstance(request, WatchRequest) and lost % 3 == 0

    cluster.loses = every_third
    watch = client.files.watch("n/", prefix=True, since=1)
    seen: list[ChangeView] = []
    for number in range(60):
        writer.put(f"n/{number}", b"%d" % number)
        if number % 10 == 0:
            cluster.kill_leader()
        if number % 7 == 0:
            seen += [next(watch) for _ in range(number - len(seen))]
    seen += [next(watch) for _ in range(60 - len(seen))]
    assert [change.after.value for change in seen] == [b"%d" % number for number in range(60)]
    assert watch.next(timeout=0.1) is None
    assert lost > 10


def test_a_watch_waits_as_long_as_no_leader_answers(cluster: Cluster, client: TestClient):
    watch = client.later_of(client.files.watch("a", since=1)).next()
    cluster.lose_leader()
    cluster.pass_time(30)
    assert not watch.is_over
    cluster.elect()
    client.put("a", b"1")
    assert watch.value().after.value == b"1"


def test_many_changes_of_one_revision_come_whole_over_pages(cluster: Cluster, client: TestClient):
    """A page ends in the middle of a revision: the position is the revision and how many of it were told."""
    size = 120_000
    operations = [t.put(f"k/{number}", bytes(size)) for number in range(20)]
    client.transact(Transaction().then(*operations))
    watch = client.files.watch("k/", prefix=True, since=1)
    keys = []
    for number in range(20):
        keys.append(next(watch).key)
        if number % 4 == 0:
            cluster.kill_leader()
    assert keys == [f"k/{number}" for number in range(20)]
    assert watch.next(timeout=0.1) is None
    again = client.files.watch("k/", prefix=True, since=watch.since, skip=watch.skip)
    client.put("k/next", b"")
    assert next(again).key == "k/next"


def test_an_interrupted_wait_loses_no_change(client: TestClient):
    watch = client.files.watch("a", since=1)
    waiting = client.later_of(watch).next()
    client.cluster.pass_time(0.1)
    waiting.cancel()
    assert client.core.calls_pending == 0, "nor does anything go on asking"
    client.put("a", b"1")
    client.put("a", b"2")
    assert told(watch, 2) == [("a", b"1"), ("a", b"2")]


def test_a_watch_that_comes_too_late_says_so_and_from_where_to_go_on(client: TestClient):
    client.put("a", b"1")
    watch = client.files.watch("a", since=1)
    oldest = client.put("a", b"2")
    last = client.put("a", b"3")
    client.files.compact(oldest)
    with pytest.raises(Compacted) as caught:
        next(watch)
    assert caught.value.oldest == oldest
    resumed = client.files.watch("a", since=caught.value.oldest + 1)
    assert next(resumed).revision == last


def test_a_follower_that_has_yet_to_read_waits_no_longer_than_it_is_told(cluster: Cluster, client: TestClient):
    """It waited for as long as there was no leader."""
    client.put("d/a", b"1")
    follow = client.files.follow("d/", prefix=True)
    cluster.lose_leader()
    began_us = cluster.now_us
    with pytest.raises(Unavailable):
        follow.next(timeout=1)
    assert cluster.now_us - began_us < 12_000_000
    waiting = client.later_of(follow).next()
    cluster.pass_time(30)
    assert not waiting.is_over, "who sets no time waits as long as it takes"
    cluster.elect()
    snapshot = waiting.value()
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.after_gap, [view.value for view in snapshot.keys]) == (False, [b"1"])


def test_a_follower_reads_anew_what_it_missed_and_says_so(cluster: Cluster, client: TestClient):
    client.put("d/a", b"1")
    follow = client.files.follow("d/", prefix=True)
    state: dict[str, bytes | None] = {}

    def take(follow: Follow, count: int) -> list[bool]:
        gaps = []
        for _ in range(count):
            each = follow.next(timeout=5)
            if isinstance(each, Snapshot):
                gaps.append(each.after_gap)
                state.clear()
                state.update((view.key, view.value) for view in each.keys)
            elif isinstance(each, ChangeView):
                state.pop(each.key, None)
                if isinstance(each.after, KeyView):
                    state[each.key] = each.after.value
        return gaps

    assert take(follow, 1) == [False]
    client.put("d/b", b"2")
    client.delete("d/a")
    assert take(follow, 2) == []
    assert state == {"d/b": b"2"}
    for number in range(5):
        client.put(f"d/{number}", b"x")
    client.delete("d/b")
    client.files.compact(client.put("d/c", b"3"))
    assert take(follow, 1) == [True]
    assert state == {f"d/{number}": b"x" for number in range(5)} | {"d/c": b"3"}
    cluster.kill_leader()
    client.put("d/d", b"4")
    assert take(follow, 1) == []
    assert state["d/d"] == b"4"


def test_a_snapshot_is_of_one_revision_however_many_pages_it_has(client: TestClient):
    for number in range(1_200):
        client.put(f"k/{number:04}", b"")
    follow = client.files.follow("", prefix=True)
    first = follow.next()
    assert isinstance(first, Snapshot)
    assert len(first.keys) == 1_200
    client.put("k/0000", b"new")
    change = next(follow)
    assert isinstance(change, ChangeView)
    assert change.revision > first.revision


def test_a_watch_ends_with_its_client(client: TestClient):
    follow = client.files.follow("a")
    follow.next()
    waiting = [client.later_of(client.files.watch("a")).next(), client.later_of(follow).next()]
    client.cluster.pass_time(0.1)
    client.close()
    for each in waiting:
        assert isinstance(each.error, Closed)


def test_while_nothing_changes_a_watch_asks_once_in_five_seconds_and_hears_of_a_change_at_once(
    cluster: Cluster, client: TestClient
):
    writer = cluster.client()
    asked = 0

    def count(request: object) -> bool:
        nonlocal asked
        asked += isinstance(request, WatchRequest)
        return False

    cluster.drops = count
    watch = client.later_of(client.files.watch("a", since=1)).next()
    cluster.pass_time(30)
    assert 5 <= asked <= 7
    writer.put("a", b"1")
    cluster.step()
    assert watch.is_over


def test_a_watch_alone_notices_that_its_leader_died_within_a_fraction_of_a_second(cluster: Cluster, client: TestClient):
    """Whoever only watches sends nothing that would tell it; so it asks now and then whether anyone listens there."""
    watch = client.later_of(client.files.watch("a", since=1)).next()
    cluster.pass_time(3)
    cluster.kill_leader()
    cluster.pass_time(0.5)
    cluster.client().put("a", b"1")
    cluster.step()
    cluster.step()
    assert watch.is_over
