"""Of what the mixed work of one seed is made: a few of all kinds, so that each comes often where it comes (swarm
testing, Groce et al. 2012)."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

ACTIVITIES: Final = ("files", "reads", "transactions", "counters", "locks", "watches", "queue", "election")
LIMIT: Final = 2
"""Holders of a counting lock: all of a name must name the same."""


class MixedMix(NamedTuple):
    share: float
    """Of all workers those that do mixed work."""
    activities: tuple[str, ...]
    """What there is to choose from, as often as it is to be chosen."""
    lock_names: int
    counters: int
    delays_ms: tuple[int, ...]
    """Lock-delays that are asked for."""
    reach: int
    """How many revisions back one reads at the most."""
    compacts: bool
    """Is the past given up now and then?"""
    cachers: int
    """Workers of each client besides that read what they keep."""
    cache_lease_ms: int

    @classmethod
    def draw(cls, random: Random) -> MixedMix:
        chosen = [activity for activity in ACTIVITIES if random.random() < (0.7 if activity == "locks" else 0.45)]
        while len(chosen) < 2:
            chosen.append(random.choice(ACTIVITIES))
        return cls(
            share=random.choice((0.5, 0.8, 1.0)),
            activities=tuple(activity for activity in chosen for _ in range(random.choice((1, 1, 3)))),
            lock_names=random.choice((1, 1, 2, 3)),
            counters=random.choice((1, 1, 2)),
            delays_ms=random.choice(((0,), (0, 300), (800,))),
            reach=random.choice((3, 15, 60)),
            compacts=random.random() < 0.4,
            cachers=random.choice((0, 2, 4)),
            cache_lease_ms=random.choice((200, 400, 1_000, 2_000)),
        )
