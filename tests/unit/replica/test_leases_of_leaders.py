"""Leases belong to one leadership, and a new one begins with full ones."""

from __future__ import annotations

from coordinator.consensus.engine import Role
from tests.unit.replica.stage import Stage
from tests.unit.replica.test_turn import opened


def test_one_leadership_upon_another_with_no_turn_between_begins_with_full_leases():
    """The only voter steps down at an operator's word while it sleeps; when it wakes, it campaigns and wins at once."""
    stage = Stage(size=1)
    node = stage.elect("node1")
    session = opened(stage, ttl_ms=1_000)
    stage.pass_time(400_000)
    before, term = node.replica.leases, node.raft.term
    node.raft.step_down(stage.clock.us)
    stage.clock.us = node.raft.election_due_us
    stage.settle()
    assert (node.raft.role, node.raft.term) == (Role.LEADER, term + 1)
    assert node.replica.leases is not before
    stage.pass_time(800_000)
    assert session in node.replica.machine.sessions
    stage.pass_time(400_000)
    assert session not in node.replica.machine.sessions
