"""Election safety: at most one leader can be elected in a given term (Raft, figure 3), and it leads that term once.

And whoever leads has the votes of a majority, on their disks (Raft, section 5.2); whoever follows a leader in a term,
follows that one (section 5.1: a message of an older term is refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.replica.ports import Write
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class ElectionSafety(Checker):
    name = "election-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leaders: dict[int, tuple[str, int]] = {}
        self._elected: dict[int, int] = {}
        """Term to the replica that leads it."""
        self._votes: dict[int, dict[int, int]] = {}
        """Term to who voted, and for whom."""

    def journaled(self, node: Node, write: Write) -> None:
        term, vote, _ = write.hard_state
        if vote:
            self._votes.setdefault(term, {})[write.replica] = vote

    def turned(self, node: Node) -> None:
        engine = node.engine
        if engine.leader and self._elected.get(engine.term, engine.leader) != engine.leader:
            self.violated(f"{node.name} follows {engine.leader:x} in term {engine.term}, which another one leads")

    def elected(self, node: Node) -> None:
        self.checks += 1
        term = node.engine.term
        known = self._leaders.setdefault(term, (node.name, node.boots))
        if known != (node.name, node.boots):
            self.violated(
                f"term {term} was led by {known[0]} (start {known[1]}) and by {node.name} (start {node.boots})"
            )
        own = self._elected[term] = node.disk.replica
        voters = {voter for voter, vote in self._votes.get(term, {}).items() if vote == own}
        if not is_quorum(node.engine.configuration, voters):
            self.violated(f"{node.name} leads term {term} with the votes of {len(voters)} disks")
