"""The history of one key, laid out for the search: layers between returns, and operations as bits.

**Layers.** Nothing forces an operation to take effect before the first return that is still ahead, so the search goes
from return to return (Lowe 2017 calls this just-in-time linearization). A layer is one return, the operation that
returns there (its *target*), the operations invoked since the return before, and all that are open there.

**Bits.** Each open operation is one bit of an integer. Operations of unknown outcome (*lost* ones) never return, so
each keeps its bit for ever, in the order of invocation from the lowest; the others take turns in the bits above.

**Kinds.** Operations of one kind step alike; what a kind does to a state is asked of the model once and remembered.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

from tests.linearizability.demands import set_demands
from tests.linearizability.history import Operation
from tests.linearizability.kinds import Kind, Lost
from tests.linearizability.layers import Layer
from tests.linearizability.lost import live_by_layer
from tests.linearizability.models import INDISTINCT, Model, State

_NOT_ASKED: Final = (None, 0.0)
"""Compared by identity: the effect of a kind on a state that the model was not asked for yet."""


class Timeline:
    """The layers of one key, and what its operations do to states."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        self._lens = model.lens(operations)
        self._kinds: dict[object, Kind] = {}
        self._until: dict[State, float] = {}
        self._effects: dict[State, dict[int, tuple[State, float] | None]] = {}
        self.initial: Final = model.initial
        self.states_are_bounded: Final = self._lens.states_are_bounded
        self.indistinct_wanted_until: Final = self._lens.indistinct_wanted_until
        # A lost operation that changes nothing constrains nothing.
        lost = [
            operation
            for operation in operations
            if operation.outcome_is_unknown and not self._kind_of(operation).traits.is_read_only
        ]
        bit_of = {operation.number: 1 << index for index, operation in enumerate(lost)}
        self.layers: Final = self._lay(operations, bit_of)
        self.lost: Final = self._group(lost, bit_of)
        self.lost_bits: Final = (1 << len(lost)) - 1
        self.live: Final = live_by_layer(self.lost, [layer.position for layer in self.layers])
        """For each layer the lost operations that can help anyone there."""
        roots = {kind.number: self._lens.roots(kind.example) for kind in self._kinds.values()}
        set_demands(self.layers, self.lost, roots)

    def _kind_of(self, operation: Operation) -> Kind:
        traits = self._model.traits(operation)
        kind = self._kinds.get(traits.kind)
        if kind is None:
            kind = self._kinds[traits.kind] = Kind(len(self._kinds), operation, traits)
        return kind

    def _lay(self, operations: Sequence[Operation], bit_of: dict[int, int]) -> list[Layer]:
        events: list[tuple[int, Operation]] = []
        for operation in operations:
            if operation.returned is not None:
                events.append((operation.invoked, operation))
                events.append((operation.returned, operation))
            elif operation.number in bit_of:
                events.append((operation.invoked, operation))
        events.sort(key=lambda event: event[0])
        layers: list[Layer] = []
        free: list[int] = []
        slots = len(bit_of)
        slot_of: dict[int, int] = {}
        open_now: dict[int, tuple[int, Operation, Kind]] = {}
        must_opened = may_opened = 0
        for position, operation in events:
            number = operation.number
            if operation.returned is None:
                may_opened |= bit_of[number]
            elif position == operation.invoked:
                if free:
                    slot = heapq.heappop(free)
                else:
                    slot = slots
                    slots += 1
                slot_of[number] = slot
                open_now[number] = (1 << slot, operation, self._kind_of(operation))
                must_opened |= 1 << slot
            else:
                layers.append(Layer(open_now[number][0], operation, must_opened, may_opened, tuple(open_now.values())))
                must_opened = may_opened = 0
                del open_now[number]
                heapq.heappush(free, slot_of.pop(number))
        assert not open_now, "an operation that returns is open until then"
        return layers

    def _group(self, lost: list[Operation], bit_of: dict[int, int]) -> list[Lost]:
        first_layer: dict[int, int] = {}
        for index, layer in enumerate(self.layers):
            opened = layer.may_opened
            while opened:
                bit = opened & -opened
                first_layer[bit] = index
                opened ^= bit
        by_kind: dict[int, list[Operation]] = {}
        kinds: dict[int, Kind] = {}
        for operation in lost:
            # One that was invoked after the last return can not matter any more.
            if bit_of[operation.number] in first_layer:
                kind = self._kind_of(operation)
                kinds[kind.number] = kind
                by_kind.setdefault(kind.number, []).append(operation)
        return [
            Lost(
                kinds[number],
                sum(bit_of[operation.number] for operation in alike),
                tuple(alike),
                tuple(first_layer[bit_of[operation.number]] for operation in alike),
                self._lens.seen_until(alike[0]),
            )
            for number, alike in by_kind.items()
        ]

    def leads(self, state: State, guard: State) -> bool:
        """See `models.Lens`."""
        return self._lens.leads(state, guard)

    def told_apart_until(self, state: State) -> float:
        """The last position at which a return may depend on this very state (see `models.Lens`)."""
        until = self._until.get(state)
        if until is None:
            until = self._lens.told_apart_until(state)
            if until > -math.inf:
                # There are too many of the others, and they may be long.
                self._until[state] = until
        return until

    def effect(self, state: State, kind: Kind) -> tuple[State, float] | None:
        """The state that an operation of this kind leaves and until when that is told apart; None if it is illegal."""
        row = self._effects.get(state)
        if row is None:
            row = self._effects[state] = {}
        effect = row.get(kind.number, _NOT_ASKED)
        if effect is _NOT_ASKED:
            is_legal, after = self._model.step(state, kind.example)
            effect = None
            if is_legal:
                until = self.told_apart_until(after)
                effect = (INDISTINCT, math.inf) if until == -math.inf else (after, until)
            row[kind.number] = effect
        return effect

    def settled(self, layer: Layer, state: State) -> int:
        """Bits of the open operations that are legal in this state and leave it as it is.

        Such an operation may take effect here and now at no cost to any other, so it never needs to be tried.
        """
        mask = layer.settled.get(state)
        if mask is None:
            mask = 0
            assert layer.groups is not None, "the layer is prepared"
            for kind, bits, _ in layer.groups:
                effect = self.effect(state, kind)
                if effect is not None and state == (effect[0] if effect[1] >= layer.position else INDISTINCT):
                    mask |= bits
            layer.settled[state] = mask
        return mask
