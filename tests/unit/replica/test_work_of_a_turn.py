"""What a leader does in one turn is bounded by its work, not by the number of its entries alone."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.replica import report, tenure, turn
from coordinator.statemachine import work
from coordinator.statemachine.commands import AcquireLock, PutKey
from coordinator.statemachine.files import CreateFile, DeleteRange
from tests.unit.replica.stage import Stage
from tests.unit.replica.test_turn import command, opened


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.elect("node1")
    return stage


def test_a_turn_applies_so_much_work_and_gives_back_the_rest(stage, monkeypatch):
    """Each of them is 100 bytes, and may delete 4,096 keys."""
    session = opened(stage)
    stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", b"")) for n in range(1, 7)])
    stage.settle()
    stage.bound(apply_rows=7)
    channel = stage.ask("node1", *[command(n, session, n, DeleteRange(f"k{n - 6}")) for n in range(7, 13)])
    follower, steps = stage.nodes["node2"], []
    for _ in range(12):
        stage.clock.us += 20_000
        for node in stage.nodes.values():
            before = node.raft.applied_index
            outcome = node.run()
            if node is follower:
                steps.append(node.raft.applied_index - before)
            assert node.replica.machine.applied == node.raft.applied_index
            assert node.replica.owes == (node.raft.applied_index < node.raft.commit_index)
            assert outcome.deadline_us <= stage.clock.us or not node.replica.owes
            stage.carry()
    assert [step for step in steps if step] == [6, 2, 2, 2], "a put is none, a key of a range is four rows"
    assert sorted(reply.id for reply in stage.replies(channel)) == [*range(7, 13)]
    assert all(not node.replica.machine.keys for node in stage.nodes.values())


@pytest.mark.interpreted
def test_sessions_that_run_out_together_end_in_entries_of_bounded_work(stage, monkeypatch):
    monkeypatch.setattr(tenure, "PLACES_OF_SESSION_MAX", 5)
    sessions = [opened(stage, 1_000) for _ in range(4)]
    number = 0
    for session in sessions[:3]:
        for name in range(2):
            number += 1
            stage.ask("node1", command(number, session, name + 1, AcquireLock(f"{session}/{name}", 1, wait=False)))
    stage.settle()
    machine = stage.nodes["node1"].replica.machine
    assert len(machine.locks) == 6
    ended = []
    apply = machine.apply

    def applied(index, entry):
        before = {*machine.sessions}
        result = apply(index, entry)
        if {*machine.sessions} != before:
            ended.append(sorted(before - {*machine.sessions}))
        return result

    monkeypatch.setattr(machine, "apply", applied)
    stage.pass_time(3_000_000)
    assert ended == [sorted(sessions)[:2], sorted(sessions)[2:]], "as many as have the places of one, and one more"
    assert not machine.locks


@pytest.mark.interpreted
def test_of_sessions_that_run_out_together_whoever_waits_ends_first(stage, monkeypatch):
    # Else what the first of them held would be granted to another that is dead as well, and its lock-delay begin.
    monkeypatch.setattr(tenure, "PLACES_OF_SESSION_MAX", 1)
    holds, waits = opened(stage, 1_000), opened(stage, 1_000)
    stage.ask("node1", command(1, holds, 1, AcquireLock("a", 1, wait=False)))
    stage.ask("node1", command(2, waits, 1, AcquireLock("a", 1, wait=True)))
    stage.settle()
    replica = stage.nodes["node1"].replica
    parts = [*replica._tenure._in_parts([holds, waits])]
    assert parts == [(waits,), (holds,)]
    stage.pass_time(3_000_000)
    assert not replica.machine.locks
    assert not replica.machine.sessions


@pytest.mark.interpreted
def test_the_files_of_sessions_that_run_out_count_as_their_places_do(stage, monkeypatch):
    monkeypatch.setattr(tenure, "PLACES_OF_SESSION_MAX", 5)
    sessions = [opened(stage, 60_000) for _ in range(4)]
    for number, session in enumerate(sessions):
        stage.ask("node1", command(number, session, 1, CreateFile(f"f{session}", b"", ephemeral=True)))
        stage.ask("node1", command(number, session, 2, AcquireLock(f"l{session}", 1, wait=False)))
    stage.settle()
    parts = [*stage.nodes["node1"].replica._tenure._in_parts(sessions)]
    assert parts == [tuple(sessions[:2]), tuple(sessions[2:])]


@pytest.mark.interpreted
def test_sessions_that_have_nothing_are_work_too(stage, monkeypatch):
    """Fifty thousand of them, whose host had died, ended in one entry, and one turn of 105 ms on every replica."""
    monkeypatch.setattr(tenure, "PLACES_OF_SESSION_MAX", 3)
    sessions = [opened(stage, 1_000) for _ in range(7)]
    replica = stage.nodes["node1"].replica
    parts = [*replica._tenure._in_parts(sessions)]
    assert parts == [tuple(sessions[:3]), tuple(sessions[3:6]), tuple(sessions[6:])]
    before = replica.machine.state.work.changes
    stage.pass_time(3_000_000)
    assert not replica.machine.sessions
    assert replica.machine.state.work.changes - before == 7 * work.CHANGE_ROWS, "and a turn gives back what is too much"


@pytest.mark.interpreted
def test_a_directory_is_made_once_in_a_turn_and_anew_in_the_next(stage, monkeypatch):
    """When a leader has died, all its clients ask at once; of a hundred clusters each answer was 0.5 ms."""
    made = []

    def counted(node, replicas, address_of):
        made.append(node)
        return report.directory(node, replicas, address_of)

    monkeypatch.setattr(turn, "directory", counted)
    channel = stage.ask("node1", *map(wire.DirectoryRequest, (1, 2, 3)))
    stage.settle()
    first, second, third = stage.replies(channel)
    assert (first.id, second.id, third.id) == (1, 2, 3)
    assert first.clusters == second.clusters == third.clusters != ()
    assert len(made) == 1
    stage.elect("node2")
    channel = stage.ask("node1", wire.DirectoryRequest(4))
    stage.settle()
    (fourth,) = stage.replies(channel)
    assert fourth.clusters[0].leader == "node2"
    assert len(made) == 2
