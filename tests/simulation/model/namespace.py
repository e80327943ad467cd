"""Files, directories and counters, at every revision there ever was: a dict of what is there, and all changes of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Aborted, Done, Failure, Result, Transact, Transacted
from coordinator.statemachine.files import ANY_GENERATION, Created, Deleted, KeyView, Mismatch, RangeView

INDEX_BITS: Final = 40
SEQUENCE_PLACES: Final = 1_000
DELETED_MAX: Final = 4_096
"""Files and directories that one command deletes."""
_RELATIONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


class Row(NamedTuple):
    """What is at a path; `value` None: a directory. `sessions`: those that an ephemeral file lives with."""

    value: bytes | None
    revision: int
    version: int
    instance: int
    sessions: tuple[int, ...] = ()

    def view(self, key: str, *, keys_only: bool = False) -> KeyView:
        value = None if keys_only else self.value
        directory = self.value is None
        return KeyView(key, value, self.revision, self.version, self.instance, directory, bool(self.sessions))


class Change(NamedTuple):
    """`place` counts the changes of one revision, from 0."""

    revision: int
    place: int
    key: str
    before: Row | None
    after: Row | None


class Refused(Exception):
    def __init__(self, refusal: Failure | Mismatch | files.Compacted, place: tuple[int, ...] = ()) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.place = place


def order(path: str) -> str:
    """What paths are compared by: "/" comes before every other character."""
    return path.replace("/", "\0")


def is_within(key: str, start: str, end: str, prefix: bool) -> bool:
    """Is `key` in the range?"""
    if prefix:
        return key.startswith(start)
    return order(start) <= order(key) < order(end) if end else key == start


def _refuse(code: str) -> Refused:
    return Refused(Failure(code, ""))


class Namespace:
    def __init__(self) -> None:
        self.epoch = 0
        self.rows: dict[str, Row] = {}
        self.changes: list[Change] = []
        self.past: dict[str, list[Change]] = {}
        self.compacted = 0
        """The oldest revision that can be read."""
        self.tokens: Callable[[str], Iterable[int]] = lambda name: ()
        self.holders: Callable[[str], Iterable[int]] = lambda name: ()
        """Tokens by which a name is held, and sessions that hold it."""
        self._index = 0
        self._sequenced = 0
        """Sequential names that the entry has made."""
        self._deleted = 0
        """Files and directories that the entry has deleted, apart from those of sessions that ended."""
        self._once = False
        """Within a transaction, which changes no key twice."""

    # --- what is there ----------------------------------------------------------------------------

    def at(self, revision: int) -> dict[str, Row]:
        """All that was there just behind `revision`."""
        then = dict(self.rows)
        for change in reversed(self.changes):
            if change.revision <= revision:
                break
            if change.before is None:
                then.pop(change.key, None)
            else:
                then[change.key] = change.before
        return then

    def row_at(self, key: str, revision: int) -> Row | None:
        for change in reversed(self.past.get(key, ())):
            if change.revision <= revision:
                return change.after
        return None

    def _is_there(self, path: str) -> bool:
        return not path or path in self.rows or any(key.startswith(path + "/") for key in self.rows)

    def _is_directory(self, path: str) -> bool:
        return self.rows[path].value is None if path in self.rows else self._is_there(path)

    # --- what becomes of it -----------------------------------------------------------------------

    def perform(self, index: int, session: int, op: Any) -> Result:
        """What a command does; the result of one that is refused is that refusal, of which the code is meant."""
        self._index = index
        self._sequenced = 0
        self._deleted = 0
        try:
            return self._do(session, op)
        except Refused as refused:
            return refused.refusal

    def _do(self, session: int, op: Any) -> Result:
        match op:
            case commands.PutKey():
                return Done(self._index, self._put(op.key, op.value) is not None)
            case commands.DeleteKey():
                return self._delete_key(op.key)
            case files.AddToKey():
                return self._add(op)
            case files.CreateFile():
                return self._create_file(op.owner or session, op)
            case files.MakeDirectory():
                return self._make_directory(op)
            case files.WriteFile():
                return self._write_file(op)
            case files.DeletePath():
                return self._delete_path(op)
            case files.DeleteRange():
                return self._delete_all(k for k in self.rows if is_within(k, op.start, op.end, op.prefix))
            case files.AttachFile():
                return self._attach(op.path, op.owner or session)
            case files.DetachFile():
                return self._detach(op.path, op.owner or session)
            case files.Compact():
                return self._compact(op.revision)
            case files.ReadFile():
                return self._read_file(op)
            case files.ReadRange():
                return self.read_range(op, self._readable(op.revision), self._index)
            case Transact():
                return self._transact(session, op)
        raise AssertionError(f"a command of the namespace, not {op}")

    def _change(self, key: str, after: Row | None) -> Row | None:
        """Let `after` be there; what was there before."""
        before = self.rows.get(key)
        place = self._changes_now()
        if self._once and any(change.key == key for change in self.changes[len(self.changes) - place :]):
            raise _refuse(commands.INVALID)
        change = Change(self._index, place, key, before, after)
        if after is None:
            del self.rows[key]
        else:
            self.rows[key] = after
        self.changes.append(change)
        self.past.setdefault(key, []).append(change)
        return before

    def _changes_now(self) -> int:
        """How many changes the entry has made."""
        count = 0
        for change in reversed(self.changes):
            if change.revision != self._index:
                break
            count += 1
        return count

    def _put(self, key: str, value: bytes) -> Row | None:
        known = self.rows.get(key)
        if known is None:
            return self._change(key, Row(value, self._index, 1, self._index))
        if known.value is None:
            raise _refuse(commands.WRONG_KIND)
        return self._change(key, known._replace(value=value, revision=self._index, version=known.version + 1))

    def _delete_key(self, key: str) -> Result:
        known = self.rows.get(key)
        if known is None:
            return Done(self._index)
        if known.value is None:
            raise _refuse(commands.WRONG_KIND)
        self._delete(key)
        return Done(self._index, existed=True)

    def _add(self, op: files.AddToKey) -> Result:
        known = self.rows.get(op.key)
        try:
            count = (0 if known is None else int(known.value or b"")) + op.amount
        except ValueError:
            raise _refuse(commands.WRONG_KIND) from None
        self._put(op.key, b"%d" % count)
        return files.Counted(count, self._index, self.rows[op.key].version)

    def _create_file(self, owner: int, op: files.CreateFile) -> Result:
        path = op.path
        if op.sequential:
            token = self.epoch << INDEX_BITS | self._index
            path += f"{token * SEQUENCE_PLACES + self._sequenced:019d}"
            self._sequenced += 1
        if self._is_there(path):
            raise _refuse(commands.EXISTS)
        self._make_parents(path, make=op.parents)
        self._change(path, Row(op.value, self._index, 1, self._index, (owner,) if op.ephemeral else ()))
        return Created(path, self._index)

    def _make_directory(self, op: files.MakeDirectory) -> Result:
        known = self.rows.get(op.path)
        if known is not None and known.value is None and op.parents:
            return Created(op.path, known.instance)
        if known is not None:
            raise _refuse(commands.EXISTS)
        self._make_parents(op.path, make=op.parents)
        self._change(op.path, Row(None, self._index, 1, self._index))
        return Created(op.path, self._index)

    def _make_parents(self, path: str, *, make: bool) -> None:
        missing = []
        parent = path.rpartition("/")[0]
        while not self._is_there(parent):
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        if missing and not make:
            raise _refuse(commands.NOT_FOUND)
        if not self._is_directory(parent):
            raise _refuse(commands.WRONG_KIND)
        for directory in reversed(missing):
            self._change(directory, Row(None, self._index, 1, self._index))

    def _write_file(self, op: files.WriteFile) -> Result:
        known = self.rows.get(op.path)
        if known is None:
            raise _refuse(commands.NOT_FOUND)
        if known.value is None:
            raise _refuse(commands.WRONG_KIND)
        _compare_generation(known, op.generation, op.instance)
        self._put(op.path, op.value)
        return Done(self._index, existed=True)

    def _delete_path(self, op: files.DeletePath) -> Result:
        if not self._is_there(op.path):
            raise _refuse(commands.NOT_FOUND)
        known = self.rows.get(op.path)
        _compare_generation(known, op.generation, op.instance)
        below = [key for key in self.rows if key.startswith(op.path + "/")]
        if op.recursive:
            return self._delete_all([*below, *([op.path] if known else [])])
        if known is None or (known.value is None and below):
            raise _refuse(commands.NOT_EMPTY)
        self._delete(op.path)
        return Deleted(self._index, 1)

    def _delete(self, *keys: str) -> None:
        self._deleted += len(keys)
        if self._deleted > DELETED_MAX:
            raise _refuse(commands.TOO_MANY)
        for key in keys:
            self._change(key, None)

    def _delete_all(self, keys: Iterable[str]) -> Result:
        gone = sorted(keys, key=order)
        self._delete(*gone)
        return Deleted(self._index, len(gone))

    # --- ephemeral files --------------------------------------------------------------------------

    def _attach(self, path: str, session: int) -> Result:
        known = self.rows.get(path)
        if known is None:
            raise _refuse(commands.NOT_FOUND)
        if not known.sessions:
            raise _refuse(commands.WRONG_KIND)
        if session in known.sessions:
            return Done(self._index, existed=True)
        self.rows[path] = known._replace(sessions=(*known.sessions, session))
        return Done(self._index)

    def _detach(self, path: str, session: int) -> Result:
        known = self.rows.get(path)
        if known is None or session not in known.sessions:
            return Done(self._index)
        self._leave(path, known, session)
        return Done(self._index, existed=True)

    def _leave(self, path: str, known: Row, session: int) -> None:
        left = tuple(number for number in known.sessions if number != session)
        if left:
            self.rows[path] = known._replace(sessions=left)
        else:
            self._change(path, None)

    def end(self, index: int, session: int) -> None:
        """The session ends, and with it what lives with it alone."""
        self._index = index
        for path in sorted(path for path, row in self.rows.items() if session in row.sessions):
            self._leave(path, self.rows[path], session)

    # --- transactions -----------------------------------------------------------------------------

    def _transact(self, session: int, op: Transact) -> Result:
        rows, changes = dict(self.rows), len(self.changes)
        self._once = True
        try:
            return self._branch(session, op, ())
        except Refused as refused:
            self.rows = rows
            for change in self.changes[changes:]:
                self.past[change.key].pop()
            del self.changes[changes:]
            return Aborted(refused.place, refused.refusal)
        finally:
            self._once = False

    def _branch(self, session: int, op: Transact, place: tuple[int, ...]) -> Transacted:
        succeeded = all(self._holds(compare) for compare in op.compares)
        results: list[Result] = []
        for number, inner in enumerate(op.then if succeeded else op.otherwise):
            here = (*place, number)
            if isinstance(inner, Transact):
                results.append(self._branch(session, inner, here))
                continue
            try:
                results.append(self._do(session, inner))
            except Refused as refused:
                raise Refused(refused.refusal, here) from None
        return Transacted(self._index, succeeded, tuple(results))

    def _holds(self, compare: files.Compare) -> bool:
        relation = _RELATIONS[compare.relation]
        row = self.rows.get(compare.key)
        found: Iterable[Any]
        match compare.target:
            case "value":
                found = () if row is None or row.value is None else (row.value,)
            case "lease":
                found = (row.sessions if row is not None else ()) or (0,)
            case "lock":
                found = (*self.tokens(compare.key),) or (0,)
            case "lock-holder":
                found = (*self.holders(compare.key),) or (0,)
            case numbered:
                found = (0 if row is None else getattr(row, numbered),)
        return any(relation(one, compare.operand) for one in found)

    # --- reads ------------------------------------------------------------------------------------

    def _compact(self, revision: int) -> Result:
        if not 0 <= revision <= self._index:
            raise _refuse(commands.INVALID)
        if revision < self.compacted:
            return files.Compacted(self.compacted)
        self.compacted = revision
        return Done(self._index, existed=True)

    def _readable(self, revision: int) -> dict[str, Row]:
        if revision > self._index:
            raise _refuse(commands.INVALID)
        if 0 < revision < self.compacted:
            raise Refused(files.Compacted(self.compacted))
        return self.at(revision) if revision else self.rows

    def _read_file(self, op: files.ReadFile) -> Result:
        row = self._readable(op.revision).get(op.path)
        if row is None:
            raise _refuse(commands.NOT_FOUND)
        if row.value is None:
            raise _refuse(commands.WRONG_KIND)
        stat = files.Stat(op.path, False, 0, len(row.value), row.revision, row.version, row.instance)
        return files.FileContent(row.value, stat)

    @staticmethod
    def read_range(query: files.ReadRange, then: dict[str, Row], revision: int) -> RangeView:
        """What a range says of the state `then` of `revision`."""
        keys = sorted((k for k in then if is_within(k, query.start, query.end, query.prefix)), key=order)
        count = len(keys)
        revision = query.revision or revision
        if query.count_only:
            return RangeView((), count, revision, more=count > 0)
        views = [then[key].view(key) for key in keys]
        if query.descending and query.sort_by == "key":
            views.reverse()
        elif query.sort_by == "value":
            views.sort(key=lambda view: view.value or b"", reverse=query.descending)
        elif query.sort_by != "key":
            views.sort(key=lambda view: int(getattr(view, query.sort_by)), reverse=query.descending)
        if query.after:
            after = order(query.after)
            views = [v for v in views if (order(v.key) < after if query.descending else order(v.key) > after)]
        page = views[: query.limit or None]
        shown = tuple(then[view.key].view(view.key, keys_only=query.keys_only) for view in page)
        return RangeView(shown, count, revision, more=len(views) > len(page))


def _compare_generation(known: Row | None, generation: int, instance: int) -> None:
    expected = (generation, instance)
    there = (0, 0) if known is None else (known.version, known.instance)
    if any(wanted not in (ANY_GENERATION, found) for wanted, found in zip(expected, there, strict=True)):
        raise Refused(Mismatch(0 if known is None else known.revision, *there))
    if known is None and expected != (ANY_GENERATION, ANY_GENERATION):
        raise Refused(Mismatch(0, 0, 0))
