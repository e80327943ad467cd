"""A leader that slept expires nobody who spoke meanwhile (history 3): stalls are added to every lease.

Before a leader may propose to expire a session, it must have been awake, and have heard, for a whole time to live
without a keep-alive of it: what lay unread, or waits for a majority's word, while the leader slept or was cut off
counts. One that was not heard in this leadership had what the log's checkpoint of it said when that began (history 10).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from coordinator.consensus.entries import COMMAND
from coordinator.replica.ports import Write
from coordinator.statemachine import commands
from tests.simulation.checkers.commands import decode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node

TOLERANCE: Final = 0.985
"""Clocks run up to 0.45 % fast."""


class StallsSpareSessions(Checker):
    name = "stalls-spare-sessions"

    def journaled(self, node: Node, write: Write) -> None:
        for term, entry in zip(write.terms, write.entries, strict=True):
            if entry[0] != COMMAND or not node.leads or term != node.engine.term:
                continue
            op = decode(entry[1:]).command.op
            if isinstance(op, commands.ExpireSessions):
                for session in op.sessions:
                    self._expires(node, session)

    def _expires(self, node: Node, number: int) -> None:
        self.checks += 1
        assert node.replica is not None
        session = node.replica.machine.sessions.get(number)
        if session is None:
            return
        heard_us = [node.leases_since_us, *node.kept_alive.get(number, [])]
        ttl_us = session.ttl_ms * 1_000 * TOLERANCE
        first_us = node.leases_at_first_ms.get(number, session.ttl_ms) * 1_000 * TOLERANCE
        leases_us = [first_us, *(ttl_us for _ in heard_us[1:])]
        now_us = node.awake_us()
        awake_us = now_us - heard_us[-1]
        # A keep-alive that came after a whole lease of silence may have come too late.
        lapsed = any(
            later - earlier >= lease_us
            for (earlier, later), lease_us in zip(pairwise(heard_us), leases_us, strict=False)
            if later + ttl_us > now_us
        )
        if awake_us < leases_us[-1] and not lapsed:
            self.violated(
                f"{node.name} proposes to expire session {number} of {session.ttl_ms} ms, "
                f"{awake_us / 1_000:.0f} ms of its waking time after a keep-alive, or its leadership's beginning with "
                f"{first_us / 1_000:.0f} ms"
            )
