"""What a node's memory allocator does with large blocks: values, packets, parts of snapshots and of the log.

glibc gives a block back to the system when it is freed, if it is larger than a bound; but each one that is freed raises
that bound to its own size, up to 32 MiB, and from then on blocks as large lie among small ones that stay. A node that
is sent large values so comes to two or three times of what it keeps. With a bound that stays, it does not.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 128 * 1024
"""glibc's own bound at a program's start. What a connection reads at once is half of it."""
SPARE_BYTES: Final = 16 * 1024 * 1024
"""So much of what is free at a heap's end is kept, so that what comes and goes need not be asked for each time."""


def give_large_blocks_back() -> None:
    """From now on, in this process. Not where its environment says otherwise, nor with another allocator than glibc."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES)
