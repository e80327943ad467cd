"""Tables of the state: rows by key, their keys in order, and a walk over them that sees them as they were.

A walk is how a snapshot is taken while entries go on being applied: whoever is about to change a row says so first
(`touch`), and where the walk has yet to come by, it keeps the row's old form. With no walk under way that costs one
comparison with None.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from coordinator.statemachine.ordered import OrderedKeys

K = TypeVar("K", int, str)
R = TypeVar("R")


class _Order(Protocol[K]):
    def rank(self, key: K) -> Any: ...

    def page(self, after: K | None, limit: int) -> list[K]: ...


class _Walked(Protocol[K, R]):
    """What can be walked over."""

    @property
    def rows(self) -> Mapping[K, R]: ...

    @property
    def order(self) -> _Order[K]: ...

    walk: Walk[K, R] | None


class Table(Generic[K, R]):
    """Rows are read in `rows` and `order` directly; they come and go by `add`, `put` and `remove` alone. Whoever
    changes or replaces a row calls `touch` before."""

    __slots__ = ("order", "rows", "walk")

    def __init__(self, order: Callable[[K], Any] | None = None) -> None:
        self.rows: dict[K, R] = {}
        self.order: OrderedKeys[K] = OrderedKeys(order)
        self.walk: Walk[K, R] | None = None

    def touch(self, key: K) -> None:
        if self.walk is not None:
            self.walk.touch(key)

    def add(self, key: K, row: R) -> None:
        if self.walk is not None:
            self.walk.touch(key)
        self.rows[key] = row
        self.order.add(key)

    def put(self, key: K, row: R) -> None:
        """Add it, or let it take the place of the row that is there."""
        if key not in self.rows:
            self.add(key, row)
            return
        self.touch(key)
        self.rows[key] = row

    def remove(self, key: K) -> R:
        if self.walk is not None:
            self.walk.touch(key)
        self.order.remove(key)
        return self.rows.pop(key)


class Walk(Generic[K, R]):
    """Goes over a table once, in its order, and sees every row as it was when the walk began.

    `freeze` gives a form of a row that no later change of the row reaches. `attached`: rows may change while the walk
    is under way; otherwise nobody pays for it.
    """

    __slots__ = ("_cursor", "_freeze", "_heap", "_kept", "_rank", "_table", "over")

    def __init__(self, table: _Walked[K, R], freeze: Callable[[R], Any], *, attached: bool) -> None:
        self._table: _Walked[K, R] = table
        self._freeze = freeze
        self._cursor: K | None = None
        """The last key that was gone over, or would have been if it had been there."""
        self._rank: Any = None
        """What the cursor is compared by."""
        self._kept: dict[K, Any] = {}
        """Old forms of rows ahead that have changed since; None: not there then."""
        self._heap: list[tuple[Any, K]] = []
        """The keys of `_kept` that were there then."""
        self.over = False
        if attached:
            assert table.walk is None, "one walk over a table at a time"
            table.walk = self

    def begin_behind(self, key: K) -> None:
        """Leave out `key` and what comes before it."""
        self._cursor, self._rank = key, self._table.order.rank(key)

    def touch(self, key: K) -> None:
        if key in self._kept:
            return
        rank = self._table.order.rank(key)
        if self._cursor is not None and rank <= self._rank:
            return
        row = self._table.rows.get(key)
        if row is None:
            self._kept[key] = None
        else:
            self._kept[key] = self._freeze(row)
            heapq.heappush(self._heap, (rank, key))

    def page(self, limit: int) -> list[tuple[K, Any]]:
        """The next rows, frozen, by key: `limit` at most of those that are there now, and as many of those that have
        gone or changed since. May be empty before the walk is over."""
        table = self._table
        keys = table.order.page(self._cursor, limit)
        end = (keys[-1], table.order.rank(keys[-1])) if len(keys) == limit else None
        gone, end = self._take_kept(end, limit)
        if gone or not self._kept.keys().isdisjoint(keys):
            found = self._merged(keys, gone, end)
        else:
            rows, freeze = table.rows, self._freeze
            found = [(key, freeze(rows[key])) for key in keys]
        if end is None:
            self.close()
        else:
            self._cursor, self._rank = end
        return found

    def _take_kept(self, end: tuple[K, Any] | None, limit: int) -> tuple[dict[K, Any], tuple[K, Any] | None]:
        """Old forms of rows up to `end` (None: the end of the table), by key, in order; and where they end, which is
        earlier where there are many."""
        gone: dict[K, Any] = {}
        heap, kept = self._heap, self._kept
        last: tuple[K, Any] | None = None
        while heap and (end is None or heap[0][0] <= end[1]):
            if len(gone) == limit:
                return gone, last
            rank, key = heapq.heappop(heap)
            gone[key] = kept.pop(key)
            last = key, rank
        return gone, end

    def _merged(self, keys: list[K], gone: dict[K, Any], end: tuple[K, Any] | None) -> list[tuple[K, Any]]:
        table, kept = self._table, self._kept
        rank_of = table.order.rank
        found = [(rank_of(key), key, frozen) for key, frozen in gone.items()]
        for key in keys:
            rank = rank_of(key)
            if end is not None and rank > end[1]:
                break
            if key in gone:
                continue
            if key not in kept:
                found.append((rank, key, self._freeze(table.rows[key])))
            else:
                del kept[key]  # It was not there then, and is behind the cursor from here on.
        found.sort(key=lambda row: row[0])
        return [(key, frozen) for _, key, frozen in found]

    def close(self) -> None:
        """Stop; nothing is kept for this walk any more."""
        self.over = True
        self._kept = {}
        self._heap = []
        if self._table.walk is self:
            self._table.walk = None
