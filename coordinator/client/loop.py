"""Who runs the core and the connections of the client for threads, and the callers that wait for it.

A caller hands over a flow (`Job`). Whoever holds the baton runs all of them: a caller that is alone, or the loop's own
thread. Nothing here knows what is asked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from random import Random, SystemRandom
from types import FrameType
from typing import Any, Final

from coordinator.channel import ChannelError
from coordinator.client import options
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import Core
from coordinator.client.errors import Closed, OutcomeUnknown, Unavailable
from coordinator.client.flows import Flow
from coordinator.client.jobs import Job, Left
from coordinator.client.links import Link, Links
from coordinator.client.parker import NO_BELL, PlainParker, Poll
from coordinator.client.rest import Rest

CLOSE_US: Final = 2_000_000
TURN_US_MAX: Final = 1_000_000
_HELD: Final = "held by"
LOOK_AGAIN_US: Final = 50_000
"""Where callers do the work, the loop's own thread looks again after this: it must not be woken for each of them."""
CROWD_US: Final = 10_000
"""For so long after two callers asked at the same time, the loop's own thread does the work for all."""
RETURN_US: Final = 1_000
"""Callers that were answered together mostly ask again together: the loop's own thread waits so long for the next of
them, sends what they ask as one packet, and lets each wake the next."""
RETURN_US_MAX: Final = 4_000
"""And no longer, whatever else comes meanwhile."""
ABSENT_US: Final = 20_000
"""Where they did not all come back in time, nobody is waited for until this has passed."""

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
        self.pid = os.getpid()
        """The process whose loop this is; a fork of it needs one of its own."""
        self.thread = 0
        """This one, once it runs; as a job has the thread of its caller."""
        self.core = Core(settings.token, settings.cluster, random)
        self.going_on: deque[Job] = deque()
        """Jobs whose call is done."""
        self._links = Links(self.core, settings.url, random)
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._polled = {self._wake_reader: select.POLLIN}
        """Descriptors to the events that are polled for."""
        self._poll = Poll(self._polled)
        self._watched: dict[int, Link] = {}
        """The connections of those."""
        self._main = threading.main_thread().ident
        self._posted: deque[tuple[Job, BaseException | None]] = deque()
        """From other threads: jobs that begin, or what their caller left with."""
        self._tried: deque[tuple[Link, ChannelError | None]] = deque()
        """From threads that connect: what came of it."""
        self._running: dict[Job, None] = {}
        self._ended: deque[Job] = deque()
        """Jobs that are over, and whose callers are woken at the end of the turn."""
        self._to_wake: deque[Job] = deque()
        """Of those, the ones whose callers are woken by the caller before, or by this thread as it goes to sleep."""
        self._wakes_next = False
        """Is this thread to wake the next of them as it goes to sleep?"""
        self._expected = 0
        """How many callers were woken together and have not asked again: this thread need not be woken before."""
        self._expected_until_us = 0
        self._is_late = False
        """Did nobody come back for RETURN_US, though more are expected?"""
        self._absent_until_us = 0
        """Before this nobody is expected to come back at once."""
        self._baton: dict[str, Job | Loop] = {}
        """Under `_HELD` who holds it: the job of a caller, or this loop's own thread. A dict and no lock, since taking
        it and saying whose it is are one step of the interpreter: an error thrown into a thread finds no moment in
        between."""
        self._called = threading.Lock()
        """Released: this thread is to take the baton, if it can."""
        self._called.acquire()
        self._next_us = 0
        """When something is due, as the last caller saw it that did the work."""
        self._looks_us = 0
        """When this thread looks by itself whether there is something to do."""
        self._crowd_until_us = 0
        self._rest = Rest()
        self._asleep = False
        self._closing = False
        self._is_over = False

    # --- on callers' threads ----------------------------------------------------------------------

    def ask(self, job: Job) -> Any:
        """Run a job to its end; its value, or what it raised. Whatever is thrown into the caller up to the return, it
        has left then."""
        holder = self._baton.get(_HELD)
        if holder is not None and holder.thread == job.thread and _is_at_work(holder, sys._getframe(1)):
            return self._ask_within(job)
        try:
            try:
                is_alone = _now_us() >= self._crowd_until_us
                if is_alone and job.thread != self._main and self._take_baton(job):
                    self._posted.append((job, None))
                    self._drive(job)
            finally:
                if self._baton.get(_HELD) is job:
                    del self._baton[_HELD]
                    if self._is_needed():
                        self._call()
            if not job.is_over:
                job.wait(self._hand_over(job))
            return job.outcome()
        except BaseException as error:
            if error is not job.error:
                self.post(job, error)
            raise

    def _is_needed(self) -> bool:
        """Now that a caller has put the baton down: is this loop's own thread to take it? Something may come at any
        moment that nobody asked for, as the word that what is kept is to be dropped."""
        if self._running or self._posted or self._tried or self._closing or self._next_us < self._looks_us:
            return True
        return self.core.awaits_answers(_now_us())

    def _take_baton(self, holder: Job | Loop) -> bool:
        return self._baton.setdefault(_HELD, holder) is holder

    def _take_lost_baton(self) -> bool:
        """An error that was thrown into a thread may have struck where it was about to put the baton down: a job that
        holds it, and that nobody asks any more, will never put it down. This loop's own thread alone takes it then, so
        that nobody comes in between."""
        holder = self._baton.get(_HELD)
        if holder is None or _is_at_work(holder, sys._current_frames().get(holder.thread)):
            return False
        if self._baton.get(_HELD) is not holder:
            return False  # It was put down in the meantime.
        self._baton[_HELD] = self
        return True

    def _ask_within(self, job: Job) -> Any:
        """A finaliser or a log handler asks, in the middle of this thread's own work for the core."""
        self._posted.append((job, None))
        raise OutcomeUnknown("asked from within the client's own work, so nobody waits for it: it is done afterwards")

    def _hand_over(self, job: Job) -> int:
        """To whoever has the baton, by a caller that is about to sleep: where it is to ring as it does."""
        self._posted.append((job, None))
        holder = self._baton.get(_HELD)
        if holder is None or holder.thread == job.thread:  # The latter was lost, by this very thread.
            self._call()
        if self._is_over or sys.is_finalizing():  # The loop's own thread does nothing any more, then.
            self._refuse_posted()
        return self._wake_writer if self._is_to_be_woken() else NO_BELL

    def post(self, job: Job, left_with: BaseException | None = None) -> None:
        """Hand over a job that begins, or that its caller has left (interrupted, cancelled)."""
        self._posted.append((job, left_with))
        self._wake()
        if self._is_over:
            self._refuse_posted()

    def abandon(self) -> None:
        """Nobody asks here any more, and nobody waits for the end."""
        self._closing = True
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
        if holder is not None and holder.thread == threading.get_ident() and _is_at_work(holder, sys._getframe(1)):
            self._posted.append((Job(self, self._and_end(last(self.core)), None), None))
            return
        try:
            if self.core.sessions and self.is_alive():
                self.ask(Job(self, last(self.core), None))
        finally:
            self._closing = True
            self._wake()
            self._call()
            self.join(CLOSE_US / 1e6)

    def _and_end(self, last: Flow) -> Flow:
        try:
            yield from last
        finally:
            self._closing = True
            self._call()

    def _wake(self) -> None:
        # Appended first and looked at afterwards, here and in `_sleep` and `_hand_over`: one of the two sees the other.
        if _HELD not in self._baton:
            self._call()
        elif self._is_to_be_woken():
            with contextlib.suppress(OSError):  # Full: it wakes anyway.
                os.write(self._wake_writer, b"\0")

    def _is_to_be_woken(self) -> bool:
        return self._asleep and (len(self._posted) >= self._expected or bool(self._tried) or self._closing)

    def _call(self) -> None:
        """Have this loop's own thread take the baton."""
        with contextlib.suppress(RuntimeError):  # It is called already.
            self._called.release()

    def _drive(self, job: Job) -> None:
        """With the baton: run everything until `job` is over, and leave the rest to the loop's own thread."""
        self._next_us = 0
        try:
            while not self._closing:
                self._take_up()
                if job.is_over:
                    break
                self._send()
                self._sleep()
            self._wake_ended()
            self._next_us = self._links.due_us(_now_us())
        except BaseException as error:
            # A defect, or thrown into this thread from outside. In its sleep that can not have disturbed anything.
            is_defect = not self._asleep
            if is_defect:
                self._fail(error)
            self._asleep = False
            self._leave(job, error)
            self._wake_ended()
            if not (is_defect and isinstance(error, Exception)):
                raise

    # --- with the baton ---------------------------------------------------------------------------

    def run(self) -> None:
        self.thread = threading.get_ident()
        while not self._closing:
            if self._take_baton(self) or self._take_lost_baton():
                self._run_while_needed()
                del self._baton[_HELD]
                if self._posted or self._tried:
                    continue
            else:
                self._looks_us = _now_us() + LOOK_AGAIN_US
            self._called.acquire(timeout=max(0, self._looks_us - _now_us()) / 1e6)
        while not (self._take_baton(self) or self._take_lost_baton()):
            self._called.acquire(timeout=LOOK_AGAIN_US / 1e6)
        self._end_all()
        del self._baton[_HELD]

    def _run_while_needed(self) -> None:
        while not self._closing:
            try:
                self._take_up()
                self._links.send(_now_us())
                if self._ended:
                    self._wake_together()
                now_us = _now_us()
                if not (self._running or self.core.awaits_answers(now_us) or now_us < self._crowd_until_us):
                    self._expect_nobody()
                    self._looks_us = min(self._links.due_us(now_us), now_us + TURN_US_MAX)
                    return
                self._sleep()
            except Exception as error:  # noqa: BLE001 - it is logged, and fails what was asked
                self._fail(error)
                self._called.acquire(timeout=self._rest.after_failure(_now_us()) / 1e6)  # Ends when it is closed.

    def _end_all(self) -> None:
        self._fail_all(Closed())
        self._is_over = True
        self._refuse_posted()
        self._links.close()  # Behind `_is_over`: whoever is still connecting looks at that afterwards.

    def _take_up(self) -> None:
        """Begin what was posted, and go on with what was answered."""
        self._take_posted()
        if self._tried or not self._links.all_stand:
            self._connect()
        self._go_on()

    def _connect(self) -> None:
        """Each on a thread of its own: a Redis that swallows what it is sent holds up nobody."""
        while self._tried:
            self._links.connected(*self._tried.popleft(), _now_us())
        for link in self._links.to_connect(_now_us()):
            try:
                threading.Thread(target=self._try, args=(link,), name="conclave-connect", daemon=True).start()
            except RuntimeError as error:  # There are no more threads, or the interpreter ends.
                self._tried.append((link, ChannelError(f"could not connect: {error}")))

    def _try(self, link: Link) -> None:
        """On the connecting thread."""
        self._tried.append((link, self._links.connect(link)))
        self._wake()
        if self._is_over:
            link.channel.close()

    def _send(self) -> None:
        self._links.send(_now_us())
        if self._ended:
            self._wake_ended()

    def _sleep(self) -> None:
        """Until something comes, or is due; what has come is taken in."""
        now_us = _now_us()
        timeout_us = max(0, min(self._links.due_us(now_us) - now_us, TURN_US_MAX))
        if self._links.is_changed:
            self._watch()
        if self._expected:
            timeout_us = min(timeout_us, RETURN_US)
        self._asleep = True
        if len(self._posted) >= max(1, self._expected) or self.going_on or self._tried or self._closing:
            timeout_us = 0
        ready = self._poll.wait(-(-timeout_us // 1_000), self._first_to_wake())
        if not ready and self._expected:
            ready = self._sleep_on()
            self._is_late = not ready
        self._asleep = False
        for descriptor, _ in ready:
            if descriptor == self._wake_reader:
                os.read(self._wake_reader, 4_096)
                continue
            link = self._watched.get(descriptor)
            if link is not None and link.connected:
                self._links.receive(link, _now_us())

    def _sleep_on(self) -> list[tuple[int, int]]:
        """While callers come back: the time is up only when there was none for RETURN_US."""
        came = 0
        ready: list[tuple[int, int]] = []
        while came < len(self._posted) < self._expected and not ready and _now_us() < self._expected_until_us:
            came = len(self._posted)
            ready = self._poll.wait(RETURN_US // 1_000)
        return ready

    def _watch(self) -> None:
        """Poll for what the connections wait for now."""
        self._watched = {link.channel.fileno(): link for link in self._links.links.values() if link.connected}
        wanted = {self._wake_reader: select.POLLIN}
        for descriptor, link in self._watched.items():
            wanted[descriptor] = select.POLLIN | (select.POLLOUT if link.channel.wants_write else 0)
        self._links.is_changed = any(events & select.POLLOUT for events in wanted.values())
        if wanted != self._polled:
            self._polled, self._poll = wanted, Poll(wanted)

    def _take_posted(self) -> None:
        posted, running = self._posted, self._running
        if self._expected:
            self._note_returned(len(posted))
        while posted:
            job, left_with = posted[0]
            if left_with is not None:
                posted.popleft()
                self._leave(job, left_with)
            elif job.is_over or job in running:
                posted.popleft()  # An interrupt came between the next two lines, once.
            else:
                running[job] = None
                posted.popleft()
                self._step(job)
                if len(running) > 1:
                    self._crowd_until_us = _now_us() + CROWD_US

    def _go_on(self) -> None:
        while self.going_on:
            job = self.going_on.popleft()
            if not job.is_over:
                self._step(job)

    def _step(self, job: Job, throw: BaseException | None = None) -> None:
        """Run the job's flow until it has ended, or waits for a call that is not done."""
        flow, call = job.flow, job.call
        value: Any = None
        try:
            while True:
                if throw is None and call is not None:
                    value = call.outcome
                    throw = value if isinstance(value, BaseException) else None
                call = flow.send(value) if throw is None else flow.throw(throw)
                throw = None
                if not call.done:
                    job.call = call
                    call.when_done(job.answered)
                    return
        except StopIteration as end:
            self._end(job, end.value, None)
        except BaseException as error:  # noqa: BLE001 - it is raised on the caller's thread
            self._end(job, None, error)

    def _end(self, job: Job, value: Any, error: BaseException | None) -> None:
        job.value, job.error = value, error
        job.is_over = True
        self._ended.append(job)
        self._running.pop(job, None)

    def _leave(self, job: Job, error: BaseException) -> None:
        """The caller left: its flow cleans up, or what it came to is undone."""
        if not job.is_over:
            # Not its own error, which the flow might take for an answer to what it asked.
            self._step(job, Left(repr(error)))
        undo, job.undo = job.undo, None
        if job.is_over and job.error is None and undo is not None:
            undo(self.core, job.value)

    def _wake_together(self) -> None:
        """After the sending: they run while this thread sleeps, and what they ask next leaves as one packet. Of several
        each wakes the next when it asks: woken all at once, they would all sleep again, for the interpreter."""
        now_us, count = _now_us(), len(self._ended)
        if count + self._expected < 2:
            count = 0
        elif now_us < self._absent_until_us:
            self._wake_ended()
            return
        if not self._expected:
            self._expected_until_us = now_us + RETURN_US_MAX
        self._expected += count
        self._to_wake.extend(self._ended)
        self._ended.clear()
        self._wakes_next = True

    def _note_returned(self, count: int) -> None:
        """So many ask, of those who were woken or of others. Where the rest is late, nobody is waited for."""
        now_us = _now_us()
        self._expected = max(0, self._expected - count)
        if self._expected and (self._is_late or now_us >= self._expected_until_us):
            self._absent_until_us = now_us + ABSENT_US
            self._expect_nobody()
        elif not self._expected:
            self._expect_nobody()  # Others may have come in their place, who wake nobody.
        elif count:
            self._expected_until_us = now_us + RETURN_US_MAX
        self._is_late = False

    def next_to_wake(self) -> PlainParker | None:
        """The next of those who were answered together, to be woken by the one before as it goes to sleep."""
        try:
            return self._to_wake.popleft().parker if self._to_wake else None
        except IndexError:  # Another took the last.
            return None

    def _first_to_wake(self) -> PlainParker | None:
        """The first of those who were answered, to be woken by this thread as it goes to sleep."""
        wakes, self._wakes_next = self._wakes_next, False
        return self.next_to_wake() if wakes else None

    def _expect_nobody(self) -> None:
        """Wake those, too, that were to be woken by others."""
        self._expected = 0
        while self._to_wake:
            self._wake_next()

    def _wake_next(self) -> None:
        next_one = self.next_to_wake()
        if next_one is not None:
            next_one.unpark()

    def _wake_ended(self) -> None:
        """All at once."""
        ended = self._ended
        while ended:
            ended[0].parker.unpark()
            ended.popleft()

    def _fail(self, error: BaseException) -> None:
        """Something went wrong in the middle of the work: what was asked fails, and the connections begin anew."""
        logger.error("the client's work was cut off; everything asked fails, and it goes on", exc_info=error)
        self._links.begin_anew(_now_us())
        self._polled, self._watched = {self._wake_reader: select.POLLIN}, {}
        self._poll = Poll(self._polled)
        self._asleep = False
        self._fail_all(Unavailable(f"a defect in the client: {error!r}"))

    def _fail_all(self, error: Unavailable) -> None:
        """Nothing asked goes on: neither what the core knows of, nor a flow that it lost."""
        self.core.fail_all(error)
        self._take_posted()
        self._go_on()
        for job in [*self._running]:
            self._end(job, None, error)
        self._wake_ended()
        self._expect_nobody()

    def _refuse_posted(self) -> None:
        """The loop has ended; what was posted meanwhile is refused, by whoever notices."""
        with contextlib.suppress(IndexError):
            while True:
                job, left_with = self._posted.popleft()
                if left_with is None and not job.is_over:
                    job.error = Closed()
                    job.is_over = True
                    job.parker.unpark()


def _is_at_work(holder: Job | Loop, frame: FrameType | None) -> bool:
    """Is `frame`, where the holder's thread is, within the very call that took the baton for it?"""
    code, name = (Loop.ask.__code__, "job") if isinstance(holder, Job) else (Loop.run.__code__, "self")
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get(name) is holder:
            return True
        frame = frame.f_back
    return False
