"""Lock-delays, as the leader counts them. Pure; a leader's memory alone.

The log says that a name is in a lock-delay, for how long, and since which entry (Chubby, section 2.4); when it has
passed the leader says so, by an entry; where an operator ends it before, the log says that. Delays run on lease time,
as leases do (`leases.py`): they stand still in a stall. A new leader counts each anew, from its whole length. Only a
leader that a majority has confirmed since a delay passed proposes its end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

ENDED_MAX: Final = 500
"""Delays that one entry ends: a name has up to 512 bytes."""
_OVERDUE_US: Final = 10_000
"""How soon to look again at a delay that passed and waits for a majority to confirm its leader."""

Delayed = tuple[str, int]
"""A name, and the index that its delay is since."""


class Delays:
    def __init__(self) -> None:
        self._heap: list[tuple[int, Delayed]] = []
        self._since: dict[str, int] = {}
        """Of each name that is delayed, and whose end is not proposed: a later delay takes the place of an earlier."""
        self._overdue: dict[Delayed, int] = {}
        """To when, on the real clock, it was first seen to have passed."""

    @property
    def count(self) -> int:
        """Names whose delay is counted."""
        return len(self._since)

    def begin(self, name: str, since: int, delay_ms: int, lease_us: int) -> None:
        """`lease_us`: lease time now."""
        self._since[name] = since
        heapq.heappush(self._heap, (lease_us + delay_ms * 1_000, (name, since)))

    def end(self, name: str, since: int) -> None:
        """The log says that it is over, whoever ended it: it is not counted any more."""
        if self._since.get(name) == since:
            del self._since[name]
        self._overdue.pop((name, since), None)

    def take_passed(self, lease_us: int, seen_us: int, confirmed_at_us: int) -> tuple[Delayed, ...]:
        """Delays to propose the end of, by name. `seen_us`: the real clock now."""
        while self._heap and self._heap[0][0] <= lease_us:
            delayed = heapq.heappop(self._heap)[1]
            if self._since.get(delayed[0]) == delayed[1]:
                self._overdue[delayed] = seen_us
        if not self._overdue:
            return ()
        passed = sorted(delayed for delayed, since_us in self._overdue.items() if confirmed_at_us >= since_us)
        taken = tuple(passed[:ENDED_MAX])
        for delayed in taken:
            del self._overdue[delayed]
            if self._since.get(delayed[0]) == delayed[1]:
                del self._since[delayed[0]]
        return taken

    def proposal_refused(self, taken: Iterable[Delayed], seen_us: int) -> None:
        """The proposal of these ends was not taken; try again."""
        for delayed in taken:
            self._since.setdefault(*delayed)
            self._overdue[delayed] = seen_us

    def due_in_us(self, lease_us: int) -> int | None:
        """How long until the next delay passes, in lease time; None where there is none."""
        if self._overdue:
            return _OVERDUE_US
        return max(0, self._heap[0][0] - lease_us) if self._heap else None
