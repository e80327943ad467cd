"""Where a history that is not linearizable can not be ordered any further: what to show to someone who asks why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.linearizability.crossing import Effort
from tests.linearizability.history import Operation, split_by_key
from tests.linearizability.models import Model, State
from tests.linearizability.placing import place
from tests.linearizability.search import AT_ONCE
from tests.linearizability.timeline import Timeline
from tests.linearizability.walk import Rules, Walk

STEPS_MAX: Final = 300_000
"""After so many the furthest point found so far is taken for the furthest there is; some seconds."""
STATES_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Window:
    """The furthest point that an order can reach, and what is in flight there."""

    key: str
    stuck: Operation
    """There is an order of all that returned before this operation did, and none of all that and this."""
    in_flight: tuple[Operation, ...]
    """What was invoked before `stuck` returned and had not returned before it, `stuck` among it."""
    prefix: tuple[Operation, ...]
    """A longest order: it explains everything that returned before `stuck` did."""
    states: tuple[State, ...]
    """States that such orders may leave; at most STATES_MAX of them."""
    is_furthest: bool
    """False if the search for this point was cut short: an order may reach further, though none reaches the end."""


def find_window(model: Model, operations: Iterable[Operation], key: str) -> Window:
    """The window of a key that is not linearizable."""
    of_key = split_by_key(operations)[key]
    timeline = Timeline(model, of_key)
    effort = Effort(limit=2 * STEPS_MAX)
    rules = Rules(counted=timeline.lost_bits, at_once=AT_ONCE, steps_max=STEPS_MAX, looks_ahead=False)
    walk = Walk(timeline, rules, effort)
    found: bool | None = None
    try:
        next(walk.find())
    except StopIteration as end:
        found = end.value
    assert found is not True, "the key is not linearizable"
    layer = timeline.layers[walk.furthest]
    orders = [place(timeline, trace).order for _, _, _, trace, _ in walk.furthest_configurations]
    states: list[State] = []
    for order in orders:
        state = _state_after(model, order)
        if state not in states and len(states) < STATES_MAX:
            states.append(state)
    in_flight = (
        operation
        for operation in of_key
        if operation.invoked < layer.position and (operation.returned is None or operation.returned >= layer.position)
    )
    return Window(key, layer.target_operation, tuple(in_flight), orders[0], tuple(states), is_furthest=found is False)


def _state_after(model: Model, order: Iterable[Operation]) -> State:
    state = model.initial
    for operation in order:
        is_legal, state = model.step(state, operation)
        assert is_legal, "an order is placed where each operation is legal"
    return state
