"""Which entries take effect: sessions, the numbers of their requests, and cancels (`docs/semantics.md`, requests)."""

from __future__ import annotations

from typing import Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Failure, NodeCommand, Result

WINDOW: Final = 4_096
"""Numbers of a session, from the lowest that is not acknowledged, that are taken. The bound of bytes of results is not
here, since the truth does not tell all that results say: no work comes near it, or what it refused would be seen."""


class Session:
    def __init__(self, ttl_ms: int, nonce: bytes) -> None:
        self.ttl_ms = ttl_ms
        self.nonce = nonce
        self.acked = 1
        self.answers: dict[int, Result] = {}
        """What was told first, by number, for good."""
        self.cancelled: set[int] = set()


class Requests:
    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        """Those that live."""

    def judge(self, command: NodeCommand) -> Result | None:
        """What the entry is answered where it takes no effect; None: it does what it says, for the first time.

        Of a `Failure` the code alone is meant.
        """
        session = self.sessions.get(command.session)
        if session is None:
            return Failure(commands.OUTCOME_UNKNOWN, "")
        session.acked = max(session.acked, min(command.acked, command.number))
        if command.number < session.acked:
            return Failure(commands.ACKNOWLEDGED, "")
        if command.number in session.answers:
            return session.answers[command.number]
        if command.number in session.cancelled:
            return Failure(commands.CANCELLED, "")
        if command.number >= session.acked + WINDOW:
            return Failure(commands.BUSY, "")
        if isinstance(command.op, commands.CancelAcquire):
            number = command.op.number
            if session.acked <= number < session.acked + WINDOW and number not in session.answers:
                session.cancelled.add(number)
        return None

    def answered(self, command: NodeCommand, result: Result) -> None:
        """The entry took effect, and this was its result."""
        session = self.sessions.get(command.session)
        if session is not None:
            session.answers[command.number] = result

    def open(self, index: int, op: commands.OpenSession) -> Result:
        for number, session in self.sessions.items():
            if op.nonce and session.nonce == op.nonce:
                return commands.SessionOpened(number, session.ttl_ms)
        self.sessions[index] = Session(op.ttl_ms, op.nonce)
        return commands.SessionOpened(index, op.ttl_ms)
