"""What it costs an order to let lost operations take effect, while no one counts how often each kind did.

A walk that does not count may use a kind of lost operation more often than there are operations of it. Prices make it
spare: each use costs USE, and more where earlier walks used too many. They are the Lagrange multipliers of

    uses of the kind before its (j+1)-th operation is invoked  <=  j        (for each kind, and j = 1, 2, … all)

so a use early on, when few of its kind were invoked, costs more than one later. They guide a walk and decide nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from tests.linearizability.timeline import Timeline

USE: Final = 10
"""The price of a use of any lost operation."""
RISE: Final = 4
"""What each use too many adds to the price: so little that the next walk changes little else."""
KEPT: Final = 0.8
"""The part of a rise that is left when the order that was found after it uses less than it may."""


class Prices:
    """The price of each kind of lost operation, which falls as more of that kind are invoked."""

    def __init__(self, timeline: Timeline) -> None:
        self._layers = {entry.kind.number: entry.layers for entry in timeline.lost}
        self._rises = {number: [0] * (len(layers) + 1) for number, layers in self._layers.items()}
        """For each kind the multiplier of the constraint of each j; that of j = 0 stays 0."""
        self._prices: dict[int, list[int]] = {}
        self._add_up()

    def price(self, kind: int, layer: int) -> int:
        """What one use of this kind costs in this layer."""
        return self._prices[kind][bisect_right(self._layers[kind], layer)]

    def adapt(self, uses: Mapping[int, Sequence[int]]) -> None:
        """Raise the prices of what an order used too often, and lower those of what it now uses less than it may.

        `uses` holds for each kind the layers of its uses, in order.
        """
        for number, layers in self._layers.items():
            used = uses.get(number, ())
            rises = self._rises[number]
            for j in range(1, len(layers) + 1):
                used_before = len(used) if j == len(layers) else bisect_left(used, layers[j])
                if used_before > j:
                    rises[j] += RISE * (used_before - j)
                elif used_before < j and rises[j]:
                    rises[j] = int(rises[j] * KEPT)
        self._add_up()

    def _add_up(self) -> None:
        """A use when c operations of its kind are invoked counts in the constraint of every j from c on."""
        for number, rises in self._rises.items():
            price, prices = USE, []
            for rise in reversed(rises):
                price += rise
                prices.append(price)
            self._prices[number] = prices[::-1]
