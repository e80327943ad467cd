"""What a node has said, it has on disk (docs/design.md, rule 3), and what it gives a name is there whole."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bench import slow_disk
from coordinator.consensus.engine import Committed, Snapshot
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.replica import backup, births, wal
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.snapshot_files import SnapshotFiles
from coordinator.wire import Token
from tests.integration.waiting import eventually
from tests.unit.loss_of_power import Disk

CONFIGURATION = Configuration((Member(1, "node1"),))
SYNC_US = 10_000

COMMITS = """\
import sys, time
from pathlib import Path
from coordinator.consensus.engine import HardState
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.ports import Write
from coordinator.replica.stored import StoredLog, StoredReplica

journal = SqliteJournal(Path(sys.argv[1]))
journal.admit(StoredReplica(1, 9, "default"), 1, StoredLog(HardState(1, 0, 1), [1], [b"first"]))
journal.load(1)
journal.commit([Write(1, HardState(1, 0, 1), 2, [1], [b"a"])])
for term, index in ((1, 3), (1, 4), (2, 5), (2, 5)):  # Rows by themselves, a term with entries, another tail.
    began = time.perf_counter()
    journal.commit([Write(1, HardState(term, 0, 1), index, [term], [b"a"])])
    print(time.perf_counter() - began)
began = time.perf_counter()
journal.keep_epoch("default", 5)
print(time.perf_counter() - began)
"""


def test_each_commit_of_the_journal_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To die shows nothing of it, since the system keeps what was written: only the loss of power does."""
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    try:
        with slow_disk.slower(tmp_path, SYNC_US):
            command = [sys.executable, "-c", COMMITS, str(tmp_path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    took_s = [*map(float, done.stdout.split())]
    assert len(took_s) == 5
    assert min(took_s) >= SYNC_US / 1e6


def test_the_journal_asks_sqlite_to_sync_each_commit(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path)) as journal:
        asked = [journal._db.execute(f"PRAGMA {of}").fetchone()[0] for of in ("synchronous", "journal_mode")]
    assert asked == [2, "wal"], "FULL"


def test_no_loss_of_power_leaves_half_of_a_birth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    births.create(tmp_path / "nodes", ["node1", "node2"], "default", Token.new("0123abcd"))
    assert disk.could_lose() == []


def test_no_loss_of_power_takes_a_backup_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = Committed(8, [1, 1], [b"a", b"b"])
    captured = backup.Captured(
        9, "default", 1, "node1", 0, CONFIGURATION, Snapshot(7, 1, CONFIGURATION, b"x"), committed
    )
    disk = Disk(monkeypatch)
    backup.write(tmp_path / "backups" / "a.backup", captured)
    assert disk.could_lose() == []


def test_no_loss_of_power_takes_a_snapshot_that_the_journal_may_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    files = SnapshotFiles(tmp_path)
    staging = files.begin(1, Snapshot(7, 1, CONFIGURATION, b"x"))
    eventually(lambda: staging.is_done, timeout_s=10, what="it is written")
    files.close()
    assert disk.could_lose() == []


def test_no_loss_of_power_takes_the_mark_without_which_a_log_may_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(b"header")
    disk = Disk(monkeypatch)
    wal.mark_open(tmp_path / "mark", tmp_path / "log")
    assert disk.could_lose() == []
    assert (tmp_path / "mark").read_bytes() == b"6"
