"""Whom a leader tells of a hold that was taken away by force, and how often."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.replica.broken_holds import TELLINGS, BrokenHolds
from coordinator.replica.callers import Answers, Caller
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Granted
from coordinator.statemachine.lock_commands import BREAKS_MAX, Acquire, Break, ForceRelease
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import CLUSTER, WEB, Stage
from tests.unit.replica.test_delays import asked
from tests.unit.replica.test_turn import keep_alive, opened


class Holder:
    """A client with a session that holds "a"."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.session = opened(stage, 60_000)
        self.granted = asked(stage, self.session, 1, Acquire(("a",), 1))
        assert isinstance(self.granted, Granted)
        self._number = 1
        self.channel = ""

    def keeps_alive(self, node: str = "node1") -> list[wire.Reply]:
        self._number += 1
        request = wire.KeepAliveRequest(
            self._number, CLUSTER, "", self.session, self._stage.nodes[node].replica.engine.term, self._number
        )
        self.channel = self._stage.ask(node, request, reply=self.channel)
        self._stage.settle()
        return self.hears()

    def hears(self) -> list[wire.Reply]:
        """What has come, but for the answers to its keep-alives."""
        return [reply for reply in self._stage.replies(self.channel) if not isinstance(reply, wire.KeptAlive)]


@pytest.fixture
def holder(stage: Stage) -> Holder:
    return Holder(stage)


def break_it(stage: Stage) -> None:
    assert isinstance(asked(stage, opened(stage), 1, ForceRelease("a", "it hangs")), Done)


def test_who_has_spoken_to_it_is_told_at_once_in_a_packet_of_its_own(stage: Stage, holder: Holder) -> None:
    assert holder.keeps_alive() == []
    stage.ask("node1", keep_alive(stage, 90, holder.session), reply=holder.channel)
    break_it(stage)
    packets = stage.answers[holder.channel]
    assert [len(wire.decode_replies(wire.open_envelope(packet.data, wire.REPLY).body)) for packet in packets] == [1, 1]
    (told,) = holder.hears()
    assert isinstance(told, wire.HoldBroken)
    broken = told.broken
    assert (told.cluster, broken.name, broken.principal, broken.reason) == (CLUSTER, "a", "web", "it hangs")
    assert (broken.holder.session, broken.holder.acquisition, broken.token) == (holder.session, 1, holder.granted.token)


def test_it_is_told_with_keep_alives_a_few_times(stage: Stage, holder: Holder) -> None:
    break_it(stage)
    told = [holder.keeps_alive() for _ in range(TELLINGS + 1)]
    assert [len(replies) for replies in told] == [1] * TELLINGS + [0]
    assert len({replies[0].broken.number for replies in told[:-1]}) == 1


def test_the_next_leader_tells_it_anew(stage: Stage, holder: Holder) -> None:
    break_it(stage)
    while holder.keeps_alive():
        pass
    stage.elect("node2")
    assert [len(holder.keeps_alive("node2")) for _ in range(TELLINGS + 1)] == [1] * TELLINGS + [0]


def test_nobody_is_told_by_who_does_not_lead(stage: Stage, holder: Holder) -> None:
    holder.keeps_alive()
    other = opened(stage)
    stage.elect("node2")
    assert isinstance(asked(stage, other, 1, ForceRelease("a", "it hangs"), "node2"), Done)
    assert holder.hears() == [], "it has not spoken to the one, and the other does not lead"


def test_of_a_session_that_has_ended_nothing_is_kept(stage: Stage, holder: Holder) -> None:
    holder.keeps_alive()
    break_it(stage)
    tenure = stage.nodes["node1"].replica._tenure
    assert tenure is not None
    assert isinstance(asked(stage, holder.session, 2, commands.CloseSession()), Done)
    assert holder.session not in tenure.broken_holds._callers
    assert holder.session not in tenure.broken_holds._untold


def test_what_is_told_counts_among_the_bytes_of_a_turn() -> None:
    made = Break(1, 9, "a", commands.Holder(5, 1, "web"), 9, "web", "it hangs")
    answers = Answers("node1")
    answers.broken(Caller("c", WEB.token_id, WEB.key), CLUSTER, made)
    assert answers.size == len(wire.encode(wire.HoldBroken(CLUSTER, made)))


def test_more_than_the_cluster_remembers_is_told_as_far_as_that() -> None:
    machine = Machine()
    holds = BrokenHolds(machine)
    caller = Caller("c", WEB.token_id, WEB.key)
    assert holds.kept_alive(5, caller) == ()
    for number in range(1, BREAKS_MAX + 1):
        made = Break(number, 9, f"a{number}", commands.Holder(5, 1, "web"), 9, "web", "it hangs")
        machine.state.breaks.add(number, made)
        machine.state.broken[made.name, 5, 1] = number
        assert holds.broken(made.name, 5, 1) == (caller, made)
    assert holds.broken("another", 5, 1) is None
    machine.state.breaks.remove(1)
    assert len(holds.kept_alive(5, caller)) == BREAKS_MAX - 1
