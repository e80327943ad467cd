"""Events of locks on a real quorum: a holder learns who wants what it holds, and a watcher that another leads now."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.client import AsyncClient, Client, FailOver, LockEvent
from tests.integration.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_a_holder_lets_go_for_whoever_asks_and_hears_of_the_next_leader(installation: Installation) -> None:
    credentials = installation.new_token("events")

    async def ask() -> tuple[int, int]:
        async with AsyncClient(*credentials) as client, client.locks.hold("events/a", shared=True, wait=60) as hold:
            return hold.session, hold.token

    async def first_of(since: int) -> LockEvent | FailOver:
        async with AsyncClient(*credentials) as client:
            async for event in client.locks.watch("events/", prefix=True, since=since):
                return event
        raise AssertionError("a watch has no end")

    with Client(*credentials) as client:
        watch = client.locks.watch("events/", prefix=True)
        since = watch.begin()
        with client.locks.hold("events/a") as hold:
            conflicts = hold.conflicts()

            async def both() -> int:
                asking = asyncio.create_task(ask())
                wanted = await asyncio.to_thread(conflicts.next, timeout=60)
                assert wanted is not None
                assert (wanted.mode, wanted.waits, wanted.token) == ("shared", True, hold.token)
                await asyncio.to_thread(hold.release)
                session, token = await asking
                assert session == wanted.holder.session
                return token

            token = asyncio.run(both())
        told = [next(watch) for _ in range(5)]
        assert [(e.kind, e.token) for e in told if isinstance(e, LockEvent)] == [
            ("acquired", hold.token),
            ("conflict", hold.token),
            ("released", hold.token),
            ("acquired", token),
            ("released", token),
        ]
        assert asyncio.run(first_of(since)) == told[0]
        node, term = client.confirm()
        installation.kill(node)
        failed_over = watch.next(timeout=60)
        assert isinstance(failed_over, FailOver)
        assert failed_over.term > term
        with client.locks.hold("events/b", ttl=15) as second:
            event = watch.next(timeout=60)
        while isinstance(event, FailOver):
            event = watch.next(timeout=60)
        assert event is not None
        assert (event.kind, event.name, event.token) == ("acquired", "events/b", second.token)
