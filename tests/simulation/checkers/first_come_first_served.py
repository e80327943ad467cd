"""First come, first served (Lamport 1974): names go to waiters in the order in which the log has them come, each by the
very entry that makes it possible, those together that can hold a name together, and nobody past another.

The line is that of a model which reads the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Result
from coordinator.statemachine.events import GrantMade
from coordinator.statemachine.lock_commands import Deadlock
from tests.simulation.model.locks import Grant
from tests.simulation.model.truth import LOCKS, agree
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node


class FirstComeFirstServed(Checker):
    name = "first-come-first-served"

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        granted = sorted(Grant(*event) for event in events if isinstance(event, GrantMade))
        if granted or expected.grants:
            self.checks += 1
            if granted != sorted(expected.grants):
                self.violated(f"entry {index} grants {granted}; by the lines it must grant {[*expected.grants]}")
        if expected.is_new and isinstance(expected.command.op, LOCKS) and not _is_of_deadlocks(expected.result, result):
            self.checks += 1
            if not agree(expected.result, result):
                self.violated(
                    f"entry {index}, {expected.command.op}, is answered {result}; by the lines it is {expected.result}"
                )


def _is_of_deadlocks(*results: Result) -> bool:
    return any(isinstance(result, Deadlock) for result in results)
