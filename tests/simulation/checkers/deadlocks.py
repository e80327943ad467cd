"""Deadlocks are found as they are made (Coffman 1971): who asks to wait, or hands a lock over, and would close a cycle
of sessions that wait for one another, is refused and told the cycle; nobody else is.

Who waits for whom is what a model says that reads the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Result
from coordinator.statemachine.lock_commands import Deadlock, HandOver
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node


class Deadlocks(Checker):
    name = "deadlocks"

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        must = isinstance(expected.result, Deadlock)
        if not (expected.is_new and (must or isinstance(result, Deadlock))):
            return
        self.checks += 1
        op = expected.command.op
        if not must:
            self.violated(f"entry {index}, {op}, is refused as {result}, and closes no cycle")
        if not isinstance(result, Deadlock):
            self.violated(f"entry {index}, {op}, is answered {result}, and closes a cycle")
        elif result.cycle[0].session != _first(op, expected.command.session):
            self.violated(
                f"entry {index}, {op}, is told {result}, which does not begin with whoever asked, or the heir"
            )


def _first(op: object, asker: int) -> int:
    if isinstance(op, HandOver):
        return op.to_session
    return getattr(op, "owner", 0) or asker
