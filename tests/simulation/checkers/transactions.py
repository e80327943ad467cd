"""Transactions are all or nothing (etcd's; Gray 1981, atomicity): the branch that the comparisons choose is done as a
whole, in one revision, or the refusal names the place, and nothing was changed.

What it must change is what a model says that reads the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Result, Transact
from tests.simulation.checkers import changes
from tests.simulation.model.truth import agree
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node


class Transactions(Checker):
    name = "transactions"

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        expected = self.world.watch.truth.expected
        if not is_first or not isinstance(expected.command.op, Transact):
            return
        self.checks += 1
        made, must = changes.made(node, index), changes.expected(expected.changes)
        if made != must:
            self.violated(f"entry {index}, {expected.command.op}, changes {made}; it must change {must}")
        if expected.is_new and not agree(expected.result, result):
            self.violated(f"entry {index}, {expected.command.op}, is answered {result}, not {expected.result}")
