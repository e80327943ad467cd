"""Ephemeral files live as long as their sessions (ZooKeeper's ephemeral nodes, Chubby's): an entry that ends sessions
deletes exactly the files that lived with them alone, and at the end none is there without a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Result
from tests.simulation.checkers import changes
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node


class Ephemerals(Checker):
    name = "ephemerals"

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        expected = self.world.watch.truth.expected
        if not is_first or not expected.ended:
            return
        self.checks += 1
        made, must = changes.made(node, index), changes.expected(expected.changes)
        if made != must:
            sessions = ", ".join(map(str, expected.ended))
            self.violated(f"entry {index} ends the sessions {sessions} and changes {made}; with them go {must}")

    def finished(self) -> None:
        """Every replica that has applied everything has the files, and each with the sessions, that it must."""
        namespace = self.world.watch.truth.namespace
        must = {path: {*row.sessions} for path, row in namespace.rows.items() if row.sessions}
        last = len(self.world.watch.committed_entries)
        for node in self.world.nodes:
            if node.replica is None or node.disk.stopped or node.engine.is_witness:
                continue
            if node.replica.machine.applied < last or node.has_flipped_state:
                continue
            self.checks += 1
            there = {path: {*sessions} for path, sessions in node.replica.machine.state.ephemerals.rows.items()}
            if there != must:
                self.violated(f"{node.name} keeps {there} at the end; by what was committed it is {must}")
