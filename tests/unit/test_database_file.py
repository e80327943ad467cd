"""A database in a file that DATABASE_URL names is used as the one in the data directory is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.db.utils import ConnectionHandler

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


def test_what_the_address_says_goes_before() -> None:
    assert database_at("sqlite:////var/lib/db.sqlite3")["OPTIONS"]["timeout"] == DATABASE_BUSY_S_MAX
    assert database_at("sqlite:////var/lib/db.sqlite3?timeout=7")["OPTIONS"]["timeout"] == 7


def test_a_file_without_a_directory_is_the_same_one_wherever_a_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_at("sqlite:///db.sqlite3")["NAME"] == str(PROJECT / "db.sqlite3")
    assert database_at("sqlite:////var/lib/db.sqlite3")["NAME"] == "/var/lib/db.sqlite3"
