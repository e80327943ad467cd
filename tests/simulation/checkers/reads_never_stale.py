"""Reads are never stale: a read that began after a write was acknowledged, or read, sees that revision or a later
one. Its read index lies behind nothing that was committed anywhere when it began, and it is answered by a state machine
that has applied that index (thesis, section 6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator import wire
from coordinator.consensus.engine import ConfirmedRead
from tests.simulation.history import Operation
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class ReadsNeverStale(Checker):
    name = "reads-never-stale"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._newest: dict[str, int] = {}
        """Key to the highest index of which a client was told that it changed the key."""
        self._committed: dict[tuple[str, int, int], int] = {}
        """Node, start of its process and ticket to what was committed anywhere when the read began."""

        self._left: dict[tuple[int, int, int], int] = {}
        """The same of reads that a leader leaves to its delegate, by leader, term and number."""

    def read_begun(self, node: Node, ticket: int, lease_ok: bool) -> None:
        self._committed[node.name, node.boots, ticket] = len(self.world.watch.committed_terms)

    def read_confirmed(self, node: Node, read: ConfirmedRead) -> None:
        self.checks += 1
        committed = self._committed.pop((node.name, node.boots, read.ticket), None)
        if committed is None:
            self.violated(f"{node.name} is given the index {read.read_index} for a read that nobody began")
        if read.read_index < committed:
            self.violated(
                f"{node.name} gives a read the index {read.read_index}; {committed} was committed when it began"
            )

    def reads_left(self, node: Node, delegate: int, number: int) -> None:
        self._left[node.engine.replica, node.engine.term, number] = len(self.world.watch.committed_terms)

    def reads_taken(self, node: Node, leader: int, said: wire.LeftReads) -> None:
        self.checks += 1
        committed = self._left.get((leader, said.term, said.number))
        if committed is None:
            self.violated(f"{node.name} takes reads number {said.number} of term {said.term}, which nobody left to it")
        if said.read_index < committed:
            self.violated(
                f"{node.name} takes reads with the index {said.read_index}; {committed} was committed when they came"
            )

    def read_answered(self, node: Node, read_index: int) -> None:
        self.checks += 1
        applied = node.engine.applied_index
        if applied < read_index:
            self.violated(f"{node.name} has applied {applied} and answers a read of index {read_index}")

    def invoked(self, operation: Operation) -> None:
        operation.floor = self._newest.get(operation.key, 0)

    def returned(self, operation: Operation) -> None:
        if operation.outcome != Operation.DONE:
            return
        if operation.action == "get" and operation.result is not None:
            self.checks += 1
            if operation.index < operation.floor:
                self.violated(
                    f"{operation} is of revision {operation.index}; {operation.floor} was known when it was asked"
                )
        self._newest[operation.key] = max(self._newest.get(operation.key, 0), operation.index)
