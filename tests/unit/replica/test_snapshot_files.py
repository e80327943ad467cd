"""Large snapshots in files of their own: a crash at any moment leaves the old one or the new one, and nothing else."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest

from coordinator.consensus.engine import HardState, Snapshot
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.consensus.parts import Parts
from coordinator.replica import frames, snapshot_files
from coordinator.replica import journal as journal_module
from coordinator.replica.frames import PART_BYTES
from coordinator.replica.journal import FILE_NAME, SqliteJournal
from coordinator.replica.ports import Head, Write
from coordinator.replica.snapshot_files import DIRECTORY, Staging
from coordinator.replica.stored import JournalDamaged, StoredLog, StoredReplica
from tests.integration.waiting import eventually

REPLICA = StoredReplica(2**62 + 1, 9, "default")
CONFIGURATION = Configuration((Member(1, "node1"),))


@pytest.fixture
def journal(tmp_path: Path) -> SqliteJournal:
    journal = SqliteJournal(tmp_path)
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    journal.load(REPLICA.replica)
    journal.commit([Write(REPLICA.replica, HardState(2, 0, 5), 2, [2] * 8, [b"\x01%d" % i for i in range(2, 10)])])
    return journal


def large(last_index: int, size: int = 2 * PART_BYTES + 5) -> Snapshot:
    parts = Parts()
    while len(parts) < size:
        parts.append(secrets.token_bytes(min(100_000, size - len(parts))))
    return Snapshot(last_index, 2, CONFIGURATION, parts)


def staged(journal: SqliteJournal, snapshot: Snapshot) -> Staging:
    staging = journal.stage(REPLICA.replica, snapshot)
    eventually(lambda: staging.is_done or staging.failed, timeout_s=10, what="it is written, or not")
    return staging


def keep(journal: SqliteJournal, snapshot: Snapshot, staging: Staging | None, first_index: int = 10) -> None:
    index = snapshot.last_index
    head = Head(snapshot, index, 2, keep_tail=True, staged=staging)
    journal.commit([Write(REPLICA.replica, HardState(2, 0, index), first_index, [], [], head)])


def flipped(data: bytes, at: int) -> bytes:
    """A byte of it is another one, whatever it was."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def files(path: Path) -> list[str]:
    directory = path / DIRECTORY
    return sorted(os.listdir(directory)) if directory.exists() else []


def reopened(journal: SqliteJournal, path: Path) -> StoredLog:
    journal.close()
    with closing(SqliteJournal(path)) as again:
        return again.load(REPLICA.replica)


def test_a_large_snapshot_is_there_after_a_restart(journal: SqliteJournal, tmp_path: Path) -> None:
    snapshot = large(6)
    keep(journal, snapshot, staged(journal, snapshot))
    assert journal.size_bytes() > len(snapshot.data)
    stored = reopened(journal, tmp_path)
    assert (stored.snapshot, stored.offset) == (snapshot, 6)
    assert stored.entries == [b"\x017", b"\x018", b"\x019"]
    assert len(files(tmp_path)) == 1


