"""What a node's log says of a slow disk: nothing else does there, and leaders are lost by it.

A write waits for the disks of a majority, and so does a vote. Which disk it is, its own node says alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from coordinator.replica.meters import Histogram
from coordinator.seldom import Seldom

SLOW_US: Final = 512_000
"""A bucket's bound. A follower waits for 0.6 s for its leader."""


class DiskLog:
    """Of one node; `look` is called now and then."""

    def __init__(
        self, node: str, logger: logging.Logger | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node = node
        self._logger = logger or logging.getLogger(__name__)
        self._seldom = Seldom(clock)
        self._said = 0
        """How many commits took so long when that was last said."""

    def look(self, commits: Histogram) -> None:
        """`commits`: of the journal to disk, since the process began."""
        first = next(bucket for bucket, bound_us in enumerate(commits.bounds_us) if bound_us >= SLOW_US) + 1
        slow = sum(commits.counts[first:])
        if slow == self._said or not self._seldom.is_due("slow"):
            return
        self._logger.warning(
            "%s: its disk is slow: %d commits of the journal took more than %.1f s each since this was last said, or "
            "the start. What is written waits for it, and leaders are lost by it",
            self._node,
            slow - self._said,
            SLOW_US / 1e6,
        )
        self._said = slow
