"""Callers that were answered together: each wakes the next, and what they ask next leaves as one packet; one that does
not come back holds up nobody."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import links, options
from coordinator.client.clock import now_us
from coordinator.client.crowd import RETURN_US_MAX
from coordinator.client.errors import Closed
from coordinator.client.jobs import Job
from coordinator.client.loop import Loop
from coordinator.client.parker import PlainParker
from coordinator.client.sync import Client
from coordinator.statemachine import commands
from coordinator.statemachine.commands import PutKey
from tests.unit.client.test_loop import in_a_thread, loop_of, senders
from tests.unit.client.test_sync import TOKEN, FakeChannel, until


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """One that does not run: the test does its steps."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    made = Loop(options.resolve("redis://nowhere", str(TOKEN), "default", 5))
    made._baton["held by"] = made
    yield made
    made._end_all()


def flow() -> Any:
    return
    yield


def answered(loop: Loop, count: int) -> list[Job]:
    jobs = [Job(loop, flow(), None) for _ in range(count)]
    for job in jobs:
        loop.work.end(job, 1, None)
    loop.work.crowd.wake_together(now_us())
    first = loop.work.crowd.first_to_wake()  # As it falls asleep.
    if first is not None:
        first.unpark()
    return jobs


def awake(jobs: list[Job]) -> list[bool]:
    return [job.parker.is_unparked for job in jobs]


def was_called(loop: Loop) -> bool:
    try:
        return bool(os.read(loop._wake_reader, 16))
    except BlockingIOError:
        return False


def ask_again(loop: Loop, count: int) -> None:
    loop.work.asleep = True
    for _ in range(count):
        loop.post(Job(loop, flow(), None))


def test_each_wakes_the_next(loop):
    jobs = answered(loop, 3)
    assert awake(jobs) == [True, False, False]
    assert loop.work.crowd.next_to_wake() is jobs[1].parker
    assert loop.work.crowd.next_to_wake() is jobs[2].parker
    assert loop.work.crowd.next_to_wake() is None


def test_who_comes_in_the_place_of_those_who_were_woken_leaves_no_sleeper_behind(loop):
    """What was let go of in the background, or a caller that left: they wake nobody."""
    jobs = answered(loop, 3)
    assert awake(jobs) == [True, False, False]
    ask_again(loop, 3)
    loop.work.take_posted()
    assert awake(jobs) == [True, True, True]
    assert loop.work.crowd.next_to_wake() is None


def test_who_waits_wakes_the_next_as_it_falls_asleep(loop):
    jobs = answered(loop, 3)
    jobs[0].wait()
    assert awake(jobs) == [True, True, False]
    jobs[1].wait()
    assert awake(jobs) == [True] * 3
    jobs[2].wait()


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_is_woken_as_the_loop_falls_asleep_and_not_before(loop, count):
    jobs = [Job(loop, flow(), None) for _ in range(count)]
    for job in jobs:
        loop.work.end(job, 1, None)
    loop.work.crowd.wake_together(now_us())
    assert not any(awake(jobs))
    loop.work.going_on.append(jobs[0])  # So that it looks, and does not wait.
    loop._sleep(loop.work.before_sleep(now_us()))
    assert awake(jobs) == [True] + [False] * (count - 1)


def test_the_last_to_ask_again_rings_as_it_falls_asleep(loop):
    answered(loop, 2)
    loop.work.asleep = True
    jobs = [Job(loop, flow(), None) for _ in range(2)]
    threads = [threading.Thread(target=loop.ask, args=(job,), daemon=True) for job in jobs]
    threads[0].start()
    until(lambda: loop.work.posted)
    assert not was_called(loop)
    threads[1].start()
    assert select.select([loop._wake_reader], [], [], 30)[0], "long before it would look by itself"
    assert len(loop.work.posted) == 2
    for job, thread in zip(jobs, threads, strict=True):
        loop.work.end(job, 1, None)
        job.parker.unpark()
        thread.join(30)
        assert not thread.is_alive()


def test_one_that_was_answered_alone_is_woken_and_not_waited_for(loop):
    assert awake(answered(loop, 1)) == [True]
    ask_again(loop, 1)
    assert was_called(loop)


def test_the_loop_is_woken_when_the_last_has_asked_again(loop):
    answered(loop, 3)
    ask_again(loop, 2)
    assert not was_called(loop)
    ask_again(loop, 1)
    assert was_called(loop)


