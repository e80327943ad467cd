"""Who runs the client for threads: a caller that is alone, or the loop's own thread; and what an interrupt leaves
behind, wherever it strikes."""

from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from coordinator import wire
from coordinator.channel import ChannelError
from coordinator.client import links
from coordinator.client.asking import Ask
from coordinator.client.core import Core
from coordinator.client.errors import OutcomeUnknown, Unavailable
from coordinator.client.flows import Flow
from coordinator.client.jobs import Job
from coordinator.client.loop import _HELD
from coordinator.client.sync import Client
from coordinator.statemachine import commands
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, PutKey, Queued, ReleaseLock
from tests.unit.client.test_sync import KEY, TOKEN, FakeChannel, in_the_middle, interrupted_after, until


@contextlib.contextmanager
def at_rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client whose first question is answered, and of which nobody holds the baton."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        until(lambda: not loop_of(client)._baton)
        yield client


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with at_rest(monkeypatch) as client:
        yield client


def loop_of(client: Client) -> Any:
    assert client._loop is not None
    return client._loop


def in_a_thread(what: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(what())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def result_of(what: Callable[[], Any]) -> Any:
    thread, results = in_a_thread(what)
    thread.join(10)
    assert results, "it never ended"
    return results[0]


def throw(thread: threading.Thread, error: type[BaseException]) -> None:
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)) == 1


def has_sent(enough: int) -> bool:
    return len(FakeChannel.made.ops) >= enough


