"""Tokens strictly growing: each grant of a name carries a higher fencing token than every one before (DESIGN.md, rule
6).

A token names the entry that granted, and one entry grants a name once: two grants would share a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Result
from coordinator.statemachine.locks import INDEX_BITS
from coordinator.statemachine.machine import Event, GrantMade
from tests.simulation.checkers.commands import decode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.clients import HeldLease
    from tests.simulation.node import Node
    from tests.simulation.world import World

_INDEX_MASK = (1 << INDEX_BITS) - 1


class FencingTokens(Checker):
    name = "fencing-tokens"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._highest: dict[str, int] = {}
        self._owner: dict[tuple[str, int], int] = {}

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        for event in events:
            if isinstance(event, GrantMade):
                self._granted(index, event.name, event.session, event.token)
        if isinstance(result, commands.Granted):
            command = decode(entry).command
            assert isinstance(command.op, commands.AcquireLock)
            owner = command.op.owner or command.session
            # The answer to a repetition names the token of its first grant.
            if self._owner.get((command.op.name, result.token)) != owner:
                self._granted(index, command.op.name, owner, result.token)

    def _granted(self, index: int, name: str, session: int, token: int) -> None:
        self.checks += 1
        if token & _INDEX_MASK != index:
            self.violated(f"entry {index} grants {name!r} with token {token}, which does not name it")
        highest = self._highest.get(name, 0)
        if token <= highest:
            self.violated(f"{name!r} is granted to session {session} with token {token}, {highest} was granted before")
        self._highest[name] = token
        self._owner[name, token] = session

    def lease_taken(self, lease: HeldLease) -> None:
        """What a client has in its hand is what the log granted to its session."""
        self.checks += 1
        if self._owner.get((lease.name, lease.token)) != lease.session.session:
            self.violated(f"{lease} was never granted")
