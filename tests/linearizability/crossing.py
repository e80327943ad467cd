"""One layer, crossed: from configurations in which its target has not taken effect to all in which it has.

**Configurations.** At a layer (see `timeline`) everything that returned before has taken effect. What remains open is
in one of three conditions, so a configuration is a state and two sets:

- *must*: it has not taken effect, and has to before it returns;
- *may*: it is free to take effect later, and need not. So are lost operations, and so is one that could have taken
  effect before at no cost to any other: one configuration then stands for both orders;
- neither: it has taken effect.

An operation goes from must to may where it is legal and changes nothing (*settled*: a read of the present value), or
where it is legal in every state and stands right before one whose effect hides it (*buried*: a write under another).

**To cross** is to take steps, each the effect of one open operation, until one is that of the target. Where the target
is in may, it is also left alone.

**What is not tried**, because another choice leads to a configuration that is at least as free:

- of operations of one kind, any but the one that must return first;
- a step that need not be taken, unless the next step would not have been possible, or not the same, without it;
- a step that is legal in every state right before one that would have buried it;
- a configuration where another was seen at the same place with the same state, no more in must, no less in may.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Final

from tests.linearizability.models import INDISTINCT, State
from tests.linearizability.moves import Move, Moves
from tests.linearizability.timeline import Timeline

Trace = tuple["Trace | None", int, int, int, int]
"""(what went before, layer, bit that took effect or 0, bits buried right before it, bits settled right after it)"""

Configuration = tuple[State, int, int, Trace | None, int]
"""(state, must, may, trace, cost)"""

Arriving = dict[tuple[State, int, int], tuple[Trace | None, int]]
"""Configurations on their way to the next layer: the cheapest trace of each, and its cost."""

Seen = dict[State, list[tuple[int, int, int]]]
"""(must, may, cost) of the configurations seen with each state."""

Node = tuple[State, int, int, Trace | None, int, object, bool]
"""A configuration within a layer, and what restricts its next step: the state without the last step if that need not
have been taken (or _NOWHERE), and whether the next step must not be one that buries."""

_NOWHERE: Final = object()
"""Stands for "no state" where a state may be None."""
_COMPARED_MAX: Final = 400
"""A configuration is compared with at most so many others of its place and state, the last ones."""


class Effort:
    """The steps of the walks of one key, and how many it may take before others have their turn."""

    __slots__ = ("limit", "steps")

    def __init__(self, limit: int = 0) -> None:
        self.steps = 0
        self.limit = limit


class Crossing:
    """Crosses one layer from some configurations."""

    __slots__ = (
        "_ahead",
        "_changing",
        "_consumed",
        "_index",
        "_layer",
        "_not_target",
        "_settled",
        "_stack",
        "_table",
        "_target",
        "_timeline",
        "_total",
        "arriving",
        "later",
        "reached",
    )

    def __init__(self, timeline: Timeline, moves: Moves, index: int, consumed: int, reached: Seen) -> None:
        """`consumed` has all bits but those of the lost operations that take effect over and over. `reached` is what
        was seen in this layer on the way to the nodes that are run; it is added to."""
        layer = timeline.layers[index]
        self._timeline = timeline
        self._table = moves.table(index)
        self._index = index
        self._layer = layer
        self._target = layer.target
        self._not_target = ~layer.target
        self._ahead = layer.demand_of_target
        # The target is never buried: the step that it is waited for would then be another's.
        self._total = layer.total & ~layer.target
        self._changing = layer.changing
        self._settled = layer.settled
        self._consumed = consumed
        self._stack: list[Node] = []
        self.reached: Final = reached
        self.arriving: Final[Arriving] = {}
        """What has crossed."""
        self.later: Final[list[Node]] = []
        """What was too dear to go on with."""

    def run(
        self,
        moves: Moves,
        configurations: Sequence[Configuration],
        nodes: list[Node],
        leeway: int | None,
        effort: Effort,
    ) -> Generator[None, None, None]:
        """Crosses from these configurations and nodes; yields when the effort is used up."""
        target = self._target
        stack = self._stack = nodes
        dearest: float = math.inf
        if leeway is not None:
            dearest = min([entry[4] for entry in configurations] + [node[4] for node in nodes]) + leeway
        for state, must, may, trace, cost in configurations:
            effort.steps += 1
            if not must & target:
                self._arrive(state, must, may, trace, cost)
            if (must | may) & target:
                self.reached.setdefault(state, []).append((must, may, cost))
                stack.append((state, must, may, trace, cost, _NOWHERE, False))
        moves_from = self._table.moves
        while stack:
            node = stack.pop()
            if node[4] > dearest:
                self.later.append(node)
                continue
            effort.steps += 1
            if effort.steps >= effort.limit:
                yield
            possible = moves_from.get(node[0])
            self._step(node, moves.moves(self._table, node[0]) if possible is None else possible)

    def _step(self, node: Node, moves: list[Move]) -> None:
        """Takes each possible step from a node."""
        _, must, may, _, cost, without, was_total = node
        target = self._target
        for move in moves:
            _, _, bits, mask, lost, price, is_blind, _, is_worth, is_worth_last = move
            if is_blind and was_total:
                continue
            if without is not _NOWHERE and self._is_the_same_from(without, move):
                continue
            due = must & mask
            free = may & mask
            if due or free:
                for bit in bits:
                    if due & bit:
                        self._take(node, move, bit, cost, is_due=True)
                        break
                    if free & bit:
                        if is_worth_last if bit == target else is_worth:
                            self._take(node, move, bit, cost, is_due=False)
                        if not due:
                            break
                        free = 0
            elif is_worth:
                free = may & lost
                if free:
                    self._take(node, move, free & -free, cost + price, is_due=False)

    def _is_the_same_from(self, state: object, move: Move) -> bool:
        effect = self._timeline.effect(state, move.kind)
        if effect is None:
            return False
        return (effect[0] if effect[1] >= self._layer.position else INDISTINCT) == move.state

    def _take(self, node: Node, move: Move, bit: int, cost: int, *, is_due: bool) -> None:
        state, must, may, trace, _, _, _ = node
        new = move.state
        must &= ~bit
        may &= ~(bit & self._consumed)
        buried = settled = 0
        if move.is_blind:
            buried = must & self._total
            if buried:
                must ^= buried
                may |= buried
            elif new == state:
                return
        if must:
            known = self._settled.get(new)
            settled = (self._timeline.settled(self._layer, new) if known is None else known) & must
            if settled:
                must ^= settled
                may |= settled & self._changing
        new_trace: Trace = (trace, self._index, bit, buried, settled)
        if (bit | settled) & self._target:
            self._arrive(new, must, may, new_trace, cost)
            if bit == self._target or not may & self._target:
                return
        ahead = self._ahead
        if ahead is not None and not (must | may) & ahead.roots and not self._timeline.leads(new, ahead.guard):
            return
        others = self.reached.get(new)
        if others is None:
            self.reached[new] = [(must, may, cost)]
        elif is_needless(others, must, may, cost):
            return
        else:
            others.append((must, may, cost))
        self._stack.append(
            (
                new,
                must,
                may,
                new_trace,
                cost,
                _NOWHERE if is_due or settled or buried else state,
                not settled and (move.is_total or not is_due),
            )
        )

    def _arrive(self, state: State, must: int, may: int, trace: Trace | None, cost: int) -> None:
        key = (state, must, may & self._not_target)
        known = self.arriving.get(key)
        if known is None or known[1] > cost:
            self.arriving[key] = (trace, cost)


def is_needless(others: list[tuple[int, int, int]], must: int, may: int, cost: int) -> bool:
    """Whether one of these (must, may, cost) is at least as free as this, and no dearer."""
    for other_must, other_may, other_cost in others if len(others) <= _COMPARED_MAX else others[-_COMPARED_MAX:]:
        if not (may & ~other_may or other_must & ~must or must & ~(other_must | other_may)) and other_cost <= cost:
            return True
    return False
