"""A leader on a slow disk has callers share its commits; what waits is neither lost nor kept from anybody."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.statemachine.commands import PutKey
from tests.unit.replica.stage import Node, Stage
from tests.unit.replica.test_turn import command, opened

COMMIT_US = 4_000


class Callers:
    """Some that write, each a key of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.session = opened(stage)
        self.number = 0

    def put(self) -> str:
        self.number += 1
        return self.stage.ask("node1", command(self.number, self.session, self.number, PutKey(f"k{self.number}", b"")))


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.elect("node1")
    return stage


@pytest.fixture
def leader(stage: Stage) -> Node:
    return stage.nodes["node1"]


@pytest.fixture
def callers(stage: Stage, leader: Node) -> Callers:
    callers = Callers(stage)
    for _ in range(100):
        leader.replica.gathering.took(COMMIT_US)
    return callers


def written(leader: Node) -> list[int]:
    """Entries of each commit that had any."""
    return [len(write.entries) for writes in leader.journal.commits for write in writes if write.entries]


def test_callers_that_took_turns_come_to_share_a_commit(stage, leader, callers):
    leader.journal.commits.clear()
    first = callers.put()
    leader.run()
    second = callers.put()
    outcome = leader.run()
    assert written(leader) == [1]
    assert stage.clock.us < outcome.deadline_us <= stage.clock.us + 2 * COMMIT_US
    stage.settle()
    assert len(stage.replies(first)) == 1
    assert stage.replies(second) == []
    assert not leader.replica.is_still, "it must not be laid to sleep with a command that waits"
    first = callers.put()
    stage.settle()
    assert written(leader) == [1, 2]
    assert len(stage.replies(first)) == len(stage.replies(second)) == 1


def test_a_caller_that_is_alone_waits_for_nobody(stage, leader, callers):
    leader.journal.commits.clear()
    for count in range(1, 6):
        channel = callers.put()
        stage.settle()
        assert written(leader) == [1] * count
        assert len(stage.replies(channel)) == 1


def test_who_waits_goes_on_when_the_time_is_up(stage, leader, callers):
    leader.journal.commits.clear()
    callers.put()
    leader.run()
    second = callers.put()
    stage.settle()
    assert written(leader) == [1]
    stage.clock.us += COMMIT_US
    stage.settle()
    assert written(leader) == [1, 1], "the first did not come back"
    assert len(stage.replies(second)) == 1


def test_who_waits_for_a_majority_that_is_silent_goes_on_when_the_time_is_up(stage, leader, callers):
    leader.journal.commits.clear()
    stage.cut = {"node2", "node3"}
    callers.put()
    stage.settle()
    callers.put()
    stage.settle()
    assert written(leader) == [1]
    stage.clock.us += 2 * COMMIT_US
    stage.settle()
    assert written(leader) == [1, 1]


def test_where_the_leadership_is_lost_those_who_wait_are_told(stage, leader, callers):
    leader.journal.commits.clear()
    callers.put()
    leader.run()
    second = callers.put()
    leader.run()
    assert written(leader) == [1], "the second waits, and is in nobody's log"
    leader.bus.published.clear()
    stage.elect("node2")
    assert [type(reply) for reply in stage.replies(second)] == [wire.NotLeader]
    assert leader.replica.gathering.until_us == 0


def test_who_is_applied_bit_by_bit_is_answered_once(stage, leader, callers):
    """Else nobody would go on before all of it is applied."""
    stage.bound(apply_bytes=1)
    leader.journal.commits.clear()
    for _ in range(4):
        callers.put()
    leader.run()
    fifth = callers.put()
    for node in ("node2", "node3"):
        stage.carry()
        stage.nodes[node].run()
    stage.carry()
    leader.run()
    until_us = leader.replica.gathering.until_us
    assert until_us > stage.clock.us
    stage.clock.us = until_us
    assert leader.replica.owes
    leader.run()
    assert written(leader) == [4, 1], "three quarters of a commit have passed"
    stage.settle()
    assert len(stage.replies(fifth)) == 1


def test_in_a_cluster_of_one_nothing_is_in_flight_behind_a_turn():
    stage = Stage(1)
    leader = stage.elect("node1")
    callers = Callers(stage)
    for _ in range(100):
        leader.replica.gathering.took(COMMIT_US)
    leader.journal.commits.clear()
    for count in range(1, 4):
        channel = callers.put()
        leader.run()
        stage.carry()
        assert written(leader) == [1] * count
        assert len(stage.replies(channel)) == 1
    callers.put()
    callers.put()
    leader.run()
    third = callers.put()
    leader.run()
    assert written(leader) == [1, 1, 1, 2], "two were answered, and may come back"
    assert leader.replica.due_us(stage.clock.us, connected=True) <= stage.clock.us + 2 * COMMIT_US
    fourth = callers.put()
    leader.run()
    stage.carry()
    assert written(leader) == [1, 1, 1, 2, 2]
    assert len(stage.replies(third)) == len(stage.replies(fourth)) == 1
