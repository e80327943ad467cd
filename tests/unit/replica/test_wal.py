"""The write-ahead log: a crash may tear its end, and what is damaged before that is named, never dropped in silence."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.consensus.engine import HardState
from coordinator.replica import journal as journals
from coordinator.replica.journal import FILE_NAME, MARK_NAME, SqliteJournal
from coordinator.replica.ports import JournalFailed, Write
from coordinator.replica.stored import JournalDamaged, JournalUnusable, StoredLog, StoredReplica
from coordinator.replica.wal import ROOM_BYTES, mark_closed, mark_open, rotten_frame

REPLICA: Final = StoredReplica(2**62 + 1, 9, "default")
COMMITS: Final = 10


def written(log: Path) -> int:
    """Up to where frames are in a log that was empty: behind them it has room."""
    data = log.read_bytes()
    return next(at for at in range(32, len(data), 24 + 4_096) if not any(data[at : at + 24]))


class Crashed:
    """What a node leaves behind that dies after ten commits; `ends` is where each of them ends in the log."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        journal = SqliteJournal(directory)
        journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
        journal.load(REPLICA.replica)
        log = directory / f"{FILE_NAME}-wal"
        self.ends = [written(log)]
        for term in range(2, COMMITS + 2):
            entry = b"\x01" + bytes([term]) * (5_000 if term % 3 else 50)
            journal.commit([Write(REPLICA.replica, HardState(term, 7, 0), term, [term], [entry])])
            self.ends.append(written(log))
        self.database, self.log = (directory / FILE_NAME).read_bytes(), log.read_bytes()[: self.ends[-1]]
        journal.close()

    def left(self, directory: Path, log: bytes) -> StoredLog:
        """What a node finds there that starts with such a log. Raises JournalDamaged."""
        directory.mkdir(exist_ok=True)
        (directory / FILE_NAME).write_bytes(self.database)
        (directory / f"{FILE_NAME}-wal").write_bytes(log)
        journal = SqliteJournal(directory)
        try:
            return journal.load(REPLICA.replica)
        finally:
            journal.close()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return Crashed(tmp_path_factory.mktemp("crashed") / "node")


def flipped(log: bytes, bit: int) -> bytes:
    damaged = bytearray(log)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_bit_that_flips_before_the_last_commit_is_named(crashed: Crashed, tmp_path_factory, data: st.DataObject):
    bit = data.draw(st.integers(0, 8 * crashed.ends[-2] - 1))
    directory = tmp_path_factory.mktemp("rot")
    log = flipped(crashed.log, bit)
    for _ in range(2):  # A refusal leaves everything as it is.
        with pytest.raises(JournalDamaged, match=r"journal\.sqlite3-wal: (frame \d+|the header) does not match"):
            crashed.left(directory, log)
        assert (directory / f"{FILE_NAME}-wal").read_bytes() == log


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_log_that_a_crash_has_cut_is_taken_up_to_its_last_whole_commit(
    crashed: Crashed, tmp_path_factory, data: st.DataObject
):
    at = data.draw(st.integers(crashed.ends[0], len(crashed.log)))
    torn = crashed.log[:at] + bytes(data.draw(st.integers(0, len(crashed.log) - at)))
    stored = crashed.left(tmp_path_factory.mktemp("torn"), torn)
    assert len(stored.entries) == 1 + sum(end <= at for end in crashed.ends[1:])
    assert stored.hard_state.term == max(1, len(stored.entries))


@given(pages=st.sets(st.integers(0, 4)))
@settings(max_examples=32, deadline=None)
def test_of_the_last_commit_any_pages_may_be_missing(crashed: Crashed, tmp_path_factory, pages: set[int]):
    """The disk writes them in any order."""
    size = 24 + 4_096
    log = bytearray(crashed.log)
    for page in pages:
        at = crashed.ends[-2] + page * size
        log[at : min(at + size, len(log))] = bytes(max(0, min(size, len(log) - at)))
    assert len(crashed.left(tmp_path_factory.mktemp("torn"), bytes(log)).entries) in (COMMITS, COMMITS + 1)


