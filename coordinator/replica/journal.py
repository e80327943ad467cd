"""The journal of a node: what its replicas must not forget, in one SQLite file.

One commit a turn for all replicas; when it returns, it is on disk (write-ahead log, `synchronous=FULL`). A batch of
entries is one row, with a checksum over where it belongs and what it holds. A row that does not check is named and
never served. The format is described in `docs/journal.md`.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from coordinator.consensus.engine import HardState, Snapshot
from coordinator.consensus.membership import encode_configuration
from coordinator.replica import ports, sums
from coordinator.replica.directory import check_access
from coordinator.replica.meters import Histogram
from coordinator.replica.ports import Head, Journal, JournalFailed, Write
from coordinator.replica.schema import LATER_TABLES, SCHEMA, STOPPED
from coordinator.replica.snapshot_files import SnapshotFiles, Staging
from coordinator.replica.stored import JournalDamaged, JournalUnusable, StoredLog, StoredReplica, bodies, stored_log
from coordinator.replica.sums import checksum_of
from coordinator.replica.wal import FULL, ROOM_BYTES, lost, make_room, mark_closed, mark_open, rotten_frame
from coordinator.statemachine.locks import EPOCH_MAX

FORMAT: Final = 1
FILE_NAME: Final = "journal.sqlite3"
MARK_NAME: Final = "journal.open"
COMMIT_LAG_MAX: Final = 1_000
"""How far the commit index on disk may stay behind, in entries: it only saves time after a restart, and a row that is
written again in every commit costs a page of the write-ahead log each time."""
PART_BYTES: Final = 1024 * 1024
"""A snapshot that is written in the commit that takes it is stored in rows of this size."""

PARTS_AT_ONCE: Final = 4
PASSED_BATCHES: Final = 64
PASSED_BYTES: Final = 128 * 1024
"""Deleted in one commit, of those that a snapshot took the place of, and twice what comes with it: so they end."""

_encode = msgspec.msgpack.Encoder().encode


class IdentityRetired(Exception):
    """A replica of this identity was removed from this node."""


class SqliteJournal(Journal):
    """Use by one thread of one process, which holds the node directory's lock.

    What `sqlite3` says of a damaged file may quote its bytes, so a UnicodeDecodeError is the database's too."""

    def __init__(self, directory: Path, node_name: str = "") -> None:
        """Open the journal in `directory`, made empty where there is none: an empty one holds no replica, and a node
        without replicas waits (docs/design.md, rule 4). `node_name`: whose it is to be: in another's place its
        replicas would wait for messages that go elsewhere, and where that node has a copy, be two that vote as one.
        Raises JournalDamaged (JournalUnusable where it may be as it should), sqlite3.Error,
        OSError."""
        self._path = directory / FILE_NAME
        self.fsyncs = Histogram()
        """Of what writes and syncs SQLite's write-ahead log: COMMIT, or a statement that is a transaction itself."""
        self._files = SnapshotFiles(directory)
        log = self._log = self._path.with_name(f"{FILE_NAME}-wal")
        self._log_bytes = ROOM_BYTES
        """How long the log was when it was last asked for."""
        self._is_marked = False
        self._mark = directory / MARK_NAME
        for path in (self._path, log):  # SQLite opens what it may not write, and calls that a disk I/O error later.
            check_access(path)
        if left := self._left_without_database():
            raise JournalDamaged(f"{self._path} is gone or empty, and {left} is there, which belongs to it")
        harm = lost(self._mark, log)
        if harm:
            raise JournalDamaged(f"{log}: {harm}; what was on disk there is not in {self._path}")
        rotten = rotten_frame(log)
        if rotten >= 0:
            what = f"frame {rotten} does not match its checksum" if rotten else "the header does not match what follows"
            raise JournalDamaged(f"{log}: {what}, and more is behind it that was on disk")
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._inserting = self._db.cursor()
        """For what each turn writes, so that none has to be made for it."""
        try:
            self._make_ready(log, node_name)
        except (JournalDamaged, OSError):
            self._close_database()
            raise
        except sqlite3.OperationalError as refused:
            self._close_database()
            raise JournalUnusable(f"{self._path}: {refused}") from refused
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
            self._close_database()
            raise JournalDamaged(f"{self._path}: {error}") from error
        self._last_index: dict[int, int] = {}
        self._hard_states: dict[int, HardState] = {}
        """As they are on disk."""
        self._passed: dict[int, int] = {}
        """Replica to where its log was cut, where batches from before that may be left."""
        self._old_files: list[str] = []
        """Of snapshots whose place others take in this commit."""

    def _left_without_database(self) -> Path | None:
        """A file that is nothing without the database, where that is gone. SQLite would begin anew, and delete a log
        that may be the last copy of what was promised; what was put back later would lack it, and not show it."""
        if self._path.exists() and self._path.stat().st_size:
            return None
        if self._mark.exists():
            return self._mark
        if self._log.exists() and self._log.stat().st_size:
            return self._log
        return self._files.any_file()

    def _make_ready(self, log: Path, node_name: str) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        # Where it is on, as distributions build it, all that a snapshot made superfluous is written once more.
        self._db.execute("PRAGMA secure_delete=OFF")
        # What a crash left half written goes now: after the next one it could not be told from rot (`wal.py`).
        self._db.execute("PRAGMA wal_checkpoint(FULL)")
        mark_closed(self._mark)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        make_room(log)
        # A tree whose pages are damaged would hide rows, which have checksums and are not there to be checked.
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalDamaged(f"{self._path}: {found}")
        self._create_or_check(node_name)
        self._mark_open(log)

    def _create_or_check(self, node_name: str) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            self._db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.strip().split(";\n"):
                self._db.execute(statement)
            node = str(secrets.randbits(63) or 1)
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", [("format", str(FORMAT)), ("node", node)])
            self._db.execute("COMMIT")
        self._db.execute(STOPPED)
        stored = dict(self._db.execute("SELECT key, value FROM meta"))
        if stored.get("format") != str(FORMAT):
            self._refuse_format(stored.get("format"))
        for statement in LATER_TABLES.strip().split(";\n"):
            self._db.execute(statement)
        if harm := sums.harm(self._db):
            raise JournalDamaged(f"{self._path}: {harm}")
        if node_name and stored.get("name", node_name) != node_name:
            raise JournalUnusable(
                f"{self._path} is node {stored['name']}'s, and lies where {node_name}'s is to be: put it back where it "
                "belongs"
            )
        if node_name and "name" not in stored:
            self._db.execute("INSERT INTO meta VALUES ('name', ?)", (node_name,))
            sums.put(self._db, "meta", "name", node_name)
        unsummed = "SELECT * FROM epochs WHERE cluster_name NOT IN (SELECT cluster_name FROM summed_epochs)"
        for name, epoch in self._db.execute(unsummed).fetchall():  # Of a version before that table.
            self._write_epoch(name, epoch)
        self.node_identity = int(stored["node"])
        """Random, made with the journal: a new disk is a new node, whatever its name."""
        self._files.sweep({row[0] for row in self._db.execute("SELECT name FROM snapshot_files")})

    def _refuse_format(self, found: str | None) -> NoReturn:
        """Raises JournalUnusable where it is as it was written, and JournalDamaged where it has rotted."""
        said = f"{self._path}: expected format {FORMAT}, got {found}"
        if found is None or not sums.is_right(self._db, "meta", "format", found):
            raise JournalDamaged(said)
        raise JournalUnusable(f"{said}: another version of Conclave wrote it, and can read it")

    def _mark_open(self, log: Path) -> None:
        """From here on a log that is gone is damage. Where the disk is full it goes unmarked until there is room; that
        nothing can be written is for the first commit to say. Raises sqlite3.Error, OSError of a disk that fails."""
        try:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('opened', ?)", (secrets.token_hex(8),))
            mark_open(self._mark, log)
            self._is_marked = True
        except sqlite3.OperationalError as refused:
            if refused.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
        except OSError as error:
            if error.errno not in FULL:
                raise

    def close(self) -> None:
        self._files.close()
        with contextlib.suppress(OSError):
            mark_closed(self._mark)
        self._close_database()

    def _close_database(self) -> None:
        """SQLite moves all of the log into it now, where the disk takes that, and deletes the log: also where the same
        has just failed as it was opened. A mark that is still there would call that a log that was lost."""
        self._db.close()
        if not self._log.exists():
            with contextlib.suppress(OSError):
                mark_closed(self._mark)

    def size_bytes(self) -> int:
        """What the journal, its write-ahead log and the snapshots beside it take on disk, as far as it can be told. May
        be asked from another thread."""
        size = self._files.size_bytes()
        for path in (self._path, self._log):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return size

    def check_log(self) -> None:
        """SQLite says nothing of a log that it could not move into the database, and tries again with each commit: on a
        disk that does not take it there the log would grow by all that is written, and each commit take longer. So one
        that has grown is moved once more, by a statement that tells. One that found no room for its mark gets it.
        Raises JournalFailed."""
        try:
            if not self._is_marked:
                self._mark_open(self._log)
            size = self._log.stat().st_size
            if size > self._log_bytes:
                self._log_bytes = size
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError as refused:
            if refused.sqlite_errorcode != sqlite3.SQLITE_LOCKED:  # That is where a replica is being loaded.
                raise JournalFailed(f"{self._path}: {refused}") from refused
        except (sqlite3.Error, OSError) as error:
            raise JournalFailed(f"{self._log}: {error}") from error

    def without_snapshot(self) -> list[int]:
        """Replicas whose snapshot was put into a file that is not there any more. Raises JournalFailed."""
        try:
            files = self._db.execute("SELECT replica, name FROM snapshot_files").fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise JournalFailed(f"{self._path}: {error}") from error
        return [replica for replica, name in files if self._files.is_gone(name)]

    # --- reading ----------------------------------------------------------------------------------

    def replicas(self) -> list[StoredReplica]:
        rows = self._db.execute("SELECT replica, cluster, cluster_name FROM replicas ORDER BY replica")
        return [StoredReplica(*row) for row in rows]

    def load(self, replica: int) -> StoredLog:
        """Everything of one replica, checked. Raises JournalDamaged."""
        stored = stored_log(self._db, self._path, self._files, replica)
        self._last_index[replica] = stored.offset + len(stored.entries)
        self._passed[replica] = stored.offset
        return stored

    def epochs(self) -> dict[str, int]:
        """The highest restore epoch of each cluster name that this node ever knew. One beyond the maximum was never
        served in, though a document of such a one was once written down. Raises JournalDamaged."""
        try:
            rows = self._db.execute("SELECT * FROM epochs").fetchall()  # A version before the other table may raise it.
            for name, epoch, checksum in self._db.execute("SELECT * FROM summed_epochs"):
                if checksum != checksum_of(name, epoch):
                    raise JournalDamaged(f"{self._path}: the restore epoch of {name} is damaged")
                rows.append((name, epoch))
            found: dict[str, int] = {}
            for name, epoch in rows:
                if epoch <= EPOCH_MAX:
                    found[name] = max(epoch, found.get(name, 0))
        except sqlite3.OperationalError as refused:
            raise JournalUnusable(f"{self._path}: {refused}") from refused
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise JournalDamaged(f"{self._path}: {error}") from error
        return found

    def resting(self) -> set[int]:
        """Replicas that are not to take part until they are started again."""
        return {row[0] for row in self._db.execute("SELECT replica FROM resting")}

    def tombstones(self) -> dict[int, str]:
        """Replicas that were removed, and why. Their identities never come back."""
        return dict(self._db.execute("SELECT replica, why FROM tombstones").fetchall())

    def replica_of_request(self, request: str) -> int | None:
        """The replica that was admitted for `request`, removed since or not; None where there was none."""
        row = self._db.execute("SELECT replica FROM requests WHERE request = ?", (request,)).fetchone()
        return row[0] if row else None

    # --- writing ----------------------------------------------------------------------------------

    def stage(self, replica: int, snapshot: Snapshot) -> Staging:
        """See `ports.Journal`."""
        return self._files.begin(replica, snapshot)

    def commit(self, writes: list[Write]) -> None:
        """See `ports.Journal`."""
        try:
            execute = self._db.execute
            if len(writes) == 1 and self._is_one_row(writes[0]):
                before_ns = time.perf_counter_ns()
                self._put_entries(writes[0])  # A statement by itself is a transaction.
                self.fsyncs.observe((time.perf_counter_ns() - before_ns) // 1_000)
                return
            execute("BEGIN IMMEDIATE")
            for write in writes:
                if write.head is not None:
                    self._put_head(write.replica, write.head)
                if write.entries:
                    self._put_entries(write)
                if write.head is not None or not self._is_known(write.replica, write.hard_state):
                    self._put_hard_state(write.replica, write.hard_state)
                if write.replica in self._passed:
                    self._sweep_passed(write.replica, PASSED_BYTES + 2 * sum(map(len, write.entries)))
                if write.stopped:
                    stopped = (write.replica, write.stopped, checksum_of(write.replica, write.stopped))
                    execute("INSERT OR REPLACE INTO stopped VALUES (?, ?, ?)", stopped)
            before_ns = time.perf_counter_ns()
            execute("COMMIT")
            self.fsyncs.observe((time.perf_counter_ns() - before_ns) // 1_000)
            while self._old_files:
                self._files.drop(self._old_files.pop())
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise JournalFailed(f"{self._path}: {error}") from error

    def _is_one_row(self, write: Write) -> bool:
        """Does this write say nothing but entries behind the last one?"""
        return (
            bool(write.entries)
            and write.head is None
            and not write.stopped
            and write.replica not in self._passed
            and write.first_index > self._last_index.get(write.replica, 0)
            and self._is_known(write.replica, write.hard_state)
        )

    def _is_known(self, replica: int, state: HardState) -> bool:
        """Does the journal hold this term and vote, and about this commit index?"""
        known = self._hard_states.get(replica)
        return known is not None and known[:2] == state[:2] and state.commit - known.commit < COMMIT_LAG_MAX

    def _put_hard_state(self, replica: int, state: HardState) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO hard_states VALUES (?, ?, ?, ?, ?)", (replica, *state, checksum_of(replica, *state))
        )
        self._hard_states[replica] = state

    def _put_entries(self, write: Write) -> None:
        replica, first_index = write.replica, write.first_index
        if first_index <= self._last_index.get(replica, 0):
            self._truncate(replica, first_index)
        self._insert(replica, first_index, write.terms, write.entries)
        self._last_index[replica] = first_index + len(write.entries) - 1

    def _insert(self, replica: int, first_index: int, terms: list[int], entries: list[bytes]) -> None:
        last_index = first_index + len(entries) - 1
        body = _encode((terms, entries))
        self._inserting.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?)",
            (replica, first_index, last_index, body, checksum_of(replica, first_index, last_index, body)),
        )

    def _truncate(self, replica: int, first_index: int) -> None:
        """Drop entries from `first_index` on; the batch that it cuts through is written again, shorter."""
        execute = self._db.execute
        cut = execute(
            "SELECT first_index, last_index, body, checksum FROM batches "
            "WHERE replica = ? AND first_index < ? AND last_index >= ?",
            (replica, first_index, first_index),
        ).fetchone()
        execute("DELETE FROM batches WHERE replica = ? AND last_index >= ?", (replica, first_index))
        if cut is not None:
            first, last, body, checksum = cut
            if checksum != checksum_of(replica, first, last, body):  # It must not get a checksum that is right.
                raise JournalFailed(
                    f"{self._path}: entries {first} to {last} of replica {replica:x} do not match their checksum"
                )
            terms, entries = bodies.decode(body)
            keep = first_index - first
            self._insert(replica, first, terms[:keep], entries[:keep])

    def _put_head(self, replica: int, head: Head) -> None:
        execute = self._db.execute
        snapshot = head.snapshot
        row = (
            snapshot.last_index,
            snapshot.term,
            encode_configuration(snapshot.configuration),
            len(snapshot.data),
            head.offset,
            head.offset_term,
        )
        self._put_data(replica, head)
        if head.agreed:
            agreed = (replica, snapshot.last_index, checksum_of(replica, snapshot.last_index))
            execute("INSERT OR REPLACE INTO agreed VALUES (?, ?, ?)", agreed)
        else:
            execute("DELETE FROM agreed WHERE replica = ?", (replica,))
        execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (replica, *row, checksum_of(replica, *row))
        )
        if not head.keep_tail:
            execute("DELETE FROM batches WHERE replica = ? AND last_index > ?", (replica, head.offset))
            self._last_index[replica] = head.offset
        self._passed[replica] = head.offset

    def _sweep_passed(self, replica: int, bytes_max: int) -> None:
        """Delete some of the batches that the log no longer holds: all at once would hold up the loop."""
        # Row by row, and no further than needed: SQLite reads all of a row to find out that it is of this replica.
        passed = self._db.execute(
            "SELECT first_index, length(body) FROM batches WHERE replica = ? AND last_index <= ? ORDER BY first_index",
            (replica, self._passed[replica]),
        )
        last = size = count = 0
        for last, length in passed:  # noqa: B007 - the last one
            size += length
            count += 1
            if size >= bytes_max or count == PASSED_BATCHES:
                break
        else:
            del self._passed[replica]
        passed.close()
        if count:
            self._db.execute("DELETE FROM batches WHERE replica = ? AND first_index <= ?", (replica, last))

    def _put_data(self, replica: int, head: Head) -> None:
        """The snapshot's bytes, or the name of the file that has them. An old file goes once this is committed."""
        execute = self._db.execute
        snapshot = head.snapshot
        old = execute("SELECT name FROM snapshot_files WHERE replica = ?", (replica,)).fetchone()
        if old is not None:
            self._old_files.append(old[0])
            execute("DELETE FROM snapshot_files WHERE replica = ?", (replica,))
        if head.staged is not None:
            # A version that had no files may have left hundreds of rows: `sweep` takes the rest.
            execute("DELETE FROM snapshots WHERE replica = ? AND part < ?", (replica, PARTS_AT_ONCE))
            assert isinstance(head.staged, Staging), "a snapshot is staged by the journal that is to take it"
            assert head.staged.is_done, "a snapshot is on disk before the journal names it"
            row = (snapshot.last_index, head.staged.name)
            execute("INSERT INTO snapshot_files VALUES (?, ?, ?, ?)", (replica, *row, checksum_of(replica, *row)))
            return
        execute("DELETE FROM snapshots WHERE replica = ?", (replica,))
        for part, start in enumerate(range(0, len(snapshot.data), PART_BYTES)):
            body = snapshot.data[start : start + PART_BYTES]
            execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?)",
                (replica, part, body, checksum_of(replica, snapshot.last_index, part, body)),
            )

    def admit(self, replica: StoredReplica, epoch: int | None, log: StoredLog, request: str = "") -> None:
        """Write the first state of a new replica: at its birth, or empty (`epoch` None: not known yet). `request`: of
        whoever asked for it. Raises JournalFailed; IdentityRetired for one that was removed."""
        if replica.replica in self.tombstones():
            raise IdentityRetired(f"{self._path}: replica {replica.replica:x} was removed and does not come back")
        with self._transaction():
            self._db.execute("INSERT INTO replicas VALUES (?, ?, ?)", replica)
            sums.put(self._db, "replicas", *replica)
            if request:
                self._db.execute("INSERT INTO requests VALUES (?, ?)", (request, replica.replica))
                sums.put(self._db, "requests", request, replica.replica)
            self._begin_log(replica, epoch, log)

    def form(self, replica: StoredReplica, epoch: int, log: StoredLog, staged: ports.Staging | None = None) -> None:
        """Write the first log of a replica that was admitted empty. `staged`: its snapshot is on disk already. Raises
        JournalFailed."""
        with self._transaction():
            assert not self._db.execute("SELECT 1 FROM batches WHERE replica = ?", (replica.replica,)).fetchone()
            assert not self._db.execute("SELECT 1 FROM heads WHERE replica = ?", (replica.replica,)).fetchone()
            self._begin_log(replica, epoch, log, staged)

    def _begin_log(
        self, replica: StoredReplica, epoch: int | None, log: StoredLog, staged: ports.Staging | None = None
    ) -> None:
        if epoch is not None:
            self._put_epoch(replica.cluster_name, epoch)
        if log.snapshot is not None:
            head = Head(log.snapshot, log.offset, log.offset_term, keep_tail=False, staged=staged)
            self._put_head(replica.replica, head)
        if log.entries:
            self._insert(replica.replica, log.offset + 1, log.terms, log.entries)
        self._last_index[replica.replica] = log.offset + len(log.entries)
        self._put_hard_state(replica.replica, log.hard_state)

    def _put_epoch(self, cluster_name: str, epoch: int) -> None:
        self._write_epoch(cluster_name, max(epoch, self.epochs().get(cluster_name, epoch)))

    def _write_epoch(self, cluster_name: str, epoch: int) -> None:
        """Into the table without a checksum, too, which a version reads that knows no other."""
        self._db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (cluster_name, epoch))
        summed = (cluster_name, epoch, checksum_of(cluster_name, epoch))
        self._db.execute("INSERT OR REPLACE INTO summed_epochs VALUES (?, ?, ?)", summed)

    def mark_resting(self, replica: int, *, resting: bool) -> None:
        """Whether the replica is to take part after a restart. Raises JournalFailed."""
        with self._transaction():
            self._db.execute("DELETE FROM resting WHERE replica = ?", (replica,))
            if resting:
                self._db.execute("INSERT INTO resting VALUES (?)", (replica,))

    def keep_epoch(self, cluster_name: str, epoch: int) -> None:
        """A cluster of this name has this restore epoch. Raises JournalFailed."""
        with self._transaction():
            self._put_epoch(cluster_name, epoch)

    def retire(self, replica: StoredReplica, epoch: int | None, why: str) -> None:
        """Delete a replica and keep its tombstone, and the epoch of its cluster's name. Its log and its snapshot, which
        may be large, are left for `sweep`. Raises JournalFailed."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?)", (*replica, why))
            sums.put(self._db, "tombstones", replica.replica)
            sums.drop(self._db, "replicas", replica.replica)
            file = self._db.execute("SELECT name FROM snapshot_files WHERE replica = ?", (replica.replica,)).fetchone()
            for table in ("replicas", "hard_states", "heads", "snapshot_files", "agreed", "stopped", "resting"):
                self._db.execute(f"DELETE FROM {table} WHERE replica = ?", (replica.replica,))  # noqa: S608
            if epoch is not None:
                self._put_epoch(replica.cluster_name, epoch)
        if file is not None:
            self._files.drop(file[0])
        self._last_index.pop(replica.replica, None)
        self._passed.pop(replica.replica, None)
        self._hard_states.pop(replica.replica, None)

    def sweep(self, rows_max: int) -> bool:
        """Delete some of what removed replicas left behind, and of snapshots in rows where a file took their place.
        True while there may be more. Raises JournalFailed."""
        left = rows_max
        with self._transaction():
            for table, key, gone_by in (
                ("snapshots", "part", "tombstones"),
                ("snapshots", "part", "snapshot_files"),
                ("batches", "first_index", "tombstones"),
            ):
                gone = self._db.execute(
                    f"SELECT replica, {key} FROM {table} "  # noqa: S608 - names of our own
                    f"WHERE replica IN (SELECT replica FROM {gone_by}) LIMIT ?",
                    (left,),
                ).fetchall()
                self._db.executemany(f"DELETE FROM {table} WHERE replica = ? AND {key} = ?", gone)  # noqa: S608
                left -= len(gone)
        return left == 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing. Whatever goes wrong is final, as in `commit`."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise JournalFailed(f"{self._path}: {error}") from error
