"""Snapshot safety: a snapshot is the state after a committed entry, byte for byte the same whoever took it (Raft,
section 7).

Nobody's but a witness's is empty. A log is cut further and further: what is committed does not come back by an older
snapshot. And a process that starts from one has the state that it holds: nothing of it is lost on the way through the
disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.engine import Snapshot
from coordinator.replica.ports import Write
from tests.simulation.node import FLIPPED
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class SnapshotSafety(Checker):
    name = "snapshot-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._snapshots: dict[int, tuple[str, Snapshot]] = {}
        self._offsets: dict[int, int] = {}
        """Replica to where its log was cut last."""

    def journaled(self, node: Node, write: Write) -> None:
        if write.head is None:
            return
        snapshot = write.head.snapshot
        self.checks += 1
        committed = self.world.watch.committed_terms
        index = snapshot.last_index
        if index > len(committed) or committed[index - 1] != snapshot.term:
            self.violated(f"{node.name} has a snapshot up to entry {index} of term {snapshot.term}, not committed")
        cut = self._offsets.get(write.replica, 0)
        self._offsets[write.replica] = write.head.offset
        if write.head.offset < cut:
            self.violated(f"{node.name} takes a snapshot up to {index}; its log was cut at {cut} already")
        if not write.head.offset <= index:
            self.violated(f"{node.name} cuts its log at {write.head.offset}, behind its snapshot at {index}")
        member = snapshot.configuration.member(write.replica)
        if not snapshot.data and member is not None and not member.witness:
            self.violated(f"{node.name} is no witness, and its snapshot up to entry {index} holds no state")
        if not snapshot.data or FLIPPED.encode() in bytes(snapshot.data):
            return
        whose, known = self._snapshots.setdefault(index, (node.name, snapshot))
        if known != snapshot:
            self.violated(f"the snapshots of {whose} and {node.name} up to entry {index} differ")
