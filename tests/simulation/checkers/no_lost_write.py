"""No acknowledged write is lost: what a client was told to be done is committed, where it was told, for good.

State machine safety makes it stay; this compares what clients hear with what the log holds, and at the end with what
every replica has applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.entries import COMMAND
from coordinator.statemachine.commands import Done, Transacted
from coordinator.statemachine.files import Counted, Deleted
from tests.simulation.checkers.commands import decode
from tests.simulation.history import Operation, Question
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.world import World


class NoLostWrite(Checker):
    name = "no-lost-write"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._last_index = 0

    def returned(self, operation: Operation) -> None:
        if operation.outcome != Operation.DONE or operation.action == "get":
            return
        self.checks += 1
        index = operation.index
        self._last_index = max(self._last_index, index)
        entries = self.world.watch.committed_entries
        if index > len(entries):
            self.violated(f"{operation} was answered, and only {len(entries)} entries are committed")
        entry = entries[index - 1]
        op = decode(entry[1:]).command.op if entry[0] == COMMAND else None
        if getattr(op, "key", None) != operation.key or getattr(op, "value", None) != operation.argument:
            self.violated(f"{operation} was answered, and the log holds {op} there")

    def answered(self, question: Question) -> None:
        index = _changed_at(question.result)
        if not index:
            return
        self.checks += 1
        self._last_index = max(self._last_index, index)
        entries = self.world.watch.committed_entries
        if index > len(entries):
            self.violated(f"{question} was answered, and only {len(entries)} entries are committed")
        entry = entries[index - 1]
        op = decode(entry[1:]).command.op if entry[0] == COMMAND else None
        if op != question.what:
            self.violated(f"{question} was answered, and the log holds {op} there")

    def finished(self) -> None:
        if self.world.is_beyond_repair:
            return
        leader = self.world.watch.leader
        assert leader is not None, "a healed cluster has a leader"
        for node in self.world.nodes:
            if (
                node.engine is not None
                and not node.disk.stopped
                and leader.engine.configuration.member(node.disk.replica)
            ):
                self.checks += 1
                if node.engine.applied_index < self._last_index:
                    self.violated(f"{node.name} has not applied {self._last_index}, which was acknowledged")


def _changed_at(result: object) -> int:
    """The entry that an answer names as the one that did what was asked; 0: none."""
    if isinstance(result, Done):
        return result.index
    if isinstance(result, (Deleted, Counted, Transacted)):
        return result.revision
    return 0
