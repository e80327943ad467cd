"""Check-quorum: a leader that no majority answers leads no longer than an election time-out (thesis, section 6.2).

Counted here from what its followers wrote to it that arrived, by the leader's own clock (history 13: a deaf leader
keeps its followers quiet for as long as it speaks). Of a leader that sleeps, from what was answered to its node for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.quorums import is_quorum
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
        silent_us = node.turn_us - max(engine.confirmed_at_us, confirmed_for_us(node))
        if not alone and silent_us > engine.options.election_timeout_us_min + SLACK_US:
            self.violated(f"{node.name} still leads {silent_us / 1_000:.0f} ms after a majority last answered it")


def confirmed_for_us(node: Node) -> int:
    """When the last heartbeat was sent that the node spoke for this leader and a majority answered; 0: none was. Where
    a change of membership is under way, it may have been one of before: the majorities of both sides overlap."""
    engine = node.engine
    answered_us = node.spoken.answered_us.get((engine.replica, engine.term))
    if answered_us is None:
        return 0
    for sent_us in sorted({*answered_us.values()}, reverse=True):
        since = {follower for follower, at_us in answered_us.items() if at_us >= sent_us}
        if any(is_quorum(configuration, {engine.replica} | since) for _, configuration in engine.configurations):
            return sent_us
    return 0
