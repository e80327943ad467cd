"""A cluster's level: raised when every member with a state machine has said that it can apply it, and not before."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.consensus.engine import Role, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Change, Member
from coordinator.replica import births
from coordinator.replica.hosted import as_hosted
from coordinator.replica.levels import ASK_US, QUESTION_BYTES_MAX, Levels
from coordinator.replica.states import _Staged
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.lock_commands import Acquire, HandOver, RaiseEpoch, Release
from coordinator.statemachine.machine import encode_node_entry
from tests.unit.replica.stage import Stage, Staging
from tests.unit.replica.test_delays import asked
from tests.unit.replica.test_turn import command, opened


@pytest.fixture
def stage(monkeypatch) -> Stage:
    """A cluster that was born at level 1."""
    monkeypatch.setattr(births, "LEVEL", 1)
    return Stage()


def levels(stage: Stage) -> list[int]:
    return [node.replica.machine.state.level for node in stage.nodes.values()]


def test_where_all_can_apply_it_the_level_is_raised_at_once(stage):
    stage.elect("node1")
    stage.pass_time(100_000)  # The others hear of it with the next heartbeat.
    assert levels(stage) == [commands.LEVEL] * 3
    last_index = stage.nodes["node1"].raft.last_index
    stage.pass_time(2 * ASK_US)
    assert stage.nodes["node1"].raft.last_index == last_index, "and that once"


@pytest.mark.interpreted
def test_who_comes_to_a_level_that_it_does_not_know_applies_nothing_behind_it(stage, monkeypatch):
    """It passed over the entry and went on: a state that no other program has, answered from, and led by, until the
    replicas compared theirs."""
    leader, behind = stage.elect("node1"), stage.nodes["node2"]
    stage.pass_time(100_000)
    holder = opened(stage, 60_000)
    monkeypatch.setattr(commands, "LEVEL", commands.LEVEL + 1)
    apply, known = behind.replica.machine.apply, commands.LEVEL - 1

    def of_old(index: int, entry: bytes) -> commands.Result:
        with monkeypatch.context() as older:
            older.setattr(commands, "LEVEL", known)
            return apply(index, entry)

    monkeypatch.setattr(behind.replica.machine, "apply", of_old)
    own = Staging()
    own.is_done = False
    behind.replica.states._taken = _Staged(Snapshot(2, 1, behind.raft.configuration, b"own"), own, 0)
    raised = COMMAND_PREFIX + encode_node_entry(commands.RaiseLevel(commands.LEVEL))
    epoch = COMMAND_PREFIX + encode_node_entry(RaiseEpoch(9))
    assert leader.replica.engine.propose([raised, epoch])
    stage.pass_time(100_000)
    assert [node.replica.machine.state.epoch for node in stage.nodes.values()] == [9, 1, 9]
    assert isinstance(asked(stage, holder, 1, Acquire(("a",), 1)), commands.Granted), "the others go on"
    index = behind.replica.engine.applied_index
    stage.pass_time(2_000_000)
    assert behind.replica.engine.applied_index == index, "and it takes no part"
    assert behind.replica.engine.role is Role.FOLLOWER
    assert behind.replica.stopped.startswith(f"its log, entry {index}: expected a level up to {known}, got {known + 1}")
    assert as_hosted(behind.replica).state == "damaged"
    assert own.given_up
    assert not any(write.stopped for commit in behind.journal.commits for write in commit), "not for good"


def test_a_leader_that_comes_to_a_level_that_it_does_not_know_leads_no_more(stage):
    leader = stage.elect("node1")
    stage.pass_time(100_000)
    raised = COMMAND_PREFIX + encode_node_entry(commands.RaiseLevel(commands.LEVEL + 1))
    assert leader.replica.engine.propose([raised])
    waiting = stage.ask("node1", command(1, 0, 0, commands.OpenSession(10_000, b"")))
    stage.settle()
    assert isinstance(stage.replies(waiting)[0], wire.NotLeader)
    assert leader.replica.engine.role is Role.FOLLOWER
    assert leader.replica.stopped


@pytest.mark.interpreted
@pytest.mark.parametrize("silent", ["node2", "node3"])
def test_a_peer_of_the_first_level_says_nothing_and_keeps_it_down(stage, monkeypatch, silent):
    """It passes over digests of another version than its own, which it knows to be above 0."""
    assert snapshot.VERSION > 0
    replica = stage.nodes[silent].replica
    heard: list[wire.StateDigest] = []
    with monkeypatch.context() as of_old:
        of_old.setattr(replica, "hear_digest", lambda sender, said: heard.append(said))
        stage.elect("node1")
        stage.pass_time(3 * ASK_US)
        assert levels(stage) == [1] * 3
        assert 3 <= len(heard) <= 4, "it is asked now and then"
        assert all(said.version < 0 for said in heard)
    stage.pass_time(ASK_US + 60_000)
    assert levels(stage) == [commands.LEVEL] * 3, "it was replaced by a later program"


def test_the_level_is_the_lowest_of_all(stage):
    for node in stage.nodes.values():
        node.replica.levels.own = 1
    stage.nodes["node1"].replica.levels.own = 7
    stage.elect("node1")
    stage.pass_time(ASK_US)
    assert levels(stage) == [1] * 3
    for node in stage.nodes.values():
        node.replica.levels.own = 7
    stage.nodes["node3"].replica.levels.own = 2
    stage.pass_time(ASK_US + 60_000)
    assert levels(stage) == [2] * 3


def test_in_a_mixed_cluster_what_is_of_level_5_is_not_done_until_all_can_apply_it(monkeypatch):
    """A replica of level 4 would refuse it, keep no event of it, and have another state from then on."""
    monkeypatch.setattr(births, "LEVEL", 4)
    stage = Stage()
    stage.nodes["node3"].replica.levels.own = 4
    stage.elect("node1")
    stage.pass_time(100_000)
    one, two = opened(stage, 600_000), opened(stage, 600_000)
    counted = Acquire(("slots",), 1, "counting", limit=1)
    assert isinstance(asked(stage, one, 1, counted), commands.Granted)
    assert asked(stage, two, 1, counted) == commands.Queued(1)
    give = HandOver("slots", 1, two, 1)
    refused = asked(stage, one, 2, give)
    assert isinstance(refused, commands.Failure)
    assert refused.message == "only an exclusive hold of one name, by one acquisition, is handed over"
    assert isinstance(asked(stage, one, 3, Release(("slots",), 1)), commands.Done)
    stage.pass_time(2 * ASK_US)
    assert levels(stage) == [4] * 3
    machine = stage.nodes["node1"].replica.machine
    assert {event.kind for event in machine.state.lock_events.rows.values()} == {"acquired", "conflict"}
    stage.nodes["node3"].replica.levels.own = commands.LEVEL
    stage.pass_time(ASK_US + 60_000)
    assert levels(stage) == [commands.LEVEL] * 3
    assert asked(stage, one, 4, counted) == commands.Queued(1)
    assert isinstance(asked(stage, two, 2, HandOver("slots", 1, one, 1)), commands.Done)
    stage.pass_time(100_000)
    assert "handed-over" in {event.kind for event in machine.state.lock_events.rows.values()}
    assert len({node.replica.machine.digest() for node in stage.nodes.values()}) == 1


@pytest.mark.interpreted
def test_a_level_that_can_not_be_proposed_now_is_proposed_later(stage):
    propose = stage.nodes["node1"].raft.propose
    stage.nodes["node1"].raft.propose = lambda entries: None
    leader = stage.elect("node1")
    stage.pass_time(200_000)
    assert levels(stage) == [1] * 3
    leader.raft.propose = propose
    stage.pass_time(160_000)
    assert levels(stage) == [commands.LEVEL] * 3


def test_a_witness_says_nothing_and_is_not_waited_for(stage):
    leader = stage.elect("node1")
    witness = stage.join(Member(99, "node9", witness=True))
    leader.raft.change(Change(leader.replica.configuration.voters, (witness.member,)), stage.clock.us)
    stage.pass_time(100_000)
    assert leader.replica.configuration.has_witness
    assert leader.replica._others() == [12, 13]


def test_a_learner_of_the_first_level_keeps_it_down(stage):
    learner = stage.join(Member(99, "node9"))
    for node in stage.nodes.values():
        node.replica.levels.own = 1
    leader = stage.elect("node1")
    leader.raft.change(Change(leader.replica.configuration.voters, (learner.member,)), stage.clock.us)
    stage.pass_time(500_000)
    assert learner.replica.machine.applied == leader.replica.machine.applied
    for name in ("node1", "node2", "node3"):
        stage.nodes[name].replica.levels.own = commands.LEVEL
    stage.pass_time(2 * ASK_US)
    assert levels(stage) == [1] * 4
    learner.replica.levels.own = commands.LEVEL
    stage.pass_time(ASK_US + 60_000)
    assert levels(stage) == [commands.LEVEL] * 4


def test_an_old_word_answers_no_new_question():
    """History 7: a copy of what a peer said before it was set back to an earlier program."""
    asking, asked = Levels(2), Levels(2)
    (question,) = asking.ask(3, [12], 0)
    asked.hear(11, question.message)
    (answer,) = asked.take_answers()
    assert answer.receiver == 11
    asking.hear(12, answer.message)
    assert asking.agreed([12]) == 2
    assert asking.ask(3, [12], ASK_US - 1) == []
    assert asking.agreed([12]) == 2
    assert len(asking.ask(3, [12], ASK_US)) == 1
    asking.hear(12, answer.message)
    assert asking.agreed([12]) == 1


def test_a_question_without_end_is_not_repeated_whole():
    asked = Levels(2)
    asked.hear(11, wire.StateDigest(-2, 0, b"x" * 1_000_000, wanted=True))
    (answer,) = asked.take_answers()
    assert len(answer.message.digest) == QUESTION_BYTES_MAX
