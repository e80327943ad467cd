"""Events of locks are complete: whoever watches is told each grant, each request that conflicts with who holds a name,
and how each hold ended, once and in order, over changes of leader, reconnections and snapshots (Chubby, section 2.5);
and of each change of leader between two answers, where it belongs.

The events are those of a model that reads the same entries. Of one entry, those of one name are in order; which name
comes first is the machine's affair, and the same on every replica, and so is who of several is let in first that come
to hold a name together, by one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from tests.simulation.model.locks import ENDS, Event
from tests.simulation.model.namespace import is_within
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.mixed.lock_watches import LockWatcher
    from tests.simulation.node import Node


class LockEventsComplete(Checker):
    name = "lock-events-complete"

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._leaders: dict[int, str] = {}

    def elected(self, node: Node) -> None:
        self._leaders[node.engine.term] = node.name

    def heard(self, watcher: LockWatcher) -> None:
        self.checks += 1
        heard = [
            Event(e.revision, e.name, e.kind, e.holder.session, e.holder.acquisition, e.mode, e.token, e.waits)
            for e in watcher.heard
        ]
        if [event.revision for event in heard] != sorted(event.revision for event in heard):
            self.violated(f"{watcher} was told of {heard}, which is not in order")
        must = [event for event in self.world.watch.truth.locks.events if self._wants(watcher, event)]
        whole = watcher.since
        told = _by_name(event for event in heard if event.revision < whole)
        if told != _by_name(event for event in must if event.revision < whole):
            missing = [event for event in must if event.revision < whole and event not in heard]
            more = [event for event in heard if event not in must]
            self.violated(f"{watcher}, which is at {whole}, was not told {missing}, and told besides {more}")
        failovers = watcher.failovers
        terms = [term for _, term in failovers]
        if terms != sorted(set(terms)) or any(self._leaders.get(term) != leader for leader, term in failovers):
            self.violated(f"{watcher} was told of {failovers}; the leaders were {self._leaders}")

    def finished(self) -> None:
        mixed = self.world.workload.mixed
        if mixed is None or self.world.is_beyond_repair:
            return
        for watcher in mixed.lock_watchers:
            if watcher.is_alive:
                self.checks += 1
                if mixed.owes_events(watcher):
                    self.violated(f"{watcher} is at {watcher.since} at the end, and was not told all")

    @staticmethod
    def _wants(watcher: LockWatcher, event: Event) -> bool:
        query = watcher.query
        wanted = {"acquired": query.acquired, "conflict": query.conflicts}
        return wanted.get(event.kind, getattr(query, "released", False)) and is_within(
            event.name, query.start, query.end, query.prefix
        )


def _by_name(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.name, []).append(event)
    return {name: [*_with_each_other(of_name)] for name, of_name in found.items()}


def _with_each_other(events: list[Event]) -> Iterator[Event]:
    """The same, but for those that were let in one behind the other by one token, and those whose holds ended with one
    entry: in the order of their holders."""
    for (kind, _, _), together in groupby(events, key=_together):
        if kind == "conflict":
            yield from together
        else:
            yield from sorted(together, key=lambda event: (event.session, event.acquisition))


def _together(event: Event) -> tuple[str, int, int]:
    return event.kind, event.revision, 0 if event.kind in ENDS else event.token
