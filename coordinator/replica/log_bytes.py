"""How many bytes of entries lie between two places in the log, of what was applied here: known to within a step.

A log is kept in memory and on disk up to its last snapshot, and a little further. Entries are of 60 bytes or of a
megabyte, so that to count them alone bounds nothing.
"""

from __future__ import annotations

from collections import deque


class LogBytes:
    def __init__(self) -> None:
        self._total = 0
        self._places: deque[tuple[int, int]] = deque([(0, 0)])
        """An index, and how many bytes were applied up to it; ascending. Where nothing was counted, there was nothing:
        a replica begins with what its journal has behind its snapshot."""

    def applied(self, index: int, size: int, step: int) -> None:
        """`size` bytes more, up to `index`. A place for each `step` bytes."""
        self._total += size
        if self._total - self._places[-1][1] >= step:
            self._places.append((index, self._total))

    def since(self, index: int) -> int:
        """Behind `index`; too many by less than a step."""
        before = next((total for place, total in reversed(self._places) if place <= index), self._places[0][1])
        return self._total - before

    def place_before(self, index: int, size: int) -> int:
        """The last place that has `size` bytes or more between it and `index`; 0 where there is none that is known."""
        up_to = self._total - self.since(index)
        return next((place for place, total in reversed(self._places) if total <= up_to - size), 0)

    def forget(self, index: int) -> None:
        """Nobody asks for what is before `index` any more."""
        while len(self._places) > 1 and self._places[1][0] <= index:
            self._places.popleft()
