"""States that must yet come, and the last operations that can bring them: to see early that a configuration is lost.

A write that one read alone has seen can take effect once. Where it has, the state was left again, and the read is still
open, no order follows. Without looking ahead that turns out when the read returns, after many vain steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from tests.linearizability.kinds import Lost
from tests.linearizability.layers import Demand, Layer
from tests.linearizability.models import ANY_STATE, State

_DEMANDS_A_LAYER_MAX: Final = 32
"""On average. A demand only spares work, so those that hold for many layers are left out beyond that."""


def set_demands(layers: Sequence[Layer], lost: Sequence[Lost], roots: Mapping[int, Collection[State] | None]) -> None:
    """Sets the demands of each layer. `roots` gives for each kind the guards of which it is a root."""
    roots_of: dict[int, frozenset[State]] = {}
    for number, guards in roots.items():
        if guards is None:
            return
        roots_of[number] = frozenset(guards)
    opened: dict[int, list[int]] = {entry.kind.number: list(entry.layers) for entry in lost}
    """For each kind the layers in which one of its operations opened, in order."""
    last_wanted: dict[State, int] = {}
    targets: list[State] = []
    """For each layer the only state in which its target is legal, or ANY_STATE."""
    last_opened: dict[State, int] = {}
    for index, layer in enumerate(layers):
        targets.append(ANY_STATE)
        for bit, _, kind in layer.open:
            if bit & layer.must_opened:
                opened.setdefault(kind.number, []).append(index)
                if kind.traits.guard is not ANY_STATE:
                    last_opened[kind.traits.guard] = index
            if bit == layer.target and kind.traits.guard is not ANY_STATE:
                last_wanted[kind.traits.guard] = index
                targets[index] = kind.traits.guard
    last_rooted = dict.fromkeys(last_wanted, 0)
    for number, opened_in in opened.items():
        opened_in.sort()
        for guard in roots_of[number] & last_wanted.keys():
            before = bisect_right(opened_in, last_wanted[guard])
            if before:
                last_rooted[guard] = max(last_rooted[guard], opened_in[before - 1])
    lost_roots = dict.fromkeys(last_wanted, 0)
    for entry in lost:
        for guard in roots_of[entry.kind.number] & lost_roots.keys():
            lost_roots[guard] |= entry.bits
    left = _DEMANDS_A_LAYER_MAX * len(layers)
    for guard, last in sorted(last_wanted.items(), key=lambda item: item[1] - last_rooted[item[0]]):
        left -= last + 1 - last_rooted[guard]
        if left < 0:
            # A demand only spares work. The long ones are the dear ones.
            return
        for index in range(last_rooted[guard], last + 1):
            layer = layers[index]
            waiting = sum(bit for bit, _, kind in layer.open if kind.traits.guard == guard)
            bringing = sum(bit for bit, _, kind in layer.open if guard in roots_of[kind.number])
            waiting = -1 if last_opened[guard] > index else waiting
            demand = Demand(guard, waiting, bringing | lost_roots[guard])
            layer.demands.append(demand)
            if targets[index] == guard:
                layer.demand_of_target = demand
