"""The verdict on a whole history: the keys are searched in turns, so that one hard key never keeps the deciding one."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.linearizability.history import Operation, split_by_key
from tests.linearizability.models import Model
from tests.linearizability.search import Search

TURN_STEPS: Final = 2_000
"""Steps that a key may work before the next has its turn; a few tens of milliseconds."""


class Verdict(enum.Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"
    """The limit of time or steps came first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict, and what speaks for it."""

    verdict: Verdict
    orders: Mapping[str, tuple[Operation, ...]] = field(default_factory=dict)
    """If linearizable: for each key all that took effect, in an order that explains what the clients saw."""
    bad_key: str | None = None
    """If not: a key whose operations can not be ordered. `window.find_window` says where."""
    steps: int = 0
    """Configurations looked at: a measure of the work that does not depend on the machine."""


def check(
    model: Model,
    operations: Iterable[Operation],
    *,
    time_limit_s: float | None = None,
    steps_max: int | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Whether the history is linearizable, where `model` says what each of its keys does.

    Without a limit the verdict is never UNKNOWN. To decide is NP-complete, so there are histories, with very many
    operations open at once, on which it takes too long. `now` gives seconds. A limit of steps (`Outcome.steps`, some
    100,000 a second) gives the same verdict on every machine; it may be passed by a turn of one key.
    """
    deadline = None if time_limit_s is None else now() + time_limit_s
    keys = split_by_key(operations)
    # Short histories first: most are decided in their first turn.
    turns = deque(sorted(keys, key=lambda key: len(keys[key])))
    searches: dict[str, Search] = {}
    orders: dict[str, tuple[Operation, ...]] = {}
    steps = 0
    while turns:
        if (deadline is not None and now() >= deadline) or (steps_max is not None and steps >= steps_max):
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
            return Outcome(Verdict.NOT_LINEARIZABLE, bad_key=key, steps=steps)
    return Outcome(Verdict.LINEARIZABLE, orders=orders, steps=steps)


def verify_order(model: Model, operations: Sequence[Operation], order: Sequence[Operation]) -> None:
    """Asserts that an order of the operations of one key is a linearization, by the model's `initial` and `step` alone.

    Every operation that returned is in it once and every other at most once; each is legal in the state that those
    before it leave; none stands behind one that was invoked after it had returned.
    """
    numbers = {operation.number for operation in order}
    assert len(numbers) == len(order), "an operation takes effect twice"
    assert numbers <= {operation.number for operation in operations}, "a strange operation"
    returned = {operation.number for operation in operations if not operation.outcome_is_unknown}
    assert returned <= numbers, "an operation that returned is missing"
    state = model.initial
    latest_invocation = -1
    for operation in order:
        assert operation.returned is None or operation.returned > latest_invocation, "real time is not kept"
        latest_invocation = max(latest_invocation, operation.invoked)
        is_legal, state = model.step(state, operation)
        assert is_legal, "an operation is placed where it is not legal"
