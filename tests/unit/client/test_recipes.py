"""Recipes over the state machine itself: what each promises, with leaders and members that die."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator import wire
from coordinator.client.asking import Sync
from coordinator.client.errors import (
    Exists,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WrongKind,
)
from coordinator.client.recipes.barrier import Barrier
from coordinator.client.recipes.counter import Counter
from coordinator.client.recipes.double_barrier import DoubleBarrier
from coordinator.client.recipes.election import LOOKS_EVERY_S, Election, Leader, Leadership, Observed, Proclaimed
from coordinator.client.recipes.group import Change, Group, Member, Members, Membership
from coordinator.client.recipes.queue import Item, Queue
from coordinator.statemachine.commands import AcquireLock
from tests.unit.client.cluster import Cluster, Running, TestClient


@pytest.fixture
def other(cluster: Cluster) -> TestClient:
    return cluster.client()


# --- elections ------------------------------------------------------------------------------------


def test_candidates_lead_one_after_the_other_each_with_a_higher_token(client: TestClient, other: TestClient):
    assert Election(client, "e").leader() is None
    first = Election(client, "e").campaign(b"one")
    second: Running[Leadership] = Election(other.later, "e").campaign(b"two")
    client.cluster.pass_time(0.2)
    assert not second.is_over
    leader = Election(other, "e").leader()
    assert leader is not None
    assert (leader.session, leader.token, leader.value) == (first.session, first.token, b"one")
    assert first.resign()
    leadership = second.value()
    assert leadership.token > first.token
    assert Election(client, "e").leader() == (leadership.session, "root", leadership.token, b"two")
    with pytest.raises(LeaseLost):
        first.proclaim(b"late")


def test_a_leader_that_died_gives_way_and_proclaims_nothing_any_more(cluster: Cluster, client: TestClient):
    other = cluster.client()
    first = Election(client, "e", ttl=2).campaign(b"one")
    second: Running[Leadership] = Election(other.later, "e", ttl=2).campaign(b"two")
    client.is_cut_off = True
    cluster.pass_time(5)
    assert second.is_over
    assert not first.held
    client.is_cut_off = False
    with pytest.raises(LeaseLost):
        first.proclaim(b"back again")
    assert client.get("e") == b"two"
    late: Leadership[Sync] = Leadership(client, first._state.grant)
    late.check = lambda: None  # type: ignore[method-assign]  # One that does not look before it speaks.
    with pytest.raises(LeaseLost):
        late.proclaim(b"back again")
    assert client.get("e") == b"two"


def test_a_value_of_the_leader_before_is_not_taken_for_the_present_ones(client: TestClient, other: TestClient):
    Election(client, "e").campaign(b"old").resign()
    lease = other.later.acquire_plain("e").value()
    leader = Election(client, "e").leader()
    assert leader is not None
    assert (leader.token, leader.value) == (lease.token, None)


def test_observers_see_each_proclamation_in_order(cluster: Cluster, client: TestClient):
    leadership = Election(client, "e").campaign(b"1")
    observer = Election(cluster.client(), "e").proclamations()
    assert next(observer).value == b"1"
    for value in (b"2", b"3"):
        leadership.proclaim(value)
    cluster.kill_leader()
    leadership.proclaim(b"4")
    seen = [observer.next(timeout=2) for _ in range(3)]
    assert [each.value for each in seen if isinstance(each, Proclaimed)] == [b"2", b"3", b"4"]
    assert observer.next(timeout=0.1) is None


def test_observers_are_told_who_leads_and_that_nobody_does(cluster: Cluster, client: TestClient, other: TestClient):
    client.put("e", b"of one long gone")
    observer = Election(cluster.client(), "e").observe()
    assert next(observer) == Observed(None), "what another proclaimed is not the present one's"
    first = Election(client, "e").campaign(b"1")
    assert next(observer) == Observed(Leader(first.session, "root", first.token, b"1"))
    began_us = cluster.now_us
    first.proclaim(b"2")
    assert next(observer) == Observed(Leader(first.session, "root", first.token, b"2"))
    assert cluster.now_us - began_us < 1_000_000, "a proclamation wakes it"
    waiting = Election(other.later, "e").campaign(b"3")
    cluster.pass_time(0.1)
    first.resign()
    second = waiting.value()
    told = next(observer).leader
    assert told is not None
    assert (told.session, told.token, told.value) == (second.session, second.token, b"3")
    assert observer.next(timeout=12) is None, "nothing is told twice"
    Election(other, "e", ttl=15)
    other.die()
    began_us = cluster.now_us
    assert next(observer) == Observed(None)
    assert cluster.now_us - began_us < (15 + LOOKS_EVERY_S + 1) * 1_000_000
    lease = client.later.acquire_plain("e").value()
    told = next(observer).leader
    assert told is not None
    assert (told.token, told.value) == (lease.token, None), "one that proclaims nothing leads all the same"


def test_who_leads_no_more_proclaims_nothing(cluster: Cluster, client: TestClient, other: TestClient):
    first = Election(client, "e").campaign(b"1")
    other.locks.force_release("e", "it hangs")
    second = Election(other, "e").campaign(b"2")
    with pytest.raises(LeaseLost):
        first.proclaim(b"late")
    told = next(Election(cluster.client(), "e").observe()).leader
    assert told is not None
    assert (told.token, told.value) == (second.token, b"2")


def test_observers_ask_seldom_while_the_same_one_leads(cluster: Cluster, client: TestClient):
    observer = Election(cluster.client(), "e").observe()
    first = Election(client, "e").campaign(b"1")
    assert next(observer).leader is not None
    first.proclaim(b"2")
    assert next(observer).leader is not None
    before = cluster.served
    assert observer.next(timeout=60) is None
    assert cluster.served - before <= 60 / LOOKS_EVERY_S * 10


def test_observers_see_a_resignation_as_soon_as_they_look(cluster: Cluster, client: TestClient):
    observer = Election(cluster.client(), "e").observe(every=0.2)
    first = Election(client, "e").campaign(b"1")
    assert next(observer).leader is not None
    waiting = client.later_of(observer).next()
    cluster.pass_time(1)
    assert not waiting.is_over
    first.resign()
    began_us = cluster.now_us
    assert waiting.value() == Observed(None)
    assert cluster.now_us - began_us < 400_000
    with pytest.raises(InvalidRequest, match="every is a number of seconds"):
        Election(client, "e").observe(every=0)


def test_observers_go_on_over_dead_leaders_and_lost_history(cluster: Cluster, client: TestClient):
    watcher = cluster.client()
    observer = Election(watcher, "e").observe()
    leadership = Election(client, "e").campaign(b"1")
    told = next(observer).leader
    assert told is not None
    assert told.value == b"1"
    leadership.proclaim(b"2")
    client.files.compact(client.put("other", b""))
    waiting = watcher.later_of(observer).next()
    cluster.kill_leader()
    told = waiting.value().leader
    assert told is not None
    assert told.value == b"2"
    cluster.lose_leader()
    with pytest.raises(Unavailable):
        observer.next(timeout=0.2)
    cluster.elect()
    taken = watcher.later_of(observer).next()
    leadership.proclaim(b"3")
    told = taken.value().leader
    assert told is not None
    assert told.value == b"3"


def test_what_an_observer_was_not_told_is_told_again(cluster: Cluster, client: TestClient):
    leadership = Election(client, "e").campaign(b"1")
    observer = Election(client, "e").observe()
    ask = observer._next(None)
    told = client.answer(ask)
    assert ask.undo is not None
    ask.undo(client.core, told)
    assert next(observer) == told
    leadership.proclaim(b"2")
    assert next(observer) != told


def test_a_candidate_that_gives_up_leaves_no_trace(client: TestClient, other: TestClient):
    with Election(client, "e").campaign():
        with pytest.raises(LockNotAcquired):
            Election(other, "e").campaign(wait=0.2)
        leaving: Running[Leadership] = Election(other.later, "e").campaign()
        client.cluster.pass_time(0.05)
        leaving.cancel()
        client.cluster.pass_time(0.05)
        assert client.locks.look("e").waiting == 0
    assert client.locks.look("e").holding == 0


def test_one_who_may_not_proclaim_does_not_keep_the_name(cluster: Cluster, client: TestClient):
    cluster.grant("worker", "lock")
    with pytest.raises(Forbidden, match="lacks the right"):
        Election(cluster.client("worker"), "e").campaign(b"1")
    cluster.pass_time(0.1)
    assert client.locks.look("e").holding == 0


# --- groups ---------------------------------------------------------------------------------------


def test_members_come_and_go_with_their_sessions(cluster: Cluster, client: TestClient):
    watcher = cluster.client()
    follow = Group(watcher, "g").follow()
    assert next(follow) == Members({}, watcher.cluster.machine.applied, False)
    one, other = Group(client, "g", ttl=2), cluster.client()
    membership = one.join("a", b"1")
    Group(other, "g", ttl=2).join("b", b"2")
    membership.update(b"11")
    assert one.members() == {"a": b"11", "b": b"2"}
    other.die()
    cluster.kill_leader()
    cluster.pass_time(3)
    assert Group(watcher, "g").members() == {"a": b"11"}
    assert membership.held
    assert 0 < membership.expires_in <= 2
    assert membership.leave()
    assert not membership.leave()
    told = [follow.next(timeout=2) for _ in range(5)]
    assert [(each.name, each.data) for each in told if isinstance(each, Change)] == [
        ("a", b"1"),
        ("b", b"2"),
        ("a", b"11"),
        ("b", None),
        ("a", None),
    ]
    with pytest.raises(NotFound):
        membership.update(b"")


def test_a_member_that_can_not_say_that_it_leaves_is_not_told_that_it_was_none(cluster: Cluster, client: TestClient):
    """Nor is its session given up."""
    membership = Group(client, "g").join("a")
    cluster.lose_leader()
    with pytest.raises(Unavailable):
        membership.leave(timeout=1)
    cluster.elect()
    assert membership.held
    assert membership.leave()


def test_a_name_is_one_members_at_a_time(client: TestClient, other: TestClient):
    Group(client, "g").join("a")
    with pytest.raises(Exists):
        Group(other, "g").join("a")
    for name in ("", "a/b"):
        with pytest.raises(InvalidRequest, match="without slashes"):
            Group(client, "g").join(name)


def test_members_say_what_they_can_do_and_are_found_by_it(cluster: Cluster, client: TestClient, other: TestClient):
    group = Group(client, "g")
    follow = group.follow()
    next(follow)
    one = group.join("a", b"4 cores", capabilities=["ssd", "gpu", "gpu"])
    Group(other, "g").join("b", b"8 cores")
    other.files.create("g/c", b"#capabilities gpu  x86\n", ephemeral=True)  # as over HTTP
    assert group.members() == {"a": b"4 cores", "b": b"8 cores", "c": b""}
    assert group.members(capabilities={"gpu"}) == {"a": b"4 cores", "c": b""}
    assert group.members(capabilities=("gpu", "ssd")) == {"a": b"4 cores"}
    assert group.look(capabilities={"x86"}) == {"c": Member(b"", frozenset({"gpu", "x86"}))}
    one.update(b"2 cores")
    assert group.members(capabilities={"ssd"}) == {"a": b"2 cores"}, "what it can do stays"
    one.update(b"2 cores", capabilities=())
    assert client.files.read("g/a").value == b"2 cores"
    one.update(b"1 core")
    assert one.capabilities == group.look()["a"].capabilities == frozenset(), "what it can do no more stays so, too"
    told = [each for _ in range(6) if isinstance(each := next(follow), Change)]
    assert [(each.name, each.data, sorted(each.capabilities)) for each in told] == [
        ("a", b"4 cores", ["gpu", "ssd"]),
        ("b", b"8 cores", []),
        ("c", b"", ["gpu", "x86"]),
        ("a", b"2 cores", ["gpu", "ssd"]),
        ("a", b"2 cores", []),
        ("a", b"1 core", []),
    ]
    begun = next(Group(client, "g").follow())
    assert isinstance(begun, Members)
    assert begun.capabilities == {"c": frozenset({"gpu", "x86"})}


@pytest.mark.parametrize("data", [b"", b"\n", b"4 cores\n", b"#capabilities", b"#capabilities gpu\nx", b"\x00\xff"])
@pytest.mark.parametrize("words", [(), ("gpu",), ("b", "a/1:2.3")])
def test_data_of_members_comes_back_as_it_is(client: TestClient, data: bytes, words: tuple[str, ...]):
    group = Group(client, "g")
    group.join("a", data, capabilities=words)
    assert group.look() == {"a": Member(data, frozenset(words))}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gpu", "such as {'gpu'}, got 'gpu'"),
        (["a b"], "got 'a b'"),
        ([""], "1 to 64 letters"),
        ([7], "got 7"),
        (["x" * 65], "1 to 64 letters"),
        ([f"c{number}" for number in range(65)], "at most 64 capabilities, got 65"),
    ],
)
def test_what_is_no_capability_is_refused(client: TestClient, words: Any, said: str):
    with pytest.raises(InvalidRequest) as caught:
        Group(client, "g").join("a", capabilities=words)
    assert said in str(caught.value)


def test_a_membership_that_is_over_changes_nothing_of_who_has_its_name_now(
    cluster: Cluster, client: TestClient, other: TestClient
):
    before = Group(client, "g", ttl=2).join("a", b"before")
    cluster.expire(before.session)
    cluster.pass_time(1)
    with pytest.raises(NotFound):
        before.update(b"late")
    now = Group(other, "g").join("a", b"now")
    with pytest.raises(NotFound, match="another by now"):
        before.update(b"late", capabilities={"gpu"})
    assert not before.leave()
    assert Group(client, "g").look() == {"a": Member(b"now", frozenset())}
    assert (before.capabilities, now.update(b"later") > 0) == (frozenset(), True)


def test_a_member_whose_session_went_unseen_has_left(cluster: Cluster, client: TestClient):
    """It was told that the outcome is unknown, at the end of its work."""
    member = Group(client, "g", ttl=2).join("a")
    cluster.expire(member.session)
    assert member.leave() is False
    assert not member.held


def test_who_asks_for_members_while_nobody_leads_is_told_so_in_time(cluster: Cluster, client: TestClient):
    """It waited for as long as there was no leader."""
    group = Group(client, "g")
    group.join("a")
    cluster.lose_leader()
    began_us = cluster.now_us
    for ask in (group.members, group.look):
        with pytest.raises(Unavailable):
            ask()
    assert cluster.now_us - began_us < 2.1 * client.timeout_us


def test_who_leaves_while_it_joins_is_no_member(cluster: Cluster, client: TestClient, other: TestClient):
    """It was one for as long as its process lived, and could not leave: nobody had the membership."""
    client.put("x", b"")
    cluster.loses = lambda request: isinstance(request, wire.CommandRequest)
    joining = Group(client.later, "g").join("a")
    cluster.pass_time(0.1)
    joining.cancel()
    cluster.pass_time(20)
    cluster.kill_leader()
    cluster.loses = lambda request: False
    cluster.pass_time(3)
    assert Group(other, "g").members() == {}
    Group(client, "g").join("a")
    again = Group(client.later, "g").join("a")
    again.cancel()
    cluster.pass_time(3)
    assert Group(other, "g").members() == {"a": b""}, "nothing is taken from a member of the same session"


def test_who_leaves_before_anything_was_sent_leaves_nothing_to_be_done(cluster: Cluster, client: TestClient):
    client.put("x", b"")
    cluster.lose_leader()
    client.later.get("x")  # By which it learns that nobody leads.
    cluster.pass_time(0.1)
    pending = client.core.calls_pending
    joining = Group(client.later, "g").join("a")
    cluster.pass_time(0.1)
    joining.cancel()
    assert client.core.calls_pending == pending


def test_a_membership_that_its_asker_left_goes_though_nobody_leads_for_long(cluster: Cluster, client: TestClient):
    ask = Group.join.describe(Group(client, "g"), "a")
    left: Membership = client.answer(ask)
    assert ask.undo is not None
    cluster.lose_leader()
    ask.undo(client.core, left)
    cluster.pass_time(2)
    cluster.elect()
    cluster.pass_time(2)
    assert Group(cluster.client(), "g").members() == {}


# --- barriers -------------------------------------------------------------------------------------


def test_whoever_comes_to_a_closed_barrier_waits_until_it_is_open(cluster: Cluster, client: TestClient):
    barrier = Barrier(client, "gates/one")
    assert barrier.wait(wait=0), "an open one holds nobody up"
    assert barrier.close()
    assert not barrier.close()
    waiting = [Barrier(cluster.client().later, "gates/one").wait() for _ in range(3)]
    cluster.kill_leader()
    cluster.pass_time(1)
    assert not any(each.is_over for each in waiting)
    assert not barrier.wait(wait=0.1)
    assert barrier.open()
    assert all(each.value() for each in waiting)
    assert not barrier.open()


def test_a_barrier_that_is_closed_again_at_once_has_let_everybody_go(cluster: Cluster, client: TestClient):
    barrier = Barrier(client, "gate")
    barrier.close()
    waiting = Barrier(cluster.client().later, "gate").wait()
    cluster.pass_time(0.5)
    barrier.open()
    barrier.close()
    assert waiting.value()


def test_a_barrier_that_was_closed_longer_ago_than_changes_are_kept_is_waited_at(cluster: Cluster, client: TestClient):
    """Each waiter asked the leader as fast as it answered, for as long as the barrier was closed, whatever its wait."""
    barrier = Barrier(client, "gate")
    barrier.close()
    client.put("x", b"")
    client.files.compact(client.put("x", b""))
    assert not barrier.wait(wait=1)
    waiting = Barrier(cluster.client().later, "gate").wait()
    cluster.pass_time(0.5)
    served = cluster.served
    cluster.pass_time(2)
    assert cluster.served - served < 10
    barrier.open()
    assert waiting.value()


def test_a_waiter_at_a_barrier_that_comes_back_too_late_sees_that_it_was_open(cluster: Cluster, client: TestClient):
    barrier = Barrier(client, "gate")
    barrier.close()
    slow = cluster.client()
    waiting = Barrier(slow.later, "gate").wait()
    cluster.pass_time(0.5)
    slow.is_cut_off = True
    barrier.open()
    barrier.close()
    client.files.compact(client.put("x", b""))
    cluster.pass_time(0.5)
    slow.is_cut_off = False
    assert waiting.value()


def test_all_enter_together_and_leave_together(cluster: Cluster):
    members = [DoubleBarrier(cluster.client().later, "b", 3, f"m{number}") for number in range(3)]
    entering = [member.enter() for member in members[:2]]
    cluster.pass_time(1)
    assert not any(each.is_over for each in entering)
    entering.append(members[2].enter())
    for each in entering:
        each.value()
    leaving = [member.leave() for member in members[:2]]
    cluster.pass_time(1)
    assert not any(each.is_over for each in leaving)
    leaving.append(members[2].leave())
    for each in leaving:
        each.value()


def test_a_slow_member_misses_nothing_though_the_fast_ones_have_gone_on(cluster: Cluster, client: TestClient):
    """Two rounds of the others pass while it is cut off."""
    slow_client, fast_client = cluster.client(), cluster.client()
    slow, fast = DoubleBarrier(slow_client.later, "b", 2, "slow"), DoubleBarrier(fast_client.later, "b", 2, "fast")
    entering = slow.enter()
    cluster.pass_time(0.5)
    assert not entering.is_over
    slow_client.is_cut_off = True
    fast.enter().value()
    leaving = fast.leave()
    cluster.pass_time(0.5)
    slow_client.is_cut_off = False
    entering.value()
    slow_leaving = slow.leave()
    leaving.value()
    slow_client.is_cut_off = True
    again = fast.enter()
    cluster.pass_time(0.5)
    slow_client.is_cut_off = False
    slow_leaving.value()
    assert not again.is_over, "the next round waits for both again"
    slow.enter().value()
    again.value()


def test_a_member_that_gives_up_has_left(cluster: Cluster, client: TestClient):
    with pytest.raises(TimeoutError, match="1 of 2"):
        DoubleBarrier(client, "b", 2, "a").enter(wait=0.3)
    cluster.pass_time(0.1)
    assert client.files.count("b/", prefix=True) == 0
    entering = DoubleBarrier(client.later, "b", 2, "a", ttl=1).enter()
    cluster.pass_time(0.1)
    cluster.expire(client.core.sessions[1_000].session)
    with pytest.raises(LeaseLost, match="session ended"):
        entering.value()
    with pytest.raises(InvalidRequest, match="from 1 on, got 0"):
        DoubleBarrier(client, "b", 0, "a")


def test_a_member_that_gives_up_in_jeopardy_has_left_once_a_leader_is_there(cluster: Cluster, client: TestClient):
    """It stayed in for as long as its client lived, and others went in by it."""
    entering = DoubleBarrier(client.later, "b", 2, "a", ttl=3).enter(wait=5)
    cluster.pass_time(0.1)
    cluster.lose_leader()
    with pytest.raises((TimeoutError, Unavailable)):
        entering.value()
    assert client.core.live_session(3_000, cluster.now_us) is None
    cluster.elect()
    cluster.pass_time(1)
    assert cluster.client().files.count("b/", prefix=True) == 0


def test_a_member_that_went_unseen_is_told_so(cluster: Cluster, client: TestClient):
    """It stood still for longer than its session and the changes were kept, and waited for the others without end."""
    entering = [DoubleBarrier(client.later, "b", 3, name, ttl=2).enter() for name in ("a", "b")]
    cluster.pass_time(0.1)
    client.is_cut_off = True
    cluster.pass_time(5)
    other = cluster.client()
    DoubleBarrier(other.later, "b", 3, "b").enter()
    cluster.pass_time(0.1)
    other.files.compact(other.put("x", b""))
    client.is_cut_off = False
    for each in entering:
        with pytest.raises(LeaseLost, match="the session ended"):
            each.value()


@pytest.mark.parametrize("is_answered", [False, True])
def test_who_leaves_while_it_enters_counts_for_nobody(cluster: Cluster, client: TestClient, is_answered: bool):
    client.put("x", b"")
    cluster.loses = lambda request: not is_answered and isinstance(request, wire.CommandRequest)
    entering = DoubleBarrier(client.later, "b", 2, "a").enter()
    cluster.pass_time(0.1)
    entering.cancel()
    cluster.loses = lambda request: False
    cluster.pass_time(3)
    other = DoubleBarrier(cluster.client().later, "b", 2, "b").enter()
    cluster.pass_time(1)
    assert not other.is_over


def test_who_is_out_unseen_does_not_take_another_of_its_name_out(cluster: Cluster, client: TestClient):
    """A process that stood still, and its successor by the same name, which worked on while all others left."""
    late = DoubleBarrier(client.later, "b", 1, "host-1", ttl=2)
    late.enter().value()
    client.is_cut_off = True
    cluster.pass_time(5)
    successor = DoubleBarrier(cluster.client(), "b", 1, "host-1", ttl=2)
    successor.enter()
    client.is_cut_off = False
    with pytest.raises(NotFound, match="'host-1' is not in, or it is another one"):
        late.leave().value()
    assert client.files.count("b/", prefix=True) == 1
    successor.leave()
    assert client.files.count("b/", prefix=True) == 0


def test_whether_one_is_in_whose_entering_was_not_answered_its_leaving_says(cluster: Cluster, client: TestClient):
    client.put("x", b"")
    client.timeout_us = 500_000
    cluster.loses = lambda request: isinstance(request, wire.CommandRequest)
    barrier = DoubleBarrier(client, "b", 1, "a")
    with pytest.raises(OutcomeUnknown):
        barrier.enter()
    cluster.loses = lambda request: False
    barrier.leave()
    with pytest.raises(NotFound):
        barrier.leave()


def test_who_leaves_as_it_has_entered_counts_for_nobody(cluster: Cluster, client: TestClient):
    ask = DoubleBarrier.enter.describe(DoubleBarrier(client, "b", 1, "a"))
    client.answer(ask)
    assert ask.undo is not None
    ask.undo(client.core, None)
    cluster.pass_time(1)
    assert client.files.count("b/", prefix=True) == 0


# --- counters and queues --------------------------------------------------------------------------


def test_a_counter_counts(cluster: Cluster, client: TestClient):
    counter = Counter(client, "n")
    assert counter.value() == 0
    assert [counter.add(), counter.add(5), Counter(cluster.client(), "n").add(-2)] == [1, 6, 4]
    assert counter.value() == 4
    client.put("n", b"x")
    with pytest.raises(WrongKind):
        counter.value()


@pytest.mark.parametrize("value", [b"5\n", b" 7", b"1_000", b"+5", b"", b"9223372036854775808", b"9" * 30])
def test_a_counter_reads_what_can_be_added_to_and_nothing_else(client: TestClient, value: bytes):
    """`echo 5 | … put n -` was 5 when it was read, and no number when it was added to."""
    client.put("n", value)
    counter = Counter(client, "n")
    for ask in (counter.add, counter.value):
        with pytest.raises(WrongKind, match="no decimal number of 64 bits"):
            ask()
    for number in (2**63 - 1, -(2**63)):
        client.put("n", b"%d" % number)
        assert counter.value() == counter.add(0) == number


def test_a_directory_that_goes_was_no_member(client: TestClient):
    """Whoever followed the group of those above it was told that a member of its name is gone."""
    following = Group(client, "workers").follow()
    next(following)
    Group(client, "workers/eu").join("host-1").leave()
    client.files.delete("workers/eu")
    member = Group(client, "workers").join("host-1", b"4 cores")
    member.leave()
    assert following.next(timeout=1) == Change("host-1", b"4 cores", member._instance)
    gone = following.next(timeout=1)
    assert isinstance(gone, Change)
    assert (gone.name, gone.data) == ("host-1", None)
    assert following.next(timeout=0.1) is None


def test_items_are_taken_in_the_order_in_which_they_came(client: TestClient, other: TestClient):
    queue = Queue(client, "q")
    for number in range(3):
        queue.put(b"%d" % number)
    first, second = queue.take(), Queue(other, "q").take()
    assert first is not None
    assert second is not None
    assert (first.value, second.value, queue.size()) == (b"0", b"1", 3)
    first.give_back()
    with queue.take() as again:
        assert again.value == b"0"
        assert again.token > first.token
    second.done()
    assert queue.size() == 1

    def fail() -> None:
        with queue.take() as failed:
            assert failed.value == b"2"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert queue.take(wait=0).value == b"2"
    assert queue.take(wait=0) is None


def test_who_waits_for_an_item_asks_seldom(cluster: Cluster):
    taking: Running[Item | None] = Queue(cluster.client().later, "q").take()
    cluster.pass_time(1)
    before = cluster.served
    cluster.pass_time(60)
    assert not taking.is_over
    assert cluster.served - before <= 60 * 10, "it looks once a second, and what else it asks is little"


def test_a_taker_that_waits_has_the_item_that_comes(cluster: Cluster, client: TestClient):
    taking: Running[Item | None] = Queue(cluster.client().later, "q").take()
    cluster.pass_time(2)
    assert not taking.is_over
    cluster.kill_leader()
    Queue(client, "q").put(b"x")
    item = taking.value()
    assert item is not None
    assert item.value == b"x"


@pytest.mark.interpreted
def test_an_item_of_a_dead_taker_comes_back_and_is_done_once(cluster: Cluster, client: TestClient):
    other = cluster.client()
    Queue(client, "q").put(b"x")
    lost = Queue(other, "q", ttl=2).take()
    assert lost is not None
    other.is_cut_off = True
    taking: Running[Item | None] = Queue(client.later, "q").take()
    item = taking.value()
    assert item is not None
    assert item.token > lost.token
    other.is_cut_off = False
    for _ in range(2):
        with pytest.raises(LeaseLost):
            lost.done()
        lost.check = lambda: None  # type: ignore[method-assign]  # One that does not look before it speaks.
        lost._state.check = lambda: None  # type: ignore[method-assign]
    assert Queue(client, "q").size() == 1, "nothing was removed"
    item.done()
    assert Queue(client, "q").size() == 0


@pytest.mark.parametrize("comes", [True, False])
def test_an_item_of_which_no_answer_said_that_it_is_done_does_not_stay_with_its_taker(
    cluster: Cluster, client: TestClient, comes: bool
):
    """It was locked for as long as its taker lived, where it was not done."""
    taker = cluster.client()
    Queue(client, "q").put(b"x")
    is_command = lambda request: isinstance(request, wire.CommandRequest)  # noqa: E731

    def work() -> None:
        with Queue(taker, "q").take():
            if comes:
                cluster.loses = is_command
            else:
                cluster.drops = is_command

    with pytest.raises(OutcomeUnknown):
        work()
    cluster.loses = cluster.drops = lambda request: False
    cluster.pass_time(5)
    item = Queue(client, "q").take(wait=0)
    assert (item is None, Queue(client, "q").size()) == ((True, 0) if comes else (False, 1))


def test_every_item_is_done_though_takers_die_and_answers_are_lost(cluster: Cluster, client: TestClient):
    queue = Queue(client, "q")
    for number in range(30):
        queue.put(b"%d" % number)
    count = 0

    def every_fourth(request: object) -> bool:
        nonlocal count
        count += 1
        return count % 4 == 0

    cluster.loses = every_fourth
    done: list[bytes] = []
    for round_ in range(60):
        taker = cluster.client()
        item = Queue(taker, "q", ttl=1).take(wait=3)
        if item is None:
            break
        if round_ % 3 == 0:
            taker.die()
        else:
            item.done()
            done.append(item.value)
        if round_ % 10 == 0:
            cluster.kill_leader()
    assert sorted(map(int, done)) == [*range(30)], "each once here: nobody died between its work and its done"
    assert queue.size() == 0


def test_looking_at_what_others_have_costs_no_entry(client: TestClient, other: TestClient):
    for _ in range(5):
        Queue(client, "q").put(b"")
    items = [Queue(client, "q").take() for _ in range(4)]
    before = len(client.cluster.ops)
    assert Queue(other, "q").take() is not None
    asked = [op for op in client.cluster.ops[before:] if isinstance(op, AcquireLock)]
    assert len(asked) == 1
    assert len(items) == 4


def test_what_is_below_is_anothers(cluster: Cluster, client: TestClient, other: TestClient):
    """Items of `q/high` were taken from `q`, and a double barrier opened by the members of one below it."""
    queue = Queue(client, "q")
    assert queue.size() == 0
    high = Queue(other, "q/high")
    high.put(b"high")
    assert queue.take(wait=0) is None
    queue.put(b"low")
    assert (queue.take(wait=0).value, high.take(wait=0).value, high.size()) == (b"low", b"high", 1)
    Group(client, "g").join("a")
    Group(other, "g/eu").join("b")
    following = Group(client, "g").follow()
    assert Group(client, "g").members() == next(following).members == {"a": b""}
    Group(other, "g/us").join("c").leave()
    assert following.next(timeout=0.1) is None
    one = DoubleBarrier(other.later, "d/1", 3, "x").enter()
    entering = DoubleBarrier(client.later, "d", 3, "x").enter()
    cluster.pass_time(0.1)
    DoubleBarrier(other.later, "d/1", 3, "y").enter()
    cluster.pass_time(0.1)
    assert not one.is_over
    assert not entering.is_over
    for name in ("y", "z"):
        DoubleBarrier(cluster.client().later, "d", 3, name).enter()
    entering.value()
