"""The client for threads. One thread of its own keeps the connections and the leases, and runs what callers ask.

A `Client` is shared by any number of threads, and what they ask at the same time leaves in one message. A caller hands
its flow over and sleeps until it has ended: two hand-overs between threads a question, whatever it takes, and no lock
that callers and the connections' thread could fight for. In a forked child it begins anew, with sessions of its own: a
lease belongs to the process that took it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from random import Random, SystemRandom
from typing import Any, Final, Self

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Sync, T
from coordinator.client.calls import Call
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import WITHDRAW_US_MAX, Core
from coordinator.client.errors import Closed, ConclaveError, Unavailable
from coordinator.client.flows import Flow, Grant
from coordinator.client.lease import LeaseState
from coordinator.client.links import Links
from coordinator.client.surface import Surface
from coordinator.statemachine import commands

CLOSE_US: Final = 2_000_000
TURN_US_MAX: Final = 1_000_000

logger = logging.getLogger(__name__)


class Lease:
    """A lock that this client holds. `token` is the fencing token to send along with every write it guards."""

    def __init__(self, client: Client, grant: Grant) -> None:
        self._client = client
        self._state = LeaseState(grant, _now_us)
        self.name = grant.name
        self.token = grant.token
        self.session = grant.session.session
        self.acquisition = grant.acquisition

    @property
    def held(self) -> bool:
        """Can it be proven held now?"""
        return self._state.held

    @property
    def expires_in(self) -> float:
        """Seconds for which it can be proven held if no leader confirms it again."""
        return self._state.expires_in

    def check(self) -> None:
        """Raises LeaseLost unless it can be proven held at this moment. Costs no round trip."""
        self._state.check()

    def release(self, *, timeout: float | None = None) -> bool:
        """Let go. True where it was still held. Raises OutcomeUnknown, and goes on trying in the background."""
        self._state.released = True
        return self._state.is_own and bool(self._client._release(self._state.grant, timeout))

    def __repr__(self) -> str:
        return f"<Lease {self.name!r} token={self.token}{'' if self.held else ' not held'}>"


class _Job:
    """A flow on its way, and the caller that sleeps until it has ended."""

    __slots__ = ("_ended", "call", "error", "flow", "is_over", "loop", "release", "undo", "value")

    def __init__(self, loop: _Loop, flow: Flow, undo: _Undo | None) -> None:
        """`undo`: what is to be done with the flow's value where its caller has left before it could take it."""
        self.loop = loop
        self.flow = flow
        self.undo = undo
        self.call: Call | None = None
        """What the flow waits for."""
        self.is_over = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()
        self.release = self._ended.release
        """Wakes the caller; once, when it is over."""

    def answered(self, call: Call) -> None:
        """Its call is done: it goes on when the connections' thread has taken in all that came."""
        self.loop.going_on.append(self)

    def wait(self) -> Any:
        """The flow's value, or what it raised. On the caller's thread."""
        try:
            self._ended.acquire()
        except BaseException as error:
            self.loop.post(self, error)
            raise
        if self.error is not None:
            raise self.error
        return self.value


_Undo = Callable[[Core, Any], None]