def test_what_one_crash_left_half_written_is_no_rot_after_the_next(crashed: Crashed, tmp_path: Path):
    """The last commit without its first page; a commit that is shorter takes its place; and the node dies again."""
    torn = bytearray(crashed.log)
    torn[crashed.ends[-2] : crashed.ends[-2] + 100] = bytes(100)
    (tmp_path / FILE_NAME).write_bytes(crashed.database)
    log = tmp_path / f"{FILE_NAME}-wal"
    log.write_bytes(bytes(torn))
    journal = SqliteJournal(tmp_path)
    assert len(journal.load(REPLICA.replica).entries) == COMMITS
    journal.commit([Write(REPLICA.replica, HardState(COMMITS + 1, 7, 0), COMMITS + 1, [COMMITS + 1], [b"\x01b"])])
    again = tmp_path / "again"
    again.mkdir()
    (again / FILE_NAME).write_bytes((tmp_path / FILE_NAME).read_bytes())
    (again / log.name).write_bytes(log.read_bytes())
    journal.close()
    assert SqliteJournal(again).load(REPLICA.replica).entries[-1] == b"\x01b"


def test_a_log_has_its_room_before_it_needs_it_and_a_crash_leaves_that_behind(tmp_path: Path):
    journal = SqliteJournal(tmp_path)
    log = tmp_path / f"{FILE_NAME}-wal"
    assert log.stat().st_size == ROOM_BYTES
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    journal.load(REPLICA.replica)
    for index in range(2, 300):
        journal.commit([Write(REPLICA.replica, HardState(1, 7, 0), index, [1], [b"\x01"])])
    assert log.stat().st_size == ROOM_BYTES
    again = tmp_path / "again"
    again.mkdir()
    (again / FILE_NAME).write_bytes((tmp_path / FILE_NAME).read_bytes())
    (again / log.name).write_bytes(log.read_bytes())
    journal.close()
    assert len(SqliteJournal(again).load(REPLICA.replica).entries) == 299
    log.write_bytes(bytes(ROOM_BYTES))  # Of a node that died before it wrote anything.
    assert len(SqliteJournal(tmp_path).load(REPLICA.replica).entries) == 299


def test_a_disk_without_room_for_it_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coordinator.replica.wal.os.write", full)
    SqliteJournal(tmp_path).admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))


