"""Who does the work of the client for threads (`work.py`), and where: the callers, and a thread of its own.

A caller hands over a flow (`Job`). Whoever holds the baton runs all of them: a caller that is alone, or the loop's own
thread. What is thrown into a thread strikes here, in between two steps of the work: this module is never compiled, as
native code has no moment for that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, Final

from coordinator.channel import ChannelError
from coordinator.client import options
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import Core
from coordinator.client.crowd import RETURN_US
from coordinator.client.errors import Closed, OutcomeUnknown
from coordinator.client.flows import Flow
from coordinator.client.jobs import Job
from coordinator.client.links import Link, Links
from coordinator.client.parker import NO_BELL
from coordinator.client.rest import Rest
from coordinator.client.session import process
from coordinator.client.stack import has_room_to_work
from coordinator.client.work import OVER, Work

CLOSE_US: Final = 2_000_000
_HELD: Final = "held by"
LOOK_AGAIN_US: Final = 50_000
"""Where callers do the work, the loop's own thread looks again after this: it must not be woken for each of them."""

logger = logging.getLogger(__name__)


class Loop(threading.Thread):
    """The core, the connections, and whose turn it is to run them.

    Whoever holds the baton does, and nobody else touches the core: a caller that is alone, for as long as its own
    question takes, so that nobody need be woken for it; else this thread, while there is something to wait for.
    The main thread never does: it is where signals are handled, and Ctrl-C, a soft time limit or a handler that asks
    something itself must not strike in the middle of the core's work.
    """

    def __init__(self, settings: options.Options) -> None:
        super().__init__(name="conclave-client", daemon=True)
        random = Random(SystemRandom().getrandbits(256))  # noqa: S311 - jitter, and numbers that need only be unique
        self.process = process()
        """The process whose loop this is; a fork of it needs one of its own."""
        self.thread = 0
        """This one, once it runs; as a job has the thread of its caller."""
        self.has_left = False
        """As a job's caller may have. This thread never leaves while it holds the baton."""
        self.core = Core(settings.token, settings.cluster, random)
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.work = Work(self.core, Links(self.core, settings.url, random), self._wake_reader)
        self._main = threading.main_thread().ident
        self._baton: dict[str, Job | Loop] = {}
        """Under `_HELD` who holds it: the job of a caller, or this loop's own thread. A dict and no lock, since taking
        it and saying whose it is are one step of the interpreter: an error thrown into a thread finds no moment in
        between."""
        self._called = threading.Lock()
        """Released: this thread is to take the baton, if it can."""
        self._called.acquire()
        self._rest = Rest()
        self._is_over = False

    # --- on callers' threads ----------------------------------------------------------------------

    def ask(self, job: Job) -> Any:
        """Run a job to its end; its value, or what it raised. Whatever is thrown into the caller up to the return, it
        has left then."""
        holder = self._baton.get(_HELD)
        if holder is not None and holder.thread == job.thread and not holder.has_left:
            return self._ask_within(job)
        try:
            try:
                is_alone = job.thread != self._main and _now_us() >= self.work.crowd.until_us
                if is_alone and not self.work.in_the_middle and has_room_to_work() and self._take_baton(job):
                    self.work.posted.append((job, None))
                    self._drive(job)
            finally:
                # Nothing is called in these two lines, so nothing can be thrown into this thread within them.
                if _HELD in self._baton and self._baton[_HELD] is job:
                    del self._baton[_HELD]
                    if self.work.is_needed():
                        self._call()
            if not job.is_over:
                job.wait(self._hand_over(job))
            return job.outcome()
        except BaseException as error:
            job.has_left = True
            if error is not job.error:
                self.post(job, error)
            raise

    def _take_baton(self, holder: Job | Loop) -> bool:
        return self._baton.setdefault(_HELD, holder) is holder

    def _take_lost_baton(self) -> bool:
        """A job whose caller has left without putting the baton down never will (`ask` leaves no moment for that, but a
        tracing function may raise at any line). This loop's own thread alone takes it then, so that nobody comes in
        between."""
        holder = self._baton.get(_HELD)
        if holder is None or not holder.has_left:
            return False
        self._baton[_HELD] = self
        return True

    def _ask_within(self, job: Job) -> Any:
        """A finaliser or a log handler asks, in the middle of this thread's own work for the core."""
        self.post(job)
        if job.undo is None:
            raise OutcomeUnknown(
                "asked from within the client's own work, so nobody waits for it: it is done afterwards"
            )
        error = OutcomeUnknown(
            "asked from within the client's own work, so nobody waits for it: it is undone afterwards"
        )
        self.post(job, error)
        raise error

    def _hand_over(self, job: Job) -> int:
        """To whoever has the baton, by a caller that is about to sleep: where it is to ring as it does."""
        self.work.posted.append((job, None))
        if self._is_nobodys():
            self._call()
        if self._is_over or sys.is_finalizing():  # The loop's own thread does nothing any more, then.
            self._refuse_posted()
        return self._wake_writer if self.work.is_to_be_woken() else NO_BELL

    def post(self, job: Job, left_with: BaseException | None = None) -> None:
        """Hand over a job that begins, or that its caller has left (interrupted, cancelled)."""
        self.work.posted.append((job, left_with))
        self._wake()
        if self._is_over:
            self._refuse_posted()

    def abandon(self) -> None:
        """Nobody asks here any more, and nobody waits for the end."""
        self.work.closing = True
        self._call()

    def __del__(self) -> None:
        """Its pipe goes with it and not before: a caller may be about to ring, and the number may be another's then."""
        if hasattr(self, "_wake_writer"):
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def close(self, last: Callable[[Core], Flow]) -> None:
        """Run `last` where there are sessions, and end. Whoever is in the middle of this loop's own work (a finaliser,
        a log handler) can not wait for that: it is done afterwards."""
        holder = self._baton.get(_HELD)
        if holder is not None and holder.thread == threading.get_ident() and not holder.has_left:
            self.post(Job(self, self._and_end(last(self.core)), None))
            return
        try:
            if self.core.sessions and self.is_alive():
                self.ask(Job(self, last(self.core), None))
        finally:
            self.work.closing = True
            self._wake()
            self._call()
            self.join(CLOSE_US / 1e6)

    def _and_end(self, last: Flow) -> Flow:
        try:
            yield from last
        finally:
            self.work.closing = True
            self._call()

    def _wake(self) -> None:
        # Appended first and looked at afterwards, here, in `_hand_over` and in `Work.before_sleep`: one of the two sees
        # the other.
        if self._is_nobodys():
            self._call()
        elif self.work.is_to_be_woken():
            with contextlib.suppress(OSError):  # Full: it wakes anyway.
                os.write(self._wake_writer, b"\0")

    def _is_nobodys(self) -> bool:
        """The baton: it lies there, or whoever holds it has left."""
        holder = self._baton.get(_HELD)
        return holder is None or holder.has_left

    def _call(self) -> None:
        """Have this loop's own thread take the baton."""
        with contextlib.suppress(RuntimeError):  # It is called already.
            self._called.release()

    def _drive(self, job: Job) -> None:
        """With the baton: run everything until `job` is over, and leave the rest to the loop's own thread."""
        work = self.work
        work.next_us = 0
        try:
            while not work.closing:
                timeout_ms = work.turn_for(job)
                if work.to_connect:
                    self._connect()
                if timeout_ms == OVER:
                    break
                self._sleep(timeout_ms)
            work.leave_the_rest()
        except BaseException as error:
            # A defect, or thrown into this thread from outside. Between two steps of the work, and in its sleep, that
            # can not have disturbed anything.
            is_defect = work.in_the_middle
            if is_defect:
                self._fail(error)
            work.asleep = False
            work.leave(job, error)  # Here, too: another error may strike before it is posted.
            work.crowd.wake_all()
            if not (is_defect and isinstance(error, Exception)):
                raise

    # --- with the baton ---------------------------------------------------------------------------

    def run(self) -> None:
        self.thread = threading.get_ident()
        while not self.work.closing:
            if self._take_baton(self) or self._take_lost_baton():
                self._run_while_needed()
                del self._baton[_HELD]
                if self.work.posted or self.work.tried:
                    continue
            else:
                self.work.looks_us = _now_us() + LOOK_AGAIN_US
            self._called.acquire(timeout=max(0, self.work.looks_us - _now_us()) / 1e6)
        while not (self._take_baton(self) or self._take_lost_baton()):
            self._called.acquire(timeout=LOOK_AGAIN_US / 1e6)
        self._end_all()
        del self._baton[_HELD]

    def _run_while_needed(self) -> None:
        work = self.work
        while not work.closing:
            try:
                if work.in_the_middle:
                    self._fail(RuntimeError("left half done by a caller, for want of stack or memory"))
                timeout_ms = work.turn_for_all()
                if work.to_connect:
                    self._connect()
                if timeout_ms == OVER:
                    return
                self._sleep(timeout_ms)
            except Exception as error:  # noqa: BLE001 - it is logged, and fails what was asked
                work.in_the_middle = True
                with contextlib.suppress(Exception):  # For want of memory, as it may be: it is done at the next turn.
                    self._fail(error)
                self._called.acquire(timeout=self._rest.after_failure(_now_us()) / 1e6)  # Ends when it is closed.

    def _sleep(self, timeout_ms: int) -> None:
        """Until something comes, or the time is up; what has come is taken in."""
        work = self.work
        ready = work.poll.wait(timeout_ms, work.crowd.first_to_wake())
        if not ready and work.crowd.expected:
            came = 0
            while not ready and work.sleeps_on(came):
                came = len(work.posted)
                ready = work.poll.wait(RETURN_US // 1_000)
            work.crowd.is_late = not ready
        work.after_sleep(ready)

    def _end_all(self) -> None:
        self.work.fail_all(Closed())
        self._is_over = True
        self._refuse_posted()
        self.work.links.close()  # Behind `_is_over`: whoever is still connecting looks at that afterwards.

    def _connect(self) -> None:
        """Each on a thread of its own: a Redis that swallows what it is sent holds up nobody."""
        work = self.work
        work.in_the_middle = True
        while work.to_connect:
            link = work.to_connect.pop()
            try:
                threading.Thread(target=self._try, args=(link,), name="conclave-connect", daemon=True).start()
            except RuntimeError as error:  # There are no more threads, or the interpreter ends.
                self._tried(link, ChannelError(f"could not connect: {error}"))
        work.in_the_middle = False

    def _try(self, link: Link) -> None:
        """On the connecting thread."""
        self._tried(link, self.work.links.connect(link))
        if self._is_over:
            link.channel.close()

    def _tried(self, link: Link, error: ChannelError | None) -> None:
        self.work.tried.append((link, error))
        self._wake()

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):  # Of a handler of the log: what is asked must not wait for its mending.
            logger.error("the client's work was cut off; everything asked fails, and it goes on", exc_info=error)
        self.work.begin_anew(error)

    def _refuse_posted(self) -> None:
        """The loop has ended; what was posted meanwhile is refused, by whoever notices."""
        with contextlib.suppress(IndexError):
            while True:
                job, left_with = self.work.posted.popleft()
                if left_with is None and not job.is_over:
                    job.error = Closed()
                    job.is_over = True
                    job.parker.unpark()
