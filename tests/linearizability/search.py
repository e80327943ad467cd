"""The search for an order of the operations of one key, after Wing and Gong 1993 and Lowe 2017, with memory.

**Configurations.** At a layer (see `timeline`) everything that returned before has taken effect. What remains open is
in one of three conditions, so a configuration is a state and two sets:

- *must*: it has not taken effect, and has to before it returns;
- *may*: it is free to take effect later, and need not. So are operations of unknown outcome, and so is one that could
  have taken effect before at no cost to any other: one configuration then stands for both orders;
- neither: it has taken effect.

An operation goes from must to may where it is legal and changes nothing (*settled*: a read of the present value), or
where it is legal in every state and stands right before one whose effect hides it (*buried*: a write under another).

**What is not tried**, because another choice leads to a configuration that is at least as free:

- of operations of one kind, any but the one that must return first;
- a step that need not be taken, unless the next step would not have been possible, or not the same, without it;
- a step that is legal in every state right before one that would have buried it;
- a configuration at whose layer another was seen with the same state, no more in must, no less in may.

**Lost operations in bulk.** Where many operations have an unknown outcome, the ways of telling which of them took
effect are too many. So the search begins by letting each kind of them take effect as often as it likes. If not even
that can be ordered, nothing can. If an order is found, it is counted: where it uses no kind more often than it was
invoked in time, it stands; where it does, the kinds that it used too often are from then on counted, and the search
begins again. (Counterexample-guided refinement: Clarke et al. 2000.)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.models import INDISTINCT, Model, State
from tests.linearizability.timeline import Layer, Timeline

_NOWHERE: Final = object()
"""Stands for "no state" where a state may be None."""

Trace = tuple["Trace | None", int, int, int, int]
"""(what went before, layer, bit that took effect or 0, bits buried right before it, bits settled right after it)"""

Configuration = tuple[State, int, int, Trace | None, int]
"""(state, must, may, trace, steps of lost operations)"""

Arriving = dict[tuple[State, int, int], tuple[Trace | None, int]]
"""Configurations on their way to the next layer, each with the trace of fewest steps of lost operations."""


class Placed(NamedTuple):
    """One operation in an order that was found."""

    operation: Operation
    layer: int


class Search:
    """Looks for an order of the operations of one key, some steps at a time."""

    CONFIGURATIONS_AT_ONCE: Final = 48
    """Of more at one layer, the freest go ahead; the others wait until those are stuck."""
    COMPARED_MAX: Final = 400
    """A configuration is compared with at most so many others of its layer and state."""
    REFINEMENTS_MAX: Final = 6
    """After so many fresh starts every lost operation is counted."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._timeline = Timeline(model, operations)
        self.steps = 0
        """Configurations looked at so far, over all starts."""
        self.refinements = 0
        self.linearization: tuple[Operation, ...] | None = None
        """Once found: every operation that took effect, in an order that explains what the clients saw."""
        self.answer: bool | None = None
        self._counted = 0 if self._timeline.states_are_bounded else self._timeline.lost_bits
        self._limit = 0
        self._restart()
        self._run = self._search()

    def _restart(self) -> None:
        self._waiting: list[tuple[int, list[Configuration]]] = []
        self._seen: dict[int, dict[State, list[tuple[int, int]]]] = {}
        self._stuck_layer = -1
        self._stuck: list[Configuration] = []
        self._consumable = ~(self._timeline.lost_bits & ~self._counted)

    def advance(self, steps: int) -> bool | None:
        """Work for about that many steps. True: an order is found; False: there is none; None: not known yet."""
        self._limit = self.steps + steps
        if self.answer is None:
            next(self._run, None)
        return self.answer

    def _search(self) -> Generator[None, None, None]:
        """Sets `answer` before it ends; yields when the steps that it was given are used up."""
        while True:
            trace = yield from self._find()
            if trace is _NOWHERE:
                self.answer = False
                return
            placed, overused = self.replay(trace)
            if not overused:
                self.linearization = tuple(entry.operation for entry in placed)
                self.answer = True
                return
            self.refinements += 1
            self._counted |= overused if self.refinements < self.REFINEMENTS_MAX else self._timeline.lost_bits
            self._restart()

    def _find(self) -> Generator[None, None, Any]:
        """The trace of a configuration behind the last layer, or _NOWHERE where there is none."""
        layers = self._timeline.layers
        self._waiting.append((0, self._enter(0, {(self._timeline.initial, 0, 0): (None, 0)})))
        while self._waiting:
            index, configurations = self._waiting.pop()
            if index == len(layers):
                return configurations[0][3]
            if len(configurations) > self.CONFIGURATIONS_AT_ONCE:
                self._waiting.append((index, configurations[self.CONFIGURATIONS_AT_ONCE :]))
                configurations = configurations[: self.CONFIGURATIONS_AT_ONCE]
            if index > self._stuck_layer:
                self._stuck_layer = index
                self._stuck = configurations
            after = yield from self._cross(index, configurations)
            if after:
                entered = self._enter(index + 1, after)
                if entered:
                    self._waiting.append((index + 1, entered))
        return _NOWHERE

    # ------------------------------------------------------------------------------------------------ one layer

    def _cross(self, index: int, configurations: list[Configuration]) -> Generator[None, None, Arriving]:
        """All configurations in which the target of this layer has taken effect, reached from these."""
        timeline = self._timeline
        layer = timeline.layers[index]
        target = layer.target
        position = layer.position
        not_target = ~target
        consumable = self._consumable
        compiled = timeline.compiled(index)
        total = compiled.total & not_target
        changing = compiled.changing
        lost_bits = timeline.lost_bits
        after: Arriving = {}
        seen: set[tuple[State, int, int, object, bool]] = set()
        for state, must, may, trace, cost in configurations:
            if not must & target:
                self.steps += 1
                _keep(after, (state, must, may & not_target), trace, cost)
                if not may & target:
                    continue
            stack = [(state, must, may, trace, cost, _NOWHERE, False)]
            while stack:
                state, must, may, trace, cost, without, was_total = stack.pop()
                self.steps += 1
                if self.steps >= self._limit:
                    yield
                for kind, new, bits, mask, lost, is_worth, is_worth_last in timeline.moves(compiled, position, state):
                    is_blind = kind.traits.is_blind
                    if was_total and is_blind:
                        continue
                    if without is not _NOWHERE:
                        effect = timeline.effect(without, kind)
                        if effect is not None and (effect[0] if effect[1] >= position else INDISTINCT) == new:
                            continue
                    choices = []
                    if must & mask:
                        free = may & mask
                        for _, bit in bits:
                            if must & bit:
                                choices.append((bit, True))
                                break
                            if free & bit and not choices and (is_worth_last if bit == target else is_worth):
                                choices.append((bit, False))
                    else:
                        free = may & mask
                        if free:
                            for _, bit in bits:
                                if free & bit:
                                    if is_worth_last if bit == target else is_worth:
                                        choices.append((bit, False))
                                    break
                        elif is_worth:
                            free = may & lost
                            if free:
                                choices.append((free & -free, False))
                    for bit, is_duty in choices:
                        new_must = must & ~bit
                        new_may = may & ~(bit & consumable)
                        buried = 0
                        if is_blind:
                            buried = new_must & total
                            new_must ^= buried
                            new_may |= buried
                            if not buried and new == state:
                                continue
                        settled = new_must and timeline.settled(compiled, position, new) & new_must
                        if settled:
                            new_must ^= settled
                            new_may |= settled & changing
                        new_cost = cost + 1 if bit & lost_bits else cost
                        new_trace = (trace, index, bit, buried, settled)
                        if bit == target:
                            _keep(after, (new, new_must, new_may & not_target), new_trace, new_cost)
                            continue
                        if settled & target:
                            _keep(after, (new, new_must, new_may & not_target), new_trace, new_cost)
                            if not new_may & target:
                                continue
                        if is_duty:
                            new_without: object = _NOWHERE
                            new_was_total = kind.traits.is_total and not settled
                        else:
                            new_without = _NOWHERE if settled or buried else state
                            new_was_total = not settled
                        key = (new, new_must, new_may, new_without, new_was_total)
                        if key not in seen:
                            seen.add(key)
                            stack.append((new, new_must, new_may, new_trace, new_cost, new_without, new_was_total))
        return after

    def _enter(self, index: int, arriving: Arriving) -> list[Configuration]:
        """The configurations as they stand at this layer, the freest first, without those that others make needless."""
        timeline = self._timeline
        if index == len(timeline.layers):
            return [min(((*key, *value) for key, value in arriving.items()), key=lambda entry: entry[4])]
        layer = timeline.layers[index]
        position = layer.position
        compiled = timeline.compiled(index)
        entered: list[Configuration] = []
        for (state, must, may), (trace, cost) in arriving.items():
            if timeline.told_apart_until(state) < position:
                state = INDISTINCT
            must |= layer.opened_must
            may |= layer.opened_may
            settled = must and timeline.settled(compiled, position, state) & must
            if settled:
                must ^= settled
                may |= settled & compiled.changing
                trace = (trace, index, 0, 0, settled)
            entered.append((state, must, may, trace, cost))
        if len(entered) > 1:
            entered.sort(key=lambda entry: (entry[1].bit_count() - entry[2].bit_count(), entry[4]))
        elif not self._waiting:
            return entered
        # Configurations left waiting may still arrive at this layer later, so what was seen here is remembered then.
        seen = self._seen.setdefault(index, {}) if self._waiting else {}
        kept = []
        for entry in entered:
            state, must, may, _, _ = entry
            others = seen.get(state)
            if others is None:
                seen[state] = [(must, may)]
                kept.append(entry)
                continue
            for other_must, other_may in others if len(others) <= self.COMPARED_MAX else others[: self.COMPARED_MAX]:
                if other_may & may == may and other_must & must == other_must and not must & ~(other_must | other_may):
                    break
            else:
                others.append((must, may))
                kept.append(entry)
        return kept

    # ------------------------------------------------------------------------------------------- what was found

    def furthest(self) -> tuple[Layer | None, list[Configuration]]:
        """The last layer that was reached and not crossed, and configurations there. None before the first step."""
        if self._stuck_layer < 0:
            return None, []
        return self._timeline.layers[self._stuck_layer], self._stuck

    def replay(self, trace: Trace | None) -> tuple[list[Placed], int]:
        """The order that a trace stands for, and the bits of the lost kinds that it uses more often than they were
        invoked in time. Operations that may still take effect later, and could also have done so before, are placed at
        the first chance."""
        layers = self._timeline.layers
        actions: list[tuple[int, int, int, int]] = []
        while trace is not None:
            trace, index, bit, buried, settled = trace
            actions.append((index, bit, buried, settled))
        actions.reverse()
        lost_of = {bit: entry for entry in self._timeline.lost for bit in _bits(entry.bits)}
        stepped: set[int] = set()
        for index, bit, _, _ in actions:
            if bit and bit not in lost_of:
                stepped.add(_operation_at(layers[index], bit).number)
        placed: list[Placed] = []
        placed_numbers: set[int] = set()
        used: dict[int, int] = {}
        overused = 0

        def place_all(index: int, mask: int) -> None:
            for bit in _bits(mask):
                operation = _operation_at(layers[index], bit)
                if operation.number not in stepped and operation.number not in placed_numbers:
                    placed_numbers.add(operation.number)
                    placed.append(Placed(operation, index))

        for index, bit, buried, settled in actions:
            place_all(index, buried)
            if bit in lost_of:
                entry = lost_of[bit]
                nth = used[entry.kind.number] = used.get(entry.kind.number, 0) + 1
                if nth > len(entry.operations) or entry.operations[nth - 1].invoked > layers[index].position:
                    overused |= entry.bits
                else:
                    placed.append(Placed(entry.operations[nth - 1], index))
            elif bit:
                placed.append(Placed(_operation_at(layers[index], bit), index))
            place_all(index, settled)
        return placed, overused


def _keep(after: Arriving, key: tuple[State, int, int], trace: Trace | None, cost: int) -> None:
    known = after.get(key)
    if known is None or known[1] > cost:
        after[key] = (trace, cost)


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        bit = mask & -mask
        bits.append(bit)
        mask ^= bit
    return bits


def _operation_at(layer: Layer, bit: int) -> Operation:
    return next(operation for other, operation, _ in layer.open if other == bit)
