"""Callers at the end of their stack, or of the memory: who asks gets an answer or an error, no lock is left to nobody,
and others notice nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator.client import stack
from coordinator.client.errors import Unavailable
from coordinator.client.jobs import Job
from coordinator.client.sync import Client
from coordinator.statemachine.commands import PutKey
from tests.unit.client.test_interrupts import kept
from tests.unit.client.test_loop import at_rest, in_a_thread, loop_of, result_of
from tests.unit.client.test_sync import FakeChannel, until

LEVELS = range(5, 2 * stack.WORK_LEVELS)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with at_rest(monkeypatch) as client:
        yield client


def with_levels_left(left: int, work: Callable[[], Any]) -> Any:
    """Do it where the stack has room for so many frames of Python."""
    frame, depth = sys._getframe(), 1
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels > 0 else work()

    return deeper(sys.getrecursionlimit() - depth - left)


def at_each_level(work: Callable[[], Any]) -> list[BaseException]:
    errors: list[BaseException] = []
    for left in LEVELS:
        try:
            with_levels_left(left, work)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)
    return errors


def take_and_release(client: Client) -> None:
    client.acquire("deploy").release()


def lock(client: Client) -> None:
    with client.lock("deploy"):
        pass


def hold(client: Client) -> None:
    with client.locks.hold("deploy"):
        pass


@pytest.mark.parametrize("work", [lambda client: client.get("a"), take_and_release, lock, hold])
def test_at_no_depth_of_its_stack_does_a_caller_leave_anything_half_done(client, caplog, work):
    errors = result_of(lambda: at_each_level(lambda: work(client)))
    assert errors
    assert {type(error) for error in errors} == {RecursionError}
    assert "cut off" not in caplog.text
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept() and not loop_of(client).work.running)


def test_a_caller_with_little_room_leaves_the_work_to_the_clients_thread(client):
    workers: list[bool] = []
    drive = loop_of(client)._drive

    def drives(job: Job) -> None:
        workers.append(True)
        drive(job)

    loop_of(client)._drive = drives
    assert result_of(lambda: with_levels_left(stack.WORK_LEVELS - 10, lambda: client.put("a", b""))) > 0
    assert not workers
    until(lambda: not loop_of(client)._baton)
    loop_of(client).work.crowd.until_us = 0
    assert result_of(lambda: client.put("a", b"")) > 0
    assert workers


def test_what_a_caller_can_not_clean_up_the_clients_thread_does(client, monkeypatch):
    """It lacked the stack, or the memory, to begin anew: who had asked beside it slept for ever."""
    loop = loop_of(client)
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, PutKey)
    fail = loop._fail

    def can_not(error: BaseException) -> None:
        loop._fail = fail
        raise MemoryError

    loop._fail = can_not
    driver, driver_result = in_a_thread(lambda: client.put("a", b""))
    until(lambda: len(channel.open) == 1)
    channel.breaks = True
    other, other_result = in_a_thread(lambda: client.put("b", b""))
    for thread in (driver, other):
        thread.join(5)
    assert isinstance(driver_result[0], MemoryError)
    assert isinstance(other_result[0], Unavailable)
    channel = FakeChannel.made
    channel.holds_back = lambda op: False
    assert result_of(lambda: client.put("c", b"")) > 0
