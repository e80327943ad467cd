"""What the administrators of a cluster want its membership to be.

People say it through Django; the database keeps it, and the log keeps the same bytes with a generation, so that a
database that was lost or put back is noticed (docs/design.md, rule 10). Whoever is to leave is named: a member that is
merely not mentioned stays.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from typing import Final

import msgspec

from coordinator import wire
from coordinator.consensus.quorum import witnesses_max

REPLACE_AFTER_S: Final = 600
REPLACE_AFTER_S_MAX: Final = 31_536_000
"""A year."""
VOTERS_MAX: Final = 15


class WantedDamaged(Exception):
    """The bytes are no wanted membership of a version that this reads."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A node that is to have a voting replica. `priority`: of those caught up, the highest leads where it can.
    `witness`: it votes and keeps the log, and has no state; a replica is one or is none for as long as it is there."""

    node: str
    priority: int = 0
    witness: bool = False


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`leaving`: nodes whose replica is to go, until it was seen to be gone. `replace_after_s`: a wanted node that has
    been gone for so long is replaced by another, where there is one; 0: never."""

    voters: tuple[Place, ...]
    leaving: tuple[str, ...] = ()
    replace_after_s: int = REPLACE_AFTER_S

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(place.node for place in self.voters)

    def adding(self, node: str, priority: int = 0, *, witness: bool = False) -> Wanted:
        """Raises ValueError where it is wanted already, there are as many (or as many witnesses) as there may be, or it
        can not be wanted."""
        wanted = self._with(Place(node, priority, witness))
        if len(wanted.voters) > VOTERS_MAX:
            raise ValueError(f"expected at most {VOTERS_MAX} replicas")
        _check_witnesses(wanted.voters)
        return wanted

    def _with(self, place: Place) -> Wanted:
        """However many there are then. Raises ValueError where it is wanted already, or can not be wanted."""
        node, most = place.node, wire.PRIORITY_MAX
        if why := name_problem(node):
            raise ValueError(why)
        if not -most <= place.priority <= most:
            raise ValueError(f"expected a priority from -{most} to {most}, got {reprlib.repr(place.priority)}")
        if node in self.nodes:
            raise ValueError(f"{node} has a replica, or is to get one, already")
        leaving = tuple(name for name in self.leaving if name != node)
        return msgspec.structs.replace(self, voters=(*self.voters, place), leaving=leaving)

    def removing(self, node: str) -> Wanted:
        """Raises ValueError where it is the last one or the last that could lead, or leaves too many witnesses."""
        voters = tuple(place for place in self.voters if place.node != node)
        if not voters:
            raise ValueError(f"{node} is the last one: a cluster without replicas decides nothing")
        if all(place.witness for place in voters):
            names = ", ".join(place.node for place in voters)
            raise ValueError(f"{node} is the last one with a state: a witness can not lead, and {names} would be left")
        _check_witnesses(voters)
        leaving = tuple(dict.fromkeys((*self.leaving, node)))
        return msgspec.structs.replace(self, voters=voters, leaving=leaving)

    def moving(self, source: str, target: str) -> Wanted:
        """Raises ValueError where `source` is not wanted, or `target` is already."""
        place = next((place for place in self.voters if place.node == source), None)
        if place is None:
            raise ValueError(f"{source} has no replica that is wanted; these have: {', '.join(self.nodes)}")
        return self._with(Place(target, place.priority, place.witness)).removing(source)

    def without_leaving(self, nodes: Collection[str]) -> Wanted:
        """These have left."""
        return msgspec.structs.replace(self, leaving=tuple(name for name in self.leaving if name not in nodes))

    def replacing_after(self, seconds: int) -> Wanted:
        """Raises ValueError for what is no such time."""
        if not 0 <= seconds <= REPLACE_AFTER_S_MAX:
            raise ValueError(f"expected 0 (never) to {REPLACE_AFTER_S_MAX} seconds, got {reprlib.repr(seconds)}")
        return msgspec.structs.replace(self, replace_after_s=seconds)


def _check_witnesses(voters: Collection[Place]) -> None:
    """Raises ValueError where the log would not take so many."""
    witnesses, most = sum(place.witness for place in voters), witnesses_max(len(voters))
    if witnesses > most:
        raise ValueError(
            f"expected at most {most} witnesses among {len(voters)} replicas, got {witnesses}: too few would have the "
            "state"
        )


def name_problem(node: str) -> str:
    """Why this can be no node's name; "" where it can."""
    if wire.NODE_NAME.fullmatch(node):
        return ""
    return f"a node's name matches {wire.NODE_NAME.pattern}, got {reprlib.repr(node)}"


_wanted = msgspec.json.Decoder(Wanted)


def encode(wanted: Wanted) -> bytes:
    """The same wanted membership gives the same bytes."""
    return msgspec.json.encode(wanted)


def decode(data: bytes) -> Wanted:
    """Raises WantedDamaged."""
    try:
        return _wanted.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WantedDamaged(f"not a wanted membership of this version: {error}") from None
