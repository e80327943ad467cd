"""Caches are never stale: what a client serves of its own is what the entries that anybody has applied make of it at
that moment. A change is proposed only when nobody serves what it changes (Chubby, section 2.7), so that it can not be
applied anywhere before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator import wire
from coordinator.statemachine.commands import Failure, Result
from coordinator.statemachine.machine import Machine
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.clients import Client
    from tests.simulation.node import Node
    from tests.simulation.world import World


class CachesNeverStale(Checker):
    name = "caches-never-stale"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._machine = Machine()
        """It has applied what any replica has."""

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if is_first:
            self._machine.apply(index, entry)
            self._machine.events.clear()

    def served(self, client: Client, query: wire.CachedQuery, found: Result) -> None:
        self.checks += 1
        principal = self._machine.key_of(self.world.token.token_id)
        assert principal is not None, "the client speaks for somebody"
        is_so = self._machine.query(query, principal[0], lambda session: 0, token=self.world.token.token_id)
        if is_so != found and not (isinstance(is_so, Failure) and isinstance(found, Failure)):
            self.violated(f"{client.name} serves {query} with {found}; it is {is_so}")
