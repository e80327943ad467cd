"""What is kept of results, until the client of their session says that it has them, and what that costs.

Most are a few numbers, and it is enough that there are at most so many of them (`sessions.RESULTS_MAX`). The others
say what was read, or name names: those are counted by their bytes, as they are encoded in answers and in snapshots. A
kind of result that nobody has thought of here is among the others.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Aborted, Failure, Result

RESULT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of the results of one session that are not acknowledged. So much is there when 128 transactions are in flight that
each read all they may; more would let a client that never acknowledges fill every replica's memory and snapshots."""

ALL_RESULT_BYTES_MAX: Final = 128 * 1024 * 1024
"""Of the results of all sessions, from level 7 on, each with RESULT_COST: from there on a principal that has its share
of it, as many equal ones as there are principals with sessions, is refused what it asks beyond its lowest number."""
ALL_RESULT_BYTES_END: Final = 4 * ALL_RESULT_BYTES_MAX
"""From there on a principal that has its share of so much is refused all that does not close a session."""
RESULT_COST: Final = 128
"""Bytes that each result is counted with beside its own: about what a small one takes in memory."""

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

_CONTENTIOUS: Final = re.compile(
    "[^\x00-\x7e\u00a1-\u00ac\u00ae-\u02ff\u0400-\u052f\u3041-\u3096\u30a1-\u30ff\u4e00-\u9fff\uac00-\ud7a3]"
)
"""What one version of Python prints, and another, whose Unicode tables do not know it yet, escapes. The scripts that
are named have been whole in all of them."""

_encode = msgspec.msgpack.Encoder().encode


def kept(result: Result) -> Result:
    """What is kept of it, and answered: the same on every replica, whatever its version of Python, and not too much."""
    if isinstance(result, Failure):
        message = result.message
        if len(message) > MESSAGE_CHARS_MAX or not message.isascii():
            return Failure(result.code, _spelled(message))
    elif isinstance(result, Aborted) and isinstance(result.refusal, Failure):
        return Aborted(result.place, Failure(result.refusal.code, _spelled(result.refusal.message)))
    return result


def _spelled(message: str) -> str:
    escaped = _CONTENTIOUS.sub(lambda one: one[0].encode("ascii", "backslashreplace").decode(), message)
    return escaped if len(escaped) <= MESSAGE_CHARS_MAX else escaped[:MESSAGE_CHARS_MAX]


class Kept:
    """What the results of all sessions take."""

    __slots__ = ("bytes", "shares")

    def __init__(self) -> None:
        self.bytes = 0
        self.shares: dict[str, Share] = {}
        """By principal; no row: it has no session."""

    def begin(self, principal: str) -> Share:
        """One more session of this principal."""
        share = self.shares.setdefault(principal, Share(self))
        share.sessions += 1
        return share

    def end(self, principal: str, freed: int) -> None:
        """One session fewer, and the bytes of its results."""
        share = self.shares[principal]
        share.add(-freed)
        share.sessions -= 1
        if not share.sessions:
            del self.shares[principal]


class Share:
    """What those of one principal's sessions take."""

    __slots__ = ("bytes", "kept", "sessions")

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.bytes = self.sessions = 0

    def add(self, more: int) -> None:
        self.bytes += more
        self.kept.bytes += more

    def has_its_part_of(self, most: int) -> bool:
        """Is there so much of all of them, and at least an equal part of that is here?"""
        return self.kept.bytes >= most and self.bytes * len(self.kept.shares) >= most


def size_of(result: Result) -> int:
    """Bytes of it, encoded."""
    return len(_encode(result))
