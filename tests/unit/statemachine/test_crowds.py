"""Whoever is first is found at once, in a line of any length, however many were before.

A plain dict looks for its first key behind all that were deleted before it: in a line of 10,000 that is handed down, a
hand-over then costs by how many had it already. (`python -m bench.crowd` has the figures.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import pytest

from coordinator.statemachine import commands, handing, locks, snapshot
from coordinator.statemachine.commands import AcquireLock
from coordinator.statemachine.lock_commands import Acquire, ChangeMode, Release, Waiter
from coordinator.statemachine.machine import Machine
from coordinator.statemachine.state import State
from tests.unit.statemachine.asking import Asking


def finds_its_first_at_once(machine: Machine, name: str) -> tuple[bool, bool]:
    """The line, and those that hold it."""
    lock = machine.locks[name]
    return isinstance(lock.queue, OrderedDict), isinstance(lock.holders, OrderedDict)


def loaded(machine: Machine) -> Machine:
    again = Machine()
    snapshot.load(again, snapshot.dump(machine))
    return again


@pytest.mark.parametrize("mode", ["shared", "counting"])
def test_where_many_may_hold_it(mode: str):
    asking = Asking()
    asking.ask(asking.open(), Acquire(("a",), 0, mode, limit=2))  # type: ignore[arg-type]
    assert finds_its_first_at_once(asking.machine, "a")[1]
    assert finds_its_first_at_once(loaded(asking.machine), "a")[1]


def test_where_it_was_held_alone_and_is_shared_now():
    asking = Asking()
    session = asking.open()
    asking.ask(session, Acquire(("a",), 0))
    asking.ask(session, ChangeMode("a", 0, "shared"))
    assert finds_its_first_at_once(asking.machine, "a")[1]


def test_where_somebody_waits_also_when_the_place_was_taken_over():
    asking = Asking()
    holder, waiter = asking.open(), asking.open()
    asking.ask(holder, AcquireLock("a", 0, wait=True))
    asking.ask(waiter, AcquireLock("a", 0, wait=True))
    assert finds_its_first_at_once(asking.machine, "a")[0]
    asking.ask(waiter, AcquireLock("a", 1, wait=True, take_over=True))
    assert [*asking.machine.locks["a"].queue] == [(waiter, 1)]
    assert finds_its_first_at_once(asking.machine, "a")[0]
    assert finds_its_first_at_once(loaded(asking.machine), "a")[0]


@pytest.mark.interpreted
def test_names_that_a_session_leaves_behind_are_handed_on_one_by_one(monkeypatch: pytest.MonkeyPatch):
    """Each is looked at once, though all are let go by one entry."""
    asking = Asking()
    session, heir = asking.open(), asking.open()
    for number in range(300):
        asking.ask(session, AcquireLock(f"lock{number:03}", 0, wait=True))
        asking.ask(heir, AcquireLock(f"lock{number:03}", 0, wait=True))
    looks: list[str] = []
    is_next = handing._is_next

    def counted(state: State, waiter: Waiter) -> bool:
        looks.extend(waiter.names)
        return is_next(state, waiter)

    monkeypatch.setattr(handing, "_is_next", counted)
    asking.node(commands.ExpireSessions((session,)))
    assert looks == [f"lock{number:03}" for number in range(300)]
    assert all(lock.holder.session == heir for lock in asking.machine.locks.values() if lock.holder is not None)


class CountingDict(OrderedDict[tuple[int, int], object]):
    """Counts the keys that are gone over."""

    passed = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for key in super().__iter__():
            CountingDict.passed += 1
            yield key


@pytest.mark.interpreted
@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_re_entrant_ones_that_are_let_in_together_do_not_go_over_those_before_them(
    monkeypatch: pytest.MonkeyPatch, mode: str
):
    """Else ten sessions, with all the places that they may have, hold up every replica for minutes by one release."""
    monkeypatch.setattr(locks, "OrderedDict", CountingDict)
    monkeypatch.setattr(CountingDict, "passed", 0)
    asking = Asking()
    holder = asking.open()
    asking.ask(holder, Acquire(("a",), 0, "shared"))
    asking.ask(asking.open(), AcquireLock("a", 0, wait=True))
    crowd = [asking.open() for _ in range(4 if mode == "shared" else 1)]
    for session in crowd:
        for number in range(200 // len(crowd)):
            asking.ask(session, Acquire(("a",), number, mode, reentrant=True))  # type: ignore[arg-type]
    asking.ask(holder, Release(("a",), 0))
    before = CountingDict.passed
    asking.node(commands.ExpireSessions((holder + 2,)))
    assert len(asking.machine.locks["a"].holders) == 200
    assert CountingDict.passed - before <= 3 * 200
