"""What went wrong with the database, in a line for whoever runs the installation."""

from __future__ import annotations

import re
from typing import Final, TypeGuard

from django.db import DatabaseError, InterfaceError, OperationalError

_NO_TABLES: Final = re.compile(
    r"no such (table|column)"  # SQLite
    r"|(relation|column) .* does not exist"  # PostgreSQL
    r"|table .* doesn't exist|unknown column"  # MySQL
    r"|ORA-00942|ORA-00904",
    re.IGNORECASE,
)

_DAMAGED: Final = re.compile(r"disk image is malformed|file is not a database")
"""SQLite's words for a file that it can not believe."""

_NO_TABLES_CODES: Final = frozenset({"42P01", "42703"})
"""Of PostgreSQL, which says it in the language of its server."""


_OF_THE_SERVER: Final = re.compile(r"25006|42501|XX")
"""Of PostgreSQL: it takes no writes (as a standby, or one that was told to), does not let our role, is in trouble
itself. Django gives none of these the class of a database that can not be used."""


def _code(error: Exception) -> str:
    """PostgreSQL's own for what went wrong; "" of another database."""
    return getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None) or ""


def lacks_tables(error: DatabaseError | InterfaceError) -> bool:
    """Whether the database is there, and its tables or columns are not: a new one, or one of an older version."""
    return _code(error) in _NO_TABLES_CODES or _NO_TABLES.search(str(error)) is not None


def is_of_the_database(error: Exception) -> TypeGuard[DatabaseError | InterfaceError]:
    """Whether it is the database that can not be used, and no mistake of whoever asked it. What SQLite says of a file
    that is damaged has no class of its own."""
    if isinstance(error, (OperationalError, InterfaceError)):
        return True
    if not isinstance(error, DatabaseError):
        return False
    if lacks_tables(error) or _OF_THE_SERVER.match(_code(error)):
        return True
    return type(error) is DatabaseError and error.__cause__ is not None


def in_words(error: DatabaseError | InterfaceError) -> str:
    """One line, with what to do where that is known."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if lacks_tables(error):
        return f"the database lacks tables ({said}); to make them, run `python manage.py migrate` first"
    return f"the database cannot be used: {said}{what_to_do(error)}"


def what_to_do(error: DatabaseError | InterfaceError) -> str:
    """Behind what is said of a file that is damaged; else ""."""
    return "; a file that is damaged: see docs/database.md" if _DAMAGED.search(str(error)) else ""
