"""How long a shell rests after a defect in its own work: one that strikes each turn must make no tight circle. Pure."""

from __future__ import annotations

from typing import Final

REST_US_MIN: Final = 10_000
REST_US_MAX: Final = 1_000_000
WELL_US: Final = 10_000_000
"""Who had no defect for so long begins with the shortest rest again."""


class Rest:
    def __init__(self) -> None:
        self._rest_us = REST_US_MIN
        self._failed_us = -WELL_US

    def after_failure(self, now_us: int) -> int:
        """So long, in microseconds; twice as long each time."""
        is_another = now_us - self._failed_us < WELL_US
        self._rest_us = min(2 * self._rest_us, REST_US_MAX) if is_another else REST_US_MIN
        self._failed_us = now_us
        return self._rest_us
