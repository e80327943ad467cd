"""The elections that a replica saw, in words for people. The winner alone knows votes and how it began."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from coordinator import wire
from coordinator.consensus.engine import Role

if TYPE_CHECKING:
    from coordinator.replica.replica import Replica

ELECTIONS_MAX: Final = 20


class History:
    def __init__(self, now_us: int) -> None:
        self.elections: deque[wire.Election] = deque(maxlen=ELECTIONS_MAX)
        self.pending: list[wire.Election] = []
        """Elections without their wall-clock time, which the turn adds."""
        self.leaders_seen = 0
        """Leaderships that this replica came to know of, its own among them."""
        self._term = 0
        self._leader = ""
        self._led_us = now_us

    def observe(self, replica: Replica, now_us: int) -> None:
        """Called at the end of each turn."""
        engine = replica.engine
        is_known = engine.term == self._term and engine.leader
        leader = self._leader if is_known else replica.leader_node
        if leader and engine.term > self._term:
            self.pending.append(self._election(replica, leader, now_us))
            self._term, self._leader = engine.term, leader
            self.leaders_seen += 1
        if leader and (engine.role is Role.LEADER or engine.heard_at_us is not None):
            self._led_us = now_us if engine.heard_at_us is None else engine.heard_at_us

    def _election(self, replica: Replica, leader: str, now_us: int) -> wire.Election:
        engine = replica.engine
        if engine.role is not Role.LEADER:
            return wire.Election(engine.term, leader, "", 0, 0, 0, 0)
        waited_ms = (now_us - self._led_us) // 1_000
        if not self._leader:
            reason = "first election since this node started"
        elif engine.campaign_reason == "election time-out":
            reason = f"election time-out: nothing heard from {self._leader} for {waited_ms / 1_000:.1f} s"
        else:
            reason = f"the channel of {self._leader} fell silent"
        voters = len(replica.configuration.voters)
        return wire.Election(engine.term, leader, reason, engine.votes_granted, voters, 0, waited_ms)

    def stamp(self, wall_ms: int) -> None:
        """Give the elections of this turn their wall-clock time."""
        for election in self.pending:
            self.elections.append(msgspec.structs.replace(election, at_ms=wall_ms))
        self.pending = []
