"""Leases are never doubly held: while a client's `check()` passes, the log gives its lock to nobody else.

Held is what the client can prove by its own clock at a moment of true time. It is compared with other clients' leases
when one is taken or renewed, and with the log when an entry ends a session or grants a lock: that is earlier than the
day on which two holders meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import Result
from coordinator.statemachine.events import Event, GrantMade
from coordinator.statemachine.lock_commands import EXCLUSIVE
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.clients import Client, HeldLease
    from tests.simulation.node import Node


class LeaseExclusion(Checker):
    name = "lease-exclusion"

    def lease_taken(self, lease: HeldLease) -> None:
        if lease.held:
            self._against_others(lease)

    def lease_renewed(self, client: Client) -> None:
        for lease in client.leases:
            if lease.held:
                self._against_others(lease)

    def _against_others(self, lease: HeldLease) -> None:
        for client in self.world.clients:
            for other in client.leases:
                if other is lease or other.name != lease.name:
                    continue
                self.checks += 1
                if other.held and not self._go_together(lease, other):
                    self.violated(f"{lease} and {other} are both held")

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        command, op = expected.command, expected.command.op
        takes = expected.is_new and isinstance(op, (commands.AcquireLock, lock_commands.Acquire))
        if takes and isinstance(result, commands.Granted):
            for name in op.names if isinstance(op, lock_commands.Acquire) else (op.name,):
                self._granted(index, name, op.owner or command.session, result.token)
        for event in events:
            if isinstance(event, GrantMade):
                self._granted(index, event.name, event.session, event.token)
        if isinstance(op, commands.ExpireSessions):
            for session in op.sessions:
                self._expired(index, session)

    def _is_broken(self, lease: HeldLease) -> bool:
        """Was it taken away by force? Its holder goes on until it asks: only the fencing token keeps it out."""
        key = (lease.session.session, lease.acquisition)
        return (lease.name, key) in self.world.watch.truth.locks.broken

    def _go_together(self, one: HeldLease, other: HeldLease) -> bool:
        if one.session is other.session or one.mode == other.mode != EXCLUSIVE:
            return True
        return self._is_broken(one) or self._is_broken(other)

    def _granted(self, index: int, name: str, session: int, token: int) -> None:
        mode = self.world.watch.truth.locks.names[name].mode
        for client in self.world.clients:
            for lease in client.leases:
                self.checks += 1
                if lease.name != name or lease.token == token or not lease.held:
                    continue
                is_own = lease.session.session == session
                alone = EXCLUSIVE in (mode, lease.mode)
                if alone and not is_own and not self._is_broken(lease):
                    self.violated(f"entry {index} grants {name!r} to session {session} while {lease} is held")

    def _expired(self, index: int, session: int) -> None:
        for client in self.world.clients:
            if not client.is_up:
                continue
            for own in client.core.sessions.values():
                self.checks += 1
                if own.session == session and own.valid(client.clock.now_us()):
                    self.violated(f"entry {index} expires session {session}, which {client.name} can prove alive")
