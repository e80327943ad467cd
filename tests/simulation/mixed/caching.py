"""Reads that clients keep, asked again and again: most are answered by the client itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator import wire
from coordinator.client import cached_reads
from coordinator.client.errors import ConclaveError
from coordinator.statemachine.commands import GetKey
from coordinator.statemachine.files import GetStat, ReadFile
from tests.simulation.clients import Client, Script, Sleep
from tests.simulation.mixed.asking import Act
from tests.simulation.mixed.files import DIRECTORIES, EPHEMERALS, PATHS

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

FAVOURITES: Final = 3
PAUSE_US_MAX: Final = 30_000
LOCKED: Final = ("e", "x0", "x1")
"""Names that are locked, and may be files."""


def cache(mixed: Mixed, client: Client) -> Script:
    """A worker that does nothing else. It reads a few things for a while, and then others."""
    random = client.random
    while True:
        favourites = [_something(mixed, client) for _ in range(FAVOURITES)]
        for _ in range(random.choice((20, 100))):
            yield Sleep(random.randrange(1_000, PAUSE_US_MAX))
            if not mixed.ending:
                yield from _read(mixed, client, random.choice(favourites))


def _something(mixed: Mixed, client: Client) -> wire.CachedQuery:
    random = client.random
    choice = random.random()
    if choice < 0.4:
        return GetKey(f"k{random.randrange(mixed.world.workload.mix.keys)}")
    if choice < 0.7:
        return ReadFile(random.choice((*PATHS, *EPHEMERALS)))
    return GetStat(random.choice((*PATHS, *DIRECTORIES, *EPHEMERALS, *LOCKED)))


def _read(mixed: Mixed, client: Client, query: wire.CachedQuery) -> Act:
    """As `Part._kept_read` does it."""
    now = client.clock.now_us
    found = client.core.cache.look(query, now)
    if found is not None:
        mixed.world.watch.tell("served", client, query, found)
    if isinstance(query, GetKey):
        yield from mixed.world.workload.get(client, query.key, caches=True)
        return
    try:
        ttl_ms = client.random.choice(mixed.ttls_ms)
        yield from cached_reads.read(client.core, now, query, ttl_ms, now() + mixed.timeout_us)
    except ConclaveError:
        return
