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

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from coordinator.consensus.engine import Committed, Snapshot
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.replica import frames
from coordinator.replica.directory import sync

MAGIC: Final = b"CONCLAVE-BACKUP 1\n"
PART_BYTES: Final = 1024 * 1024
"""Of a snapshot. And so much is written at once before it is synced: a sync of more would hold up the journal's, on the
same disk."""
BATCH_ENTRIES: Final = 1_000


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


class Contents(NamedTuple):
    header: Header
    snapshot: bytes
    terms: list[int]
    entries: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_headers = msgspec.msgpack.Decoder(Header)
_parts = msgspec.msgpack.Decoder(bytes)
_batch = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]])


def write(path: Path, captured: Captured) -> None:
    """Put the whole file there, or nothing. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        with open(aside, "wb") as file:
            file.write(MAGIC)
            unsynced = 0
            for body in _bodies(captured):
                file.write(frames.head(body))
                file.write(body)
                unsynced += len(body)
                if unsynced >= PART_BYTES:
                    file.flush()
                    os.fdatasync(file.fileno())
                    unsynced = 0
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _bodies(captured: Captured) -> Iterator[bytes]:
    snapshot, committed = captured.snapshot, captured.committed
    data = b"" if snapshot is None else snapshot.data
    parts = range(0, len(data), PART_BYTES)
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
        yield _encode(data[start : start + PART_BYTES])
    for start, end in batches:
        yield _encode((committed.terms[start:end], committed.entries[start:end]))


def _batches_of(entries: list[bytes]) -> list[tuple[int, int]]:
    """From where to where: of at most BATCH_ENTRIES, and closed above PART_BYTES."""
    batches: list[tuple[int, int]] = []
    start = size = 0
    for end, entry in enumerate(entries, 1):
        size += len(entry)
        if size >= PART_BYTES or end - start == BATCH_ENTRIES or end == len(entries):
            batches.append((start, end))
            start, size = end, 0
    return batches


def read(path: Path) -> Contents:
    """All of a backup, checked. Raises BackupDamaged, OSError."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BackupDamaged(f"{path}: expected a file that begins with {MAGIC!r}")
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
    if len(snapshot) != header.snapshot_bytes or header.first_index + len(entries) - 1 != header.last_index:
        raise BackupDamaged(f"{path}: it does not hold what its header says")
    return Contents(header, snapshot, terms, entries)
