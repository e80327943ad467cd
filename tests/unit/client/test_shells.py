"""What both shells do with what is described once: they answer, are awaited, spawn, and end."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import AsyncClient, Client, Standing, aio, links, locks
from coordinator.client.asking import Ask
from coordinator.client.errors import Closed, Unavailable
from coordinator.statemachine.commands import CloseSession, Holder, PutKey, ReleaseLock
from coordinator.statemachine.lock_commands import Acquire, Release
from tests.unit.client.test_sync import TOKEN, FakeChannel, until


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        yield client


def test_threads_answer_and_asyncio_awaits_the_same_description(client: Client, monkeypatch: pytest.MonkeyPatch):
    assert client.put("a", b"1") > 0
    assert client.get("a") == b"value"

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as other:
            assert await other.put("a", b"1") > 0
            assert await other.get("a") == b"value"

    asyncio.run(work())
    assert Client.put.__doc__ == AsyncClient.put.__doc__
    assert "its new revision" in str(Client.put.__doc__)


def test_a_forked_child_does_not_let_go_of_what_its_parent_holds(client: Client, monkeypatch: pytest.MonkeyPatch):
    """It would, under the parent's session and under a number that the parent may give to something else."""
    lease, hold = client.acquire("a"), client.locks.acquire("b", "c")
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    parents = lease._state, hold._state
    assert not lease.held
    monkeypatch.setattr(type(client), "_started", lambda self: self._loop)
    assert lease.release() is False
    assert hold.release() is False
    monkeypatch.setattr(os, "getpid", lambda: pid)
    client.put("after", b"")
    released = [op for op in FakeChannel.made.ops if isinstance(op, (ReleaseLock, Release))]
    assert released == []
    assert all(state._process[0] == pid for state in parents)


def test_an_interrupted_acquisition_of_several_names_goes_back(client: Client):
    """What its asker left before it could take it."""
    from coordinator.client.jobs import Job

    ask = client.locks._acquire(locks._wish(("a", "b"), False, None, 15, None, False, 0, True))
    loop = client._started()
    job = Job(loop, ask.flow(loop.core), ask.undo)
    loop.post(job)
    until(lambda: job.is_over)
    loop.post(job, KeyboardInterrupt())
    until(lambda: any(isinstance(op, Release) for op in FakeChannel.made.ops))
    acquired = next(op for op in FakeChannel.made.ops if isinstance(op, Acquire))
    released = next(op for op in FakeChannel.made.ops if isinstance(op, Release))
    assert (released.names, released.acquisition) == (acquired.names, acquired.acquisition)


def test_what_was_spawned_runs_and_ends_with_its_client(client: Client):
    def flow(core):
        yield core.pause(client.clock() + 1_000)
        yield core.command(core.sessions[15_000], PutKey("spawned", b""), client.clock(), client.clock() + 5_000_000)
        yield core.pause(client.clock() + 3_600_000_000)

    client.put("a", b"")
    client.spawn(Ask(flow))
    until(lambda: PutKey("spawned", b"") in FakeChannel.made.ops)
    loop = client._loop
    assert loop is not None
    client.close()
    until(lambda: not loop.work.running)


async def test_a_task_that_waits_learns_that_its_client_was_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)
    await client.put("a", b"")

    def flow(core):
        return (yield core.pause(client.clock() + 3_600_000_000))

    client.spawn(Ask(flow))
    waiting = asyncio.ensure_future(client.answer(Ask(flow)))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(Closed):
        await waiting
    for task in [*client._spawned]:
        await asyncio.wait([task])
    assert not client._spawned


async def test_a_session_of_asyncio_is_followed_until_it_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
        session = await client.session(ttl=5)
        assert session.standing is Standing.SAFE
        await session.close()
        assert [standing async for standing in session] == [Standing.EXPIRED]
    assert not client._spawned


async def test_a_forked_child_serves_nothing_of_what_its_parent_keeps(monkeypatch: pytest.MonkeyPatch):
    """Its parent is told to drop it, and says that it has; nobody tells the child."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5, cache=True) as client:
        await client.put("a", b"")
        known = Ask[int](lambda core: iter(()), known=lambda core: (7,))  # type: ignore[arg-type, return-value]
        assert await client.answer(known) == 7
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="and to its process"):
                await client.answer(known)


async def test_a_client_of_asyncio_connects_however_busy_the_threads_of_its_loop_are(monkeypatch: pytest.MonkeyPatch):
    """Their users' work kept it from connecting anew for longer than a lease."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    is_over = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        busy = asyncio.ensure_future(asyncio.to_thread(is_over.wait))
        await asyncio.sleep(0)
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=2) as client:
            try:
                assert await client.put("a", b"") > 0
            finally:
                is_over.set()
        assert await busy


async def test_a_client_of_asyncio_closes_though_a_connection_is_still_being_made(monkeypatch: pytest.MonkeyPatch):
    """A resolver that does not answer held it up for as long as that took, and with it the end of its program."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    monkeypatch.setattr(aio, "CLOSE_US", 100_000)
    may_connect = threading.Event()
    connect = FakeChannel.connect

    def connects_late(channel: FakeChannel, channels: list[str]) -> None:
        may_connect.wait(20)
        connect(channel, channels)

    monkeypatch.setattr(FakeChannel, "connect", connects_late)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=0.1)
    with pytest.raises(Unavailable):
        await client.put("a", b"")
    pump = client._pump
    try:
        async with asyncio.timeout(5):
            await client.aclose()
    finally:
        may_connect.set()
    assert pump is not None
    await asyncio.to_thread(until, lambda: not pump._connecting)
    assert not FakeChannel.made.connected, "nor does it stay connected"


async def test_a_connection_is_made_though_all_tasks_were_cancelled(monkeypatch: pytest.MonkeyPatch):
    """As at the end of a program, whose last words were never sent then."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=2) as client:
        asked = asyncio.ensure_future(client.put("a", b""))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await client.put("a", b"") > 0


