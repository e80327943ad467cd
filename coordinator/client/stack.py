"""Is there room on the stack of this thread? A caller that does the client's work does it for all who ask: struck by a
RecursionError in the middle of it, it would leave theirs half done, and lack the room to say so.

To look takes half a microsecond, and nothing is done that could be left half done.
"""

from __future__ import annotations

import sys
from typing import Any, Final

WORK_LEVELS: Final = 80
"""The work takes 30 of them at most; the rest is for the log's handlers, and for finalisers that run within it."""
ASK_LEVELS: Final = 30
"""To hand a question over, to wait for its answer, and to take it back."""


def _nested(levels: int) -> Any:
    nested: Any = int
    for _ in range(levels):
        nested = (nested,)
    return nested


_WORK: Final = _nested(WORK_LEVELS)
_ASK: Final = _nested(ASK_LEVELS)
_counts_frames_apart: Final = sys.version_info >= (3, 12)
"""Up to 3.11 one limit counts frames and calls of C. After that `isinstance`, which goes down a level for each that is
nested, meets the limit of C alone."""


def has_room_to_work() -> bool:
    try:
        isinstance(None, _WORK)
    except RecursionError:
        return False
    return not (_counts_frames_apart and _has_frames(sys.getrecursionlimit() - WORK_LEVELS))


def must_have_room_to_ask() -> None:
    """Raises RecursionError: before anything was asked, and with nothing to be taken back."""
    isinstance(None, _ASK)
    if _counts_frames_apart and _has_frames(sys.getrecursionlimit() - ASK_LEVELS):
        raise RecursionError("maximum recursion depth exceeded")


def _has_frames(count: int) -> bool:
    """Is the stack so deep?"""
    try:
        sys._getframe(count)
    except ValueError:
        return False
    return True
