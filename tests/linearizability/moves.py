"""Which steps are possible in a layer, and which of them can help anyone: asked once for each layer and state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from tests.linearizability.kinds import Group, Kind, Lost
from tests.linearizability.models import INDISTINCT, State
from tests.linearizability.prices import Prices
from tests.linearizability.timeline import Timeline

_TABLES_MAX: Final = 4_096
"""Layers for which the moves are remembered at once."""


class Move(NamedTuple):
    """Operations of one kind that are legal in some state of some layer, and leave another state or are blind."""

    kind: Kind
    state: State
    """The state that it leaves."""
    bits: tuple[int, ...]
    """Of those that will return, the first to return first."""
    mask: int
    """The same bits as a set."""
    lost: int
    """The bits of the lost operations of this kind."""
    price: int
    """What a step of a lost one costs."""
    is_blind: bool
    is_total: bool
    is_worth: bool
    """False where taking this step without having to, with others after it, can not help any of them."""
    is_worth_last: bool
    """False where taking it without having to, at the last moment before it returns, can not help anyone."""


class Table(NamedTuple):
    """What is known of the steps of one layer."""

    layer: int
    """Its index."""
    moves: dict[State, list[Move]]
    """For each state that came up."""
    guarded: dict[State, list[Lost]]
    """The lost operations that are worth trying and legal in one state alone, by that state."""
    cheapest_blind: dict[State, int]
    """For each state the price of a lost operation that leaves it from everywhere, without end."""
    a_lost_one_observes_all: bool


class Moves:
    """The steps of one walk. `counted` are the bits of the lost operations that are used up when they take effect."""

    def __init__(self, timeline: Timeline, counted: int, prices: Prices | None) -> None:
        self._timeline = timeline
        self._counted = counted
        self._prices = prices
        self._tables: dict[int, Table] = {}

    def table(self, index: int) -> Table:
        """The table of the layer of this index."""
        table = self._tables.get(index)
        if table is None:
            if len(self._tables) >= _TABLES_MAX:
                self._tables.clear()
            table = self._tables[index] = self._new_table(index)
        return table

    def moves(self, table: Table, state: State) -> list[Move]:
        """What can be done in this state, one entry a kind. Also written into the table."""
        layer = self._timeline.layers[table.layer]
        live = self._timeline.live[table.layer]
        lost = {entry.kind.number: entry for entry in table.guarded.get(state, ())}
        lost.update((entry.kind.number, entry) for entry in live.unguarded)
        if layer.position <= self._timeline.indistinct_wanted_until and (
            state in layer.shunned or layer.someone_observes_all
        ):
            self._add_leaving(lost, table.layer, state, live.leaving())
        assert layer.groups is not None, "the layer is prepared"
        moves = [
            self._move(table, state, group, lost.pop(group.kind.number, None))
            for group in layer.groups
            if not group.kind.traits.is_read_only
        ]
        moves += [self._move(table, state, Group(entry.kind, 0, ()), entry) for entry in lost.values()]
        table.moves[state] = possible = [move for move in moves if move is not None]
        return possible

    def _price(self, entry: Lost, index: int) -> int:
        return 0 if self._prices is None else self._prices.price(entry.kind.number, index)

    def _new_table(self, index: int) -> Table:
        live = self._timeline.live[index]
        cheapest_blind: dict[State, int] = {}
        for entry in live.unguarded:
            if not entry.kind.traits.is_blind:
                return Table(index, {}, live.guarded, {}, a_lost_one_observes_all=True)
            if not entry.bits & self._counted:
                effect = self._timeline.effect(self._timeline.initial, entry.kind)
                assert effect is not None, "what is blind is legal everywhere"
                price = self._price(entry, index)
                cheapest_blind[effect[0]] = min(price, cheapest_blind.get(effect[0], price))
        guarded = live.guarded
        if cheapest_blind:
            guarded = {}
            for guard, entries in live.guarded.items():
                worth = [entry for entry in entries if not self._is_outdone(cheapest_blind, entry, guard, index)]
                if worth:
                    guarded[guard] = worth
        return Table(index, {}, guarded, cheapest_blind, a_lost_one_observes_all=False)

    def _is_outdone(self, cheapest_blind: dict[State, int], entry: Lost, guard: State, index: int) -> bool:
        """Whether a lost operation that leaves the same state from everywhere is there without end, and no dearer."""
        effect = self._timeline.effect(guard, entry.kind)
        if effect is None:
            return True
        price = cheapest_blind.get(effect[0])
        return price is not None and price <= self._price(entry, index)

    def _add_leaving(self, lost: dict[int, Lost], index: int, state: State, leaving: Iterable[Lost]) -> None:
        """Adds the lost operations that are good for leaving this state, and nothing else. They are all alike now."""
        cheapest: Lost | None = None
        counted: Lost | None = None
        for entry in leaving:
            if self._timeline.effect(state, entry.kind) is None:
                continue
            if entry.bits & self._counted:
                counted = entry if counted is None else counted._replace(bits=counted.bits | entry.bits)
            elif cheapest is None or self._price(entry, index) < self._price(cheapest, index):
                cheapest = entry
        lost.update((entry.kind.number, entry) for entry in (cheapest, counted) if entry is not None)

    def _move(self, table: Table, state: State, group: Group, lost: Lost | None) -> Move | None:
        layer = self._timeline.layers[table.layer]
        effect = self._timeline.effect(state, group.kind)
        if effect is None:
            return None
        after = effect[0] if effect[1] >= layer.position else INDISTINCT
        traits = group.kind.traits
        if after == state:
            if not traits.is_blind:
                return None
            # It can still bury others.
            is_worth = is_worth_last = True
        else:
            is_worth_last = after is not INDISTINCT or layer.position <= self._timeline.indistinct_wanted_until
            is_worth = is_worth_last and (
                after in layer.observed
                or after in table.guarded
                or state in layer.shunned
                or layer.someone_observes_all
                or table.a_lost_one_observes_all
            )
        if not is_worth and not group.mask:
            return None
        lost_bits, price = (0, 0) if lost is None else (lost.bits, self._price(lost, table.layer))
        return Move(
            group.kind,
            after,
            group.bits,
            group.mask,
            lost_bits,
            price,
            traits.is_blind,
            traits.is_total,
            is_worth,
            is_worth_last,
        )
