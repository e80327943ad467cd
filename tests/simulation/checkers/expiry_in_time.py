"""Expiry in time: a leader that may proposes the end of a session within 100 ms of its deadline, in lease time.

Not counted is the time in which it may not: while no majority has answered a round that it sent behind the deadline,
while it is in doubt or hands over, while it has what it has proposed by its bound, while a keep-alive of the session is
in hand, and while clients may keep what they read: those are told first, and one that does not answer has its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.replica.tenure import Tenure
    from tests.simulation.node import Node
    from tests.simulation.world import World

LATE_US_MAX: Final = 100_000
ASKS_AGAIN_US: Final = 250_000
"""A leader whose question nobody has answered asks again with its next heartbeat, which spares may wait for so long."""
STALL_US: Final = 60_000
"""A turn that comes so long after the last one came late: a leader has a heartbeat to send before."""


class _Due(NamedTuple):
    """A deadline that has passed: since when, in lease time and by its clock, the leader may propose the end."""

    deadline: int
    lease_us: int
    seen_us: int
    was_confirmed: bool
    first_us: int
    """When it was first seen to have passed: a leader asks once then, and whoever was asked is asked again with the
    next heartbeat."""


class ExpiryInTime(Checker):
    name = "expiry-in-time"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._due: dict[str, tuple[object, int, dict[int, _Due]]] = {}
        """Node to whose tenure it is of, when the last turn was, and the sessions that are due."""

    def led(self, node: Node) -> None:
        tenure = None if node.replica is None else node.replica._tenure
        if tenure is None:
            return
        now_us = tenure.leases.seen_us
        whose, last_us, due = self._due.get(node.name, (None, now_us, {}))
        if whose is not tenure:
            last_us, due = now_us, {}
        elif now_us == last_us:
            return  # It has not looked at its leases in this turn: what the last one told it, it sees in the next.
        lease_us = tenure.leases.lease_us
        still: dict[int, _Due] = {}
        for session, deadline in tenure.leases._deadlines.items():
            if deadline > lease_us or session in tenure.leases._expiring:
                continue
            since = due.get(session)
            if since is None or since.deadline != deadline:
                came_late = now_us - last_us > STALL_US
                since = _Due(deadline, lease_us if came_late else deadline, now_us, False, now_us)
            still[session] = self._look(node, tenure, session, since)
        self._due[node.name] = (tenure, now_us, still)

    def _look(self, node: Node, tenure: Tenure, session: int, since: _Due) -> _Due:
        engine, lease_us, now_us = node.engine, tenure.leases.lease_us, tenure.leases.seen_us
        if not _may(node, tenure, session):
            return since._replace(lease_us=lease_us, seen_us=now_us, was_confirmed=False)
        self.checks += 1
        is_confirmed = engine.confirmed_at_us >= since.seen_us
        asked_us = engine.rounds.all_sent_us
        is_asked = asked_us >= since.seen_us or asked_us >= max(since.first_us, now_us - ASKS_AGAIN_US)
        if lease_us - since.lease_us > LATE_US_MAX and (since.was_confirmed or not is_asked):
            why = "was confirmed" if since.was_confirmed else "has asked nobody whether it still leads"
            self.violated(
                f"{node.name} has not proposed the end of session {session}, "
                f"{(lease_us - since.lease_us) / 1_000:.0f} ms of lease time behind its deadline, and {why}"
            )
        return since._replace(was_confirmed=is_confirmed)


def _may(node: Node, tenure: Tenure, session: int) -> bool:
    """Could it propose the end of a session, if a majority has confirmed it?"""
    engine = node.engine
    assert node.replica is not None
    if not engine.is_fit or engine.transferring is not None or not tenure.caching.is_idle:
        return False
    if engine.uncommitted_bytes and engine.options.uncommitted_bytes_max < 1_000:
        return False
    return not tenure.checkpoints.is_held(session) and not node.replica.reading.has_confirmed
