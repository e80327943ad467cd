"""Watches against polling: whoever waits, and goes on from where each answer says, hears what one reading of all
changes says: each once, in order, over changes of leader and answers that are late or lost."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from coordinator.replica.callers import Caller
from coordinator.replica.watches import Watch, Watches
from coordinator.statemachine.commands import DeleteKey, PutKey, Transact
from coordinator.statemachine.files import ChangePage, ChangeView, DeletePath, ReadChanges
from tests.unit.statemachine.asking import Asking

KEYS = ("a", "a/b", "a/c", "ab", "b", "b/a")
SELECTIONS = (
    ReadChanges("a"),
    ReadChanges("a", prefix=True),
    ReadChanges("a/", prefix=True, limit=1),
    ReadChanges("", prefix=True),
    ReadChanges("a/b", "b", limit=2),
    ReadChanges("b", "a"),
    ReadChanges("a", puts=False, previous=True),
    ReadChanges("", prefix=True, deletes=False, limit=3),
)


class Reader:
    def __init__(self, number: int, selection: ReadChanges, since: int) -> None:
        self.caller = Caller(f"channel{number % 3}", "0" * 16, b"k" * 32)
        self.number = number
        self.selection = selection
        self.position = (since, 0)
        self.heard: list[ChangeView] = []
        self.waits = False

    def question(self) -> ReadChanges:
        s = self.selection
        return ReadChanges(s.start, s.end, s.prefix, *self.position, s.limit, s.puts, s.deletes, s.previous)

    def take(self, page: object) -> None:
        assert isinstance(page, ChangePage)
        assert (page.since, page.skip) >= self.position
        self.heard += page.changes
        self.position = (page.since, page.skip)
        self.waits = False


class WatchesAgainstPolling(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.asking = Asking()
        self.session = self.asking.open()
        self.since = self.asking.index + 1
        self.now_us = 0
        self.watches = Watches()
        self.readers = [Reader(number, selection, self.since) for number, selection in enumerate(SELECTIONS)]

    def put(self, key: str) -> PutKey:
        return PutKey(key, str(self.asking.index).encode())

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True), looks=st.booleans())
    def they_change(self, keys, looks):
        self.asking.ask(self.session, Transact((), tuple(self.put(key) for key in keys)))
        if looks:
            self.look()

    @rule(key=st.sampled_from(KEYS), looks=st.booleans(), whole=st.booleans())
    def one_goes(self, key, looks, whole):
        self.asking.ask(self.session, DeletePath(key, recursive=True) if whole else DeleteKey(key))
        if looks:
            self.look()

    def look(self):
        self.watches.look(self.asking.machine.state)

    @rule(number=st.integers(0, len(SELECTIONS) - 1), wait=st.integers(0, 3))
    def a_reader_asks(self, number, wait):
        """Whether its last question was answered or not: then that answer was lost."""
        self.look()
        reader = self.readers[number]
        self.watches.forget(reader.caller, reader.number)
        page = self.asking.query(reader.question())
        if page.changes or page.since <= self.asking.index:
            return reader.take(page)
        query = reader.question()
        watch = Watch(reader.caller, reader.number, "ci", "", query)
        assert self.watches.add(watch, self.now_us + wait, self.asking.machine.state)
        reader.waits = True
        return None

    @rule(steps=st.integers(0, 3))
    def time_passes(self, steps):
        self.now_us += steps
        self.look()
        self.watches.pass_time(self.now_us, self.asking.machine.applied)

    @rule(count=st.integers(1, 4), lost=st.booleans())
    def some_are_answered(self, count, lost):
        for _ in range(count):
            woken = self.watches.take_woken()
            if woken is None:
                return
            reader = self.readers[woken.watch.request_id]
            assert reader.waits
            page = woken.page(self.asking.query(woken.query))
            if not lost:
                reader.take(page)

    @rule()
    def another_leads(self):
        assert len(self.watches.take_all()) == self.watches.count
        self.watches = Watches()
        for reader in self.readers:
            reader.waits = False

    def teardown(self):
        self.look()
        self.watches.pass_time(1 << 60, self.asking.machine.applied)
        while (woken := self.watches.take_woken()) is not None:
            self.readers[woken.watch.request_id].take(woken.page(self.asking.query(woken.query)))
        assert (self.watches.count, self.watches.count_of("ci")) == (0, 0)
        assert (self.watches._numbers, self.watches._of_changes.is_empty) == ({}, True)
        for reader in self.readers:
            while reader.position < (self.asking.index + 1, 0):
                reader.take(self.asking.query(reader.question()))
            polled: list[ChangeView] = []
            position = (self.since, 0)
            while position < (self.asking.index + 1, 0):
                s = reader.selection
                page = self.asking.query(
                    ReadChanges(s.start, s.end, s.prefix, *position, 0, s.puts, s.deletes, s.previous)
                )
                polled += page.changes
                position = (page.since, page.skip)
            assert reader.heard == polled, reader.selection


TestWatchesAgainstPolling = WatchesAgainstPolling.TestCase
TestWatchesAgainstPolling.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
