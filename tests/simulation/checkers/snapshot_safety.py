"""Snapshot safety: a snapshot is the state after a committed entry, byte for byte the same whoever took it (Raft,
section 7).

A witness's is empty. And a process that starts from one has the state that it holds: nothing of it is lost on the way
through the disk.
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

    def journaled(self, node: Node, write: Write) -> None:
        if write.head is None:
            return
        snapshot = write.head.snapshot
        self.checks += 1
        committed = self.world.watch.committed_terms
        index = snapshot.last_index
        if index > len(committed) or committed[index - 1] != snapshot.term:
            self.violated(f"{node.name} has a snapshot up to entry {index} of term {snapshot.term}, not committed")
        if not write.head.offset <= index:
            self.violated(f"{node.name} cuts its log at {write.head.offset}, behind its snapshot at {index}")
        if not snapshot.data or FLIPPED.encode() in snapshot.data:
            return
        whose, known = self._snapshots.setdefault(index, (node.name, snapshot))
        if known != snapshot:
            self.violated(f"the snapshots of {whose} and {node.name} up to entry {index} differ")
