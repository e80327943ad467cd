"""The past against a model: the list of all changes there ever were, of which so many are kept as the page says. What
sequential files are called, too, since those names must never come again."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.statemachine import commands, history
from coordinator.statemachine.commands import DeleteKey, Done, ExpireSessions, Failure, PutKey, Transact, TransactionOp
from coordinator.statemachine.files import (
    ChangeView,
    Compact,
    Compacted,
    Created,
    CreateFile,
    Deleted,
    DeleteRange,
    KeyView,
    ReadChanges,
    ReadFile,
    ReadRange,
)
from coordinator.statemachine.lock_commands import RaiseEpoch
from tests.unit.statemachine.twins import Twins

KEYS = st.sampled_from(["a", "b", "q/1", "q/2"])
RANGES = st.sampled_from([("", True), ("q/", True), ("a", False), ("b", False)])
VALUES = st.sampled_from([b"", b"1", b"four", b"ten bytes!"])
NUMBERED = st.sampled_from(["q/", "q/n", "n", "none/n", "a/n"])
CHANGES = 9
BYTES = 24
"""Of what is kept here."""


class Change(NamedTuple):
    revision: int
    key: str
    before: KeyView | None
    after: KeyView | None


class Reader:
    """One that follows the changes to a range, page by page, and keeps what it learns."""

    def __init__(self, span, puts, deletes, limit):
        start, prefix = span
        self.asks = ReadChanges(start, prefix=prefix, puts=puts, deletes=deletes, limit=limit)
        self.since, self.skip = 1, 0
        self.knows: dict[str, KeyView] = {}

    def wants(self, change):
        is_wanted = self.asks.deletes if change.after is None else self.asks.puts
        return is_wanted and is_in(change.key, self.asks.start, self.asks.prefix)


def is_in(key, start, prefix):
    return key.startswith(start) if prefix else key == start


class HistoryAgainstAModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.few = [mock.patch.object(history, "CHANGES_MAX", CHANGES)]
        self.few.append(mock.patch.object(history, "HISTORY_BYTES_MAX", BYTES))
        # What is too much goes by and by, over several entries; here with the one that makes it too much.
        self.few.append(mock.patch.object(history, "TRIMMED_MAX", 1_000))
        for patch in self.few:
            patch.start()
        self.asking = Twins()
        self.web = self.asking.open("web")
        self.sessions = [self.asking.open(), self.asking.open()]
        self.epoch = 1
        self.oldest = 0
        self.changes: list[Change] = []
        self.now: dict[str, KeyView] = {}
        self.lives_with: dict[str, int] = {}
        """Ephemeral file to its session."""
        self.names: list[str] = []
        """That sequential files have got, in order, without what they were asked for."""
        self.readers = [Reader(("", True), True, True, 0), Reader(("q/", True), True, True, 2)]
        self.asking.ask(self.sessions[0], PutKey("q/1", b"1"))
        self.changed([("q/1", b"1", 0)])

    # --- the model --------------------------------------------------------------------------------

    def changed(self, changes, *, sorts=False):
        """By the last entry: (key, value or None, the session that it lives with). `sorts`: the page names no order."""
        index = self.asking.index
        made = []
        for key, value, session in changes:
            before = self.now.pop(key, None)
            if value is not None:
                version, instance = (before.version + 1, before.instance) if before else (1, index)
                ephemeral = before.ephemeral if before else bool(session)
                self.now[key] = KeyView(key, value, index, version, instance, ephemeral=ephemeral)
                if session:
                    self.lives_with[key] = session
            else:
                self.lives_with.pop(key, None)
            made.append(Change(index, key, before, self.now.get(key)))
        if sorts and len(made) > 1 and len(made) < CHANGES:
            told = self.asking.query(ReadChanges("", prefix=True, since=index))
            order = [change.key for change in told.changes]
            made.sort(key=lambda change: order.index(change.key))
        self.changes += made
        self.forget()

    def kept(self):
        return [change for change in self.changes if change.revision > self.oldest]

    def forget(self):
        """The latest of the changes are kept, less where they replaced more than so many bytes."""
        size = 0
        for count, change in enumerate(reversed(self.changes), 1):
            size += len(change.before.value or b"") if change.before else 0
            if count > CHANGES or size > BYTES:
                self.oldest = max(self.oldest, change.revision)
                return

    def then(self, revision):
        """What was there just behind that entry."""
        there: dict[str, KeyView] = {}
        for change in self.changes:
            if change.revision <= revision:
                there.pop(change.key, None)
                if change.after is not None:
                    there[change.key] = change.after
        return there

    def numbered(self, path, number):
        return f"{path}{((self.epoch << 40) | self.asking.index) * 1_000 + number:019}"

    def refusal_of_new(self, path):
        parent = path.rpartition("/")[0]
        if parent in self.now:
            return commands.WRONG_KIND
        is_there = not parent or any(key.startswith(parent + "/") for key in self.now)
        return None if is_there else commands.NOT_FOUND

    # --- rules ------------------------------------------------------------------------------------

    def do(self, op, who=0):
        return self.asking.ask(self.sessions[who], op)

    @rule(key=KEYS, value=VALUES)
    def put(self, key, value):
        existed = key in self.now
        assert self.do(PutKey(key, value)) == Done(self.asking.index, existed)
        self.changed([(key, value, 0)])

    @rule(key=KEYS)
    def delete(self, key):
        existed = key in self.now
        assert self.do(DeleteKey(key)) == Done(self.asking.index, existed)
        self.changed([(key, None, 0)] if existed else [])

    @rule(start=st.sampled_from(["q", "n", ""]))
    def delete_range(self, start):
        gone = sorted((key for key in self.now if key.startswith(start)), key=lambda key: key.replace("/", "\0"))
        assert self.do(DeleteRange(start, prefix=True)) == Deleted(self.asking.index, len(gone))
        self.changed([(key, None, 0) for key in gone])

    @rule(path=NUMBERED, value=VALUES, who=st.integers(0, 1), ephemeral=st.booleans())
    def create_in_sequence(self, path, value, who, ephemeral):
        refused = self.refusal_of_new(path)
        result = self.do(CreateFile(path, value, ephemeral, sequential=True), who)
        if refused is not None:
            assert result.code == refused
            return
        name = self.numbered(path, 0)
        assert result == Created(name, self.asking.index)
        self.names.append(name.removeprefix(path))
        self.changed([(name, value, self.sessions[who] if ephemeral else 0)])

    @rule(
        paths=st.lists(NUMBERED, min_size=1, max_size=3),
        value=VALUES,
        key=KEYS,
        inner=st.booleans(),
        revision=st.integers(-2, 12),
    )
    def transact(self, paths, value, key, inner, revision):
        """Several in sequence, a write, and a read of the past: all or nothing."""
        revision = max(0, self.asking.index - revision) if revision >= 0 else self.asking.index - revision
        creates = [CreateFile(path, value, sequential=True) for path in paths]
        ops: list[TransactionOp] = (
            [*creates[:1], Transact((), (*creates[1:],)), PutKey(key, value)] if inner else [*creates]
        )
        ops.append(ReadFile("q/1", revision))
        refused: str | Compacted | None = None
        before = dict(self.now)
        result = self.do(Transact((), (*ops,)))
        index = self.asking.index
        made = []
        for number, path in enumerate(paths):
            refused = refused or self.refusal_of_new(path)
            name = self.numbered(path, number)
            self.now[name] = KeyView(name, value, index, 1, index)
            made.append((name, value, 0))
        if inner:
            self.now[key] = KeyView(key, value, index, 1, index)
            made.append((key, value, 0))
        if refused is None:
            there = self.now if revision in (0, index) else self.then(revision)
            if revision > index:
                refused = commands.INVALID
            elif revision and revision < self.oldest:
                refused = Compacted(self.oldest)
            elif "q/1" not in there:
                refused = commands.NOT_FOUND
        self.now = before
        if refused is None:
            assert result.succeeded, result
            self.names += [name.removeprefix(path) for (name, _, _), path in zip(made, paths, strict=False)]
            self.changed(made)
        else:
            assert getattr(result.refusal, "code", result.refusal) == refused

    @rule(both=st.booleans())
    def expire(self, both):
        ended = [*self.sessions] if both else self.sessions[:1]
        self.asking.node(ExpireSessions((*ended,)))
        gone = [key for key, session in self.lives_with.items() if session in ended]
        self.changed([(key, None, 0) for key in gone], sorts=True)
        self.sessions = [*self.sessions[len(ended) :], *(self.asking.open() for _ in ended)]

    @rule(back=st.sampled_from([-9, -2, -1, 0, 0, 1, 2, 3, 5, 8, 30]), may=st.sampled_from([True, True, True, False]))
    def compact(self, back, may):
        revision = max(1, self.asking.index - back)
        if not may:
            assert self.do(Compact(revision)).code == commands.FORBIDDEN
            return
        result = self.asking.ask(self.web, Compact(revision), "web")
        if revision > self.asking.index:
            assert result.code == commands.INVALID
        elif revision < self.oldest:
            assert result == Compacted(self.oldest)
        else:
            assert result == Done(self.asking.index, existed=True)
            self.oldest = revision

    @rule(by=st.integers(1, 3))
    def raise_epoch(self, by):
        self.epoch += by
        assert self.asking.node(RaiseEpoch(self.epoch)) == Done(self.asking.index, existed=True)

    @rule(start=RANGES, puts=st.booleans(), deletes=st.booleans(), limit=st.integers(0, 3), goes=st.integers(0, 3))
    def somebody_begins_to_follow(self, start, puts, deletes, limit, goes):
        if len(self.readers) > 3:
            self.readers.pop(goes)
        self.readers.append(Reader(start, puts, deletes, limit))

    @rule(which=st.integers(0, 3))
    def a_reader_asks(self, which):
        self.a_page(self.readers[which % len(self.readers)])

    @rule()
    def all_readers_come_to_the_end(self):
        for reader in self.readers:
            while self.a_page(reader):
                pass
            if reader.asks.puts and reader.asks.deletes:
                there = {k: v for k, v in self.now.items() if is_in(k, reader.asks.start, reader.asks.prefix)}
                assert reader.knows == there

    def a_page(self, reader):
        """Is there more?"""
        asks = reader.asks
        page = self.asking.query(
            ReadChanges(
                asks.start,
                prefix=asks.prefix,
                since=reader.since,
                skip=reader.skip,
                limit=asks.limit,
                puts=asks.puts,
                deletes=asks.deletes,
                previous=True,
            )
        )
        if reader.since <= self.oldest:
            assert page == Compacted(self.oldest)
            view = self.asking.query(ReadRange(asks.start, prefix=asks.prefix))
            reader.knows = {key.key: key for key in view.keys}
            reader.since, reader.skip = view.revision + 1, 0
            return True
        begins, ends = self.place(reader.since, reader.skip), self.place(page.since, page.skip)
        told = [change for change in self.changes[begins:ends] if reader.wants(change)]
        assert [*page.changes] == [ChangeView(c.revision, c.key, c.after, c.before) for c in told]
        assert not asks.limit or len(told) <= asks.limit
        is_at_its_end = ends == len(self.changes)
        assert is_at_its_end or len(told) == asks.limit, "a page that is not full goes to the end"
        for change in told:
            reader.knows.pop(change.key, None)
            if change.after is not None:
                reader.knows[change.key] = change.after
        reader.since, reader.skip = page.since, page.skip
        return not is_at_its_end

    def place(self, since, skip):
        return sum(change.revision < since for change in self.changes) + skip

    @rule(start=RANGES, back=st.integers(-1, 14))
    def a_revision_is_read(self, start, back):
        revision = max(1, self.asking.index - back)
        there = self.then(revision)
        view = self.asking.query(ReadRange(start[0], prefix=start[1], revision=revision))
        one = self.asking.query(ReadFile("q/1", revision=revision))
        if revision > self.asking.index:
            assert (view.code, one.code) == (commands.INVALID, commands.INVALID)
        elif revision < self.oldest:
            assert (view, one) == (Compacted(self.oldest), Compacted(self.oldest))
        else:
            assert {key.key: key for key in view.keys} == {k: v for k, v in there.items() if is_in(k, *start)}
            if isinstance(one, Failure):
                assert (one.code, "q/1" in there) == (commands.NOT_FOUND, False)
            else:
                assert (one.value, one.stat.version) == (there["q/1"].value, there["q/1"].version)

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def what_is_kept_begins_at_the_oldest(self):
        oldest = self.oldest
        if oldest > 1:
            assert self.asking.query(ReadFile("q/1", revision=oldest - 1)) == Compacted(oldest)
        if oldest:
            assert self.asking.query(ReadChanges("", prefix=True, since=oldest)) == Compacted(oldest)
        page = self.asking.query(ReadChanges("", prefix=True, since=oldest + 1))
        assert [(change.revision, change.key) for change in page.changes] == [c[:2] for c in self.kept()]
        view = self.asking.query(ReadRange("", prefix=True))
        assert {key.key: key for key in view.keys} == self.now

    @invariant()
    def numbers_of_files_only_grow(self):
        assert all(len(name) == 19 for name in self.names)
        assert all(one < other for one, other in pairwise(self.names))

    def teardown(self):
        self.asking.agree()
        for patch in self.few:
            patch.stop()


TestHistoryAgainstAModel = pytest.mark.interpreted(HistoryAgainstAModel.TestCase)
TestHistoryAgainstAModel.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[*HealthCheck]
)
