"""Witness retention: a witness keeps what it acknowledged until every full voter has it on disk.

Seen where it cuts its log without keeping the state: by then each full voter, of the configuration in force and of
those written behind it, has all that is cut off. And seen where the last leader writes a configuration: each full voter
in it has what witnesses in it have cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.consensus.entries import CONFIGURATION
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.replica.ports import Write
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node


class WitnessRetention(Checker):
    name = "witness-retention"

    def journaled(self, node: Node, write: Write) -> None:
        if node.leads and self._is_last(node):
            for entry in write.entries:
                if entry[0] == CONFIGURATION:
                    self._promoted(decode_configuration(entry))
        if write.head is None or write.head.snapshot.data:
            return
        for configuration in self._in_force():
            self._all_have(configuration, node, write.head.offset)

    def _is_last(self, leader: Node) -> bool:
        """Has nobody gone on to a later term? Then what it writes can be committed."""
        return all(node.disk.hard_state.term <= leader.engine.term for node in self.world.nodes)

    def _promoted(self, configuration: Configuration) -> None:
        for node in self.world.nodes:
            disk = node.disk
            if configuration.is_witness(disk.replica) and disk.snapshot is not None and not disk.snapshot.data:
                self._all_have(configuration, node, disk.offset)

    def _all_have(self, configuration: Configuration, witness: Node, index: int) -> None:
        """Does each full voter hold what `witness` holds no longer?"""
        watch = self.world.watch
        for replica in configuration.full_voter_ids:
            self.checks += 1
            held = watch.logs.get(replica, [])
            if held[:index] != watch.committed_terms[:index]:
                self.violated(
                    f"the witness {witness.name} has cut its log at {index}, and full voter {replica:x} has {len(held)}"
                )

    def led(self, node: Node) -> None:
        """A witness has nothing to answer from, and leads only until somebody else can."""
        assert node.replica is not None
        if node.engine.is_witness:
            self.checks += 1
            if node.replica.leases is not None:
                self.violated(f"the witness {node.name} serves as leader")

    def _in_force(self) -> list[Configuration]:
        """The configuration that was committed last, and the one that the last leader has."""
        committed = next(entry for entry in reversed(self.world.watch.committed_entries) if entry[0] == CONFIGURATION)
        leading = [node for node in self.world.nodes if node.leads and self._is_last(node)]
        return [decode_configuration(committed), *(node.engine.configuration for node in leading)]
