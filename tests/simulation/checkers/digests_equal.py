"""Digests equal: replicas that have applied the same index have the same state, byte for byte (docs/design.md, rule 5).

Of those that no bit has flipped in. What befalls those is for `state_comparison` to see.

So has what the state machine keeps beside its digest, to find things by, however it came to its state: a replica that
began with a snapshot answers a repeated request as one that applied every entry does (rule 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.statemachine.commands import Result
from coordinator.statemachine.machine import Event
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

EVERY: Final = 16
"""A digest covers all of the state, so not each index has one."""


class DigestsEqual(Checker):
    name = "digests-equal"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._digests: dict[int, tuple[str, dict[tuple[str, bytes], int]]] = {}

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if index % EVERY == 0:
            self._compare(node)

    def finished(self) -> None:
        for node in self.world.nodes:
            if node.replica is not None:
                self._compare(node)

    def _compare(self, node: Node) -> None:
        assert node.replica is not None
        if node.has_flipped_state or node.engine.is_witness:
            return
        machine = node.replica.machine
        self.checks += 1
        state = (machine.digest(), {**machine.nonces})
        known = self._digests.setdefault(machine.applied, state)
        if known[0] != state[0]:
            self.violated(f"{node.name} has another state at {machine.applied} than the first replica there")
        if known[1] != state[1]:
            self.violated(f"{node.name} finds other sessions by their nonces at {machine.applied} than the first there")
