"""Keys in order, for ranges, pages and snapshots: add, remove and seek in logarithmic time, without a sort.

The keys are in buckets of bounded size, each a sorted list; beside them is the greatest key of each bucket. How
keys happen to lie in buckets shows nowhere. What comes and goes between two looks at the order, as a lock that is
taken and let go, is never sorted in: it is noted, and the buckets are brought up to date by whoever looks, or once
there is a number of notes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Generic, TypeVar

BUCKET_MAX: Final = 1_024
NOTES_MAX: Final = 256
"""Keys that came or went and are not sorted in yet: a look at the order costs no more than these."""

K = TypeVar("K", int, str)


class OrderedKeys(Generic[K]):
    """A set of keys in the order of `order(key)`, where one is given, else in their own."""

    __slots__ = ("_bucket_max", "_buckets", "_came", "_lasts", "_length", "_went", "order")

    def __init__(self, order: Callable[[K], Any] | None = None, bucket_max: int = BUCKET_MAX) -> None:
        self._bucket_max = bucket_max
        self.order: Callable[[K], Any] | None = order
        self._buckets: list[list[K]] = []
        self._lasts: list[Any] = []
        """The order of the last key of each bucket."""
        self._length = 0
        """Of the buckets, without what is noted."""
        self._came: dict[K, None] = {}
        """Keys that are there, and in no bucket yet."""
        self._went: dict[K, None] = {}
        """Keys that are not there any more, and still in a bucket."""

    def __len__(self) -> int:
        return self._length + len(self._came) - len(self._went)

    def __iter__(self) -> Iterator[K]:
        self._settle()
        for bucket in self._buckets:
            yield from bucket

    def rank(self, key: K) -> Any:
        """What keys are compared by."""
        return key if self.order is None else self.order(key)

    def add(self, key: K) -> None:
        """Put in a key that is not there."""
        if key in self._went:
            del self._went[key]
            return
        self._came[key] = None
        if len(self._came) > NOTES_MAX:
            self._settle()

    def remove(self, key: K) -> None:
        """Take out a key that is there."""
        if key in self._came:
            del self._came[key]
            return
        self._went[key] = None
        if len(self._went) > NOTES_MAX:
            self._settle()

    def _settle(self) -> None:
        """Sort in what is noted."""
        if self._went:
            for key in self._went:
                self._take_out(key)
            self._went = {}
        if self._came:
            for key in self._came:
                self._put_in(key)
            self._came = {}

    def _put_in(self, key: K) -> None:
        rank = self.rank(key)
        self._length += 1
        place = bisect_left(self._lasts, rank)
        if place == len(self._lasts):
            if not place:
                self._buckets.append([key])
                self._lasts.append(rank)
                return
            place -= 1
            bucket = self._buckets[place]
            bucket.append(key)
            self._lasts[place] = rank
        else:
            bucket = self._buckets[place]
            if self.order is None:
                insort(bucket, key)
            else:
                bucket.insert(bisect_left(bucket, rank, key=self.order), key)
        if len(bucket) > self._bucket_max:
            self._split(place, at_end=place == len(self._lasts) - 1)

    def _split(self, place: int, *, at_end: bool) -> None:
        bucket = self._buckets[place]
        # Keys that come in order leave full buckets behind them.
        middle = self._bucket_max if at_end else len(bucket) // 2
        self._buckets[place : place + 1] = [bucket[:middle], bucket[middle:]]
        self._lasts.insert(place, self.rank(bucket[middle - 1]))

    def _take_out(self, key: K) -> None:
        rank = self.rank(key)
        place = bisect_left(self._lasts, rank)
        bucket = self._buckets[place]
        at = bisect_left(bucket, rank, key=self.order)
        assert bucket[at] == key, f"{key!r} is not there"
        del bucket[at]
        self._length -= 1
        if not bucket:
            del self._buckets[place]
            del self._lasts[place]
            return
        if at == len(bucket):
            self._lasts[place] = self.rank(bucket[-1])
        if len(bucket) < self._bucket_max // 4:
            self._merge(place)

    def _merge(self, place: int) -> None:
        """Join a bucket that has become small with a neighbour, so that few keys never lie in many buckets."""
        for left in (place, place - 1):
            if 0 <= left < len(self._buckets) - 1:
                joined = self._buckets[left] + self._buckets[left + 1]
                if len(joined) <= self._bucket_max // 2:
                    self._buckets[left : left + 2] = [joined]
                    del self._lasts[left]
                    return

    def seek(self, rank: Any, *, after: bool = False) -> Iterator[K]:
        """Keys from `rank` on (`after`: from behind it). The set must not change while this is under way."""
        self._settle()
        place = bisect_right(self._lasts, rank) if after else bisect_left(self._lasts, rank)
        if place == len(self._lasts):
            return
        bucket = self._buckets[place]
        seek = bisect_right if after else bisect_left
        at = seek(bucket, rank, key=self.order)
        yield from islice(bucket, at, None)
        for position in range(place + 1, len(self._buckets)):
            yield from self._buckets[position]

    def seek_back(self, rank: Any | None) -> Iterator[K]:
        """Keys before `rank` (None: from the last), the last one first. The set must not change meanwhile."""
        self._settle()
        place = len(self._lasts) - 1 if rank is None else min(bisect_left(self._lasts, rank), len(self._lasts) - 1)
        if place < 0:
            return
        bucket = self._buckets[place]
        at = len(bucket) if rank is None else bisect_left(bucket, rank, key=self.order)
        yield from reversed(bucket[:at])
        for position in range(place - 1, -1, -1):
            yield from reversed(self._buckets[position])

    def page(self, after: K | None, limit: int) -> list[K]:
        """At most `limit` keys, from the first behind `after` (None: from the first) on."""
        self._settle()
        if after is None:
            place, at = 0, 0
        else:
            rank = self.rank(after)
            place = bisect_right(self._lasts, rank)
            at = bisect_right(self._buckets[place], rank, key=self.order) if place < len(self._lasts) else 0
        found: list[K] = []
        while len(found) < limit and place < len(self._buckets):
            found += self._buckets[place][at : at + limit - len(found)]
            place, at = place + 1, 0
        return found

    def take_buckets(self) -> list[list[K]]:
        """All keys that are sorted in, as they lie; only what is noted is left. Of a set that nobody needs any more."""
        buckets, self._buckets, self._lasts, self._length = self._buckets, [], [], 0
        return buckets

    def count(self, start: Any, end: Any) -> int:
        """How many keys have a rank from `start` to before `end` (None: to the last)."""
        self._settle()
        return max(0, (self._length if end is None else self._below(end)) - self._below(start))

    def _below(self, rank: Any) -> int:
        place = bisect_left(self._lasts, rank)
        below = sum(map(len, self._buckets[:place]))
        return below + (bisect_left(self._buckets[place], rank, key=self.order) if place < len(self._lasts) else 0)