def senders(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Who sends, from here on."""
    found: list[threading.Thread] = []
    publish = FakeChannel.publish

    def noted(self: FakeChannel, sent: list[tuple[str, bytes]]) -> None:
        found.append(threading.current_thread())
        publish(self, sent)

    monkeypatch.setattr(FakeChannel, "publish", noted)
    return found


def test_a_caller_that_is_alone_sends_and_listens_itself(client, monkeypatch):
    who = senders(client, monkeypatch)
    thread, results = in_a_thread(lambda: [client.put("a", b"x") for _ in range(5)])
    thread.join(5)
    assert len(results[0]) == 5
    assert set(who) == {thread}


def test_the_main_thread_never_does_the_work(client, monkeypatch):
    who = senders(client, monkeypatch)
    client.put("a", b"x")
    assert set(who) == {loop_of(client)}, "a signal handler could strike in the middle of it"


def test_who_comes_while_another_does_the_work_is_served_with_it(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: op == PutKey("slow", b"x")
    slow, slow_result = in_a_thread(lambda: client.put("slow", b"x"))
    until(lambda: channel.open)
    assert loop_of(client)._baton[_HELD].thread == slow.ident
    assert result_of(lambda: client.put("quick", b"x")) > 0
    assert client.put("main", b"x") > 0
    channel.reply(wire.Answer(channel.open[0].id, commands.Done(7, True)))
    slow.join(5)
    assert slow_result == [7]


class Swallowing(FakeChannel):
    """A Redis behind the address "dead" answers nothing, not even that it is not there."""

    tried = threading.Event()
    ends = threading.Event()

    def __init__(self, url: str) -> None:
        before = getattr(FakeChannel, "made", None)
        super().__init__(url)
        self.url = url
        if "dead" in url and before is not None:
            FakeChannel.made = before

    def connect(self, channels: list[str]) -> None:
        if "dead" in self.url:
            self.tried.set()
            self.ends.wait(20)
            raise ChannelError("timed out")
        super().connect(channels)


@pytest.fixture
def swallowing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Swallowing]]:
    Swallowing.tried.clear()
    Swallowing.ends.clear()
    monkeypatch.setattr(links, "new_channel", Swallowing)
    yield Swallowing
    Swallowing.ends.set()


def ask_the_dead(client: Client) -> Any:
    def flow(core: Core) -> Flow:
        core.routing.addresses["node3"] = "redis://dead"
        until_us = client.clock() + 600_000
        return (yield core.ask_node("node3", lambda n: wire.StatusRequest(n, "default"), client.clock(), until_us))

    return client.answer(Ask(flow))


def test_a_redis_that_swallows_what_it_is_sent_holds_up_nobody(client, swallowing):
    asking, answers = in_a_thread(lambda: ask_the_dead(client))
    assert swallowing.tried.wait(5)
    assert client.put("a", b"x") > 0
    assert result_of(lambda: client.put("b", b"x")) > 0
    asking.join(5)
    assert isinstance(answers[0], Unavailable), "its time is up when it said so, whatever connects"


def test_a_client_whose_redis_swallows_what_it_is_sent_is_told_in_time_and_may_close(swallowing):
    with Client("redis://dead", str(TOKEN), timeout=0.1) as client:
        with pytest.raises(Unavailable):
            client.put("a", b"")
        assert isinstance(result_of(lambda: client.put("a", b"")), Unavailable)
        loop = loop_of(client)
    assert not loop.is_alive()
    assert not swallowing.ends.is_set()


def test_what_is_connected_after_the_end_is_closed(monkeypatch):
    may_connect, connected = threading.Event(), threading.Event()

    class Late(FakeChannel):
        def connect(self, channels: list[str]) -> None:
            may_connect.wait(10)
            super().connect(channels)
            connected.set()

    monkeypatch.setattr(links, "new_channel", Late)
    client = Client("redis://nowhere", str(TOKEN), timeout=0.1)
    with pytest.raises(Unavailable):
        client.put("a", b"")
    client.close()
    may_connect.set()
    assert connected.wait(5)
    until(lambda: not FakeChannel.made.connected)


def test_a_connection_that_fails_by_a_defect_is_tried_again_after_a_pause(monkeypatch, caplog):
    tries: list[str] = []

    class Odd(FakeChannel):
        def connect(self, channels: list[str]) -> None:
            tries.append(channels[0])
            raise UnicodeError("label empty or too long")

    monkeypatch.setattr(links, "new_channel", Odd)
    with Client("redis://nowhere", str(TOKEN), timeout=0.3) as client:
        with pytest.raises(Unavailable, match="could not connect: UnicodeError"):
            client.put("a", b"")
        with pytest.raises(Unavailable, match="could not connect: UnicodeError"):
            raise result_of(lambda: client.put("a", b""))
    assert 1 < len(tries) < 40
    assert "cut off" not in caplog.text


def test_where_no_thread_can_be_started_there_is_no_connection(monkeypatch):
    class Without(threading.Thread):
        def start(self) -> None:
            if self.name == "conclave-connect":
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=1) as client:  # The pause between two tries grows to 0.75 s.
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", Without)
            with pytest.raises(Unavailable, match="can't start new thread"):
                client.put("a", b"")
        assert client.put("a", b"") > 0


def test_an_interrupt_where_a_connection_is_begun_leaves_none_that_nobody_makes(client, monkeypatch):
    class Struck(threading.Thread):
        def start(self) -> None:
            if self.name == "conclave-connect":
                raise KeyboardInterrupt
            super().start()

    loop_of(client).work.links.begin_anew(client.clock())  # Nobody is at work, and there is no connection now.
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Struck)
        assert isinstance(result_of(lambda: client.put("a", b"")), KeyboardInterrupt)
    assert client.put("a", b"") > 0


def test_a_defect_that_strikes_each_turn_makes_no_tight_circle(client, monkeypatch, caplog):
    loop = loop_of(client)
    struck: list[float] = []
    fail, failed = loop._fail, []

    def publish(channel: FakeChannel, sent: list[tuple[str, bytes]]) -> None:
        struck.append(time.monotonic())
        raise ValueError("planted")

    def see_fail(error: BaseException) -> None:
        fail(error)
        failed.append(error)

    with monkeypatch.context() as patch:
        patch.setattr(FakeChannel, "publish", publish)
        patch.setattr(loop, "_fail", see_fail)
        with pytest.raises(Unavailable, match="a defect in the client"):
            client.put("a", b"")
        until(lambda: len(failed) > 4)  # And it rests for 160 ms: what is asked now is not failed with the fifth.
    assert struck[4] - struck[0] > 0.14, "10, 20, 40, 80 ms"
    assert client.put("b", b"") > 0


def test_what_is_open_when_the_driver_has_its_own_answer_goes_on(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, PutKey)
    first, first_result = in_a_thread(lambda: client.put("first", b"x"))
    until(lambda: len(channel.open) == 1)
    second, second_result = in_a_thread(lambda: client.put("second", b"x"))
    until(lambda: len(channel.open) == 2)
    channel.reply(wire.Answer(channel.open[0].id, commands.Done(7, True)))
    first.join(5)
    channel.reply(wire.Answer(channel.open[1].id, commands.Done(8, True)))
    second.join(5)
    assert (first_result, second_result) == ([7], [8])


def test_a_session_that_a_caller_opened_is_renewed_while_nobody_asks(client):
    """The loop's thread slept while the caller opened it, and knows nothing of it."""
    assert result_of(lambda: client.acquire("deploy", ttl=2)).held
    session = loop_of(client).core.sessions[2_000]
    valid_until_us = session.valid_until_us
    until(lambda: session.valid_until_us > valid_until_us)


def test_an_interrupt_in_the_drivers_sleep_takes_the_waiter_out_of_the_line(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, AcquireLock)
    thread, results = in_a_thread(lambda: client.acquire("deploy"))
    until(lambda: channel.open)
    assert loop_of(client)._baton[_HELD].thread == thread.ident
    throw(thread, KeyboardInterrupt)
    channel.reply(wire.Answer(channel.open[0].id, Queued(1)))  # Ends the sleep, so that the interrupt strikes.
    thread.join(5)
    assert isinstance(results[0], KeyboardInterrupt)
    until(lambda: any(isinstance(op, CancelAcquire) for op in channel.ops))
    assert result_of(lambda: client.put("a", b"")) > 0


@pytest.mark.interpreted
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_interrupt_in_the_middle_of_the_work_fails_what_was_asked_and_the_client_goes_on(client, error, caplog):
    """Thrown where the answer is half taken in: who else waits is told, and nothing hangs."""
    channel = FakeChannel.made
    loop = loop_of(client)
    channel.holds_back = lambda op: isinstance(op, PutKey)
    driver, driver_result = in_a_thread(lambda: client.put("a", b"x"))
    until(lambda: len(channel.open) == 1)
    other, other_result = in_a_thread(lambda: client.put("b", b"x"))
    until(lambda: len(channel.open) == 2)
    outstanding = loop.core._outstanding
    resolve = outstanding.resolve

    def cut_off(request_id: int, outcome: object) -> None:
        outstanding.resolve = resolve
        outstanding.calls.pop(request_id)
        raise error

    outstanding.resolve = cut_off
    channel.reply(wire.Answer(channel.open[1].id, commands.Done(7, True)))
    for thread in (driver, other):
        thread.join(5)
    assert isinstance(driver_result[0], KeyboardInterrupt if error is KeyboardInterrupt else Unavailable)
    assert isinstance(other_result[0], Unavailable)
    channel.holds_back = lambda op: False
    assert result_of(lambda: client.put("c", b"")) > 0
    session = next(iter(loop.core.sessions.values()))
    assert session.acked == session._next_number, "no number stays open for good"


@pytest.mark.parametrize("twice", [False, True])
def test_a_grant_whose_taker_was_interrupted_on_the_way_out_goes_back(client, monkeypatch, twice):
    """History 9, where the caller itself took in its grant. `twice`: another error strikes before it has said so."""
    loop = loop_of(client)
    work, drive = loop.work, loop._drive

    class CutOff:
        """The work, but that an error strikes when the rest is left to others."""

        def __getattr__(self, name: str) -> Any:
            return getattr(work, name)

        def leave_the_rest(self) -> None:
            loop.work = work
            work.leave_the_rest()
            raise KeyboardInterrupt

    def drives(job: Job) -> None:
        loop.work, loop._drive = CutOff(), drive
        drive(job)

    monkeypatch.setattr(loop, "_drive", drives)
    if twice:
        monkeypatch.setattr(loop, "post", lambda job, error: None)
    assert isinstance(result_of(lambda: client.acquire("deploy")), KeyboardInterrupt)
    until(lambda: any(isinstance(op, ReleaseLock) for op in FakeChannel.made.ops))


def test_who_asks_from_within_the_clients_own_work_does_not_wait_for_itself(client):
    """A finaliser that lets go of a lock runs wherever the collector comes by."""
    inner: list[Any] = []

    def finaliser() -> None:
        try:
            client.put("inner", b"x")
        except OutcomeUnknown as error:
            inner.append(error)

    def work() -> int:
        in_the_middle(FakeChannel.made, finaliser)
        return client.put("outer", b"x")

    assert result_of(work) > 0
    assert len(inner) == 1
    until(lambda: PutKey("inner", b"x") in FakeChannel.made.ops)


def test_a_signal_handler_may_ask_while_the_main_thread_waits(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: op == PutKey("slow", b"x")
    found: list[int] = []

    def handler(number: int, frame: object) -> None:
        found.append(client.put("handler", b"x"))
        channel.reply(wire.Answer(channel.open[0].id, commands.Done(7, True)))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert client.put("slow", b"x") == 7
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(found) == 1


def test_interrupts_at_any_moment_leave_a_client_that_goes_on(client):
    """Thrown into callers wherever they are: none hangs, and what is asked afterwards is answered."""
    dice = random.Random(7)
    for _ in range(60):
        enough = len(FakeChannel.made.ops) + dice.randrange(1, 80)
        thread, results = in_a_thread(lambda: [client.acquire(f"lock-{n}").release() for n in range(200)])
        other, other_results = in_a_thread(lambda: client.put("other", b"x"))
        until(partial(has_sent, enough))
        if thread.is_alive():
            throw(thread, KeyboardInterrupt)
        for each in (thread, other):
            each.join(10)
            assert not each.is_alive()
        assert results
        assert other_results
    assert result_of(lambda: client.put("a", b"")) > 0
    assert client.put("b", b"") > 0


def test_a_soft_time_limit_leaves_a_client_that_goes_on(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, PutKey)
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.1):
        client.put("slow", b"x")
    channel.holds_back = lambda op: False
    assert client.put("a", b"") > 0
    assert result_of(lambda: client.put("b", b"")) > 0


def calls_of(loop: Any, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """How often the loop's own thread is called from here on, which has nothing to look after by itself."""
    called: list[None] = []
    call = loop._call

    def noted() -> None:
        called.append(None)
        call()

    monkeypatch.setattr(loop, "_call", noted)
    loop.work.looks_us = 0
    return called


class Keeping(FakeChannel):
    """Its leader lets clients keep what they read."""

    def _answer(self, request: wire.Request) -> wire.Reply | None:
        if isinstance(request, wire.CachedQueryRequest):
            return wire.CachedAnswer(request.id, KEY, 5, 1, 0, 2_000)
        if isinstance(request, (wire.DroppedRequest, wire.RenewCacheRequest)):
            return None
        return super()._answer(request)


def test_the_loops_own_thread_listens_while_a_caller_keeps_what_it_read(monkeypatch):
    """The word to drop it may come at any moment, and a change waits for the answer."""
    monkeypatch.setattr(links, "new_channel", Keeping)
    with Client("redis://nowhere", str(TOKEN), timeout=5, cache=True) as client:
        client.put("first", b"")
        loop = loop_of(client)
        until(lambda: not loop._baton)
        called = calls_of(loop, monkeypatch)
        assert result_of(lambda: client.get("a")) == KEY.value
        assert called
        channel = FakeChannel.made
        channel.reply(wire.Invalidation(42, 77, 5, 1, 1, ("a",), False))
        until(lambda: any(isinstance(request, wire.DroppedRequest) for sent in channel.packets for request in sent))


def test_the_loops_own_thread_listens_while_something_goes_on_in_the_background(client, monkeypatch):
    channel, loop = FakeChannel.made, loop_of(client)
    channel.holds_back = lambda op: isinstance(op, CancelAcquire)
    session = loop.core.sessions[15_000]

    def flow() -> Flow:
        loop.core.withdraw(session, "a", 1, 1, client.clock())
        return
        yield

    called = calls_of(loop, monkeypatch)
    result_of(lambda: loop.ask(Job(loop, flow(), None)))
    assert called
