"""A round is confirmed once a majority has answered it in its own term, and never before (thesis, section 6.4;
history 5).

Reads, keep-alives and check-quorum all rest on it. It is counted here from the answers that followers send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coordinator.consensus.engine import Outgoing
from coordinator.consensus.raft.messages import AppendResponse, SnapshotResponse
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class RoundConfirmation(Checker):
    name = "round-confirmation"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._answered: dict[tuple[int, int], dict[int, int]] = {}
        """(leader, term) to each follower's highest round."""
        self._held: dict[tuple[int, int], int] = {}
        """(leader, term) to the highest round that was found confirmed rightly."""

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        for receiver, message in outgoing:
            if isinstance(message, (AppendResponse, SnapshotResponse)):
                answered = self._answered.setdefault((receiver, message.term), {})
                own = node.disk.replica
                if message.round > answered.get(own, 0):
                    answered[own] = message.round

    def led(self, node: Node) -> None:
        engine = node.engine
        own = (engine.replica, engine.term)
        confirmed = engine.rounds.confirmed
        if confirmed <= self._held.get(own, 0):
            return
        self.checks += 1
        self._held[own] = confirmed
        answered = self._answered.get(own, {})
        heard = {engine.replica} | {replica for replica, number in answered.items() if number >= confirmed}
        if not is_quorum(engine.configuration, heard):
            self.violated(
                f"{node.name} takes round {confirmed} of term {engine.term} for confirmed; {len(heard)} answered it"
            )
