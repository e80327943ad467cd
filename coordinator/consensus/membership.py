"""Who is in a cluster: the configuration, as a log entry holds it, and the changes that lead from one to the next.

A configuration takes effect as soon as it is in the log, committed or not (Raft, section 6). Every member is known by
its replica identity, a random 63-bit number that is never used again; the node's name and the address of its mailbox
ride along so that everyone who has the log knows where to write.

Any change is made at once. One that touches a single voter goes straight there, since the majorities of both sides
overlap (thesis, section 4.1); a larger one goes through a joint configuration, in which majorities of both sides must
agree (Raft, section 6), and which the leader leaves by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from coordinator.consensus.entries import CONFIGURATION, CONFIGURATION_PREFIX
from coordinator.consensus.members import Change, Member
from coordinator.consensus.quorum import Tally, reached_by_majority, tally, witnesses_max


class ChangeRefused(Exception):
    """The change of membership can not be made now, or at all; says why."""


class Configuration:
    """`outgoing`: the voters of before, while the configuration is joint; empty else. A learner gets the log, and
    counts for nothing. Never changed once it is made, so what follows from its fields is found then: a leader asks
    much of it in every turn."""

    def __init__(
        self, voters: tuple[Member, ...], outgoing: tuple[Member, ...] = (), learners: tuple[Member, ...] = ()
    ) -> None:
        self.voters: Final = voters
        self.outgoing: Final = outgoing
        self.learners: Final = learners
        self.is_joint: Final = bool(outgoing)
        on_either_side = voters + outgoing
        self.voter_ids: Final[tuple[int, ...]] = _each_once(on_either_side)
        """Everyone whose vote counts on either side."""
        self.full_voter_ids: Final[tuple[int, ...]] = _each_once([m for m in on_either_side if not m.witness])
        """Those voters, of either side, that have a state machine."""
        self._by_replica: Final = {member.replica: member for member in outgoing + learners + voters}
        self.members: Final[tuple[Member, ...]] = tuple(self._by_replica.values())
        """Everyone who gets the log, each once."""
        self.has_witness: Final = any(member.witness for member in self.members)
        """Is there a member without a state machine, a learner even?"""
        self.highest_priority: Final = max((member.priority for member in voters if not member.witness), default=0)
        """Of those who could lead."""
        self._side_ids: Final[list[tuple[int, ...]]] = [_ids(side) for side in (voters, outgoing) if side] or [()]
        """The voters of each side that there is."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configuration):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Configuration({self.voters!r}, {self.outgoing!r}, {self.learners!r})"

    def _fields(self) -> tuple[tuple[Member, ...], tuple[Member, ...], tuple[Member, ...]]:
        return self.voters, self.outgoing, self.learners

    def sides(self) -> dict[str, tuple[Member, ...]]:
        """The members by what they are, as a log entry names that; those that there are."""
        named = {"voters": self.voters, "outgoing": self.outgoing, "learners": self.learners}
        return {name: members for name, members in named.items() if members}

    def member(self, replica: int) -> Member | None:
        return self._by_replica.get(replica)

    def heirs_of(self, leader: int) -> list[int]:
        """The other full voters, in the order in which they campaign where `leader` falls silent."""
        return sorted(voter for voter in self.full_voter_ids if voter != leader)

    def node_of(self, replica: int) -> str:
        """The node that hosts `replica`; "" where it is not a member."""
        member = self.member(replica)
        return member.node if member is not None else ""

    def is_witness(self, replica: int) -> bool:
        member = self.member(replica)
        return member is not None and member.witness

    def reached(self, values: dict[int, int]) -> int:
        """The largest value that a majority has reached, of both sides where it is joint, given every voter's."""
        if not self.outgoing:  # As a rule, and many times a turn.
            return reached_by_majority([values[voter] for voter in self._side_ids[0]])
        return min(reached_by_majority([values[voter] for voter in side]) for side in self._side_ids)

    def tally(self, votes: dict[int, bool]) -> Tally:
        """Where an election stands: won on both sides, lost on one, or pending."""
        sides = [tally(side, votes) for side in self._side_ids]
        if Tally.LOST in sides:
            return Tally.LOST
        return Tally.PENDING if Tally.PENDING in sides else Tally.WON

    def left(self) -> Configuration:
        """What a joint configuration becomes."""
        return Configuration(self.voters, (), self.learners)


def next_configuration(now: Configuration, change: Change) -> Configuration:
    """The configuration that begins `change`: joint where more than one voter differs. Raises ChangeRefused."""
    if now.is_joint:
        raise ChangeRefused("a change of membership is under way; wait until it has left its joint configuration")
    ids = _ids(change.voters) + _ids(change.learners)
    if not change.voters:
        raise ChangeRefused("expected at least one voter: a cluster without voters decides nothing")
    if len(set(ids)) != len(ids):
        raise ChangeRefused("expected each replica once, as a voter or as a learner")
    if any(replica <= 0 for replica in ids):
        raise ChangeRefused("expected positive replica identities")
    _check_witnesses(now, change)
    changed = set(_ids(now.voters)) ^ set(_ids(change.voters))
    outgoing = now.voters if len(changed) > 1 else ()
    return Configuration(change.voters, outgoing, change.learners)


def _check_witnesses(now: Configuration, change: Change) -> None:
    """At most half of the voters may be witnesses, rounded down: then what every full voter has, and the witnesses keep
    no longer, survives as many lost disks as a majority does."""
    for member in change.voters + change.learners:
        before = now.member(member.replica)
        if before is not None and before.witness != member.witness:
            raise ChangeRefused(
                f"{member.node} can not {'become' if member.witness else 'cease to be'} a witness: "
                "remove it, and add a new replica"
            )
    witnesses, most = sum(member.witness for member in change.voters), witnesses_max(len(change.voters))
    if witnesses > most:
        raise ChangeRefused(
            f"expected at most {most} witnesses among {len(change.voters)} voters, got {witnesses}: "
            "too few would have the state"
        )


def _ids(members: Iterable[Member]) -> tuple[int, ...]:
    return tuple(member.replica for member in members)


def _each_once(members: Iterable[Member]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_ids(members)))


def encode_configuration(configuration: Configuration) -> bytes:
    """The log entry for `configuration`; the same configuration gives the same bytes."""
    body = {
        name: [list(member if member.witness else member[:-1]) for member in members]
        for name, members in configuration.sides().items()
    }
    return CONFIGURATION_PREFIX + json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def decode_configuration(entry: bytes) -> Configuration:
    """Raises ValueError where `entry` is not a configuration entry."""
    if not entry or entry[0] != CONFIGURATION:
        raise ValueError(f"expected an entry of kind {CONFIGURATION}, got {entry[:1]!r}")
    body = json.loads(entry[1:])
    voters, outgoing, learners = [
        tuple(Member(*member) for member in body.get(name, [])) for name in ("voters", "outgoing", "learners")
    ]
    return Configuration(voters, outgoing, learners)
