"""Nothing is committed before a majority has it on disk (Raft, sections 5.3 and 5.4.2; docs/design.md, rule 3).

And a leader commits by counting only up to an entry of its own term: those of older terms go along with it.

When the first replica takes an entry for committed, a majority of the voters' disks must hold it, in that term. Disks
that were lost for good count where they held it: what they acknowledged, they had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node


class CommitDurability(Checker):
    name = "commit-durability"

    def changed(self, node: Node, before: View, after: View) -> None:
        if after.role is Role.LEADER and after.commit > max(before.commit, node.engine.log.offset):
            self.checks += 1
            term = node.engine.log.term_at(after.commit)
            if term != after.term:
                self.violated(f"{node.name}, leader of term {after.term}, commits up to {after.commit}, of term {term}")

    def committed(self, node: Node, index: int, term: int, entry: bytes, is_first: bool) -> None:
        if not is_first:
            return
        self.checks += 1
        holders = self.world.watch.holders(index, term)
        if not is_quorum(node.engine.configuration, holders):
            self.violated(
                f"{node.name} takes entry {index} of term {term} for committed; only {len(holders)} disks hold it"
            )
