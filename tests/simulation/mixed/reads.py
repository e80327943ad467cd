"""Reads of files, ranges and directories, now and as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.statemachine.files import ListDirectory, ReadDirectory, ReadFile, ReadRange, ReadStat, SortBy
from tests.simulation.clients import Client
from tests.simulation.mixed.asking import Act
from tests.simulation.mixed.files import DIRECTORIES, EPHEMERALS, PATHS

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

EVERYTHING: Final = ("b", "z", False)
"""All that clients ever write, and not where a bit may have flipped."""
SPANS: Final = (EVERYTHING, ("t", "", True), ("t/a", "t/c", False), ("t/a", "", False), ("n", "", True))
ORDERS: Final[tuple[SortBy, ...]] = ("key", "key", "key", "value", "version", "instance", "revision")


def work(mixed: Mixed, client: Client) -> Act:
    random = client.random
    choice = random.random()
    if choice < 0.25:
        path = random.choice((*PATHS, *EPHEMERALS))
        yield from mixed.query(client, ReadFile(path, _revision(mixed, client)))
    elif choice < 0.35:
        yield from mixed.query(client, ListDirectory(random.choice(("q", *DIRECTORIES))))
    elif choice < 0.45:
        path = random.choice(("q", *DIRECTORIES))
        revision = _revision(mixed, client)
        yield from mixed.query(client, ReadDirectory(path, revision) if choice < 0.4 else ReadStat(path, revision))
    else:
        yield from mixed.query(client, some_range(mixed, client))


def some_range(mixed: Mixed, client: Client) -> ReadRange:
    random = client.random
    start, end, prefix = random.choice(SPANS)
    sort_by = random.choice(ORDERS)
    return ReadRange(
        start,
        end,
        prefix,
        revision=_revision(mixed, client),
        limit=random.choice((0, 0, 1, 3)),
        sort_by=sort_by,
        descending=random.random() < 0.3,
        keys_only=random.random() < 0.2,
        count_only=random.random() < 0.1,
        after=random.choice(PATHS) if sort_by == "key" and random.random() < 0.2 else "",
    )


def _revision(mixed: Mixed, client: Client) -> int:
    """Now, or a revision that somebody knows of; or one that is long past, and given up perhaps."""
    choice = client.random.random()
    if choice < 0.4:
        return 0
    if choice < 0.5:
        return client.random.randrange(1, max(1, mixed.history.told) + 1)
    return int(max(1, mixed.history.told - client.random.randrange(mixed.mix.reach)))
