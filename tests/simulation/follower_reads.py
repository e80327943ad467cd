"""Reads on followers: in some worlds somebody asks the engines of followers for linearizable reads at drawn moments.

The replica turns clients away that ask a follower, so that nobody else does. An engine answers with an index at which
its host may read; what that must be is for `checkers/reads_never_stale.py` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from coordinator.consensus.engine import Role
from tests.simulation.network import KEPT_APART_MAX

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

PAUSE_US_MIN: Final = 1_000
ANEW: Final = KEPT_APART_MAX + 10
"""Questions at once of who asks anew: more than the network keeps answers."""


class FollowerReads:
    def __init__(self, world: World, random: Random, pause_us_max: int) -> None:
        """`pause_us_max`: between two reads; 0: nobody asks."""
        self._world = world
        self._random = random
        self._pause_us_max = pause_us_max
        self._anew: dict[str, Callable[[], object]] = {}
        """Who was ended since it asked, to what is called as soon as it has asked again."""

    def begin(self) -> None:
        if self._pause_us_max:
            self._world.scheduler.after(self._random.randrange(PAUSE_US_MIN, self._pause_us_max), self._ask)

    def asks_anew(self, node: Node, asked: Callable[[], object]) -> None:
        """As soon as it follows again, `node` asks much at once; then `asked` is called."""
        self._anew[node.name] = asked

    def _ask(self) -> None:
        if self._world.injector.stopped:
            return
        followers = [node for node in self._world.nodes if _follows(node)]
        if followers:
            node = self._random.choice(followers)
            node.wake()
            asked = [self._read(node) for _ in range(ANEW if node.name in self._anew else 1)]
            if any(asked):
                self._anew.pop(node.name, _nothing)()
                self._world.injector.moment("asking", node)
                node.nudge()
        self.begin()

    def _read(self, node: Node) -> bool:
        ticket: int | None = node.engine.read()
        if ticket is not None:
            self._world.watch.tell("read_begun", node, ticket, False)
        return ticket is not None


def _nothing() -> None:
    """Nobody waits for the question."""


def _follows(node: Node) -> bool:
    here = node.is_up and not node.paused and node.replica is not None and not node.replica.stopped
    return here and node.engine.role is Role.FOLLOWER
