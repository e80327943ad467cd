"""The search for deadlocks against a model that follows every wait, in chance's histories and behind crowds."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from coordinator.statemachine import deadlocks, snapshot
from coordinator.statemachine.commands import Done, ExpireSessions, Queued
from coordinator.statemachine.lock_commands import (
    CYCLE_STEPS_MAX,
    EXCLUSIVE,
    Acquire,
    ChangeMode,
    Deadlock,
    HandOver,
    LockWait,
    Release,
)
from tests.simulation.model.truth import Truth, agree
from tests.simulation.mutants.edits import Edit, planted_edits
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

NAMES = "abcd"
SESSIONS = 5


class Compared(Asking):
    """Each entry is done by the model, too."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.deadlocks: dict[str, int] = {}
        super().__init__(epoch=0)

    def apply(self, entry: bytes) -> Any:
        self.truth.apply(self.index + 1, entry)
        result = super().apply(entry)
        expected = self.truth.expected
        assert agree(expected.result, result), f"{expected.command.op} is {result}, expected {expected.result}"
        if isinstance(result, Deadlock):
            op = expected.command.op
            kind = type(op).__name__
            self.deadlocks[kind] = self.deadlocks.get(kind, 0) + 1
            self.is_a_cycle(op, expected.command.session, result.cycle)
        return result

    def is_a_cycle(self, op: Any, asker: int, cycle: tuple[LockWait, ...]) -> None:
        """Each waits for the next, but for what is only asked for: the caller's first wait."""
        assert len({wait.session for wait in cycle}) == len(cycle)
        if isinstance(op, HandOver):
            assert (cycle[0].session, cycle[-1].name) == (op.to_session, op.name)
            known = cycle
        else:
            assert cycle[0].session == asker
            known = (*cycle[1:], cycle[0])
        for one, other in pairwise(known):
            assert other.session in {*self.truth.locks._waited_for(one.session)}


def one_step(chance: random.Random, asking: Compared, sessions: list[int]) -> None:
    who = chance.choice(sessions)
    names = tuple(chance.sample(NAMES, chance.choice((1, 1, 1, 2))))
    mode: Any = chance.choice(("exclusive", "exclusive", "shared", "shared", "counting"))
    acquisition = asking.index
    roll = chance.random()
    if roll < 0.62:
        asking.ask(
            who,
            Acquire(
                names,
                acquisition,
                mode,
                chance.random() < 0.9,
                2,
                reentrant=chance.random() < 0.3,
                refuse_deadlocks=chance.random() < 0.8,
            ),
        )
    elif roll < 0.72:
        lock = asking.machine.locks.get(names[0])
        if lock is not None and lock.holders:
            has, acquisition = chance.choice([*lock.holders])
            asking.ask(has, ChangeMode(names[0], acquisition, chance.choice(("shared", EXCLUSIVE, EXCLUSIVE))))
    elif roll < 0.86:
        lock = asking.machine.locks.get(names[0])
        if lock is not None and lock.holder is not None:
            heir = chance.choice([*lock.queue, (chance.choice(sessions), acquisition)])
            has, acquisition = chance.choice([*lock.holders])
            asking.ask(has, HandOver(names[0], acquisition, *heir))
    elif roll < 0.97:
        lock = asking.machine.locks.get(names[0])
        if lock is not None:
            has, acquisition = chance.choice([*lock.holders, *lock.queue])
            asking.ask(has, Release(names, acquisition))
    else:
        place = sessions.index(who)
        asking.node(ExpireSessions((who,)))
        sessions[place] = asking.open()


def compared(seed: int) -> dict[str, int]:
    """How many cycles were found, by command."""
    chance = random.Random(seed)
    asking = Compared()
    sessions = [asking.open() for _ in range(SESSIONS)]
    for _ in range(300):
        one_step(chance, asking, sessions)
    return asking.deadlocks


