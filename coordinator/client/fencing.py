"""Fences: what a lock guards refuses whoever held the lock before.

A process can be paused for longer than its lease, between its last look at the lock and its write, and no lock service
can stop that write. What is written to can: it keeps the highest fencing token that it has seen, and refuses lower
ones. Here is how a file does that, and a row of a database; whatever else takes a condition with a write can do it too.

Nothing here needs a client, or the cluster: a token is a number that only ever grows for its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from coordinator.client.errors import ConclaveError, InvalidRequest, or_of_its_message

TOKEN_MAX: Final = 2**53 - 1
FIELD: Final = "fencing_token"
SUFFIX: Final = ".fence"


class Fenced(ConclaveError):
    """Refused, and nothing was written: somebody who held the lock later was there before. `highest`: the token that
    was seen, where that is known."""

    token = 0
    highest: int | None = None

    @or_of_its_message
    def __init__(self, what: str, token: int, highest: int | None) -> None:
        seen = "a higher one" if highest is None else str(highest)
        super().__init__(f"{what} has seen {seen}, and refuses the fencing token {token}")
        self.token = token
        self.highest = highest


class _Guard(NamedTuple):
    by: tuple[int, int]
    """The process and the thread."""
    token: int


_guards: dict[tuple[int, int], _Guard] = {}
"""By device and number of the locked file: who is within its guard. Of those, each changes its own alone."""


class FileFence:
    """Guards a file, or a directory, or whatever else the processes of one machine write: `path` only names it.

    The highest token is kept beside it, in `PATH.fence`, and is on the disk before anything is written under it. Who
    writes holds a lock of the operating system meanwhile (on `PATH.fence.lock`), which ends with its process: one that
    is paused in the middle of a write keeps others out until it goes on, and one that is paused before it is refused.
    (One that is killed in the middle of a write keeps them out until those have ended that it forked meanwhile.)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._kept = self.path.with_name(f"{self.path.name}{SUFFIX}")
        self._lock = self.path.with_name(f"{self.path.name}{SUFFIX}.lock")

    @property
    def highest(self) -> int:
        """The highest token that was seen; 0: none was. Raises ValueError where what is kept is no token."""
        try:
            return int(self._kept.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def guard(self, token: int) -> Iterator[None]:
        """For as long as a `with` takes, nobody with another token gets in. Its own thread does, by the same token.
        Raises Fenced where a higher one did."""
        token = _valid(token)
        with open(self._lock, "ab") as lock:
            file = os.fstat(lock.fileno())
            guarded = (file.st_dev, file.st_ino)
            mine = (os.getpid(), threading.get_ident())
            guard = _guards.get(guarded)
            if guard is not None and guard.by == mine:
                self._let_in(token, guard.token)
                yield
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._see(token)
                _guards[guarded] = _Guard(mine, token)
                yield
            finally:
                _guards.pop(guarded, None)
                # To close the file is not enough: a process that was forked meanwhile, by whatever thread, has it too.
                # That one lets go of nothing.
                if os.getpid() == mine[0]:
                    fcntl.flock(lock, fcntl.LOCK_UN)

    def _see(self, token: int) -> None:
        highest = self.highest
        if token < highest:
            raise Fenced(str(self.path), token, highest)
        if token > highest:
            _replace(self._kept, b"%d" % token)

    def _let_in(self, token: int, guarding: int) -> None:
        """Within a guard of this thread, which would wait for itself."""
        if token < guarding:
            raise Fenced(str(self.path), token, guarding)
        if token > guarding:
            raise InvalidRequest(
                f"this thread guards {self.path} by the token {guarding}, and can not by {token} as well"
            )

    def write(self, token: int, data: bytes) -> None:
        """Replace the content of the file, whole or not at all. Raises Fenced."""
        with self.guard(token):
            _replace(self.path, data)


class Rows(Protocol):
    """What a Django query set does: this module knows no Django."""

    def filter(self, **conditions: Any) -> Rows: ...

    def update(self, **values: Any) -> int: ...


def update_rows(rows: Rows, token: int, *, column: str = FIELD, **values: Any) -> int:
    """Update the rows of a query set whose `column` (a BigIntegerField that begins with 0) is not above `token`,
    and write the token along; how many that were. One statement, `UPDATE … SET …, fencing_token = T WHERE … AND
    fencing_token <= T`: no other write comes between the comparison and the update.

    Raises Fenced where there is no such row: all that were meant were written by a later holder, or are not there.
    """
    token = _valid(token)
    updated = rows.filter(**{f"{column}__lte": token}).update(**{column: token}, **values)
    if not updated:
        raise Fenced("every row that was meant", token, None)
    return updated


def _valid(token: int) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 < token <= TOKEN_MAX:
        raise InvalidRequest(f"a fencing token is a whole number from 1 to {TOKEN_MAX}, got {token!r}")
    return token


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, and on the disk when this returns. Who may read what is there may read what follows, and
    nobody else. Where `path` is a link, what it leads to is replaced."""
    path = path.resolve()
    whole = path.with_name(f"{path.name.removesuffix(SUFFIX)}{SUFFIX}.new")  # A name that is nobody else's.
    whole.unlink(missing_ok=True)  # Of one that was killed; it may not be writable.
    known = path.stat() if path.exists() else None
    with open(whole, "xb", opener=lambda name, flags: os.open(name, flags, 0o666 if known is None else 0o600)) as file:
        if known is not None:
            os.fchmod(file.fileno(), _take_over(file.fileno(), known))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(whole, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _take_over(descriptor: int, known: os.stat_result) -> int:
    """Give a file the owner and the group of the one that it takes the place of, as far as this process may; the
    permissions that are right then. Where its group is another, that may what everybody may."""
    mode = stat.S_IMODE(known.st_mode)
    for owner in (known.st_uid, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner, known.st_gid)
            return mode
    return (mode & ~stat.S_IRWXG) | (mode & stat.S_IRWXO) << 3
