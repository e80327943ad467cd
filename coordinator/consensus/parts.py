"""Bytes that are there in parts: a snapshot of hundreds of megabytes as it was made, or as it came."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Parts:
    """Read as `bytes` are, by length and by slices, and never copied whole on the way. Add parts while it is made; what
    it is handed to takes it for fixed."""

    __slots__ = ("_parts", "_starts", "size")

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self._parts: list[bytes] = []
        self._starts: list[int] = []
        self.size = 0
        for part in parts:
            self.append(part)

    def append(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._starts.append(self.size)
            self.size += len(part)

    def parts(self) -> list[bytes]:
        """As they came."""
        return [*self._parts]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, at: slice) -> bytes:
        """Of a slice with a step of 1. What it costs is in proportion to what it gives."""
        start, stop, step = at.indices(self.size)
        assert step == 1, f"a slice has a step of 1, got {step}"
        if start >= stop:
            return b""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, stop - 1) - 1
        begin = start - self._starts[first]
        if first == last:
            return self._parts[first][begin : stop - self._starts[first]]
        middle = self._parts[first + 1 : last]
        return b"".join([self._parts[first][begin:], *middle, self._parts[last][: stop - self._starts[last]]])

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (bytes, Parts)):
            return NotImplemented
        return len(self) == len(other) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Parts({self.size} bytes in {len(self._parts)})"
