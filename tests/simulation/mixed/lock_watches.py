"""Watchers of locks: each hears, by the client's own watch, who came to hold a name, who asks for what is held, and who
leads from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from coordinator.client.asking import Ask, Shell
from coordinator.client.errors import ConclaveError
from coordinator.client.events import EventWatch, FailOver
from coordinator.statemachine.lock_commands import LockEvent, events_of
from tests.simulation.clients import Client, Script, Sleep

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

SPANS: Final = (("", "", True), ("", "", True), ("x0", "", False))
WAITS_US: Final = (100_000, 400_000, 1_500_000)
PAUSE_US_MAX: Final = 250_000


class _Clocked(Shell):
    """What a watch asks of its client: the time."""

    def __init__(self, client: Client) -> None:
        self.clock = client.clock.now_us

    def spawn(self, ask: Ask[Any]) -> None:
        raise AssertionError("a watch runs nothing beside itself")


def _as_it_is(event: object) -> LockEvent | FailOver:
    assert isinstance(event, (LockEvent, FailOver))
    return event


class LockWatcher:
    """What it asks for, and all that it heard."""

    def __init__(self, client: Client) -> None:
        random = client.random
        self.client = client
        self.life = client.lives
        acquired = random.random() < 0.7
        conflicts = not acquired or random.random() < 0.8
        self.query = events_of(
            random.choice(SPANS),
            since=1,
            skip=0,
            limit=random.choice((0, 1, 2)),
            acquired=acquired,
            conflicts=conflicts,
            released=random.random() < 0.7,
        )
        self.watch: EventWatch[Any, LockEvent | FailOver] = EventWatch(_Clocked(client), self.query, _as_it_is)
        self.heard: list[LockEvent] = []
        self.failovers: list[FailOver] = []

    @property
    def is_alive(self) -> bool:
        return self.client.is_up and self.client.lives == self.life

    @property
    def since(self) -> int:
        """All before this revision was heard."""
        return self.watch.since

    def __repr__(self) -> str:
        return f"the watcher of the locks of {self.query.start!r} at {self.client.name}"


def watch_locks(mixed: Mixed, client: Client) -> Script:
    """A worker that does nothing else."""
    watcher = LockWatcher(client)
    mixed.lock_watchers.append(watcher)
    now, random = client.clock.now_us, client.random
    while True:
        yield Sleep(random.randrange(1_000, 20_000 if mixed.ending else PAUSE_US_MAX))
        if mixed.ending and not mixed.owes_events(watcher):
            continue
        try:
            event = yield from watcher.watch._next(now() + random.choice(WAITS_US)).flow(client.core)
        except ConclaveError:
            continue
        if isinstance(event, FailOver):
            watcher.failovers.append(event)
        elif event is not None:
            watcher.heard.append(event)
        mixed.world.watch.tell("heard", watcher)
