"""Configuration safety: a replica goes by the last configuration in its log, committed or not (Raft, section 6), and
no two configurations that can be in force at once have majorities apart from one another.

For that, each follows from the one before it in the log: one voter differs at the most, or it is joint with the one
before as its outgoing side, or it is what a joint one leaves behind. And a leader begins a change only when the
configuration before is committed, and an entry of its own term is (thesis, section 4.1 and its erratum). To leave a
joint configuration is to end a change: any leader may, once that one is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

_EMPTY: Final = (0, Configuration(()))
"""What an empty log says."""


class ConfigurationSafety(Checker):
    name = "configuration-safety"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._on_disk: dict[int, list[tuple[int, Configuration]]] = {}
        for node in world.nodes:
            self._on_disk[node.disk.replica] = [
                (index, decode_configuration(entry))
                for index, entry in enumerate(node.disk.entries, 1)
                if entry[0] == CONFIGURATION
            ]

    def journaled(self, node: Node, write: Write) -> None:
        known = self._on_disk.setdefault(write.replica, [_EMPTY])
        if write.head is not None:
            snapshot = write.head.snapshot
            tail = [one for one in known if one[0] > snapshot.last_index and write.head.keep_tail]
            known[:] = [(snapshot.last_index, snapshot.configuration), *tail]
        if not write.entries:
            return
        while known[-1][0] >= write.first_index:
            known.pop()
        for index, (term, entry) in enumerate(zip(write.terms, write.entries, strict=True), write.first_index):
            if entry[0] == CONFIGURATION:
                configuration = decode_configuration(entry)
                if known[-1] != _EMPTY:
                    self._follows(node, term, known[-1], configuration)
                known.append((index, configuration))

    def _follows(self, node: Node, term: int, before: tuple[int, Configuration], after: Configuration) -> None:
        self.checks += 1
        index, earlier = before
        if not _may_follow(earlier, after):
            self.violated(f"{node.name} goes from {_names(earlier)} to {_names(after)}")
        if node.leads and node.engine.term == term:
            commit = node.engine.log.commit
            if index > commit:
                self.violated(f"{node.name} begins a change before the last, at {index}, is committed ({commit})")
            if commit < node.engine.term_start_index and not earlier.is_joint:
                self.violated(f"{node.name} begins a change before an entry of its term {term} is committed")

    def changed(self, node: Node, before: View, after: View) -> None:
        self._compare(node)

    def started(self, node: Node) -> None:
        self._compare(node)

    def _compare(self, node: Node) -> None:
        self.checks += 1
        expected = self._on_disk.setdefault(node.disk.replica, [_EMPTY])[-1][1]
        if node.engine.configuration != expected:
            self.violated(f"{node.name} goes by {node.engine.configuration}, the last one in its log is {expected}")


def _may_follow(before: Configuration, after: Configuration) -> bool:
    if before.is_joint:
        return after == before._replace(outgoing=())
    if after.is_joint:
        return after.outgoing == before.voters
    changed = {member.replica for member in before.voters} ^ {member.replica for member in after.voters}
    return len(changed) <= 1


def _names(configuration: Configuration) -> str:
    sides = [
        ",".join(member.node for member in side) or "nobody" for side in (configuration.outgoing, configuration.voters)
    ]
    return f"{sides[0]} and {sides[1]}" if configuration.is_joint else sides[1]
