"""The namespace against a model: for each revision a dict of what is there. Slow in the model, and plain."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import DeleteKey, Done, ExpireSessions, Failure, PutKey, Transact
from coordinator.statemachine.files import (
    AddToKey,
    AttachFile,
    Compare,
    Created,
    CreateFile,
    Deleted,
    DeletePath,
    DeleteRange,
    DetachFile,
    ListDirectory,
    MakeDirectory,
    Mismatch,
    ReadChanges,
    ReadDirectory,
    ReadFile,
    ReadRange,
    ReadStat,
    WriteFile,
)
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import derived, restored

PATHS = st.sampled_from(["a", "a/b", "a/b/c", "a/b-c", "a-b", "d", "d/e", "d/e/f"])
DELETED = 3
"""Keys that one command deletes here, where it is a transaction."""
VALUES = st.sampled_from([b"", b"1", b"-5", b"xyz"])
DIRECTORY = None


class Row:
    """What the model knows of one path."""

    def __init__(self, value, revision, version, instance, sessions=()):
        self.value, self.revision, self.version, self.instance = value, revision, version, instance
        self.sessions = frozenset(sessions)

    @property
    def seen(self):
        return (self.value, self.revision, self.version, self.instance, bool(self.sessions))

    def written(self, value, index):
        return Row(value, index, self.version + 1, self.instance, self.sessions)


def order(path):
    return path.replace("/", "\0")


def children_of(then, path):
    base = path + "/" if path else ""
    return sorted({key.removeprefix(base).partition("/")[0] for key in then if key.startswith(base)})


def rows_of(machine, query):
    before = machine.state.work.rows
    machine.query(query, "ci", lambda session: 1_000)
    return machine.state.work.rows - before


class NamespaceAgainstAModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.asking = Asking()
        self.sessions = [self.asking.open(), self.asking.open()]
        self.now: dict[str, Row] = {}
        self.then: dict[int, dict[str, tuple]] = {self.asking.index: {}}
        """Revision to what was there, seen from outside."""

    # --- the model --------------------------------------------------------------------------------

    def there(self, path):
        return not path or path in self.now or any(key.startswith(path + "/") for key in self.now)

    def directory(self, path):
        return self.now[path].value is DIRECTORY if path in self.now else self.there(path)

    def ask(self, op, session=None):
        result = self.asking.ask(session or self.sessions[0], op)
        self.index = self.asking.index
        return result

    def noted(self):
        self.then[self.asking.index] = {key: row.seen for key, row in self.now.items()}

    def parents(self, path, *, make):
        """Directories to make above `path`; a code where one can not be."""
        missing, parent = [], path.rpartition("/")[0]
        while not self.there(parent):
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        if missing and not make:
            return commands.NOT_FOUND
        return missing if self.directory(parent) else commands.WRONG_KIND

    def create(self, path, row, parents):
        """The code of a refusal, or None and it is there."""
        if self.there(path) if row.value is not DIRECTORY else path in self.now:
            return commands.EXISTS
        missing = self.parents(path, make=parents)
        if isinstance(missing, str):
            return missing
        for directory in missing:
            self.now[directory] = Row(DIRECTORY, self.asking.index, 1, self.asking.index)
        self.now[path] = row
        return None

    def end(self, ended):
        for path, row in [*self.now.items()]:
            if row.sessions:
                row.sessions -= ended
                if not row.sessions:
                    del self.now[path]

    # --- rules ------------------------------------------------------------------------------------

    @rule(path=PATHS, value=VALUES)
    def put(self, path, value):
        result = self.ask(PutKey(path, value))
        known = self.now.get(path)
        if known is not None and known.value is DIRECTORY:
            assert result.code == commands.WRONG_KIND
        else:
            assert result == Done(self.index, known is not None)
            self.now[path] = known.written(value, self.index) if known else Row(value, self.index, 1, self.index)
        self.noted()

    @rule(path=PATHS)
    def delete(self, path):
        result = self.ask(DeleteKey(path))
        known = self.now.get(path)
        if known is not None and known.value is DIRECTORY:
            assert result.code == commands.WRONG_KIND
        else:
            assert result == Done(self.index, known is not None)
            self.now.pop(path, None)
        self.noted()

    @rule(path=PATHS, amount=st.integers(-3, 3))
    def add(self, path, amount):
        result = self.ask(AddToKey(path, amount))
        known = self.now.get(path)
        value = known.value if known else b"0"
        if value is DIRECTORY or value in (b"", b"xyz"):
            assert result.code == commands.WRONG_KIND
        else:
            count = int(value) + amount
            row = known.written(b"%d" % count, self.index) if known else Row(b"%d" % count, self.index, 1, self.index)
            self.now[path] = row
            assert result == files.Counted(count, self.index, row.version)
        self.noted()

    @rule(path=PATHS, value=VALUES, parents=st.booleans(), ephemeral=st.booleans(), which=st.integers(0, 1))
    def create_file(self, path, value, parents, ephemeral, which):
        session = self.sessions[which]
        result = self.ask(CreateFile(path, value, ephemeral, parents=parents), session)
        row = Row(value, self.index, 1, self.index, [session] if ephemeral else [])
        refused = self.create(path, row, parents)
        assert result == Created(path, self.index) if refused is None else result.code == refused
        self.noted()

    @rule(path=PATHS, parents=st.booleans())
    def make_directory(self, path, parents):
        result = self.ask(MakeDirectory(path, parents))
        known = self.now.get(path)
        if known is not None and known.value is DIRECTORY and parents:
            assert result == Created(path, known.instance)
        else:
            refused = self.create(path, Row(DIRECTORY, self.index, 1, self.index), parents)
            assert result == Created(path, self.index) if refused is None else result.code == refused
        self.noted()

    @rule(path=PATHS, value=VALUES, generation=st.integers(-1, 3))
    def write(self, path, value, generation):
        result = self.ask(WriteFile(path, value, generation))
        known = self.now.get(path)
        if known is None:
            assert result.code == commands.NOT_FOUND
        elif known.value is DIRECTORY:
            assert result.code == commands.WRONG_KIND
        elif generation not in (-1, known.version):
            assert result == Mismatch(known.revision, known.version, known.instance)
        else:
            assert result == Done(self.index, existed=True)
            self.now[path] = known.written(value, self.index)
        self.noted()

    @rule(path=PATHS, recursive=st.booleans())
    def delete_path(self, path, recursive):
        result = self.ask(DeletePath(path, recursive))
        below = [key for key in self.now if key.startswith(path + "/")]
        known = self.now.get(path)
        if not self.there(path):
            assert result.code == commands.NOT_FOUND
        elif recursive:
            gone = [*below, *([path] if known else [])]
            assert result == Deleted(self.index, len(gone))
            for key in gone:
                del self.now[key]
        elif known is None or (known.value is DIRECTORY and below):
            assert result.code == commands.NOT_EMPTY
        else:
            assert result == Deleted(self.index, 1)
            del self.now[path]
        self.noted()

    @rule(start=PATHS, prefix=st.booleans())
    def delete_range(self, start, prefix):
        result = self.ask(DeleteRange(start, prefix=prefix))
        gone = [key for key in self.now if (key.startswith(start) if prefix else key == start)]
        assert result == Deleted(self.index, len(gone))
        for key in gone:
            del self.now[key]
        self.noted()

    @rule(data=st.data(), path=PATHS, which=st.integers(0, 1), attach=st.booleans())
    def attach_or_detach(self, data, path, which, attach):
        ephemerals = [key for key, row in self.now.items() if row.sessions]
        path = data.draw(st.sampled_from([*ephemerals, path]))
        session = self.sessions[which]
        result = self.ask(AttachFile(path) if attach else DetachFile(path), session)
        known = self.now.get(path)
        if attach and known is None:
            assert result.code == commands.NOT_FOUND
        elif attach and not known.sessions:
            assert result.code == commands.WRONG_KIND
        else:
            attached = known.sessions if known else frozenset()
            assert result == Done(self.index, session in attached)
            if attach:
                known.sessions |= {session}
            elif session in attached:
                known.sessions -= {session}
                if not known.sessions:
                    del self.now[path]
        self.noted()

    @rule(first=PATHS, second=PATHS, version=st.integers(0, 2), value=VALUES)
    def transact(self, first, second, version, value):
        """Where the first has this version, write it and create the second; else delete the second."""
        op = Transact(
            (Compare(first, "version", "=", version),),
            (PutKey(first, value), CreateFile(second, value)),
            (DeleteKey(second),),
        )
        result = self.ask(op)
        known, other = self.now.get(first), self.now.get(second)
        if (known.version if known else 0) != version:
            if other is not None and other.value is DIRECTORY:
                assert isinstance(result, commands.Aborted)
            else:
                assert result.succeeded is False
                self.now.pop(second, None)
        else:
            before = dict(self.now)
            refused = known is not None and known.value is DIRECTORY
            if not refused:
                row = known.written(value, self.index) if known else Row(value, self.index, 1, self.index)
                self.now[first] = row
                refused = self.create(second, Row(value, self.index, 1, self.index), parents=False) is not None
            if refused:
                self.now = before
            assert isinstance(result, commands.Aborted) == refused
        self.noted()

    @rule(first=PATHS, second=PATHS, third=PATHS, prefix=st.booleans(), inner=st.booleans())
    def transact_deletions(self, first, second, third, prefix, inner):
        """All of them count as one."""
        ops = (DeleteRange(first, prefix=prefix), DeletePath(second, recursive=True), DeleteKey(third))
        with mock.patch.object(files, "DELETED_MAX", DELETED):
            result = self.ask(Transact((), (ops[0], Transact((), ops[1:])) if inner else ops))
        left, count = dict(self.now), 0
        refused = None
        for number in range(3):
            if number == 0:
                gone = [key for key in left if (key.startswith(first) if prefix else key == first)]
            elif number == 1:
                gone = [key for key in left if key == second or key.startswith(second + "/")]
                if not gone:
                    refused = commands.NOT_FOUND
                    break
            else:
                gone = [key for key in left if key == third]
                if gone and left[third].value is DIRECTORY:
                    refused = commands.WRONG_KIND
                    break
            count += len(gone)
            if count > DELETED:
                refused = commands.TOO_MANY
                break
            for key in gone:
                del left[key]
        if refused is None:
            assert result.succeeded
            self.now = left
        else:
            assert result.refusal.code == refused
            assert result.place == ((1, number - 1) if inner and number else (number,))
        self.noted()

    @rule(both=st.booleans())
    def expire(self, both):
        ended = tuple(self.sessions) if both else (self.sessions[0],)
        self.asking.node(ExpireSessions(ended))
        self.end(frozenset(ended))
        self.noted()
        self.sessions = [session for session in self.sessions if session not in ended]
        while len(self.sessions) < 2:
            self.sessions.append(self.asking.open())
            self.noted()

    @rule()
    def restore(self):
        """What reads go over is the same, too: what a transaction is refused for hangs on it."""
        before, again = self.asking.machine, restored(self.asking.machine)
        for revision in [0, *self.then][-8:]:
            for query in (
                ReadRange("", prefix=True, revision=revision),
                ReadRange("a", prefix=True, revision=revision),
            ):
                assert rows_of(before, query) == rows_of(again, query)
        self.asking.machine = again

    # --- what must hold ---------------------------------------------------------------------------

    @rule(data=st.data())
    def a_range_at_any_revision(self, data):
        revision = data.draw(st.sampled_from([0, *self.then]))
        then = self.then[revision or max(self.then)]
        start, end, prefix = data.draw(PATHS), data.draw(st.one_of(st.just(""), PATHS)), data.draw(st.booleans())
        limit, descending = data.draw(st.integers(0, 4)), data.draw(st.booleans())
        if prefix:
            keys = [key for key in then if key.startswith(start)]
        elif end:
            keys = [key for key in then if order(start) <= order(key) < order(end)]
        else:
            keys = [key for key in then if key == start]
        keys.sort(key=order, reverse=descending)
        after = data.draw(st.one_of(st.just(""), PATHS))
        query = ReadRange(start, end, prefix, revision, limit, descending=descending, after=after)
        view = self.asking.query(query)
        assert view.count == len(keys)
        if after:
            keys = [key for key in keys if (order(key) < order(after) if descending else order(key) > order(after))]
        assert view.more == (bool(limit) and len(keys) > limit)
        found = [(k.key, (k.value, k.revision, k.version, k.instance, k.ephemeral)) for k in view.keys]
        assert found == [(key, then[key]) for key in (keys[:limit] if limit else keys)]
        one = self.asking.query(ReadFile(start, revision))
        if start not in then:
            assert one.code == commands.NOT_FOUND
        elif then[start][0] is DIRECTORY:
            assert isinstance(one, Failure)
        else:
            assert one.value == then[start][0]
        self.is_as_it_was(start, revision, then)
        self.is_listed(self.asking.query(ReadDirectory("", revision)), "", then)

    @precondition(lambda self: self.now)
    @rule(path=st.one_of(st.just(""), PATHS))
    def a_listing(self, path):
        listed = self.asking.query(ListDirectory(path))
        self.is_listed(listed, path, {key: row.seen for key, row in self.now.items()})

    def is_as_it_was(self, path, revision, then):
        self.is_listed(self.asking.query(ReadDirectory(path, revision)), path, then)
        stat = self.asking.query(ReadStat(path, revision))
        children = len(children_of(then, path))
        if path not in then and not children:
            assert stat.code == commands.NOT_FOUND
        else:
            value, *numbers = then.get(path, (DIRECTORY, 0, 0, 0, False))
            assert stat.directory == (value is DIRECTORY)
            assert (stat.children, stat.size) == (children, len(value or b""))
            assert [stat.revision, stat.version, stat.instance, stat.ephemeral] == numbers

    @staticmethod
    def is_listed(listed, path, then):
        names = children_of(then, path)
        if path and path not in then and not names:
            assert listed.code == commands.NOT_FOUND
        elif not names and path and then[path][0] is not DIRECTORY:
            assert listed.code == commands.WRONG_KIND
        else:
            base = path + "/" if path else ""
            assert [child.name for child in listed.children] == names
            assert [child.children for child in listed.children] == [len(children_of(then, base + n)) for n in names]
            assert listed.count == len(names)

    @rule()
    def the_changes_lead_from_nothing_to_here(self):
        state: dict[str, files.KeyView] = {}
        for change in self.asking.query(ReadChanges("", prefix=True, since=1, previous=True)).changes:
            before = state.pop(change.key, None)
            assert change.before == before
            if change.after is not None:
                state[change.key] = change.after
        assert {key: view.value for key, view in state.items()} == {key: row.value for key, row in self.now.items()}

    @invariant()
    def bytes_are_counted(self):
        counted = sum(len(key) + len(row.value or b"") for key, row in self.now.items())
        assert self.asking.machine.key_bytes == counted

    def teardown(self):
        assert derived(restored(self.asking.machine)) == derived(self.asking.machine)


TestNamespaceAgainstAModel = pytest.mark.interpreted(NamespaceAgainstAModel.TestCase)
TestNamespaceAgainstAModel.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[*HealthCheck]
)
