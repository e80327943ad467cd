"""Counters: added to, and read. (What only grows is judged in less time.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine.commands import GetKey
from coordinator.statemachine.files import AddToKey
from tests.simulation.clients import Client
from tests.simulation.mixed.asking import Act

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed


def work(mixed: Mixed, client: Client) -> Act:
    random = client.random
    key = f"n{random.randrange(mixed.mix.counters)}"
    if random.random() < 0.6:
        yield from mixed.command(client, AddToKey(key, random.choice((1, 1, 2, 5))))
    else:
        yield from mixed.query(client, GetKey(key))
