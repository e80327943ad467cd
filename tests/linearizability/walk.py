"""One walk through the layers of a key, looking for an order of its operations, with memory.

After Wing and Gong 1993 and Lowe 2017. It goes as deep as it can with the best configurations of each layer, and comes
back to the others when it is stuck. How a layer is crossed is in `crossing`, how walks are combined to a verdict in
`search`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import NamedTuple

from tests.linearizability.crossing import Arriving, Configuration, Crossing, Effort, Node, Seen, is_needless
from tests.linearizability.layers import Demand
from tests.linearizability.models import INDISTINCT, State
from tests.linearizability.moves import Moves
from tests.linearizability.prices import Prices
from tests.linearizability.timeline import Timeline


class Rules(NamedTuple):
    """How a walk goes about it. Which rules are chosen never makes its finding wrong, only weaker or slower."""

    counted: int = 0
    """Bits of the lost operations that are used up when they take effect; the others take effect over and over."""
    prices: Prices | None = None
    """What the steps of lost operations cost, if anything."""
    at_once: int = 1
    """Of more configurations in a layer the best go ahead; the others wait until those are stuck."""
    leeway: int | None = None
    """Within a layer, what costs so much more than the cheapest configuration there waits too."""
    steps_max: int | None = None
    """It gives up after about so many steps."""
    looks_ahead: bool = True
    """A configuration from which some demand can not be met is dropped at once, and not when that turns out."""


class Walk:
    """A walk from the initial state; `find` tells where it ends."""

    def __init__(self, timeline: Timeline, rules: Rules, effort: Effort) -> None:
        self._timeline = timeline
        self._rules = rules
        self._effort = effort
        self._moves = Moves(timeline, rules.counted, rules.prices)
        self._consumed = ~(timeline.lost_bits & ~rules.counted)
        self._waiting: list[tuple[int, list[Configuration], list[Node], Seen]] = []
        self._seen: dict[int, Seen] = {}
        self.end: Configuration | None = None
        """The configuration behind the last layer that was found; None if there is none."""
        self.furthest = -1
        """Index of the last layer that was reached."""
        self.furthest_configurations: list[Configuration] = []
        """Some configurations there; none if the walk ended before its first step."""

    def find(self) -> Generator[None, None, bool | None]:
        """Whether there is an order, counted by the rules; None if it gave up. Yields when the effort is used up."""
        timeline, rules, waiting = self._timeline, self._rules, self._waiting
        steps_max = math.inf if rules.steps_max is None else self._effort.steps + rules.steps_max
        waiting.append((0, self._enter(0, {(timeline.initial, 0, 0): (None, 0)}), [], {}))
        while waiting:
            index, configurations, nodes, reached = waiting.pop()
            if index == len(timeline.layers):
                self.end = min(configurations, key=_cost)
                return True
            if self._effort.steps >= steps_max:
                return None
            if len(configurations) > rules.at_once:
                waiting.append((index, configurations[rules.at_once :], [], {}))
                configurations = configurations[: rules.at_once]
            if index > self.furthest:
                self.furthest = index
                self.furthest_configurations = configurations
            if not configurations and not nodes:
                continue
            crossing = Crossing(timeline, self._moves, index, self._consumed, reached)
            yield from crossing.run(self._moves, configurations, nodes, rules.leeway, self._effort)
            if crossing.later:
                waiting.append((index, [], crossing.later, reached))
            if crossing.arriving:
                waiting.append((index + 1, self._enter(index + 1, crossing.arriving), [], {}))
        return False

    def _enter(self, index: int, arriving: Arriving) -> list[Configuration]:
        """The configurations as they stand at this layer, the best first, without those that others make needless."""
        if index == len(self._timeline.layers):
            return [(*key, *value) for key, value in arriving.items()]
        entered = self._opened(index, arriving)
        if len(entered) > 1:
            entered.sort(key=_constraint)
        elif not self._waiting:
            return entered
        # Configurations left waiting may still arrive at this layer later, so what was seen here is remembered then.
        seen = self._seen.setdefault(index, {}) if self._waiting else {}
        kept = []
        for entry in entered:
            state, must, may, _, cost = entry
            others = seen.get(state)
            if others is None:
                seen[state] = [(must, may, cost)]
            elif is_needless(others, must, may, cost):
                continue
            else:
                others.append((must, may, cost))
            kept.append(entry)
        if self._rules.prices is not None:
            kept.sort(key=_cost)
        return kept

    def _opened(self, index: int, arriving: Arriving) -> list[Configuration]:
        """The configurations with what was invoked since the last layer, and what that settles."""
        timeline = self._timeline
        layer = timeline.layers[index]
        if layer.groups is None:
            layer.prepare()
        demands = layer.demands if self._rules.looks_ahead else []
        entered: list[Configuration] = []
        for (state, must, may), (trace, cost) in arriving.items():
            if timeline.told_apart_until(state) < layer.position:
                state = INDISTINCT
            must |= layer.must_opened
            may |= layer.may_opened
            settled = must and timeline.settled(layer, state) & must
            if settled:
                must ^= settled
                may |= settled & layer.changing
                trace = (trace, index, 0, 0, settled)
            if not demands or self._can_meet(demands, state, must, may):
                entered.append((state, must, may, trace, cost))
        return entered

    def _can_meet(self, demands: list[Demand], state: State, must: int, may: int) -> bool:
        for guard, waiting, roots in demands:
            if (waiting < 0 or must & waiting) and not (must | may) & roots and not self._timeline.leads(state, guard):
                return False
        return True


def _constraint(configuration: Configuration) -> tuple[int, int]:
    """Sorts what can make others needless before them."""
    return configuration[1].bit_count() - configuration[2].bit_count(), configuration[4]


def _cost(configuration: Configuration) -> int:
    return configuration[4]
