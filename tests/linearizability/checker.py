"""The verdict on a whole history: the keys are searched in turns, so that one hard key never keeps the deciding one."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.linearizability.history import Operation, split_by_key
from tests.linearizability.models import Model, State
from tests.linearizability.search import Search
from tests.linearizability.walk import place

TURN_STEPS: Final = 2_000
"""Steps that one key may work before the next has its turn; a few tens of milliseconds."""


class Verdict(enum.Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"
    """The time limit came first."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where a history that is not linearizable can not be ordered any further."""

    key: str
    stuck: Operation
    """No order of what was invoked before its return explains this operation and all that returned before it."""
    open: tuple[Operation, ...]
    """What was invoked before that return and had not returned before it, `stuck` among it: what is in flight there."""
    prefix: tuple[Operation, ...]
    """A longest order that could be found: it explains everything that returned before `stuck` did."""
    states: tuple[State, ...]
    """States that such orders can leave, in no order, at most WINDOW_STATES_MAX."""
    is_exact: bool
    """False if an operation of unknown outcome stands in `prefix` more often than it was invoked: not even then is
    there an order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict, and what speaks for it."""

    verdict: Verdict
    orders: Mapping[str, tuple[Operation, ...]] = field(default_factory=dict)
    """For a linearizable history: for each key an order of all that took effect."""
    window: Window | None = None
    """For a history that is not."""
    steps: int = 0
    """Configurations looked at: a measure of the work that does not depend on the machine."""


WINDOW_STATES_MAX: Final = 8


def check(
    model: Model,
    operations: Iterable[Operation],
    *,
    time_limit_s: float | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Whether the history is linearizable as `model` says what each of its keys does.

    Without a time limit the verdict is never UNKNOWN, and the search may take time exponential in the number of
    operations that are open at once. `now` gives seconds.
    """
    deadline = None if time_limit_s is None else now() + time_limit_s
    keys = split_by_key(operations)
    # Short histories first: most are decided in their first turn.
    turns = deque(sorted(keys, key=lambda key: len(keys[key])))
    searches: dict[str, Search] = {}
    orders: dict[str, tuple[Operation, ...]] = {}
    steps = 0
    while turns:
        if deadline is not None and now() >= deadline:
            return Outcome(Verdict.UNKNOWN, steps=steps)
        key = turns.popleft()
        search = searches.get(key)
        if search is None:
            search = searches[key] = Search(model, keys[key])
        before = search.steps
        answer = search.advance(TURN_STEPS)
        steps += search.steps - before
        if answer is None:
            turns.append(key)
        elif answer:
            assert search.order is not None
            verify_order(model, keys[key], search.order)
            orders[key] = search.order
            del searches[key]
        else:
            return Outcome(Verdict.NOT_LINEARIZABLE, window=_window(key, keys[key], search), steps=steps)
    return Outcome(Verdict.LINEARIZABLE, orders=orders, steps=steps)


def verify_order(model: Model, operations: Sequence[Operation], order: Sequence[Operation]) -> None:
    """Asserts that an order of the operations of one key is a linearization: that the search is wrong is a defect.

    Every operation that returned is in it once and every other at most once; each is legal in the state that those
    before it leave; none stands before one that had returned when it was invoked.
    """
    numbers = [operation.number for operation in order]
    assert len(set(numbers)) == len(numbers), "an operation takes effect twice"
    must = {operation.number for operation in operations if not operation.outcome_is_unknown}
    may = {operation.number for operation in operations}
    never_placed = must.difference(numbers)
    # What changes nothing and constrains nothing may be left out: a read without an answer.
    assert not never_placed and may.issuperset(numbers), "an operation is missing or strange"
    state = model.initial
    latest_invocation = -1
    for operation in order:
        assert operation.returned is None or operation.returned > latest_invocation, "real time is not kept"
        latest_invocation = max(latest_invocation, operation.invoked)
        is_legal, state = model.step(state, operation)
        assert is_legal, "an operation is placed where it is not legal"


def _window(key: str, operations: Sequence[Operation], search: Search) -> Window:
    walk = search.last_walk
    if walk is None or not walk.furthest_configurations: return None
    layer = search.timeline.layers[walk.furthest]
    placed = place(search.timeline, walk.furthest_configurations[0][3])
    states: list[State] = []
    for configuration in walk.furthest_configurations:
        if configuration[0] not in states and len(states) < WINDOW_STATES_MAX:
            states.append(configuration[0])
    in_flight = tuple(
        operation
        for operation in operations
        if operation.invoked < layer.position and (operation.returned is None or operation.returned >= layer.position)
    )
    return Window(key, layer.target_operation, in_flight, placed.order, tuple(states), placed.is_exact)