def filled(directory: Path, size: int) -> SqliteJournal:
    """A journal whose database has about so many bytes, and a log that was begun anew since."""
    journal = SqliteJournal(directory)
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    entry = b"\x01" + bytes(100_000)
    journal.commit([write(2, *[entry] * (size // len(entry)))])
    journal.close()
    journal = SqliteJournal(directory)
    journal.load(REPLICA.replica)
    return journal


def write(index: int, *entries: bytes) -> Write:
    return Write(REPLICA.replica, HardState(1, 0, 0), index, [1] * len(entries), [*entries])


def write_on(journal: SqliteJournal, indices: range) -> None:
    """And look at the log, as a node does it each second."""
    for index in indices:
        journal.commit([write(index, b"\x01" + bytes(50_000))])
        journal.check_log()


def test_a_database_that_takes_nothing_from_its_log_any_more_is_told_and_does_not_let_the_log_grow(tmp_path: Path):
    """SQLite keeps that to itself: the commits are in the log, and on disk."""
    journal = filled(tmp_path, 2 * ROOM_BYTES)
    size = (tmp_path / FILE_NAME).stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # The log, which is half as long, may still grow.
    try:
        with pytest.raises(JournalFailed, match=r"journal\.sqlite3: (disk I/O error|database or disk is full)"):
            write_on(journal, range(100, 1_000))
        assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size < 1.1 * ROOM_BYTES
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.close()


def test_a_log_that_has_grown_for_another_reason_is_no_failure(tmp_path: Path):
    journal = filled(tmp_path, 0)
    journal.commit([write(2, b"\x01" + bytes(2 * ROOM_BYTES))])
    journal.check_log()
    reading = journal._db.execute("SELECT replica FROM batches")
    assert reading.fetchone(), "as where a replica is being loaded"
    write_on(journal, range(3, 300))
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size > 3 * ROOM_BYTES
    reading.close()
    journal.close()


def test_a_disk_that_fails_as_the_log_is_given_its_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("coordinator.replica.wal.os.fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        SqliteJournal(tmp_path)


def test_no_log_and_one_that_begins_anew_are_no_damage(crashed: Crashed, tmp_path: Path):
    log = tmp_path / "wal"
    assert rotten_frame(log) == -1
    log.write_bytes(b"")
    assert rotten_frame(log) == -1
    new = bytearray(crashed.log)
    new[16:24] = b"othersalt"[:8]  # The header of a log that begins anew, torn, before the frames of the last one.
    log.write_bytes(bytes(new))
    assert rotten_frame(log) == -1


def test_salts_that_have_rotted_do_not_hide_the_commit_behind_them(tmp_path: Path):
    """Of commits that are one frame each: SQLite ends before the first, and it ended a transaction."""
    journal = SqliteJournal(tmp_path)
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 7, 0), [1], [b"\x02first"]))
    journal.load(REPLICA.replica)
    log = tmp_path / f"{FILE_NAME}-wal"
    for index in range(2, 6):
        before = written(log)
        journal.commit([Write(REPLICA.replica, HardState(1, 7, 0), index, [1], [b"\x01"])])
    assert written(log) - before == 24 + 4_096
    data = log.read_bytes()[: written(log)]
    journal.close()
    rotten = tmp_path / "rotten"
    for bit in range(8 * (before - 4_096 - 24 + 8), 8 * (before - 4_096 - 24 + 16)):
        rotten.write_bytes(flipped(data, bit))
        assert rotten_frame(rotten) == before // 4_120, bit
    rotten.write_bytes(flipped(data, 8 * (before + 8)))
    assert rotten_frame(rotten) == -1, "of the last one: a torn write"


# --- a log that is lost -------------------------------------------------------------------------


def copied(source: Path, target: Path) -> Path:
    """What a process that dies now would leave."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def running(directory: Path) -> SqliteJournal:
    directory.mkdir(exist_ok=True)
    journal = SqliteJournal(directory)
    journal.admit(REPLICA, 1, StoredLog(HardState(1, 0, 1), [1], [b"\x02first"]))
    journal.load(REPLICA.replica)
    return journal


HARMS: Final = {
    "deleted": (Path.unlink, "is gone"),
    "empty": (lambda log: log.write_bytes(b""), "has 0 bytes, and had"),
    "cut": (lambda log: log.write_bytes(log.read_bytes()[:40_000]), "has 40000 bytes, and had"),
    "zeros": (lambda log: log.write_bytes(bytes(ROOM_BYTES)), "is empty"),
    "no first block": (lambda log: log.write_bytes(bytes(512) + log.read_bytes()[512:]), "is empty"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_log_that_was_lost_is_named(tmp_path: Path, harm: str):
    journal = running(tmp_path / "node")
    journal.commit([Write(REPLICA.replica, HardState(5, 7, 0), 2, [5], [b"\x01"])])
    left = copied(tmp_path / "node", tmp_path / "left")
    journal.close()
    does_harm, complaint = HARMS[harm]
    does_harm(left / f"{FILE_NAME}-wal")
    before = {file.name: file.read_bytes() for file in left.iterdir()}
    for _ in range(2):
        with pytest.raises(
            JournalDamaged, match=f"journal.sqlite3-wal: {complaint}.*; what was on disk there is not in"
        ):
            SqliteJournal(left)
    assert {file.name: file.read_bytes() for file in left.iterdir()} == before, "a refusal leaves everything as it is"


def _fails_as_the_log_is_moved(patched: pytest.MonkeyPatch) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *arguments)

    connect = partial(sqlite3.connect, factory=Failing)
    patched.setattr(journals, "sqlite3", SimpleNamespace(**vars(sqlite3) | {"connect": connect}))


def _fails_as_the_mark_goes(patched: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        patched.undo()
        raise OSError(errno.EIO, "Input/output error")

    patched.setattr(journals, "mark_closed", fails)


def _fails_behind_the_mark(patched: pytest.MonkeyPatch) -> None:
    def fails(mark: Path, log: Path) -> None:
        mark_open(mark, log)
        raise OSError(errno.EIO, "Input/output error")

    patched.setattr(journals, "mark_open", fails)


@pytest.mark.interpreted
@pytest.mark.parametrize("fault", [_fails_as_the_log_is_moved, _fails_as_the_mark_goes, _fails_behind_the_mark])
@pytest.mark.parametrize("was", ["killed", "closed"])
def test_a_disk_that_fails_for_a_moment_as_a_journal_is_opened_is_no_lost_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was: str, fault: Callable[[pytest.MonkeyPatch], None]
):
    """Once it was given up, SQLite put the log into the database and deleted it, and the mark stayed: from then on the
    journal was called damaged, and was to be moved away."""
    journal = running(tmp_path / "node")
    journal.commit([Write(REPLICA.replica, HardState(5, 7, 0), 2, [5], [b"\x01"])])
    killed = copied(tmp_path / "node", tmp_path / "killed")
    journal.close()
    left = killed if was == "killed" else tmp_path / "node"
    with monkeypatch.context() as patched:
        fault(patched)
        with pytest.raises((JournalUnusable, OSError)):
            SqliteJournal(left)
    with closing(SqliteJournal(left)) as again:
        assert again.load(REPLICA.replica).hard_state == HardState(5, 7, 0)


def test_a_mark_that_could_not_be_taken_away_as_a_journal_was_closed_is_no_lost_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = running(tmp_path)
    _fails_as_the_mark_goes(monkeypatch)
    journal.close()
    assert not (tmp_path / MARK_NAME).exists()
    SqliteJournal(tmp_path).close()


GONE: Final = {"deleted": Path.unlink, "emptied": lambda database: os.truncate(database, 0)}


@pytest.mark.parametrize("left_file", [MARK_NAME, f"{FILE_NAME}-wal", "snapshots/1-2-3.snapshot"])
@pytest.mark.parametrize("harm", GONE)
def test_a_database_that_is_gone_does_not_take_along_what_is_left(tmp_path: Path, harm: str, left_file: str):
    """SQLite deleted the log, and a new journal the snapshots. Whoever then put the database back, which somebody had
    moved, had a node that forgot its votes: nothing said that a log was missing."""
    journal = running(tmp_path / "node")
    journal.commit([Write(REPLICA.replica, HardState(5, 7, 0), 2, [5], [b"\x01"])])
    left = copied(tmp_path / "node", tmp_path / "left")
    journal.close()
    (left / "snapshots").mkdir()
    (left / "snapshots" / "1-2-3.snapshot").write_bytes(b"CONCLAVE-SNAPSHOT 1\n")
    for name in {MARK_NAME, f"{FILE_NAME}-wal", "snapshots/1-2-3.snapshot"} - {left_file}:
        (left / name).unlink()
    database = (left / FILE_NAME).read_bytes()
    GONE[harm](left / FILE_NAME)
    before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=f"{FILE_NAME} is gone or empty, and .*{left_file} is there"):
            SqliteJournal(left)
    assert {path: path.read_bytes() for path in left.rglob("*") if path.is_file()} == before
    (left / FILE_NAME).write_bytes(database)
    if left_file == f"{FILE_NAME}-wal":
        with closing(SqliteJournal(left)) as again:
            assert again.load(REPLICA.replica).hard_state == HardState(5, 7, 0)


@pytest.mark.parametrize("name", [FILE_NAME, f"{FILE_NAME}-wal"])
def test_a_link_in_place_of_a_file_hides_no_log(tmp_path: Path, name: str):
    """SQLite looks for the log where the link leads to. Of a node that was killed, whose database somebody put on
    another disk, it saw none: votes and entries were forgotten, and the log beside the link was taken for that one."""
    journal = running(tmp_path / "node")
    journal.commit([Write(REPLICA.replica, HardState(5, 7, 0), 2, [5], [b"\x01"])])
    left = copied(tmp_path / "node", tmp_path / "left")
    journal.close()
    elsewhere = tmp_path / "elsewhere"
    (left / name).rename(elsewhere)
    (left / name).symlink_to(elsewhere)
    before = {file.name: file.read_bytes() for file in left.iterdir()}
    with pytest.raises(OSError, match=f"expected a file, and no link to one elsewhere.*{name}"):
        SqliteJournal(left)
    assert {file.name: file.read_bytes() for file in left.iterdir()} == before
    (left / name).unlink()
    elsewhere.rename(left / name)
    (tmp_path / "link").symlink_to(left)
    with closing(SqliteJournal(tmp_path / "link")) as again:
        assert again.load(REPLICA.replica).hard_state == HardState(5, 7, 0)


def test_without_a_mark_a_first_block_of_zeros_is_rot(crashed: Crashed, tmp_path: Path):
    """As of a version that made none. A header is on disk before the first frame behind it, so no crash leaves that."""
    for size in (512, 4_096):
        with pytest.raises(JournalDamaged, match="the header does not match"):
            crashed.left(tmp_path, bytes(size) + crashed.log[size:])


@pytest.mark.parametrize("size", [24, 512, 4_096])
def test_a_first_block_that_is_no_header_is_rot(crashed: Crashed, tmp_path: Path, size: int):
    """As where another block was written there: SQLite takes no log for that, and says nothing."""
    log = bytes(at % 251 for at in range(size)) + crashed.log[size:]
    with pytest.raises(JournalDamaged, match="the header does not match"):
        crashed.left(tmp_path, log)
    assert (tmp_path / f"{FILE_NAME}-wal").read_bytes() == log


@pytest.mark.parametrize("size", [32, 512, 4_096])
def test_a_first_block_of_an_earlier_log_is_rot(tmp_path: Path, size: int):
    """A write of the disk that was lost: the header checks, and what is behind it is of a log that began later."""
    journal = running(tmp_path / "node")
    log = tmp_path / "node" / f"{FILE_NAME}-wal"
    blocks = [log.read_bytes()[:size]]
    index = 6
    while len(blocks) < 4:
        journal.commit([Write(REPLICA.replica, HardState(5, 7, 0), index, [5], [bytes(1 << 19)])])
        index += 1
        if (block := log.read_bytes()[:size])[:32] != blocks[-1][:32]:
            blocks.append(block)
    left = copied(tmp_path / "node", tmp_path / "left")
    journal.close()
    whole = (left / log.name).read_bytes()
    assert rotten_frame(left / log.name) == -1
    for block in blocks[:-1]:
        (left / log.name).write_bytes(block + whole[size:])
        with pytest.raises(JournalDamaged, match="the header does not match"):
            SqliteJournal(left)


def test_a_mark_that_has_rotted_still_asks_for_a_log(tmp_path: Path):
    journal = running(tmp_path / "node")
    left = copied(tmp_path / "node", tmp_path / "left")
    journal.close()
    (left / MARK_NAME).write_bytes(b"\xff")
    SqliteJournal(copied(left, tmp_path / "whole")).close()
    (left / f"{FILE_NAME}-wal").unlink()
    with pytest.raises(JournalDamaged, match="is gone"):
        SqliteJournal(left)


@pytest.mark.interpreted
def test_wherever_a_process_dies_its_log_is_not_taken_for_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before and after each step by which a journal is opened and closed, over what the one before left."""
    left: list[Path] = []
    source = tmp_path / "node"

    def watched(name: str) -> None:
        step = getattr(journals, name)

        def dying(*arguments: object) -> object:
            left.append(copied(source, tmp_path / f"{len(left)}-{name}-before"))
            result = step(*arguments)
            left.append(copied(source, tmp_path / f"{len(left)}-{name}-after"))
            return result

        monkeypatch.setattr(journals, name, dying)

    running(source).close()
    steps = ("mark_closed", "make_room", "mark_open")
    for name in steps:
        watched(name)
    for index in range(2, 5):
        journal = SqliteJournal(source)
        journal.load(REPLICA.replica)
        journal.commit([Write(REPLICA.replica, HardState(index, 7, 0), index, [index], [b"\x01"])])
        if index == 3:  # This one is killed.
            copied(source, tmp_path / "killed")
            source = tmp_path / "killed"
        else:
            journal.close()
    monkeypatch.undo()
    assert {path.name.split("-")[1] for path in left} == {*steps}
    for path in left:
        again = SqliteJournal(path)
        stored = again.load(REPLICA.replica)
        again.close()
        assert len(stored.entries) >= 1
        assert stored.hard_state.term == len(stored.entries)
    assert not (source / MARK_NAME).exists(), "it was closed"


@pytest.mark.interpreted
def test_the_mark_of_a_node_that_died_goes_when_the_database_has_all_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without it a log that is gone is no damage: whoever dies right then must not need it any more."""
    journal = running(tmp_path / "node")
    journal.commit([Write(REPLICA.replica, HardState(2, 7, 0), 2, [2], [b"\x01"])])
    killed = copied(tmp_path / "node", tmp_path / "killed")
    journal.close()
    left: list[Path] = []

    def watched(mark: Path) -> None:
        mark_closed(mark)
        left.append(copied(killed, tmp_path / f"left-{len(left)}"))

    monkeypatch.setattr(journals, "mark_closed", watched)
    SqliteJournal(killed).close()
    (left[0] / f"{FILE_NAME}-wal").unlink()
    again = SqliteJournal(left[0])
    assert again.load(REPLICA.replica).hard_state == HardState(2, 7, 0)
    again.close()


def test_a_full_disk_keeps_no_mark_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journals, "mark_open", full)
    running(tmp_path).close()
    assert not (tmp_path / MARK_NAME).exists()


@pytest.mark.interpreted
def test_a_journal_that_had_no_room_for_its_mark_gets_it_once_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a log that is gone passed for one that never was, for as long as that process lives."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "mark_open", full)
        journal = running(tmp_path)
        journal.check_log()
    assert not (tmp_path / MARK_NAME).exists()
    journal.check_log()
    assert (tmp_path / MARK_NAME).exists()
    left = tmp_path / "left"
    left.mkdir()
    for name in (FILE_NAME, MARK_NAME):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(JournalDamaged, match="is gone"):
        SqliteJournal(left)
    journal.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("of", ["statement", "mark"])
def test_a_disk_that_fails_as_the_journal_is_marked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str):
    """It is not tried again on the same handle (docs/design.md, rule 3)."""

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if "'opened'" in sql and "INSERT" in sql:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return super().execute(sql, *arguments)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    if of == "mark":
        monkeypatch.setattr(journals, "mark_open", fails)
    else:
        connect = partial(sqlite3.connect, factory=Failing)
        monkeypatch.setattr(journals, "sqlite3", SimpleNamespace(**vars(sqlite3) | {"connect": connect}))
    with pytest.raises((JournalDamaged, OSError), match=r"(disk I/O|Input/output) error"):
        SqliteJournal(tmp_path)
