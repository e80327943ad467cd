"""What a journal holds of one replica, read back and checked. The rows are described in `docs/journal.md`."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from coordinator.consensus.engine import Data, HardState, Snapshot
from coordinator.consensus.membership import decode_configuration
from coordinator.replica.frames import FrameDamaged
from coordinator.replica.snapshot_files import SnapshotFiles
from coordinator.replica.sums import checksum_of

bodies: Final = msgspec.msgpack.Decoder(tuple[list[int], list[bytes]])

_NO_DAMAGE: Final = frozenset((errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Why a file can not be opened or read that is as it should be."""


class JournalDamaged(Exception):
    """The journal holds something that its checksum denies, or lacks something. Names the row."""


class JournalUnusable(JournalDamaged):
    """It can not be used as things are, and may be as it should: the disk is full or fails, another version wrote it,
    or it is another node's. Nothing of it is to be thrown away. (A class, since what is compiled keeps no cause.)"""


class StoredReplica(NamedTuple):
    replica: int
    cluster: int
    cluster_name: str


class StoredLog(NamedTuple):
    """`offset`: the log begins behind it; 0 where there is no snapshot. `stopped`: see `ports.Write`; `agreed`: of the
    snapshot, see `ports.Head`."""

    hard_state: HardState
    terms: list[int]
    entries: list[bytes]
    offset: int = 0
    offset_term: int = 0
    snapshot: Snapshot | None = None
    stopped: str = ""
    agreed: bool = False

    @property
    def agreed_index(self) -> int:
        """Up to there a majority had the state that the snapshot holds; 0: it is not known."""
        return self.snapshot.last_index if self.agreed and self.snapshot is not None else 0


def stored_log(db: sqlite3.Connection, path: Path, files: SnapshotFiles, replica: int) -> StoredLog:
    """Everything of one replica, checked. Raises JournalDamaged."""
    try:
        return _Reading(db, path, files, replica).log()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise JournalDamaged(f"{path}: {error}") from error


class _Reading:
    def __init__(self, db: sqlite3.Connection, path: Path, files: SnapshotFiles, replica: int) -> None:
        self._db = db
        self._path = path
        self._files = files
        self._replica = replica

    def log(self) -> StoredLog:
        replica = self._replica
        row = self._db.execute(
            "SELECT term, vote, commit_index, checksum FROM hard_states WHERE replica = ?", (replica,)
        ).fetchone()
        if row is None or row[3] != checksum_of(replica, *row[:3]):
            raise JournalDamaged(f"{self._path}: the hard state of replica {replica:x} is missing or damaged")
        snapshot, offset, offset_term = self._head()
        terms: list[int] = []
        entries: list[bytes] = []
        rows = self._db.execute(
            "SELECT first_index, last_index, body, checksum FROM batches WHERE replica = ? ORDER BY first_index",
            (replica,),
        )
        for first_index, last_index, body, checksum in rows:
            where = f"{self._path}: entries {first_index} to {last_index} of replica {replica:x}"
            if checksum != checksum_of(replica, first_index, last_index, body):
                raise JournalDamaged(f"{where} do not match their checksum")
            if last_index <= offset:
                continue  # It waits to be swept.
            end = offset + len(entries)
            before = max(0, offset + 1 - first_index) if not entries else 0  # Of a batch that the offset cuts through.
            if first_index + before != end + 1:
                raise JournalDamaged(f"{where} follow index {end}")
            batch_terms, batch_entries = bodies.decode(body)
            terms += batch_terms[before:]
            entries += batch_entries[before:]
        end = offset + len(entries)
        if end < row[2]:
            raise JournalDamaged(f"{self._path}: replica {replica:x} lacks entries up to its commit index {row[2]}")
        if snapshot is not None and end < snapshot.last_index:
            raise JournalDamaged(f"{self._path}: replica {replica:x} lacks entries up to its snapshot")
        latest = max(terms[-1] if terms else offset_term, 0 if snapshot is None else snapshot.term)
        if row[0] < latest:  # Each is written with a term that is as late: the row is an older one, and lacks a vote.
            raise JournalDamaged(
                f"{self._path}: the hard state of replica {replica:x} is of term {row[0]}, and what it has of {latest}"
            )
        stopped = self._stopped()
        agreed = snapshot is not None and self._is_agreed(snapshot.last_index)
        return StoredLog(HardState(*row[:3]), terms, entries, offset, offset_term, snapshot, stopped, agreed)

    def _is_agreed(self, last_index: int) -> bool:
        replica = self._replica
        row = self._db.execute("SELECT last_index, checksum FROM agreed WHERE replica = ?", (replica,)).fetchone()
        if row is not None and row[1] != checksum_of(replica, row[0]):
            raise JournalDamaged(f"{self._path}: what replica {replica:x} has agreed on is damaged")
        return row is not None and row[0] == last_index

    def _stopped(self) -> str:
        replica = self._replica
        row = self._db.execute("SELECT reason, checksum FROM stopped WHERE replica = ?", (replica,)).fetchone()
        if row is None:
            return ""
        if row[1] != checksum_of(replica, row[0]):
            raise JournalDamaged(f"{self._path}: why replica {replica:x} stopped is damaged")
        return str(row[0])

    def _head(self) -> tuple[Snapshot | None, int, int]:
        replica = self._replica
        row = self._db.execute(
            "SELECT last_index, term, configuration, size, log_offset, offset_term, checksum FROM heads "
            "WHERE replica = ?",
            (replica,),
        ).fetchone()
        if row is None:
            return None, 0, 0
        where = f"{self._path}: the snapshot of replica {replica:x}"
        if row[6] != checksum_of(replica, *row[:6]):
            raise JournalDamaged(f"{where} has a damaged head")
        last_index, term, configuration, size, offset, offset_term = row[:6]
        data = self._data(last_index, size)
        if len(data) != size:
            raise JournalDamaged(f"{where}: expected {size} bytes, got {len(data)}")
        return Snapshot(last_index, term, decode_configuration(configuration), data), offset, offset_term

    def _data(self, last_index: int, size: int) -> Data:
        replica = self._replica
        where = f"{self._path}: the snapshot of replica {replica:x}"
        file = self._db.execute(
            "SELECT last_index, name, checksum FROM snapshot_files WHERE replica = ?", (replica,)
        ).fetchone()
        if file is not None:
            if file[2] != checksum_of(replica, *file[:2]) or file[0] != last_index:
                raise JournalDamaged(f"{where}: the name of its file is damaged")
            try:
                return self._files.read(file[1], size)
            except FrameDamaged as error:
                raise JournalDamaged(f"{where}: {error}") from error
            except OSError as refused:  # Of a name of its own: what is compiled gives a name one type.
                kind = JournalUnusable if refused.errno in _NO_DAMAGE else JournalDamaged
                raise kind(f"{where}: {refused}") from refused
        data = bytearray()
        parts = self._db.execute(
            "SELECT part, body, checksum FROM snapshots WHERE replica = ? ORDER BY part", (replica,)
        )
        for number, (part, body, checksum) in enumerate(parts):
            if part != number or checksum != checksum_of(replica, last_index, part, body):
                raise JournalDamaged(f"{where}: part {number} is missing or damaged")
            data += body
        return bytes(data)
