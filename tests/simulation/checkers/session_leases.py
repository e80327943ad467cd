"""Session leases: a leader promises a session its time to live only where nothing in its log may end it sooner (Chubby,
section 2.8; histories 10 and 11).

It has applied the first entry of its own term, so that it knows of every expiry that those before it proposed; no
expiry of that session lies behind what it has applied; and neither does a checkpoint, nor does what it has applied
hold one that was not reset. So whoever begins to count has applied all of them that its log holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coordinator.consensus.entries import COMMAND
from coordinator.statemachine import commands
from tests.simulation.checkers.commands import decode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node


class SessionLeases(Checker):
    name = "session-leases"

    def counting(self, node: Node) -> None:
        self.checks += 1
        for index, op in _not_applied(node):
            if isinstance(op, commands.ExpireSessions | commands.CheckpointSessions):
                self.violated(
                    f"{node.name} begins to count leases, has applied {node.engine.applied_index}, and entry {index} "
                    f"is {op}"
                )

    def kept_alive(self, node: Node, session: int) -> None:
        self.checks += 1
        engine = node.engine
        applied = engine.applied_index
        if not node.leads or applied < engine.term_start_index:
            self.violated(
                f"{node.name} keeps session {session} alive in term {engine.term}, which begins at "
                f"{engine.term_start_index}; it has applied {applied}"
            )
        known = node.replica.machine.sessions.get(session) if node.replica is not None else None
        if known is not None and known.remaining_ms is not None:
            self.violated(f"{node.name} keeps session {session} alive, and the log leaves it {known.remaining_ms} ms")
        for index, op in _not_applied(node):
            if isinstance(op, commands.ExpireSessions) and session in op.sessions:
                self.violated(
                    f"{node.name} keeps session {session} alive, has applied {applied}, and entry {index} expires it"
                )
            if isinstance(op, commands.CheckpointSessions) and session in dict(op.remaining):
                self.violated(
                    f"{node.name} keeps session {session} alive, has applied {applied}, and entry {index} is a "
                    "checkpoint of it"
                )


def _not_applied(node: Node) -> Iterator[tuple[int, object]]:
    """What its log holds behind what it has applied, by index."""
    log, applied = node.engine.log, node.engine.applied_index
    for index, entry in enumerate(log.entries[applied - log.offset :], applied + 1):
        if entry[0] == COMMAND:
            yield index, decode(entry[1:]).command.op
