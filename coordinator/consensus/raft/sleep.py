"""Heartbeats that hosts speak for quiet clusters, many of them in one message (`coordinator/replica/sleep.py`).

Such a heartbeat is an AppendEntries without entries that no engine took in, and its answer an AppendResponse: "I took
you for the leader of this term, and have your log, after you sent that". So nothing is new in it but that the engines
hear of it later: each is told, before anything else happens to it, what was said and answered for it meanwhile. What it
would have counted by the clock, its host counts: who is answered no more, or hears no more, is woken in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from coordinator.consensus.engine import Heard, Heartbeat, Role
from coordinator.consensus.raft import changes, elections

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


def heartbeat(raft: Raft, now_us: int) -> Heartbeat | None:
    """What this leader would say and nothing else, for as long as nobody wants anything; None where it has more to do:
    somebody lacks something or has not answered the last round, or it is to change something by itself."""
    if raft.role is not Role.LEADER or not raft.rounds.is_quiet or not _is_done(raft, raft.rounds.quiet_index):
        return None
    own = raft.configuration.member(raft.replica)
    stays = raft.is_voter and own is not None and own.priority >= raft.configuration.highest_priority
    wants = raft.transferring is not None or raft.reads.are_waiting or raft.configuration.is_joint
    is_answered = all(
        (progress.match, progress.acked_round) == (raft.log.last_index, raft.rounds.current)
        and changes.answers(raft, follower, now_us)
        for follower, progress in raft.progress.items()
    )
    if wants or not (stays and raft.is_fit and is_answered):
        return None
    return Heartbeat(raft.replica, raft.term, raft.log.last_index)


def would_answer(raft: Raft, said: Heartbeat) -> bool:
    """Would this replica answer this heartbeat with a yes, and do nothing else? It follows that leader in that term, as
    its disk knows, and its log is the leader's: what is committed is the same everywhere. Who suspects its leader does
    not: it needs the leader's own word."""
    follows = raft.role is Role.FOLLOWER and raft.leader == said.leader and raft.heard_at_us is not None
    return follows and raft.term == raft.on_disk.term == said.term and _is_done(raft, said.last_index)


def _is_done(raft: Raft, index: int) -> bool:
    """Does the log end at `index`, and is it on disk, committed and applied up to there?"""
    log = raft.log
    return log.last_index == log.commit == raft.applied == index and log.unwritten > index and raft.incoming is None


def heard(raft: Raft, at_us: int) -> None:
    """A heartbeat of its leader that this follower would have answered came at `at_us`."""
    assert raft.role is Role.FOLLOWER, f"{raft.role} hears no heartbeat"
    assert raft.heard_at_us is not None, "who heard nobody would not have answered"
    if at_us > raft.heard_at_us:
        raft.heard_at_us = at_us
        elections.reset_timer(raft, at_us)


def answered(raft: Raft, by: Mapping[int, Heard]) -> None:
    """These followers would have answered a heartbeat of this leader: a majority's answer confirms it as of the sending
    of what it answered, as that of a round does."""
    assert raft.role is Role.LEADER, f"{raft.role} is not answered"
    for follower, said in by.items():
        progress = raft.progress[follower]
        progress.heard_at_us = max(progress.heard_at_us or 0, said.answered_us)
    latest_us = max((said.sent_us for said in by.values()), default=0)
    confirmed_us = {voter: by[voter].sent_us if voter in by else 0 for voter in raft.configuration.voter_ids}
    confirmed_us[raft.replica] = latest_us
    raft.rounds.confirm_at(raft.configuration.reached(confirmed_us))
