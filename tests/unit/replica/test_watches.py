"""Watches: a question that is answered when something has changed."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.replica import watches as watches_module
from coordinator.replica.callers import Caller
from coordinator.replica.watches import WAIT_MS_MAX, Watch, Watches, Woken
from coordinator.statemachine import commands, history, lock_events
from coordinator.statemachine.commands import AcquireLock, DeleteKey, PutKey, ReleaseLock, SetPrincipal
from coordinator.statemachine.files import ChangePage, ChangeView, Compact, Compacted, ReadChanges
from coordinator.statemachine.lock_commands import LockEventPage, ReadLockEvents, ReadLockLives
from coordinator.statemachine.state import State
from tests.unit.replica.stage import CHANNELS, CLUSTER, WEB, Stage
from tests.unit.replica.test_turn import command, opened


def watch(number: int, query: ReadChanges, wait_ms: int = 10_000, act_for: str = "") -> wire.WatchRequest:
    return wire.WatchRequest(number, CLUSTER, act_for, query, wait_ms)


def begun(stage: Stage, request: wire.WatchRequest | wire.EventsRequest, node: str = "node1", reply: str = "") -> str:
    channel = stage.ask(node, request, reply=reply)
    stage.settle()
    return channel


class Writer:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.session = opened(stage, 60_000)
        self.number = 0

    def does(self, *ops: commands.ClientOp, node: str = "node1") -> list[commands.Result]:
        """All in one turn."""
        requests = []
        for op in ops:
            self.number += 1
            requests.append(command(self.number, self.session, self.number, op))
        channel = self.stage.ask(node, *requests)
        self.stage.settle()
        return [answer.result for answer in self.stage.replies(channel)]


def page(stage: Stage, channel: str) -> ChangePage:
    (answer,) = stage.replies(channel)
    assert isinstance(answer.result, ChangePage), answer.result
    return answer.result


@pytest.mark.parametrize("found", [(6, 0), (7, 1), (9, 0), (9, 2)])
def test_a_page_that_tells_all_goes_on_behind_all_that_was_looked_at(found):
    """At the beginning of an entry: who skipped any of it would miss what it brings."""
    asked = Watch(Caller("r", "t", b""), 1, "", "", ReadChanges("a"))
    change = ChangeView(6, "a", None)
    woken = Woken(asked, asked.query, 1, 9)
    assert woken.page(ChangePage((change,), *found)) == ChangePage((change,), 10, 0)
    for as_it_is in (ChangePage((), *found), ChangePage((change,), 10, 0), ChangePage((change,), 12, 1)):
        assert woken.page(as_it_is) is as_it_is
    assert woken._replace(matches=2).page(ChangePage((change,), *found)) == ChangePage((change,), *found), "one is left"


def test_it_is_answered_in_the_turn_that_applies_the_change_and_by_what_it_asked_for_alone(stage):
    writer = Writer(stage)
    one, below = begun(stage, watch(1, ReadChanges("a"))), begun(stage, watch(2, ReadChanges("a/", prefix=True)))
    other = begun(stage, watch(3, ReadChanges("b", "c")))
    assert [stage.replies(channel) for channel in (one, below, other)] == [[], [], []]
    writer.does(PutKey("c", b""), PutKey("a", b"1"))
    found = page(stage, one)
    assert [(change.key, change.after.value) for change in found.changes if change.after] == [("a", b"1")]
    assert (found.since, found.skip) == (stage.nodes["node1"].replica.machine.applied + 1, 0)
    assert [stage.replies(channel) for channel in (below, other)] == [[], []]
    writer.does(PutKey("a/b", b"2"), PutKey("b", b"3"), PutKey("a/c", b"4"))
    assert [change.key for change in page(stage, below).changes] == ["a/b", "a/c"]
    assert [change.key for change in page(stage, other).changes] == ["b"]
    assert stage.nodes["node1"].replica._tenure.watches.count == 0


def test_it_is_woken_by_the_kinds_of_change_alone_that_it_asked_for(stage):
    writer = Writer(stage)
    writer.does(PutKey("a", b"1"))
    puts = begun(stage, watch(1, ReadChanges("a", deletes=False)))
    deletes = begun(stage, watch(2, ReadChanges("a", puts=False)))
    writer.does(DeleteKey("a"))
    assert [change.after for change in page(stage, deletes).changes] == [None]
    assert stage.replies(puts) == []
    writer.does(PutKey("a", b"2"))
    assert [change.after.value for change in page(stage, puts).changes if change.after] == [b"2"]


def test_what_has_changed_already_is_answered_at_once(stage):
    writer = Writer(stage)
    (done,) = writer.does(PutKey("a", b"1"))
    found = page(stage, begun(stage, watch(1, ReadChanges("a", since=done.index))))
    assert [change.revision for change in found.changes] == [done.index]


def test_with_no_time_to_wait_it_is_a_read(stage):
    channel = begun(stage, watch(1, ReadChanges("a"), wait_ms=0))
    assert page(stage, channel).changes == ()
    stage.pass_time(100_000)
    assert stage.nodes["node1"].replica._tenure.watches.count == 0


@pytest.mark.parametrize("wait_ms", [-1, WAIT_MS_MAX + 1])
def test_it_waits_for_a_bounded_time(stage, wait_ms):
    (answer,) = stage.replies(begun(stage, watch(1, ReadChanges("a"), wait_ms)))
    assert answer.result == commands.Failure(commands.INVALID, f"a watch waits for 0 to 60000 ms, got {wait_ms}")


def test_the_next_ones_time_is_when_something_is_due_and_no_earlier(stage):
    watches = stage.nodes["node1"].replica._tenure.watches
    assert watches.due_us is None
    for number, wait_ms in ((1, 9_000), (2, 4_000), (3, 6_000)):
        begun(stage, watch(number, ReadChanges("a"), wait_ms))
    assert watches.due_us == stage.clock.us + 4_000_000


def test_when_its_time_is_over_it_hears_how_far_it_has_come(stage):
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("a"), 500))
    node = stage.nodes["node1"]
    assert node.run().deadline_us <= stage.clock.us + 500_000
    writer.does(PutKey("b", b""))
    stage.pass_time(480_000)
    assert stage.replies(channel) == []
    stage.pass_time(40_000)
    assert page(stage, channel) == ChangePage((), node.replica.machine.applied + 1, 0)


def test_it_goes_on_with_the_next_leader_and_nothing_is_lost_or_repeated(stage):
    """From its position; the leader of before turns it away."""
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("", prefix=True)))
    writer.does(PutKey("a", b"1"))
    found = page(stage, channel)
    again = watch(2, ReadChanges("", prefix=True, since=found.since, skip=found.skip))
    begun(stage, again, reply=channel)
    stage.elect("node2")
    assert stage.replies(channel) == [wire.NotLeader(2, "node2")]
    writer.does(PutKey("a", b"2"), PutKey("b", b"3"), node="node2")
    found = page(stage, begun(stage, again, "node2"))
    assert [(change.key, change.after.value) for change in found.changes if change.after] == [("a", b"2"), ("b", b"3")]
    assert stage.nodes["node1"].replica._tenure is None


def test_a_leader_that_is_cut_off_answers_nothing_that_is_not_committed(stage):
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("a"), 60_000))
    stage.cut = {"node1"}
    writer.does(PutKey("a", b"lost"))
    assert stage.replies(channel) == []
    stage.elect("node2")
    stage.cut = set()
    stage.pass_time(500_000)
    assert [type(reply) for reply in stage.replies(channel)] == [wire.NotLeader]


def test_asked_again_it_takes_the_place_of_the_earlier_copy(stage):
    writer = Writer(stage)
    channel = CHANNELS.reply()
    for _ in range(3):
        begun(stage, watch(1, ReadChanges("a")), reply=channel)
    assert stage.nodes["node1"].replica._tenure.watches.count == 1
    writer.does(PutKey("a", b""))
    assert len(stage.replies(channel)) == 1


def test_rights_are_those_of_the_moment_of_the_answer(stage):
    writer = Writer(stage)
    writer.does(SetPrincipal("ci", ("read",)))
    channel = begun(stage, watch(1, ReadChanges("a"), act_for="ci"))
    late = begun(stage, watch(2, ReadChanges("never"), 500, act_for="ci"))
    assert stage.replies(channel) == []
    writer.does(SetPrincipal("ci", ("read",), ("build/",)), PutKey("a", b"secret"))
    (answer,) = stage.replies(channel)
    assert answer.result.code == commands.FORBIDDEN
    stage.pass_time(600_000)
    (answer,) = stage.replies(late)
    assert answer.result.code == commands.FORBIDDEN


def test_who_may_act_for_others_no_more_hears_nothing_in_their_name(stage):
    writer = Writer(stage)
    writer.does(SetPrincipal("ci", ("read",)))
    channel = begun(stage, watch(1, ReadChanges("a"), act_for="ci"))
    state = stage.nodes["node1"].replica.machine.state
    state.principals.rows["web"].act_for = False
    state.rights_changed(state.rights_index)
    writer.does(PutKey("a", b"1"))
    (answer,) = stage.replies(channel)
    assert answer.result.code == commands.FORBIDDEN


def test_a_reader_that_is_too_slow_is_told_so_with_the_revision_to_go_on_from(stage):
    writer = Writer(stage)
    first, _, third = writer.does(PutKey("a", b"1"), PutKey("a", b"2"), PutKey("a", b"3"))
    writer.does(Compact(third.index))
    (answer,) = stage.replies(begun(stage, watch(1, ReadChanges("a", since=first.index))))
    assert answer.result == Compacted(third.index)


def test_whoever_waits_is_not_slow_whatever_is_compacted_meanwhile(stage):
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("a")))
    (other,) = writer.does(PutKey("b", b"1"))
    writer.does(Compact(other.index))
    writer.does(PutKey("a", b"2"))
    assert [change.key for change in page(stage, channel).changes] == ["a"]


@pytest.mark.interpreted
def test_changes_that_were_dropped_before_anybody_looked_are_not_passed_over_in_silence(stage, monkeypatch):
    monkeypatch.setattr(history, "CHANGES_MAX", 4)
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("a")))
    writer.does(*(PutKey("a" if number == 0 else "b", b"") for number in range(20)))
    (answer,) = stage.replies(channel)
    assert isinstance(answer.result, Compacted)


@pytest.mark.interpreted
def test_there_may_be_so_many(stage, monkeypatch):
    monkeypatch.setattr(watches_module, "WATCHES_MAX", 2)
    for number in (1, 2):
        assert stage.replies(begun(stage, watch(number, ReadChanges("a")))) == []
    (answer,) = stage.replies(begun(stage, watch(3, ReadChanges("a"))))
    assert answer.result.code == commands.FULL
    assert stage.nodes["node1"].replica._tenure.watches.count_of("web") == 2


def test_what_a_turn_answers_to_watches_is_bounded_and_the_rest_follows(stage):
    writer = Writer(stage)
    channels = [begun(stage, watch(number, ReadChanges("a", limit=1))) for number in range(12)]
    writer.does(PutKey("a", b"x" * 1_000_000))
    assert stage.nodes["node1"].replica._tenure.watches.has_woken
    stage.pass_time(60_000)
    assert not stage.nodes["node1"].replica._tenure.watches.has_woken
    assert all(len(page(stage, channel).changes) == 1 for channel in channels)


def test_one_turn_answers_no_more_than_its_bytes(stage):
    writer = Writer(stage)
    for number in range(12):
        begun(stage, watch(number, ReadChanges("a", limit=1)))
    raw = command(99, writer.session, 99, PutKey("a", b"x" * 1_000_000))
    stage.ask("node1", raw)
    node, left = stage.nodes["node1"], []
    for _ in range(12):
        for each in stage.nodes.values():
            each.run()
            if each is node:
                left.append(node.replica._tenure.watches.count)
                assert node.replica.owes == node.replica._tenure.watches.has_woken or left[-1] == 12
        stage.carry()
    assert sorted(set(left), reverse=True) == [12, 7, 2, 0]


def test_a_limit_of_its_own_is_kept_and_the_rest_is_asked_for(stage):
    writer = Writer(stage)
    channel = begun(stage, watch(1, ReadChanges("a", limit=2)))
    results = writer.does(*(PutKey("a", str(number).encode()) for number in range(5)))
    found = page(stage, channel)
    assert [change.revision for change in found.changes] == [result.index for result in results[:2]]
    found = page(stage, begun(stage, watch(2, ReadChanges("a", since=found.since, skip=found.skip))))
    assert [change.revision for change in found.changes] == [result.index for result in results[2:]]


def test_what_lies_before_a_position_in_the_future_wakes_nobody(stage):
    writer = Writer(stage)
    applied = stage.nodes["node1"].replica.machine.applied
    channel = begun(stage, watch(1, ReadChanges("a", since=applied + 3)))
    writer.does(PutKey("a", b"1"))
    assert stage.replies(channel) == []
    writer.does(PutKey("a", b"2"))
    writer.does(PutKey("a", b"3"))
    assert [change.revision for change in page(stage, channel).changes] == [applied + 3]


def test_a_caller_that_asks_and_is_answered_a_thousand_times_leaves_nothing_behind():
    watches, caller = Watches(), Caller("c", WEB.token_id, WEB.key)
    kept = State()
    for number in range(1_000):
        assert watches.add(Watch(caller, number, "web", "", ReadChanges("a", prefix=True)), 1 << 60, kept)
        watches.forget(caller, number)
    assert (watches.count, watches._of_principals, watches._numbers) == (0, {}, {})
    assert len(watches._due) < 200
    assert watches._of_changes.is_empty


# --- events of locks, and of who leads ------------------------------------------------------------


def events(number: int, query: ReadChanges | ReadLockEvents, term: int, wait_ms: int = 10_000) -> wire.EventsRequest:
    return wire.EventsRequest(number, CLUSTER, "", query, wait_ms, term)


def told(stage: Stage, channel: str) -> wire.Told:
    (answer,) = stage.replies(channel)
    assert isinstance(answer, wire.Told), answer
    return answer


def term_of(stage: Stage, node: str) -> int:
    return int(stage.nodes[node].replica.engine.term)


def test_whoever_watches_a_lock_is_answered_in_the_turn_that_applies_the_request(stage):
    writer, other = Writer(stage), Writer(stage)
    term = term_of(stage, "node1")
    writer.does(AcquireLock("a", 0, wait=True))
    one = begun(stage, events(1, ReadLockEvents("a"), term))
    below = begun(stage, events(2, ReadLockEvents("a/", prefix=True), term))
    kinds = begun(stage, events(3, ReadLockEvents("a", conflicts=False), term))
    ends = begun(stage, events(5, ReadLockLives("a", acquired=False, conflicts=False), term))
    files = begun(stage, events(4, ReadChanges("", prefix=True), term))
    other.does(AcquireLock("a", 0, wait=True))
    found = told(stage, one)
    assert isinstance(found.result, LockEventPage)
    assert [(event.kind, event.holder.session) for event in found.result.events] == [("conflict", other.session)]
    assert (found.term, found.result.since) == (term, stage.nodes["node1"].replica.machine.applied + 1)
    assert [stage.replies(channel) for channel in (below, kinds, ends, files)] == [[], [], [], []]
    writer.does(ReleaseLock("a", 0))
    (ended,) = told(stage, ends).result.events
    assert (ended.kind, ended.holder.session) == ("released", writer.session)
    (granted,) = told(stage, kinds).result.events
    assert (granted.kind, granted.holder.session) == ("acquired", other.session)
    assert [stage.replies(channel) for channel in (below, files)] == [[], []]


def test_another_leader_answers_at_once_whoever_was_told_by_the_one_before(stage):
    query = ReadLockEvents("a")
    term = term_of(stage, "node1")
    first = told(stage, begun(stage, events(1, query, 0, wait_ms=0)))
    assert (first.term, first.result.events) == (term, ())
    waiting = begun(stage, events(2, query, term))
    stage.elect("node2")
    stage.pass_time(100_000)
    assert [type(answer) for answer in stage.replies(waiting)] == [wire.NotLeader]
    asked = begun(stage, events(3, query, term), "node2")
    answer = told(stage, asked)
    assert answer.term == term_of(stage, "node2") > term
    assert answer.result == LockEventPage((), stage.nodes["node2"].replica.machine.applied + 1, 0)
    assert stage.replies(begun(stage, events(4, query, answer.term), "node2")) == []


@pytest.mark.interpreted
def test_events_that_were_dropped_before_anybody_looked_are_not_passed_over_in_silence(stage, monkeypatch):
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 2)
    writer = Writer(stage)
    channel = begun(stage, events(1, ReadLockEvents("a"), term_of(stage, "node1")))
    writer.does(*(AcquireLock(name, 0, wait=True) for name in ("a", "b", "c")))
    assert isinstance(told(stage, channel).result, Compacted)


@pytest.mark.interpreted
def test_watches_of_both_kinds_count_together(stage, monkeypatch):
    monkeypatch.setattr(watches_module, "WATCHES_MAX", 2)
    term = term_of(stage, "node1")
    begun(stage, events(1, ReadLockEvents("a"), term))
    begun(stage, watch(2, ReadChanges("a")))
    refused = told(stage, begun(stage, events(3, ReadLockEvents("b"), term)))
    assert (refused.result.code, refused.term) == (commands.FULL, term)
