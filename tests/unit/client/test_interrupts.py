"""What an interrupt on the main thread leaves behind, wherever it strikes: Ctrl-C, a soft time limit, any handler that
raises. No lock is left to a session that nobody remembers it in, and the client goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from coordinator import wire
from coordinator.client import hands, links
from coordinator.client.aio import AsyncClient
from coordinator.client.errors import OutcomeUnknown, SessionGone, Unavailable
from coordinator.client.jobs import Job
from coordinator.client.lease import LeaseState
from coordinator.client.locks import Hold
from coordinator.client.loop import Loop
from coordinator.client.recipes.election import Election
from coordinator.client.sync import Client, Lease
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, Holder, Queued, ReleaseLock
from coordinator.statemachine.lock_commands import EXCLUSIVE, Acquire, ChangeMode, HandOver, Release
from tests.unit.client.test_loop import result_of
from tests.unit.client.test_sync import TOKEN, FakeChannel, in_the_middle, until

Taking = Callable[[Client], contextlib.AbstractContextManager[Any]]


class Struck(BaseException):
    """The interrupt."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        yield client


def kept() -> set[int]:
    """Acquisitions that were asked for, and neither let go of nor taken back."""
    ops = FakeChannel.made.ops
    asked = {op.acquisition for op in ops if isinstance(op, (AcquireLock, Acquire))}
    return asked - {op.acquisition for op in ops if isinstance(op, (ReleaseLock, Release, CancelAcquire))}


def once(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next time that the main thread comes there, it is struck."""
    there = getattr(owner, name)

    def struck(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(owner, name, there)
            raise Struck
        return there(*arguments, **named)

    monkeypatch.setattr(owner, name, struck)


@pytest.mark.parametrize(("owner", "name"), [(Loop, "_hand_over"), (LeaseState, "__init__"), (Job, "__init__")])
def test_an_interrupt_while_a_lock_is_taken_leaves_none(client, monkeypatch, owner, name):
    once(owner, name, monkeypatch)
    with pytest.raises(Struck), client.lock("deploy"):
        raise AssertionError("it was struck before")
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept())


@pytest.mark.parametrize(("owner", "name"), [(Loop, "_hand_over"), (Job, "__init__")])
@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
def test_an_interrupt_while_a_lock_is_let_go_leaves_none(client, monkeypatch, owner, name, taking):
    def work() -> None:
        with taking(client):
            once(owner, name, monkeypatch)

    with pytest.raises(Struck):
        work()
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept())


def struck_at(moment: int, work: Callable[[], None], *, within: str = "") -> bool:
    """Do it, with an interrupt at the so-manieth of the moments at which the interpreter looks for signals: where a
    function begins, and where one of C has ended; `within` modules that are called so. False where it was over
    before."""
    left = moment

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_name != "__del__":  # Nobody hears of it there.
            left -= frame.f_code.co_filename.endswith(within)
            if not left:
                sys.setprofile(None)
                raise Struck

    try:
        sys.setprofile(look)
        work()
    except Struck:
        pass
    finally:
        sys.setprofile(None)
    return left <= 0


def must_keep_nothing_wherever_it_is_struck(client: Client, work: Callable[[], None]) -> None:
    moment = 1
    while struck_at(moment, work):
        moment += 1
        until(lambda: not hands.are_full())
    assert moment > 40, "that is not all of it"
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Finalisers are struck, too.
@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
def test_no_moment_at_which_an_interrupt_strikes_leaves_a_lock(client, taking):
    def work() -> None:
        with taking(client):
            pass

    must_keep_nothing_wherever_it_is_struck(client, work)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
def test_what_is_let_go_of_within_its_with_is_let_go_wherever_an_interrupt_strikes(client, taking):
    """It was taken for released as soon as that was asked for, and its `with` let go of nothing any more."""

    def work() -> None:
        with taking(client) as held:
            held.release()

    must_keep_nothing_wherever_it_is_struck(client, work)


@pytest.mark.parametrize("taking", [lambda client: client.lock("deploy"), lambda client: client.locks.hold("deploy")])
async def test_a_release_that_is_cancelled_before_it_begins_is_left_to_its_with(monkeypatch, taking):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
        async with taking(client) as held:
            release = asyncio.ensure_future(held.release())
            release.cancel()
            await asyncio.wait([release])
        assert not kept()


async def test_a_change_of_a_hold_that_is_cancelled_before_it_begins_has_changed_nothing(monkeypatch):
    """It was taken for under way, with an outcome that is not known: not to be proven held, nor to be upgraded."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client, client.locks.hold("deploy") as hold:
        for change in (hold.downgrade, partial(hold.hand_over, Holder(9, 1, "another"))):
            asked = asyncio.ensure_future(change())
            asked.cancel()
            await asyncio.wait([asked])
            hold.check()
            assert (hold.mode, hold._may_be_shared) == ("exclusive", False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda hold: hold.downgrade(), ChangeMode),
        (lambda hold: hold.hand_over(Holder(9, 1, "another")), HandOver),
        (lambda hold: hold.release(), (Release, ReleaseLock, CancelAcquire)),
    ],
    ids=["downgrade", "hand over", "release"],
)
def test_what_a_caller_believes_changes_before_it_is_asked_wherever_an_interrupt_strikes(client, change, kinds):
    """Else one that goes on behind the interrupt takes for its own what is about to be shared, or another's."""
    was_asked = 0
    moment = 1
    while True:
        hold = client.locks.acquire("deploy")
        is_over = not struck_at(moment, partial(change, hold))
        believed = hold.held and hold.mode == EXCLUSIVE
        client.put("a", b"")  # What was posted before is under way by now.
        asked = any(isinstance(op, kinds) and op.acquisition == hold.acquisition for op in FakeChannel.made.ops)
        was_asked += asked and not is_over
        assert not (believed and asked), f"at moment {moment}"
        if is_over:
            break
        hold._let_go_later()
        moment += 1
    assert was_asked > 3
    assert moment > 15, "that is not all of it"


