"""One `locks.hold(…)` for many: used by several threads or tasks, entered again within itself, left elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from coordinator.client import AsyncClient, links
from coordinator.client.sync import Client
from coordinator.statemachine.commands import ReleaseLock
from coordinator.statemachine.lock_commands import Acquire
from tests.unit.client.cluster import TestClient
from tests.unit.client.test_sync import TOKEN, FakeChannel


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        yield client


def taken() -> list[int]:
    return [op.acquisition for op in FakeChannel.made.ops if isinstance(op, Acquire)]


def let_go() -> list[int]:
    return [op.acquisition for op in FakeChannel.made.ops if isinstance(op, ReleaseLock)]


def test_of_two_threads_with_one_hold_each_lets_go_of_its_own(real: Client):
    """Who left first let go of the other's, which worked on, and nobody let go of its own."""
    holding = real.locks.hold("slots", limit=2)
    another_is_in, first_is_out = threading.Event(), threading.Event()

    def work() -> None:
        with holding:
            another_is_in.set()
            assert first_is_out.wait(5)

    thread = threading.Thread(target=work)
    with holding:
        thread.start()
        assert another_is_in.wait(5)
    assert (taken(), let_go()) == ([1, 2], [1])
    first_is_out.set()
    thread.join(5)
    assert let_go() == [1, 2]


def test_of_two_tasks_with_one_hold_each_lets_go_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
            holding = client.locks.hold("slots", limit=2)
            another_is_in, first_is_out = asyncio.Event(), asyncio.Event()

            async def another() -> None:
                async with holding:
                    another_is_in.set()
                    await first_is_out.wait()

            async with holding:
                task = asyncio.create_task(another())
                await another_is_in.wait()
            assert (taken(), let_go()) == ([1, 2], [1])
            first_is_out.set()
            await task
            assert let_go() == [1, 2]

    asyncio.run(work())


def test_a_hold_that_is_entered_again_within_itself_is_let_go_as_often(client: TestClient):
    holding = client.locks.hold("a", shared=True)
    with holding as outer:
        with holding as inner:
            assert inner.acquisition != outer.acquisition
        assert (outer.held, inner.held) == (True, False)
        assert client.locks.look("a").holding == 1
    assert client.locks.look("a").holding == 0


def test_what_is_left_by_another_thread_than_it_was_entered_by_is_let_go(real: Client):
    """As a framework does with a generator that it runs in a pool of threads."""
    holding = real.locks.hold("a")
    holding.__enter__()
    thread = threading.Thread(target=lambda: holding.__exit__(None, None, None))
    thread.start()
    thread.join(5)
    assert let_go() == taken() == [1]
