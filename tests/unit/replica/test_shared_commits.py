"""A leader has callers share its commits; what waits is neither lost nor kept from anybody."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.replica.gathering import LATELY
from coordinator.replica.ports import Write
from coordinator.statemachine.commands import AcquireLock, ClientOp, PutKey, ReleaseLock
from tests.unit.replica.stage import Node, Stage
from tests.unit.replica.test_turn import command, opened

COMMIT_US = 4_000
ROUND_US = 600


class Callers:
    """Some that write, each a key of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.session = opened(stage)
        self.number = 0

    def put(self, channel: str = "") -> str:
        """By a caller with that channel, or one that has not asked before; its channel."""
        return self.ask(channel, PutKey(f"k{self.number + 1}", b""))

    def ask(self, channel: str, *ops: ClientOp) -> str:
        """In one packet, as threads of one client do."""
        asked = []
        for op in ops:
            self.number += 1
            asked.append(command(self.number, self.session, self.number, op))
        return self.stage.ask("node1", *asked, reply=channel)


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
    callers.put(first)
    stage.settle()
    assert written(leader) == [1, 2]
    assert len(stage.replies(first)) == len(stage.replies(second)) == 1


def test_a_caller_that_is_alone_waits_for_nobody(stage, leader, callers):
    leader.journal.commits.clear()
    channel = ""
    for count in range(1, 6):
        channel = callers.put(channel)
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
    channel = ""
    for count in range(1, 4):
        channel = callers.put(channel)
        leader.run()
        stage.carry()
        assert written(leader) == [1] * count
        assert len(stage.replies(channel)) == 1
    channel, other = callers.put(channel), callers.put()
    leader.run()
    callers.put(channel)
    leader.run()
    assert written(leader) == [1, 1, 1, 2], "two were answered, and may come back"
    assert leader.replica.due_us(stage.clock.us, connected=True) <= stage.clock.us + 2 * COMMIT_US
    callers.put(other)
    leader.run()
    stage.carry()
    assert written(leader) == [1, 1, 1, 2, 2]
    assert len(stage.replies(channel)) == len(stage.replies(other)) == 2


def test_in_a_cluster_of_one_the_waiting_begins_behind_the_commit(monkeypatch):
    """It answers behind it: what the commit took is no time in which a caller could have come back."""
    stage = Stage(1)
    leader = stage.elect("node1")
    callers = Callers(stage)
    for _ in range(LATELY):
        leader.replica.gathering.took(COMMIT_US)
    commit = leader.journal.commit

    def slowly(writes: list[Write]) -> None:
        stage.clock.us += COMMIT_US
        commit(writes)

    monkeypatch.setattr(leader.journal, "commit", slowly)
    leader.journal.commits.clear()
    channel, other = callers.put(), callers.put()
    leader.run()
    stage.clock.us += 100
    callers.put(channel)
    leader.run()
    assert written(leader) == [2], "the other has had no time yet"
    stage.clock.us += 100
    callers.put(other)
    leader.run()
    assert written(leader) == [2, 2]


def test_whoever_waited_for_what_nobody_comes_back_from_goes_on_at_once(stage, leader, callers):
    """Who stands in line comes back with a grant, which may take its time."""
    leader.journal.commits.clear()
    holder = callers.ask("", AcquireLock("a", 1, wait=True))
    stage.settle()
    callers.ask(holder, AcquireLock("a", 2, wait=True))
    leader.run()
    channel = callers.put()
    stage.settle()
    assert written(leader) == [1, 1], "the write waits for the entry before it"
    assert leader.replica.due_us(stage.clock.us, connected=True) == stage.clock.us
    stage.settle()
    assert written(leader) == [1, 1, 1]
    assert len(stage.replies(channel)) == 1


def test_who_is_granted_a_lock_is_waited_for_as_is_who_released_it(stage, leader, callers):
    first, second = callers.ask("", AcquireLock("a", 1, wait=True)), callers.ask("", AcquireLock("a", 2, wait=True))
    stage.settle()
    leader.journal.commits.clear()
    callers.ask(first, ReleaseLock("a", 1))
    stage.settle()
    callers.ask(first, AcquireLock("a", 3, wait=True))
    stage.settle()
    assert written(leader) == [1]
    callers.ask(second, ReleaseLock("a", 2))
    stage.settle()
    assert written(leader) == [1, 2]


class TestOnAQuickDisk:
    """What a round takes is learned from the rounds."""

    @pytest.fixture
    def groups(self, stage: Stage, leader: Node) -> Callers:
        callers = Callers(stage)
        channel = ""
        for _ in range(LATELY):
            channel = callers.put(channel)
            leader.run()
            stage.clock.us += ROUND_US
            stage.settle()
        assert leader.replica.gathering.cost_us == ROUND_US * 5 // 2
        leader.journal.commits.clear()
        return callers

    @staticmethod
    def puts(count: int) -> list[PutKey]:
        return [PutKey(f"k{number}", b"") for number in range(count)]

    def test_two_clients_come_to_ask_together(self, stage, leader, groups):
        first = groups.ask("", *self.puts(8))
        leader.run()
        second = groups.ask("", *self.puts(8))
        stage.settle()
        assert written(leader) == [8]
        groups.ask(first, *self.puts(8))
        stage.settle()
        assert written(leader) == [8, 16]
        groups.ask(second, *self.puts(8))
        stage.settle()
        assert written(leader) == [8, 16], "the first may be back at any moment"
        groups.ask(first, *self.puts(8))
        stage.settle()
        assert written(leader) == [8, 16, 16]

    def test_few_go_on_at_once(self, stage, leader, groups):
        groups.ask("", *self.puts(3))
        leader.run()
        groups.ask("", *self.puts(8))
        leader.run()
        assert written(leader) == [3, 8]

    def test_many_go_on_at_once(self, stage, leader, groups):
        first = groups.ask("", *self.puts(32))
        leader.run()
        second = groups.ask("", *self.puts(32))
        stage.settle()
        groups.ask(first, *self.puts(32))
        stage.settle()
        assert written(leader) == [32, 32, 32]
        assert len(stage.replies(second)) == 32

    def test_who_waited_in_vain_waits_for_nobody_the_next_time(self, stage, leader, groups):
        groups.ask("", *self.puts(8))
        leader.run()
        groups.ask("", *self.puts(2))
        stage.settle()
        assert written(leader) == [8]
        stage.clock.us += 2 * ROUND_US
        stage.settle()
        assert written(leader) == [8, 2]
        groups.ask("", *self.puts(8))
        leader.run()
        groups.ask("", *self.puts(2))
        leader.run()
        assert written(leader) == [8, 2, 8, 2]