@pytest.mark.parametrize(
    ("taking", "leave"),
    [(lambda client: client.lock("deploy"), Lease), (lambda client: client.locks.hold("deploy"), Hold)],
)
def test_a_forked_child_that_is_interrupted_lets_go_of_nothing_of_its_parents(client, monkeypatch, taking, leave):
    def work(forked: pytest.MonkeyPatch) -> None:
        with taking(client):
            forked.setattr(os, "getpid", lambda: -1)
            once(leave, "release" if leave is Lease else "__exit__", forked)

    with monkeypatch.context() as forked:
        forked.setattr(Client, "_started", lambda self: self._loop)
        with pytest.raises(Struck):
            work(forked)
    assert client.put("a", b"") > 0
    assert kept()


def strike_who_works(client: Client, within: str) -> None:
    """A caller that is alone does the work; what is thrown into it strikes in `loop.py` and in the steps of flows, or
    in the caller's own code. Wherever it strikes, no lock is left."""

    def work() -> None:
        with client.lock("deploy"):
            pass

    def strike_at_all() -> int:
        moment = 1
        while struck_at(moment, work, within=within):
            moment += 1
        return moment

    until(lambda: not client._started()._baton)
    assert result_of(strike_at_all) > 4, "that is not all of it"
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Finalisers are struck, too.
def test_no_moment_between_two_steps_of_the_work_at_which_its_doer_is_struck_leaves_a_lock_or_is_a_defect(
    client, caplog
):
    strike_who_works(client, "client/loop.py")
    assert "cut off" not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Finalisers are struck, too.
def test_no_moment_in_a_step_of_a_flow_at_which_its_doer_is_struck_leaves_a_lock(client):
    strike_who_works(client, "client/stepping.py")