@pytest.mark.parametrize("seed", range(25))
def test_a_cycle_is_found_where_the_model_finds_one_and_nowhere_else(seed: int) -> None:
    assert compared(seed)["Acquire"] > 0


def test_chance_makes_upgrades_and_hand_overs_that_would_close_a_cycle() -> None:
    kinds = [compared(1_000 + seed) for seed in range(4)]
    assert {kind for found in kinds for kind in found} == {"Acquire", "ChangeMode", "HandOver"}


_DEADLOCKS = "coordinator.statemachine.deadlocks"
PLANTED = [
    (
        "a-hand-over-into-a-cycle",
        Edit("coordinator.statemachine.lock_changes:hand_over", "    if cycle:\n", "    if False:\n"),
    ),
    (
        "an-heir-that-stands-in-line-still",
        Edit(f"{_DEADLOCKS}:_Waits._has_left", "return self", "return False and self"),
    ),
    (
        "a-giver-that-holds-it-still",
        Edit(f"{_DEADLOCKS}:_Waits._is_given", "return self._given is not None", "return False"),
    ),
    (
        "who-only-counts-waits-for-the-heir",
        Edit(f"{_DEADLOCKS}:cycle_of_heir", "_excludes(lock.mode, lock.queue[waited_for, one].mode) for", "True for"),
    ),
    (
        "who-shares-waits-for-an-heir-that-shares",
        Edit(
            f"{_DEADLOCKS}:_kept_out_by_heir",
            "heir and _excludes(lock.mode, waiter.mode)",
            "heir and waiter.mode != COUNTING",
        ),
    ),
    (
        "what-was-gone-over-for-sharers-is-not-for-others",
        Edit(f"{_DEADLOCKS}:_Waits._after", "self._behind.get((lock.name, mode))", "self._behind.get((lock.name, ''))"),
        Edit(f"{_DEADLOCKS}:_Waits._after", "self._behind[lock.name, mode] = ", "self._behind[lock.name, ''] = "),
    ),
    (
        "who-comes-now-goes-over-its-own-places-for-all",
        Edit(
            f"{_DEADLOCKS}:_Waits.at_the_end",
            "_Line(iter(lock.queue.items()))",
            "self._ahead.setdefault((lock.name, mode), _Line(iter(lock.queue.items())))",
        ),
    ),
    ("a-side-that-is-over-says-nothing", Edit(f"{_DEADLOCKS}:_met", "other.knows(found):", "False:")),
]


@pytest.mark.interpreted
@pytest.mark.parametrize("edits", [edits for _, *edits in PLANTED], ids=[str(name) for name, *_ in PLANTED])
def test_each_of_these_bugs_is_found_by_chance(edits: list[Edit]) -> None:
    with planted_edits(edits), pytest.raises((AssertionError, KeyError)):
        any(compared(seed) == {} for seed in range(60))


# --- hand-overs -----------------------------------------------------------------------------------


def handing(*, wants: str = "y") -> tuple[Asking, int, int, int]:
    """The first holds x, the second holds y and waits for x, and the third waits for y, or for another name."""
    asking = Asking()
    giver, holder, heir = (asking.open() for _ in range(3))
    asking.ask(giver, Acquire(("x",), 1))
    asking.ask(holder, Acquire(("y",), 1))
    asking.ask(giver, Acquire(("z",), 1))
    assert isinstance(asking.ask(heir, Acquire((wants,), 1)), Queued)
    assert isinstance(asking.ask(holder, Acquire(("x",), 2)), Queued)
    return asking, giver, holder, heir


def test_a_hand_over_that_would_close_a_cycle_is_refused_with_the_cycle_and_changes_nothing() -> None:
    asking, giver, holder, heir = handing()
    before = snapshot.dump(asking.machine)
    refused = asking.ask(giver, HandOver("x", 1, heir, 5))
    assert refused == Deadlock((LockWait(heir, "y"), LockWait(holder, "x")))
    assert asking.holder("x") == (giver, 1)
    asking.machine.sessions[giver].results.popitem()
    asking.machine.state.applied -= 1
    assert snapshot.dump(asking.machine) == before
    assert isinstance(asking.ask(giver, Release(("x",), 1)), Done)
    assert asking.holder("x") == (holder, 2)


