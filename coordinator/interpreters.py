"""Which Python the virtual environment is made of.

    python -I coordinator/interpreters.py

prints the path of one, and on standard error, where it is not the first in PATH, why.

A node is slower by as much as its Python is, and one built from its source with a shared library and without its
profile, as some tools do it, is clearly slower than the same version as distributions build it: each call from one
function of the interpreter to another goes by a table (docs/performance.md, Which Python). If the first in PATH is such
a one and another is not, that one is taken.

A file that stands alone: it runs before there is a virtual environment, by any Python that is new enough.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

NAMES: Final = ("python3.12", "python3.11", "python3", "python3.13", "python3.14", "python")
"""3.12 and 3.11 come before newer ones because the Redis that comes along, for machines without one, is built for
them."""
OLDEST: Final = (3, 11)
NEWEST_WITH_REDIS: Final = (3, 12)
ANSWER_S_MAX: Final = 20.0

_QUESTION: Final = """
import ensurepip, json, os, sqlite3, ssl, sys, sysconfig, venv

try:
    with open("/proc/self/maps") as maps:
        is_shared = "libpython" in maps.read()
except OSError:
    is_shared = False
print(json.dumps({
    "real_path": os.path.realpath(sys.executable),
    "version": sys.version_info[:2],
    "compiles": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "is_slow": is_shared and "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
}))
"""


class Interpreter(NamedTuple):
    """One that can make a virtual environment. `real_path` is the same for all names of one; `compiles`: its headers
    are there."""

    path: str
    real_path: str
    version: tuple[int, int]
    compiles: bool
    is_slow: bool


def chosen(found: Sequence[Interpreter]) -> Interpreter:
    """The first of `found`, unless it is slow: then the first that is not, is no newer than what the Redis that comes
    along is built for or than the first, and compiles if the first does."""
    first = found[0]
    newest = max(first.version, NEWEST_WITH_REDIS)
    others = (one for one in found if not one.is_slow and one.version <= newest and one.compiles >= first.compiles)
    return next(others, first) if first.is_slow else first


def paths(directories: Iterable[str]) -> list[str]:
    """Where a Python may be: the names that come first in all directories before the next name."""
    where = [directory for directory in directories if directory]
    return [path for name in NAMES for each in where if os.access(path := os.path.join(each, name), os.X_OK)]


def ask(path: str) -> Interpreter | None:
    """What runs at `path`; None if that is no Python, too old, has no venv, or is a shim that pretends to be one."""
    try:
        answered = subprocess.run(
            [path, "-I", "-c", _QUESTION], capture_output=True, check=True, timeout=ANSWER_S_MAX, text=True
        )
        found = Interpreter(path, **json.loads(answered.stdout))
        major, minor = found.version
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None
    return found._replace(version=(major, minor)) if (major, minor) >= OLDEST else None


def main() -> None:
    found: dict[str, Interpreter] = {}
    for path in paths(os.get_exec_path()):
        one = ask(path)
        if one is not None:
            found.setdefault(one.real_path, one)
    if not found:
        sys.exit(1)
    first, taken = next(iter(found.values())), chosen([*found.values()])
    if taken is not first:
        print(f"{taken.path} is taken: {first.real_path} was built without its profile and is slower", file=sys.stderr)
    print(taken.path)


if __name__ == "__main__":
    main()
