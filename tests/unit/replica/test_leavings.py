"""What a node has no use for any more is freed a slice at a time, and nobody waits for it."""

from __future__ import annotations

import pytest

from coordinator.consensus.parts import Parts
from coordinator.replica.intents import DONE, PENDING, RemoveReplica, StartReplica, StopReplica
from coordinator.replica.leavings import SLICE_WEIGHT, Leavings
from coordinator.replica.states import SLICE_EVERY_US
from coordinator.statemachine.items import Item
from coordinator.statemachine.state import State
from tests.unit.replica.company import CLUSTER, Company, Node, with_a_large_state

KEYS = 3 * SLICE_WEIGHT


def large() -> State:
    state = State()
    fill(state)
    return state


def fill(state: State) -> None:
    for number in range(KEYS):
        state.keys.add(f"large{number:06}", Item(b"", 1, 1, 1))


def passes(node: Node) -> int:
    """How often the loop comes by until nothing is left to be freed."""
    count = 0
    while (due_us := node.lifecycle.due_us(node.clock.us)) is not None:
        node.clock.us = max(node.clock.us, due_us)
        node.lifecycle.run(node.clock.us)
        count += 1
    return count


def test_a_state_is_freed_a_slice_at_a_time():
    state = large()
    leavings = Leavings()
    leavings.add(state)
    assert len(state.keys.rows) == KEYS, "nothing is freed as it is left"
    left = KEYS
    while not leavings.is_empty:
        leavings.free_some()
        assert left - len(state.keys.rows) <= SLICE_WEIGHT
        left = len(state.keys.rows)
    assert not left
    assert len(state.keys.order.take_buckets()) == 0


def test_what_is_large_weighs_more():
    leavings = Leavings()
    values = [bytes(1 << 20)] * 20
    leavings.add(values)
    leavings.free_some()
    assert 0 < len(values) < 20


def test_a_snapshot_that_is_freed_is_whole_for_whoever_still_sends_it():
    parts = Parts([b"one", b"two"])
    leavings = Leavings()
    leavings.add(parts)
    while not leavings.is_empty:
        leavings.free_some()
    assert bytes(parts) == b"onetwo"


@pytest.mark.parametrize("order", ["stop", "remove"])
def test_a_replica_that_goes_is_freed_a_slice_at_a_time(company: Company, order: str):
    """With a million keys the loop stood still for 100 ms."""
    company.form("node1", "node2", "node3")
    node = next(node for node in company.nodes.values() if node is not company.leader())
    state, name = node.replica.machine.state, node.name
    fill(state)
    if order == "stop":
        intent: StopReplica | RemoveReplica = StopReplica("o", CLUSTER)
    else:
        intent = RemoveReplica("o", CLUSTER, node.replica.replica, 0, forced=name)
    assert node.ask(intent).state == DONE
    assert len(state.keys.rows) == KEYS, "nothing is freed in the pass that stops it"
    assert passes(node) >= 3
    assert not state.keys.rows


def test_a_node_frees_what_its_replicas_have_left(company: Company):
    company.form("node1", "node2", "node3")
    node = company.leader()
    state = large()
    node.replica.states._left.append(state)
    company.pass_time(1_000_000)
    passes(node)
    assert not state.keys.rows


def test_what_was_loaded_of_a_replica_that_is_to_stay_stopped_is_freed_a_slice_at_a_time(company: Company):
    follower = with_a_large_state(company)
    passes(follower)
    assert follower.ask(StartReplica("t", CLUSTER)).state == PENDING
    follower.loaded()
    for _ in range(4):
        follower.clock.us += SLICE_EVERY_US
        follower.lifecycle.run(follower.clock.us)
    assert follower.intents.outcomes()["t"].state == PENDING
    assert follower.ask(StopReplica("u", CLUSTER)).state == DONE
    assert passes(follower) >= 1
