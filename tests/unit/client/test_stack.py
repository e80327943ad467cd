"""Callers at the end of their stack, or of the memory: who asks gets an answer or an error, no lock is left to nobody,
and others notice nothing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from coordinator.channel import BackOff
from coordinator.client import hands, stack
from coordinator.client.errors import Unavailable
from coordinator.client.jobs import Job
from coordinator.client.sync import Client, Lease
from coordinator.statemachine.commands import PutKey
from tests.unit.client.test_interrupts import kept
from tests.unit.client.test_loop import at_rest, in_a_thread, loop_of, result_of
from tests.unit.client.test_shells import Full
from tests.unit.client.test_sync import FakeChannel, until

LEVELS = range(5, 2 * stack.WORK_LEVELS)
NOT_LET_GO: list[Lease] = []
"""Whose release was refused for want of room: that is said before anything is let go of."""


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
            while NOT_LET_GO:
                NOT_LET_GO.pop().release()
            until(
                lambda: not hands.are_full()
            )  # The client's own thread takes back what was taken: till then it waits.
    return errors


def take_and_release(client: Client) -> None:
    lease = client.acquire("deploy")
    try:
        lease.release()
    except RecursionError:
        NOT_LET_GO.append(lease)
        raise


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


# --- the memory -----------------------------------------------------------------------------------


def without_memory_at(moment: int, work: Callable[[], Any]) -> bool:
    """Do it, with a MemoryError at the so-manieth moment at which something of the client is called, or has called
    something of C. False where it was over before."""
    left = moment

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event in ("call", "c_return") and "/coordinator/client/" in frame.f_code.co_filename:
            left -= 1
            if not left:
                raise MemoryError

    try:
        sys.setprofile(look)
        work()
    except (MemoryError, Unavailable):
        pass
    finally:
        sys.setprofile(None)
    return left <= 0


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Finalisers are struck, too.
@pytest.mark.parametrize("work", [lock, hold])
def test_wherever_a_caller_lacks_memory_it_leaves_no_lock_and_nothing_half_done(client, monkeypatch, work):
    monkeypatch.setattr(
        BackOff, "failed", lambda self, now_us: self.succeeded()
    )  # A connection that is given up is made again at once.
    loop = loop_of(client)

    def strike_at_all() -> int:
        moment = 1
        while without_memory_at(moment, lambda: work(client)):
            moment += 5  # All of them take a minute.
            client.put("a", b"")
            until(lambda: not (loop._baton or hands.are_full()))
            loop.work.crowd.until_us = 0
        return moment

    assert result_of(strike_at_all) > 300, "that is not all of it"
    until(lambda: not kept() and not loop.work.running)
    room = loop.core.room
    until(lambda: (room.calls, room.bytes, loop.core._outstanding._in_flight) == (0, 0, 0))


def test_a_handler_of_the_log_that_raises_does_not_end_the_clients_thread(client):
    handler = Full()
    logging.getLogger("coordinator.client.loop").addHandler(handler)
    try:
        FakeChannel.made.breaks = True
        with pytest.raises(Unavailable, match="a defect in the client"):
            client.put("a", b"")
    finally:
        logging.getLogger("coordinator.client.loop").removeHandler(handler)
    assert client.put("a", b"") > 0
    assert loop_of(client).is_alive()
