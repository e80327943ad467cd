"""What a node counts of its own work, for people: it is bounded and never decides anything.

The loop pays an addition for each: counters are plain integers, histograms lists of them. Whoever exports them
(`exporter.py`) reads them from another thread, without a lock: an integer is read whole, and a list is copied whole.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

WINDOW_US: Final = 5_000_000
SAMPLES_MAX: Final = 512

DISK_BOUNDS_US: Final = tuple(125 << step for step in range(3)) + tuple(1_000 << step for step in range(14))
"""etcd's for its disk, 1 ms to 8.192 s, and three below: 1 ms is long for a turn or a write to a good disk."""
LOOP_BOUNDS_US: Final = tuple(
    ms * 1_000 for ms in (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1_000, 2_000)
)
"""50 ms is what nothing may hold up the loop for."""
ROUND_TRIP_BOUNDS_US: Final = tuple(100 << step for step in range(16))
"""etcd's for its peers: 0.1 ms to 3.2768 s."""


class Histogram:
    """How often something took how long. Written by one thread, read by any."""

    __slots__ = ("bounds_us", "counts", "sum_us")

    def __init__(self, bounds_us: tuple[int, ...] = DISK_BOUNDS_US) -> None:
        """`bounds_us`: the upper bounds of the buckets, inclusive, in rising order; above the last is one more."""
        self.bounds_us = bounds_us
        self.counts = [0] * (len(bounds_us) + 1)
        """How many fell into each bucket alone."""
        self.sum_us = 0

    def observe(self, us: int) -> None:
        self.counts[bisect_left(self.bounds_us, us)] += 1
        self.sum_us += us


class Stopwatch:
    """How long a piece of work takes that is done in slices. On the real clock: in a simulation this is the only number
    that differs between two runs, and nothing looks at it."""

    def __init__(self) -> None:
        self._ns = 0

    @contextmanager
    def slice(self) -> Iterator[None]:
        began_ns = time.perf_counter_ns()
        yield
        self._ns += time.perf_counter_ns() - began_ns

    @property
    def us(self) -> int:
        """Of all slices so far."""
        return self._ns // 1_000


class NodeMeters:
    """Of a node, since its process started."""

    def __init__(self) -> None:
        self.turns = Histogram()
        """From the emptied mailbox to the last publish."""
        self.loops = Histogram(LOOP_BOUNDS_US)
        """The whole way round, from the end of one sleep to the next: turns and all that is done between them."""
        self.loops_cpu = Histogram(LOOP_BOUNDS_US)
        """What of it was this thread's own work: not the disk, not the other threads, not a busy machine."""
        self.commits = Histogram()
        """Of the journal, in the turns that write."""
        self.snapshot_writes = Histogram()
        """Snapshots taken to disk: in a commit, or in a file of its own, before the commit that names it."""


class Meters:
    """Of one replica, since its process started."""

    def __init__(self) -> None:
        self.proposals_failed = 0
        """Refused, or lost with the leadership: whoever asked was told to ask again."""
        self.sessions_expired = 0
        """Leases that ran out here, while this replica led."""
        self.snapshot_dumps = Histogram()
        """Whole states made into the bytes of a snapshot: the work alone, not what lies between the slices."""
        self.snapshot_loads = Histogram()
        """Snapshots of a leader made into a state, in the same way."""
        self._latencies_us: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._count = 0
        self._window_since_us = 0
        self._rate = 0.0

    def committed(self, now_us: int, latencies_us: list[int]) -> None:
        """Entries were applied in this turn, so long after they were asked for."""
        self._latencies_us.extend(latencies_us)
        self._count += len(latencies_us)
        self._roll(now_us)

    def _roll(self, now_us: int) -> None:
        passed = now_us - self._window_since_us
        if passed >= WINDOW_US:
            # After a quiet time the first window is as long as the quiet was: old silence does not count.
            self._rate = self._count * 1e6 / passed if passed < 2 * WINDOW_US else 0.0
            self._count = 0
            self._window_since_us = now_us

    def commits_per_s(self, now_us: int) -> float:
        """Over the last whole window of 5 s."""
        self._roll(now_us)
        return round(self._rate, 1)

    def commit_ms(self, share: float) -> float:
        """The latency from proposal to apply that `share` of the last commits stayed within; 0 without any."""
        return percentile_ms(self._latencies_us, share)


def percentile_ms(samples_us: deque[int], share: float) -> float:
    """The given share of microsecond samples, in milliseconds."""
    if not samples_us:
        return 0.0
    ordered = sorted(samples_us)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1_000, 2)
