"""One walk through the layers of a key, looking for an order of its operations, with memory.

After Wing and Gong 1993 and Lowe 2017. How walks are combined to a verdict is for `search`.

**Configurations.** At a layer (see `timeline`) everything that returned before has taken effect. What remains open is
in one of three conditions, so a configuration is a state and two sets:

- *must*: it has not taken effect, and has to before it returns;
- *may*: it is free to take effect later, and need not. So are lost operations, and so is one that could have taken
  effect before at no cost to any other: one configuration then stands for both orders;
- neither: it has taken effect.

An operation goes from must to may where it is legal and changes nothing (*settled*: a read of the present value), or
where it is legal in every state and stands right before one whose effect hides it (*buried*: a write under another).

**Crossing a layer** is to find all configurations in which its target has taken effect, by steps of open operations of
which the last is that of the target. Where the target may take effect, it is also left alone.

**What is not tried**, because another choice leads to a configuration that is at least as free:

- of operations of one kind, any but the one that must return first;
- a step that need not be taken, unless the next step would not have been possible, or not the same, without it;
- a step that is legal in every state right before one that would have buried it;
- a configuration where another was seen at the same place with the same state, no more in must, no less in may.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from tests.linearizability.history import Operation
from tests.linearizability.models import INDISTINCT, State
from tests.linearizability.prices import Prices
from tests.linearizability.timeline import Kind, Lost, Timeline

_NOWHERE: Final = object()
"""Stands for "no state" where a state may be None."""
_COMPARED_MAX: Final = 400
"""A configuration is compared with at most so many others of its place and state."""
_TABLES_MAX: Final = 4_096
"""Layers for which the moves are remembered at once."""

Trace = tuple["Trace | None", int, int, int, int]
"""(what went before, layer, bit that took effect or 0, bits buried right before it, bits settled right after it)"""

Configuration = tuple[State, int, int, Trace | None, int]
"""(state, must, may, trace, cost)"""

_Node = tuple[State, int, int, Trace | None, int, object, bool]
"""A configuration within a layer, and what restricts its next step: the state without the last step if that need not
have been taken (or _NOWHERE), and whether the next step must not be one that buries."""

_Arriving = dict[tuple[State, int, int], tuple[Trace | None, int]]
"""Configurations on their way to the next layer: the cheapest trace of each, and its cost."""

_Seen = dict[State, list[tuple[int, int, int]]]
"""(must, may, cost) of the configurations seen with each state."""


class Effort:
    """The steps of the walks of one key, and how many it may take before others have their turn."""

    __slots__ = ("limit", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.limit = 0


class Rules(NamedTuple):
    """How a walk goes about it. Which rules are chosen never makes its finding wrong, only weaker or slower."""

    counted: int
    """Bits of the lost operations that are used up when they take effect; the others take effect over and over."""
    prices: Prices | None
    """What the steps of lost operations cost, if anything."""
    at_once: int
    """Of more configurations in a layer the best go ahead; the others wait until those are stuck."""
    leeway: int | None
    """Within a layer, what costs so much more than the cheapest configuration there waits too."""


class _Move(NamedTuple):
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


class _Table(NamedTuple):
    """What is known of the steps of one layer."""

    moves: dict[State, list[_Move]]
    """For each state that came up."""
    guarded: dict[State, list[Lost]]
    """The lost operations that are worth trying and legal in one state alone, by that state."""
    cheapest_blind: dict[State, int]
    """For each state the price of a lost operation that leaves it from everywhere, without end."""
    a_lost_one_observes_all: bool


class Walk:
    """A walk from the initial state; `find` tells where it ends."""

    def __init__(self, timeline: Timeline, rules: Rules, effort: Effort) -> None:
        self._timeline = timeline
        self._rules = rules
        self._effort = effort
        self._consumed = ~(timeline.lost_bits & ~rules.counted)
        self._waiting: list[tuple[int, list[Configuration], list[_Node], _Seen]] = []
        self._seen: dict[int, _Seen] = {}
        self._tables: dict[int, _Table] = {}
        self.end: Configuration | None = None
        """The configuration behind the last layer that was found; None if there is none."""
        self.is_cheapest = False
        """No order costs less than `end`, if counted by the same rules."""
        self.furthest = -1
        """Index of the last layer that was reached."""
        self.furthest_configurations: list[Configuration] = []
        """Some configurations there, at least one."""

    def find(self) -> Generator[None, None, bool]:
        """Whether there is an order; yields when the effort has reached its limit."""
        layers = self._timeline.layers
        waiting = self._waiting
        at_once = self._rules.at_once
        waiting.append((0, self._enter(0, {(self._timeline.initial, 0, 0): (None, 0)}), [], {}))
        while waiting:
            index, configurations, nodes, reached = waiting.pop()
            if index == len(layers):
                self.end = min(configurations, key=lambda configuration: configuration[4])
                self.is_cheapest = not waiting
                return True
            if len(configurations) > at_once:
                waiting.append((index, configurations[at_once:], [], {}))
                configurations = configurations[:at_once]
            if index > self.furthest:
                self.furthest = index
                self.furthest_configurations = configurations
            arriving = yield from self._cross(index, configurations, nodes, reached)
            entered = self._enter(index + 1, arriving) if arriving else None
            if entered:
                waiting.append((index + 1, entered, [], {}))
        return False

    # --------------------------------------------------------------------------------------------- within a layer

    def _cross(
        self, index: int, configurations: list[Configuration], nodes: list[_Node], reached: _Seen
    ) -> Generator[None, None, _Arriving]:
        """All configurations in which the target of this layer has taken effect, reached from these.

        What is too dear for now is put among the waiting.
        """
        timeline = self._timeline
        layer = timeline.layers[index]
        target = layer.target
        not_target = ~target
        total = layer.total & not_target
        changing = layer.changing
        consumed = self._consumed
        settled_in = layer.settled
        effort = self._effort
        table = self._table(index)
        moves_in = table.moves
        arriving: _Arriving = {}
        stack = nodes
        later: list[_Node] = []
        dearest: float = float("inf")
        if self._rules.leeway is not None:
            costs = [entry[4] for entry in configurations] + [node[4] for node in nodes]
            dearest = min(costs) + self._rules.leeway
        for state, must, may, trace, cost in configurations:
            effort.steps += 1
            if not must & target:
                _keep(arriving, (state, must, may & not_target), trace, cost)
            if (must | may) & target:
                reached.setdefault(state, []).append((must, may, cost))
                stack.append((state, must, may, trace, cost, _NOWHERE, False))
        while stack:
            state, must, may, trace, cost, without, was_total = stack.pop()
            if cost > dearest:
                later.append((state, must, may, trace, cost, without, was_total))
                continue
            effort.steps += 1
            if effort.steps >= effort.limit:
                yield
            moves = moves_in.get(state)
            if moves is None:
                moves = moves_in[state] = self._moves(index, table, state)
            for kind, new, bits, mask, lost, price, is_blind, is_total, is_worth, is_worth_last in moves:
                if is_blind and was_total:
                    continue
                if without is not _NOWHERE:
                    effect = timeline.effect(without, kind)
                    if effect is not None and (effect[0] if effect[1] >= layer.position else INDISTINCT) == new:
                        continue
                choices = []
                due = must & mask
                free = may & mask
                if due:
                    for bit in bits:
                        if due & bit:
                            choices.append((bit, True, cost))
                            break
                        if free & bit and not choices and (is_worth_last if bit == target else is_worth):
                            choices.append((bit, False, cost))
                elif free:
                    for bit in bits:
                        if free & bit:
                            if is_worth_last if bit == target else is_worth:
                                choices.append((bit, False, cost))
                            break
                elif is_worth:
                    free = may & lost
                    if free:
                        choices.append((free & -free, False, cost + price))
                for bit, is_due, new_cost in choices:
                    new_must = must & ~bit
                    new_may = may & ~(bit & consumed)
                    buried = 0
                    if is_blind:
                        buried = new_must & total
                        if buried:
                            new_must ^= buried
                            new_may |= buried
                        elif new == state:
                            continue
                    settled = 0
                    if new_must:
                        known = settled_in.get(new)
                        settled = (timeline.settled(layer, new) if known is None else known) & new_must
                        if settled:
                            new_must ^= settled
                            new_may |= settled & changing
                    if bit == target or settled & target:
                        new_trace = (trace, index, bit, buried, settled)
                        _keep(arriving, (new, new_must, new_may & not_target), new_trace, new_cost)
                        if bit == target or not new_may & target:
                            continue
                    others = reached.get(new)
                    if others is None:
                        reached[new] = [(new_must, new_may, new_cost)]
                    elif _is_needless(others, new_must, new_may, new_cost):
                        continue
                    else:
                        others.append((new_must, new_may, new_cost))
                    stack.append(
                        (
                            new,
                            new_must,
                            new_may,
                            (trace, index, bit, buried, settled),
                            new_cost,
                            _NOWHERE if is_due or settled or buried else state,
                            not settled and (is_total or not is_due),
                        )
                    )
        if later:
            self._waiting.append((index, [], later, reached))
        return arriving

    def _enter(self, index: int, arriving: _Arriving) -> list[Configuration]:
        """The configurations as they stand at this layer, the best first, without those that others make needless."""
        timeline = self._timeline
        if index == len(timeline.layers):
            return [(*key, *value) for key, value in arriving.items()]
        layer = timeline.layers[index]
        if layer.groups is None:
            layer.prepare()
        entered: list[Configuration] = []
        for (state, must, may), (trace, cost) in arriving.items():
            if timeline.told_apart_until(state) < layer.position:
                state = INDISTINCT
            must |= layer.must_opened
            may |= layer.may_opened
            settled = must and timeline.settled(layer, state) & must
            if settled:
                must ^= settled
                may |= settled & layer.changing
                trace = (trace, index, 0, 0, settled)
            for guard, waiting, roots in layer.demands:
                if (waiting < 0 or must & waiting) and not (must | may) & roots and not timeline.leads(state, guard):
                    break
            else:
                entered.append((state, must, may, trace, cost))
        if len(entered) > 1:
            entered.sort(key=_freest)
        elif not self._waiting:
            return entered
        # Configurations left waiting may still arrive at this layer later, so what was seen here is remembered then.
        seen = self._seen.setdefault(index, {}) if self._waiting else {}
        kept = []
        for entry in entered:
            state, must, may, _, cost = entry
            others = seen.get(state)
            if others is None:
                seen[state] = [(must, may, cost)]
            elif _is_needless(others, must, may, cost):
                continue
            else:
                others.append((must, may, cost))
            kept.append(entry)
        if self._rules.prices is not None:
            kept.sort(key=_cheapest)
        return kept

    def _table(self, index: int) -> _Table:
        table = self._tables.get(index)
        if table is None:
            if len(self._tables) >= _TABLES_MAX:
                self._tables.clear()
            table = self._tables[index] = self._new_table(index)
        return table

    def _new_table(self, index: int) -> _Table:
        live = self._timeline.live(index)
        table = _Table({}, {}, {}, False)
        for entry in live.unguarded:
            if not entry.kind.traits.is_blind:
                return table._replace(guarded=live.guarded, a_lost_one_observes_all=True)
            if not entry.bits & self._rules.counted:
                effect = self._timeline.effect(self._timeline.initial, entry.kind)
                assert effect is not None, "what is blind is legal everywhere"
                price = self._price(entry, index)
                table.cheapest_blind[effect[0]] = min(price, table.cheapest_blind.get(effect[0], price))
        if not table.cheapest_blind:
            return table._replace(guarded=live.guarded)
        for guard, entries in live.guarded.items():
            useful = [entry for entry in entries if not self._is_outdone(table, entry, guard, index)]
            if useful:
                table.guarded[guard] = useful
        return table

    def _price(self, entry: Lost, index: int) -> int:
        return 0 if self._rules.prices is None else self._rules.prices.price(entry.kind.number, index)

    def _is_outdone(self, table: _Table, entry: Lost, guard: State, index: int) -> bool:
        """Whether a lost operation that leaves the same state from everywhere is there without end, and no dearer."""
        effect = self._timeline.effect(guard, entry.kind)
        if effect is None:
            return True
        price = table.cheapest_blind.get(effect[0])
        return price is not None and price <= self._price(entry, index)

    def _moves(self, index: int, table: _Table, state: State) -> list[_Move]:
        """What can be done in this state of this layer, one entry a kind."""
        layer = self._timeline.layers[index]
        live = self._timeline.live(index)
        lost = {entry.kind.number: entry for entry in table.guarded.get(state, ())}
        lost.update((entry.kind.number, entry) for entry in live.unguarded)
        if live.leaving and (state in layer.shunned or layer.someone_observes_all):
            self._add_leaving(lost, index, state, live.leaving)
        moves: list[_Move] = []
        assert layer.groups is not None, "the layer is prepared"
        for kind, mask, bits in layer.groups:
            if not kind.traits.is_read_only:
                self._add_move(moves, index, table, state, kind, bits, mask, lost.pop(kind.number, None))
        for entry in lost.values():
            self._add_move(moves, index, table, state, entry.kind, (), 0, entry)
        return moves

    def _add_leaving(self, lost: dict[int, Lost], index: int, state: State, leaving: list[Lost]) -> None:
        """Adds the lost operations that are good for leaving this state, and nothing else. They are all alike now."""
        cheapest: Lost | None = None
        counted: Lost | None = None
        for entry in leaving:
            if self._timeline.effect(state, entry.kind) is None:
                continue
            if entry.bits & self._rules.counted:
                counted = entry if counted is None else counted._replace(bits=counted.bits | entry.bits)
            elif cheapest is None or self._price(entry, index) < self._price(cheapest, index):
                cheapest = entry
        for entry in (cheapest, counted):
            if entry is not None:
                lost[entry.kind.number] = entry

    def _add_move(
        self,
        moves: list[_Move],
        index: int,
        table: _Table,
        state: State,
        kind: Kind,
        bits: tuple[int, ...],
        mask: int,
        lost: Lost | None,
    ) -> None:
        timeline = self._timeline
        layer = timeline.layers[index]
        effect = timeline.effect(state, kind)
        if effect is None:
            return
        after = effect[0] if effect[1] >= layer.position else INDISTINCT
        is_blind = kind.traits.is_blind
        if after == state:
            if not is_blind:
                return
            # It can still bury others.
            is_worth = is_worth_last = True
        else:
            is_worth_last = after is not INDISTINCT or layer.position <= timeline.indistinct_wanted_until
            is_worth = is_worth_last and (
                after in layer.observed
                or after in table.guarded
                or state in layer.shunned
                or layer.someone_observes_all
                or table.a_lost_one_observes_all
            )
        if not is_worth and not mask:
            return
        price = self._price(lost, index) if lost is not None else 0
        lost_bits = lost.bits if lost is not None else 0
        moves.append(
            _Move(kind, after, bits, mask, lost_bits, price, is_blind, kind.traits.is_total, is_worth, is_worth_last)
        )


def _is_needless(others: list[tuple[int, int, int]], must: int, may: int, cost: int) -> bool:
    """Whether one of these is at least as free as (must, may), and no dearer."""
    for other_must, other_may, other_cost in others if len(others) <= _COMPARED_MAX else others[-_COMPARED_MAX:]:
        if not (may & ~other_may or other_must & ~must or must & ~(other_must | other_may)) and other_cost <= cost:
            return True
    return False


def _keep(arriving: _Arriving, key: tuple[State, int, int], trace: Trace | None, cost: int) -> None:
    known = arriving.get(key)
    if known is None or known[1] > cost:
        arriving[key] = (trace, cost)


def _freest(configuration: Configuration) -> tuple[int, int]:
    """Sorts what can make others needless before them."""
    return configuration[1].bit_count() - configuration[2].bit_count(), configuration[4]


def _cheapest(configuration: Configuration) -> int:
    return configuration[4]


class Placed(NamedTuple):
    """The order that a trace stands for."""

    order: tuple[Operation, ...]
    uses: dict[int, list[int]]
    """For each kind of lost operation, the layers in which one took effect, in order."""
    is_exact: bool
    """No kind of lost operation takes effect more often than it was invoked by then. Otherwise `order` leaves out what
    is too much, and explains nothing."""


def place(timeline: Timeline, trace: Trace | None) -> Placed:
    """The order that a trace stands for. What may take effect later and never does has taken effect at the first chance."""
    actions: list[tuple[int, int, int, int]] = []
    while trace is not None:
        trace, index, bit, buried, settled = trace
        actions.append((index, bit, buried, settled))
    actions.reverse()
    layers = timeline.layers
    lost_of = {bit: entry for entry in timeline.lost for bit in _bits(entry.bits)}
    stepped = {layers[index].operation(bit).number for index, bit, _, _ in actions if bit and bit not in lost_of}
    order: list[Operation] = []
    done: set[int] = set()
    uses: dict[int, list[int]] = {}
    is_exact = True

    def take(index: int, mask: int) -> None:
        for bit in _bits(mask):
            operation = layers[index].operation(bit)
            if operation.number not in stepped and operation.number not in done:
                done.add(operation.number)
                order.append(operation)

    for index, bit, buried, settled in actions:
        take(index, buried)
        if bit in lost_of:
            entry = lost_of[bit]
            used = uses.setdefault(entry.kind.number, [])
            if len(used) < len(entry.layers) and entry.layers[len(used)] <= index:
                order.append(entry.operations[len(used)])
            else:
                is_exact = False
            used.append(index)
        elif bit:
            order.append(layers[index].operation(bit))
        take(index, settled)
    return Placed(tuple(order), uses, is_exact)


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        bit = mask & -mask
        bits.append(bit)
        mask ^= bit
    return bits
