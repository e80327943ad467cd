"""Checksums of what a journal holds few and small rows of, in a table beside them: which replicas there are, which are
gone, who asked for them, which node it is. All is read and checked when the journal is opened.

A version before this one writes such rows and knows no checksums of them, and deletes replicas. So a row without a
checksum is given one, and the checksum of a replica that is gone with a tombstone goes, too."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, Final

import msgspec

_encode = msgspec.msgpack.Encoder().encode

_ROWS: Final = {
    "meta": "SELECT key, value FROM meta WHERE key != 'opened'",
    "replicas": "SELECT replica, cluster, cluster_name FROM replicas",
    "tombstones": "SELECT replica FROM tombstones",
    "requests": "SELECT request, replica FROM requests",
}
"""What is summed of each table, its key first. Of a tombstone that it is there, which is what keeps a replica from
coming back; it is put anew, with another reason, where a removal is done twice."""
_OF_REPLICAS: Final = ("hard_states", "heads", "snapshots", "snapshot_files", "agreed", "stopped", "resting")


def checksum_of(*fields: Any) -> bytes:
    return hashlib.blake2b(_encode(fields), digest_size=8).digest()


def put(db: sqlite3.Connection, table: str, *row: Any) -> None:
    """Of a row, as it is selected above. In the transaction that writes the row."""
    db.execute("INSERT OR REPLACE INTO summed VALUES (?, ?, ?)", (table, row[0], checksum_of(table, *row)))


def drop(db: sqlite3.Connection, table: str, key: Any) -> None:
    db.execute("DELETE FROM summed WHERE of = ? AND key = ?", (table, key))


def is_right(db: sqlite3.Connection, table: str, *row: Any) -> bool:
    """Has a row, as it is selected above, its checksum? False where none was kept."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'summed'").fetchone():
        return False
    found = db.execute("SELECT checksum FROM summed WHERE of = ? AND key = ?", (table, row[0])).fetchone()
    return found is not None and found[0] == checksum_of(table, *row)


def harm(db: sqlite3.Connection) -> str:
    """What is wrong with those rows, or lies where none is that it could be of; "" where all is well. Sums what was
    not summed. Raises sqlite3.Error, ValueError, TypeError of what can not be read at all."""
    for table, select in _ROWS.items():
        if found := _check(db, table, select):
            return found
    known = {row[0] for row in db.execute("SELECT replica FROM replicas UNION SELECT replica FROM tombstones")}
    for table in _OF_REPLICAS:
        for (replica,) in db.execute(f"SELECT DISTINCT replica FROM {table}"):  # noqa: S608 - names of our own
            if replica not in known:
                return f"{table} has a row of replica {replica:x}, which was never here"
    # Whoever looks for a replica's batches trusts in their order, which SQLite does not check: one that is out of
    # place, since its key has rotted, hides those behind it.
    before = (0, 0)
    for key in db.execute("SELECT replica, first_index FROM batches NOT INDEXED"):
        if key[0] not in known or key <= before:
            return f"entries from {key[1]} of replica {key[0]:x} are out of place"
        before = key
    return ""


def _check(db: sqlite3.Connection, table: str, select: str) -> str:
    sums = dict(db.execute("SELECT key, checksum FROM summed WHERE of = ?", (table,)).fetchall())
    for row in db.execute(select).fetchall():
        expected = sums.pop(row[0], None)
        if expected is None:
            put(db, table, *row)
        elif expected != checksum_of(table, *row):
            return f"the row {_named(row[0])} of {table} does not match its checksum"
    for key in sums:
        if table != "replicas" or not db.execute("SELECT 1 FROM tombstones WHERE replica = ?", (key,)).fetchone():
            return f"the row {_named(key)} of {table} is missing"
        drop(db, table, key)
    return ""


def _named(key: Any) -> str:
    return f"{key:x}" if isinstance(key, int) else f"{key}"
