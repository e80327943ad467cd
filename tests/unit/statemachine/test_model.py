"""The machine against a simple model, and against hostile bytes; the same log gives the same state everywhere."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import (
    AcquireLock,
    CloseSession,
    ExpireSessions,
    Granted,
    NotHeld,
    Queued,
    ReleaseLock,
)
from coordinator.statemachine.machine import Machine
from tests.unit.statemachine.asking import Asking

NAMES = st.sampled_from(["a", "b", "c"])


class LocksAgainstAModel(RuleBasedStateMachine):
    """The model: for each name a list of (session, acquisition), the first of which holds it."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.asking = Asking()
        self.lines: dict[str, list[tuple[int, int]]] = {"a": [], "b": [], "c": []}
        self.tokens = {"a": 0, "b": 0, "c": 0}
        self.count = 0
        """Of sessions that are open."""

    @rule(target=sessions)
    def open(self):
        self.count += 1
        return self.asking.open()

    @rule(session=sessions, name=NAMES, acquisition=st.integers(0, 2), wait=st.booleans())
    def acquire(self, session, name, acquisition, wait):
        line = self.lines[name]
        result = self.asking.ask(session, AcquireLock(name, acquisition, wait))
        who = (session, acquisition)
        if not line or line[0] == who:
            assert isinstance(result, Granted)
        elif not wait:
            assert isinstance(result, commands.Held)
            assert (result.holder.session, result.holder.acquisition) == line[0]
        else:
            place = line.index(who) if who in line else len(line)
            assert result == Queued(place)
        if who not in line and (wait or not line):
            line.append(who)

    @rule(session=sessions, name=NAMES, acquisition=st.integers(0, 2))
    def release(self, session, name, acquisition):
        who = (session, acquisition)
        result = self.asking.ask(session, ReleaseLock(name, acquisition))
        assert isinstance(result, NotHeld) == (who not in self.lines[name])
        if who in self.lines[name]:
            self.lines[name].remove(who)

    @rule(session=consumes(sessions))
    def close(self, session):
        self.asking.ask(session, CloseSession())
        self._end([session])

    @precondition(lambda self: self.count >= 2)  # Else the whole play is for nothing: what is taken first is the last.
    @rule(first=consumes(sessions), second=consumes(sessions))
    def expire(self, first, second):
        self.asking.node(ExpireSessions((first, second)))
        self._end([first, second])

    def _end(self, ended):
        self.count -= len(ended)
        for line in self.lines.values():
            line[:] = [who for who in line if who[0] not in ended]

    @invariant()
    def the_first_in_line_holds_and_tokens_only_grow(self):
        for name, line in self.lines.items():
            assert self.asking.holder(name) == (line[0] if line else None)
            view = self.asking.query(commands.GetLock(name))
            assert [(w.session, w.acquisition) for w in view.waiters] == line[1:]
            if view.holder is not None:
                assert view.token >= self.tokens[name]
                self.tokens[name] = view.token
        assert self.asking.machine.waiting == sum(max(0, len(line) - 1) for line in self.lines.values())

    def teardown(self):
        replayed = Machine()
        for index, entry in enumerate(self.asking.log, 1):
            replayed.apply(index, entry)
        assert replayed.digest() == self.asking.machine.digest()


