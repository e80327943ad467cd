"""Sessions as the log sees them, and the results that make a retry harmless (exactly once).

A session is named by the index of the entry that opened it, so that a name is never used again: a copy of old traffic
speaks to sessions that are gone. Time is not here: whose lease ran out is the leader's to count
(`coordinator/replica/leases.py`) and comes back as an entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coordinator.statemachine.commands import Result

RESULTS_MAX: Final = 4_096
"""Unacknowledged results that one session may have; at the bound new requests are refused, results never dropped."""


class Session:
    __slots__ = ("acked", "locks", "nonce", "principal", "results", "session", "ttl_ms", "waiting")

    def __init__(self, session: int, principal: str, ttl_ms: int, nonce: bytes) -> None:
        self.session = session
        self.principal = principal
        self.ttl_ms = ttl_ms
        self.nonce = nonce
        self.acked = 1
        """Every number below is answered as far as the client is concerned."""
        self.results: dict[int, Result] = {}
        """Results by request number, from `acked` on; numbers come out of order and with gaps (history 12)."""
        self.locks: dict[str, None] = {}
        """Names that this session holds, in the order of their grants (a dict for its order)."""
        self.waiting: dict[tuple[str, int], None] = {}
        """(name, acquisition) that wait in a queue."""

    def waiting_for(self, name: str) -> int | None:
        """The first acquisition of this session that waits for `name`."""
        return next((acquisition for waited, acquisition in self.waiting if waited == name), None)

    def acknowledge(self, acked: int) -> None:
        """Forget the results below `acked`."""
        passed = acked - self.acked
        if passed <= 0:
            return
        if passed <= len(self.results):
            done: Iterable[int] = range(self.acked, acked)
        else:  # A client may leap: never count over more numbers than there are results.
            done = [number for number in self.results if number < acked]
        self.acked = acked
        for number in done:
            self.results.pop(number, None)
