"""Reads of the namespace: files, ranges, directories and changes, now or at a revision that is still kept."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Failure, KeyValue, Result
from coordinator.statemachine.files import ChangeView, ChildView, Compacted, FileContent, KeyView, RangeView, Stat
from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.namespace import is_there
from coordinator.statemachine.paths import Span, behind, path_order, span_of
from coordinator.statemachine.views import page_limit

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

SHOWN_SESSIONS_MAX: Final = 50
KEY_CHANGES: Final = 8
"""What a key was is looked up in the time in which so many changes are gone over in a row."""
PAST_ROWS: Final = 2
"""What a key was counts as so many rows, and"""
SUMMED_BYTES: Final = 1_024
"""So many bytes of a content whose checksum is told count as one row, and"""
CHILD_ROWS: Final = 4
"""each child of a directory as so many."""

_SORT: Final[dict[str, Callable[[KeyView], Any]]] = {
    "value": lambda view: view.value or b"",
    "version": lambda view: view.version,
    "instance": lambda view: view.instance,
    "revision": lambda view: view.revision,
}


def get_key(state: State, key: str) -> Result:
    item = state.keys.rows.get(key)
    if item is None or item.value is None:
        return KeyValue(None)
    return KeyValue(item.value, item.revision, item.version)


def read_file(state: State, query: files.ReadFile) -> Result:
    refused = unreadable(state, query.revision)
    if refused is not None:
        return refused
    item = state.keys.rows.get(query.path)
    if query.revision:
        item = state.history.at(query.path, item, query.revision)
    if item is None:
        return Failure(commands.NOT_FOUND, f"there is no file {query.path!r}")
    if item.value is None:
        return Failure(commands.WRONG_KIND, f"{query.path!r} is a directory")
    return FileContent(item.value, _stat(state, query.path, item))


def get_stat(state: State, path: str) -> Result:
    if not is_there(state, path):
        return Failure(commands.NOT_FOUND, f"there is no {path!r}")
    return _stat(state, path, state.keys.rows.get(path))


def _stat(state: State, path: str, item: Item | None) -> Stat:
    children = state.children.get(path, 0)
    if item is None:
        return Stat(path, directory=True, children=children, acl_generation=state.rights_index)
    sessions = state.ephemerals.rows.get(path, ())
    state.work.goes_over(0 if item.value is None else len(item.value) // SUMMED_BYTES)
    return Stat(
        path,
        directory=item.value is None,
        children=children,
        size=item.size,
        revision=item.revision,
        version=item.version,
        instance=item.instance,
        acl_generation=state.rights_index,
        lock_generation=state.lock_generations.rows.get(path, 0),
        checksum=0 if item.value is None else checksum(item.value),
        ephemeral=item.ephemeral,
        sessions=sessions[:SHOWN_SESSIONS_MAX],
    )


def checksum(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "big")


def unreadable(state: State, revision: int) -> Result | None:
    """Why the state of `revision` can not be read."""
    if not 0 <= revision <= state.applied:
        return Failure(commands.INVALID, f"a revision up to {state.applied}, got {revision}")
    if 0 < revision < state.history.compacted:
        return Compacted(state.history.compacted)
    return None


# --- ranges ---------------------------------------------------------------------------------------


def read_range(state: State, query: files.ReadRange) -> Result:
    refused = unreadable(state, query.revision)
    if refused is not None:
        return refused
    span = span_of(query.start, query.end, query.prefix)
    revision = query.revision or state.applied
    count = _count(state, span, query.revision)
    if query.count_only:
        return RangeView((), count, revision, more=count > 0)
    if query.after:
        if query.sort_by != "key":
            return Failure(commands.INVALID, "pages behind a key are pages in the order of the keys")
        span = behind(span, query.after, descending=query.descending)
    sort = _SORT.get(query.sort_by)
    if sort is None:
        found = _items(state, span, query.revision, descending=query.descending)
        return _page(state, found, query, count, revision)
    if count > files.SORTED_MAX:
        return Failure(commands.TOO_MANY, f"at most {files.SORTED_MAX} keys are sorted, the range has {count}")
    state.work.goes_over(count)
    views = [(key_view(key, item), item) for key, item in _items(state, span, query.revision, descending=False)]
    views.sort(key=lambda both: sort(both[0]), reverse=query.descending)
    return _page(state, ((view.key, item) for view, item in views), query, count, revision)


def key_view(key: str, item: Item, *, keys_only: bool = False) -> KeyView:
    return KeyView(
        key,
        None if keys_only else item.value,
        item.revision,
        item.version,
        item.instance,
        item.value is None,
        item.ephemeral,
    )


def _page(
    state: State, found: Iterator[tuple[str, Item]], query: files.ReadRange, count: int, revision: int
) -> RangeView:
    limit = query.limit if 0 < query.limit < commands.LIST_LIMIT_MAX else commands.LIST_LIMIT_MAX
    page: list[KeyView] = []
    size = 0
    more = False
    for key, item in found:
        if len(page) == limit or (page and size + item.size > files.PAGE_BYTES_MAX and not query.keys_only):
            more = True
            break
        size += item.size
        page.append(key_view(key, item, keys_only=query.keys_only))
    state.work.goes_over(len(page))
    return RangeView(tuple(page), count, revision, more)


def _items(state: State, span: Span, revision: int, *, descending: bool) -> Iterator[tuple[str, Item]]:
    """What the span holds, at `revision` (0: now), in the order of the paths."""
    rows = state.keys.rows
    keys = _keys(state, span, descending=descending)
    if not revision or revision >= _changed(state):
        return ((key, rows[key]) for key in keys)
    history = state.history
    gone = _within(history.gone.seek_back(span.end) if descending else history.gone.seek(span.start), span, descending)
    both = heapq.merge(keys, gone, key=path_order, reverse=descending)
    then = ((key, history.at(key, rows.get(key), revision)) for key in _counted(state, both))
    return ((key, item) for key, item in then if item is not None)


def _counted(state: State, keys: Iterable[str]) -> Iterator[str]:
    """How many must be gone over to fill a page of the past is only known behind it."""
    work = state.work
    for key in keys:
        work.goes_over(PAST_ROWS)
        yield key


def _changed(state: State) -> int:
    """The revision of the newest change that is kept."""
    newest = state.history.rows.get(state.history.order.following - 1)
    return state.history.compacted if newest is None else newest.revision


def _keys(state: State, span: Span, *, descending: bool) -> Iterator[str]:
    order = state.keys.order
    return _within(order.seek_back(span.end) if descending else order.seek(span.start), span, descending)


def _within(keys: Iterator[str], span: Span, descending: bool) -> Iterator[str]:
    """As long as they are in the span."""
    for key in keys:
        rank = path_order(key)
        if rank < span.start if descending else (span.end is not None and rank >= span.end):
            return
        yield key


def _count(state: State, span: Span, revision: int) -> int:
    """How many keys the span has at `revision`: those of now, less what has come since, and with what has gone. Or key
    by key, where these are few beside the changes since."""
    count = state.keys.order.count(span.start, span.end)
    if not revision or revision >= _changed(state):
        return count
    gone = state.history.gone.count(span.start, span.end)
    changes = state.history.count_since(revision + 1)
    if (count + gone) * KEY_CHANGES < changes:
        return _count_keys(state, span, revision, count + gone)
    state.work.goes_over(changes)
    seen: set[str] = set()
    for change in state.history.since(revision + 1):
        if change.key not in seen and span.holds(change.key):
            seen.add(change.key)
            count += (change.before is not None) - (change.key in state.keys.rows)
    return count


def _count_keys(state: State, span: Span, revision: int, keys: int) -> int:
    state.work.goes_over(PAST_ROWS * keys)
    rows, history = state.keys.rows, state.history
    of_now = _within(state.keys.order.seek(span.start), span, descending=False)
    of_then = _within(history.gone.seek(span.start), span, descending=False)
    return sum(history.at(key, rows.get(key), revision) is not None for key in chain(of_now, of_then))


# --- directories ----------------------------------------------------------------------------------


def list_directory(state: State, query: files.ListDirectory) -> Result:
    item = state.keys.rows.get(query.path)
    if not is_there(state, query.path):
        return Failure(commands.NOT_FOUND, f"there is no directory {query.path!r}")
    if item is not None and item.value is not None and query.path not in state.children:
        return Failure(commands.WRONG_KIND, f"{query.path!r} is a file")
    limit = page_limit(query.limit)
    names = [*islice(_children(state, query.path, query.after), limit + 1)]
    state.work.goes_over(CHILD_ROWS * len(names))
    base = f"{query.path}/" if query.path else ""
    children = tuple(_child(state, base + name, name) for name in names[:limit])
    count = state.children.get(query.path, 0)
    return files.DirectoryList(children, count, state.applied, more=len(names) > limit)


def _children(state: State, directory: str, after: str | None) -> Iterator[str]:
    base = f"{directory}/" if directory else ""
    start = path_order(base) if after is None else path_order(base + after) + "\1"
    while True:
        key = next(state.keys.order.seek(start), None)
        if key is None or not key.startswith(base):
            return
        name = key[len(base) :].partition("/")[0]
        yield name
        start = path_order(base + name) + "\1"


def _child(state: State, path: str, name: str) -> ChildView:
    item = state.keys.rows.get(path)
    children = state.children.get(path, 0)
    if item is None:
        return ChildView(name, directory=True, children=children)
    return ChildView(name, item.value is None, children, item.size, item.revision)


# --- changes --------------------------------------------------------------------------------------


def read_changes(state: State, query: files.ReadChanges) -> Result:
    """A page goes over SCANNED_MAX changes at most, so that it is short work however few of them were asked for."""
    since = query.since or state.applied + 1
    if query.since < 0 or query.skip < 0:
        return Failure(commands.INVALID, f"revisions and counts are not negative, got {query.since}, {query.skip}")
    if since <= state.history.compacted:
        return Compacted(state.history.compacted)
    span = span_of(query.start, query.end, query.prefix)
    limit = query.limit if 0 < query.limit < commands.LIST_LIMIT_MAX else commands.LIST_LIMIT_MAX
    found: list[ChangeView] = []
    size = 0
    position = (since, query.skip)
    scanned = 0
    for scanned, (change, place) in enumerate(_placed(state, since, query.skip)):
        wanted = span.holds(change.key) and (query.deletes if change.after is None else query.puts)
        grown = _size(change, query) if wanted else 0
        if len(found) == limit or scanned == files.SCANNED_MAX or (found and size + grown > files.PAGE_BYTES_MAX):
            break
        if wanted:
            found.append(_change_view(change, query))
            size += grown
        position = (change.revision, place + 1)
    else:
        position = (max(since, state.applied + 1), 0)
    state.work.goes_over(scanned + 1)
    return files.ChangePage(tuple(found), *position)


def _placed(state: State, since: int, skip: int) -> Iterator[tuple[Change, int]]:
    """Changes with their place within their revision. Those that are skipped are gone over all the same."""
    revision, place = since, 0
    for change in state.history.since(since):
        if change.revision != revision:
            revision, place = change.revision, 0
        if change.revision != since or place >= skip:
            yield change, place
        else:
            state.work.goes_over(1)
        place += 1


def _size(change: Change, query: files.ReadChanges) -> int:
    size = 0 if change.after is None else change.after.size
    return size + (change.before.size if query.previous and change.before is not None else 0)


def _change_view(change: Change, query: files.ReadChanges) -> ChangeView:
    after = None if change.after is None else key_view(change.key, change.after)
    before = key_view(change.key, change.before) if query.previous and change.before is not None else None
    return ChangeView(change.revision, change.key, after, before)
