"""Frames of a file: 4 bytes of length (big-endian), 8 bytes of checksum (BLAKE2b), and a body. What is damaged or cut
off is seen before it is used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Final

BODY_BYTES_MAX: Final = 1 << 31
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 8


class FrameDamaged(Exception):
    """What is there is not what was written. Says where."""


def head(body: bytes) -> bytes:
    """What goes before a body."""
    return len(body).to_bytes(_LENGTH_BYTES, "big") + _checksum(body)


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
