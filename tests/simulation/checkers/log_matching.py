"""Log matching: two logs that hold an entry of the same index and term are identical up to it (Raft, figure 3).

By induction: whatever is written is compared with what anyone wrote of the same index and term, together with the term
before it. So is what a disk keeps behind a snapshot (section 7). Memory is compared with the disk too: what a replica
believes to have written, it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class LogMatching(Checker):
    name = "log-matching"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}

    def journaled(self, node: Node, write: Write) -> None:
        if write.head is not None and node.disk.terms:
            self._behind_snapshot(node)
        if not write.entries:
            return
        before = node.disk.term_at(write.first_index - 1)
        assert before is not None, "entries are behind what the disk holds"
        for index, (term, entry) in enumerate(zip(write.terms, write.entries, strict=True), write.first_index):
            self.checks += 1
            known = self._entries.setdefault((index, term), (entry, before))
            if known[0] != entry or known[1] != before:
                what = "holds something else" if known[0] != entry else f"follows term {before}, not {known[1]}"
                self.violated(f"entry {index} of term {term} at {node.name} {what}")
            if term < before:
                self.violated(f"entry {index} of term {term} at {node.name} follows one of term {before}")
            before = term

    def _behind_snapshot(self, node: Node) -> None:
        disk = node.disk
        first = disk.terms[0]
        known = self._entries.get((disk.offset + 1, first))
        self.checks += 1
        if first < disk.offset_term or (known is not None and known[1] != disk.offset_term):
            what = f"entry {disk.offset + 1} of term {first}"
            self.violated(f"{node.name} keeps {what} behind a snapshot that ends in term {disk.offset_term}")

    def changed(self, node: Node, before: View, after: View) -> None:
        self.checks += 1
        disk = node.disk
        if disk.last_index != after.last_index or disk.last_term != after.last_term:
            self.violated(
                f"{node.name} holds entries up to {after.last_index} of term {after.last_term}, "
                f"its disk up to {disk.last_index} of term {disk.last_term}"
            )

    def started(self, node: Node) -> None:
        """What is read back is what was written."""
        log = node.engine.log
        self.checks += 1
        if log.terms != node.disk.terms or log.entries != node.disk.entries:
            self.violated(f"{node.name} starts with another log than its disk holds")
