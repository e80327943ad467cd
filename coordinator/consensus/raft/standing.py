"""How each member stands, for operators to look at: nothing is decided by it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role, Standing
from coordinator.consensus.raft import changes
from coordinator.consensus.raft.progress import Progress

if TYPE_CHECKING:
    from coordinator.consensus.raft.core import Raft


def of_members(raft: Raft, now_us: int) -> list[Standing]:
    """One for each member of the configuration in force, in its order. A leader always hears itself."""
    if raft.role is not Role.LEADER:
        return []
    found = []
    for member in raft.configuration.members:
        progress = raft.progress.get(member.replica)
        if progress is None:
            found.append(Standing(member.replica, raft.log.last_index, "leader", now_us, 0, 0))
        else:
            found.append(_of_follower(member.replica, progress))
    return found


def _of_follower(replica: int, progress: Progress) -> Standing:
    at = progress.snapshot
    acked, size = (0, 0) if at is None else (at.acked, len(at.source.data))
    return Standing(replica, progress.match, progress.state.value, progress.heard_at_us, acked, size)


def best_successor(raft: Raft, now_us: int, but: int) -> int | None:
    """Of the other voters that were heard within an election time-out, the one that is furthest; of several, the one of
    the highest priority."""
    if raft.role is not Role.LEADER:
        return None
    candidates = [
        member
        for member in raft.configuration.voters
        if member.replica in raft.progress
        and member.replica != but
        and not member.witness
        and changes.answers(raft, member.replica, now_us)
    ]
    if not candidates:
        return None
    return max(candidates, key=lambda m: (raft.progress[m.replica].match, m.priority, -m.replica)).replica
