"""Names of keys and locks, of principals and of tokens: which are fit."""

from __future__ import annotations

import re
from typing import Final

NAME_BYTES_MAX: Final = 512
TOKEN_ID: Final = re.compile(r"[0-9a-f]{16}")
PRINCIPAL_NAME: Final = re.compile(r"(user:)?[A-Za-z0-9][A-Za-z0-9._@+-]{0,149}")
"""What `manage.py token NAME` may create. Names that begin with `user:` are the web tier's own, one for each Django
user whose name these characters spell."""


def canonical_name(name: object) -> str:
    """A key's or lock's name as the cluster keeps it: without one leading slash.

    Raises ValueError, saying what was expected and what came.
    """
    if not isinstance(name, str):
        raise ValueError(f"a name is a str of 1 to {NAME_BYTES_MAX} bytes, not {type(name).__name__}")
    bare = name.removeprefix("/")
    problem = name_problem(bare)
    if problem:
        raise ValueError(problem)
    return bare


def name_problem(name: str) -> str | None:
    """Why `name` is not a canonical name; None where it is one."""
    if 0 < len(name) <= NAME_BYTES_MAX and name.isascii() and name.isprintable() and name[0] != "/":
        return None  # What most names are. Of ASCII, every version of Python has the same opinion.
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "a name is valid Unicode; this one holds a lone surrogate"
    if not 1 <= size <= NAME_BYTES_MAX:
        return f"a name has 1 to {NAME_BYTES_MAX} bytes, this one has {size}"
    if name.startswith("/"):
        return "a name does not begin with two slashes"
    unfit = _UNFIT.search(name)
    if unfit:
        return f"a name holds no control characters and no line breaks, got U+{ord(unfit[0]):04X}"
    return None


_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Spelled out, since replicas on different versions of Python must judge alike, and their Unicode tables do not."""