async def test_a_task_that_is_answered_as_its_client_closes_learns_that(monkeypatch: pytest.MonkeyPatch):
    """What it asked next nobody sent, and nobody gave it up: it waited for ever, whatever its timeout."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=1)
    await client.get("a")

    async def ends() -> None:
        await client.get("a")
        await client.aclose()

    async with asyncio.timeout(5):
        ending = asyncio.ensure_future(ends())
        with pytest.raises(Closed):
            await client.acquire("a")  # Its session is answered in the packet that has the other's answer.
        await ending


def test_a_client_of_asyncio_is_not_closed_on_another_event_loop(monkeypatch: pytest.MonkeyPatch):
    """It was, halfway: the core was at work on two threads, its locks were left to run out, and the error spoke of a
    future of another loop."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)

    async def close() -> None:
        await client.aclose()

    with asyncio.Runner() as runner:
        lease = runner.run(client.acquire("a"))
        with ThreadPoolExecutor() as executor, pytest.raises(RuntimeError, match="belongs to the event loop"):
            executor.submit(asyncio.run, close()).result(10)
        assert lease.held
        runner.run(close())
    assert sum(isinstance(op, CloseSession) for op in FakeChannel.made.ops) == 1


@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
def test_a_release_that_is_refused_on_another_event_loop_is_left_to_its_with(monkeypatch: pytest.MonkeyPatch, taking):
    """It passed for done: the `with` did not let go either, and the lock was kept for as long as its client lived."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)

    async def release(held: Any) -> None:
        await held.release()

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
            async with taking(client) as held:
                with pytest.raises(RuntimeError, match="belongs to the event loop"):
                    await asyncio.to_thread(asyncio.run, release(held))
                held.check()
            assert any(isinstance(op, (ReleaseLock, Release)) for op in FakeChannel.made.ops)

    asyncio.run(work())


def test_a_change_that_is_refused_on_another_event_loop_has_changed_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)

    async def change(hold: Any) -> None:
        await hold.hand_over(Holder(9, 1, "another"))

    async def work() -> None:
        client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)
        async with client, client.locks.hold("deploy") as hold:
            with pytest.raises(RuntimeError, match="belongs to the event loop"):
                await asyncio.to_thread(asyncio.run, change(hold))
            hold.check()

    asyncio.run(work())


def test_a_client_of_asyncio_whose_event_loop_has_ended_can_be_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)

    async def close() -> None:
        await client.aclose()

    lease = asyncio.run(client.acquire("a"))
    asyncio.run(close())
    assert not FakeChannel.made.connected
    assert not lease.held, "nobody keeps it any more"
    asyncio.run(close())


@pytest.mark.interpreted
@pytest.mark.parametrize("struck", ["send", "receive"])
def test_an_interrupt_in_the_middle_of_the_work_ends_no_lease_where_its_event_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch, struck: str
):
    """As in a notebook: nothing was sent any more until somebody asked something."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)

    def kept_alive() -> int:
        return sum(isinstance(each, wire.KeepAliveRequest) for sent in FakeChannel.made.packets for each in sent)

    with asyncio.Runner() as runner:
        lease = runner.run(client.acquire("a", ttl=3))
        assert client._pump is not None
        of_links, work = client._pump._links, getattr(client._pump._links, struck)

        def strikes(*arguments: object) -> None:
            setattr(of_links, struck, work)
            raise KeyboardInterrupt

        monkeypatch.setattr(of_links, struck, strikes)
        loop = runner.get_loop()
        going_on = loop.create_task(asyncio.to_thread(until, lambda: kept_alive() >= 2))
        with pytest.raises(KeyboardInterrupt):  # Nobody asks anything: it looks after the lease.
            loop.run_until_complete(going_on)
        loop.run_until_complete(going_on)
        assert lease.held
        runner.run(client.aclose())


class Full(logging.Handler):
    """Of a log that can not be written."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise OSError("no space left")


@pytest.mark.interpreted
@pytest.mark.parametrize("handler", [logging.NullHandler(), Full()])
def test_what_an_answer_was_lost_to_in_the_middle_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, handler: logging.Handler
):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    log = logging.getLogger("coordinator.client.aio")
    monkeypatch.setattr(log, "handlers", [*log.handlers, handler])

    async def work() -> None:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
            await client.get("a")
            assert client._pump is not None
            core, receive = client._pump.core, client._pump.core.receive

            def breaks(*arguments: Any) -> None:
                monkeypatch.setattr(core, "receive", receive)
                raise ZeroDivisionError("planted")

            monkeypatch.setattr(core, "receive", breaks)
            with pytest.raises(Unavailable, match="a defect in the client"):
                await client.get("a")
            assert await client.get("a") == b"value"

    asyncio.run(work())
    assert "planted" in caplog.text or isinstance(handler, Full)
