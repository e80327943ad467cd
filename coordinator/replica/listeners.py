"""Who waits for what of one log, and whom each row of it wakes. Pure; a part of `watches.py`.

A log is what the state machine keeps of its changes, or of the events of locks: rows by number, each of a name and a
revision. What was applied is looked at once, in order. Whom a row wakes is found by its name: in a table, for those
that watch a single one, and in an interval tree for the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.replica.spans import Spans
from coordinator.statemachine.files import ReadChanges
from coordinator.statemachine.history import History
from coordinator.statemachine.items import Change
from coordinator.statemachine.lock_commands import LockEvent, ReadLockEvents
from coordinator.statemachine.lock_events import LockEvents
from coordinator.statemachine.paths import path_order, span_of

Query = ReadChanges | ReadLockEvents
Log = History | LockEvents


class Listeners:
    """By number; `Watches` knows who they are."""

    def __init__(self) -> None:
        self._names: dict[str, dict[int, None]] = {}
        self._spans = Spans()
        self._queries: dict[int, Query] = {}
        self._looked = 0
        """The number of the first row that was not looked at, while anybody waits."""

    def add(self, number: int, query: Query, log: Log) -> None:
        """All that was applied before was looked at, or is behind its position."""
        if not self._queries:
            self._looked = log.order.following
        self._queries[number] = query
        if _is_of_one(query):
            self._names.setdefault(query.start, {})[number] = None
        else:
            self._spans.add(span_of(query.start, query.end, query.prefix), number)

    def remove(self, number: int) -> None:
        query = self._queries.pop(number)
        if not _is_of_one(query):
            return self._spans.remove(span_of(query.start, query.end, query.prefix), number)
        waiting = self._names[query.start]
        del waiting[number]
        if not waiting:
            del self._names[query.start]
        return None

    def look(self, log: Log) -> dict[int, list[int]] | None:
        """Whom what came since the last look wakes: the revision of the first row that it wants, and how many there
        are. None: some of that is not kept any more, and whom it would wake can not be told."""
        looked, following = self._looked, log.order.following
        hits: dict[int, list[int]] = {}
        if not self._queries or looked == following:
            return hits
        self._looked = following
        if looked < log.order.first:
            return None
        rows: Mapping[int, Change | LockEvent] = log.rows
        for row in map(rows.__getitem__, range(looked, following)):
            name = row.key if isinstance(row, Change) else row.name
            for number in (*self._names.get(name, ()), *self._spans.holding(path_order(name))):
                if wants(self._queries[number], row):
                    hits.setdefault(number, [row.revision, 0])[1] += 1
        return hits

    @property
    def all(self) -> list[int]:
        return [*self._queries]

    @property
    def is_empty(self) -> bool:
        """Is nothing kept for anybody?"""
        return not (self._queries or self._names or self._spans.count)


def wants(query: Query, row: Change | LockEvent) -> bool:
    """Of a row of a name within its range."""
    if row.revision < query.since:
        return False
    if isinstance(row, LockEvent):
        return isinstance(query, ReadLockEvents) and query.wants(row)
    return isinstance(query, ReadChanges) and (query.deletes if row.after is None else query.puts)


def _is_of_one(query: Query) -> bool:
    return not query.end and not query.prefix