def test_a_hand_over_to_one_that_waits_for_nobody_in_line_is_done() -> None:
    asking, giver, _, heir = handing(wants="z")
    assert isinstance(asking.ask(giver, HandOver("x", 1, heir, 5)), Done)
    assert asking.holder("x") == (heir, 5)


def test_a_hand_over_to_one_that_stands_in_line_for_two_names_is_refused_too() -> None:
    asking, giver, holder, heir = handing()
    asking.ask(heir, Acquire(("x",), 5))
    assert asking.ask(giver, HandOver("x", 1, heir, 5)) == Deadlock((LockWait(heir, "y"), LockWait(holder, "x")))
    assert [*asking.machine.locks["x"].queue] == [(holder, 2), (heir, 5)]


def test_a_hand_over_closes_a_longer_cycle() -> None:
    asking, giver, holder, _ = handing(wants="z")
    heir, between = asking.open(), asking.open()
    asking.ask(between, Acquire(("w",), 1))
    asking.ask(between, Acquire(("y",), 2))
    asking.ask(heir, Acquire(("w",), 1))
    assert asking.ask(giver, HandOver("x", 1, heir, 5)) == Deadlock(
        (LockWait(heir, "w"), LockWait(between, "y"), LockWait(holder, "x"))
    )


def test_a_hand_over_to_one_that_waits_for_its_giver_who_stands_in_line_itself_is_refused() -> None:
    asking = Asking()
    giver, heir = asking.open(), asking.open()
    for name in "xz":
        asking.ask(giver, Acquire((name,), 1))
    asking.ask(heir, Acquire(("z",), 1))
    assert asking.ask(giver, Acquire(("x",), 2)) == Queued(1)
    assert asking.ask(giver, HandOver("x", 1, heir, 5)) == Deadlock((LockWait(heir, "z"), LockWait(giver, "x")))


def test_a_hand_over_to_another_acquisition_of_its_session_closes_nothing() -> None:
    asking, giver, _, _ = handing()
    asking.ask(giver, Acquire(("y",), 4, refuse_deadlocks=False))
    assert isinstance(asking.ask(giver, HandOver("x", 1, giver, 5)), Done)


def test_a_hand_over_beside_a_crowd_is_refused() -> None:
    crowd = Crowd(MANY)
    heir, last = crowd.open(), crowd.takes("y")
    crowd.ask(heir, Acquire(("y",), 1))
    crowd.ask(last, Acquire(("crowd",), 2))
    assert crowd.ask(crowd.first, HandOver("crowd", 1, heir, 5)) == Deadlock(
        (LockWait(heir, "y"), LockWait(last, "crowd"))
    )


# --- crowds ---------------------------------------------------------------------------------------


class Crowd(Asking):
    """A lock that somebody holds, and very many that wait for it."""

    def __init__(self, waiters: int) -> None:
        super().__init__()
        self.first = self.open()
        self.ask(self.first, Acquire(("crowd",), 1))
        self.line = [self.open() for _ in range(waiters)]
        for session in self.line:
            self.acquire(session, "crowd")

    def takes(self, name: str, session: int = 0) -> int:
        session = session or self.open()
        self.ask(session, Acquire((name,), 7))
        return session


MANY = CYCLE_STEPS_MAX * 2


def test_a_cycle_of_two_behind_a_crowd_is_found() -> None:
    crowd = Crowd(MANY)
    last = crowd.takes("y")
    crowd.ask(last, Acquire(("crowd",), 2))
    assert crowd.ask(crowd.first, Acquire(("y",), 2)) == Deadlock((LockWait(crowd.first, "y"), LockWait(last, "crowd")))


