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
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.models import ANY_STATE, INDISTINCT, Model, State, Traits

_NOT_ASKED: Final = (None, 0.0)
"""Compared by identity: the effect of a kind on a state that the model was not asked for yet."""

_DEMANDS_A_LAYER_MAX: Final = 32
"""On average."""


class Kind(NamedTuple):
    """Operations that step alike in every state."""

    number: int
    example: Operation
    traits: Traits


class Lost(NamedTuple):
    """The operations of one kind whose outcome is unknown."""

    kind: Kind
    bits: int
    operations: tuple[Operation, ...]
    """In the order of invocation, which is that of their bits."""
    layers: tuple[int, ...]
    """For each of them the first layer in which it may take effect."""
    seen_until: float
    """Past this position they leave no state that is told apart."""

    def allows(self, uses: Sequence[int]) -> bool:
        """Whether so many operations were invoked in time to take effect in these layers, given in order."""
        if len(uses) > len(self.layers):
            return False
        return all(opened <= used for opened, used in zip(self.layers, uses, strict=False))


class Group(NamedTuple):
    """The operations of one kind that are open in a layer and will return."""

    kind: Kind
    mask: int
    bits: tuple[int, ...]
    """The first to return first."""


class Live(NamedTuple):
    """The lost operations that may take effect in some layer, by what they are good for there."""

    unguarded: list[Lost]
    """Those that can leave a state which is told apart, and are legal in more than one state."""
    guarded: dict[State, list[Lost]]
    """Those that can leave a state which is told apart, by the only state in which they are legal."""
    leaving: list[Lost]
    """Those that leave no state that is told apart, where it can still help to leave another one."""


class Demand(NamedTuple):
    """A state that is yet to come, in some layer, with no root of it invoked later (see `models.Lens`)."""

    guard: State
    waiting: int
    """Bits of the open operations that wait for it; -1, which has all bits, if one invoked later will."""
    roots: int
    """Bits of the operations invoked so far, and not returned, that are roots of it."""


