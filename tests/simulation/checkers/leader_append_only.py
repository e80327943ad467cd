"""Leader append-only: a leader never overwrites or deletes entries in its log; it only appends (Raft, figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node


class LeaderAppendOnly(Checker):
    name = "leader-append-only"

    def changed(self, node: Node, before: View, after: View) -> None:
        if before.role is not Role.LEADER or after.role is not Role.LEADER or before.term != after.term:
            return
        self.checks += 1
        if node.engine.log.term_at(before.last_index) != before.last_term:
            self.violated(f"{node.name}, leader of term {after.term}, no longer has its entry {before.last_index}")
