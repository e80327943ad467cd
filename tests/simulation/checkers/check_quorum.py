"""Check-quorum: a leader that no majority answers leads no longer than an election time-out (thesis, section 6.2).

Counted here from what its followers wrote to it that arrived, by the leader's own clock (history 13: a deaf leader
keeps its followers quiet for as long as it speaks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node

SLACK_US: Final = 100_000
"""A leader looks at each heartbeat."""


class CheckQuorum(Checker):
    name = "check-quorum"

    def led(self, node: Node) -> None:
        self.checks += 1
        engine = node.engine
        alone = engine.configuration.voter_ids == (engine.replica,)
        silent_us = node.turn_us - engine.confirmed_at_us
        if not alone and silent_us > engine.options.election_timeout_us_min + SLACK_US:
            self.violated(f"{node.name} still leads {silent_us / 1_000:.0f} ms after a majority last answered it")
