"""State machine safety: no two replicas apply different entries at one index (Raft, figure 3), and both get one result.

It is held for commit indices too: what a replica takes for committed, no other takes for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Result
from coordinator.statemachine.machine import Event
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node


class StateMachineSafety(Checker):
    name = "state-machine-safety"

    def committed(self, node: Node, index: int, term: int, entry: bytes, is_first: bool) -> None:
        if is_first:
            return
        self.checks += 1
        watch = self.world.watch
        if watch.committed_terms[index - 1] != term or watch.committed_entries[index - 1] != entry:
            self.violated(
                f"{node.name} takes entry {index} of term {term} for committed; "
                f"another has one of term {watch.committed_terms[index - 1]} there"
            )

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if is_first:
            return
        self.checks += 1
        known = self.world.watch.results[index]
        if known[0] != entry:
            self.violated(f"{node.name} applies another entry at {index} than the first replica to get there")
        if known[1] != result or known[2] != events:
            self.violated(
                f"{node.name} gets {result} and {events} from entry {index}; "
                f"the first replica got {known[1]} and {known[2]}"
            )
