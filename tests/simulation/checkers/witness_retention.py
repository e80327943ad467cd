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
    from tests.simulation.world import World


class WitnessRetention(Checker):
    name = "witness-retention"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leads_on: dict[tuple[str, int, int], int] = {}
        """A witness's node, start of its process and term, to when it last heard a full voter, where at the end of its
        last turn it led and was handing over to nobody."""

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
        """A witness has nothing to answer from, and leads only until somebody else can: where a full voter answers, it
        hands over to one within a turn."""
        assert node.replica is not None
        engine = node.engine
        if not engine.is_witness:
            return
        self.checks += 1
        if node.replica.leases is not None:
            self.violated(f"the witness {node.name} serves as leader")
        key = (node.name, node.boots, engine.term)
        since_us = self._leads_on.pop(key, None)
        timeout_us = engine.options.election_timeout_us_min
        if since_us is not None and engine.transferring is None and node.turn_us - since_us <= timeout_us:
            self.violated(f"the witness {node.name} leads on, though a full voter answers")
        heard_us = [
            progress.heard_at_us
            for replica, progress in engine.progress.items()
            if replica in engine.configuration.full_voter_ids and progress.heard_at_us is not None
        ]
        if engine.may_answer and engine.transferring is None and heard_us:
            self._leads_on[key] = max(heard_us)

    def _in_force(self) -> list[Configuration]:
        """The configuration that was committed last, and the one that the last leader has."""
        committed = next(entry for entry in reversed(self.world.watch.committed_entries) if entry[0] == CONFIGURATION)
        leading = [node for node in self.world.nodes if node.leads and self._is_last(node)]
        return [decode_configuration(committed), *(node.engine.configuration for node in leading)]
