"""Caching: a change waits until nobody serves what it changes (Chubby, section 2.7). The histories that break the easy
version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.raft.core import Raft
from coordinator.replica import caching
from coordinator.replica.caching import LEASE_MS, SWEEP_US, TELL_AGAIN_US, WANTED_US
from coordinator.replica.callers import Caller
from coordinator.replica.replica import NO_ROOM_TO_HOLD
from coordinator.replica.touched import EVERYTHING, LINE_MAX, Touched, touched_by
from coordinator.statemachine import commands, files, lock_commands
from coordinator.statemachine.commands import Done, GetKey, PutKey
from coordinator.statemachine.files import BeginCaching, GetStat, ReadFile
from coordinator.statemachine.state import State
from coordinator.wire import Token
from tests.unit.replica.stage import CHANNELS, CLUSTER, WEB, Node, Stage
from tests.unit.replica.test_turn import command, opened


class Reader:
    """A client that caches, by hand: it confirms nothing by itself."""

    def __init__(self, stage: Stage, *, begins: bool = True) -> None:
        self.stage = stage
        self.session = opened(stage, 600_000)
        self.channel = CHANNELS.reply()
        self.number = 0
        if begins:
            assert isinstance(self.does(BeginCaching()), Done)

    def ask(self, request: wire.Request, node: str = "node1") -> list[wire.Reply]:
        self.stage.ask(node, request, reply=self.channel)
        self.stage.settle()
        return self.stage.replies(self.channel)

    def does(self, op: commands.ClientOp, node: str = "node1") -> commands.Result | wire.Overloaded | None:
        """The result, or that there is no room; None while it is held back."""
        self.number += 1
        answers = self.ask(command(self.number, self.session, self.number, op), node)
        for one in answers:
            if isinstance(one, wire.Overloaded):
                return one
        return next((one.result for one in answers if isinstance(one, wire.Answer)), None)

    def reads(self, query: wire.CachedQuery, node: str = "node1") -> wire.CachedAnswer | wire.Answer:
        (answer,) = self.ask(wire.CachedQueryRequest(900, CLUSTER, self.session, query), node)
        assert isinstance(answer, (wire.CachedAnswer, wire.Answer)), answer
        return answer

    def hears(self) -> list[wire.Invalidation]:
        return [one for one in self.stage.replies(self.channel) if isinstance(one, wire.Invalidation)]

    def drops(self, told: wire.Invalidation) -> None:
        word = wire.DroppedRequest(1, CLUSTER, self.session, told.term, told.number, told.ticket)
        self.stage.ask("node1", word, reply=self.channel)
        self.stage.settle()

    def renews(self, kept: wire.CachedAnswer, count: int = 1, node: str = "node1") -> list[wire.Reply]:
        request = wire.RenewCacheRequest(901, CLUSTER, self.session, kept.term, kept.number, count)
        return self.ask(request, node)

    def answered(self) -> list[commands.Result]:
        return [one.result for one in self.stage.replies(self.channel) if isinstance(one, wire.Answer)]


A = GetKey("a")
LEASE_US = LEASE_MS * 1_000


def keeps(reader: Reader, query: wire.CachedQuery = A) -> wire.CachedAnswer:
    answer = reader.reads(query)
    assert isinstance(answer, wire.CachedAnswer), answer
    return answer


def caching_of(node: Node) -> caching.Caching:
    tenure = node.replica._tenure
    assert tenure is not None
    return tenure.caching


def test_a_change_waits_until_who_keeps_it_has_dropped_it(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    assert writer.does(PutKey("a", b"1")) is None, "the reader serves what was there"
    (told,) = reader.hears()
    assert (told.paths, told.term, told.number) == (("a",), kept.term, kept.number)
    assert caching_of(stage.nodes["node1"]).held == 1
    reader.drops(told)
    assert [type(result) for result in writer.answered()] == [Done]
    assert caching_of(stage.nodes["node1"]).paths == 0


def test_who_was_told_is_told_again_after_a_while_and_not_in_each_turn(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    due_us = caching_of(stage.nodes["node1"]).due_us()
    assert due_us is not None
    assert stage.clock.us < due_us <= stage.clock.us + TELL_AGAIN_US, "a loop that is due at once never rests"


@pytest.mark.interpreted
def test_whose_lease_is_over_is_looked_for_now_and_then_and_not_in_each_turn(stage, monkeypatch):
    """There may be 10,000 of them."""
    keeps(Reader(stage))
    looked = caching_of(stage.nodes["node1"])
    at_us = []

    def is_over(holder: caching.Holder) -> bool:
        at_us.append(stage.clock.us)
        return False

    monkeypatch.setattr(looked, "_is_over", is_over)
    for _ in range(100):
        stage.clock.us += 10_000
        looked.pass_time(stage.clock.us, 1)
    assert len(at_us) == 2
    assert at_us[1] - at_us[0] == SWEEP_US


def test_what_nobody_keeps_waits_for_nobody(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    assert isinstance(writer.does(PutKey("b", b"1")), Done)
    assert writer.does(PutKey("a", b"1")) is None
    assert isinstance(writer.does(PutKey("b", b"2")), Done), "nothing waits behind a change that waits"
    assert isinstance(writer.does(commands.OpenSession(1_000, b"")), commands.SessionOpened)


def test_a_dead_client_holds_a_change_up_for_its_lease_and_no_longer(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    since_us = stage.clock.us
    assert writer.does(PutKey("a", b"1")) is None
    while not writer.answered():
        stage.pass_time(20_000)
        assert stage.clock.us - since_us <= LEASE_US + 40_000
    assert stage.clock.us - since_us >= LEASE_US - 20_000


def test_it_is_told_again_while_it_does_not_answer(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    assert len(reader.hears()) == 1
    stage.pass_time(TELL_AGAIN_US + 20_000)
    assert len(reader.hears()) == 1


def test_who_has_dropped_one_of_two_that_it_was_told_of_is_told_of_the_other_again(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    keeps(reader, GetKey("b"))
    writer.does(PutKey("a", b"1"))
    (first,) = reader.hears()
    writer.does(PutKey("b", b"1"))
    *_, second = reader.hears()
    reader.drops(first)
    stage.pass_time(TELL_AGAIN_US + 20_000)
    assert [one.paths for one in reader.hears()] == [("b",)]
    reader.drops(second)
    assert [type(result) for result in writer.answered()] == [Done, Done]
    assert caching_of(stage.nodes["node1"]).due_us() is None, "and then of nothing"


def test_nothing_is_kept_of_what_is_about_to_change(stage):
    reader, other, writer = Reader(stage), Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    answer = other.reads(GetKey("a"))
    assert isinstance(answer, wire.Answer), "it would have to be told, and the change would wait again"
    assert answer.result == commands.KeyValue(None)
    (told,) = reader.hears()
    reader.drops(told)
    assert keeps(other).result.value == b"1"


def test_nothing_is_kept_of_what_is_proposed_and_not_applied(stage):
    """The easy version looks at what is held back alone."""
    reader, writer = Reader(stage), Reader(stage, begins=False)
    stage.cut = {"node2", "node3"}
    assert writer.does(PutKey("a", b"1")) is None
    stage.ask("node1", wire.CachedQueryRequest(900, CLUSTER, reader.session, GetKey("a")), reply=reader.channel)
    stage.settle()
    tenure = stage.nodes["node1"].replica._tenure
    assert tenure is not None
    assert tenure.caching.allow(reader.session, _caller(reader), "a") is None
    assert tenure.caching.allow(reader.session, _caller(reader), "b") is not None


def _caller(reader: Reader) -> Caller:
    return Caller(reader.channel, WEB.token_id, WEB.key)


def test_what_was_proposed_before_anybody_cached_is_applied_before_anything_is_kept(stage):
    """It was not looked at when it was proposed."""
    reader = Reader(stage, begins=False)
    node = stage.nodes["node1"]
    reader.does(BeginCaching())
    hand = caching.Caching(node.replica.machine, stage.clock.us, node.replica.engine.last_index + 3, LEASE_MS, 1)
    hand.applied(node.replica.engine.applied_index)
    hand.hear(reader.session, 1)
    assert hand.allow(reader.session, _caller(reader), "a") is None
    hand.applied(node.replica.engine.last_index + 3)
    assert hand.allow(reader.session, _caller(reader), "a") is not None


def test_a_session_that_did_not_say_so_keeps_nothing(stage):
    Reader(stage)
    reader = Reader(stage, begins=False)
    assert isinstance(reader.reads(GetKey("a")), wire.Answer)


def test_a_renewal_prolongs_all_and_a_copy_of_it_nothing(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    stage.pass_time(LEASE_US - 100_000)
    assert reader.renews(kept, 1) == [wire.CacheRenewed(901, kept.term, kept.number, LEASE_MS)]
    stage.pass_time(LEASE_US - 100_000)
    assert reader.renews(kept, 1) == []
    assert writer.does(PutKey("a", b"1")) is None
    stage.pass_time(120_000)
    assert writer.answered(), "the copy renewed nothing"
    assert wire.CacheRenewed(901, kept.term, kept.number + 1, LEASE_MS) in reader.renews(kept, 2)


def test_a_leader_that_no_majority_confirms_renews_nothing(stage):
    """History 1: it may be deposed, and its successor have changed what would be served on."""
    reader = Reader(stage)
    kept = keeps(reader)
    stage.cut = {"node1"}
    assert reader.renews(kept) == []
    stage.cut = set()
    stage.pass_time(200_000)
    assert any(isinstance(one, wire.CacheRenewed) for one in stage.replies(reader.channel))


def test_who_owes_the_word_that_it_dropped_something_is_not_renewed(stage):
    """Else a client that hears answers and loses what it is told would hold a change up for ever."""
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    assert writer.does(PutKey("a", b"1")) is None
    assert [type(one) for one in reader.renews(kept)] == [wire.Invalidation]
    assert isinstance(reader.reads(GetKey("b")), wire.Answer)


def test_a_word_of_another_lease_confirms_nothing(stage):
    reader, writer, other = Reader(stage), Reader(stage, begins=False), Reader(stage)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    (told,) = reader.hears()
    other.session = reader.session
    other.drops(told)
    assert not writer.answered(), "another client's word"
    reader.drops(wire.Invalidation(CLUSTER, 0, told.term, told.number, told.ticket - 1, (), False))
    reader.drops(wire.Invalidation(CLUSTER, 0, told.term - 1, told.number, told.ticket, (), False))
    assert not writer.answered()


def test_a_new_leader_waits_since_it_does_not_know_what_the_last_one_allowed(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    stage.cut = {"node1"}
    stage.clock.us += 100_000
    stage.elect("node2")
    since_us = stage.clock.us
    assert writer.does(PutKey("a", b"1"), "node2") is None
    assert isinstance(writer.does(commands.OpenSession(1_000, b"n"), "node2"), commands.SessionOpened), "no file"
    while not writer.answered():
        stage.pass_time(20_000)
        assert stage.clock.us - since_us <= LEASE_US + 60_000
    assert stage.clock.us - since_us >= LEASE_US - 40_000


def elected_and_cut_off(stage: Stage) -> Raft:
    """node2 leads, and has not applied an entry of its own term."""
    heir = stage.nodes["node2"].raft
    for node in stage.nodes.values():
        node.raft.election_due_us = stage.clock.us + (0 if node.name == "node2" else 1 << 40)
        node.raft.heard_at_us = None
    for _ in range(20):  # Until it is elected, and no further.
        for node in stage.nodes.values():
            node.run()
        if heir.role is Role.LEADER:
            break
        stage.carry()
    assert heir.role is Role.LEADER
    stage.cut = {"node2"}
    return heir


def test_a_leader_that_has_not_applied_what_it_inherited_proposes_nothing_that_somebody_may_keep(stage):
    """It does not know yet who caches, nor what the one before it had proposed."""
    reader = Reader(stage)
    keeps(reader)
    heir = elected_and_cut_off(stage)
    last_index = heir.last_index
    assert not heir.applied_own_term
    assert reader.does(PutKey("a", b"new"), "node2") is None
    assert heir.last_index == last_index


def test_what_such_a_leader_collects_has_a_bound_in_bytes_too(stage):
    reader = Reader(stage)
    keeps(reader)
    elected_and_cut_off(stage)
    big = bytes(commands.VALUE_BYTES_MAX)
    refused = [
        number for number in range(20) if isinstance(reader.does(PutKey(f"k{number}", big), "node2"), wire.Overloaded)
    ]
    assert refused == [15, 16, 17, 18, 19]
    replica = stage.nodes["node2"].replica
    assert sum(map(len, replica._entries)) <= caching.HELD_BYTES_MAX
    assert len(replica._commands) == len(replica._entries) == 15


@pytest.mark.interpreted
def test_and_one_in_commands(stage, monkeypatch):
    monkeypatch.setattr("coordinator.replica.replica.HELD_MAX", 2)
    reader = Reader(stage)
    keeps(reader)
    elected_and_cut_off(stage)
    results = [reader.does(PutKey(f"k{number}", b""), "node2") for number in range(4)]
    assert results[:2] == [None, None]
    assert all(isinstance(one, wire.Overloaded) for one in results[2:])


@pytest.mark.interpreted
@pytest.mark.parametrize(("applied_index", "holds_back"), [(7, True), (8, True), (9, False), (10, False)])
def test_one_inherited_entry_that_is_not_applied_is_enough_to_hold_back(stage, applied_index, holds_back):
    """It may be the one by which somebody begins to cache. The entry at 10 is the first of the leader's own term."""
    replica = stage.nodes["node2"].replica
    replica.engine = SimpleNamespace(role=Role.LEADER, term=9, last_index=10, applied_index=applied_index)
    assert replica._holds_back is holds_back
    replica.engine.last_index = 12
    assert replica._holds_back is holds_back, "what it has taken since is no inheritance"


