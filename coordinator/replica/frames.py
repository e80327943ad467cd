"""Frames of a file: 4 bytes of length (big-endian), 8 bytes of checksum (BLAKE2b), and a body. What is damaged or cut
off is seen before it is used."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

BODY_BYTES_MAX: Final = 1 << 31
PART_BYTES: Final = 256 * 1024
"""Of a large file, in one frame: what the journal's sync waits behind at the most, on the same disk."""
RESTS: Final = 3
"""So many times as long as a frame took to write and sync, its writer rests: the disk is the journal's for three
quarters of the time. Without it, three nodes that put 300 MB each on one disk left callers a fifth of their rate."""
REST_S_MAX: Final = 0.25
"""A disk that stands still for a moment is not to make a file take for ever."""
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 8


class FrameDamaged(Exception):
    """What is there is not what was written. Says where."""


def put(file: IO[bytes], body: bytes, rest: Callable[[float], object] = time.sleep) -> float:
    """Add a frame to a file, sync it, and `rest`. Gives the seconds that it took without the rest. Raises OSError."""
    began_s = time.perf_counter()
    file.write(len(body).to_bytes(_LENGTH_BYTES, "big") + _checksum(body))
    file.write(body)
    file.flush()
    os.fdatasync(file.fileno())
    took_s = time.perf_counter() - began_s
    rest(min(RESTS * took_s, REST_S_MAX))
    return took_s


def read(path: Path, file: IO[bytes]) -> bytes:
    """The body of the next frame. Raises FrameDamaged, OSError."""
    before = file.read(_LENGTH_BYTES + _CHECKSUM_BYTES)
    size = int.from_bytes(before[:_LENGTH_BYTES], "big")
    if len(before) != _LENGTH_BYTES + _CHECKSUM_BYTES or size > BODY_BYTES_MAX:
        raise FrameDamaged(f"{path}: cut off at byte {file.tell()}")
    body = file.read(size)
    if len(body) != size or _checksum(body) != before[_LENGTH_BYTES:]:
        raise FrameDamaged(f"{path}: what ends at byte {file.tell()} does not match its checksum")
    return body


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
