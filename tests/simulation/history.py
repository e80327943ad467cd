"""What clients saw: their operations on keys and locks, with when each was asked and when it came back.

An operation whose outcome its client can not know stays open for ever; one that surely did nothing is forgotten.
"""

from __future__ import annotations

from typing import Any, Final

OPERATIONS_MAX: Final = 100_000


class Operation:
    """One call of one worker of one client. Positions count invocations and returns in the order of true time."""

    __slots__ = (
        "action",
        "argument",
        "client",
        "error",
        "floor",
        "index",
        "invoked",
        "invoked_us",
        "key",
        "outcome",
        "result",
        "returned",
    )

    OPEN = "open"
    DONE = "done"
    UNKNOWN = "unknown"
    """It may have been applied, or may yet be."""
    NOTHING = "nothing"
    """It surely was not applied."""

    def __init__(self, client: str, action: str, key: str, argument: bytes | None, invoked: int, now_us: int) -> None:
        self.client = client
        self.action = action
        self.key = key
        self.argument = argument
        self.invoked = invoked
        self.invoked_us = now_us
        self.returned: int | None = None
        self.outcome = self.OPEN
        self.result: object = None
        self.index = 0
        """The log index that the answer names: where it was applied, or the revision that was read."""
        self.error = ""
        self.floor = 0
        """For the checkers' use."""

    def __repr__(self) -> str:
        argument = f"={self.argument.decode()}" if self.argument is not None else ""
        return f"{self.client} {self.action} {self.key}{argument} -> {self.outcome} {self.result} at {self.index}"


class Question:
    """Any other command or query of a worker of a client: what was asked, and what came back."""

    __slots__ = ("client", "error", "floor", "invoked", "result", "returned", "what")

    def __init__(self, client: str, what: Any, invoked: int, floor: int) -> None:
        self.client = client
        self.what = what
        self.invoked = invoked
        self.returned: int | None = None
        """None: it has not come back, or its outcome is not known."""
        self.floor = floor
        """The highest index that any client had been told of when it was asked."""
        self.result: Any = None
        """None where it was refused, or is not known."""
        self.error: Exception | None = None

    def __repr__(self) -> str:
        return f"{self.client} {self.what} -> {self.result or self.error}"


class ClientHistory:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.questions: list[Question] = []
        self.told = 0
        """The highest index that any client was told of."""
        self._position = 0

    def ask(self, client: str, what: Any) -> Question:
        question = Question(client, what, self._next(), self.told)
        self.questions.append(question)
        assert len(self.questions) <= OPERATIONS_MAX, "a run is short"
        return question

    def answered(self, question: Question, result: Any, index: int) -> None:
        question.returned = self._next()
        question.result = result
        self.told = max(self.told, index)

    def invoke(self, client: str, action: str, key: str, argument: bytes | None, now_us: int) -> Operation:
        operation = Operation(client, action, key, argument, self._next(), now_us)
        self.operations.append(operation)
        assert len(self.operations) <= OPERATIONS_MAX, "a run is short"
        return operation

    def done(self, operation: Operation, result: object, index: int) -> None:
        operation.returned = self._next()
        operation.outcome = Operation.DONE
        operation.result = result
        operation.index = index
        self.told = max(self.told, index)

    def unknown(self, operation: Operation, error: str) -> None:
        operation.outcome = Operation.UNKNOWN
        operation.error = error

    def nothing(self, operation: Operation, error: str) -> None:
        operation.outcome = Operation.NOTHING
        operation.error = error

    def _next(self) -> int:
        self._position += 1
        return self._position
