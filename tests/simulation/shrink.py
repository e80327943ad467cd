"""Cutting a failing seed down: which of its faults does the violation need? (Zeller's delta debugging, 2002)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.simulation.faults import Fault

RUNS_MAX: Final = 400
"""Runs that a shrinking may take."""


def shrink(faults: list[Fault], fails: Callable[[list[Fault]], bool]) -> list[Fault]:
    """A short list of faults with which `fails` still holds: none of them can be left out alone, unless the runs were
    used up before that was known."""
    left = RUNS_MAX
    parts = 2
    while faults and left > 0:
        size = max(1, len(faults) // parts)
        for start in range(0, len(faults), size):
            fewer = faults[:start] + faults[start + size :]
            left -= 1
            if fails(fewer):
                faults = fewer
                parts = max(2, parts - 1)
                break
            if left == 0:
                return faults
        else:
            if size == 1:
                return faults
            parts = min(len(faults), 2 * parts)
    return faults
