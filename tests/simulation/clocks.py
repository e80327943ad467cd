"""Clocks that run at a rate of their own, jump forward and stand still, as those of real machines do.

Each stays within what the product assumes of it: a client's lease ends 1 % and 5 ms before its time to live
(`coordinator/client/session.py`), so two clocks may differ by less than 1 % in rate.
"""

from __future__ import annotations

from random import Random
from typing import Final

from coordinator.replica import ports
from tests.simulation.scheduler import Scheduler

DRIFT_PPM_MAX: Final = 4_500
"""Between a fast clock and a slow one lie 0.9 % at the most."""
_MILLION: Final = 1_000_000


class Clock(ports.Clock):
    """Monotonic microseconds of one machine. `ahead_us` is what has passed within an event that takes time."""

    def __init__(self, scheduler: Scheduler, random: Random, drift_ppm_max: int) -> None:
        self._scheduler = scheduler
        self._rate = _MILLION + random.choice(
            (-drift_ppm_max, drift_ppm_max, random.randint(-drift_ppm_max, drift_ppm_max))
        )
        self._true_us = 0
        self._local_us = random.randrange(10**9, 10**12)
        self._wall_us = 0
        self._frozen = False
        self.ahead_us = 0

    def now_us(self) -> int:
        if self._frozen:
            return self._local_us
        passed_us = self._scheduler.now_us + self.ahead_us - self._true_us
        return self._local_us + passed_us * self._rate // _MILLION

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + (self.now_us() + self._wall_us) // 1_000

    def true_us(self, local_us: int) -> int:
        """When this clock will show `local_us`, if nothing befalls it."""
        return self._true_us - (-(local_us - self._local_us) * _MILLION // self._rate)

    def drift(self, ppm: int) -> None:
        """Run at this rate from now on, as a clock does that grows warm."""
        self._settle()
        self._rate = _MILLION + ppm

    def set_wall(self, by_us: int) -> None:
        self._wall_us += by_us

    def jump(self, forward_us: int) -> None:
        """Of a client's machine that slept for so long, as its process sees it."""
        self._settle()
        self._local_us += forward_us

    def freeze(self) -> None:
        """Stand still, as CLOCK_MONOTONIC does while its machine is suspended."""
        self._settle()
        self._frozen = True

    def thaw(self) -> int:
        """Go on. Returns for how long it stood still, in true time."""
        if not self._frozen:
            return 0
        stood_us = self._scheduler.now_us - self._true_us
        self._true_us = self._scheduler.now_us
        self._frozen = False
        return stood_us

    def _settle(self) -> None:
        """Begin to count anew from here, so that what follows does not change what was."""
        self._local_us = self.now_us()
        self._true_us = self._scheduler.now_us + self.ahead_us
