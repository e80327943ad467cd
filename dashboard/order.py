"""In what order one node's reports were sent, as `boot` and `number` say. Pure.

A node counts the reports of all its replicas in one row, so the order is the node's, not a cluster's.
"""

from __future__ import annotations

from typing import Final

BOOTS_MAX: Final = 8
"""Earlier lives of a node that are remembered, so that a late report of one is known as old."""


class FeedOrder:
    """Tells news from what is old, and counts what was lost between."""

    __slots__ = ("_boots", "_number", "lost")

    def __init__(self) -> None:
        self._boots: list[int] = []
        self._number = 0
        self.lost = 0

    def is_news(self, boot: int, number: int) -> bool:
        """False for a duplicate, for a report overtaken by a later one, and for one of an earlier life of the node."""
        if self._boots and boot == self._boots[-1]:
            if number <= self._number:
                return False
            self.lost += number - self._number - 1
        elif boot in self._boots:
            return False
        else:
            self._boots = [*self._boots[-BOOTS_MAX + 1 :], boot]
        self._number = number
        return True
