"""Keys with their values, revisions and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Failure, Result

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

KEYS_MAX: Final = 2_000_000
KEY_BYTES_MAX: Final = 1 << 30
"""Of all keys and values together."""


class Item(NamedTuple):
    """`revision` is the index of the entry that wrote it last; `version` counts its writes since it was created."""

    value: bytes
    revision: int
    version: int


def put(state: State, index: int, op: commands.PutKey) -> Result:
    if len(op.value) > commands.VALUE_BYTES_MAX:
        return Failure(commands.INVALID, f"a value has at most {commands.VALUE_BYTES_MAX} bytes, got {len(op.value)}")
    keys = state.keys
    known = keys.rows.get(op.key)
    if known is None and len(keys.rows) >= KEYS_MAX:
        return Failure(commands.FULL, f"the cluster has its {KEYS_MAX} keys")
    grown = len(op.value) - len(known.value) if known else len(op.value) + len(op.key)
    if grown > 0 and state.key_bytes + grown > KEY_BYTES_MAX:
        return Failure(commands.FULL, f"the cluster has its {KEY_BYTES_MAX} bytes of keys and values")
    state.key_bytes += grown
    if known is None:
        keys.add(op.key, Item(op.value, index, 1))
        return Done(index, existed=False)
    keys.touch(op.key)
    keys.rows[op.key] = Item(op.value, index, known.version + 1)
    return Done(index, existed=True)


def delete(state: State, index: int, op: commands.DeleteKey) -> Result:
    if op.key not in state.keys.rows:
        return Done(index, existed=False)
    item = state.keys.remove(op.key)
    state.key_bytes -= len(item.value) + len(op.key)
    return Done(index, existed=True)
