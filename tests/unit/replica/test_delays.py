"""Lock-delays as the leader counts them."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.replica.delays import ENDED_MAX, Delays
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command, Granted, Queued
from coordinator.statemachine.lock_commands import Acquire, ForceRelease
from tests.unit.replica.stage import CLUSTER, Node, Stage
from tests.unit.replica.test_turn import opened


def asked(stage: Stage, session: int, number: int, op: commands.ClientOp, node: str = "node1") -> commands.Result:
    raw = msgspec.Raw(wire.encode(Command(session, number, 0, op)))
    channel = stage.ask(node, wire.CommandRequest(number, CLUSTER, "", raw))
    stage.settle()
    (answer,) = stage.replies(channel)
    return answer.result


def held_and_waited_for(stage: Stage, delay_ms: int) -> int:
    """A session of one second holds "a" with a lock-delay, and another waits; the latter."""
    one, two = opened(stage, 1_000), opened(stage, 60_000)
    assert isinstance(asked(stage, one, 1, Acquire(("a",), 1, delay_ms=delay_ms)), Granted)
    assert asked(stage, two, 1, Acquire(("a",), 1)) == Queued(1)
    return two


def until_it_is_free(stage: Stage, node: Node, waiter: int) -> int:
    """Microseconds until the waiter has it."""
    for waited_us in range(0, 30_000_000, 20_000):
        lock = node.replica.machine.locks["a"]
        if lock.holder is not None and lock.holder.session == waiter:
            return waited_us
        stage.pass_time(20_000)
    raise AssertionError("the delay never ends")


def until_it_is_delayed(stage: Stage, node: Node) -> None:
    while not node.replica.machine.delays():
        stage.pass_time(20_000)


def test_a_name_stays_unavailable_for_as_long_as_its_dead_holder_asked(stage):
    waiter = held_and_waited_for(stage, 2_000)
    leader = stage.nodes["node1"]
    until_it_is_delayed(stage, leader)
    assert 2_000_000 <= until_it_is_free(stage, leader, waiter) <= 2_100_000
    assert leader.replica._tenure is not None
    assert leader.replica._tenure.delays.count == 0


def test_a_new_leader_counts_anew(stage):
    waiter = held_and_waited_for(stage, 2_000)
    until_it_is_delayed(stage, stage.nodes["node1"])
    stage.pass_time(1_500_000)
    next_leader = stage.elect("node2")
    assert 1_960_000 <= until_it_is_free(stage, next_leader, waiter) <= 2_100_000


def test_a_leader_that_nobody_confirms_ends_no_delay_and_no_stall_counts(stage):
    """History 3, for delays."""
    held_and_waited_for(stage, 1_000)
    leader = stage.nodes["node1"]
    until_it_is_delayed(stage, leader)
    stage.pass_time(800_000)
    leader.bus.connected = False
    stage.pass_time(400_000)
    leader.bus.connected = True
    assert leader.replica.machine.delays(), "while it is deaf no time passes"
    last_index = leader.raft.last_index
    for _ in range(15):
        # Alone, for less than what ends its leadership; the delay passes meanwhile.
        stage.clock.us += 20_000
        leader.run()
        leader.bus.published.clear()
    assert leader.replica._tenure is not None
    assert leader.replica._tenure.delays.due_in_us(leader.replica._tenure.leases.lease_us) == 10_000, "it passed"
    assert leader.raft.last_index == last_index, "and nothing is proposed"
    stage.pass_time(200_000)
    assert not leader.replica.machine.delays()


@pytest.mark.interpreted
def test_an_end_that_can_not_be_proposed_now_is_proposed_later(stage):
    held_and_waited_for(stage, 500)
    leader = stage.nodes["node1"]
    until_it_is_delayed(stage, leader)
    propose = leader.raft.propose
    leader.raft.propose = lambda entries: None
    stage.pass_time(1_000_000)
    assert leader.replica.machine.delays()
    leader.raft.propose = propose
    stage.pass_time(100_000)
    assert not leader.replica.machine.delays()


def test_the_turn_is_due_when_a_delay_passes(stage):
    held_and_waited_for(stage, 700)
    leader = stage.nodes["node1"]
    until_it_is_delayed(stage, leader)
    assert leader.replica._tenure is not None
    delays, leases = leader.replica._tenure.delays, leader.replica._tenure.leases
    while (delays.due_in_us(leases.lease_us) or 0) > 30_000:
        stage.pass_time(20_000)
    left_us = delays.due_in_us(leases.lease_us)
    assert left_us
    stage.clock.us += left_us - 1_000
    assert leader.run().deadline_us <= stage.clock.us + 1_000
    leader.bus.connected = False
    deaf_us = leader.run().deadline_us
    leader.bus.connected = True
    assert leader.run().deadline_us <= deaf_us


def test_a_delay_that_an_operator_ends_is_counted_no_more(stage):
    waiter = held_and_waited_for(stage, 2_000)
    leader = stage.nodes["node1"]
    until_it_is_delayed(stage, leader)
    stage.pass_time(100_000)
    operator = opened(stage, 60_000)
    assert isinstance(asked(stage, operator, 1, ForceRelease("a", "its host is gone")), commands.Done)
    assert until_it_is_free(stage, leader, waiter) == 0
    assert leader.replica._tenure is not None
    assert leader.replica._tenure.delays.count == 0
    last_index = leader.raft.last_index
    stage.pass_time(2_500_000)
    assert leader.raft.last_index == last_index, "nothing is said of it when it would have passed"


def test_an_end_that_waits_for_a_majority_is_forgotten_with_its_delay():
    delays = Delays()
    delays.begin("a", 7, 100, 0)
    assert delays.take_passed(200_000, 200_000, 100_000) == ()
    delays.end("a", 7)
    assert (delays.count, delays.take_passed(200_000, 200_000, 200_000), delays.due_in_us(200_000)) == (0, (), None)


def test_an_end_of_an_earlier_delay_leaves_the_later_one():
    delays = Delays()
    delays.begin("a", 7, 100, 0)
    delays.begin("a", 9, 100, 50_000)
    delays.end("a", 7)
    assert delays.take_passed(150_000, 150_000, 150_000) == (("a", 9),)


def test_a_later_delay_of_a_name_takes_the_place_of_an_earlier():
    delays = Delays()
    delays.begin("a", 5, 1_000, 0)
    delays.begin("a", 9, 1_000, 500_000)
    assert delays.take_passed(1_000_000, 1_000_000, 1_000_000) == ()
    assert delays.count == 1
    assert delays.take_passed(1_500_000, 1_500_000, 1_500_000) == (("a", 9),)
    assert delays.due_in_us(1_500_000) is None


def test_a_delay_that_begins_while_the_end_of_an_earlier_one_waits_for_a_majority_is_counted_whole():
    delays = Delays()
    delays.begin("a", 5, 1_000, 0)
    assert delays.take_passed(1_000_000, 1_000_000, 0) == ()
    delays.begin("a", 9, 1_000, 1_000_000)
    assert delays.take_passed(1_100_000, 1_100_000, 1_100_000) == (("a", 5),), "which the log passes over"
    assert delays.count == 1
    assert delays.take_passed(2_000_000, 2_000_000, 2_000_000) == (("a", 9),)


def test_a_refused_end_of_an_earlier_delay_does_not_hide_the_later_one():
    delays = Delays()
    delays.begin("a", 5, 1_000, 0)
    assert delays.take_passed(1_000_000, 1_000_000, 0) == ()
    delays.begin("a", 9, 1_000, 1_000_000)
    taken = delays.take_passed(1_100_000, 1_100_000, 1_100_000)
    delays.proposal_refused(taken, 1_100_000)
    assert delays.take_passed(2_000_000, 2_000_000, 2_000_000) == (("a", 5), ("a", 9))


def test_one_entry_ends_so_many_and_the_rest_follows_at_once():
    delays = Delays()
    for number in range(ENDED_MAX + 1):
        delays.begin(f"{number:04}", 5, 1_000, 0)
    assert len(delays.take_passed(1_000_000, 1_000_000, 1_000_000)) == ENDED_MAX
    assert delays.due_in_us(1_000_000) == 10_000
    assert delays.take_passed(1_000_000, 1_000_000, 1_000_000) == ((f"{ENDED_MAX:04}", 5),)
