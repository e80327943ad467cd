"""A replica's recent speed, for people: commits a second and how long they took. Bounded, never decides anything."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_US: Final = 5_000_000
SAMPLES_MAX: Final = 512


class Meters:
    def __init__(self) -> None:
        self._latencies_us: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._count = 0
        self._window_since_us = 0
        self._rate = 0.0

    def committed(self, now_us: int, latency_us: int) -> None:
        self._latencies_us.append(latency_us)
        self._count += 1
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
