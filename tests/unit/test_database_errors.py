"""A database without tables is told from one that cannot be used, and what to do is said in the same line."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InternalError, OperationalError, ProgrammingError

from coordinator.database_errors import in_words, is_of_the_database
from coordinator.management.commands import cluster

WHAT_TO_DO = "to make them, run `python manage.py migrate` first"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("no such table: conclave_cluster"),
        OperationalError("no such column: conclave_node.zone"),
        ProgrammingError('relation "conclave_cluster" does not exist\nLINE 1: SELECT ...\n   ^'),
        ProgrammingError("column conclave_node.zone does not exist\nLINE 1: SELECT ..."),
        ProgrammingError(1146, "Table 'name.conclave_cluster' doesn't exist"),
        DatabaseError("ORA-00942: table or view does not exist"),
    ],
)
def test_a_database_without_tables_is_to_be_migrated(error: DatabaseError) -> None:
    line = in_words(error)
    assert line.startswith("the database lacks tables (")
    assert line.endswith(WHAT_TO_DO)
    assert "\n" not in line


def test_a_server_that_speaks_another_language_is_understood() -> None:
    class UndefinedTable(Exception):
        sqlstate = "42P01"

    error = ProgrammingError("Relation »conclave_cluster« existiert nicht")
    error.__cause__ = UndefinedTable()
    assert in_words(error).endswith(WHAT_TO_DO)


@pytest.mark.parametrize(
    ("code", "is_so"),
    [
        ("25006", True),  # cannot execute INSERT in a read-only transaction
        ("42501", True),  # permission denied for table auth_user
        ("XX001", True),  # invalid page in block 0 of relation base/5/1259
        ("25P02", False),  # current transaction is aborted, commands ignored until end of transaction block
        ("42601", False),  # syntax error
    ],
)
def test_a_server_that_takes_no_writes_is_no_mistake_of_whoever_asked_it(code: str, is_so: bool) -> None:
    class Refused(Exception):
        sqlstate = code

    error = InternalError("as the server says it")
    error.__cause__ = Refused()
    assert is_of_the_database(error) is is_so


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OperationalError("database is locked"), "the database cannot be used: database is locked"),
        (
            OperationalError("connection failed: refused\n\tIs it running?"),
            "the database cannot be used: connection failed: refused",
        ),
        (OperationalError('database "x" does not exist'), 'the database cannot be used: database "x" does not exist'),
        (OperationalError(), "the database cannot be used: OperationalError"),
    ],
)
def test_anything_else_is_said_as_it_is(error: DatabaseError, line: str) -> None:
    assert in_words(error) == line


@pytest.mark.parametrize(
    "arguments",
    [
        ["rebuild", "default"],
        ["move", "default", "node1", "node4"],
        ["zone", "node1", "east"],
    ],
)
def test_every_cluster_command_says_what_to_do_about_a_database_without_tables(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_table(*_: Any, **__: Any) -> Any:
        raise OperationalError("no such table: conclave_cluster")

    for name in ("_cluster", "_zone", "_rebuild", "_move"):
        monkeypatch.setattr(cluster.Command, name, no_table)
    with pytest.raises(CommandError, match="^the database lacks tables .*" + WHAT_TO_DO):
        call_command("cluster", *arguments)
