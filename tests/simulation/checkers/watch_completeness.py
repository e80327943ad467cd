"""Watches are complete: a reader of changes is told each one that it asked for once, in order, with what was there
before, over changes of leader, reconnections, snapshots and compaction (etcd's watch guarantees: ordered, unique,
atomic, reliable, resumable).

The changes are those of a model that reads the same entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.files import ChangePage, ChangeView, ReadChanges
from tests.simulation.model.namespace import Change, is_within
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.history import Question
    from tests.simulation.mixed.watches import Watcher


class WatchCompleteness(Checker):
    name = "watch-completeness"

    def paged(self, watcher: Watcher, question: Question) -> None:
        query, page = question.what, question.result
        assert isinstance(query, ReadChanges)
        assert isinstance(page, ChangePage)
        self.checks += 1
        here, there = (query.since, query.skip), (page.since, page.skip)
        if not query.since:
            # From now on: from no earlier than what was known when it was asked.
            here = (page.since, page.skip)
            if page.changes or page.since <= question.floor:
                self.violated(f"{watcher} begins at {there}, and {question.floor} was known when it asked")
        committed = len(self.world.watch.committed_terms)
        if page.since > max(query.since, committed + 1):
            self.violated(f"{watcher} is sent on to {there}, and nothing is committed behind {committed}")
        if there < here:
            self.violated(f"{watcher} was at {here} and is sent back to {there}")
        must = tuple(
            _view(change, query)
            for change in self.world.watch.truth.namespace.changes
            if here <= (change.revision, change.place) < there and _wants(query, change)
        )
        if page.changes != must:
            self.violated(f"{watcher} from {here} to {there} is told {page.changes}; the changes are {must}")

    def finished(self) -> None:
        mixed = self.world.workload.mixed
        changes = self.world.watch.truth.namespace.changes
        if mixed is None or not changes or self.world.is_beyond_repair:
            return
        for watcher in mixed.watchers:
            if watcher.is_alive:
                self.checks += 1
                if watcher.since <= changes[-1].revision:
                    self.violated(f"{watcher} is at {watcher.since} at the end, and was never told {changes[-1]}")


def _wants(query: ReadChanges, change: Change) -> bool:
    kind = query.deletes if change.after is None else query.puts
    return kind and is_within(change.key, query.start, query.end, query.prefix)


def _view(change: Change, query: ReadChanges) -> ChangeView:
    after = None if change.after is None else change.after.view(change.key)
    before = change.before.view(change.key) if query.previous and change.before is not None else None
    return ChangeView(change.revision, change.key, after, before)
