"""Handing leadership over: thesis, section 3.10; priorities.

The leader takes no proposals, brings the target up to date, and tells it to campaign at once. Where that does not come
to anything within an election time-out, where the target loses its vote, or where an operator says so, it leads on.

A leader that may not serve (a witness; one that doubts its state) leads only because its log was needed: it brings a
full voter up to date and hands over to it, and asks the next one where that comes to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.members import Member
from coordinator.consensus.raft import changes
from coordinator.consensus.raft.messages import TimeoutNow

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


class Transfer(NamedTuple):
    target: int
    until_us: int
    told: bool


def begin(raft: Raft, target: int, now_us: int) -> bool:
    """Hand leadership to `target`. False where this is no leader or `target` is no other voter with a state machine.

    To name the leader itself aborts a transfer that is under way; False where none is. A target that was told to
    campaign may still do so."""
    if raft.role is not Role.LEADER:
        return False
    if target == raft.replica:
        return _abort(raft, now_us)
    if all(member.replica != target for member in changes.successors(raft)):
        return False
    raft.transferring = Transfer(target, now_us + raft.options.election_timeout_us_min, told=False)
    return True


def _abort(raft: Raft, now_us: int) -> bool:
    """Lead on, and do not try at once to give way."""
    if raft.transferring is None:
        return False
    raft.transferring = None
    raft.led_since_us = now_us
    return True


def answering_successors(raft: Raft, now_us: int) -> list[Member]:
    """Those of them that were heard within an election time-out."""
    return [member for member in changes.successors(raft) if changes.answers(raft, member.replica, now_us)]


def best_successor(raft: Raft) -> int | None:
    """The one that is furthest; of several, the one of the highest priority."""
    return furthest(raft, changes.successors(raft))


def furthest(raft: Raft, members: list[Member]) -> int | None:
    """Whose log matches furthest; of several, the one of the highest priority."""
    if not members:
        return None
    return max(members, key=lambda m: (raft.progress[m.replica].match, m.priority, -m.replica)).replica


def give_way(raft: Raft, now_us: int) -> None:
    """Hand over to whoever is furthest of those that answer, where there is one and none was chosen yet."""
    if raft.role is not Role.LEADER or raft.transferring is not None:
        return
    answering = answering_successors(raft, now_us)
    if all(member.replica in raft.passed_over for member in answering):
        raft.passed_over = set()
    target = furthest(raft, [member for member in answering if member.replica not in raft.passed_over])
    if target is not None:
        raft.passed_over.add(target)
        begin(raft, target, now_us)


def _doubts_for_long(raft: Raft, now_us: int) -> bool:
    """Most doubts end with the next word of another replica."""
    if raft.doubt_seen_us is None:
        raft.doubt_seen_us = now_us
    return now_us - raft.doubt_seen_us >= raft.options.election_timeout_us_min // 2


def tick(raft: Raft, now_us: int) -> None:
    """Give up a transfer whose time is over; give way where this leader may not serve, or to a preferred leader that is
    caught up."""
    if raft.transferring is not None:
        if now_us < raft.transferring.until_us:
            return
        _abort(raft, now_us)
        if not raft.is_witness:
            return  # Whoever doubts its state proposes a mark before it tries again.
    if not raft.is_fit:
        if raft.may_answer and (raft.is_witness or _doubts_for_long(raft, now_us)):
            give_way(raft, now_us)
        return
    if now_us - raft.led_since_us < raft.options.priority_pause_us:
        return
    own = raft.configuration.member(raft.replica)
    if own is None or own.priority >= raft.configuration.highest_priority:
        return
    preferred = [
        member
        for member in changes.successors(raft)
        if own is not None
        and member.priority > own.priority
        and raft.log.commit <= raft.progress[member.replica].match
        and raft.progress[member.replica].acked_round >= raft.rounds.confirmed
    ]
    if preferred:
        raft.led_since_us = now_us
        begin(raft, max(preferred, key=lambda member: (member.priority, -member.replica)).replica, now_us)


def tell(raft: Raft) -> None:
    """Tell the target once it has everything."""
    transfer = raft.transferring
    if transfer is None or transfer.told:
        return
    progress = raft.progress.get(transfer.target)
    if progress is not None and progress.match == raft.log.last_index:
        raft.lease_given_up = True
        raft.early.append(Outgoing(transfer.target, TimeoutNow(raft.term)))
        raft.transferring = transfer._replace(told=True)
