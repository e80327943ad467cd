"""Deadlocks between those that ask by a client: found where somebody waits with something in hand, and only there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import AsyncClient, hands, links
from coordinator.client.errors import Deadlock, LockNotAcquired
from coordinator.client.recipes.election import Election
from coordinator.client.recipes.queue import Queue
from coordinator.client.sync import Client
from coordinator.statemachine import lock_commands
from coordinator.statemachine.commands import AcquireLock
from coordinator.statemachine.lock_commands import Acquire, LockWait
from tests.unit.client.cluster import Cluster, TestClient
from tests.unit.client.test_sync import TOKEN, FakeChannel, until

nothing: Any = None
"""No bool, and it will do for one."""


@pytest.fixture
def other(cluster: Cluster) -> TestClient:
    return cluster.client()


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        yield client


def asked() -> list[AcquireLock | Acquire]:
    return [op for op in FakeChannel.made.ops if isinstance(op, (AcquireLock, Acquire))]


def test_two_that_take_two_elections_the_other_way_round_are_told_the_cycle(
    cluster: Cluster, client: TestClient, other: TestClient
):
    """Each waited for ever."""
    one, two = Election(client, "a").campaign(), Election(other, "b").campaign()
    waiting = client.later_of(Election(client, "b")).campaign()
    cluster.pass_time(0.05)
    with pytest.raises(Deadlock) as caught:
        Election(other, "a").campaign()
    assert caught.value.cycle == ((two.session, "a"), (one.session, "b"))
    two.resign()
    assert waiting.value().held


def test_where_threads_break_the_cycle_it_is_not_refused(cluster: Cluster, client: TestClient, other: TestClient):
    Election(client, "a").campaign()
    two = Election(other, "b").campaign()
    client.later_of(Election(client, "b")).campaign()
    cluster.pass_time(0.05)
    waiting = other.later_of(Election(other, "a")).campaign(refuse_deadlocks=False)
    cluster.pass_time(0.05)
    assert not waiting.is_over
    assert two.resign()


def test_who_has_something_in_hand_has_the_cluster_look_for_a_deadlock(real):
    with real.lock("a"), real.lock("b"), real.lock("c", refuse_deadlocks=nothing), real.lock("d", wait=0):
        pass
    with real.lock("e"):
        pass
    assert [type(op) for op in asked()] == [AcquireLock, Acquire, AcquireLock, AcquireLock, AcquireLock]
    assert asked()[1] == Acquire(("b",), 2, wait=True, refuse_deadlocks=True)


def test_a_plain_lock_that_would_close_a_cycle_is_refused_and_the_cycle_told(real):
    with real.lock("a"):
        channel = FakeChannel.made
        channel.holds_back = lambda op: isinstance(op, Acquire)

        def refuse() -> None:
            until(lambda: channel.open)
            cycle = (LockWait(77, "b"), LockWait(78, "a"))
            channel.reply(wire.Answer(channel.open[0].id, lock_commands.Deadlock(cycle)))

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(Deadlock, match="session 78 waits for 'a'") as caught:
            real.acquire("b")
        thread.join(5)
    assert caught.value.cycle == ((77, "b"), (78, "a"))


def test_threads_of_two_clients_that_contend_for_one_lock_are_no_deadlock(
    cluster: Cluster, client: TestClient, other: TestClient
):
    """One thread holds it, one of another process waits, and another of the first comes: by sessions a cycle."""
    waits: list[Any] = []

    def in_a_thread_of(asker: TestClient) -> None:
        def work() -> None:
            waits.append(asker.later.locks.acquire("a"))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        cluster.pass_time(0.05)

    for asker in (client, other, client, other):
        in_a_thread_of(asker)
    for each in waits:
        assert each.value().release()


def test_what_another_thread_took_is_not_in_the_hand_of_this_one(real):
    lease = real.acquire("a")
    thread = threading.Thread(target=lambda: real.acquire("b").release())
    thread.start()
    thread.join()
    assert [type(op) for op in asked()] == [AcquireLock, AcquireLock]
    lease.release()


def test_a_hand_is_empty_once_it_was_let_go_or_lost_or_was_never_had(cluster: Cluster, client: TestClient):
    assert not hands.are_full()
    hold = client.locks.acquire("a")
    assert hands.are_full()
    hold.release()
    assert not hands.are_full()
    lost = client.locks.acquire("b")
    client.core.lose_session(client.core.sessions[15_000])
    assert not lost.held
    assert not hands.are_full()
    taking = client.later.locks.acquire("c")
    taking.cancel()
    assert not hands.are_full()
    assert Queue(client, "empty").take(wait=0) is None
    assert not hands.are_full()
    queue = Queue(client, "work")
    queue.put(b"x")
    with queue.take():
        assert hands.are_full()
    assert not hands.are_full()


def test_a_task_has_what_it_took_and_what_its_maker_had(cluster: Cluster, client: TestClient):
    """A task that another waits for closes that one's cycles."""
    found: list[bool] = []

    async def takes(name: str) -> None:
        found.append(hands.are_full())
        client.locks.acquire(name)
        found.append(hands.are_full())

    async def both() -> None:
        await asyncio.create_task(takes("b"))
        found.append(hands.are_full())
        client.locks.acquire("a")
        await asyncio.create_task(takes("c"))

    asyncio.run(both())
    assert found == [False, True, False, True, True]


