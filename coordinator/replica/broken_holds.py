"""Whom a leader tells that a hold was taken away by force: at once where the session has spoken to this leadership, and
with its next keep-alives, since what is told may be lost, and so may its leader.

Only a help to holders that ask nobody (`LeaseState.check`): what keeps them out is the fencing token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coordinator.replica.callers import Caller
from coordinator.statemachine.lock_commands import Break
from coordinator.statemachine.machine import Machine

TELLINGS: Final = 3
"""With so many keep-alives of its session each is told, besides at once."""


class BrokenHolds:
    """Of one leadership."""

    def __init__(self, machine: Machine) -> None:
        """What was broken before, those before may not have told."""
        self._machine = machine
        self._untold: dict[int, dict[int, int]] = {}
        """By session: the numbers of its breaks, and with how many keep-alives each is still to be told."""
        self._callers: dict[int, Caller] = {}
        """By session: who last kept it alive."""
        for number, broken in machine.state.breaks.rows.items():
            if broken.holder.session in machine.sessions:
                self._untold.setdefault(broken.holder.session, {})[number] = TELLINGS

    def broken(self, name: str, session: int, acquisition: int) -> tuple[Caller, Break] | None:
        """A hold was broken: whom to tell now."""
        number = self._machine.state.broken.get((name, session, acquisition))
        if number is None:  # One entry has broken more than are remembered.
            return None
        self._untold.setdefault(session, {})[number] = TELLINGS
        caller = self._callers.get(session)
        return None if caller is None else (caller, self._machine.state.breaks.rows[number])

    def kept_alive(self, session: int, caller: Caller) -> Sequence[Break]:
        """A keep-alive of that session is answered: what it is to be told with it."""
        if self._callers.get(session) != caller:
            self._callers[session] = caller
        untold = self._untold.get(session)
        return () if untold is None else self._take(session, untold)

    def _take(self, session: int, untold: dict[int, int]) -> list[Break]:
        rows = self._machine.state.breaks.rows
        found = [rows[number] for number in untold if number in rows]
        left = {number: times - 1 for number, times in untold.items() if times > 1 and number in rows}
        if left:
            self._untold[session] = left
        else:
            del self._untold[session]
        return found

    def ended(self, session: int) -> None:
        self._untold.pop(session, None)
        self._callers.pop(session, None)