def test_where_one_does_not_come_back_the_others_are_served_and_nobody_is_waited_for(loop):
    jobs = answered(loop, 4)
    ask_again(loop, 1)
    loop._sleep(loop.work.before_sleep(now_us()))
    assert loop.work.crowd.is_late
    loop.work.take_posted()
    assert awake(jobs) == [True] * 4
    more = answered(loop, 3)
    assert awake(more) == [True] * 3, "not so soon again"
    ask_again(loop, 1)
    assert was_called(loop)


def test_who_is_answered_meanwhile_does_not_put_off_those_who_sleep(loop):
    """The loop never sleeps to the end, since something comes all the time."""
    jobs = answered(loop, 3)
    late_us = loop.work.crowd.expected_until_us
    loop.work.crowd.note_returned(0, late_us - 1)
    assert awake(jobs) == [True, False, False]
    loop.work.crowd.note_returned(0, late_us)
    assert awake(jobs) == [True] * 3


def test_as_long_as_they_come_back_they_are_waited_for(loop):
    answered(loop, 3)
    before_us = loop.work.crowd.expected_until_us
    loop.work.crowd.note_returned(1, before_us - 1)
    assert (loop.work.crowd.expected, loop.work.crowd.expected_until_us) == (2, before_us - 1 + RETURN_US_MAX)


def test_a_caller_whose_waking_was_lost_looks_by_itself(loop, monkeypatch):
    monkeypatch.setattr("coordinator.client.jobs.WAKE_LOST_S", 0.01)
    jobs = answered(loop, 2)
    loop.work.crowd.to_wake.clear()  # What an error does that strikes between the taking and the waking.
    jobs[1].wait()
    assert jobs[1].outcome() == 1


def test_closing_wakes_everybody(loop):
    jobs = answered(loop, 3)
    loop.work.fail_all(Closed())
    assert awake(jobs) == [True] * 3


def test_in_a_crowd_no_caller_takes_the_work_from_the_loops_own_thread(monkeypatch):
    """It would keep it: the loop's thread has to be woken first, and the caller is awake when it asks again."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        loop = loop_of(client)
        until(lambda: not loop._baton)
        who = senders(client, monkeypatch)
        loop.work.crowd.until_us = 1 << 62
        thread, results = in_a_thread(lambda: [client.put("a", b"x") for _ in range(5)])
        thread.join(5)
        assert len(results[0]) == 5
        assert set(who) == {loop}


def test_who_was_answered_together_asks_again_in_one_packet_and_the_absent_hold_up_nobody(monkeypatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        channel = FakeChannel.made
        channel.holds_back = lambda op: isinstance(op, PutKey)
        away = threading.Event()

        def caller(name: str, *, leaves: bool) -> list[int]:
            done = [client.put(f"{name}-1", b"x")]
            if leaves:
                away.wait(10)
            return [*done, client.put(f"{name}-2", b"x")]

        threads = [in_a_thread(partial(caller, f"k{n}", leaves=n == 0)) for n in range(4)]
        until(lambda: len(channel.open) == 4)
        first = channel.open[:]
        channel.holds_back = lambda op: False
        channel.reply(*(wire.Answer(request.id, commands.Done(7, True)) for request in first))
        for thread, results in threads[1:]:
            thread.join(5)
            assert len(results[0]) == 2
        assert not threads[0][1]
        away.set()
        threads[0][0].join(5)
        assert len(threads[0][1][0]) == 2
        until(lambda: not loop_of(client).work.crowd.to_wake)


def test_whose_time_was_found_to_be_up_at_the_sending_goes_on_at_once(loop, monkeypatch):
    """Not when something comes next, which may be a second later."""

    class Poll:
        def wait(self, timeout_ms: int, wakes: PlainParker | None = None) -> list[tuple[int, int]]:
            waited.append(timeout_ms)
            return []

    waited: list[int] = []
    loop.work.links.to_connect(0)  # Somebody does.
    waits = loop.core.pause(now_us() - 1)
    job = Job(loop, flow(), None)
    waits.when_done(job.answered)
    loop.work.links.send(now_us())
    monkeypatch.setattr(loop.work, "poll", Poll())
    loop._sleep(loop.work.before_sleep(now_us()))
    assert waited == [0]
    loop.work.go_on()
    loop._sleep(loop.work.before_sleep(now_us()))
    assert waited[-1] > 0
