"""A `with` that holds something: what it says at its end; and one `locks.hold(…)` for many: used by several threads or
tasks, entered again within itself, left elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import AsyncClient, links
from coordinator.client.errors import Broken, InvalidRequest, LeaseLost, OutcomeUnknown
from coordinator.client.recipes.election import Election
from coordinator.client.recipes.queue import Queue
from coordinator.client.sync import Client
from coordinator.statemachine.commands import NotHeld, ReleaseLock, Transact
from coordinator.statemachine.files import ReadFile
from coordinator.statemachine.lock_commands import Acquire, ChangeMode, HandOver
from tests.unit.client.cluster import Cluster, TestClient
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


text: Any = "x"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), text])
def test_a_release_that_is_refused_has_let_go_of_nothing(real: Client, timeout: float):
    """It passed for let go, and the `with` did not do it either."""

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client, client.lock("a") as lease:
            with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
                await lease.release(timeout=timeout)
            lease.check()

    with real.lock("a") as lease:
        with pytest.raises(InvalidRequest, match="timeout is a number of seconds"):
            lease.release(timeout=timeout)
        lease.check()
    assert let_go() == [lease.acquisition]
    asyncio.run(work())
    assert let_go() == [lease.acquisition]


# --- what was lost --------------------------------------------------------------------------------


@pytest.fixture
def other(cluster: Cluster) -> TestClient:
    return cluster.client()


def leave(holding: Any, after: Callable[[Any], object]) -> None:
    with holding as hold:
        after(hold)


def test_a_with_whose_lock_was_lost_says_so_at_its_end(cluster: Cluster, client: TestClient, other: TestClient):
    """It ended as if all had been guarded."""
    with pytest.raises(LeaseLost, match="the session is gone"):
        leave(client.locks.hold("a"), lambda hold: cluster.expire(hold.session))
    with pytest.raises(Broken, match="by root: it hangs"):
        leave(client.locks.hold("b"), lambda hold: other.locks.force_release("b", "it hangs"))
    with pytest.raises(Broken):
        leave(Election(client, "c").campaign(), lambda hold: other.locks.force_release("c", "it hangs"))


def fail(hold: object) -> None:
    raise ZeroDivisionError


def test_a_with_that_raised_something_raises_that(cluster: Cluster, client: TestClient):
    def lose_and_fail(hold: Any) -> None:
        cluster.expire(hold.session)
        fail(hold)

    with pytest.raises(ZeroDivisionError):
        leave(client.locks.hold("a"), lose_and_fail)


def test_what_was_given_away_or_let_go_is_not_lost(cluster: Cluster, client: TestClient, other: TestClient):
    heir = other.locks.heir("a")
    with client.locks.hold("a") as hold:
        hold.hand_over(heir.holder)
    heir.wait().release()
    cluster.loses = lambda request: isinstance(request, wire.CommandRequest) and isinstance(cluster.ops[-1], HandOver)
    with client.locks.hold("a") as hold, pytest.raises(OutcomeUnknown):
        hold.hand_over(heir.holder, timeout=0.2)
    with client.locks.hold("b") as hold:
        assert hold.release()


def test_of_what_was_not_answered_it_is_not_said_that_it_was_lost(
    cluster: Cluster, client: TestClient, caplog: pytest.LogCaptureFixture
):
    with client.locks.hold("a", ttl=30):
        cluster.loses = lambda request: isinstance(request, wire.CommandRequest)
    assert "still being released" in caplog.text


def lose_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing is held when it is let go."""
    answer = FakeChannel._answer

    def lost(channel: FakeChannel, request: wire.Request) -> wire.Reply | None:
        told = answer(channel, request)
        is_release = isinstance(request, wire.CommandRequest) and isinstance(channel.ops[-1], ReleaseLock)
        return wire.Answer(request.id, NotHeld()) if is_release else told

    monkeypatch.setattr(FakeChannel, "_answer", lost)


