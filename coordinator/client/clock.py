"""The clock that leases are counted on: monotonic, and running on while the machine is suspended."""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)
"""Linux' CLOCK_MONOTONIC stands still while the machine sleeps; a lease counted on it would outlive the real one."""


def now_us() -> int:
    """Microseconds since some moment that does not change while the machine is up."""
    if _BOOTTIME is not None:
        return time.clock_gettime_ns(_BOOTTIME) // 1_000
    return time.monotonic_ns() // 1_000
