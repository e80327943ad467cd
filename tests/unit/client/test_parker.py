"""A place to sleep: in Python, and in C as `make compile` makes it. Both are to be the same."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator import compiled, compiling
from coordinator.client import parker
from coordinator.client.parker import NO_BELL, PlainParker, PlainPoll
from tests.native import native_module

NAME = "coordinator.client._parker"
LONG_S = 30.0


class Struck(Exception):
    pass


def strike(*_: object) -> None:
    raise Struck


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return native_module(NAME, tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def native(module: Any) -> Any:
    return module.Parker


@pytest.fixture(params=["plain", "native"])
def make(request: pytest.FixtureRequest) -> Callable[[], PlainParker]:
    return PlainParker if request.param == "plain" else request.getfixturevalue("native")


def asleep(one: PlainParker, *wakes: Any) -> tuple[threading.Thread, list[bool]]:
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(one.park(LONG_S, *wakes)), daemon=True)
    thread.start()
    return thread, said


def test_a_sleeper_is_woken(make):
    one = make()
    assert not one.is_unparked
    thread, said = asleep(one)
    assert thread.is_alive()
    one.unpark()
    thread.join(LONG_S)
    assert said == [True]
    assert one.is_unparked


def test_who_was_woken_before_does_not_sleep_and_is_awake_for_good(make):
    one = make()
    one.unpark()
    one.unpark()
    assert one.park(LONG_S)
    assert one.park(LONG_S)
    one.unpark()
    assert one.park(0.0)


def test_the_time_is_up(make):
    one, began = make(), time.monotonic()
    assert one.park(0.05) is False
    assert time.monotonic() - began >= 0.05
    assert one.park(0.0) is False
    assert not one.is_unparked
    one.unpark()
    assert one.park(0.0)


def test_each_wakes_the_next_as_it_falls_asleep(make):
    first, second, third = make(), make(), make()
    third_thread, third_said = asleep(third)
    second_thread, second_said = asleep(second, third)
    third_thread.join(LONG_S)
    assert third_said == [True]
    assert second_thread.is_alive()
    assert first.park(0.0, second) is False, "it sleeps for no time, and wakes the other all the same"
    second_thread.join(LONG_S)
    assert second_said == [True]
    assert first.park(0.0, third) is False, "one that is awake is woken once more, which is nothing"
    assert first.park(0.0, None) is False


def test_a_crowd_that_hands_a_turn_on(make):
    """Nobody is woken too early or left asleep, however they meet."""
    count, rounds = 8, 300
    turns = [[make() for _ in range(count)] for _ in range(rounds)]
    order: list[tuple[int, int]] = []

    def take_turns(number: int) -> None:
        for turn in range(rounds):
            last = turns[turn - 1][number + 1] if turn and number + 1 < count else None
            before = turns[turn][0] if turn and number + 1 == count else last
            assert turns[turn][number].park(LONG_S, before)
            order.append((turn, number))
        if number + 1 < count:
            turns[-1][number + 1].unpark()

    threads = [threading.Thread(target=take_turns, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    turns[0][0].unpark()
    for thread in threads:
        thread.join(LONG_S)
    assert order == [(turn, number) for turn in range(rounds) for number in range(count)]


def test_what_a_signals_handler_raises_ends_the_sleep_and_the_next_is_awake(make):
    one, next_one = make(), make()
    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Struck):
            one.park(LONG_S, next_one)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert next_one.park(0.0)
    one.unpark()
    assert one.park(LONG_S)


def test_a_signal_whose_handler_returns_neither_ends_the_sleep_nor_lengthens_it(make):
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    one, began = make(), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        assert one.park(0.2) is False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began >= 0.2
    assert seen


def test_who_falls_asleep_rings(make):
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        one = make()
        one.unpark()
        assert one.park(0.0, None, NO_BELL)
        with pytest.raises(BlockingIOError):
            os.read(reader, 16)
        thread, said = asleep(make(), one, writer)
        assert select.select([reader], [], [], LONG_S)[0]
        assert os.read(reader, 16) == b"\0"
        assert thread.is_alive()
        assert not said
        assert not make().park(0.0, None, writer), "who does not sleep for long does, too"
        assert os.read(reader, 16) == b"\0"
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4_096))
        assert not make().park(0.0, None, writer), "a full one is heard anyway"
    finally:
        os.close(reader)
        os.close(writer)
    assert not make().park(0.0, None, writer), "nobody is there"


@pytest.fixture(params=["plain", "native"])
def kinds(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    if request.param == "plain":
        return PlainParker, PlainPoll
    made = request.getfixturevalue("module")
    return made.Parker, made.Poll


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    """Reader, writer, another reader, another writer."""
    made = [*os.pipe2(os.O_NONBLOCK), *os.pipe2(os.O_NONBLOCK)]
    yield made
    for descriptor in made:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_what_comes_ends_the_wait_and_is_told(kinds, pipes):
    poll = kinds[1]({pipes[0]: select.POLLIN, pipes[2]: select.POLLIN})
    assert poll.wait(0) == []
    os.write(pipes[3], b"a")
    assert poll.wait(int(LONG_S * 1e3)) == [(pipes[2], select.POLLIN)]
    os.write(pipes[1], b"a")
    assert sorted(poll.wait(0)) == sorted([(pipes[0], select.POLLIN), (pipes[2], select.POLLIN)])
    os.read(pipes[2], 1)
    assert poll.wait(0, None) == [(pipes[0], select.POLLIN)]
    os.read(pipes[0], 1)
    os.close(pipes[1])
    assert poll.wait(0) == [(pipes[0], select.POLLHUP)]
    os.close(pipes[0])
    assert poll.wait(0) == [(pipes[0], select.POLLNVAL)]
    assert kinds[1]({pipes[3]: select.POLLIN | select.POLLOUT}).wait(0) == [(pipes[3], select.POLLOUT)]
    assert kinds[1]({}).wait(1) == []


def test_it_waits_as_long_as_it_was_told(kinds, pipes):
    began = time.monotonic()
    assert kinds[1]({pipes[0]: select.POLLIN}).wait(50) == []
    assert time.monotonic() - began >= 0.05


def test_who_waits_for_descriptors_wakes_one_as_it_falls_asleep(kinds, pipes):
    one = kinds[0]()
    thread, said = asleep(one)
    poll = kinds[1]({pipes[0]: select.POLLIN})
    assert poll.wait(0, one) == []
    thread.join(LONG_S)
    assert said == [True]
    assert poll.wait(0, one) == [], "who is awake is not woken again"


def test_a_signal_while_it_waits_for_descriptors(kinds, pipes):
    """A handler that returns neither ends nor lengthens the wait; what one raises is raised, and whom it was to wake is
    awake."""
    poll, one = kinds[1]({pipes[0]: select.POLLIN}), kinds[0]()
    before = signal.signal(signal.SIGALRM, lambda number, _: None)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        assert poll.wait(200) == []
        assert time.monotonic() - began >= 0.2
        signal.signal(signal.SIGALRM, strike)
        with pytest.raises(Struck):
            poll.wait(int(LONG_S * 1e3), one)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert one.park(0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ((), TypeError, "expected a timeout"),
        ((1, None, None), TypeError, "expected a timeout"),
        (("soon",), TypeError, "integer"),
        ((-1,), ValueError, "0 to 2147483647; got -1"),
        ((2**31,), ValueError, "0 to 2147483647; got 2147483648"),
        ((0, "another"), TypeError, "expected a Parker to wake; got 'another'"),
        ((0, PlainParker()), TypeError, "expected a Parker to wake"),
    ],
)
def test_what_a_native_poll_cannot_take_is_said(module, arguments, error, what):
    with pytest.raises(error, match=what):
        module.Poll({}).wait(*arguments)


@pytest.mark.parametrize("arguments", [(), ([],), ({"a": 1},), ({1: "a"},), ({}, {})])
def test_what_a_native_poll_is_not_made_of_is_said(module, arguments):
    with pytest.raises(TypeError):
        module.Poll(*arguments)
    with pytest.raises(TypeError):
        module.Poll(events={})


def test_it_goes_when_nobody_has_it(native):
    """Asleep or awake: a lock that is held must not be freed, and none may be left."""
    for is_woken in (False, True):
        one = native()
        if is_woken:
            one.unpark()
            one.park(0.0)
        del one
    with pytest.raises(TypeError, match="weak reference"):
        weakref.ref(native())


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ((), TypeError, "expected a timeout"),
        ((1.0, None, -1, None), TypeError, "expected a timeout"),
        ((1.0, None, "door"), TypeError, "integer"),
        (("soon",), TypeError, "real number"),
        ((-1.0,), ValueError, "at least 0 seconds; got -1.0"),
        ((math.nan,), ValueError, "at least 0 seconds; got nan"),
        ((0.0, "another"), TypeError, "expected a Parker to wake; got 'another'"),
        ((0.0, PlainParker()), TypeError, "expected a Parker to wake"),
    ],
)
def test_what_the_native_one_cannot_take_is_said(native, arguments, error, what):
    with pytest.raises(error, match=what):
        native().park(*arguments)
    with pytest.raises(TypeError, match="no arguments"):
        native(1)


def test_for_ever_is_a_long_time(native):
    one = native()
    one.unpark()
    assert one.park(math.inf)


def test_the_native_one_is_used_where_it_was_made_of_this_source(native, monkeypatch, tmp_path):
    made = tmp_path / "native"
    monkeypatch.setattr(compiled, "EXTENSIONS", made)
    monkeypatch.setattr(compiled.extension, "__defaults__", (made,))
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    assert parker.load() == (PlainParker, PlainPoll), "there is none"
    file = compiling.build_extension(NAME, made)
    assert not {PlainParker, PlainPoll} & {*parker.load()}
    monkeypatch.setenv(compiled.VARIABLE, "never")
    assert parker.load() == (PlainParker, PlainPoll), "as was asked"
    monkeypatch.delenv(compiled.VARIABLE)
    assert compiling.build_extension(NAME, made) == file, "it is there already"

    other = tmp_path / "other.c"
    other.write_bytes(compiled.c_source(NAME).read_bytes() + b"\n")
    monkeypatch.setattr(compiled, "c_source", lambda _name: other)
    assert parker.load() == (PlainParker, PlainPoll), "it was made of another source"
    again = compiling.build_extension(NAME, made)
    assert again != file
    assert [*made.iterdir()] == [again], "the old one goes"

    again.write_bytes(b"")
    assert parker.load() == (PlainParker, PlainPoll), "it is no library"
    monkeypatch.setattr(compiled, "c_source", lambda _name: tmp_path / "none.c")
    assert parker.load() == (PlainParker, PlainPoll), "there is no source"


def test_a_source_that_does_not_compile_is_said(native, monkeypatch, tmp_path: Path):
    broken = tmp_path / "broken.c"
    broken.write_text("this is no C\n")
    monkeypatch.setattr(compiled, "c_source", lambda _name: broken)
    with pytest.raises(compiling.CannotCompile, match="failed"):
        compiling.build_extension(NAME, tmp_path / "native")


def test_who_is_woken_twice_is_awake(make):
    """By two that can not know of each other; the second may come at any moment of its waking up."""
    one = make()
    one.unpark()
    one.unpark()
    assert one.park(LONG_S)


def test_the_second_waker_may_come_as_the_first_has_woken_it():
    one: Any = PlainParker()
    lock = one._lock

    class Between:
        def acquire(self, **wait: float) -> bool:
            taken: bool = lock.acquire(**wait)
            one.unpark()
            return taken

        def release(self) -> None:
            lock.release()

    one._lock = Between()
    one.unpark()
    assert one.park(LONG_S)


def test_descriptors_that_change_while_they_are_taken_are_refused(module):
    events: dict[int, Any] = {}

    class Grows:
        def __index__(self) -> int:
            events.update(dict.fromkeys(range(100), 0))
            return 1

    events[0] = Grows()
    with pytest.raises(RuntimeError, match="changed"):
        module.Poll(events)
