"""What results cost as long as they are kept: until the client of their session says that it has them.

Most are a few numbers, and it is enough that there are at most so many of them (`sessions.RESULTS_MAX`). The others
say what was read, or name names: those are counted by their bytes, as they are encoded in answers and in snapshots. A
kind of result that nobody has thought of here is among the others.
"""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Failure, Result

RESULT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of the results of one session that are not acknowledged. So much is there when 128 transactions are in flight that
each read all they may; more would let a client that never acknowledges fill every replica's memory and snapshots."""

MESSAGE_CHARS_MAX: Final = 4_096
"""Of a refusal that is kept: what says what came may repeat some MiB of it."""

SMALL: Final = frozenset(
    (
        commands.SessionOpened,
        commands.Granted,
        commands.Queued,
        commands.NotHeld,
        commands.Done,
        files.Mismatch,
        files.Deleted,
        files.Counted,
        files.Compacted,
    )
)
"""Tags and numbers alone: none has 32 bytes, so that those of a session have 128 KiB at the most."""

_encode = msgspec.msgpack.Encoder().encode


def kept(result: Result) -> Result:
    """What is kept of it, and answered."""
    if isinstance(result, Failure) and len(result.message) > MESSAGE_CHARS_MAX:
        return Failure(result.code, result.message[: MESSAGE_CHARS_MAX - 1] + "…")
    return result


def size_of(result: Result) -> int:
    """Bytes of it, encoded."""
    return len(_encode(result))
