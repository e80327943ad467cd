"""Histories: what the clients of an object saw, as operations with the positions of their invocation and return.

A position counts events (invocations and returns) in the order in which they were recorded, from 0. Only the order
matters: an operation precedes another when it returned at a lower position than the other was invoked.

Nothing here knows what an operation does; that is `models`. Reading files is for `jepsen` and `porcupine_kv`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

Process = str | int


class HistoryError(ValueError):
    """Events that no history can have, such as a return without an invocation."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one process. A call whose outcome is unknown may take effect at any later time, or never."""

    number: int
    """Unique in its history, in the order of invocation, from 0."""
    process: Process
    action: str
    key: str
    """The object within the history: keys are judged apart from one another. Empty where there is one object."""
    argument: Hashable
    result: Hashable
    """What came back; None while the outcome is unknown."""
    invoked: int
    returned: int | None
    """Position of the return, above `invoked`; None if the outcome is unknown."""
    line: int = 0
    """Line of the invocation in the file that it was read from; 0 if it came from elsewhere."""

    @property
    def outcome_is_unknown(self) -> bool:
        return self.returned is None


class History:
    """Records the events of sequential processes in their order, and hands them out as operations.

    A process has at most one operation open. One that invokes again without a return has given up on the operation
    before, whose outcome stays unknown.
    """

    def __init__(self) -> None:
        self._operations: list[Operation | None] = []
        self._open: dict[Process, int] = {}
        self._position = 0

    def __len__(self) -> int:
        """Events recorded so far."""
        return self._position

    def open_operation(self, process: Process) -> Operation | None:
        """The operation of this process that has not returned, if any."""
        number = self._open.get(process)
        return None if number is None else self._operations[number]

    def invoke(
        self, process: Process, action: str, *, key: str = "", argument: Hashable = None, line: int = 0
    ) -> Operation:
        """A process begins an operation."""
        number = len(self._operations)
        operation = Operation(number, process, action, key, argument, None, self._advance(), None, line)
        self._operations.append(operation)
        self._open[process] = number
        return operation

    def complete(self, process: Process, result: Hashable = None) -> Operation:
        """The open operation of this process came back with a result. Raises HistoryError if it has none open."""
        operation = replace(self._close(process), result=result, returned=self._advance())
        self._operations[operation.number] = operation
        return operation

    def lose(self, process: Process) -> None:
        """The open operation of this process ended without an answer: its outcome stays unknown for ever.

        Raises HistoryError if the process has none open.
        """
        self._close(process)
        self._advance()

    def cancel(self, process: Process) -> None:
        """The open operation of this process surely took no effect and returned nothing: it is forgotten.

        Raises HistoryError if the process has none open.
        """
        operation = self._close(process)
        self._operations[operation.number] = None
        self._advance()

    def operations(self) -> tuple[Operation, ...]:
        """All operations in the order of their invocation; those still open have an unknown outcome."""
        return tuple(operation for operation in self._operations if operation is not None)

    def _advance(self) -> int:
        self._position += 1
        return self._position - 1

    def _close(self, process: Process) -> Operation:
        number = self._open.pop(process, None)
        if number is None:
            raise HistoryError(f"process {process} returned, but has no operation open")
        operation = self._operations[number]
        assert operation is not None, "an open operation is never forgotten"
        return operation


def split_by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations of each key, in order. A history is linearizable if and only if that of each key is.

    (Locality: Herlihy and Wing 1990, theorem 1. Horn and Kroening 2015 call the general case P-compositionality.)
    """
    keys: dict[str, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    return keys
