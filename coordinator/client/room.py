"""How much a client may have before it that is not answered, and what is told to whoever asks for more.

Bounded memory is for what comes without end: new questions. What was begun is to come to its end, or the bound would
keep what it is there for from ever getting less: to let go, to cancel, to end a session, to wait for what stands in
line already. That counts, and is never refused.
"""

from __future__ import annotations

from random import Random
from typing import Final

from coordinator.client.calls import Call
from coordinator.client.errors import Busy
from coordinator.statemachine import commands, files, lock_commands

CALLS_MAX: Final = 10_000
"""Questions and waits of one client that are not over."""
CALL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of the requests that are not answered, as they were encoded."""
RETRY_MS: Final = 250
"""After so long whoever found no room may ask again: twice the pause after which an unanswered question is sent again,
so that the client's own repetitions go first."""

_ENDS: Final = (
    commands.ReleaseLock,
    commands.CancelAcquire,
    commands.CloseSession,
    lock_commands.Release,
    files.DetachFile,
)


def ends_something(op: commands.ClientOp) -> bool:
    """Does it give back what its asker has, or no longer wants? That is never given up for want of room."""
    return isinstance(op, _ENDS) or (isinstance(op, lock_commands.ChangeMode) and op.mode == lock_commands.SHARED)


class Room:
    def __init__(self, random: Random) -> None:
        self._random = random
        self.calls = 0
        self.bytes = 0

    def check(self, size: int = 0) -> None:
        """Is there room for one call more, whose request has `size` bytes? Raises Busy where there is none. One alone
        always has room."""
        if self.calls >= CALLS_MAX:
            raise self.busy(f"this client has its {CALLS_MAX} questions and waits that are not over")
        if self.bytes and self.bytes + size > CALL_BYTES_MAX:
            raise self.busy(f"this client has its {CALL_BYTES_MAX} bytes of requests that are not answered")

    def busy(self, message: str, retry_ms: int = RETRY_MS) -> Busy:
        """Up to twice as long, drawn anew: who was refused together does not come back together."""
        return Busy(message, retry_after=retry_ms * (1 + self._random.random()) / 1_000)

    def enter(self, call: Call) -> None:
        self.calls += call.counts
        self.bytes += call.size

    def leave(self, call: Call) -> None:
        self.calls -= call.counts
        self.bytes -= call.size
