"""What a node has no use for any more, freed a slice at a time.

The state of a replica that was stopped, removed or sent a newer one has up to two million keys, and the interpreter
frees all of it at once when the last name for it is gone: with a million keys that held up the loop for 100 ms.
So whoever lets go of what may be large leaves it here, and it is emptied bit by bit. Nobody else may look at a state
that is left. Snapshots and entries may still be in others' hands, who write or send them: of those it is their parts
that are let go, not the whole that is emptied.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from coordinator.consensus.engine import Data
from coordinator.consensus.parts import Parts
from coordinator.statemachine.history import content_size
from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.state import State

SLICE_WEIGHT: Final = 4_096
"""Freed in one slice: half a millisecond's work of small objects, a millisecond's of large ones."""
BYTES_PER_WEIGHT: Final = 4_096
"""To give a page back to the system costs as much as to free one small object, or two."""

Left = State | Data | list[bytes]


class Leavings:
    def __init__(self) -> None:
        self._containers: deque[list[Any] | dict[Any, Any]] = deque()
        self._states: deque[State] = deque()
        """To which the containers belong, so that these are empty when it goes."""

    @property
    def is_empty(self) -> bool:
        return not (self._containers or self._states)

    def add(self, left: Left) -> None:
        """`left` is needed no more. A state belongs to nobody else from here on. Bytes in one piece go at once."""
        if isinstance(left, State):
            self._states.append(left)
            self._containers += _containers_of(left)
        elif isinstance(left, Parts):
            self._containers.append(left.parts())
        elif isinstance(left, list):
            self._containers.append(left)

    def free_some(self, weight_max: int = SLICE_WEIGHT) -> None:
        """The next slice."""
        containers, weight = self._containers, 0
        while containers:
            container = containers[0]
            while container:
                if weight >= weight_max:
                    return
                weight += _weight_of(container.popitem()[1] if isinstance(container, dict) else container.pop())
            containers.popleft()
            weight += 1
        self._states.clear()


def _containers_of(state: State) -> list[list[Any] | dict[Any, Any]]:
    """All of a state that may be long."""
    history = state.history
    tables = (
        state.principals,
        state.roles,
        state.narrowings,
        state.quotas,
        state.sessions,
        state.locks,
        state.keys,
        state.ephemerals,
        state.lock_generations,
        state.breaks,
    )
    found: list[list[Any] | dict[Any, Any]] = [history.gone.take_buckets(), history.past, history.rows]
    found += [state.lock_events.rows, state.children, state.tokens, state.nonces, state.broken, state.uses]
    for table in tables:
        found += [table.order.take_buckets(), table.rows]
    return found


def _weight_of(row: object) -> int:
    """How many small objects it is as much work as."""
    match row:
        case Item():
            return 1 + content_size(row) // BYTES_PER_WEIGHT
        case Change():
            return 2 + content_size(row.before) // BYTES_PER_WEIGHT  # What is after it is there, or before another.
        case bytes():
            return 1 + len(row) // BYTES_PER_WEIGHT
        case list():
            return 1 + len(row)
        case Session():
            return 1 + len(row.results) + row.result_bytes // BYTES_PER_WEIGHT
        case Lock():
            return 1 + len(row.holders) + len(row.queue)
    return 1
