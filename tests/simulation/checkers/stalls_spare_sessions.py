"""A leader that slept expires nobody who spoke meanwhile (history 3): stalls are added to every lease.

From a keep-alive that a leader has taken in, it must be awake and hear for a whole time to live before it may propose to
expire that session: what lay unread, or unanswered, while it slept counts for its client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.consensus.entries import COMMAND
from coordinator.replica.ports import Write
from coordinator.statemachine import commands
from tests.simulation.checkers.commands import decode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

TOLERANCE: Final = 0.985
"""Clocks run up to 0.45 % fast."""


class StallsSpareSessions(Checker):
    name = "stalls-spare-sessions"

    def __init__(self, world: World) -> None:
        super().__init__(world)

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
        heard_us = node.kept_alive.get(number)
        if session is None or heard_us is None:
            return
        awake_us = node.awake_us() - heard_us
        if awake_us < session.ttl_ms * 1_000 * TOLERANCE:
            self.violated(
                f"{node.name} proposes to expire session {number} of {session.ttl_ms} ms, "
                f"{awake_us / 1_000:.0f} ms of its waking time after a keep-alive"
            )
