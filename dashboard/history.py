"""The last ten minutes of one cluster as the live page's strip shows them. Pure: `now_ms` is handed in.

Every bar covers BAR_MS: the mean of the commits a second that the leader reported in it, and whether the cluster was
without a leader at any moment of it. What was before this process began to listen is not known, and not invented.
"""

from __future__ import annotations

from collections import deque
from typing import Final

BAR_MS: Final = 5_000
BARS_MAX: Final = 120


class History:
    """Bars, oldest first. Owned by one model."""

    __slots__ = ("_bars", "_count", "_leaderless", "_slot", "_sum")

    def __init__(self) -> None:
        self._bars: deque[tuple[float | None, bool]] = deque(maxlen=BARS_MAX - 1)
        self._slot: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._sum = 0.0
        self._count = 0
        self._leaderless = False

    def note(self, now_ms: int, commits_per_s: float | None, leaderless: bool) -> None:
        """One observation. `commits_per_s` None: nothing was reported at this moment."""
        self._turn(now_ms)
        if commits_per_s is not None:
            self._sum += commits_per_s
            self._count += 1
        self._leaderless = self._leaderless or leaderless

    def _turn(self, now_ms: int) -> None:
        slot = now_ms // BAR_MS
        if self._slot is None:
            self._slot = slot
        passed = slot - self._slot
        if passed <= 0:
            return
        self._bars.append(self._bar())
        self._begin()
        for _ in range(min(passed - 1, BARS_MAX)):
            self._bars.append((None, False))
        self._slot = slot

    def _bar(self) -> tuple[float | None, bool]:
        mean = round(self._sum / self._count, 1) if self._count else None
        return mean, self._leaderless

    def view(self) -> dict[str, object]:
        """`bars`: commits a second (null: not known) of each finished bar; `leaderless`: places of bars without a
        leader."""
        return {
            "bar_ms": BAR_MS,
            "bars_max": BARS_MAX,
            "bars": [mean for mean, _ in self._bars],
            "leaderless": [place for place, (_, leaderless) in enumerate(self._bars) if leaderless],
        }