TestLocksAgainstAModel = LocksAgainstAModel.TestCase
TestLocksAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_bytes_that_are_no_entry_change_nothing(garbage):
    asking = Asking()
    session = asking.open()
    asking.acquire(session)
    state = asking.machine.sessions, asking.machine.locks, asking.machine.keys
    for data in garbage:
        assert isinstance(asking.apply(data), commands.Failure)
    assert (asking.machine.sessions, asking.machine.locks, asking.machine.keys) == state
    assert asking.holder() == (session, 1)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_entry_that_decodes_crashes_an_apply_or_makes_two_replicas_differ(data):
    """A fuzzer over encoded commands: any operation with any fields, under any principal."""
    ints = st.one_of(st.integers(-3, 12), st.integers(-(2**63), 2**63 - 1))
    words = st.one_of(st.sampled_from(["", "a", "ci", "web", "narrow", "user:x", "read", "/a"]), st.text(max_size=8))
    one, two = Asking(), Asking()
    for _ in range(data.draw(st.integers(1, 12))):
        tag = data.draw(st.sampled_from([*range(1, 12), 100, 101]))
        fields = [data.draw(st.one_of(ints, words, st.booleans(), st.binary(max_size=8))) for _ in range(3)]
        if data.draw(st.booleans()):
            fields = data.draw(st.sampled_from(SHAPES[tag]))(data.draw, ints, words)
        entry = msgspec.msgpack.encode(
            [1, data.draw(words), data.draw(words), [data.draw(ints), data.draw(ints), data.draw(ints), [tag, *fields]]]
        )
        assert one.apply(entry) == two.apply(entry)
    assert one.machine.digest() == two.machine.digest()


SHAPES = {
    1: [lambda draw, i, w: [draw(i), draw(st.binary(max_size=40))]],
    2: [lambda draw, i, w: [draw(i)]],
    3: [lambda draw, i, w: [draw(w), draw(i), draw(st.booleans()), draw(i)]],
    4: [lambda draw, i, w: [draw(w), draw(i), draw(i)]],
    5: [lambda draw, i, w: [draw(w), draw(i), draw(i), draw(i)]],
    6: [lambda draw, i, w: [draw(w), draw(st.binary(max_size=9))]],
    7: [lambda draw, i, w: [draw(w)]],
    8: [lambda draw, i, w: [draw(w), [draw(w)], [draw(w)], draw(st.booleans())]],
    9: [lambda draw, i, w: [draw(w)]],
    10: [lambda draw, i, w: [draw(w), draw(w), draw(st.binary(max_size=9))]],
    11: [lambda draw, i, w: [draw(w)]],
    100: [lambda draw, i, w: [draw(i), draw(w), draw(i), [], []]],
    101: [lambda draw, i, w: [[draw(i), draw(i)]]],
}


def test_the_same_log_gives_the_same_bytes_and_another_log_others():
    one, two = Asking(), Asking()
    for asking in (one, two):
        asking.acquire(asking.open())
    assert one.machine.digest() == two.machine.digest()
    two.release(two.index - 1)
    assert one.machine.digest() != two.machine.digest()


def test_an_entry_out_of_order_is_a_defect_of_the_host():
    asking = Asking()
    with pytest.raises(AssertionError, match="comes after"):
        asking.machine.apply(asking.index, asking.log[0])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_snapshot_at_any_step_changes_nothing(data):
    """Snapshot and restore at every step equal no snapshot."""
    plain, restored = Asking(), Asking()
    sessions = [0]
    for _ in range(data.draw(st.integers(1, 25))):
        session = data.draw(st.sampled_from(sessions))
        number = data.draw(st.integers(1, 6))
        op = data.draw(
            st.one_of(
                st.builds(AcquireLock, NAMES, st.integers(0, 2), st.booleans()),
                st.builds(ReleaseLock, NAMES, st.integers(0, 2)),
                st.builds(commands.CancelAcquire, NAMES, st.integers(0, 2), st.integers(1, 6)),
                st.builds(commands.PutKey, NAMES, st.binary(max_size=4)),
                st.builds(CloseSession),
                st.just(commands.OpenSession(5_000, data.draw(st.binary(max_size=2)))),
            )
        )
        if isinstance(op, commands.OpenSession):
            session = 0
        results = [asking.send(session, number, op) for asking in (plain, restored)]
        assert results[0] == results[1]
        if isinstance(results[0], commands.SessionOpened):
            sessions.append(results[0].session)
        again = Machine()
        snapshot.load(again, snapshot.dump(restored.machine))
        restored.machine = again
        assert snapshot.dump(again) == snapshot.dump(plain.machine)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_snapshot_are_refused_and_change_nothing(garbage):
    asking = Asking()
    before = asking.machine.digest()
    with pytest.raises(snapshot.SnapshotDamaged):
        snapshot.load(asking.machine, garbage)
    assert asking.machine.digest() == before
