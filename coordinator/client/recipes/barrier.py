"""Barriers: whoever comes waits until somebody opens it.

Guarantees. A waiter goes on once the barrier was open at some index behind its call, even if it is closed again at
once: it follows the changes, and does not look now and then. An open barrier holds nobody up.

Source: the barriers of ZooKeeper's recipes (Hunt and others, "ZooKeeper", 2010, section 2.4).
"""

from __future__ import annotations

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Asking, Part, S, asked
from coordinator.client.core import Core
from coordinator.client.errors import Compacted, Exists, NotFound, refuse
from coordinator.client.watches import next_changes
from coordinator.statemachine import files


class Barrier(Part[S]):
    """A barrier by the name of a file, which is there as long as it is closed."""

    def __init__(self, client: Part[S], name: str) -> None:
        super().__init__(client._shell)
        self.name = options.name(name)

    @asked
    def close(self, *, timeout: float | None = None) -> Ask[bool]:
        """Hold up whoever comes. False where it was closed already."""
        op = files.CreateFile(self.name, b"", parents=True)
        clock, deadline_us, ttl_ms = self._shell.clock, self._shell.deadline_us(timeout), options.DEFAULT_TTL_S * 1_000

        def flow(core: Core) -> Asking[bool]:
            try:
                refuse((yield from flows.command(core, clock, op, int(ttl_ms), deadline_us, "")))
            except Exists:
                return False
            return True

        return Ask(flow)

    @asked
    def open(self, *, timeout: float | None = None) -> Ask[bool]:
        """Let all go on that wait. False where it was open already."""
        clock, deadline_us, ttl_ms = self._shell.clock, self._shell.deadline_us(timeout), options.DEFAULT_TTL_S * 1_000

        def flow(core: Core) -> Asking[bool]:
            op = files.DeletePath(self.name)
            try:
                refuse((yield from flows.command(core, clock, op, int(ttl_ms), deadline_us, "")))
            except NotFound:
                return False
            return True

        return Ask(flow)

    @asked
    def wait(self, *, wait: float | None = None) -> Ask[bool]:
        """Wait until it is open, `wait` seconds at the most. False where it stayed closed."""
        clock, wait_us = self._shell.clock, options.wait_us(wait)
        until_us = None if wait_us is None else clock() + wait_us
        timeout_us = self._shell.timeout_us

        def flow(core: Core) -> Asking[bool]:
            instance = 0
            while True:
                query = files.ReadRange(self.name, keys_only=True)
                view: files.RangeView = refuse((yield core.query(query, clock(), clock() + timeout_us)))
                # Of another instance it was opened meanwhile, and closed again.
                if not view.keys or instance not in (0, view.keys[0].instance):
                    return True
                instance = view.keys[0].instance
                # From the look on, and not from when it was closed: that may be longer ago than changes are kept.
                opened = files.ReadChanges(self.name, since=view.revision + 1, puts=False)
                try:
                    page = yield from next_changes(core, clock, opened, until_us)
                except Compacted:
                    continue  # It comes so late that it has to look again.
                return bool(page.changes)

        return Ask(flow)
