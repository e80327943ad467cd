"""Large snapshots of a node's replicas, each in a file of its own beside the journal.

A file is written by a thread of its own, in parts, and synced: the loop goes on meanwhile. It counts for nothing until
the journal names it, in the commit that puts the log behind it. So a crash at any moment leaves the old snapshot or the
new one; files that the journal does not name are deleted when it is opened, and when another one takes their place.

    CONCLAVE-SNAPSHOT 1\\n
    frames (`frames.py`) of the snapshot's bytes, of any size: now `frames.PART_BYTES` each but the last
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from coordinator.consensus.engine import Data, Snapshot
from coordinator.consensus.parts import Parts
from coordinator.replica import frames
from coordinator.replica.directory import sync

DIRECTORY: Final = "snapshots"
MAGIC: Final = b"CONCLAVE-SNAPSHOT 1\n"
_SUFFIX: Final = ".snapshot"
CLOSE_S_MAX: Final = 2.0
FREED_BYTES: Final = 8 * 1024 * 1024
FREED_REST_S: Final = 0.02
"""Of a file that is deleted, freed at once, and the rest after it."""

logger = logging.getLogger(__name__)


class Staging:
    """A snapshot on its way to a file. The writing thread says what became of it; the loop looks."""

    def __init__(self, name: str, data: Data, drop: Callable[[str], None]) -> None:
        """`drop` deletes a file of this name, once nothing is being written into it."""
        self.name = name
        self.is_done = False
        """It is on disk, whole, under its name."""
        self.failed = ""
        """Why it is not and will not be."""
        self.took_us = 0
        """To write and sync it, once it is done: the work alone, not the rests between its parts."""
        self._data: Data | None = data
        self._drop = drop
        self._given_up = threading.Event()

    @property
    def has_trouble(self) -> bool:
        """Did it come to nothing though somebody wanted it?"""
        return bool(self.failed) and not self._given_up.is_set()

    def give_up(self) -> None:
        """Nobody wants it any more, and the journal does not name it."""
        self._given_up.set()
        self._drop(self.name)  # It may be whole by now.

    def write(self, directory: Path) -> None:
        """Of the writing thread. Whatever goes wrong is told, and leaves nothing behind."""
        data, self._data = self._data, None
        assert data is not None, "it is written once"
        path = directory / self.name
        aside = path.with_suffix(".part")
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if not self._write_whole(aside, data):
                self.failed = "given up"
                aside.unlink(missing_ok=True)
                return
            os.rename(aside, path)
            sync(directory)
            sync(directory.parent)  # The directory itself may be new.
        except OSError as error:
            self.failed = f"{path}: {error.strerror or error}"
            for left in (aside, path):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            return
        self.is_done = True

    def _write_whole(self, aside: Path, data: Data) -> bool:
        """False where it was given up on the way."""
        took_s = 0.0
        with open(aside, "xb") as file:
            file.write(MAGIC)
            for start in range(0, len(data), frames.PART_BYTES):
                if self._given_up.is_set():
                    return False
                took_s += frames.put(file, data[start : start + frames.PART_BYTES], self._given_up.wait)
            os.fsync(file.fileno())
        self.took_us = int(took_s * 1e6)
        return not self._given_up.is_set()


class SnapshotFiles:
    def __init__(self, directory: Path) -> None:
        """`directory`: the node's."""
        self._directory = directory / DIRECTORY
        self._work: SimpleQueue[Staging | str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._has_trouble = False
        """Of the writing thread: the last one that was wanted is not on disk, which was said."""

    def begin(self, replica: int, snapshot: Snapshot) -> Staging:
        """Begin to put a snapshot into a file."""
        name = f"{replica:x}-{snapshot.last_index}-{secrets.token_hex(8)}{_SUFFIX}"
        staging = Staging(name, snapshot.data, self.drop)
        self._hand_over(staging)
        return staging

    def drop(self, name: str) -> None:
        """Delete a file that the journal does not name, in a while."""
        self._hand_over(name)

    def read(self, name: str, size: int) -> Parts:
        """All of a file, checked. Raises FrameDamaged, OSError."""
        path = self._directory / name
        data = Parts()
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise frames.FrameDamaged(f"{path}: expected a file that begins with {MAGIC!r}")
            while len(data) < size:
                data.append(frames.read(path, file))
            if len(data) != size or file.read(1):
                raise frames.FrameDamaged(f"{path}: expected {size} bytes of a snapshot and no more")
        return data

    def sweep(self, named: Collection[str]) -> None:
        """Delete whatever is not `named`: what a crash left of a snapshot that did not come to be, or of an old one."""
        for path in self._files():
            if path.name not in named:
                logger.info("%s: deleted, since the journal does not name it", path)
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def any_file(self) -> Path | None:
        """One that is there, whole or not."""
        return next(iter(self._files()), None)

    def size_bytes(self) -> int:
        """What the files take on disk, as far as it can be told. May be asked from another thread."""
        size = 0
        with contextlib.suppress(OSError):
            for path in self._files():
                with contextlib.suppress(FileNotFoundError):
                    size += path.stat().st_size
        return size

    def is_gone(self, name: str) -> bool:
        """Is there no file of this name any more?"""
        try:
            os.stat(self._directory / name)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # That says nothing of the file.
        return False

    def close(self) -> None:
        """End the writing thread, where it is not in the middle of a large file."""
        self._closing.set()
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(CLOSE_S_MAX)

    def _files(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [path for path in self._directory.iterdir() if path.suffix in (_SUFFIX, ".part")]
        return []

    def _hand_over(self, work: Staging | str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="conclave-snapshots", daemon=True)
            self._thread.start()
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if isinstance(work, Staging):
                work.write(self._directory)
                self._say(work)
            else:
                with contextlib.suppress(OSError):  # It is swept when the journal is opened again.
                    self._delete(self._directory / work)

    def _say(self, staging: Staging) -> None:
        """Once, and once more when it is over: it is tried every two seconds, and meanwhile no log is cut."""
        if staging.has_trouble and not self._has_trouble:
            logger.error("a snapshot can not be written, and the log grows until one can: %s", staging.failed)
        elif staging.is_done and self._has_trouble:
            logger.warning("snapshots can be written again")
        self._has_trouble = staging.has_trouble or (self._has_trouble and not staging.is_done)

    def _delete(self, path: Path) -> None:
        """Bit by bit: a file system that frees 300 MB at once holds up every sync for 30 to 50 ms."""
        for size in range(path.stat().st_size - FREED_BYTES, 0, -FREED_BYTES):
            os.truncate(path, size)
            if self._closing.wait(FREED_REST_S):
                return  # The rest is swept.
        path.unlink()
