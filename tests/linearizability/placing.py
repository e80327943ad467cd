"""From the trace of a configuration to the order of operations that it stands for."""

from __future__ import annotations

from typing import NamedTuple

from tests.linearizability.crossing import Trace
from tests.linearizability.history import Operation
from tests.linearizability.layers import Layer
from tests.linearizability.timeline import Timeline


class Placed(NamedTuple):
    """The order that a trace stands for."""

    order: tuple[Operation, ...]
    uses: dict[int, list[int]]
    """For each kind of lost operation, the layers in which one took effect, in order."""
    is_exact: bool
    """No kind of lost operation takes effect more often than it was invoked by then. Otherwise `order` leaves out what
    is too much, and explains nothing."""


def place(timeline: Timeline, trace: Trace | None) -> Placed:
    """The order that a trace stands for. What may take effect and never does, took effect at the first chance."""
    actions: list[tuple[int, int, int, int]] = []
    while trace is not None:
        trace, index, bit, buried, settled = trace
        actions.append((index, bit, buried, settled))
    actions.reverse()
    layers = timeline.layers
    lost_of = {bit: entry for entry in timeline.lost for bit in _bits(entry.bits)}
    done = {layers[index].operation(bit).number for index, bit, _, _ in actions if bit and bit not in lost_of}
    """The operations that are placed, or will be where they took effect."""
    order: list[Operation] = []
    uses: dict[int, list[int]] = {}
    for index, bit, buried, settled in actions:
        _place_all(order, done, layers[index], buried)
        if bit in lost_of:
            entry = lost_of[bit]
            used = uses.setdefault(entry.kind.number, [])
            if len(used) < len(entry.layers) and entry.layers[len(used)] <= index:
                order.append(entry.operations[len(used)])
            used.append(index)
        elif bit:
            order.append(layers[index].operation(bit))
        _place_all(order, done, layers[index], settled)
    is_exact = all(entry.allows(uses.get(entry.kind.number, ())) for entry in timeline.lost)
    return Placed(tuple(order), uses, is_exact)


def _place_all(order: list[Operation], done: set[int], layer: Layer, mask: int) -> None:
    for bit in _bits(mask):
        operation = layer.operation(bit)
        if operation.number not in done:
            done.add(operation.number)
            order.append(operation)


def _bits(mask: int) -> list[int]:
    bits = []
    while mask:
        bit = mask & -mask
        bits.append(bit)
        mask ^= bit
    return bits
