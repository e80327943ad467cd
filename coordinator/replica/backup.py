"""A backup of one replica's state: its last snapshot and the committed entries behind it, in one file.

The loop hands over what is immutable already, so that it does not pause; the writing is another thread's, and is mostly
the disk's. The file is whole or not there: written aside, synced, renamed.

    CONCLAVE-BACKUP 1\\n
    then frames (`frames.py`), each with a body in MessagePack:
    header   what it is of (`Header`)
    parts    of the snapshot, 1 MiB each, as many as the header says
    batches  of entries: their terms and bytes, as many as the header says
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

import msgspec

from coordinator.consensus.engine import Committed, Snapshot
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.replica import frames
from coordinator.replica.directory import make, sync
from coordinator.replica.replica import Replica

MAGIC: Final = b"CONCLAVE-BACKUP 1\n"
BATCH_ENTRIES: Final = 1_000
_PART: Final = ".part"


class BackupDamaged(Exception):
    """The file is not a whole backup of a version that this reads."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """`last_index`: the state is that after this entry. `configuration`: the entry of the one in force there."""

    cluster: int
    cluster_name: str
    replica: int
    node: str
    epoch: int
    last_index: int
    configuration: bytes
    snapshot_index: int
    snapshot_term: int
    snapshot_configuration: bytes
    snapshot_bytes: int
    snapshot_parts: int
    first_index: int
    batches: int


class Captured(NamedTuple):
    """What a replica's loop hands over."""

    cluster: int
    cluster_name: str
    replica: int
    node: str
    epoch: int
    configuration: Configuration
    snapshot: Snapshot | None
    committed: Committed

    @property
    def last_index(self) -> int:
        return self.committed.first_index + len(self.committed.entries) - 1


def capture(replica: Replica, node: str) -> Captured:
    """Of a replica, by its loop: what it has applied."""
    engine = replica.engine
    snapshot, committed = engine.captured()
    return Captured(
        replica.cluster,
        replica.cluster_name,
        replica.replica,
        node,
        replica.machine.epoch,
        engine.configuration_at(engine.applied_index),
        snapshot,
        committed,
    )


class Contents(NamedTuple):
    """`digest`: of the whole file, in hex, by which two who read it know that it is the same."""

    header: Header
    snapshot: bytes
    terms: list[int]
    entries: list[bytes]
    digest: str


_encode = msgspec.msgpack.Encoder().encode
_headers = msgspec.msgpack.Decoder(Header)
_parts = msgspec.msgpack.Decoder(bytes)
_batch = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]])


def write(path: Path, captured: Captured) -> None:
    """Put the whole file there, or nothing. Raises OSError."""
    make(path.parent)
    aside = path.with_name(f".{path.name}{_PART}")
    try:
        with open(aside, "wb") as file:
            file.write(MAGIC)
            for body in _bodies(captured):
                frames.put(file, body)
            os.fsync(file.fileno())
        os.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sweep(directory: Path) -> None:
    """Delete what a process left there that ended in the middle of a backup. Nobody else writes any there now."""
    with contextlib.suppress(OSError):  # Whoever makes the next one is told.
        for left in directory.glob(f".*.backup{_PART}"):
            left.unlink(missing_ok=True)


def _bodies(captured: Captured) -> Iterator[bytes]:
    snapshot, committed = captured.snapshot, captured.committed
    data = b"" if snapshot is None else snapshot.data
    parts = range(0, len(data), frames.PART_BYTES)
    batches = _batches_of(committed.entries)
    yield _encode(
        Header(
            cluster=captured.cluster,
            cluster_name=captured.cluster_name,
            replica=captured.replica,
            node=captured.node,
            epoch=captured.epoch,
            last_index=captured.last_index,
            configuration=encode_configuration(captured.configuration),
            snapshot_index=0 if snapshot is None else snapshot.last_index,
            snapshot_term=0 if snapshot is None else snapshot.term,
            snapshot_configuration=b"" if snapshot is None else encode_configuration(snapshot.configuration),
            snapshot_bytes=len(data),
            snapshot_parts=len(parts),
            first_index=committed.first_index,
            batches=len(batches),
        )
    )
    for start in parts:
        yield _encode(data[start : start + frames.PART_BYTES])
    for start, end in batches:
        yield _encode((committed.terms[start:end], committed.entries[start:end]))


class _Digesting:
    """A file that is read from its beginning to its end, once: what was checked is what the digest is of."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.blake2b(digest_size=16)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data

    def tell(self) -> int:
        return self._file.tell()


def _batches_of(entries: list[bytes]) -> list[tuple[int, int]]:
    """From where to where: of at most BATCH_ENTRIES, and closed above frames.PART_BYTES."""
    batches: list[tuple[int, int]] = []
    start = size = 0
    for end, entry in enumerate(entries, 1):
        size += len(entry)
        if size >= frames.PART_BYTES or end - start == BATCH_ENTRIES or end == len(entries):
            batches.append((start, end))
            start, size = end, 0
    return batches


def _at_once(path: str, flags: int) -> int:
    """Open it without waiting, as a pipe lets one do for who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def read(path: Path) -> Contents:
    """All of a backup, checked. Raises BackupDamaged, OSError."""
    with open(path, "rb", opener=_at_once) as raw:
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise BackupDamaged(f"{path}: expected a regular file, which can be read once more")
        digesting = _Digesting(raw)
        file = cast(IO[bytes], digesting)
        found = file.read(len(MAGIC))
        if found != MAGIC:
            raise BackupDamaged(f"{path}: expected a file that begins with {MAGIC!r}, got {found!r}")
        try:
            header = _headers.decode(frames.read(path, file))
            snapshot = b"".join(_parts.decode(frames.read(path, file)) for _ in range(header.snapshot_parts))
            terms: list[int] = []
            entries: list[bytes] = []
            for _ in range(header.batches):
                batch_terms, batch_entries = _batch.decode(frames.read(path, file))
                terms += batch_terms
                entries += batch_entries
        except msgspec.MsgspecError as error:
            raise BackupDamaged(f"{path}: {error}") from None
        except frames.FrameDamaged as error:
            raise BackupDamaged(f"{error}") from None
        if file.read(1):
            raise BackupDamaged(f"{path}: there is more behind its end")
    last_index = header.first_index + len(entries) - 1
    if len(snapshot) != header.snapshot_bytes or last_index != header.last_index or len(terms) != len(entries):
        raise BackupDamaged(
            f"{path}: expected {header.snapshot_bytes} bytes of a snapshot and entries up to {header.last_index}, as "
            f"its header says; got {len(snapshot)} bytes, and entries up to {last_index}"
        )
    if header.snapshot_index and not snapshot:
        raise BackupDamaged(f"{path}: it has no state: a witness wrote it, under a version before; take another node's")
    return Contents(header, snapshot, terms, entries, digesting.hash.hexdigest())


if __name__ == "__main__":  # To read one whole is the affair of who restores it.
    from coordinator.replica.restoration import main

    sys.exit(main())
