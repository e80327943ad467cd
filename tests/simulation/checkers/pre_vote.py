"""Pre-vote: a term is raised only by a campaign that a majority said beforehand it would vote for (thesis, section
9.6).

So whoever was cut off does not come back with a higher term and depose a leader that everyone else follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.raft.elections import REASON_TRANSFER
from coordinator.consensus.raft.messages import Message, VoteResponse
from coordinator.replica.ports import Write
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class PreVote(Checker):
    name = "pre-vote"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._granted: dict[tuple[int, int], set[int]] = {}
        """(candidate, term) to those of whom it has heard that they would vote."""
        self._raised: set[int] = {world.nodes[0].disk.hard_state.term}
        """Terms in which somebody asked for votes."""

    def took(self, node: Node, sender: int, message: Message) -> None:
        if type(message) is VoteResponse and message.pre and message.granted:
            self._granted.setdefault((node.disk.replica, message.term), set()).add(sender)

    def journaled(self, node: Node, write: Write) -> None:
        """A replica that votes for itself campaigns, whether or not it lives to tell anyone."""
        term, vote, _ = write.hard_state
        if vote != write.replica or term in self._raised:
            return
        self.checks += 1
        self._raised.add(term)
        willing = self._granted.get((write.replica, term), set()) | {write.replica}
        if node.engine.campaign_reason == REASON_TRANSFER:
            return  # The leader itself wants it.
        if not is_quorum(node.engine.configuration, willing):
            self.violated(f"{node.name} campaigns in term {term}; only {len(willing)} said that they would vote")

    def changed(self, node: Node, before: View, after: View) -> None:
        if after.term == before.term:
            return
        self.checks += 1
        if after.term not in self._raised:
            self.violated(f"{node.name} is in term {after.term}, in which nobody has asked for votes")
