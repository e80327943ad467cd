"""A database in a file that DATABASE_URL names is used as the one in the data directory is."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError
from django.db.utils import ConnectionHandler

from coordinator import database_errors, setting_up
from coordinator.config import PROJECT
from coordinator.settings import DATABASE_BUSY_S_MAX, database_at


def test_who_reads_and_then_writes_is_waited_for_before_anything_is_read(
    tmp_path: Path, django_db_blocker: Any
) -> None:
    """Two that have both read could neither write any more: one is refused at once, whatever its patience."""
    url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    connections = ConnectionHandler({"default": database_at(url), "impatient": database_at(f"{url}?timeout=0")})
    one, other = connections["default"], connections["impatient"]
    with django_db_blocker.unblock():
        one.cursor().execute("CREATE TABLE counted (number)")
        one.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
        one.cursor().execute("SELECT number FROM counted").fetchall()
        assert other.cursor().execute("SELECT number FROM counted").fetchall() == []
        with pytest.raises(OperationalError, match="locked"):
            other.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
        one.cursor().execute("INSERT INTO counted VALUES (1)")
        one.commit()
        assert other.cursor().execute("SELECT number FROM counted").fetchall() == [(1,)]
        connections.close_all()


@pytest.mark.parametrize("kept", [0, 100])
def test_a_file_that_is_damaged_is_said_in_a_line_with_what_to_do(
    tmp_path: Path, django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """SQLite's errors of it have no class of their own: `up` ended with a traceback, and pages said that the web
    process had made a mistake. `kept`: bytes of its beginning that are as they were."""
    path = tmp_path / "db.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE counted (number)")
    path.write_bytes(path.read_bytes()[:kept] + b"\xee" * 8_000)
    connections = ConnectionHandler({"default": database_at(f"sqlite:///{path}")})
    with django_db_blocker.unblock():
        with pytest.raises(DatabaseError) as caught:
            connections["default"].ensure_connection()
        assert database_errors.is_of_the_database(caught.value)
        assert database_errors.in_words(caught.value).endswith("; a file that is damaged: see docs/database.md")
        monkeypatch.setattr(setting_up, "connection", connections["default"])
        with pytest.raises(setting_up.SetUpError, match=r"db.sqlite3 .* cannot be used: .*: see docs/database.md"):
            setting_up.migrate()
        connections.close_all()


def test_what_the_address_says_goes_before() -> None:
    assert database_at("sqlite:////var/lib/db.sqlite3")["OPTIONS"]["timeout"] == DATABASE_BUSY_S_MAX
    assert database_at("sqlite:////var/lib/db.sqlite3?timeout=7")["OPTIONS"]["timeout"] == 7


def test_a_file_without_a_directory_is_the_same_one_wherever_a_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_at("sqlite:///db.sqlite3")["NAME"] == str(PROJECT / "db.sqlite3")
    assert database_at("sqlite:////var/lib/db.sqlite3")["NAME"] == "/var/lib/db.sqlite3"
