"""Mixed work: what the state machine can do besides plain keys and locks, asked by workers of the simulation's clients.

`mix` is what a seed draws, `asking` one question; what there is to ask is in a module for each subject. Who may be
right about the answers is in `tests/simulation/model` and in the checkers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.simulation.clients import Client, Script, Sleep
from tests.simulation.mixed import counters, files, locks, reads, recipes, transactions
from tests.simulation.mixed.asking import Act, Asker
from tests.simulation.mixed.caching import cache
from tests.simulation.mixed.lock_watches import LockWatcher, watch_locks
from tests.simulation.mixed.mix import MixedMix
from tests.simulation.mixed.watches import Watcher, watch

if TYPE_CHECKING:
    from tests.simulation.workload import Mix
    from tests.simulation.world import World

CLOSING: Final = 0.02
"""How often a worker closes a session of its client, with all that hangs on it, before it does something."""
ALONE: Final = 0.3
"""Of the clients that cache, those that do nothing else, and so hear little of leaders."""
_WORK: Final[dict[str, Callable[[Mixed, Client], Act]]] = {
    "files": files.work,
    "reads": reads.work,
    "transactions": transactions.work,
    "counters": counters.work,
    "locks": locks.work,
    "queue": recipes.queue,
    "election": recipes.election,
}


class Mixed(Asker):
    def __init__(self, world: World, mix: MixedMix, plain: Mix) -> None:
        super().__init__(world, plain.timeout_us, plain.ttls_ms)
        self.mix = mix
        self.impatience = plain.impatience
        self.hold_us_max = plain.hold_us_max
        self.pause_us_max = plain.pause_us_max
        self.watchers: list[Watcher] = []
        self.lock_watchers: list[LockWatcher] = []
        self.attempts: set[tuple[str, int, int]] = set()
        """Client, session and acquisition of what somebody is taking, or has. (Only ever asked for one of them.)"""

    @property
    def ending(self) -> bool:
        """Workers begin nothing new."""
        return self.world.workload.ending

    def replace(self, client: Client, plain: list[Script]) -> list[Script]:
        """Let a share of a client's workers do mixed work."""
        random = client.random
        if self.mix.cachers and random.random() < ALONE:
            for script in plain:
                script.close()
            return [cache(self, client) for _ in range(1 + self.mix.cachers)]
        scripts = []
        for script in plain:
            if random.random() >= self.mix.share:
                scripts.append(script)
                continue
            script.close()
            activity = random.choice(self.mix.activities)
            if activity == "watches":
                scripts.append(watch_locks(self, client) if random.random() < 0.4 else watch(self, client))
            else:
                scripts.append(self._work(client, activity))
        if "locks" in self.mix.activities:
            scripts.append(locks.tidy_up(self, client))
        scripts += [cache(self, client) for _ in range(self.mix.cachers)]
        return scripts

    def _work(self, client: Client, activity: str) -> Script:
        """A worker that does one thing most of the time, and the others now and then."""
        random = client.random
        others = [one for one in self.mix.activities if one in _WORK]
        while True:
            yield Sleep(random.randrange(1_000, self.pause_us_max))
            if not self.ending:
                if random.random() < CLOSING:
                    yield from self.close(client)
                chosen = random.choice(others) if random.random() < 0.3 and others else activity
                yield from _WORK[chosen](self, client)

    def owes(self, watcher: Watcher) -> bool:
        """Is there a change that this watcher was not told of yet?"""
        changes = self.world.watch.truth.namespace.changes
        return watcher.is_alive and watcher.since <= (changes[-1].revision if changes else 0)

    def owes_events(self, watcher: LockWatcher) -> bool:
        """Is there an event of a lock that this watcher was not told of yet?"""
        events = self.world.watch.truth.locks.events
        return watcher.is_alive and watcher.since <= (events[-1].revision if events else 0)

    @property
    def settled(self) -> bool:
        """Is every question answered, and has every watcher that lives been told everything?"""
        told = not any(self.owes(watcher) for watcher in self.watchers)
        return self.idle and told and not any(self.owes_events(watcher) for watcher in self.lock_watchers)
