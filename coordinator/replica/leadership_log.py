"""What a node's log says of who leads: that another one does, in which term, and that nobody is known to for long.

It is looked at once a second, so that what comes and goes within one is no line; and told in one line for all clusters,
the next one after a pause that grows while leaders come and go. So neither a hundred clusters nor a leader that flaps
fill the log: the term tells how often it has changed since.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

from coordinator.replica.replica import Replica

LOOK_US: Final = 1_000_000
PAUSE_US_MIN: Final = 1_000_000
PAUSE_US_MAX: Final = 64_000_000
"""Between two lines. Twice as long after each, until nothing has changed for that long."""
NAMED_MAX: Final = 8
"""Clusters in one line."""


class _Led(NamedTuple):
    leader: str
    term: int

    def __str__(self) -> str:
        return f"{self.leader} in term {self.term}" if self.leader else f"nobody in term {self.term}"


class LeadershipLog:
    """Of one node; `look` is called as often as its loop likes."""

    def __init__(self, node: str, logger: logging.Logger | None = None) -> None:
        self._node = node
        self._logger = logger or logging.getLogger(__name__)
        self._said: dict[int, _Led] = {}
        """By cluster."""
        self._leaderless: frozenset[int] = frozenset()
        """Clusters of which no leader was known at the last look: an election takes less than two."""
        self._look_us = 0
        self._quiet_us = 0
        """When it was quiet for so long that the next line may follow soon again."""
        self._due_us = 0
        self._pause_us = PAUSE_US_MIN

    def look(self, replicas: Iterable[Replica], now_us: int) -> None:
        if now_us < self._look_us:
            return
        self._look_us = now_us + LOOK_US
        there = {each.cluster: each for each in replicas if each.configuration.members and not each.stopped}
        self._said = {cluster: led for cluster, led in self._said.items() if cluster in there}
        led = {cluster: _Led(each.leader_node, each.engine.term) for cluster, each in there.items()}
        before, self._leaderless = self._leaderless, frozenset(c for c, now in led.items() if not now.leader)
        changed = [c for c, now in led.items() if self._is_news(c, now) and (now.leader or c in before)]
        if not changed or now_us < self._due_us:
            return
        if now_us >= self._quiet_us:
            self._pause_us = PAUSE_US_MIN
        self._due_us = now_us + self._pause_us
        self._pause_us = min(2 * self._pause_us, PAUSE_US_MAX)
        self._quiet_us = self._due_us + self._pause_us
        told = "; ".join(self._in_words(there[cluster], led[cluster]) for cluster in changed[:NAMED_MAX])
        if len(changed) > NAMED_MAX:
            told += f"; and of {len(changed) - NAMED_MAX} more clusters"
        level = logging.INFO if all(led[cluster].leader for cluster in changed) else logging.WARNING
        self._logger.log(level, "%s", told)
        self._said.update((cluster, led[cluster]) for cluster in changed)

    def _is_news(self, cluster: int, now: _Led) -> bool:
        """While nobody leads, terms come and go."""
        said = self._said.get(cluster)
        return said is None or (now != said if now.leader else bool(said.leader))

    def _in_words(self, replica: Replica, now: _Led) -> str:
        said = self._said.get(replica.cluster)
        before = f" (before: {said})" if said is not None else ""
        if not now.leader:
            return f"{replica.cluster_name}: no leader is known, term {now.term}{before}"
        if now.leader != self._node:
            return f"{replica.cluster_name}: {now.leader} leads in term {now.term}{before}"
        elections = replica.history.elections
        why = elections[-1].reason if elections and elections[-1].term == now.term else ""
        return f"{replica.cluster_name}: this node leads in term {now.term}{before}{f', {why}' if why else ''}"
