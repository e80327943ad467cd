"""Election safety: at most one leader can be elected in a given term (Raft, figure 3), and it leads that term once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class ElectionSafety(Checker):
    name = "election-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leaders: dict[int, tuple[str, int]] = {}

    def elected(self, node: Node) -> None:
        self.checks += 1
        term = node.engine.term
        known = self._leaders.setdefault(term, (node.name, node.boots))
        if known != (node.name, node.boots):
            self.violated(f"term {term} was led by {known[0]} (start {known[1]}) and by {node.name} (start {node.boots})")
