"""Configuration safety: a replica goes by the last configuration in its log, committed or not (Raft, section 6), and
no two configurations that are in force at once have majorities apart from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.replica.ports import Write
from tests.simulation.watch import Checker, View

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


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
        known = self._on_disk[write.replica]
        if write.head is not None:
            snapshot = write.head.snapshot
            tail = [one for one in known if one[0] > snapshot.last_index and write.head.keep_tail]
            known[:] = [(snapshot.last_index, snapshot.configuration), *tail]
        if not write.entries:
            return
        while known and known[-1][0] >= write.first_index:
            known.pop()
        for index, entry in enumerate(write.entries, write.first_index):
            if entry[0] == CONFIGURATION:
                known.append((index, decode_configuration(entry)))

    def changed(self, node: Node, before: View, after: View) -> None:
        self._compare(node)

    def started(self, node: Node) -> None:
        self._compare(node)

    def _compare(self, node: Node) -> None:
        self.checks += 1
        expected = self._on_disk[node.disk.replica][-1][1]
        if node.engine.configuration != expected:
            self.violated(f"{node.name} goes by {node.engine.configuration}, the last one in its log is {expected}")
