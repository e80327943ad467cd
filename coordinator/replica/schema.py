"""The tables of a node's journal; what is in them is described in `docs/journal.md`."""

from __future__ import annotations

from typing import Final

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE replicas (replica INTEGER PRIMARY KEY, cluster INTEGER NOT NULL, cluster_name TEXT NOT NULL);
CREATE TABLE hard_states (
    replica INTEGER PRIMARY KEY, term INTEGER NOT NULL, vote INTEGER NOT NULL, commit_index INTEGER NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE batches (
    replica INTEGER NOT NULL, first_index INTEGER NOT NULL, last_index INTEGER NOT NULL,
    body BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (replica, first_index)
) WITHOUT ROWID;
CREATE TABLE heads (
    replica INTEGER PRIMARY KEY, last_index INTEGER NOT NULL, term INTEGER NOT NULL, configuration BLOB NOT NULL,
    size INTEGER NOT NULL, log_offset INTEGER NOT NULL, offset_term INTEGER NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE snapshots (
    replica INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL, checksum BLOB NOT NULL,
    PRIMARY KEY (replica, part)
);
CREATE TABLE epochs (cluster_name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
"""

LATER_TABLES: Final = """
CREATE TABLE IF NOT EXISTS tombstones (
    replica INTEGER PRIMARY KEY, cluster INTEGER NOT NULL, cluster_name TEXT NOT NULL, why TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS resting (replica INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS requests (request TEXT PRIMARY KEY, replica INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot_files (
    replica INTEGER PRIMARY KEY, last_index INTEGER NOT NULL, name TEXT NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS summed_epochs (
    cluster_name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, checksum BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS agreed (
    replica INTEGER PRIMARY KEY, last_index INTEGER NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS summed (
    of TEXT NOT NULL, key NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (of, key)
) WITHOUT ROWID;
"""
"""Not in the journals that were made first. An earlier version of this module does not miss them."""
STOPPED: Final = (
    "CREATE TABLE IF NOT EXISTS stopped (replica INTEGER PRIMARY KEY, reason TEXT NOT NULL, checksum BLOB NOT NULL)"
)
"""Replicas that found that their state differs from the others', or their journal is one of before, and take no part
any more."""
