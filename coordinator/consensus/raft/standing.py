"""How each member stands, for operators to look at: nothing is decided by it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Role, Standing
from coordinator.consensus.raft import transfer
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
    answering = transfer.answering_successors(raft, now_us)
    return transfer.furthest(raft, [member for member in answering if member.replica != but])