def test_an_heir_whose_taker_left_gives_it_back(cluster: Cluster, client: TestClient, other: TestClient):
    """It was handed over, and nobody has it in hand."""
    hold, heir = client.locks.acquire("a"), other.locks.heir("a")
    ask = type(heir).wait.describe(heir)
    hold.hand_over(heir.holder)
    had = other.answer(ask)
    assert ask.undo is not None
    ask.undo(other.core, had)
    cluster.pass_time(0.05)
    assert not client.locks.look("a").holders


def test_a_hand_over_into_a_cycle_is_refused_and_the_hold_stays(
    cluster: Cluster, client: TestClient, other: TestClient
):
    hold, theirs = client.locks.acquire("x"), other.locks.acquire("y")
    third = cluster.client()
    heir = third.locks.heir("x")
    third.later.locks.acquire("y", refuse_deadlocks=False)
    waiting = other.later_of(other.locks).acquire("x")
    cluster.pass_time(0.05)
    with pytest.raises(Deadlock) as caught:
        hold.hand_over(heir.holder)
    assert caught.value.cycle == ((heir.holder.session, "y"), (theirs.session, "x"))
    assert hold.held
    assert hold.release()
    cluster.pass_time(0.05)
    assert waiting.value().held


def test_what_is_in_hand_counts_as_a_hold_begins_and_not_as_it_is_made(real):
    holding = real.locks.hold("b")
    with real.lock("a"), holding:
        pass
    assert [op.refuse_deadlocks for op in asked() if isinstance(op, Acquire)] == [True]


# --- what a caller has itself ---------------------------------------------------------------------


def test_a_thread_that_would_wait_for_itself_is_refused(client: TestClient):
    """It waited for ever: one session alone is no cycle to the cluster."""
    hold = client.locks.acquire("a")
    for again in (
        lambda: client.locks.acquire("a", wait=60),
        lambda: client.locks.acquire("b", "a", ttl=30),
        lambda: client.locks.acquire("b", "a", reentrant=True),
        lambda: client.locks.acquire("a", ttl=30, reentrant=True),
        lambda: Election(client, "a").campaign(),
    ):
        with pytest.raises(Deadlock) as caught:
            again()
        assert caught.value.cycle == ((hold.session, "a"),)
    with pytest.raises(LockNotAcquired):
        client.locks.acquire("a", wait=0)
    with pytest.raises(LockNotAcquired):
        client.locks.acquire("a", wait=0.1, refuse_deadlocks=False)
    hold.release()
    client.locks.acquire("a").release()


def test_another_client_and_what_is_shared_are_no_hindrance(client: TestClient, other: TestClient):
    held = other.locks.acquire("a")
    with pytest.raises(LockNotAcquired):
        client.locks.acquire("a", wait=0.1)
    held.release()
    client.locks.acquire("a", shared=True)
    assert client.locks.acquire("a", shared=True).held


def test_a_plain_lock_within_itself_is_refused(real):
    with real.lock("a"), pytest.raises(Deadlock, match="session 77 waits for 'a'"):
        real.acquire("a")

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client, client.lock("a"):
            with pytest.raises(Deadlock, match="session 77 waits for 'a'"):
                await client.acquire("a")
            with pytest.raises(Deadlock, match="session 77 waits for 'a'"):
                await client.locks.acquire("a")
            await asyncio.create_task(another(client))

    async def another(client: AsyncClient) -> None:
        """Its maker may wait for it, or go on and let go."""
        with pytest.raises(Deadlock):
            await client.locks.acquire("a", reentrant=True)
        assert (await client.acquire("a")).held

    asyncio.run(work())


def test_only_who_holds_a_lock_itself_comes_in_again(cluster: Cluster, client: TestClient):
    """Every thread of a client came into an exclusive lock that one of them held."""
    hold = client.locks.acquire("a", reentrant=True)
    joined = client.locks.acquire("a", reentrant=True)
    assert joined.token == hold.token
    waits: list[Any] = []
    thread = threading.Thread(target=lambda: waits.append(client.later.locks.acquire("a", reentrant=True)))
    thread.start()
    thread.join()
    for mine in (joined, hold):
        cluster.pass_time(0.5)
        assert not waits[0].is_over
        mine.release()
    assert waits[0].value().token > hold.token


def test_of_threads_only_one_at_a_time_is_in_a_reentrant_lock(real):
    with real.locks.hold("a", reentrant=True), real.locks.hold("a", reentrant=True):
        thread = threading.Thread(target=lambda: real.locks.acquire("a", reentrant=True).release())
        thread.start()
        thread.join(5)
    assert [op.reentrant for op in asked() if isinstance(op, Acquire)] == [False, True, False]


def test_what_came_of_a_session_that_is_gone_is_joined_by_nobody(cluster: Cluster, client: TestClient):
    hold = client.locks.acquire("a")
    cluster.expire(hold.session)
    client.core.lose_session(client.core.sessions[15_000])
    again = client.locks.acquire("a", reentrant=True, wait=0)
    assert not cluster.ops[-1].reentrant
    assert again.token > hold.token


def test_who_has_very_many_in_hand_knows_of_the_first_of_them(client: TestClient):
    """Behind 256 others it was forgotten: a thread that came into it again waited for itself for ever."""
    first = client.locks.acquire("first")
    for number in range(300):
        client.locks.acquire(f"more/{number}")
    with pytest.raises(Deadlock):
        client.locks.acquire("first")
    with client.locks.hold("first", reentrant=True) as again:
        assert again.held
    assert first.held


def test_what_was_let_go_of_is_not_kept_in_hand(client: TestClient):
    for number in range(300):
        client.locks.acquire(f"more/{number}").release()
    assert len(hands._places.get()) <= 2 * hands.LOOKED_AT
