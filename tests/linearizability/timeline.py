"""The history of one key, laid out for the search: layers between returns, and operations as bits.

**Layers.** Nothing forces an operation to take effect before the first return that is still ahead, so the search goes
from return to return (Lowe 2017 calls this just-in-time linearization). A layer is one return, the operation that
returns there (its *target*), the operations invoked since the return before, and all that are open there.

**Bits.** Each open operation is one bit of an integer. Operations of unknown outcome never return, so each keeps its
bit for ever, in the order of invocation from the lowest; the others take turns in the bits above.

**Kinds.** Operations of one kind step alike; what a kind does to a state is asked of the model once and remembered.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.models import ANY_STATE, INDISTINCT, Model, State, Traits

_NOT_ASKED: Final = (None, 0.0)
"""Compared by identity: the effect of a kind on a state that the model was not asked for yet."""


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


class Group(NamedTuple):
    """The operations of one kind that are open in a layer and will return."""

    kind: Kind
    mask: int
    bits: tuple[tuple[int, int], ...]
    """(position of the return, bit), the first to return first."""


class Move(NamedTuple):
    """Operations of one kind that are legal in some state of some layer, and leave another state or are blind."""

    kind: Kind
    state: State
    """The state that it leaves."""
    bits: tuple[tuple[int, int], ...]
    """As in Group."""
    mask: int
    lost: int
    """The bits of the operations of this kind whose outcome is unknown."""
    is_worth_volunteering: bool
    """False where taking this step without having to, with others after it, can not help any of them."""
    is_worth_volunteering_last: bool
    """False where taking it without having to, at the last moment before it returns, can not help anyone."""


class Layer:
    """What lies between one return and the return before. See the head of this file."""

    def __init__(
        self, position: int, target: int, target_operation: Operation, opened_must: int, opened_may: int
    ) -> None:
        self.position: Final = position
        self.target: Final = target
        self.target_operation: Final = target_operation
        self.opened_must: Final = opened_must
        self.opened_may: Final = opened_may
        self.open: tuple[tuple[int, Operation, Kind], ...] = ()
        """(bit, operation, kind) of those that are open here and will return, the target among them."""


class Compiled:
    """What the search needs of a layer that it works on."""

    __slots__ = ("changing", "groups", "moves", "observers_wait_for", "settled", "someone_always_observes", "total")

    def __init__(self, layer: Layer) -> None:
        self.total = 0
        """Bits of the open operations that are legal in every state."""
        self.changing = 0
        """Bits of the open operations that change some state."""
        self.observers_wait_for: set[State] = set()
        """States in which alone some open operation is legal."""
        self.someone_always_observes = False
        """An open operation is legal in several states and depends on which."""
        by_kind: dict[int, list[tuple[int, int]]] = {}
        kinds: dict[int, Kind] = {}
        for bit, operation, kind in layer.open:
            assert operation.returned is not None
            by_kind.setdefault(kind.number, []).append((operation.returned, bit))
            kinds[kind.number] = kind
            traits = kind.traits
            if traits.is_total:
                self.total |= bit
            if not traits.is_read_only:
                self.changing |= bit
            if traits.guard is not ANY_STATE:
                self.observers_wait_for.add(traits.guard)
            elif not traits.is_blind:
                self.someone_always_observes = True
        self.groups = [
            Group(kinds[number], sum(bit for _, bit in bits), tuple(sorted(bits))) for number, bits in by_kind.items()
        ]
        self.settled: dict[State, int] = {}
        self.moves: dict[State, list[Move]] = {}


class Timeline:
    """The layers of one key, and what its operations do to states."""

    COMPILED_LAYERS_MAX: Final = 4096

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._model = model
        self._lens = model.lens(operations)
        self._kinds: dict[object, Kind] = {}
        self._until: dict[State, float] = {}
        self._effects: dict[State, dict[int, tuple[State, float] | None]] = {}
        self._compiled: dict[int, Compiled] = {}
        lost = [operation for operation in operations if operation.outcome_is_unknown]
        lost = [operation for operation in lost if not self._kind_of(operation).traits.is_read_only]
        self.lost: list[Lost] = []
        self.lost_bits = 0
        self._lost_by_guard: dict[State, list[Lost]] = {}
        self._lost_unguarded: list[Lost] = []
        self._lost_observes = False
        bit_of = self._give_lost_bits(lost)
        self.layers = self._lay(operations, bit_of, len(lost))

    def _kind_of(self, operation: Operation) -> Kind:
        traits = self._model.traits(operation)
        kind = self._kinds.get(traits.kind)
        if kind is None:
            kind = self._kinds[traits.kind] = Kind(len(self._kinds), operation, traits)
        return kind

    def _give_lost_bits(self, lost: list[Operation]) -> dict[int, int]:
        bit_of: dict[int, int] = {}
        by_kind: dict[int, list[Operation]] = {}
        kinds: dict[int, Kind] = {}
        for index, operation in enumerate(lost):
            kind = self._kind_of(operation)
            bit_of[operation.number] = 1 << index
            kinds[kind.number] = kind
            by_kind.setdefault(kind.number, []).append(operation)
        for number, alike in by_kind.items():
            kind = kinds[number]
            entry = Lost(kind, sum(bit_of[operation.number] for operation in alike), tuple(alike))
            self.lost.append(entry)
            self.lost_bits |= entry.bits
            if kind.traits.guard is ANY_STATE:
                self._lost_unguarded.append(entry)
                self._lost_observes |= not kind.traits.is_blind
            else:
                self._lost_by_guard.setdefault(kind.traits.guard, []).append(entry)
        return bit_of

    def _lay(self, operations: Sequence[Operation], bit_of: dict[int, int], lost_count: int) -> list[Layer]:
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
        slots = 0
        slot_of: dict[int, int] = {}
        open_now: dict[int, tuple[int, Operation, Kind]] = {}
        opened_must = opened_may = 0
        for position, operation in events:
            number = operation.number
            if operation.returned is None:
                opened_may |= bit_of[number]
            elif position == operation.invoked:
                if free:
                    slot = heapq.heappop(free)
                else:
                    slot = slots
                    slots += 1
                slot_of[number] = slot
                bit = 1 << (lost_count + slot)
                open_now[number] = (bit, operation, self._kind_of(operation))
                opened_must |= bit
            else:
                layer = Layer(position, open_now[number][0], operation, opened_must, opened_may)
                layer.open = tuple(open_now.values())
                layers.append(layer)
                opened_must = opened_may = 0
                del open_now[number]
                heapq.heappush(free, slot_of.pop(number))
        assert not open_now, "an operation that returns is open until then"
        return layers

    @property
    def states_are_bounded(self) -> bool:
        return self._lens.states_are_bounded

    @property
    def initial(self) -> State:
        return self._model.initial

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

    def compiled(self, index: int) -> Compiled:
        """The layer of this index, made ready. The last few are kept."""
        compiled = self._compiled.get(index)
        if compiled is None:
            if len(self._compiled) >= self.COMPILED_LAYERS_MAX:
                self._compiled.clear()
            compiled = self._compiled[index] = Compiled(self.layers[index])
        return compiled

    def settled(self, compiled: Compiled, position: int, state: State) -> int:
        """Bits of the open operations that are legal in this state and leave it as it is.

        Such an operation may take effect here and now at no cost to any other, so it never needs to be tried.
        """
        mask = compiled.settled.get(state)
        if mask is None:
            mask = 0
            for kind, bits, _ in compiled.groups:
                effect = self.effect(state, kind)
                if effect is not None and state == (effect[0] if effect[1] >= position else INDISTINCT):
                    mask |= bits
            compiled.settled[state] = mask
        return mask

    def moves(self, compiled: Compiled, position: int, state: State) -> list[Move]:
        """What can be done in this state of this layer, one entry a kind."""
        moves = compiled.moves.get(state)
        if moves is not None:
            return moves
        moves = compiled.moves[state] = []
        lost_bits = {}
        for entry in self._lost_by_guard.get(state, ()):
            lost_bits[entry.kind.number] = entry
        for entry in self._lost_unguarded:
            lost_bits[entry.kind.number] = entry
        for kind, mask, bits in compiled.groups:
            if kind.traits.is_read_only:
                continue
            entry_lost = lost_bits.pop(kind.number, None)
            self._add_move(moves, compiled, position, state, kind, bits, mask, entry_lost.bits if entry_lost else 0)
        for entry in lost_bits.values():
            self._add_move(moves, compiled, position, state, entry.kind, (), 0, entry.bits)
        return moves

    def _add_move(
        self,
        moves: list[Move],
        compiled: Compiled,
        position: int,
        state: State,
        kind: Kind,
        bits: tuple[tuple[int, int], ...],
        mask: int,
        lost: int,
    ) -> None:
        effect = self.effect(state, kind)
        if effect is None:
            return
        after, until = effect
        if until < position:
            after = INDISTINCT
        if after == state:
            # It can still bury others, and then it is worth it.
            if kind.traits.is_blind:
                moves.append(Move(kind, after, bits, mask, lost, True, True))
            return
        is_worth_last = after is not INDISTINCT or position <= self._lens.indistinct_wanted_until
        is_worth = is_worth_last and (
            compiled.someone_always_observes
            or self._lost_observes
            or after in compiled.observers_wait_for
            or after in self._lost_by_guard
        )
        if is_worth or mask:
            moves.append(Move(kind, after, bits, mask, lost, is_worth, is_worth_last))
