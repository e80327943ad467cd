"""Tokens strictly growing: each grant of a name carries a higher fencing token than every one before (rule 6 of
docs/design.md).

A token names the entry that granted. One entry grants a name to one exclusive holder; holders that share or count it,
and are let in by one entry, have one token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import Result
from coordinator.statemachine.lock_commands import EXCLUSIVE
from coordinator.statemachine.locks import INDEX_BITS
from coordinator.statemachine.machine import Event, GrantMade
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.clients import HeldLease
    from tests.simulation.node import Node
    from tests.simulation.world import World

_GRANTED = (commands.AcquireLock, lock_commands.Acquire, lock_commands.ChangeMode)
_INDEX_MASK = (1 << INDEX_BITS) - 1


class FencingTokens(Checker):
    name = "fencing-tokens"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._highest: dict[str, int] = {}
        self._owners: dict[tuple[str, int], set[int]] = {}
        """Sessions that were given a name by a token."""

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        for event in events:
            # A re-entrant waiter joins what its own session was just given.
            if isinstance(event, GrantMade) and not self._has(
                event.name, event.session, event.acquisition, event.token
            ):
                self._granted(index, event.name, event.session, event.token)
        expected = self.world.watch.truth.expected
        command = expected.command
        op = command.op
        if isinstance(result, commands.Granted) and isinstance(op, _GRANTED):
            owner = op.owner or command.session
            names = op.names if isinstance(op, lock_commands.Acquire) else (op.name,)
            for name in names:
                # A repetition, a re-entrant grant and a downgrade name the token that the session has.
                if not self._has(name, owner, op.acquisition, result.token):
                    self._granted(index, name, owner, result.token)
                elif expected.is_new and isinstance(op, lock_commands.ChangeMode) and op.mode == EXCLUSIVE:
                    self._upgraded(index, name, result.token)

    def _has(self, name: str, session: int, acquisition: int, token: int) -> bool:
        """Did the session have the name before, so that it is not granted anew? Of several names, some of which it had,
        an acquisition is told the highest token; each that it had keeps its own."""
        if session in self._owners.get((name, token), ()):
            return True
        known = self.world.watch.truth.locks.names.get(name)
        hold = None if known is None else known.holds.get((session, acquisition))
        if hold is None or hold.token >= token or session not in self._owners.get((name, hold.token), ()):
            return False
        self.checks += 1
        self._owners.setdefault((name, token), set()).add(session)
        return True

    def _granted(self, index: int, name: str, session: int, token: int) -> None:
        self.checks += 1
        if token & _INDEX_MASK != index:
            self.violated(f"entry {index} grants {name!r} with token {token}, which does not name it")
        highest = self._highest.get(name, 0)
        owners = self._owners.setdefault((name, token), set())
        shares = token == highest and self.world.watch.truth.locks.names[name].mode != EXCLUSIVE
        if token <= highest and not shares:
            self.violated(f"{name!r} is granted to session {session} with token {token}, {highest} was granted before")
        self._highest[name] = token
        owners.add(session)

    def _upgraded(self, index: int, name: str, token: int) -> None:
        """Whoever holds it alone from now on does so by a token of its own; asked again it names that one."""
        self.checks += 1
        if token != self._highest[name]:
            self.violated(f"entry {index} makes {name!r} exclusive by token {token}; {self._highest[name]} was granted")

    def lease_taken(self, lease: HeldLease) -> None:
        """What a client has in its hand is what the log granted to its session."""
        self.checks += 1
        if lease.session.session not in self._owners.get((lease.name, lease.token), ()):
            self.violated(f"{lease} was never granted")
