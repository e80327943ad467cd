"""The verdict on one key, in as many walks as it takes, some steps at a time.

Where many operations are lost (their outcome is unknown), the ways of telling which of them took effect are too many
to try. So the lost ones are not counted at first:

1. A walk in which each kind of lost operation takes effect as often as it likes, and for nothing. Where not even that
   finds an order, there is none.
2. Walks in which each such step has a price (see `prices`). A cheap order mostly uses none too often, and then it
   stands; or what it uses too often becomes dearer, and the next walk begins; or the cheapest order is dearer than any
   order can be that uses each lost operation once, and then there is none.
3. If that comes to no end, a walk that counts all of them: it decides, in its time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from tests.linearizability.history import Operation
from tests.linearizability.models import Model
from tests.linearizability.prices import Prices
from tests.linearizability.timeline import Timeline
from tests.linearizability.walk import Effort, Rules, Walk, place

DEBUG = False
AT_ONCE: Final = 32
PRICED_WALKS_MAX: Final = 40
LEEWAY: Final = 10
EVERY=3
def is_over(entry, used):
    return any(n >= len(entry.layers) or entry.layers[n] > l for n,l in enumerate(used))


class Search:
    """Looks for an order of the operations of one key."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self.timeline: Final = Timeline(model, operations)
        self.order: tuple[Operation, ...] | None = None
        """Once found: every operation that took effect, in an order that explains what the clients saw."""
        self.answer: bool | None = None
        self.how = None
        self.last_walk: Walk | None = None
        """The walk that decided, or the last one so far."""
        self._effort = Effort()
        self._run = self._search()

    @property
    def steps(self) -> int:
        """The work done so far."""
        return self._effort.steps

    def advance(self, steps: int) -> bool | None:
        """Work for about that many steps. True: an order is found; False: there is none; None: not known yet."""
        self._effort.limit = self._effort.steps + steps
        if self.answer is None:
            next(self._run, None)
        return self.answer

    def _search(self) -> Generator[None, None, None]:
        """Sets `answer` before it ends; yields when the steps that it was given are used up."""
        lost = self.timeline.lost_bits
        if lost and self.timeline.states_are_bounded:
            yield from self._walk(Rules(0, None, AT_ONCE, None))
            prices = Prices(self.timeline)
            counted = 0
            for round_number in range(1, PRICED_WALKS_MAX + 1):
                if self.answer is not None:
                    return
                uses = yield from self._walk(Rules(counted, prices, AT_ONCE, LEEWAY))
                prices.adapt(uses, round_number)
                if round_number % EVERY == 0:
                    for entry in self.timeline.lost:
                        if is_over(entry, uses.get(entry.kind.number, ())): counted |= entry.bits
        if self.answer is None:
            yield from self._walk(Rules(lost, None, AT_ONCE, None))
        assert self.answer is not None, "a walk that counts everything decides"

    def _walk(self, rules: Rules) -> Generator[None, None, dict[int, list[int]]]:
        """Walks, and sets `answer` if that decides. Returns the uses of lost operations in the order that was found."""
        t0 = self.steps
        walk = self.last_walk = Walk(self.timeline, rules, self._effort)
        if not (yield from walk.find()):
            if DEBUG:
                print("  nothing", self.steps - t0, rules.prices is not None, rules.counted > 0)
            self.answer = False
            return {}
        assert walk.end is not None
        placed = place(self.timeline, walk.end[3])
        if DEBUG:
            print(
                "  walk",
                self.steps - t0,
                "priced",
                rules.prices is not None,
                "counted",
                rules.counted > 0,
                "cost",
                walk.end[4],
                placed.is_exact,
                "cheapest",
                walk.is_cheapest,
                sum(map(len, placed.uses.values())),
            )
        if placed.is_exact:
            self.order = placed.order
            self.answer = True
        elif rules.prices is not None and walk.is_cheapest and walk.end[4] > rules.prices.budget:
            self.answer = False
        return placed.uses