@pytest.mark.parametrize("error", [SessionGone, Unavailable])
def test_the_callers_own_error_is_no_answer_to_its_flow(client, error):
    """A handler that raises what a leader could have said: the flow took it for that, lost a session that lives, and
    acquired again, for nobody."""
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, AcquireLock)

    def handler(number: int, frame: object) -> None:
        channel.reply(wire.Answer(channel.open[0].id, Queued(1)))
        raise error("of the handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(error, match="of the handler"):
            client.acquire("deploy")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert client.put("a", b"") > 0  # What was posted before is under way by now.
    until(lambda: not kept())
    assert len({op.acquisition for op in channel.ops if isinstance(op, AcquireLock)}) == 1
    assert client._started().core.sessions[15_000].valid(0)


@pytest.mark.parametrize(
    "take",
    [
        lambda client: client.acquire("deploy"),
        lambda client: client.locks.acquire("deploy"),
        lambda client: Election(client, "deploy").campaign(),
    ],
)
def test_what_is_taken_from_within_the_clients_own_work_is_left_to_nobody(client, take):
    """A log handler, or a finaliser: nobody was told that it had the lock, and nobody let go of it."""
    errors: list[OutcomeUnknown] = []

    def asks_in_the_middle() -> None:
        with pytest.raises(OutcomeUnknown, match="it is undone afterwards") as caught:
            take(client)
        errors.append(caught.value)

    def work() -> int:
        in_the_middle(FakeChannel.made, asks_in_the_middle)
        return client.put("outer", b"x")

    assert result_of(work) > 0
    assert len(errors) == 1
    assert client.put("after", b"") > 0  # What was posted before is under way by now.
    until(lambda: any(isinstance(op, CancelAcquire) for op in FakeChannel.made.ops))
    assert not kept()


# --- the client's thread --------------------------------------------------------------------------


def new_client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    return Client("redis://nowhere", str(TOKEN), timeout=5)


@pytest.mark.parametrize("error", [RuntimeError, Struck])
def test_a_thread_that_did_not_start_is_started_by_the_next_question(monkeypatch, error):
    start = Loop.start

    def fails(loop: Loop) -> None:
        monkeypatch.setattr(Loop, "start", start)
        if error is Struck:
            start(loop)  # An interrupt strikes while it waits for the thread to have begun.
        raise error

    monkeypatch.setattr(Loop, "start", fails)
    with new_client(monkeypatch) as client:
        with pytest.raises(error):
            client.put("a", b"")
        assert client.put("a", b"") > 0
    until(lambda: not any(isinstance(thread, Loop) for thread in threading.enumerate()))


def test_a_thread_that_could_not_be_started_lets_the_client_be_closed(monkeypatch):
    def fails(loop: Loop) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Loop, "start", fails)
    client = new_client(monkeypatch)
    with pytest.raises(RuntimeError):
        client.put("a", b"")
    client.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_for_a_thread_that_has_ended_is_told_so(client, monkeypatch):
    def ends(loop: Loop, error: BaseException) -> None:
        raise SystemExit

    monkeypatch.setattr(Loop, "_fail", ends)
    FakeChannel.made.breaks = True
    with pytest.raises(Unavailable, match="thread has ended"):
        client.put("a", b"")
    client.close()


@pytest.mark.parametrize("closes", [False, True])
def test_a_signal_handler_may_use_the_client_while_it_is_started(monkeypatch, closes):
    """On the very thread that is starting it."""
    start = Loop.start
    found: list[int] = []
    client = new_client(monkeypatch)

    def interrupted(loop: Loop) -> None:
        monkeypatch.setattr(Loop, "start", start)
        if closes:
            client.close()
        else:
            found.append(client.put("handler", b"x"))
        start(loop)

    monkeypatch.setattr(Loop, "start", interrupted)
    if closes:
        with pytest.raises(Unavailable, match="closed"):
            client.put("a", b"")
    else:
        assert client.put("a", b"") > found[0], "of the same session"
    client.close()
    until(lambda: not any(isinstance(thread, Loop) for thread in threading.enumerate()))
