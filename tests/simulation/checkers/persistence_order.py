"""Nothing leaves before what it promises is on disk (docs/design.md, rule 3; Raft, section 5.2 and figure 2).

A vote, an acknowledgement, a request for votes, an answer to a client: each is compared with its sender's disk at the
moment of its sending. A disk that knows a higher term keeps every promise of a lower one by itself: nothing is done
in that term any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coordinator.consensus.engine import HardState, Outgoing
from coordinator.consensus.raft.messages import (
    AppendEntries,
    AppendResponse,
    SnapshotResponse,
    VoteRequest,
    VoteResponse,
)
from tests.simulation.quorums import is_quorum
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node


class PersistenceOrder(Checker):
    name = "persistence-order"

    def publishing(self, node: Node, outgoing: Sequence[Outgoing]) -> None:
        disk = node.disk
        on_disk = disk.hard_state
        for receiver, message in outgoing:
            self.checks += 1
            if type(message) is AppendEntries:
                if on_disk.term != message.term:
                    self.violated(
                        f"{node.name} leads in term {message.term}, and its disk knows term {on_disk.term} only"
                    )
            elif type(message) is AppendResponse:
                self._acknowledgement(node, message)
            elif type(message) is SnapshotResponse:
                self._has_snapshot(node, message)
            elif type(message) is VoteResponse:
                if message.granted and not message.pre and not _keeps(on_disk, message.term, receiver):
                    self.violated(
                        f"{node.name} grants its vote of term {message.term} to {receiver:x}; its disk holds {on_disk}"
                    )
            elif type(message) is VoteRequest:
                if message.pre or _keeps(on_disk, message.term, disk.replica):
                    continue
                self.violated(f"{node.name} asks for votes in term {message.term}; its disk holds {on_disk}")

    def _has_snapshot(self, node: Node, response: SnapshotResponse) -> None:
        disk = node.disk
        if response.offset < response.size or disk.hard_state.term > response.term:
            return
        committed = self.world.watch.committed_terms[response.last_index - 1 : response.last_index]
        if committed and disk.term_at(response.last_index) == committed[0]:
            return  # It has the entries themselves.
        held = max(disk.offset if disk.snapshot is None else disk.snapshot.last_index, disk.hard_state.commit)
        if held < response.last_index:
            self.violated(f"{node.name} says that it has the snapshot up to {response.last_index}; its disk has {held}")

    def answering(self, node: Node) -> None:
        """What a leader has just applied, and so answers, a majority has on disk."""
        if not node.leads or node.engine.applied_index <= len(self.world.watch.committed_entries):
            return
        self.checks += 1
        index = node.engine.applied_index
        log = node.engine.log
        term = log.term_at(index)
        if term is not None and index > log.offset:
            holders = self.world.watch.holders(index, term)
            if not is_quorum(node.engine.configuration, holders):
                self.violated(
                    f"{node.name} answers out of entry {index} of term {term}; only {len(holders)} disks hold it"
                )

    def _acknowledgement(self, node: Node, response: AppendResponse) -> None:
        disk = node.disk
        if disk.hard_state.term < response.term:
            self.violated(f"{node.name} answers in term {response.term}; its disk holds {disk.hard_state}")
        if response.success and disk.hard_state.term == response.term and response.match > disk.last_index:
            self.violated(f"{node.name} acknowledges entries up to {response.match}; its disk holds {disk.last_index}")


def _keeps(on_disk: HardState, term: int, vote: int) -> bool:
    """Does this hard state make sure that nobody but `vote` gets the vote of `term`?"""
    return on_disk.term > term or (on_disk.term == term and on_disk.vote == vote)
