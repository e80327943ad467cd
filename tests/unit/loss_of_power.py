"""What a loss of power would take: a process's syncs are watched, and the names that it gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """From its making on. What is given another name must be on disk by then, with all that is in it; and each name,
    also of a new directory, is on disk once the directory is synced that it stands in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._given_too_early: list[str] = []
        self._on_disk: dict[int, object] = {}
        """By inode: what a file held, or which names a directory had, when it was last synced."""
        self._names: set[Path] = set()
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._syncing(getattr(os, name)))
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self._naming(getattr(os, name)))
        monkeypatch.setattr(os, "mkdir", self._making(os.mkdir))

    def could_lose(self) -> list[str]:
        """What has a name, and may be gone after a loss of power, or be there by half."""
        left = sorted(name for name in self._names if name.exists())
        return self._given_too_early + [str(name) for name in left if not self._has(name)]

    def _syncing(self, really: Any) -> Any:
        def sync(descriptor: int) -> None:
            really(descriptor)
            self._on_disk[os.fstat(descriptor).st_ino] = _held(Path(f"/proc/self/fd/{descriptor}"))

        return sync

    def _naming(self, really: Any) -> Any:
        def give(old: str | Path, new: str | Path) -> None:
            given = [Path(old), *Path(old).rglob("*")]
            early = [path for path in given if self._on_disk.get(path.stat().st_ino) != _held(path)]
            self._given_too_early += map(str, early)
            really(old, new)
            self._names = {Path(new), *(name for name in self._names if name not in given)}

        return give

    def _making(self, really: Any) -> Any:
        def make(path: str | Path, *arguments: Any) -> None:
            really(path, *arguments)
            self._names.add(Path(path))

        return make

    def _has(self, name: Path) -> bool:
        names = self._on_disk.get(name.parent.stat().st_ino)
        return isinstance(names, set) and name.name in names


def _held(path: Path) -> object:
    return set(os.listdir(path)) if path.is_dir() else path.read_bytes()
