"""Whom the leader tells of a grant: those that queued, or that asked where they stand. Pure; a leader's memory alone.

A pushed grant may be lost, and is never the truth: whoever waits also asks (history 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator.replica.callers import Caller
from coordinator.statemachine import commands, lock_commands

WAITERS_MAX: Final = 200_000
"""Acquisitions whose grant is pushed. Past it grants are not pushed, and waiters find out by asking."""


class GrantWaiters:
    """An acquisition of several names is known by the first of them."""

    def __init__(self) -> None:
        self._by_session: dict[int, dict[tuple[str, int], Caller]] = {}
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, str, int]]:
        """Session, name and acquisition of each that is to be told."""
        for session, waiters in self._by_session.items():
            for name, acquisition in waiters:
                yield session, name, acquisition

    def follow(self, op: commands.ClientOp, result: commands.Result, session: int, caller: Caller) -> None:
        """Note who is to be told, and who no longer, by what a command of `session` came to."""
        match op:
            case commands.AcquireLock() if isinstance(result, commands.Queued):
                owner = op.owner or session
                if op.take_over:
                    for name, acquisition in [*self._by_session.get(owner, {})]:
                        if name == op.name:
                            self.take(owner, name, acquisition)
                self.add(owner, op.name, op.acquisition, caller)
            case lock_commands.Acquire() if isinstance(result, commands.Queued):
                # All its names are granted at once: one of them is enough.
                self.add(op.owner or session, min(op.names), op.acquisition, caller)
            case commands.ReleaseLock() | commands.CancelAcquire():
                self.take(op.owner or session, op.name, op.acquisition)
            case lock_commands.Release() if op.names:
                self.take(op.owner or session, min(op.names), op.acquisition)

    def add(self, session: int, name: str, acquisition: int, caller: Caller) -> None:
        """Tell `caller` of this grant; whoever asked last."""
        if (name, acquisition) not in self._by_session.get(session, {}):
            if self.count >= WAITERS_MAX:
                return
            self.count += 1
        self._by_session.setdefault(session, {})[name, acquisition] = caller

    def take(self, session: int, name: str, acquisition: int) -> Caller | None:
        """Who is to be told of this grant, and from here on no more; None where nobody is."""
        waiters = self._by_session.get(session, {})
        caller = waiters.pop((name, acquisition), None)
        if caller is not None:
            self.count -= 1
            if not waiters:
                del self._by_session[session]
        return caller

    def clear(self) -> None:
        """Nobody is to be told of anything any more."""
        self._by_session = {}
        self.count = 0

    def forget(self, session: int) -> None:
        """The session has ended."""
        self.count -= len(self._by_session.pop(session, {}))
