"""A node's directory: held by one process at a time, with the node's journal in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LOCK_NAME: Final = "lock"


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make(path: Path) -> None:
    """Make a directory, and those above it that are not there. Their names are on disk when this returns: what is
    synced in a directory that a loss of power takes away is gone. Raises OSError."""
    if path.is_dir():
        return
    make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync(path.parent)


def check_access(path: Path) -> None:
    """May this process read and write a file, where it is there, and is it there itself? Beside a link to a database
    SQLite looks for no log, but where it leads to. Raises OSError, which names it."""
    if path.is_symlink():
        expected = "expected a file, and no link to one elsewhere: the whole directory may be one"
        raise OSError(errno.ELOOP, expected, str(path))
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


class OpenFiles:
    """Files that this process has open, by the names that they had then."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Raises OSError."""
        self._opened = {path: os.stat(path) for path in paths}

    def first_gone(self) -> Path | None:
        """One whose name leads to it no more: deleted, or put elsewhere. What is written there is kept by nobody."""
        for path, opened in self._opened.items():
            try:
                if not os.path.samestat(os.stat(path), opened):
                    return path
            except (FileNotFoundError, NotADirectoryError):
                return path
            except OSError:
                continue  # That says nothing of the file.
        return None


class DirectoryHeld(Exception):
    """Another process hosts this node."""


class NodeDirectory:
    """Holds `path` from construction until `release`, or the end of the process.

    The lock is the kernel's (flock): it goes with the process, however that ends, and what it execs does not get it.
    """

    def __init__(self, path: Path) -> None:
        """Raises DirectoryHeld; OSError where the directory can not be made or written."""
        make(path)
        self.path = path
        self._descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            who = f" (process {holder})" if holder else ""
            raise DirectoryHeld(f"{path} is held by another process{who}; a node runs once") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
