"""How often the same trouble is a line of a log: whoever tries again each second logs it by this."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SAID_AGAIN_S: Final = 600.0
TEXTS_MAX: Final = 64


class Seldom:
    """What one trouble is said to be, while it lasts: each text at once, and again every `SAID_AGAIN_S`. So a log tells
    that it goes on, and is not full of it; nor where each try says something else (`TEXTS_MAX` in that time)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def is_due(self, text: str) -> bool:
        """Whether this is to be logged now."""
        now = self._clock()
        said = self._said.get(text)
        if said is None and len(self._said) >= TEXTS_MAX:
            oldest = min(self._said, key=self._said.__getitem__)
            if now - self._said[oldest] < SAID_AGAIN_S:
                return False
            del self._said[oldest]
        if said is not None and now - said < SAID_AGAIN_S:
            return False
        self._said[text] = now
        return True

    def over(self) -> bool:
        """It has passed: the next one is said at once. Whether there was one."""
        was_said = bool(self._said)
        self._said.clear()
        return was_said