class Layer:
    """What lies between one return and the return before. See the head of this file."""

    __slots__ = (
        "changing",
        "demands",
        "groups",
        "live",
        "may_opened",
        "must_opened",
        "observed",
        "open",
        "position",
        "settled",
        "shunned",
        "someone_observes_all",
        "target",
        "target_operation",
        "total",
    )

    def __init__(
        self,
        target: int,
        target_operation: Operation,
        must_opened: int,
        may_opened: int,
        open_operations: tuple[tuple[int, Operation, Kind], ...],
    ) -> None:
        assert target_operation.returned is not None
        self.position: Final = target_operation.returned
        self.target: Final = target
        self.target_operation: Final = target_operation
        self.must_opened: Final = must_opened
        """Bits of the operations invoked since the layer before that will return."""
        self.may_opened: Final = may_opened
        """Bits of those that will not."""
        self.open: Final = open_operations
        """(bit, operation, kind) of all that are open here and will return, the target among them."""
        self.groups: list[Group] | None = None
        """None until the layer is prepared; then the open operations by kind."""
        self.total = 0
        """Bits of the open operations that are legal in every state."""
        self.changing = 0
        """Bits of the open operations that change some state."""
        self.observed: set[State] = set()
        """States in which alone some open operation is legal."""
        self.shunned: set[State] = set()
        """States in which alone some open operation that changes nothing is not legal."""
        self.someone_observes_all = False
        """Of some open operation neither is known, and it depends on the state."""
        self.settled: dict[State, int] = {}
        """What `Timeline.settled` found so far."""
        self.demands: list[Demand] = []
        """A configuration that can not meet one of these leads nowhere."""
        self.live: Live | None = None
        """What `Timeline.live` found."""

    def prepare(self) -> None:
        """Sets what is derived from the open operations."""
        by_kind: dict[int, list[tuple[int, int]]] = {}
        kinds: dict[int, Kind] = {}
        for bit, operation, kind in self.open:
            assert operation.returned is not None
            by_kind.setdefault(kind.number, []).append((operation.returned, bit))
            kinds[kind.number] = kind
            traits = kind.traits
            if traits.is_total:
                self.total |= bit
            if not traits.is_read_only:
                self.changing |= bit
            if traits.guard is not ANY_STATE:
                self.observed.add(traits.guard)
            elif traits.shunned is not ANY_STATE:
                self.shunned.add(traits.shunned)
            elif not traits.is_blind:
                self.someone_observes_all = True
        self.groups = [
            Group(kinds[number], sum(bit for _, bit in bits), tuple(bit for _, bit in sorted(bits)))
            for number, bits in by_kind.items()
        ]

    def operation(self, bit: int) -> Operation:
        """The open operation of that bit."""
        return next(operation for other, operation, _ in self.open if other == bit)


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
        self._demand()

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

    def _demand(self) -> None:
        """Sets the demands of each layer."""
        roots_of = self._roots()
        if roots_of is None:
            return
        opened: dict[int, list[int]] = {entry.kind.number: list(entry.layers) for entry in self.lost}
        """For each kind the layers in which one of its operations opened, in order."""
        last_wanted: dict[State, int] = {}
        last_opened: dict[State, int] = {}
        for index, layer in enumerate(self.layers):
            for bit, _, kind in layer.open:
                if bit & layer.must_opened:
                    opened.setdefault(kind.number, []).append(index)
                    if kind.traits.guard is not ANY_STATE:
                        last_opened[kind.traits.guard] = index
                if bit == layer.target and kind.traits.guard is not ANY_STATE:
                    last_wanted[kind.traits.guard] = index
        last_rooted = dict.fromkeys(last_wanted, 0)
        for number, layers in opened.items():
            layers.sort()
            for guard in roots_of[number] & last_wanted.keys():
                before = bisect_right(layers, last_wanted[guard])
                if before:
                    last_rooted[guard] = max(last_rooted[guard], layers[before - 1])
        lost_roots = dict.fromkeys(last_wanted, 0)
        for entry in self.lost:
            for guard in roots_of[entry.kind.number] & lost_roots.keys():
                lost_roots[guard] |= entry.bits
        left = _DEMANDS_A_LAYER_MAX * len(self.layers)
        for guard, last in sorted(last_wanted.items(), key=lambda item: item[1] - last_rooted[item[0]]):
            left -= last + 1 - last_rooted[guard]
            if left < 0:
                # A demand only spares work. The long ones are the dear ones.
                return
            for index in range(last_rooted[guard], last + 1):
                layer = self.layers[index]
                waiting = sum(bit for bit, _, kind in layer.open if kind.traits.guard == guard)
                roots = sum(bit for bit, _, kind in layer.open if guard in roots_of[kind.number])
                waiting = -1 if last_opened[guard] > index else waiting
                layer.demands.append(Demand(guard, waiting, roots | lost_roots[guard]))

    def _roots(self) -> dict[int, frozenset[State]] | None:
        """For each kind the guards of which it is a root."""
        roots_of: dict[int, frozenset[State]] = {}
        for kind in self._kinds.values():
            roots = self._lens.roots(kind.example)
            if roots is None:
                return None
            roots_of[kind.number] = frozenset(roots)
        return roots_of

    def leads(self, state: State, guard: State) -> bool:
        """See `models.Lens`."""
        return self._lens.leads(state, guard)

    def told_apart_until(self, state: State) -> float:
        """The last position at which a return may depend on this very state (see `models.Lens`)."""
        until = self._until.get(state)
        if until is None:
            until = self._until[state] = self._lens.told_apart_until(state)
        return until

    def effect(self, state: State, kind: Kind) -> tuple[State, float] | None:
        """The state that an operation of this kind leaves and until when that is told apart; None if it is illegal."""
        row = self._effects.get(state)
        if row is None:
            row = self._effects[state] = {}
        effect = row.get(kind.number, _NOT_ASKED)
        if effect is _NOT_ASKED:
            is_legal, after = self._model.step(state, kind.example)
            effect = row[kind.number] = (after, self.told_apart_until(after)) if is_legal else None
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

    def live(self, index: int) -> Live:
        """The lost operations that can help anyone in the layer of this index, one entry a kind."""
        layer = self.layers[index]
        if layer.live is None:
            position = layer.position
            live = Live([], {}, [])
            for entry in self.lost:
                if entry.layers[0] > index:
                    continue
                if entry.seen_until < position:
                    if position <= self.indistinct_wanted_until:
                        live.leaving.append(entry)
                elif entry.kind.traits.guard is ANY_STATE:
                    live.unguarded.append(entry)
                else:
                    live.guarded.setdefault(entry.kind.traits.guard, []).append(entry)
            layer.live = live
        return layer.live