def test_a_new_leader_waits_no_longer_than_until_all_have_said_that_they_keep_nothing_of_before(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    stage.elect("node2")
    assert writer.does(PutKey("a", b"1"), "node2") is None
    (answer,) = reader.renews(kept, node="node2")
    assert isinstance(answer, wire.CacheRenewed)
    assert answer.term == stage.nodes["node2"].replica.engine.term > kept.term
    assert not writer.answered()
    word = wire.DroppedRequest(1, CLUSTER, reader.session, answer.term, answer.number, 0)
    stage.ask("node2", word, reply=reader.channel)
    stage.settle()
    assert writer.answered()


def test_a_leader_that_serves_again_in_its_term_gives_no_number_twice_and_waits_too(stage):
    """One that doubted its own state: what it allowed before is not noted any more, and its term is the same."""
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    node = stage.nodes["node1"]
    node.replica._abdicate(node.turn._answers)
    stage.pass_time(40_000)
    assert caching_of(node)
    assert node.replica.engine.term == kept.term
    assert writer.does(PutKey("a", b"1")) is None
    reader.drops(wire.Invalidation(CLUSTER, 0, kept.term, kept.number, 0, (), False))
    assert not writer.answered(), "a copy of a word of before says nothing of now"
    again = keeps(reader, GetKey("b"))
    assert again.number > kept.number
    reader.drops(wire.Invalidation(CLUSTER, 0, again.term, again.number, 0, (), False))
    assert writer.answered()


def test_who_names_a_later_lease_keeps_nothing_by_an_earlier_one(stage):
    """An answer that it is to begin anew came late: it would never keep anything again."""
    reader, writer = Reader(stage), Reader(stage, begins=False)
    kept = keeps(reader)
    reader.drops(wire.Invalidation(CLUSTER, 0, kept.term, kept.number + 5, 0, (), False))
    assert isinstance(writer.does(PutKey("a", b"1")), Done)


def test_a_new_leader_does_not_wait_where_nobody_caches(stage):
    writer = Reader(stage, begins=False)
    stage.elect("node2")
    assert isinstance(writer.does(PutKey("a", b"1"), "node2"), Done)


def test_a_leader_that_falls_turns_away_what_it_held_back(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    stage.elect("node2")
    assert [type(one) for one in stage.replies(writer.channel)] == [wire.NotLeader]


def test_what_was_held_back_and_is_lost_with_the_leadership_has_failed(stage):
    """It was pending, is so no more, and is not applied."""
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    writer.does(PutKey("a", b"1"))
    replica = stage.nodes["node1"].replica
    failed = replica.meters.proposals_failed
    assert replica.pending[0] == 1
    stage.elect("node2")
    assert (replica.pending[0], replica.meters.proposals_failed) == (0, failed + 1)


def test_who_asks_a_leader_in_the_turn_in_which_it_falls_is_turned_away_in_that_turn(stage):
    """It knows of clients that cache, and has no command to hold back for them any more."""
    keeps(Reader(stage))
    writer = Reader(stage, begins=False)
    fallen = stage.nodes["node1"]
    stage.cut = {"node1"}
    stage.elect("node2")
    stage.cut = set()
    stage.ask("node1", command(1, writer.session, 1, PutKey("a", b"1")), reply=writer.channel)
    stage.clock.us += 200_000
    stage.nodes["node2"].run()
    stage.carry()
    fallen.run()
    assert fallen.raft.role is Role.FOLLOWER
    stage.carry()
    assert [type(one) for one in stage.replies(writer.channel)] == [wire.NotLeader]


def test_a_session_that_expires_waits_for_who_keeps_its_files(stage):
    reader = Reader(stage)
    dying = Reader(stage, begins=False)
    dying.session = opened(stage, 500)
    assert isinstance(dying.does(files.CreateFile("e", b"", ephemeral=True)), files.Created)
    kept = keeps(reader, ReadFile("e"))
    stage.pass_time(700_000)
    machine = stage.nodes["node1"].replica.machine
    assert dying.session in machine.sessions
    (told, *_) = reader.hears()
    assert (told.number, told.paths) == (kept.number, ("e",))
    assert isinstance(Reader(stage).reads(ReadFile("e")), wire.Answer), "it is about to go"
    reader.drops(told)
    stage.pass_time(100_000)
    assert dying.session not in machine.sessions


def test_what_a_leader_would_change_and_may_not_yet_is_remembered_for_a_while(stage):
    """It tries again in each turn, and else forgets it."""
    reader, dying = Reader(stage), Reader(stage, begins=False)
    assert isinstance(dying.does(files.CreateFile("e", b"", ephemeral=True)), files.Created)
    keeps(reader, ReadFile("e"))
    keeping, now_us = stage.nodes["node1"].replica._tenure.caching, stage.clock.us
    last_index = stage.nodes["node1"].raft.last_index
    keeping.pass_time(now_us, last_index)
    assert keeping.lets_end([dying.session]) == []
    for later_us, remembers in [(now_us + WANTED_US - 1, True), (now_us + WANTED_US, False)]:
        keeping._sweep_us = now_us
        keeping.pass_time(later_us, last_index)
        assert bool(keeping._wanted) is remembers


def test_a_leadership_that_has_applied_nothing_yet_lets_nobody_keep_anything(stage):
    reader = Reader(stage)
    machine = stage.nodes["node1"].replica.machine
    fresh = caching.Caching(machine, stage.clock.us, 1_000, LEASE_MS, 1)
    assert fresh.allow(reader.session, Caller(reader.channel, WEB.token_id, WEB.key), "a") is None


def test_nothing_is_kept_for_a_session_that_is_about_to_end(stage):
    reader, closer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    assert closer.does(commands.CloseSession(reader.session)) is None
    (told,) = reader.hears()
    assert isinstance(reader.reads(GetKey("z")), wire.Answer)
    reader.drops(told)
    assert closer.answered()


@pytest.mark.parametrize(
    ("op", "query"),
    [
        (commands.DeleteKey("d/f"), ReadFile("d/f")),
        (files.WriteFile("d/f", b"2"), ReadFile("d/f")),
        (files.AddToKey("d/n", 1), GetKey("d/n")),
        (files.CreateFile("d/g", b""), GetStat("d/g")),
        (files.CreateFile("d/g", b""), GetStat("d")),
        (files.CreateFile("d/s", b"", sequential=True), GetStat("d/s0000000000000000001")),
        (files.CreateFile("x/y/z", b"", parents=True), GetStat("x")),
        (files.MakeDirectory("d/m"), GetStat("d")),
        (files.DeletePath("d", recursive=True), ReadFile("d/f")),
        (files.DeleteRange("d/", prefix=True), ReadFile("d/f")),
        (files.DeleteRange("d/", prefix=True), GetStat("d")),
        (files.DeleteRange("d/a", "d/z"), ReadFile("d/f")),
        (commands.Transact((), (PutKey("q", b""),), (PutKey("d/f", b""),)), ReadFile("d/f")),
        (commands.Transact((), (commands.Transact((), (PutKey("d/f", b""),)),)), ReadFile("d/f")),
        (commands.AcquireLock("d/f", 1, False), GetStat("d/f")),
        (lock_commands.Acquire(("q", "d/f"), 1), GetStat("d/f")),
        (lock_commands.ForceRelease("d/f", "why"), GetStat("d/f")),
        (commands.SetPrincipal("p", ("read",)), GetStat("d/f")),
    ],
)
def test_all_that_may_change_a_file_or_its_stat_waits(stage, op, query):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    assert isinstance(writer.does(files.CreateFile("d/f", b"1", parents=True)), files.Created)
    keeps(reader, query)
    assert writer.does(op) is None
    reader.drops(reader.hears()[0])
    assert len(writer.answered()) == 1


def test_whoever_lets_go_of_one_lock_may_let_in_who_waits_for_two(stage):
    """And so the stat of the other changes, which the command does not name."""
    reader, holder, waiter = Reader(stage), Reader(stage, begins=False), Reader(stage, begins=False)
    holder.does(PutKey("two", b""))
    holder.does(commands.AcquireLock("one", 1, False))
    assert isinstance(waiter.does(lock_commands.Acquire(("one", "two"), 1)), commands.Queued)
    keeps(reader, GetStat("two"))
    assert holder.does(commands.ReleaseLock("one", 1)) is None
    reader.drops(reader.hears()[0])
    assert holder.answered()


def test_a_command_that_is_sent_again_is_held_once(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    for _ in range(3):
        writer.ask(command(7, writer.session, 7, PutKey("a", b"1")))
    assert caching_of(stage.nodes["node1"]).held == 1
    reader.drops(reader.hears()[0])
    assert len(writer.answered()) == 1


@pytest.mark.interpreted
def test_more_than_may_be_held_is_refused_and_may_be_asked_again(stage, monkeypatch):
    monkeypatch.setattr(caching, "HELD_MAX", 1)
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    assert writer.does(PutKey("a", b"1")) is None
    meters = stage.nodes["node1"].replica.meters
    failed = meters.proposals_failed
    refused = writer.does(PutKey("a", b"2"))
    assert isinstance(refused, wire.Overloaded)
    assert refused.message == NO_ROOM_TO_HOLD
    assert meters.proposals_failed == failed + 1


@pytest.mark.interpreted
def test_more_than_may_be_kept_is_read_and_not_kept(stage, monkeypatch):
    monkeypatch.setattr(caching, "PATHS_MAX", 1)
    reader = Reader(stage)
    keeps(reader)
    keeps(reader)
    assert isinstance(reader.reads(GetKey("b")), wire.Answer)


def test_a_read_of_the_past_and_a_refusal_are_not_kept(stage):
    reader = Reader(stage)
    reader.does(PutKey("d/f", b""))
    reader.does(files.MakeDirectory("d"))
    assert isinstance(reader.reads(ReadFile("d/f", 1)), wire.Answer)
    assert isinstance(reader.reads(ReadFile("d")), wire.Answer), "a directory: wrong-kind"
    assert isinstance(reader.reads(ReadFile("n")), wire.CachedAnswer), "that there is none is an answer"
    assert isinstance(reader.reads(GetStat("d")), wire.CachedAnswer)


def test_an_end_of_the_last_session_that_caches_ends_all_of_it(stage):
    reader, writer = Reader(stage), Reader(stage, begins=False)
    keeps(reader)
    assert reader.does(commands.CloseSession()) is None
    stage.pass_time(LEASE_US + 40_000)
    assert caching_of(stage.nodes["node1"]).is_idle
    assert isinstance(writer.does(PutKey("a", b"1")), Done)


def test_nobody_keeps_anything_in_a_session_that_is_not_its_own_or_is_none(stage):
    reader = Reader(stage)
    reader.does(PutKey("a", b"1"))
    reader.does(commands.SetPrincipal("other", ("read",)))
    token = Token.new("0123abcd")
    reader.does(commands.AddToken(token.token_id, "other", token.key))
    channel = stage.ask("node1", wire.CachedQueryRequest(1, CLUSTER, reader.session, A), token=token)
    stage.settle()
    (reply,) = stage.replies(channel, token)
    assert isinstance(reply, wire.Answer)
    assert isinstance(reply.result, commands.KeyValue)
    channel = stage.ask("node1", wire.CachedQueryRequest(2, CLUSTER, reader.session + 1_000, A))
    stage.settle()
    (reply,) = stage.replies(channel)
    assert isinstance(reply, wire.Answer)
    keeps(reader)


@pytest.mark.parametrize(("names", "of_several"), [(("a",), False), (("a", "b"), True), (("a", "b", "c"), True)])
def test_an_acquisition_of_two_names_is_one_of_several(names, of_several):
    """As long as one is in flight, nobody can tell which lines it moves."""
    touched = touched_by(lock_commands.Acquire(names, 1), 7, State(), wide=False)
    assert (touched.paths, touched.of_several) == (frozenset(names), of_several)


@pytest.mark.interpreted
def test_a_line_is_looked_through_up_to_a_length_for_those_who_wait_for_several_names():
    waiters = {(session, 1): SimpleNamespace(names=("a",)) for session in range(LINE_MAX)}
    locks = SimpleNamespace(rows={"a": SimpleNamespace(queue=waiters)})
    state: Any = SimpleNamespace(locks=locks)
    release = commands.ReleaseLock("a", 1)
    assert touched_by(release, 1, state, wide=False) == Touched(frozenset("a"))
    waiters[0, 2] = SimpleNamespace(names=("a", "b"))
    del waiters[0, 1]
    assert touched_by(release, 1, state, wide=False) == EVERYTHING
    waiters[0, 2] = waiters[0, 1] = SimpleNamespace(names=("a",))
    assert touched_by(release, 1, state, wide=False) == EVERYTHING


def test_a_word_that_something_is_dropped_gives_its_replica_a_turn(stage):
    """On a node of many replicas those that nobody wants anything of have none; a change may wait for this one."""
    turn = stage.nodes["node1"].turn
    word = wire.DroppedRequest(1, CLUSTER, 7, 1, 1, 1)
    turn._ask(Caller(CHANNELS.reply(), WEB.token_id, WEB.key), word, stage.clock.us)
    assert turn._stirred == {CLUSTER}


@pytest.mark.parametrize("depth", [5, 128, 129, 400])
def test_a_transaction_nested_beyond_measure_ends_no_leader_whose_clients_cache(stage, depth):
    """What it would change is looked for within it, as deep as it is."""
    reader = Reader(stage)
    inner = b"\x94\x1e\x90\x91" * (depth - 1) + b"\x94\x1e\x90\x90\x90" + b"\x90" * (depth - 1)
    raw = msgspec.Raw(b"\x94" + wire.encode(reader.session) + b"\x63\x00" + inner)
    (answer,) = reader.ask(wire.CommandRequest(99, CLUSTER, "", raw))
    assert isinstance(answer, wire.Answer)
    assert isinstance(answer.result, commands.Failure)
    assert answer.result.code == (commands.TOO_MANY if depth <= 128 else commands.INVALID)
    assert isinstance(reader.does(PutKey("a", b"")), Done)