def test_so_it_is_by_whoever_asks_last() -> None:
    crowd = Crowd(MANY)
    last = crowd.takes("y")
    crowd.ask(crowd.first, Acquire(("y",), 2))
    assert crowd.ask(last, Acquire(("crowd",), 2)) == Deadlock((LockWait(last, "crowd"), LockWait(crowd.first, "y")))


def test_a_longer_way_behind_a_crowd_is_found() -> None:
    crowd = Crowd(MANY)
    takers = [crowd.takes(f"y{number}") for number in range(20)]
    for number, taker in enumerate(takers[:-1]):
        assert isinstance(crowd.ask(taker, Acquire((f"y{number + 1}",), 2)), Queued)
    crowd.ask(takers[-1], Acquire(("crowd",), 2))
    refused = crowd.ask(crowd.first, Acquire(("y0",), 2))
    assert isinstance(refused, Deadlock)
    assert [wait.session for wait in refused.cycle] == [crowd.first, *takers]


def test_one_in_the_middle_of_a_crowd_that_waits_for_who_comes_last_is_found() -> None:
    crowd = Crowd(MANY)
    last, middle = crowd.takes("y"), crowd.line[MANY // 2]
    crowd.ask(middle, Acquire(("y",), 2))
    assert crowd.ask(last, Acquire(("crowd",), 2)) == Deadlock((LockWait(last, "crowd"), LockWait(middle, "y")))


def test_who_holds_a_crowded_name_is_found_though_the_line_before_the_caller_is_long_too() -> None:
    """Whom it holds up, and the line that it joins, are more than either search goes over."""
    crowd = Crowd(MANY)
    other = crowd.takes("z")
    for _ in range(MANY):
        crowd.acquire(crowd.open(), "z")
    crowd.ask(other, Acquire(("crowd",), 2))
    assert crowd.ask(crowd.first, Acquire(("z",), 2)) == Deadlock(
        (LockWait(crowd.first, "z"), LockWait(other, "crowd"))
    )


@pytest.mark.interpreted
def test_a_search_without_a_cycle_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds one crowded name and joins another line, of others, goes over as much as it may, and is let in."""
    crowd = Crowd(MANY)
    other = crowd.takes("z")
    for _ in range(MANY):
        crowd.acquire(crowd.open(), "z")
    steps = 0
    step = deadlocks._Side.step

    def counted(side: Any, state: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(side, state)

    monkeypatch.setattr(deadlocks._Side, "step", counted)
    assert crowd.ask(crowd.first, Acquire(("z",), 2)) == Queued(MANY + 1)
    assert steps == CYCLE_STEPS_MAX
    assert other


def test_no_part_of_a_line_is_gone_over_twice() -> None:
    """A crowd of which nobody holds anything else is gone over once, and then it is known that there is no cycle."""
    crowd = Crowd(1_000)
    free = crowd.takes("y")
    assert free
    assert crowd.ask(crowd.first, Acquire(("y",), 2)) == Queued(1)
    waits = deadlocks._Waits(crowd.machine.state)
    sessions = crowd.machine.state.sessions.rows
    steps = [step for session in crowd.line for step in waits.of_those_behind(sessions[session])]
    assert len([step for step in steps if step is not None]) == len(crowd.line) - 1


def test_replicas_that_began_with_a_snapshot_find_the_same_cycle() -> None:
    asking = Asking()
    a, b, c = (asking.open() for _ in range(3))
    for session, names in ((a, "xpq"), (b, "yrs"), (c, "ztu")):
        for name in names:
            asking.ask(session, Acquire((name,), 1))
    asking.ask(b, Acquire(("p",), 2))
    asking.ask(b, Acquire(("q",), 3))
    asking.ask(c, Acquire(("r", "q"), 2))
    other = restored(asking.machine)
    before = asking.index
    told = asking.ask(a, Acquire(("s", "z"), 5))
    assert isinstance(told, Deadlock)
    assert other.apply(before + 1, asking.log[-1]) == told
    assert isinstance(asking.ask(c, Release(("t",), 1)), Done)
