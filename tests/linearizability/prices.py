"""What it costs an order to let lost operations take effect, while no one counts how often each kind did.

A walk that does not count may use a kind of lost operation more often than there are operations of it. Prices make it
spare: each use costs 1, and more where earlier walks used too many. They are Lagrange multipliers of the constraints

    uses of the kind before its (j+1)-th operation is invoked  <=  j        (for each kind, and j = 1, 2, … all)
    uses of lost operations                                    <=  all of them

so besides guiding the walk they can refute: an order that keeps every constraint costs at most `budget`. If a
cheapest order costs more, there is none.

Costs are whole numbers, so that this comparison is exact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from tests.linearizability.timeline import Timeline

USE: Final = 10
"""The price of a use of any lost operation."""
RISE: Final = 4
DECAY=0.8
"""What each use too many adds to the price at first; less in later rounds."""


class Prices:
    """The price of each kind of lost operation, which falls as more of that kind are invoked."""

    def __init__(self, timeline: Timeline) -> None:
        self._layers = {entry.kind.number: entry.layers for entry in timeline.lost}
        self._extra = {number: [0] * (len(layers) + 1) for number, layers in self._layers.items()}
        """For each kind the multiplier of the constraint of each j; that of j = 0 stays 0."""
        self._uses_max = sum(len(layers) for layers in self._layers.values())
        self._tabulate()

    def _tabulate(self) -> None:
        self._price: dict[int, list[int]] = {}
        for number, layers in self._layers.items():
            price, total = [], USE
            for extra in reversed(self._extra[number]):
                total += extra
                price.append(total)
            self._price[number] = price[::-1]

    def price(self, kind: int, layer: int) -> int:
        """What one use of this kind costs in this layer."""
        return self._price[kind][bisect_right(self._layers[kind], layer)]

    @property
    def budget(self) -> int:
        """No order that uses each lost operation at most once, and after its invocation, costs more than this."""
        extra = sum(j * value for values in self._extra.values() for j, value in enumerate(values))
        return USE * self._uses_max + extra

    def adapt(self, uses: Mapping[int, Sequence[int]], round_number: int) -> None:
        """Raise the prices of what an order used too often, and lower those of what it now uses less than it may.

        `uses` holds for each kind the layers of its uses, in order.
        """
        for number, layers in self._layers.items():
            used = uses.get(number, ())
            extra = self._extra[number]
            for j in range(1, len(layers) + 1):
                before = len(used) if j == len(layers) else bisect_left(used, layers[j])
                if before > j:
                    extra[j] += RISE * (before - j)
                elif extra[j] and before < j:
                    extra[j] = int(extra[j]*DECAY)
        self._tabulate()
