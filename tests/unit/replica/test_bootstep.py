"""A worker that can not host its node says why, and what to do, in the line with which it ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.replica import bootstep, sums
from coordinator.replica.bootstep import NodeStep, queue_of
from coordinator.replica.directory import DirectoryHeld
from coordinator.replica.journal import FILE_NAME, SqliteJournal
from coordinator.replica.stored import JournalDamaged

DIRECTORY = Path("/data/nodes/node1")


def _ends_with(monkeypatch: pytest.MonkeyPatch, error: Exception, directory: Path = DIRECTORY) -> str:
    """What the worker says whose host raises this."""

    def host(_: Any) -> Any:
        raise error

    class Step(NodeStep):
        settings = staticmethod(lambda: SimpleNamespace(node="node1", directory=directory))  # type: ignore[assignment]

    monkeypatch.setattr(bootstep, "Host", host)
    queues = SimpleNamespace(consume_from=[queue_of("node1")])
    pool: Any = type("TaskPool", (), {"__module__": "celery.concurrency.solo"})
    worker = SimpleNamespace(pool_cls=pool, app=SimpleNamespace(amqp=SimpleNamespace(queues=queues)))
    with pytest.raises(SystemExit) as ended:
        Step(SimpleNamespace(steps=[])).create(worker)
    line = str(ended.value)
    assert line.startswith("this worker can not host its node: ")
    assert "\n" not in line
    return line


def test_a_damaged_journal_is_to_be_moved_away_and_no_older_copy_put_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 1000)
    with pytest.raises(JournalDamaged) as damaged:
        SqliteJournal(tmp_path)
    line = _ends_with(monkeypatch, damaged.value, tmp_path)
    assert f"{damaged.value}. Move {tmp_path} away" in line
    assert "never put an older copy back" in line
    assert "docs/journal.md" in line


@pytest.mark.parametrize(
    "error", [DirectoryHeld("it is held by another process"), OSError(28, "No space left on device")]
)
def test_a_journal_that_is_not_damaged_is_to_be_left_where_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert _ends_with(monkeypatch, error) == f"this worker can not host its node: {error}"


def test_what_sqlite_says_in_lines_is_said_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    line = _ends_with(monkeypatch, JournalDamaged("journal.sqlite3: *** in database main ***\nPage 2: damaged"))
    assert "*** in database main *** Page 2: damaged. Move /data/nodes/node1 away" in line


@pytest.mark.interpreted
@pytest.mark.parametrize("said", ["database or disk is full", "disk I/O error", "database is locked"])
@pytest.mark.parametrize("statement", ["PRAGMA wal_checkpoint", "PRAGMA quick_check", "SELECT * FROM epochs"])
def test_a_journal_that_could_not_be_read_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, statement: str, said: str
) -> None:
    """Nor by what is compiled, where an error has no cause that could be asked for."""

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql.startswith(statement):
                raise sqlite3.OperationalError(said)
            return super().execute(sql, *arguments)

    SqliteJournal(tmp_path).close()
    connect = partial(sqlite3.connect, factory=Failing)
    monkeypatch.setattr("coordinator.replica.journal.sqlite3", SimpleNamespace(**vars(sqlite3) | {"connect": connect}))
    with pytest.raises(JournalDamaged) as error:
        SqliteJournal(tmp_path).epochs()
    error.value.__cause__ = None
    expected = f"this worker can not host its node: {tmp_path / FILE_NAME}: {said}"
    assert _ends_with(monkeypatch, error.value) == expected


def test_a_journal_of_another_version_or_another_node_is_not_to_be_moved_away_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    SqliteJournal(tmp_path, "node1").close()
    with pytest.raises(JournalDamaged) as error:
        SqliteJournal(tmp_path, "node2")
    assert _ends_with(monkeypatch, error.value).endswith("node2's is to be: put it back where it belongs")
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as database:
        database.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
        sums.put(database, "meta", "format", "2")
    with pytest.raises(JournalDamaged) as error:
        SqliteJournal(tmp_path, "node1")
    line = _ends_with(monkeypatch, error.value)
    assert line.endswith("expected format 1, got 2: another version of Conclave wrote it, and can read it")


def test_a_journal_that_can_not_be_opened_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(sqlite3.Error) as error:
        SqliteJournal(tmp_path)
    assert "unable to open database file" in _ends_with(monkeypatch, error.value)
