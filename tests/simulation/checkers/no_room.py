"""What there was no room for is never applied: a client that says so to its caller at once speaks for all copies.

(The simulated network doubles messages, which a Redis does not. Where it did, nothing of the kind is told.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import Command, Result
from coordinator.statemachine.machine import Event
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class NoRoom(Checker):
    name = "no-room"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._applied: dict[tuple[int, int], int] = {}
        """By session and number: where a request was first applied."""
        self._refused: set[tuple[int, int]] = set()

    def refused(self, command: Command) -> None:
        self.checks += 1
        request = (command.session, command.number)
        self._refused.add(request)
        if request in self._applied:
            self.violated(
                f"the caller is told that there was no room for {command}; {self._applied[request]} applied it"
            )

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        command = expected.command
        if not (expected.is_new and command.session):
            return
        request = (command.session, command.number)
        self._applied[request] = index
        if request in self._refused:
            self.violated(f"its caller was told that there was no room for {command}, and {index} applies it")
