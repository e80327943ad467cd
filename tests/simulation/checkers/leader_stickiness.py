"""Leader stickiness: who has answered a leader helps nobody else to lead for an election time-out (thesis, section
4.2.3), unless that leader has told somebody to campaign.

Checked where lease reads are on: there the leader's lease rests on it, so that neither a restart nor the crash hint may
shorten it (`Options.lease_reads`; history 2). It is counted from the answers that a replica sends, by the clock of its
machine, over the lives of its processes. An answer to what was sent in an earlier round than one that it has answered
adds nothing: the lease counts from the sending of a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from coordinator.consensus.engine import Outgoing
from coordinator.consensus.raft.messages import (
    AppendResponse,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class _Answered(NamedTuple):
    leader: int
    term: int
    round: int
    us: int


class LeaderStickiness(Checker):
    name = "leader-stickiness"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._answered: dict[int, _Answered] = {}
        """Replica to the leader that it answered last, the highest round of that, and when it first answered it."""
        self._gave_way: set[tuple[int, int]] = set()
        """Leaders that told somebody to campaign, and in which term."""

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        if not self.world.settings.options.lease_reads:
            return
        for receiver, message in outgoing:
            if isinstance(message, (AppendResponse, SnapshotResponse)):
                answered = self._answered.get(node.disk.replica)
                is_new = answered is None or (message.term, message.round) > (answered.term, answered.round)
                if message.round and message.term == node.engine.term and is_new:
                    self._answered[node.disk.replica] = _Answered(receiver, message.term, message.round, node.turn_us)
            elif isinstance(message, TimeoutNow):
                self._gave_way.add((node.disk.replica, message.term))
            elif isinstance(message, VoteResponse):
                if message.granted:
                    self._keeps_still(node, receiver, "gives its word to another")
            elif isinstance(message, VoteRequest):
                self._keeps_still(node, node.disk.replica, "campaigns")

    def _keeps_still(self, node: Node, candidate: int, what: str) -> None:
        self.checks += 1
        answered = self._answered.get(node.disk.replica)
        if answered is None or answered.leader == candidate or answered[:2] in self._gave_way:
            return
        if any(term > answered.term for _, term in self._gave_way):
            return  # Whoever led later was elected by a majority, so the lease of the one that it answered had ended.
        passed_us = node.clock.now_us() - answered.us
        if passed_us < node.engine.options.election_timeout_us_min:
            self.violated(
                f"{node.name} {what} {passed_us / 1_000:.0f} ms after it answered the leader of term {answered.term}"
            )
