"""Directories in memory, for installations whose time is judged."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
ROOM_MIN: Final = 512 << 20
"""Bytes: a whole installation takes some 60 MB."""


@contextmanager
def directory_in_memory(otherwise: Path) -> Iterator[Path]:
    """A directory that no disk holds up: on a shared machine a sync can take more than a second, and how long callers
    wait would be judged by that. `otherwise` where there is none, or too little room. What a killed process had written
    is kept in both."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM_MIN:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="conclave-tests-", dir=MEMORY, ignore_cleanup_errors=True) as directory:
        yield Path(directory)
