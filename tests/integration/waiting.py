"""Waiting for something to become true, with a bound, and never for time to pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

LOOK_EVERY_S: Final = 0.02

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    *,
    timeout_s: float,
    what: str | Callable[[], str],
    look_every_s: float = LOOK_EVERY_S,
) -> T:
    """The first true value of `condition`. Raises AssertionError, saying `what` was waited for, after `timeout_s`."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        pause.wait(look_every_s)
