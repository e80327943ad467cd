"""The order of all things in a simulation: one queue of events, one true time, no other source of order.

Times are integer microseconds of true time, from 0. Two events of one time happen in the order in which they were
asked for, so that a run depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Event = tuple[int, int, Callable[..., None], tuple[Any, ...]]


class Scheduler:
    def __init__(self) -> None:
        self.now_us = 0
        self.events = 0
        """Events that meant something; a wake-up that came to nothing takes itself off again."""
        self._number = 0
        self._queue: list[Event] = []

    def at(self, time_us: int, happen: Callable[..., None], *arguments: Any) -> None:
        """Let `happen(*arguments)` be at `time_us`, or now where that is past."""
        self._number = number = self._number + 1
        if time_us < self.now_us:
            time_us = self.now_us
        heappush(self._queue, (time_us, number, happen, arguments))

    def after(self, delay_us: int, happen: Callable[..., None], *arguments: Any) -> None:
        """Let `happen(*arguments)` be `delay_us` from now."""
        self._number = number = self._number + 1
        heappush(self._queue, (self.now_us + delay_us, number, happen, arguments))

    def run(self, until_us: int, events_max: int) -> None:
        """Let everything happen up to `until_us`, or until there were `events_max` events in all."""
        queue = self._queue
        while queue and self.events < events_max:
            if queue[0][0] > until_us:
                break
            time_us, _, happen, arguments = heappop(queue)
            self.now_us = time_us
            self.events += 1
            happen(*arguments)
        else:
            return
        self.now_us = until_us

    def nothing_happened(self) -> None:
        """The event that is happening was a wake-up before its time: it does not count."""
        self.events -= 1
