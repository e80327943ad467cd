"""Leader completeness: an entry committed in a term is in the logs of the leaders of all later terms (Raft, figure
3)."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class LeaderCompleteness(Checker):
    name = "leader-completeness"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._committed_in = [*world.nodes[0].disk.terms]
        """By index, from 1: the term in which it was known to be committed, first."""

    def committed(self, node: Node, index: int, term: int, entry: bytes, is_first: bool) -> None:
        if is_first:
            self._committed_in.append(node.engine.term)

    def elected(self, node: Node) -> None:
        log = node.engine.log
        watch = self.world.watch
        # Terms of commitment ascend but for a leader of the past that found out late; those are all in earlier entries.
        until = bisect_left(self._committed_in, node.engine.term)
        self.checks += until
        if log.last_index < until:
            self.violated(
                f"{node.name} leads term {node.engine.term} with {log.last_index} entries; {until} are committed"
            )
        start = min(log.offset, until)
        if log.terms[: until - start] != watch.committed_terms[start:until]:
            index = next(i for i in range(start + 1, until + 1) if log.term_at(i) != watch.committed_terms[i - 1])
            self.violated(
                f"{node.name} leads term {node.engine.term} without entry {index} of term "
                f"{watch.committed_terms[index - 1]}, which is committed"
            )
