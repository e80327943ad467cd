"""The namespace as it was: which keys of a span were there at a revision, and how much was in each directory.

What is kept is what there is now, and the changes since. So the past is told from the difference: keys that were there
then and are not now, and the other way round.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Failure, Result
from coordinator.statemachine.files import Compacted
from coordinator.statemachine.items import Item
from coordinator.statemachine.paths import Span, parent_of, path_order, subtree

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

KEY_CHANGES: Final = 8
"""What a key was is looked up in the time in which so many changes are gone over in a row."""
PAST_ROWS: Final = 2
"""What a key was counts as so many rows."""


def unreadable(state: State, revision: int) -> Result | None:
    """Why the state of `revision` can not be read."""
    if not 0 <= revision <= state.applied:
        return Failure(commands.INVALID, f"a revision up to {state.applied}, got {revision}")
    if 0 < revision < state.history.compacted:
        return Compacted(state.history.compacted)
    return None


def item_at(state: State, path: str, revision: int) -> Item | None:
    """The file, or the directory that was made, that was at `path` at `revision` (0: now)."""
    now = state.keys.rows.get(path)
    return state.history.at(path, now, revision) if revision else now


def items(state: State, span: Span, revision: int, *, descending: bool = False) -> Iterator[tuple[str, Item]]:
    """What the span holds, at `revision` (0: now), in the order of the paths."""
    keys = _keys(state, span, descending=descending)
    if _is_now(state, revision):
        return _now(state, keys)
    history = state.history
    gone = within(history.gone.seek_back(span.end) if descending else history.gone.seek(span.start), span, descending)
    both = heapq.merge(keys, gone, key=path_order, reverse=descending)
    return _then(state, both, revision)


def _now(state: State, keys: Iterable[str]) -> Iterator[tuple[str, Item]]:
    rows = state.keys.rows
    for key in keys:
        yield key, rows[key]


def _then(state: State, keys: Iterable[str], revision: int) -> Iterator[tuple[str, Item]]:
    """How many must be gone over to fill a page of the past is only known behind it."""
    rows, history, work = state.keys.rows, state.history, state.work
    for key in keys:
        work.goes_over(PAST_ROWS)
        item = history.at(key, rows.get(key), revision)
        if item is not None:
            yield key, item


def count(state: State, span: Span, revision: int) -> int:
    """How many keys the span has at `revision` (0: now)."""
    now = state.keys.order.count(span.start, span.end)
    return now + sum(1 if was_there else -1 for _, was_there in _differing(state, span, revision))


class Tree:
    """Directories as they were at `revision` (0: now): how much was directly in `directory`, and in those directly in
    it. However deep what came and went since lies, of each path no more is looked at than what is there of it."""

    def __init__(self, state: State, directory: str, revision: int) -> None:
        self._now = state.children
        self._then: dict[str, int] = {}
        """Of directories that had another number of children than they have now."""
        came: dict[str, int] = {}
        """Of what is in these directories: how much of it, or below it, is there now that was not then."""
        went: set[str] = set()
        """What of it was there then, with what was below it or for it."""
        base = f"{directory}/" if directory else ""
        for key, was_there in _differing(state, subtree(directory), revision):
            for path in _first_two(base, key):
                if was_there:
                    went.add(path)
                else:
                    came[path] = came.get(path, 0) + 1
        for path in {*came, *went}:
            is_there = path in state.keys.rows or path in state.children
            was = path in went or (is_there and _holds_more(state, path, came[path]))
            if was != is_there:
                parent = parent_of(path)
                self._then[parent] = self.children(parent) + (1 if was else -1)

    def children(self, directory: str) -> int:
        children = self._then.get(directory)
        return self._now.get(directory, 0) if children is None else children


def _first_two(base: str, key: str) -> Iterator[str]:
    """What `key` is, or lies below, directly in the directory that `base` names, and directly in that."""
    at = len(base)
    if len(key) < at:
        return  # It is the directory itself.
    for _ in range(2):
        at = key.find("/", at)
        if at < 0:
            yield key
            return
        yield key[:at]
        at += 1


def _holds_more(state: State, path: str, count: int) -> bool:
    """Are there more keys now than so many, at `path` and below?"""
    state.work.goes_over(count + 1)
    span = subtree(path)
    there = within(state.keys.order.seek(span.start), span, descending=False)
    return next(islice(there, count, None), None) is not None


def within(keys: Iterator[str], span: Span, descending: bool) -> Iterator[str]:
    """As long as they are in the span."""
    for key in keys:
        rank = path_order(key)
        if rank < span.start if descending else (span.end is not None and rank >= span.end):
            return
        yield key


def _keys(state: State, span: Span, *, descending: bool) -> Iterator[str]:
    order = state.keys.order
    return within(order.seek_back(span.end) if descending else order.seek(span.start), span, descending)


def _is_now(state: State, revision: int) -> bool:
    """Has nothing changed since?"""
    if not revision:
        return True
    newest = state.history.rows.get(state.history.order.following - 1)
    return revision >= (state.history.compacted if newest is None else newest.revision)


def _differing(state: State, span: Span, revision: int) -> Iterator[tuple[str, bool]]:
    """Keys of the span that were there at `revision` and are not now (True), or the other way round. From the changes
    since then; or key by key, where these are few beside the changes."""
    if _is_now(state, revision):
        return
    rows, history = state.keys.rows, state.history
    keys = state.keys.order.count(span.start, span.end) + history.gone.count(span.start, span.end)
    changes = history.count_since(revision + 1)
    if keys * KEY_CHANGES < changes:
        state.work.goes_over(PAST_ROWS * keys)
        of_now = within(state.keys.order.seek(span.start), span, descending=False)
        of_then = within(history.gone.seek(span.start), span, descending=False)
        for key in chain(of_now, of_then):
            was_there = history.at(key, rows.get(key), revision) is not None
            if was_there != (key in rows):
                yield key, was_there
        return
    state.work.goes_over(changes)
    seen: set[str] = set()
    for change in history.since(revision + 1):
        if change.key not in seen and span.holds(change.key):
            seen.add(change.key)
            was_there = change.before is not None
            if was_there != (change.key in rows):
                yield change.key, was_there
