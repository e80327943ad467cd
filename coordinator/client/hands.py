"""What whoever asks has in hand: what its thread, or its task, has taken itself and not let go of.

All threads and tasks of a client share a session, and sessions are what the cluster knows to wait for one another. By
them alone two processes whose threads contend for one lock would look like a deadlock. Who has nothing in hand closes
no cycle by waiting; so only who has something has the cluster look for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, Self

from coordinator.client.errors import Deadlock
from coordinator.client.lease import LeaseState
from coordinator.client.session import Session

PLACES_MAX: Final = 8_192
"""Of more the oldest are forgotten: to ask must cost little."""
LOOKED_AT: Final = 64
"""Where there are more, it is looked each so many times which are of use still."""


class Place:
    """Of something that is asked for, in the hand of its asker. A context manager for as long as it is asked for."""

    __slots__ = ("asker", "is_asked_for", "state")

    def __init__(self, asker: object) -> None:
        self.asker = asker
        """See `Shell.asker`."""
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


class InHand:
    """What a caller has in hand, itself or by whoever made it, when it asks for some names. Made on its thread."""

    __slots__ = ("_asker", "_names", "_places")

    def __init__(self, names: tuple[str, ...], asker: object) -> None:
        self._names = names
        self._asker = asker
        self._places = [place for place in _places.get() if place.is_full]

    def covers(self, session: Session | None) -> bool:
        """Has the caller itself all of these names, by this session?"""
        mine: set[str] = set()
        for place in self._places:
            state = place.state
            if state is not None and place.asker == self._asker and place.is_full and state.grant.session is session:
                mine.update(_names(state))
        return mine.issuperset(self._names)

    def refuse_to_wait(self, sessions: Mapping[int, Session], *, joins: bool = False) -> None:
        """Raises Deadlock where the caller, which is to wait for these names alone, has one of them itself by one of
        these sessions: nobody lets go of it then. `joins`: or whoever made it has; a task that would join what that has
        may be waited for by it."""
        for place in self._places:
            state = place.state
            if state is None or not place.is_full or not (joins or place.asker == self._asker):
                continue
            session = state.grant.session
            if sessions.get(session.ttl_ms) is session:
                for name in _names(state):
                    if name in self._names:
                        raise Deadlock(((session.session, name),))


def _names(state: LeaseState) -> tuple[str, ...]:
    grant = state.grant
    return grant.names or (grant.name,)


def are_full() -> bool:
    """Has the caller something in hand?"""
    return any(place.is_full for place in _places.get())


def may_close_a_cycle(refuse_deadlocks: object) -> bool:
    """Is the cluster to look for one, for a caller that chose so (whatever of that is true)?"""
    return bool(refuse_deadlocks) and are_full()


def place(asker: object) -> Place:
    """For what the caller asks for now. On its thread."""
    new = Place(asker)
    places = _places.get()
    if len(places) < LOOKED_AT or not len(places) % LOOKED_AT:
        places = tuple([place for place in places if place.is_of_use][-PLACES_MAX:])
    _places.set((*places, new))
    return new