class _Loop(threading.Thread):
    """The connections' thread. It alone touches the core."""

    def __init__(self, settings: options.Options) -> None:
        super().__init__(name="conclave-client", daemon=True)
        random = Random(SystemRandom().getrandbits(256))  # noqa: S311 - jitter, and numbers that need only be unique
        self.core = Core(settings.token, settings.cluster, random)
        self.going_on: deque[_Job] = deque()
        """Jobs whose call is done."""
        self._links = Links(self.core, settings.url, random)
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_reader, select.POLLIN)
        self._polled: dict[int, int] = {}
        """Descriptor of a connection to the events that are polled for."""
        self._posted: deque[tuple[_Job, BaseException | None]] = deque()
        """From other threads: jobs that begin, or what their caller left with."""
        self._running: dict[_Job, None] = {}
        self._ended: list[_Job] = []
        """Jobs that are over, and whose callers are woken at the end of the turn."""
        self._asleep = False
        self._closing = False
        self._is_over = False

    # --- on callers' threads ----------------------------------------------------------------------

    def post(self, job: _Job, left_with: BaseException | None = None) -> None:
        """Hand over a job that begins, or that its caller has left (interrupted, cancelled)."""
        self._posted.append((job, left_with))
        self._wake()
        if self._is_over:
            self._refuse_posted()

    def close(self) -> None:
        self._closing = True
        self._wake()
        self.join(CLOSE_US / 1e6)

    def _wake(self) -> None:
        # Appended first and looked at afterwards, here and in `_turn`: one of the two sees the other.
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # Full: it wakes anyway. Closed: whoever posts looks at `_is_over`.
                os.write(self._wake_writer, b"\0")

    # --- on its own -------------------------------------------------------------------------------

    def run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception as error:
                logger.exception("a defect in the client's loop; everything asked fails, and it goes on")
                self._links.close()
                self._fail_all(Unavailable(f"a defect in the client: {error!r}"))
        self._links.close()
        self._fail_all(Closed())
        self._is_over = True
        self._refuse_posted()
        os.close(self._wake_reader)
        writer, self._wake_writer = self._wake_writer, -1
        os.close(writer)

    def _turn(self) -> None:
        self._take_posted()
        for link in self._links.to_connect(_now_us()):
            self._links.connected(link, self._links.connect(link), _now_us())
        self._go_on()
        self._links.send(_now_us())
        if self._ended:
            self._wake_ended()
        now_us = _now_us()
        timeout_us = max(0, min(self._links.due_us(now_us) - now_us, TURN_US_MAX))
        self._watch()
        self._asleep = True
        if self._posted or self._closing:
            timeout_us = 0
        ready = self._poll.poll(timeout_us / 1_000)
        self._asleep = False
        for descriptor, _ in ready:
            if descriptor == self._wake_reader:
                os.read(self._wake_reader, 4_096)
                continue
            for link in self._links.links.values():
                if link.channel.connected and link.channel.fileno() == descriptor:
                    self._links.receive(link, _now_us())
                    break

    def _watch(self) -> None:
        """Poll for what the connections wait for now."""
        wanted = {
            link.channel.fileno(): select.POLLIN | (select.POLLOUT if link.channel.wants_write else 0)
            for link in self._links.links.values()
            if link.channel.connected
        }
        if wanted == self._polled:
            return
        for descriptor in self._polled.keys() - wanted.keys():
            self._poll.unregister(descriptor)
        for descriptor, events in wanted.items():
            self._poll.register(descriptor, events)
        self._polled = wanted

    def _take_posted(self) -> None:
        while self._posted:
            job, left_with = self._posted.popleft()
            if left_with is not None:
                self._leave(job, left_with)
            else:
                self._running[job] = None
                self._step(job)

    def _go_on(self) -> None:
        while self.going_on:
            job = self.going_on.popleft()
            if not job.is_over:
                self._step(job)

    def _step(self, job: _Job, throw: BaseException | None = None) -> None:
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

    def _end(self, job: _Job, value: Any, error: BaseException | None) -> None:
        job.is_over = True
        job.value, job.error = value, error
        self._running.pop(job, None)
        self._ended.append(job)

    def _leave(self, job: _Job, error: BaseException) -> None:
        """The caller left: its flow cleans up, or what it came to is undone."""
        if not job.is_over:
            self._step(job, error)
        if job.is_over and job.error is None and job.undo is not None:
            job.undo(self.core, job.value)

    def _wake_ended(self) -> None:
        """After the sending, and all at once: they run while this thread sleeps, and what they ask next leaves as one
        packet."""
        ended, self._ended = self._ended, []
        for job in ended:
            job.release()

    def _fail_all(self, error: Unavailable) -> None:
        """Nothing asked goes on: neither what the core knows of, nor a flow that it lost."""
        self.core.fail_all(error)
        self._take_posted()
        self._go_on()
        for job in [*self._running]:
            self._end(job, None, error)
        self._wake_ended()

    def _refuse_posted(self) -> None:
        """This thread has ended; what was posted meanwhile is refused, by whoever notices."""
        with contextlib.suppress(IndexError):
            while True:
                job, left_with = self._posted.popleft()
                if left_with is None:
                    job.error = Closed()
                    job.release()


