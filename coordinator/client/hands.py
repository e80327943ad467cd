"""What whoever asks has in hand: what its thread, or its task, has taken itself and not let go of.

All threads and tasks of a client share a session, and sessions are what the cluster knows to wait for one another. By
them alone two processes whose threads contend for one lock would look like a deadlock. Who has nothing in hand closes
no cycle by waiting; so only who has something has the cluster look for one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Self

from coordinator.client.lease import LeaseState

PLACES_MAX: Final = 32
"""Of more the oldest are forgotten: one that is full says it all, and to ask must cost little."""


class Place:
    """Of something that is asked for, in the hand of its asker. A context manager for as long as it is asked for."""

    __slots__ = ("is_asked_for", "state")

    def __init__(self) -> None:
        self.state: LeaseState | None = None
        """What came of it."""
        self.is_asked_for = True

    @property
    def is_full(self) -> bool:
        state = self.state
        return state is not None and not (state.released or state.grant.session.gone)

    @property
    def is_of_use(self) -> bool:
        return self.is_asked_for or self.is_full

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.is_asked_for = False


_places: ContextVar[tuple[Place, ...]] = ContextVar("conclave.places", default=())
"""Of a thread, or of a task, which begins with those of the one that made it."""


def are_full() -> bool:
    """Has the caller something in hand?"""
    return any(place.is_full for place in _places.get())


def may_close_a_cycle(refuse_deadlocks: object) -> bool:
    """Is the cluster to look for one, for a caller that chose so (whatever of that is true)?"""
    return bool(refuse_deadlocks) and are_full()


def place() -> Place:
    """For what the caller asks for now. On its thread."""
    new = Place()
    _places.set((*[place for place in _places.get() if place.is_of_use][-PLACES_MAX:], new))
    return new