def test_what_a_journal_takes_can_be_asked_where_its_snapshots_can_not_be_looked_at(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    """Else all figures of its node were gone with that one, just where its disk takes no snapshots."""
    (tmp_path / DIRECTORY).write_bytes(b"")
    assert journal.size_bytes() > 4_096


def test_a_crash_before_the_journal_names_it_leaves_the_old_one_and_no_file(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    old, new = large(4), large(7)
    keep(journal, old, staged(journal, old))
    staged(journal, new)
    half = tmp_path / DIRECTORY / "1-9-0.part"
    half.write_bytes(b"half of a part")
    assert len(files(tmp_path)) == 3
    stored = reopened(journal, tmp_path)
    assert stored.snapshot == old
    assert len(files(tmp_path)) == 1


def test_a_crash_right_behind_the_switch_leaves_the_new_one_and_not_the_old_file(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = large(4), large(7)
    keep(journal, old, staged(journal, old))
    staging = staged(journal, new)
    monkeypatch.setattr(journal._files, "drop", lambda name: None)  # The process is gone before it comes to that.
    keep(journal, new, staging)
    assert len(files(tmp_path)) == 2
    assert reopened(journal, tmp_path).snapshot == new
    assert len(files(tmp_path)) == 1


def test_an_old_file_goes_when_another_or_a_small_one_takes_its_place(journal: SqliteJournal, tmp_path: Path) -> None:
    for index, is_large in ((4, True), (6, True), (8, False)):
        snapshot = large(index) if is_large else large(index, 100)
        keep(journal, snapshot, staged(journal, snapshot) if is_large else None)
        eventually(lambda: len(files(tmp_path)) <= 1, timeout_s=5, what="the old file is gone")
    eventually(lambda: files(tmp_path) == [], timeout_s=5, what="the last file is gone")
    stored = reopened(journal, tmp_path)
    assert stored.snapshot is not None
    assert stored.snapshot.last_index == 8


def test_a_removed_replicas_file_goes_with_it(journal: SqliteJournal, tmp_path: Path) -> None:
    snapshot = large(4)
    keep(journal, snapshot, staged(journal, snapshot))
    journal.retire(REPLICA, 1, "no member")
    eventually(lambda: not files(tmp_path), timeout_s=5, what="the file is gone")


def test_what_is_given_up_when_it_is_whole_leaves_nothing(journal: SqliteJournal, tmp_path: Path) -> None:
    """As where a newer snapshot comes while this one is being loaded."""
    staging = staged(journal, large(4))
    assert files(tmp_path) == [staging.name]
    assert staging.took_us > 0
    staging.give_up()
    eventually(lambda: files(tmp_path) == [], timeout_s=5, what="the file is gone")


def test_a_file_is_whole_once_it_its_name_and_its_directory_are_on_disk(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(snapshot_files, "sync", synced.append)
    assert staged(journal, large(4)).is_done
    assert synced == [tmp_path / DIRECTORY, tmp_path]


def test_a_name_that_can_not_be_synced_leaves_nothing(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(snapshot_files, "sync", sync)
    assert "Input/output error" in staged(journal, large(4)).failed
    assert files(tmp_path) == []


def test_what_is_given_up_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    dropped: list[str] = []
    staging = Staging("1-1-1.snapshot", large(4).data, dropped.append)
    staging.give_up()
    staging.write(tmp_path / DIRECTORY)
    assert (staging.is_done, staging.failed, files(tmp_path)) == (False, "given up", [])
    assert dropped == [staging.name]


def test_a_full_disk_costs_the_snapshot_alone(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full in the middle of the second part; the old snapshot and the log are as they were."""
    old, new = large(4), large(7)
    keep(journal, old, staged(journal, old))
    written = 0
    put = frames.put

    def full(file: IO[bytes], body: bytes, rest: Callable[[float], object]) -> float:
        nonlocal written
        written += 1
        if written == 2:
            file.write(body[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(file, body, rest)

    with monkeypatch.context() as patch:
        patch.setattr(frames, "put", full)
        staging = staged(journal, new)
    assert not staging.is_done
    assert "No space left on device" in staging.failed
    assert len(files(tmp_path)) == 1
    keep(journal, new, staged(journal, new))  # There is room again.
    assert reopened(journal, tmp_path).snapshot == new


def test_a_disk_that_takes_no_snapshots_is_said_in_the_nodes_log_once_and_when_it_is_over(
    journal: SqliteJournal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger=snapshot_files.__name__)
    (tmp_path / DIRECTORY).write_bytes(b"no directory")
    for _ in range(3):
        assert staged(journal, large(4)).failed
    eventually(lambda: caplog.records, timeout_s=10, what="it is said")
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "the log grows until one can" in record.getMessage()
    assert f"{tmp_path / DIRECTORY}" in record.getMessage()
    (tmp_path / DIRECTORY).unlink()
    for _ in range(2):
        assert staged(journal, large(4)).is_done
    journal.close()  # Its thread has said all.
    assert [record.getMessage() for record in caplog.records[1:]] == ["snapshots can be written again"]


def test_a_directory_that_takes_no_files_is_told(journal: SqliteJournal, tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).write_bytes(b"no directory")
    staging = staged(journal, large(4))
    assert str(tmp_path / DIRECTORY) in staging.failed


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[: PART_BYTES + 40]), "cut off"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "no more"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()), "begins with"),
        (lambda path: path.write_bytes(flipped(path.read_bytes(), 500)), "checksum"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_damaged_file_is_named_and_not_served(journal: SqliteJournal, tmp_path: Path, damage, complaint: str) -> None:
    snapshot = large(4)
    keep(journal, snapshot, staged(journal, snapshot))
    journal.close()
    damage(tmp_path / DIRECTORY / files(tmp_path)[0])
    with (
        pytest.raises(JournalDamaged, match=f"the snapshot of replica.*{complaint}"),
        closing(SqliteJournal(tmp_path)) as again,
    ):
        again.load(REPLICA.replica)


@pytest.mark.parametrize(
    "statement", ["UPDATE snapshot_files SET last_index = 3", "UPDATE snapshot_files SET name = 'x'"]
)
def test_a_damaged_name_of_a_file_is_named_and_not_served(
    journal: SqliteJournal, tmp_path: Path, statement: str
) -> None:
    snapshot = large(4)
    keep(journal, snapshot, staged(journal, snapshot))
    journal.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(JournalDamaged, match="the name of its file"), closing(SqliteJournal(tmp_path)) as again:
        again.load(REPLICA.replica)


def test_the_log_that_a_snapshot_took_the_place_of_goes_bit_by_bit(journal: SqliteJournal, tmp_path: Path) -> None:
    """So that the commit that takes it stays short; until it is gone, it is not read."""
    for index in range(10, 400):
        journal.commit([Write(REPLICA.replica, HardState(2, 0, 5), index, [2], [b"\x01%d" % index])])
    journal.commit([])
    keep(journal, large(390, 100), None, first_index=400)

    def rows() -> int:
        return journal._db.execute("SELECT count(*) FROM batches").fetchone()[0]

    left = rows()
    assert 400 - 10 - 2 * journal_module.PASSED_BATCHES < left < 400 - 10
    for index in range(400, 410):
        journal.commit([Write(REPLICA.replica, HardState(2, 0, 5), index, [2], [b"\x01%d" % index])])
        assert rows() <= max(left - journal_module.PASSED_BATCHES + 1, 9 + index - 399)
        left = rows()
    assert left == 9 + 10
    stored = reopened(journal, tmp_path)
    assert (stored.offset, len(stored.entries)) == (390, 19)


def test_what_is_left_of_the_log_after_a_crash_is_passed_over_and_goes_then(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    for index in range(10, 200):
        journal.commit([Write(REPLICA.replica, HardState(2, 0, 5), index, [2], [b"\x01%d" % index])])
    keep(journal, large(190, 100), None, first_index=200)
    journal.close()
    with closing(SqliteJournal(tmp_path)) as again:
        stored = again.load(REPLICA.replica)
        assert (stored.offset, len(stored.entries)) == (190, 9)
        for index in range(200, 204):
            again.commit([Write(REPLICA.replica, HardState(2, 0, 5), index, [2], [b"\x01%d" % index])])
        assert again._db.execute("SELECT min(first_index) FROM batches").fetchone() == (191,)


def test_rows_of_a_version_without_files_go_bit_by_bit(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = large(4, 9 * journal_module.PART_BYTES), large(7)
    keep(journal, old, None)
    keep(journal, new, staged(journal, new))

    def rows() -> int:
        return journal._db.execute("SELECT count(*) FROM snapshots").fetchone()[0]

    assert rows() == 9 - journal_module.PARTS_AT_ONCE
    assert journal.sweep(2)
    assert rows() == 9 - journal_module.PARTS_AT_ONCE - 2
    while journal.sweep(2):
        pass
    assert rows() == 0
    assert reopened(journal, tmp_path).snapshot == new


def test_an_old_file_goes_bit_by_bit(journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To free 300 MB at once held up the journal's sync for 50 ms."""
    old, new = large(4), large(7)
    keep(journal, old, staged(journal, old))
    (name,) = files(tmp_path)
    size = (tmp_path / DIRECTORY / name).stat().st_size
    sizes: list[int] = []
    truncate = os.truncate

    def cut(path: Path, length: int) -> None:
        assert path.name == name
        sizes.append(length)
        truncate(path, length)

    monkeypatch.setattr(os, "truncate", cut)
    monkeypatch.setattr(snapshot_files, "FREED_BYTES", 100_000)
    keep(journal, new, staged(journal, new))
    eventually(lambda: name not in files(tmp_path), timeout_s=10, what="the old file is gone")
    assert sizes == [*range(size - 100_000, 0, -100_000)]
    assert len(sizes) > 3


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.01, 0.03), (2.0, frames.REST_S_MAX)])
def test_whoever_writes_a_large_file_leaves_the_disk_to_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_s: float, rests_s: float
) -> None:
    moments = iter([5.0, 5.0 + took_s])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    rests: list[float] = []
    with open(tmp_path / "large", "wb") as file:
        assert frames.put(file, b"part", rests.append) == pytest.approx(took_s)
    assert rests == [pytest.approx(rests_s)]
    with open(tmp_path / "large", "rb") as file:
        assert frames.read(tmp_path / "large", file) == b"part"


def test_the_end_of_a_node_does_not_wait_for_a_large_file_to_go(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = large(4), large(7)
    keep(journal, old, staged(journal, old))
    monkeypatch.setattr(snapshot_files, "FREED_BYTES", 100_000)
    monkeypatch.setattr(snapshot_files, "FREED_REST_S", 3_600.0)
    keep(journal, new, staged(journal, new))
    journal._files.close()
    assert journal._files._thread is not None
    assert not journal._files._thread.is_alive()
    assert len(files(tmp_path)) == 2
    assert reopened(journal, tmp_path).snapshot == new
    assert len(files(tmp_path)) == 1