class Client(Surface[Sync], Sync):
    """Locks and keys of one cluster, for threads.

    with Client() as client, client.lock("deploy", ttl=15, wait=30) as lease:
        write(..., fence=lease.token)
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        cluster: str = "default",
        timeout: float = options.DEFAULT_TIMEOUT_S,
    ) -> None:
        """`url` and `token` default to CONCLAVE_URL and CONCLAVE_TOKEN; a question may take `timeout` seconds.
        Connects at the first question. Raises InvalidRequest."""
        super().__init__(self)
        self._options = options.resolve(url, token, cluster, timeout)
        self.timeout_us = self._options.timeout_us
        self._starting = threading.Lock()
        self._loop: _Loop | None = None
        self._pid = 0
        self._closed = False

    # --- locks ------------------------------------------------------------------------------------

    def acquire(self, name: str, *, ttl: float = options.DEFAULT_TTL_S, wait: float | None = None) -> Lease:
        """Take the lock `name`. `ttl` seconds after this process dies it is free; until then it is renewed.

        `wait` seconds in line at the most: 0 does not wait, None waits as long as it takes. Raises LockNotAcquired,
        Unavailable, Forbidden, InvalidRequest.
        """
        name, ttl_ms, wait_us = options.name(name), options.ttl_ms(ttl), options.wait_us(wait)
        timeout_us = self.timeout_us
        grant = self._run(lambda core: flows.acquire(core, _now_us, name, ttl_ms, wait_us, timeout_us), _give_back)
        return Lease(self, grant)

    @contextlib.contextmanager
    def lock(self, name: str, *, ttl: float = options.DEFAULT_TTL_S, wait: float | None = None) -> Iterator[Lease]:
        """Hold the lock `name` for the length of a `with`; see `acquire`."""
        lease = self.acquire(name, ttl=ttl, wait=wait)
        try:
            yield lease
        finally:
            if not lease._state.released:
                try:
                    lease.release()
                except ConclaveError as error:
                    logger.warning("lock %r is still being released: %s", lease.name, error)

    def _release(self, grant: Grant, timeout: float | None) -> Any:
        deadline_us = self.deadline_us(timeout)
        return self._run(lambda core: flows.release(core, _now_us, grant, deadline_us))

    @property
    def cluster_id(self) -> int:
        """The identity of the cluster, once a node has told it; 0 before."""
        return self._loop.core.routing.cluster if self._loop is not None else 0

    def close(self) -> None:
        """End this client's sessions, and with them what they hold."""
        with self._starting:
            loop, self._loop, self._closed = self._loop, None, True
        if loop is None or self._pid != os.getpid():
            return
        try:
            if loop.core.sessions:
                self._drive(loop, flows.close(loop.core, _now_us, CLOSE_US))
        finally:
            loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the shell --------------------------------------------------------------------------------

    def answer(self, ask: Ask[T]) -> T:
        answer: T = self._run(ask.flow, ask.undo)
        return answer

    def spawn(self, ask: Ask[Any]) -> None:
        loop = self._started()
        loop.post(_Job(loop, ask.flow(loop.core), None))

    def _started(self) -> _Loop:
        loop = self._loop
        if loop is not None and self._pid == os.getpid():
            return loop
        with self._starting:
            if self._closed:
                raise Closed
            if self._loop is None or self._pid != os.getpid():
                self._loop = _Loop(self._options)
                self._pid = os.getpid()
                self._loop.start()
            return self._loop

    def _run(self, flow: Callable[[Core], Flow], undo: _Undo | None = None) -> Any:
        loop = self._started()
        return self._drive(loop, flow(loop.core), undo)

    @staticmethod
    def _drive(loop: _Loop, flow: Flow, undo: _Undo | None = None) -> Any:
        """Have a flow run on the connections' thread, and wait for its end."""
        job = _Job(loop, flow, undo)
        loop.post(job)
        return job.wait()


def _give_back(core: Core, grant: Grant) -> None:
    """A grant that its caller has not taken goes back (history 9)."""
    if not grant.session.gone:
        op = commands.ReleaseLock(grant.name, grant.acquisition)
        core.command(grant.session, op, _now_us(), _now_us() + WITHDRAW_US_MAX)
