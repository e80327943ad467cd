"""State comparison: replicas compare digests of their states, and who differs stops (docs/design.md, rule 5).

Only who differs from the majority stops, it takes no part from then on, and who is in doubt serves nothing. That one
who differs is noticed at all, the liveness phase demands.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from coordinator.replica.ports import Write
from coordinator.statemachine.commands import Result
from coordinator.statemachine.machine import Event, StateMarked
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class StateComparison(Checker):
    name = "state-comparison"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._digests: dict[int, dict[int, str]] = {}
        """Index of a mark to replica to the digest of its state there."""
        self._stopped: dict[int, tuple[object, ...]] = {}
        """Replica to what was seen of it when it had stopped."""

    def started(self, node: Node) -> None:
        """A new process has what the disk held: it is no candidate, and may know less to be committed."""
        known = self._stopped.pop(node.disk.replica, None)
        if known is not None and known[:2] != (node.engine.term, node.engine.log.last_index):
            self.violated(f"{node.name} had stopped, and goes on after a restart from {known} to another term or log")

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if any(isinstance(event, StateMarked) for event in events):
            assert node.replica is not None
            self.checks += 1
            self._digests.setdefault(index, {})[node.disk.replica] = node.replica.machine.digest()

    def journaled(self, node: Node, write: Write) -> None:
        if not write.stopped:
            return
        self.checks += 1
        assert node.replica is not None
        voters = node.engine.configuration.full_voter_ids
        for index, digests in self._digests.items():
            # What it says of the mark may be another state than it had there: a snapshot that was to be of it told.
            said = node.replica.states.comparison.own(index)
            own = {digests.get(write.replica), None if said is None else said.hex()} - {None}
            counts = Counter(digest for replica, digest in digests.items() if replica in voters)
            if any(2 * n > len(voters) and own - {digest} for digest, n in counts.items()):
                return
        self.violated(f"{node.name} stops, and at no mark it differed from most voters")

    def turned(self, node: Node) -> None:
        if node.disk.stopped:
            self.checks += 1
            engine = node.engine
            seen = (engine.term, engine.log.last_index, engine.log.commit, engine.role)
            known = self._stopped.setdefault(node.disk.replica, seen)
            if seen != known:
                self.violated(f"{node.name} has stopped, and goes on from {known} to {seen}")

    def led(self, node: Node) -> None:
        assert node.replica is not None
        self.checks += 1
        if node.replica.leases is not None and node.replica.states.comparison.is_in_doubt:
            self.violated(f"{node.name} is in doubt of its state, and serves as leader")

    def read_answered(self, node: Node, read_index: int) -> None:
        assert node.replica is not None
        self.checks += 1
        if node.replica.states.comparison.is_in_doubt:
            self.violated(f"{node.name} is in doubt of its state, and answers a read from it")
