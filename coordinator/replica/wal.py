"""What SQLite does not do about its write-ahead log: say that a frame in the middle of it has rotted, or that all of it
is lost, and make room.

SQLite takes the log up to the first frame that does not check, and is silent about the rest: after a crash that is what
was being written. But each transaction here is synced before the next one begins (`synchronous=FULL`), so that a crash
can only tear the last. A frame that does not check, with a whole transaction and more of the same log behind it, was on
disk once: what SQLite would drop there was promised to others. In the last transaction rot and a torn write can not be
told apart. The format: the page "WAL-mode File Format" of SQLite's documentation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from array import array
from collections.abc import Iterator
from functools import cache
from operator import mul
from pathlib import Path
from typing import Final, NamedTuple

from coordinator.replica.directory import sync

_HEADER: Final = struct.Struct(">8I")
"""Magic, format, page size, number of the checkpoint, two salts, two checksums."""
_FRAME: Final = struct.Struct(">6I")
"""Page, size of the database in pages where the frame ends a transaction (else 0), two salts, two checksums."""
_MAGIC: Final = 0x377F0682
"""With the last bit set the checksums are over big-endian words."""
_MASK: Final = 0xFFFFFFFF
_PAGE_BYTES_MAX: Final = 65_536
_FIRST_FRAMES: Final = 2
"""One lies in a block with the header, and may be as old; the next is of the log that came so far last."""
_LATER_MAX: Final = 1 << 31
FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What a disk says that is as it should be, but for its room."""
ROOM_BYTES: Final = 4_200_000
"""What the log takes before SQLite begins it anew, as a rule."""

_Sum = tuple[int, int]


class _Frame(NamedTuple):
    """`whole`: its checksum follows from the one before. `ends`: it ends a transaction."""

    salts: tuple[int, int]
    ends: bool
    whole: bool


def make_room(path: Path) -> None:
    """Let an empty log take the space on disk that it will have: to sync a file that grows takes the disk twice as long
    as to write over what is there. SQLite writes from the beginning, and takes zeros for the end. To be asked once
    SQLite has opened the log. A disk that is full is another's concern. Raises OSError of one that fails."""
    if not path.exists() or path.stat().st_size:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, bytes(ROOM_BYTES))
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, 0)
        if error.errno not in FULL:
            raise
    finally:
        os.close(descriptor)


def rotten_frame(path: Path) -> int:
    """The number, from 1, of the frame of a write-ahead log at which SQLite would drop what was on disk; 0 for its
    header; -1 where there is none, or no log. To be asked before SQLite opens the database."""
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return -1
    if len(data) < _HEADER.size + _FRAME.size:
        return -1
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack_from(data)
    is_page = 512 <= page_bytes <= _PAGE_BYTES_MAX and not page_bytes & (page_bytes - 1)
    if (magic & ~1) != _MAGIC or not is_page:
        # A header is on disk before the first frame behind it, and the next one of a log begins as it does.
        return 0 if data[_HEADER.size :].tobytes().strip(b"\0") else -1
    swapped = (sys.byteorder == "big") != bool(magic & 1)
    summed = _summed((0, 0), data[: _HEADER.size - 8], swapped=swapped)
    if summed != (first, second):
        # A header is torn only where a log begins anew, and then all that lies behind it has other salts.
        _, _, *found, _, _ = _FRAME.unpack_from(data, _HEADER.size)
        return 0 if found[0] == salts[0] or found[1] == salts[1] else -1
    rotten = 0
    has_ended = False
    for number, frame in enumerate(_frames(data, page_bytes, summed, swapped=swapped), 1):
        belongs = [*frame.salts] == salts
        if number <= _FIRST_FRAMES and _is_later(frame.salts, salts):
            return 0  # The header is that of an earlier log: what was written over it has been lost.
        if not rotten and not (frame.whole and belongs):
            rotten = number
        if rotten and has_ended and belongs:
            return rotten
        # One that checks and does not belong was whole, for its salts are not summed: they alone have rotted.
        has_ended = bool(rotten) and (has_ended or ((belongs or frame.whole) and frame.ends))
    return -1


def _is_later(salts: tuple[int, int], header: list[int]) -> bool:
    """Is a frame of a log that began after that of the header? Each has the next number for its first salt."""
    return any(salts) and 0 < (salts[0] - header[0]) & _MASK < _LATER_MAX


def lost(mark: Path, log: Path) -> str:
    """Why `log` is not what a journal left there that was not closed, "" where it may be: see `mark_open`. To be asked
    before SQLite opens the database. Raises OSError."""
    try:
        size = int(mark.read_bytes())
    except FileNotFoundError:
        return ""  # It was closed, and all of it is in the database; or a version left it that made no mark.
    except ValueError:
        size = 1
    try:
        with log.open("rb") as file:
            found, header = os.fstat(file.fileno()).st_size, file.read(_HEADER.size)
    except FileNotFoundError:
        return "is gone"
    if found < size:
        return f"has {found} bytes, and had {size}"
    return "" if any(header) else "is empty"


def mark_open(mark: Path, log: Path) -> None:
    """Note, on disk, that the database is nothing without `log`, which holds a commit and never gets shorter while it
    is open. Raises OSError."""
    new = mark.with_name(f"{mark.name}.new")
    with new.open("wb") as file:
        file.write(str(log.stat().st_size).encode())
        file.flush()
        os.fsync(file.fileno())
    new.rename(mark)
    sync(mark.parent)


def mark_closed(mark: Path) -> None:
    """To be said when all that the log holds is in the database, or is about to be by SQLite's own doing, and before
    SQLite makes the log shorter. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        mark.unlink()
        sync(mark.parent)


def _frames(data: memoryview, page_bytes: int, summed: _Sum, *, swapped: bool) -> Iterator[_Frame]:
    """Behind the first that is not whole, none is."""
    size = _FRAME.size + page_bytes
    whole = True
    for at in range(_HEADER.size, len(data) - size + 1, size):
        _, pages, one, two, *stated = _FRAME.unpack_from(data, at)
        if whole:
            summed = _summed(summed, data[at : at + 8], swapped=swapped)
            summed = _summed(summed, data[at + _FRAME.size : at + size], swapped=swapped)
            whole = [*summed] == stated
        yield _Frame((one, two), bool(pages), whole)


def _summed(before: _Sum, data: memoryview, *, swapped: bool) -> _Sum:
    """SQLite's checksum: for each two words x and y, s += x + t; t += y + s. All at once, since it is linear."""
    words = array("I", data.tobytes())
    if swapped:
        words.byteswap()
    (ss, st, of_s), (ts, tt, of_t) = _weights(len(words) // 2)
    s, t = before
    return (
        (ss * s + st * t + sum(map(mul, of_s, words))) & _MASK,
        (ts * s + tt * t + sum(map(mul, of_t, words))) & _MASK,
    )


@cache
def _weights(pairs: int) -> tuple[tuple[int, int, list[int]], tuple[int, int, list[int]]]:
    """What s and t are after so many pairs of words: by what s and t were before, and by each word."""
    ss, st, ts, tt = 1, 0, 0, 1
    of_s: list[int] = []
    of_t: list[int] = []
    for _ in range(pairs):  # From the last pair to the first.
        of_s += (st, (ss + st) & _MASK)
        of_t += (tt, (ts + tt) & _MASK)
        ss, st, ts, tt = (ss + st) & _MASK, (ss + 2 * st) & _MASK, (ts + tt) & _MASK, (ts + 2 * tt) & _MASK
    return (ss, st, of_s[::-1]), (ts, tt, of_t[::-1])
