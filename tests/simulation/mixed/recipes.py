"""The recipes of `docs/semantics.md`: a queue that hands each item to one consumer, and an election."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.statemachine.commands import PutKey, Transact
from coordinator.statemachine.files import Compare, CreateFile, DeletePath, RangeView, ReadRange
from tests.simulation.clients import Client, Sleep
from tests.simulation.mixed import locks
from tests.simulation.mixed.asking import Act

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

QUEUE: Final = "q/"
ELECTION: Final = "e"
WORK_US_MAX: Final = 100_000


def queue(mixed: Mixed, client: Client) -> Act:
    """Produce, or take the first item that can be locked, and be done with it."""
    if client.random.random() < 0.5:
        yield from mixed.command(client, CreateFile(QUEUE, mixed.value(), sequential=True, parents=True))
        return
    found = yield from mixed.query(client, ReadRange(QUEUE, prefix=True, limit=3, keys_only=True))
    items = [view.key for view in found.result.keys if not view.directory] if found.result is not None else []
    assert found.result is None or isinstance(found.result, RangeView)
    for item in items:
        attempt = yield from locks.take(mixed, client, (item,), "exclusive", wait_us=0)
        if attempt is None:
            continue
        yield Sleep(client.random.randrange(1_000, WORK_US_MAX))
        done = Transact((Compare(item, "lock", "=", attempt.token),), (DeletePath(item),))
        yield from mixed.command(client, done)
        yield from locks.let_go(mixed, client, attempt)
        return


def election(mixed: Mixed, client: Client) -> Act:
    """Stand, proclaim, lead for a while, resign."""
    wait_us = client.random.choice((300_000, 1_500_000))
    attempt = yield from locks.take(mixed, client, (ELECTION,), "exclusive", wait_us=wait_us)
    if attempt is None:
        return
    proclaimed = Transact((Compare(ELECTION, "lock", "=", attempt.token),), (PutKey(ELECTION, mixed.value()),))
    yield from mixed.command(client, proclaimed)
    yield from locks.hold(mixed, client, attempt)
    yield from locks.let_go(mixed, client, attempt)
