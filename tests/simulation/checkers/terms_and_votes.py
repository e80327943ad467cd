"""Terms never fall and a vote is never changed within its term, over any crash (Raft, figure 2, and section 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class TermsAndVotes(Checker):
    name = "terms-and-votes"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._terms: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}

    def journaled(self, node: Node, write: Write) -> None:
        term, vote, _ = write.hard_state
        self._note(node, write.replica, term)
        if vote:
            known = self._votes.setdefault((write.replica, term), vote)
            if known != vote:
                self.violated(f"{node.name} voted for {known:x} in term {term} and now votes for {vote:x}")

    def changed(self, node: Node, before: View, after: View) -> None:
        if after.commit < before.commit:
            self.violated(f"the commit index of {node.name} falls from {before.commit} to {after.commit}")
        self._note(node, node.disk.replica, after.term)

    def _note(self, node: Node, replica: int, term: int) -> None:
        self.checks += 1
        known = self._terms.get(replica, 0)
        if term < known:
            self.violated(f"{node.name} was in term {known} and is in term {term}")
        self._terms[replica] = term
