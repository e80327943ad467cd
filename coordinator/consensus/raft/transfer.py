"""Handing leadership over: thesis, section 3.10; priorities.

The leader takes no proposals, brings the target up to date, and tells it to campaign at once. Where that does not come
to anything within an election time-out, it leads on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.raft.messages import TimeoutNow

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


class Transfer(NamedTuple):
    target: int
    until_us: int
    told: bool


def begin(raft: Raft, target: int, now_us: int) -> bool:
    """Hand leadership to `target`. False where this is no leader or `target` is no other voter."""
    voters = {member.replica for member in raft.configuration.voters}
    if raft.role is not Role.LEADER or target not in voters or target == raft.replica:
        return False
    raft.transferring = Transfer(target, now_us + raft.options.election_timeout_us_min, told=False)
    return True


def best_successor(raft: Raft) -> int | None:
    """The other voter that is furthest; of several, the one of the highest priority."""
    candidates = [member for member in raft.configuration.voters if member.replica in raft.progress]
    if not candidates:
        return None
    return max(candidates, key=lambda m: (raft.progress[m.replica].match, m.priority, -m.replica)).replica


def tick(raft: Raft, now_us: int) -> None:
    """Give up a transfer whose time is over; give way to a preferred leader that is caught up."""
    if raft.transferring is not None:
        if now_us >= raft.transferring.until_us:
            raft.transferring = None
            raft.led_since_us = now_us
        return
    if now_us - raft.led_since_us < raft.options.priority_pause_us:
        return
    own = raft.configuration.member(raft.replica)
    preferred = [
        member
        for member in raft.configuration.voters
        if own is not None
        and member.priority > own.priority
        and member.replica in raft.progress
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
