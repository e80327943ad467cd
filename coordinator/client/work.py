"""What a client for threads does for those who ask: it runs their flows, and moves packets between the core and Redis.

Who does it, and on which thread, is the affair of `loop.py`: whoever holds the baton, and nobody else, between two
sleeps. Nothing here sleeps or starts a thread, and nothing here knows what is asked.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Any, Final

from coordinator.channel import ChannelError
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import Core
from coordinator.client.crowd import RETURN_US, Crowd
from coordinator.client.errors import Unavailable
from coordinator.client.jobs import Job, Left
from coordinator.client.links import Link, Links
from coordinator.client.outstanding import given_up
from coordinator.client.parker import Poll
from coordinator.client.stepping import advance, close

TURN_US_MAX: Final = 1_000_000
OVER: Final = -1
"""In place of a time to sleep: there is no need to."""


class Work:
    def __init__(self, core: Core, links: Links, wake_reader: int) -> None:
        """`wake_reader`: what comes there ends the sleep."""
        self.core = core
        self.links = links
        self.crowd = Crowd()
        self.posted: deque[tuple[Job, BaseException | None]] = deque()
        """From other threads: jobs that begin, or what their caller left with."""
        self.tried: deque[tuple[Link, ChannelError | None]] = deque()
        """From threads that connect: what came of it."""
        self.to_connect: list[Link] = []
        """Taken out of the links' hands, to be connected elsewhere; then they are among `tried`."""
        self.going_on: deque[Job] = deque()
        """Jobs whose call is done."""
        self.running: dict[Job, None] = {}
        self.asleep = False
        """Is it, or is it about to be?"""
        self.in_the_middle = False
        """What is thrown here now has left something half done."""
        self.closing = False
        self.next_us = 0
        """When something is due, as the last caller saw it that did the work."""
        self.looks_us = 0
        """When the loop's own thread looks by itself whether there is something to do."""
        self.poll: Any = None
        """What to sleep on."""
        self._wake_reader = wake_reader
        self._polled: dict[int, int] = {}
        """Descriptors to the events that are polled for."""
        self._watched: dict[int, Link] = {}
        """The connections of those."""
        self._watch_nothing()

    def is_to_be_woken(self) -> bool:
        """Is there something to do for whoever sleeps? From any thread."""
        return self.asleep and (len(self.posted) >= self.crowd.expected or bool(self.tried) or self.closing)

    def is_needed(self) -> bool:
        """Now that a caller has put the baton down: is the loop's own thread to take it? Something may come at any
        moment that nobody asked for, as the word that what is kept is to be dropped."""
        if self.running or self.posted or self.tried or self.closing or self.next_us < self.looks_us:
            return True
        return self.in_the_middle or self.core.awaits_answers(_now_us())

    # --- a turn -----------------------------------------------------------------------------------

    def turn_for(self, job: Job) -> int:
        """Of the caller of `job`: do what there is to do. How long to sleep then, in milliseconds; OVER where the job
        is."""
        self.in_the_middle = True
        self._take_up()
        if not job.is_over:
            now_us = _now_us()
            self.links.send(now_us)
            self.crowd.wake_all()
            return self.before_sleep(now_us)
        self.in_the_middle = False
        return OVER

    def leave_the_rest(self) -> None:
        """Of a caller whose job is over: to the loop's own thread."""
        self.in_the_middle = True
        self.crowd.wake_all()
        self.next_us = self.links.due_us(_now_us())
        self.in_the_middle = False

    def turn_for_all(self) -> int:
        """Of the loop's own thread: as `turn_for`, and OVER where there is nothing to wait for."""
        self.in_the_middle = True
        self._take_up()
        now_us = _now_us()
        self.links.send(now_us)
        if self.crowd.ended:
            self.crowd.wake_together(_now_us())
        if not (self.running or self.core.awaits_answers(now_us) or now_us < self.crowd.until_us):
            self.crowd.expect_nobody()
            self.looks_us = min(self.links.due_us(now_us), now_us + TURN_US_MAX)
            self.in_the_middle = False
            return OVER
        return self.before_sleep(now_us)

    def before_sleep(self, now_us: int) -> int:
        """For how many milliseconds, unless something comes before."""
        timeout_us = max(0, min(self.links.due_us(now_us) - now_us, TURN_US_MAX))
        if self.links.is_changed:
            self._watch()
        expected = self.crowd.expected
        if expected:
            timeout_us = min(timeout_us, RETURN_US)
        self.in_the_middle = False  # First: what is thrown here from now on disturbs nothing.
        self.asleep = True
        # Whoever posts something looks whether it sleeps afterwards: one of the two sees the other.
        if len(self.posted) >= max(1, expected) or self.going_on or self.tried or self.closing:
            timeout_us = 0
        return -(-timeout_us // 1_000)

    def sleeps_on(self, came: int) -> bool:
        """While callers come back (`came` of them had, the last time): the time is up only when there was none for
        RETURN_US."""
        return came < len(self.posted) < self.crowd.expected and _now_us() < self.crowd.expected_until_us

    def after_sleep(self, ready: list[tuple[int, int]]) -> None:
        """Take in what has come to those descriptors."""
        self.in_the_middle = True
        self.asleep = False
        for descriptor, _ in ready:
            if descriptor == self._wake_reader:
                os.read(descriptor, 4_096)
                continue
            link = self._watched.get(descriptor)
            if link is not None and link.connected:
                self.links.receive(link, _now_us())
        self.in_the_middle = False

    def _take_up(self) -> None:
        """Begin what was posted, and go on with what was answered."""
        self.take_posted()
        if self.tried or not self.links.all_stand:
            self._take_tried()
        self.go_on()

    def _take_tried(self) -> None:
        while self.tried:
            link, error = self.tried.popleft()
            self.links.connected(link, error, _now_us())
        self.to_connect += self.links.to_connect(_now_us())

    # --- connections ------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Poll for what the connections wait for now."""
        self._watched = {link.channel.fileno(): link for link in self.links.links.values() if link.connected}
        wanted: dict[int, int] = {self._wake_reader: select.POLLIN}
        is_full = False
        for descriptor, link in self._watched.items():
            wanted[descriptor] = select.POLLIN
            if link.channel.wants_write:
                is_full = True
                wanted[descriptor] = select.POLLIN | select.POLLOUT
        self.links.is_changed = is_full
        if wanted != self._polled:
            self._polled, self.poll = wanted, Poll(wanted)

    def _watch_nothing(self) -> None:
        self._watched = {}
        self._polled = {self._wake_reader: select.POLLIN}
        self.poll = Poll(self._polled)

    # --- jobs -------------------------------------------------------------------------------------

    def take_posted(self) -> None:
        posted, running, crowd = self.posted, self.running, self.crowd
        if crowd.expected:
            crowd.note_returned(len(posted), _now_us())
        while posted:
            job, left_with = posted[0]
            if left_with is not None:
                posted.popleft()
                self.leave(job, left_with)
            elif job.is_over or job in running:
                posted.popleft()  # An interrupt came between the next two lines, once.
            else:
                running[job] = None
                posted.popleft()
                self._step(job, None)
                if len(running) > 1:
                    crowd.note(_now_us())

    def go_on(self) -> None:
        while self.going_on:
            job = self.going_on.popleft()
            if not job.is_over:
                self._step(job, None)

    def _step(self, job: Job, throw: BaseException | None) -> None:
        """Run the job's flow until it has ended, or waits for a call that is not done."""
        flow, call = job.flow, job.call
        value: Any = None
        while True:
            if throw is None and call is not None:
                value = call.outcome
                throw = value if isinstance(value, BaseException) else None
            call, value, error = advance(flow, value, throw)
            if call is None:
                # Here, too, with nothing called: where `end` is struck as it begins, what it came to is not lost.
                job.value, job.error, job.is_over = value, error, True
                self.end(job, value, error)
                if isinstance(error, (RecursionError, MemoryError)):
                    raise error  # It may have struck in the core, for which the flow asked; it is no answer of that.
                return
            throw = None
            if not call.done:
                job.call = call
                call.when_done(job.answered)
                return

    def end(self, job: Job, value: Any, error: BaseException | None) -> None:
        if not job.is_over:  # Else it was ended before, and something struck on the next line.
            job.value, job.error = value, error
            job.is_over = True
        self.crowd.ended.append(job)
        self.running.pop(job, None)

    def leave(self, job: Job, error: BaseException) -> None:
        """The caller left: its flow cleans up, or what it came to is undone."""
        if not job.is_over:
            # Not its own error, which the flow might take for an answer to what it asked.
            self._step(job, Left(repr(error)))
        undo, job.undo = job.undo, None
        if job.is_over and job.error is None and undo is not None:
            undo(self.core, job.value)

    # --- ends -------------------------------------------------------------------------------------

    def begin_anew(self, error: BaseException) -> None:
        """Something went wrong in the middle of the work: what was asked fails, and the connections begin anew. Where
        something goes wrong here, too, it is in the middle still, and whoever works next begins anew."""
        self.links.begin_anew(_now_us())
        self.to_connect.clear()  # Others are in the place of these.
        self._watch_nothing()
        self.asleep = False
        self.fail_all(Unavailable(f"a defect in the client: {error!r}"))
        self.in_the_middle = False

    def fail_all(self, error: Unavailable) -> None:
        """Nothing asked goes on: neither what the core knows of, nor a flow that it lost."""
        self.core.fail_all(error)
        self.take_posted()
        self.go_on()
        for job in [*self.running]:
            close(job.flow)
            self.end(job, None, error if job.call is None else given_up(job.call, error))
        self.crowd.wake_all()
        self.crowd.expect_nobody()
