"""Applied exactly once: a request takes effect in one entry, however often it was sent (docs/design.md, rule 7).

A repetition is answered with the result of the first, and changes nothing, grants nothing and ends nothing. A request
that was cancelled before it came takes no effect (history 12), nor does one whose session has ended (history 4). And
one request opens one session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import NodeCommand, Result
from coordinator.statemachine.locks import INDEX_BITS
from coordinator.statemachine.machine import Event, SessionEnded
from tests.simulation.checkers import changes
from tests.simulation.model.truth import Expected, agree
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

_INDEX_MASK = (1 << INDEX_BITS) - 1
_SESSIONS = (commands.OpenSession, commands.CloseSession, commands.ExpireSessions)
_Request = tuple[int, int]
"""Session and number."""


class ExactlyOnce(Checker):
    name = "exactly-once"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._first: dict[_Request, tuple[int, Result]] = {}
        """Where a request was first answered with something that it did."""
        self._opened: dict[bytes, int] = {}
        """Nonce to the session that it opened last."""
        self._ended: dict[int, int] = {}
        """Session to the entry that ended it."""
        self._cancelled: dict[_Request, int] = {}

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        command = expected.command
        self.checks += 1
        if isinstance(command.op, commands.OpenSession):
            self._session_opened(index, command.op.nonce, result)
        elif command.session and not isinstance(result, commands.Failure):
            self._did(index, command, result)
        if not expected.is_new:
            self._did_nothing(node, index, expected, result, events)
        elif isinstance(command.op, _SESSIONS) and not agree(expected.result, result):
            self.violated(f"entry {index}, {command.op}, is answered {result}, not {expected.result}")
        for event in events:
            if isinstance(event, SessionEnded):
                self._ended[event.session] = index

    def _did_nothing(self, node: Node, index: int, expected: Expected, result: Result, events: list[Event]) -> None:
        """A repetition is told what the first was, and what must not take effect is refused; and nothing else comes of
        it."""
        command = expected.command
        what = f"request {command.number} of session {command.session}, {command.op}"
        if not agree(expected.result, result):
            self.violated(f"{what}, is answered {result} at {index}, and must be answered {expected.result}")
        if changes.made(node, index) or events:
            self.violated(f"{what}, changes {changes.made(node, index)} at {index}, and brings about {events}")

    def _did(self, index: int, command: NodeCommand, result: Result) -> None:
        session, number = request = (command.session, command.number)
        what = f"request {number} of session {session}"
        if request not in self._first:
            if request in self._cancelled:
                self.violated(f"{what} takes effect at {index}, and was cancelled at {self._cancelled[request]}")
            if session in self._ended:
                self.violated(f"{what} takes effect at {index}; its session ended at {self._ended[session]}")
            self._first[request] = (index, result)
        elif self._first[request][1] != result:
            first, told = self._first[request]
            self.violated(f"{what} was answered {told} at {first}, and {result} when it came again at {index}")
        elif _took_effect(index, result):
            self.violated(f"{what} took effect at {self._first[request][0]} and again at {index}")
        if isinstance(command.op, commands.CancelAcquire):
            cancelled = (session, command.op.number)
            if cancelled not in self._first:
                self._cancelled.setdefault(cancelled, index)

    def _session_opened(self, index: int, nonce: bytes, result: Result) -> None:
        """A session that was opened twice by one request would leave one that nobody keeps alive or closes."""
        if not isinstance(result, commands.SessionOpened):
            return
        known = self._opened.get(nonce)
        if result.session == index:
            if known is not None and known not in self._ended:
                self.violated(f"one request opened session {known} and, while it lives, session {index}")
            self._opened[nonce] = index
        elif known != result.session:
            self.violated(f"a repeated request was answered with session {result.session}; it had opened {known}")


def _took_effect(index: int, result: Result) -> bool:
    """Does the result name this very entry?"""
    if isinstance(result, commands.Done):
        return result.index == index
    if isinstance(result, (files.Created, files.Deleted, files.Counted, commands.Transacted)):
        return result.revision == index
    return isinstance(result, commands.Granted) and result.token & _INDEX_MASK == index