def test_a_plain_lock_that_was_lost_says_so_at_its_end(real: Client, monkeypatch: pytest.MonkeyPatch):
    lose_all(monkeypatch)
    with pytest.raises(LeaseLost, match="'a' is not held any more"):
        leave(real.lock("a"), str)
    with pytest.raises(ZeroDivisionError):
        leave(real.lock("a"), fail)
    with real.lock("a") as lease:
        assert lease.release() is False

    async def leave_there(holding: Any, after: Callable[[Any], object]) -> None:
        async with holding as hold:
            after(hold)

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
            for holding in (client.lock("a"), client.locks.hold("a")):
                with pytest.raises(LeaseLost, match="'a' is not held any more"):
                    await leave_there(holding, str)
            for holding in (client.lock("a"), client.locks.hold("a")):
                with pytest.raises(ZeroDivisionError):
                    await leave_there(holding, fail)

    asyncio.run(work())


def test_a_grant_that_comes_to_a_session_that_is_gone_is_none(cluster: Cluster, client: TestClient, other: TestClient):
    """The process stood still while it waited: another had the lock by the time that it was told that it had."""
    held = other.locks.acquire("a")
    waiting = client.later.locks.acquire("a", ttl=1)
    cluster.pass_time(0.1)
    cluster.clients.remove(client)
    held.release()
    cluster.pass_time(2)
    successor = other.locks.acquire("a", wait=0)
    client.take_inbox()
    cluster.clients.append(client)
    cluster.pass_time(0.5)
    assert not waiting.is_over
    successor.release()
    assert waiting.value().held


def test_what_comes_to_an_heir_whose_session_is_gone_is_not_had(
    cluster: Cluster, client: TestClient, other: TestClient
):
    hold = other.locks.acquire("a")
    heir = client.locks.heir("a", ttl=1)
    hold.hand_over(heir.holder)

    def stands_still(request: wire.Request) -> bool:
        cluster.now_us += 2_000_000 if isinstance(request, wire.QueryRequest) else 0
        return False

    cluster.drops = stands_still
    with pytest.raises(LeaseLost, match="the session that was to have it is gone"):
        heir.wait()


def stand_still_at(cluster: Cluster, kind: type) -> None:
    """The process stands still for two seconds before it reads the answer to the first request of this kind."""

    def stands_still(request: wire.Request) -> bool:
        is_command = isinstance(request, wire.CommandRequest)
        asked = wire.decode_command(request.command).op if is_command else getattr(request, "query", None)
        if isinstance(asked, kind):
            cluster.now_us += 2_000_000
            cluster.loses = lambda request: False
        return False

    cluster.loses = stands_still


def test_an_upgrade_of_who_stood_still_for_too_long_is_none(cluster: Cluster, client: TestClient):
    """It was returned, and its caller was in beside the next holder."""
    hold = client.locks.acquire("a", shared=True, ttl=1)
    stand_still_at(cluster, ChangeMode)
    with pytest.raises(LeaseLost, match="can not be proven held"):
        hold.upgrade()
    assert not hold.held


def test_an_upgrade_that_no_leader_confirms_in_time_is_not_said_to_be_had(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("a", shared=True, ttl=1)
    stand_still_at(cluster, ChangeMode)
    cluster.drops = lambda request: isinstance(request, wire.KeepAliveRequest)
    with pytest.raises(LeaseLost, match="can not be proven held"):
        hold.upgrade(timeout=0.5)


def test_who_stood_still_for_too_long_as_it_was_elected_leads_not(cluster: Cluster, client: TestClient):
    stand_still_at(cluster, Transact)
    with pytest.raises(LeaseLost, match="can not be proven held"):
        Election(client, "e", ttl=1).campaign(b"me")


def test_who_stood_still_for_too_long_as_it_took_an_item_has_it_not(
    cluster: Cluster, client: TestClient, other: TestClient
):
    """Two worked on it."""
    Queue(other, "q").put(b"item")
    stand_still_at(cluster, ReadFile)
    item = Queue(client, "q", ttl=1).take()
    assert item is not None
    assert item.held, "it is taken anew, where it is free"
