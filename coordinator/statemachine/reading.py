"""Reads of the namespace: files, ranges, directories and changes, now or at a revision that is still kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from coordinator.statemachine import commands, files, past
from coordinator.statemachine.commands import Failure, KeyValue, Result
from coordinator.statemachine.files import ChangeView, ChildView, Compacted, FileContent, KeyView, RangeView, Stat
from coordinator.statemachine.history import content_size
from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.past import Tree
from coordinator.statemachine.paths import Span, behind, path_order, span_of, subtree
from coordinator.statemachine.views import page_limit

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

SHOWN_SESSIONS_MAX: Final = 50
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
    refused = past.unreadable(state, query.revision)
    if refused is not None:
        return refused
    item = past.item_at(state, query.path, query.revision)
    if item is None:
        return Failure(commands.NOT_FOUND, f"there is no file {query.path!r}")
    if item.value is None:
        return Failure(commands.WRONG_KIND, f"{query.path!r} is a directory")
    return FileContent(item.value, _stat(state, query.path, item, state.children.get(query.path, 0)))


def read_stat(state: State, path: str, revision: int = 0) -> Result:
    refused = past.unreadable(state, revision)
    if refused is not None:
        return refused
    item = past.item_at(state, path, revision)
    children = Tree(state, path, revision).children(path)
    if item is None and not children and path:
        return Failure(commands.NOT_FOUND, f"there is no {path!r}{_at(revision)}")
    return _stat(state, path, item, children)


def _at(revision: int) -> str:
    return f" at revision {revision}" if revision else ""


def _stat(state: State, path: str, item: Item | None, children: int) -> Stat:
    if item is None:
        return Stat(path, directory=True, children=children, acl_generation=state.rights_index)
    sessions = state.ephemerals.rows.get(path, ())
    state.work.goes_over(0 if item.value is None else len(item.value) // SUMMED_BYTES)
    return Stat(
        path,
        directory=item.value is None,
        children=children,
        size=content_size(item),
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


# --- ranges ---------------------------------------------------------------------------------------


def read_range(state: State, query: files.ReadRange) -> Result:
    refused = past.unreadable(state, query.revision)
    if refused is not None:
        return refused
    span = span_of(query.start, query.end, query.prefix)
    revision = query.revision or state.applied
    count = past.count(state, span, query.revision)
    if query.count_only:
        return RangeView((), count, revision, more=count > 0)
    if query.after:
        if query.sort_by != "key":
            return Failure(commands.INVALID, "pages behind a key are pages in the order of the keys")
        span = behind(span, query.after, descending=query.descending)
    sort = _SORT.get(query.sort_by)
    if sort is None:
        found = past.items(state, span, query.revision, descending=query.descending)
        return _page(state, found, query, count, revision)
    if count > files.SORTED_MAX:
        return Failure(commands.TOO_MANY, f"at most {files.SORTED_MAX} keys are sorted, the range has {count}")
    state.work.goes_over(count)
    views = [(key_view(key, item), item) for key, item in past.items(state, span, query.revision, descending=False)]
    views.sort(key=lambda both: sort(both[0]), reverse=query.descending)
    return _page(state, iter([(view.key, item) for view, item in views]), query, count, revision)


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
        if len(page) == limit or (page and size + content_size(item) > files.PAGE_BYTES_MAX and not query.keys_only):
            more = True
            break
        size += content_size(item)
        page.append(key_view(key, item, keys_only=query.keys_only))
    state.work.goes_over(len(page))
    return RangeView(tuple(page), count, revision, more)


# --- directories ----------------------------------------------------------------------------------


def list_directory(state: State, path: str, after: str | None, limit: int, revision: int = 0) -> Result:
    refused = past.unreadable(state, revision)
    if refused is not None:
        return refused
    item = past.item_at(state, path, revision)
    tree = Tree(state, path, revision)
    count = tree.children(path)
    if item is None and not count and path:
        return Failure(commands.NOT_FOUND, f"there is no directory {path!r}{_at(revision)}")
    if item is not None and item.value is not None and not count:
        return Failure(commands.WRONG_KIND, f"{path!r} is a file{_at(revision)}")
    limit = page_limit(limit)
    names = [*islice(_children(state, path, after, revision), limit + 1)]
    state.work.goes_over(CHILD_ROWS * len(names))
    base = f"{path}/" if path else ""
    children = tuple(_child(state, tree, base + name, name, revision) for name in names[:limit])
    return files.DirectoryList(children, count, revision or state.applied, more=len(names) > limit)


def _children(state: State, directory: str, after: str | None, revision: int) -> Iterator[str]:
    base = f"{directory}/" if directory else ""
    start, end = path_order(base) if after is None else path_order(base + after) + "\1", subtree(directory).end
    while True:
        key, _ = next(past.items(state, Span(start, end), revision), (None, None))
        if key is None:
            return
        name = key[len(base) :].partition("/")[0]
        yield name
        start = path_order(base + name) + "\1"


def _child(state: State, tree: Tree, path: str, name: str, revision: int) -> ChildView:
    item = past.item_at(state, path, revision)
    children = tree.children(path)
    if item is None:
        return ChildView(name, directory=True, children=children)
    return ChildView(name, item.value is None, children, content_size(item), item.revision)


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
    size = content_size(change.after)
    return size + (content_size(change.before) if query.previous and change.before is not None else 0)


def _change_view(change: Change, query: files.ReadChanges) -> ChangeView:
    after = None if change.after is None else key_view(change.key, change.after)
    before = key_view(change.key, change.before) if query.previous and change.before is not None else None
    return ChangeView(change.revision, change.key, after, before)
