"""Changes of membership: Raft, section 6; thesis, chapter 4.

A leader changes one thing at a time: it begins a change only once its own term is committed (without that, two leaders'
single-voter changes could miss each other) and the configuration before is committed. It leaves a joint configuration
by itself, though not behind the back of an heir that was told to campaign and would lack that entry, and steps down
when it is no longer in the one that is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role
from coordinator.consensus.entries import payload_bytes
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import (
    ChangeRefused,
    Configuration,
    encode_configuration,
    next_configuration,
)
from coordinator.consensus.quorum import majority
from coordinator.consensus.raft.progress import Progress

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


def begin(raft: Raft, change: Change, now_us: int) -> int:
    """Propose `change`; the index of its first configuration. Raises ChangeRefused."""
    if raft.role is not Role.LEADER:
        raise ChangeRefused("only the leader changes the membership")
    if not raft.may_answer:
        raise ChangeRefused("the leader has not committed an entry of its own term yet; ask again")
    if not is_committed(raft):
        raise ChangeRefused("the last change of membership is not committed yet; ask again")
    if raft.is_witness:
        raise ChangeRefused("the leader is a witness and hands over; ask again")
    configuration = next_configuration(raft.configuration, change)
    _check_promotions(raft, change, now_us)
    _check_quorum_is_left(raft, change, now_us)
    return _put(raft, configuration)


def _check_promotions(raft: Raft, change: Change, now_us: int) -> None:
    """A voter begins as a learner that has caught up (thesis, section 4.2.1)."""
    voters = {member.replica for member in raft.configuration.voters}
    for member in change.voters:
        if member.replica in voters:
            continue
        progress = raft.progress.get(member.replica)
        if progress is None:
            raise ChangeRefused(f"{member.node} must be a learner before it can vote")
        if progress.match == 0 or not answers(raft, member.replica, now_us):
            raise ChangeRefused(f"{member.node} is not caught up: it has not answered yet, or not of late")
        lag = raft.log.commit - progress.match
        if lag > raft.options.promote_lag_entries_max:
            most = raft.options.promote_lag_entries_max
            raise ChangeRefused(f"{member.node} is not caught up: it lacks {lag} entries, at most {most}")
        if not member.witness and (raft.settled or raft.configuration.has_witness):
            _check_settled(raft, member, progress.match)


def _check_settled(raft: Raft, member: Member, match: int) -> None:
    """Witnesses may have dropped what every full voter has, so a new one must have it too. Former leaders told them of
    nothing that is not committed before this one's term."""
    settled = max(raft.settled, raft.term_start_index)
    if match < settled:
        raise ChangeRefused(
            f"{member.node} is not caught up: it has entries up to {match}, and witnesses may no longer have those "
            f"up to {settled}; ask again"
        )


def _check_quorum_is_left(raft: Raft, change: Change, now_us: int) -> None:
    """Refuse what could not be undone: a configuration whose majority does not answer now."""
    answering = [
        member for member in change.voters if member.replica == raft.replica or answers(raft, member.replica, now_us)
    ]
    needed = majority(len(change.voters))
    if len(answering) < needed:
        names = ", ".join(member.node for member in answering) or "nobody"
        raise ChangeRefused(f"it would leave no quorum: of its voters {needed} must answer, and only {names} does")


def answers(raft: Raft, replica: int, now_us: int) -> bool:
    """Was it heard within the last election time-out?"""
    progress = raft.progress.get(replica)
    heard_us = None if progress is None else progress.heard_at_us
    return heard_us is not None and now_us - heard_us <= raft.options.election_timeout_us_min


def is_committed(raft: Raft) -> bool:
    """Is the last configuration committed, so that no earlier one comes back?"""
    return raft.configurations[-1][0] <= raft.log.commit


def _put(raft: Raft, configuration: Configuration) -> int:
    index = raft.log.last_index + 1
    entries = [encode_configuration(configuration)]
    raft.uncommitted_bytes += payload_bytes(entries)
    raft.append(index, [raft.term], entries)
    follow_configuration(raft)
    return index


def successors(raft: Raft) -> list[Member]:
    """Who could lead instead: the other voters that have a state machine."""
    return [m for m in raft.configuration.voters if not m.witness and m.replica in raft.progress]


def follow_configuration(raft: Raft) -> None:
    """Keep progress of exactly the members of the configuration that is in force, and hand over to nobody who has no
    vote in it any longer."""
    members = {member.replica for member in raft.configuration.members} - {raft.replica}
    for gone in set(raft.progress) - members:
        del raft.progress[gone]
    for replica in sorted(members - set(raft.progress)):
        raft.progress[replica] = Progress(raft.log.last_index + 1)
    if raft.transferring is not None and raft.transferring.target not in [m.replica for m in successors(raft)]:
        raft.transferring = None


def go_on(raft: Raft, now_us: int) -> bool:
    """A leader's next step in a change whose configuration is committed. True where it leads no longer."""
    if not is_committed(raft):
        return False
    if raft.configuration.is_joint:
        if raft.transferring is None or not raft.transferring.told:
            _put(raft, raft.configuration.left())
        return False
    return not raft.is_voter
