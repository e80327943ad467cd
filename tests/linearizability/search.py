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


DEBUG=False
class Prices:
    """Whole numbers. For kind k and j: the uses before the invocation of the (j+1)-th are at most j."""
    BASE=1
    UNIT=1000
    def __init__(self, timeline):
        self.timeline=timeline
        positions=[l.position for l in timeline.layers]
        import bisect
        self.inv={}   # kind -> list of layer index from which the j-th (1-based idx j-1) is available
        for e in timeline.lost:
            self.inv[e.kind.number]=[bisect.bisect_left(positions, o.invoked) for o in e.operations]
        self.lam={k:[0]*(len(v)+1) for k,v in self.inv.items()}
        self.total=sum(len(v) for v in self.inv.values())
        self.cache={}
        self._suffix()
    def _suffix(self):
        # per kind: piecewise price, by count available c in 1..m: sum_{j>=c} lam_j
        self.suf={}
        for k,l in self.lam.items():
            acc=0; out=[0]*len(l)
            for j in range(len(l)-1,-1,-1):
                acc+=l[j]; out[j]=acc
            self.suf[k]=out
        import bisect
        # events: at layer index, kind count increments
        ev={}
        for k,v in self.inv.items():
            for i in v: ev.setdefault(i,[]).append(k)
        self.tables=[]; self.starts=[]
        count=dict.fromkeys(self.inv,0)
        cur={k:self.BASE+self.suf[k][0] for k in self.inv}
        self.starts.append(-1); self.tables.append(dict(cur))
        for i in sorted(ev):
            for k in ev[i]:
                count[k]+=1
                cur[k]=self.BASE+self.suf[k][count[k]]
            self.starts.append(i); self.tables.append(dict(cur))
    def at(self,index):
        import bisect
        return self.tables[bisect.bisect_right(self.starts,index)-1]
    def budget(self):
        return self.BASE*self.total+sum(l[j]*j for l in self.lam.values() for j in range(len(l)))
    def excess(self,uses):
        n=0
        for k,v in self.inv.items():
            u=uses.get(k,[])
            m=len(v)
            n+=max(0,len(u)-m)
        return n
    def update(self,uses,round):
        import bisect
        step=self.UNIT/round**0.5
        for k,v in self.inv.items():
            u=uses.get(k,[]); m=len(v); l=self.lam[k]
            for j in range(1,m+1):
                before = len(u) if j==m else bisect.bisect_left(u, v[j])
                g=before-j
                if g>0: l[j]+=int(step*g)
                elif l[j]: l[j]=max(0,l[j]+int(step*g))
        self._suffix()

class Search:
    """Looks for an order of the operations of one key, some steps at a time."""

    CONFIGURATIONS_AT_ONCE: Final = 48
    """Of more at one layer, the freest go ahead; the others wait until those are stuck."""
    COMPARED_MAX: Final = 400
    """A configuration is compared with at most so many others of its layer and state."""
    ROUNDS = 40
    BULK=16
    FIRST=16
    """After so many fresh starts every lost operation is counted."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self._timeline = Timeline(model, operations)
        self.steps = 0
        """Configurations looked at so far, over all starts."""
        self._prices = None
        self._at_once = 48
        self._cost_counts = False
        self.how=None
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

    def _search(self):
        if self._timeline.states_are_bounded and self._timeline.lost:
            self._prices = Prices(self._timeline)
            for round in range(0, self.ROUNDS + 1):
                self._at_once = self.BULK if round else self.FIRST
                self._cost_counts = round > 0
                t0=self.steps
                trace = yield from self._find()
                if trace is _NOWHERE:
                    self.answer = False
                    self.how = "bulk"
                    return
                placed, overused, uses = self.replay(trace)
                if DEBUG: print("round", round, self.steps-t0, "cost", self._cost, "over", self._prices.excess(uses), "split", bool(self._waiting))
                if not overused:
                    self.linearization = tuple(entry.operation for entry in placed)
                    self.answer = True
                    self.how = "bulk" if round==0 else f"prices{round}"
                    return
                complete = not self._waiting
                if round and complete and self._cost > self._prices.budget():
                    self.answer = False
                    self.how = "dual"
                    return
                if round: self._prices.update(uses, round)
                self._restart()
        self.how = "exact"
        self._at_once = self.CONFIGURATIONS_AT_ONCE
        self._counted = self._timeline.lost_bits
        self._cost_counts = False
        self._restart()
        trace = yield from self._find()
        if trace is _NOWHERE:
            self.answer = False
            return
        placed, overused, uses = self.replay(trace)
        assert not overused
        self.linearization = tuple(entry.operation for entry in placed)
        self.answer = True

    def _find(self) -> Generator[None, None, Any]:
        """The trace of a configuration behind the last layer, or _NOWHERE where there is none."""
        layers = self._timeline.layers
        self._waiting.append((0, self._enter(0, {(self._timeline.initial, 0, 0): (None, 0)})))
        while self._waiting:
            index, configurations = self._waiting.pop()
            if index == len(layers):
                self._cost = configurations[0][4]; return configurations[0][3]
            if len(configurations) > self._at_once:
                self._waiting.append((index, configurations[self._at_once :]))
                configurations = configurations[: self._at_once]
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
        price_of = self._prices.at(index) if self._prices is not None else None
        after: Arriving = {}
        seen: dict[tuple[State, int, int, object, bool], int] = {}
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
                        new_cost = cost + price_of[kind.number] if price_of is not None and bit & lost_bits else cost
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
                        known = seen.get(key)
                        if known is None or known > new_cost:
                            seen[key] = new_cost
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
        free = not self._cost_counts
        for entry in entered:
            state, must, may, _, cost = entry
            others = seen.get(state)
            if others is None:
                seen[state] = [(must, may, cost)]
                kept.append(entry)
                continue
            for other_must, other_may, other_cost in others if len(others) <= self.COMPARED_MAX else others[: self.COMPARED_MAX]:
                if other_may & may == may and other_must & must == other_must and not must & ~(other_must | other_may) and (free or other_cost <= cost):
                    break
            else:
                others.append((must, may, cost))
                kept.append(entry)
        if self._prices is not None:
            kept.sort(key=lambda entry: entry[4])
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
        uses = {}

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
                uses.setdefault(entry.kind.number, []).append(index)
                if nth > len(entry.operations) or entry.operations[nth - 1].invoked > layers[index].position:
                    overused |= entry.bits
                else:
                    placed.append(Placed(entry.operations[nth - 1], index))
            elif bit:
                placed.append(Placed(_operation_at(layers[index], bit), index))
            place_all(index, settled)
        return placed, overused, uses


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
