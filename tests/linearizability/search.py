"""The verdict on one key, in as many walks as it takes, some steps at a time.

Where many operations are lost (their outcome is unknown), the ways of telling which of them took effect are too many
to try. So the lost ones are not counted at first (counterexample-guided refinement: Clarke et al. 2000):

1. A walk in which each kind of lost operation takes effect as often as it likes, and for nothing. Where not even that
   finds an order, there is none.
2. Walks in which each such step has a price (see `prices`). A cheap order mostly uses no kind too often, and then it
   stands. If it does, what it uses too often becomes dearer, and after some walks is counted; and the next walk begins.
   Where such a walk finds no order, there is none.
3. If that comes to no end, a walk that counts all of them: it decides, in its time.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Final

from tests.linearizability.crossing import Effort
from tests.linearizability.history import Operation
from tests.linearizability.models import Model
from tests.linearizability.placing import place
from tests.linearizability.prices import USE, Prices
from tests.linearizability.timeline import Timeline
from tests.linearizability.walk import Rules, Walk

AT_ONCE: Final = 32
"""Configurations of one layer that go ahead together. Few find an order sooner; many forget less."""
LEEWAY: Final = USE
"""In walks with prices, one step more of a lost operation than the cheapest configuration needed waits."""
PRICED_WALKS_MAX: Final = 40
PRICED_WALKS_BEFORE_COUNTING: Final = 3
"""After each so many, what is still used too often is counted from then on."""
PRICED_STEPS_MAX: Final = 50_000
"""A walk with prices gives up after so many steps, and ten times those of the first walk; twice that the next time."""


class Search:
    """Looks for an order of the operations of one key."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self.timeline: Final = Timeline(model, operations)
        self.answer: bool | None = None
        """Whether there is an order; None while that is not known."""
        self.order: tuple[Operation, ...] | None = None
        """Once found: every operation that took effect, in an order that explains what the clients saw."""
        self.walks = 0
        """How many were begun."""
        self._effort = Effort()
        self._run = self._search()

    @property
    def steps(self) -> int:
        """The work done so far: configurations looked at."""
        return self._effort.steps

    def advance(self, steps: int) -> bool | None:
        """Work for about that many steps, and return `answer`."""
        self._effort.limit = self._effort.steps + steps
        if self.answer is None:
            next(self._run, None)
        return self.answer

    def _search(self) -> Generator[None, None, None]:
        """Sets `answer` before it ends; yields when the steps that it was given are used up."""
        lost = self.timeline.lost_bits
        if lost and self.timeline.states_are_bounded:
            yield from self._walk(Rules(at_once=AT_ONCE))
            yield from self._walk_with_prices()
        if self.answer is None:
            yield from self._walk(Rules(counted=lost, at_once=AT_ONCE))
        assert self.answer is not None, "a walk that counts everything decides"

    def _walk_with_prices(self) -> Generator[None, None, None]:
        prices = Prices(self.timeline)
        steps_max = PRICED_STEPS_MAX + 10 * self.steps
        counted = 0
        for number in range(1, PRICED_WALKS_MAX + 1):
            if self.answer is not None:
                return
            rules = Rules(counted, prices, AT_ONCE, LEEWAY, steps_max=steps_max)
            before = self.steps
            uses = yield from self._walk(rules)
            if self.steps - before >= steps_max:
                steps_max *= 2
            prices.adapt(uses)
            if number % PRICED_WALKS_BEFORE_COUNTING == 0:
                for entry in self.timeline.lost:
                    if not entry.allows(uses.get(entry.kind.number, ())):
                        counted |= entry.bits

    def _walk(self, rules: Rules) -> Generator[None, None, Mapping[int, Sequence[int]]]:
        """Walks, and sets `answer` if that decides. Returns how the order that was found uses lost operations."""
        self.walks += 1
        walk = Walk(self.timeline, rules, self._effort)
        found = yield from walk.find()
        if found is False:
            self.answer = False
            return {}
        if found is None:
            return place(self.timeline, walk.furthest_configurations[0][3]).uses
        assert walk.end is not None
        placed = place(self.timeline, walk.end[3])
        if placed.is_exact:
            self.order = placed.order
            self.answer = True
        return placed.uses
