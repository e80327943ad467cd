"""The baton of the client for threads: who has it, and what becomes of it where an error strikes as it is put down."""

from __future__ import annotations

import dis
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator import wire
from coordinator.client.asking import Ask
from coordinator.client.jobs import Job
from coordinator.client.loop import _HELD, Loop
from coordinator.client.sync import Client
from coordinator.statemachine import commands
from coordinator.statemachine.commands import CloseSession, PutKey
from tests.unit.client.test_loop import at_rest, in_a_thread, loop_of, result_of, throw
from tests.unit.client.test_sync import TOKEN, FakeChannel, in_the_middle, until

DONE = commands.Done(7, True)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with at_rest(monkeypatch) as client:
        yield client


class Baton(dict[str, Any]):
    """Once, an error strikes the thread `whose` where it is about to put it down."""

    whose = 0

    def __delitem__(self, key: str) -> None:
        if threading.get_ident() == self.whose:
            self.whose = 0
            raise KeyboardInterrupt
        super().__delitem__(key)

    def lose(self, ask: Callable[[], Any]) -> None:
        """Ask on this thread, and lose the baton."""
        self.whose = threading.get_ident()
        with pytest.raises(KeyboardInterrupt):
            ask()
        assert _HELD in self


def baton_of(client: Client) -> Baton:
    loop = loop_of(client)
    loop._baton = Baton()
    return loop._baton


def nothing(core: Any) -> Any:
    return
    yield


def test_who_lost_it_may_ask_again(client):
    baton = baton_of(client)

    def lose_and_ask() -> int:
        baton.lose(lambda: client.put("lost", b""))
        return client.put("a", b"")

    assert result_of(lose_and_ask) > 0


def test_it_is_taken_up_while_who_lost_it_does_something_else(client):
    baton = baton_of(client)
    lost, may_end = threading.Event(), threading.Event()

    def lose() -> None:
        baton.lose(lambda: client.put("lost", b""))
        lost.set()
        may_end.wait(10)

    thread, _ = in_a_thread(lose)
    assert lost.wait(5)
    assert result_of(lambda: client.put("a", b"")) > 0
    assert client.put("b", b"") > 0
    may_end.set()
    thread.join(5)


def test_it_is_taken_up_while_who_lost_it_asks_another_client(client):
    baton = baton_of(client)
    with Client("redis://nowhere", str(TOKEN), timeout=30) as another:
        another.put("first", b"")
        channel = FakeChannel.made
        channel.holds_back = lambda op: isinstance(op, PutKey)

        def lose_and_ask_another() -> int:
            baton.lose(lambda: client.put("lost", b""))
            return another.put("slow", b"")

        thread, result = in_a_thread(lose_and_ask_another)
        until(lambda: channel.open)
        assert result_of(lambda: client.put("a", b"")) > 0
        assert not result
        channel.reply(wire.Answer(channel.open[0].id, DONE))
        thread.join(5)
        assert result == [7]


def test_it_is_taken_up_where_a_finaliser_lost_it_and_the_caller_below_sleeps(client):
    loop, baton = loop_of(client), baton_of(client)
    hand_over = loop._hand_over

    def collected(job: Job) -> int:
        loop._hand_over = hand_over
        loop.work.crowd.until_us = 0
        baton.lose(lambda: client.put("inner", b""))
        return hand_over(job)

    def ask() -> int:
        loop._hand_over = collected
        loop.work.crowd.until_us = 1 << 62
        return client.put("outer", b"")

    assert result_of(ask) > 0


def test_it_is_not_taken_from_one_that_holds_it(client):
    channel, loop = FakeChannel.made, loop_of(client)
    channel.holds_back = lambda op: isinstance(op, PutKey)
    thread, result = in_a_thread(lambda: client.put("slow", b""))
    until(lambda: channel.open and loop.work.asleep)
    assert loop._baton[_HELD].thread == thread.ident
    assert not loop._take_lost_baton()
    channel.reply(wire.Answer(channel.open[0].id, DONE))
    thread.join(5)
    assert result == [7]


