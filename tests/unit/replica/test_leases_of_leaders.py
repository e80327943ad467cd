"""Leases belong to one leadership, and a new one begins with full ones."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.statemachine.commands import CheckpointSessions, ExpireSessions
from coordinator.statemachine.machine import encode_node_entry
from tests.unit.replica.stage import CHANNELS, Stage
from tests.unit.replica.test_turn import keep_alive, opened


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


@pytest.mark.parametrize("op", [ExpireSessions, lambda sessions: CheckpointSessions(((*sessions, 400),))])
def test_a_leader_that_doubted_its_state_serves_again_when_it_has_applied_what_it_had_proposed(op):
    """What it proposed before, it has forgotten with what it counted: an expiry or a checkpoint that is still on its
    way would go by a keep-alive (histories 10 and 11, within one term)."""
    stage = Stage()
    leader = stage.elect("node1")
    stage.pass_time(100_000)
    session = opened(stage)
    stage.cut = {"node2", "node3"}
    proposed = leader.raft.propose([COMMAND_PREFIX + encode_node_entry(op((session,)))])
    assert proposed is not None
    stage.settle()
    leader.raft.in_doubt = True
    stage.settle()
    assert leader.replica.leases is None
    leader.raft.in_doubt = False
    stage.settle()
    stage.cut = set()
    channel = CHANNELS.reply()
    for number in range(1, 20):
        stage.ask("node1", keep_alive(stage, number, session), reply=channel)
        for _ in range(6):
            for node in stage.nodes.values():
                node.run()
            if any(isinstance(reply, wire.KeptAlive) for reply in stage.replies(channel)):
                assert leader.raft.applied_index >= proposed
                assert leader.replica.machine.sessions[session].remaining_ms is None
            stage.carry()
        stage.pass_time(20_000)
    assert leader.raft.role is Role.LEADER
    assert leader.raft.applied_index == leader.raft.last_index
    assert leader.replica.leases is not None
