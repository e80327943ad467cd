"""What is about to change: what commands touch that were proposed and are not applied yet, and those that wait.

All of it is counted, so that it costs as much to ask as it does with one command under way. A command stays in flight
until it is applied, and *behind an end of a session that was proposed meanwhile* until that is applied too: what the
session came to have by the command goes with it, and the end itself could not name it.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TypeVar

from coordinator.replica.touched import Touched

_Key = TypeVar("_Key", str, int)


class Marks:
    """How many commands touch what."""

    __slots__ = ("_ended", "_everything", "_paths", "_prefixes")

    def __init__(self) -> None:
        self._everything = 0
        self._ended: Counter[int] = Counter()
        self._paths: Counter[str] = Counter()
        self._prefixes: Counter[str] = Counter()

    def add(self, touched: Touched) -> None:
        self._everything += touched.everything
        self._ended.update(touched.ended)
        self._paths.update(touched.paths)
        self._prefixes.update(touched.prefixes)

    def remove(self, touched: Touched) -> None:
        """Of what was added before."""
        self._everything -= touched.everything
        for ended in touched.ended:
            _take_one(self._ended, ended)
        for path in touched.paths:
            _take_one(self._paths, path)
        for prefix in touched.prefixes:
            _take_one(self._prefixes, prefix)

    def hold(self, session: int, path: str) -> bool:
        """Does any of these change `path`, or end `session`?"""
        return (
            self._everything > 0
            or session in self._ended
            or path in self._paths
            or (bool(self._prefixes) and path.startswith(tuple(self._prefixes)))
        )


def _take_one(counts: Counter[_Key], key: _Key) -> None:
    if counts[key] > 1:
        counts[key] -= 1
    else:
        del counts[key]


class InFlight:
    def __init__(self) -> None:
        self._marks = Marks()
        self._fresh: list[Touched] = []
        """Of this turn, which have no index yet."""
        self._pending: deque[tuple[int, Touched]] = deque()
        """Proposed and not applied: index, or a higher one, and what it touches."""
        self._behind: deque[tuple[int, Touched]] = deque()
        """Applied, and in flight up to this index, at which a session ends."""
        self._wide = 0
        self._last_end = 0
        """The index of the last end of a session, or a higher one."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._pending) + len(self._behind)

    @property
    def is_wide(self) -> bool:
        """May some of what is not applied be granted, or let go of, together with names that nobody can tell yet?"""
        return self._wide > 0

    def hold(self, session: int, path: str) -> bool:
        """Does any of these change `path`, or end `session`?"""
        return self._marks.hold(session, path)

    def add(self, touched: Touched) -> None:
        """It is proposed in this turn."""
        self._marks.add(touched)
        self._wide += touched.is_wide
        self._fresh.append(touched)

    def proposed(self, last_index: int) -> None:
        """All that was added in this turn lies up to this index, where the engine took it."""
        for touched in self._fresh:
            self._pending.append((last_index, touched))
            if touched.ended:
                self._last_end = last_index
        self._fresh.clear()

    def applied(self, index: int) -> None:
        while self._pending and self._pending[0][0] <= index:
            _, touched = self._pending.popleft()
            self._wide -= touched.is_wide
            if self._last_end > index:
                self._behind.append((self._last_end, touched))
            else:
                self._marks.remove(touched)
        while self._behind and self._behind[0][0] <= index:
            self._marks.remove(self._behind.popleft()[1])