def test_nobody_looks_where_other_threads_are(client, monkeypatch):
    """CPython before 3.11.6 may stop for ever in `sys._current_frames` (its issue 106883), and once gave something else
    for the caller of such a frame."""

    def look() -> Any:
        raise AssertionError("it looked")

    monkeypatch.setattr(sys, "_current_frames", look)
    with Client("redis://nowhere", str(TOKEN), timeout=30) as another:
        assert another.put("first", b"") > 0
    baton = baton_of(client)

    def lose() -> None:
        baton.lose(lambda: client.put("lost", b""))

    thread, _ = in_a_thread(lose)
    thread.join(5)
    assert result_of(lambda: client.put("a", b"")) > 0
    assert loop_of(client).is_alive()


def test_nothing_is_called_between_the_look_who_has_it_and_the_putting_down():
    """CPython looks for what was thrown into a thread behind a call, where a function begins and where a loop turns."""
    steps = list(dis.get_instructions(Loop.ask))
    ends = [place for place, step in enumerate(steps) if step.opname == "DELETE_SUBSCR"]
    assert len(ends) >= 2, "one for what goes well, and one for what is thrown"
    for end in ends:
        begin = max(place for place, step in enumerate(steps[:end]) if step.opname == "CONTAINS_OP")
        between = [step.opname for step in steps[begin:end]]
        assert not [name for name in between if name.startswith(("CALL", "PRECALL", "RESUME", "JUMP_BACKWARD", "SEND"))]


def test_an_interrupt_in_the_drivers_sleep_fails_nobody_else_though_somebody_has_rung(client, caplog):
    channel, loop = FakeChannel.made, loop_of(client)
    channel.holds_back = lambda op: isinstance(op, PutKey)
    driver, driver_result = in_a_thread(lambda: client.put("a", b""))
    until(lambda: len(channel.open) == 1)
    other, other_result = in_a_thread(lambda: client.put("b", b""))
    until(lambda: len(channel.open) == 2 and loop.work.asleep)
    assert loop._baton[_HELD].thread == driver.ident
    throw(driver, KeyboardInterrupt)
    client.spawn(Ask(nothing))
    driver.join(5)
    assert isinstance(driver_result[0], KeyboardInterrupt)
    channel.reply(wire.Answer(channel.open[1].id, DONE))
    other.join(5)
    assert other_result == [7]
    assert "cut off" not in caplog.text


def test_a_client_that_is_closed_within_its_own_work_ends_its_sessions_afterwards(client):
    """By a finaliser, or a log handler."""
    channel, loop = FakeChannel.made, loop_of(client)
    client.acquire("deploy")
    errors: list[BaseException] = []

    def finaliser() -> None:
        try:
            client.close()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    in_the_middle(channel, finaliser)
    assert client.put("a", b"") > 0
    loop.join(5)
    assert not loop.is_alive()
    assert errors == []
    assert any(isinstance(op, CloseSession) for op in channel.ops)


def test_a_client_that_its_driver_closes_in_the_middle_of_the_work_ends_its_sessions_afterwards(client):
    channel, loop = FakeChannel.made, loop_of(client)
    client.acquire("deploy")
    until(lambda: not loop._baton)

    def ask() -> int:
        in_the_middle(channel, client.close)
        return client.put("a", b"")

    assert result_of(ask) > 0
    loop.join(5)
    assert not loop.is_alive()
    assert any(isinstance(op, CloseSession) for op in channel.ops)


@pytest.mark.parametrize("was_used", [True, False])
def test_who_asks_as_the_interpreter_ends_is_refused_at_once(was_used):
    """A finaliser of something that lives as long as the program."""
    program = f"""
        from time import monotonic
        from coordinator.client import Client, Unavailable, links
        from tests.unit.client.test_sync import TOKEN, FakeChannel

        links.new_channel = FakeChannel
        client = Client("redis://nowhere", str(TOKEN), timeout=30)
        if {was_used}:
            client.put("first", b"")

        class Owner:
            def __init__(self):
                self.client, self.now, self.refused, self.tell = client, monotonic, Unavailable, print

            def __del__(self):
                since = self.now()
                try:
                    self.client.put("last", b"")
                except self.refused as error:
                    self.tell(type(error).__name__, self.now() - since < 1.0)

        owner = Owner()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["Closed", "True"], ended.stderr
