"""The changes of the namespace that are still kept, and what was at a path before them.

Changes are numbered one after the other; an entry may make several, all of its revision. They are kept up to
CHANGES_MAX, and HISTORY_BYTES_MAX of what was replaced. Each entry drops as many of the oldest as it made itself, and a
few more (`trim`), so that the bounds hold behind every entry, and none pays for many others. `compacted` is the oldest
revision that can still be read: the state just behind the newest change that is no longer kept, or behind what an
operator gave up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.ordered import OrderedKeys
from coordinator.statemachine.paths import path_order
from coordinator.statemachine.tables import Walk

CHANGES_MAX: Final = 100_000
HISTORY_BYTES_MAX: Final = 1 << 27
TRIMMED_MAX: Final = 4
"""Changes that one trim drops, beyond as many as the entry made."""
TRIMMED_BYTES: Final = 1_024
"""For so many bytes that the entry replaced it drops one more: what is old and small makes room for what is large."""
_STALE_MAX: Final = 64
"""Changes of one key that may be remembered though they are dropped."""


def content_size(item: Item | None) -> int:
    """Bytes of a file's content; 0 of a directory, or where nothing is."""
    value = None if item is None else item.value
    return 0 if value is None else len(value)


class NewestFirst:
    """The order of the changes in a snapshot: whoever loads one knows what came after a change before the change."""

    __slots__ = ("first", "following")

    def __init__(self) -> None:
        self.first = 1
        """The oldest number."""
        self.following = 1
        """The number that the next change gets."""

    @staticmethod
    def rank(number: int) -> int:
        return -number

    def page(self, after: int | None, limit: int) -> list[int]:
        last = self.following - 1 if after is None else min(self.following, after) - 1
        return [*range(last, max(self.first, last - limit + 1) - 1, -1)]


class History:
    """Has what `tables.Walk` asks of a table."""

    __slots__ = (
        "_bytes_before",
        "_following_before",
        "_may_be_given_up",
        "bytes",
        "compacted",
        "gone",
        "order",
        "past",
        "rows",
        "walk",
    )

    def __init__(self) -> None:
        self.rows: dict[int, Change] = {}
        self.order = NewestFirst()
        self.walk: Walk[int, Change] | None = None
        self.compacted = 0
        self._may_be_given_up = False
        """May there be changes up to `compacted`? So that most entries need not look."""
        self.bytes = 0
        """Of the values that were replaced."""
        self._following_before = self.order.following
        self._bytes_before = 0
        """As the last entry left them."""
        self.past: dict[str, list[Change]] = {}
        """The changes of each key that has some, in order; a few that are dropped may be before them."""
        self.gone: OrderedKeys[str] = OrderedKeys(path_order)
        """Keys that are not there now, and have changes."""

    def append(self, change: Change) -> None:
        order = self.order
        self.rows[order.following] = change
        order.following += 1
        key = change.key
        past = self.past.get(key)
        if past is None:
            self.past[key] = [change]
        else:
            past.append(change)
        before = change.before
        if before is None:
            if past is not None:
                self.gone.remove(key)
        elif before.value is not None:
            self.bytes += len(before.value)
        if change.after is None:
            self.gone.add(key)

    def begin(self, compacted: int, following: int) -> None:
        """For a snapshot: `prepend` brings the changes, from the newest on, and `loaded` ends it."""
        self.compacted = compacted
        self._may_be_given_up = True
        self.order.first = self.order.following = following

    def prepend(self, revision: int, key: str, before: Item | None, now: Item | None) -> None:
        past = self.past.get(key)
        change = Change(revision, key, before, past[-1].before if past else now)
        if past is None:
            past = self.past[key] = []
            if now is None:
                self.gone.add(key)
        past.append(change)
        self.order.first -= 1
        self.rows[self.order.first] = change
        self.bytes += content_size(before)

    def loaded(self) -> None:
        for past in self.past.values():
            past.reverse()
        self._following_before = self.order.following
        self._bytes_before = self.bytes

    def take_back(self) -> Change:
        """Undo the last `append`."""
        order = self.order
        order.following -= 1
        change = self.rows.pop(order.following)
        past = self.past[change.key]
        past.pop()
        if not past:
            del self.past[change.key]
        if change.after is None:
            self.gone.remove(change.key)
        if change.before is None:
            if past:
                self.gone.add(change.key)
        else:
            self.bytes -= content_size(change.before)
        return change

    def trim(self) -> None:
        """Behind an entry: drop some of the oldest changes, where there are more than may be, or an operator gave them
        up."""
        order = self.order
        if order.following - order.first > CHANGES_MAX or self.bytes > HISTORY_BYTES_MAX or self._may_be_given_up:
            count = TRIMMED_MAX + order.following - self._following_before
            if self.bytes > HISTORY_BYTES_MAX:
                count += max(0, self.bytes - self._bytes_before) // TRIMMED_BYTES
            self._drop_some(count)
        self._following_before = order.following
        self._bytes_before = self.bytes

    def _drop_some(self, count: int) -> None:
        order = self.order
        for _ in range(count):
            if order.first == order.following:
                return
            oldest = self.rows[order.first]
            excess = order.following - order.first > CHANGES_MAX or self.bytes > HISTORY_BYTES_MAX
            if not excess and oldest.revision > self.compacted:
                self._may_be_given_up = False
                return
            self._drop(oldest)

    def _drop(self, oldest: Change) -> None:
        order = self.order
        if self.walk is not None:
            self.walk.touch(order.first)
        del self.rows[order.first]
        order.first += 1
        self.compacted = max(self.compacted, oldest.revision)
        self._may_be_given_up = True  # There may be more of that revision.
        if oldest.before is not None:
            self.bytes -= content_size(oldest.before)
        past = self.past[oldest.key]
        if past[-1] is oldest:
            del self.past[oldest.key]
            if oldest.after is None:
                self.gone.remove(oldest.key)
        elif len(past) <= _STALE_MAX:
            # Those before it were dropped before; it may be the first, or behind a few of them.
            del past[: past.index(oldest) + 1]
        elif past[_STALE_MAX - 1] is oldest:
            del past[:_STALE_MAX]

    def compact(self, revision: int) -> None:
        """Give up what is only needed below `revision`. The memory is given back by and by."""
        self.compacted = max(self.compacted, revision)
        self._may_be_given_up = True

    def at(self, key: str, now: Item | None, revision: int) -> Item | None:
        """What was at `key` at `revision`, `compacted` at the oldest; `now` is what is there now."""
        past = self.past.get(key)
        if past is None or past[-1].revision <= revision:
            return now
        return past[bisect_right(past, revision, key=_revision)].before

    def since(self, revision: int) -> Iterator[Change]:
        """The changes from `revision` on, in order. Nothing must change while this is under way."""
        return map(self.rows.__getitem__, range(self._first_since(revision), self.order.following))

    def count_since(self, revision: int) -> int:
        """How many these are."""
        return self.order.following - self._first_since(revision)

    def _first_since(self, revision: int) -> int:
        low, high = self.order.first, self.order.following
        while low < high:
            middle = (low + high) // 2
            if self.rows[middle].revision < revision:
                low = middle + 1
            else:
                high = middle
        return low


def _revision(change: Change) -> int:
    return change.revision
