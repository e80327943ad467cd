"""The client for asyncio. It lives in the event loop that first uses it, and any number of its tasks share it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from random import SystemRandom
from typing import Any, Final, NamedTuple, Self

from coordinator.channel import ChannelError
from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Async, T
from coordinator.client.calls import Call
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import Core
from coordinator.client.errors import Closed, ConclaveError, LeaseLost, Unavailable
from coordinator.client.flows import Flow, Grant
from coordinator.client.lease import LeaseState
from coordinator.client.links import Link, Links
from coordinator.client.rest import Rest
from coordinator.client.session import process
from coordinator.client.surface import Surface
from coordinator.statemachine import lock_commands

CLOSE_US: Final = 2_000_000
_ELSEWHERE: Final = "an AsyncClient belongs to the event loop that first used it, and to its process"

logger = logging.getLogger(__name__)


def _set(future: asyncio.Future[None], call: Call) -> None:
    if not future.done():
        future.set_result(None)


class AsyncLease:
    """A lock that this client holds. `token` is the fencing token to send along with every write it guards."""

    def __init__(self, client: AsyncClient, grant: Grant) -> None:
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
        """Raises LeaseLost unless its session can be proven alive at this moment. Costs no round trip: that it was
        taken away by force (Broken) is known once this client has been told."""
        self._state.check()

    def sequencer(self) -> str:
        """`name:exclusive:token`, for a third party to check (`Locks.check_sequencer`)."""
        return lock_commands.sequencer(self.name, lock_commands.EXCLUSIVE, self.token)

    async def release(self, *, timeout: float | None = None) -> bool:
        """Let go. True where it was still held. Raises InvalidRequest, and OutcomeUnknown: then it goes on trying in
        the background."""
        deadline_us = self._client.deadline_us(timeout)  # First: what is refused here has let go of nothing.
        if not self._state.is_own:
            self._state.released = True
            return False
        self._client._started()
        self._state.released = True
        return bool(await self._client._release(self._state.grant, deadline_us))

    def __repr__(self) -> str:
        return f"<AsyncLease {self.name!r} token={self.token}{'' if self.held else ' not held'}>"


class _Pump:
    """The connections, on one event loop: sends once an iteration, whatever was asked in it."""

    def __init__(self, settings: options.Options, loop: asyncio.AbstractEventLoop) -> None:
        random = SystemRandom()
        self.core = Core(settings.token, settings.cluster, random)
        self.loop = loop
        self.process = process()
        """What it knows is its own process' alone: nobody tells a forked child to drop what it keeps."""
        self._links = Links(self.core, settings.url, random)
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._turning: asyncio.Handle | None = None
        self._connecting: set[Link] = set()
        self._all_tried: asyncio.Future[None] | None = None
        """Where it is closed: done once nothing is being connected any more."""
        self._watched: dict[Link, int] = {}
        self._rest = Rest()
        self._rests_until_us = 0
        self.closed = False

    def wake(self) -> None:
        """Send what is due at the end of this iteration."""
        if not self._soon and not self.closed:
            self._turning = self.loop.call_soon(self._turn)
            self._soon = True  # Behind it: what is thrown in between makes a turn more, and not none any more.

    def _turn(self) -> None:
        self._soon = False
        now_us = _now_us()
        if now_us < self._rests_until_us:
            self._wake_at(self._rests_until_us)
            return
        try:
            for link in self._links.to_connect(now_us):
                self._unwatch(link)
                self._connect(link)
            self._links.send(now_us)
            for link in self._links.links.values():
                self._watch(link)
            now_us = _now_us()
            self._wake_at(max(self._links.due_us(now_us), now_us + 1_000))
        except BaseException as error:
            self._cut_off(error)
            if not isinstance(error, Exception):
                raise

    def _cut_off(self, error: BaseException) -> None:
        """A defect, or what was thrown in from outside (Ctrl-C in a notebook, whose loop goes on): something may be
        half done, so everything asked fails, the connections begin anew, and leases are kept."""
        with contextlib.suppress(Exception):  # Of a handler of the log: what is asked must not wait for its mending.
            logger.error("a defect in the client's loop; everything asked fails, and it goes on", exc_info=error)
        now_us = _now_us()
        self._rests_until_us = now_us + self._rest.after_failure(now_us)
        for link in [*self._watched]:
            self._unwatch(link)
        self._links.begin_anew(now_us)
        self.core.fail_all(Unavailable(f"a defect in the client: {error!r}"))
        self._wake_at(self._rests_until_us)

    def _wake_at(self, time_us: int) -> None:
        wait_us = min(time_us - _now_us(), 1_000_000)
        before, self._timer = self._timer, self.loop.call_later(wait_us / 1e6, self.wake)
        if before is not None:
            before.cancel()

    def _connect(self, link: Link) -> None:
        """On a thread of its own: those of the loop's executor may be busy with their users' work for longer than a
        lease. And no task: whoever cancels all that there are, as at the end of a program, would leave it undone."""
        self._connecting.add(link)

        def connect() -> None:
            error = self._links.connect(link)
            try:
                self.loop.call_soon_threadsafe(self._connected, link, error)
            except RuntimeError:  # The loop is closed.
                link.channel.close()

        try:
            threading.Thread(target=connect, name="conclave-connect", daemon=True).start()
        except RuntimeError as no_thread:  # There are no more, or the interpreter ends.
            self._connected(link, ChannelError(f"could not connect: {no_thread}"))

    def _connected(self, link: Link, error: ChannelError | None) -> None:
        self._connecting.discard(link)
        if self.closed:
            link.channel.close()
            if self._all_tried is not None and not (self._connecting or self._all_tried.done()):
                self._all_tried.set_result(None)
            return
        self._links.connected(link, error, _now_us())
        self.wake()

    def _watch(self, link: Link) -> None:
        """Follow the link's socket, which is another one after each connection."""
        if not link.connected:
            self._unwatch(link)
            return
        descriptor = link.channel.fileno()
        if self._watched.get(link) != descriptor:
            self._unwatch(link)
            self._watched[link] = descriptor
            self.loop.add_reader(descriptor, self._readable, link)
        if link.channel.wants_write:
            self.loop.add_writer(descriptor, self._readable, link)
        else:
            self.loop.remove_writer(descriptor)

    def _unwatch(self, link: Link) -> None:
        descriptor = self._watched.pop(link, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):  # It is closed, and the system knows it no more.
                self.loop.remove_reader(descriptor)
            self.loop.remove_writer(descriptor)

    def _readable(self, link: Link) -> None:
        try:
            if link.connected:
                self._links.receive(link, _now_us())
            self._watch(link)
        except BaseException as error:
            self._cut_off(error)
            if isinstance(error, Exception):
                return
            raise
        self.wake()

    def figures(self) -> Figures:
        core = self.core
        return Figures(
            connected=self._links.any_connected,
            knows_leader=bool(core.routing.leader),
            calls_pending=core.calls_pending,
            sessions=sum(not session.gone for session in core.sessions.values()),
            leader_changes=core.routing.changes,
        )

    async def close(self) -> None:
        self.closed = True
        if self._turning is not None:
            self._turning.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.core.fail_all(Closed())
        for link in [*self._watched]:
            self._unwatch(link)
        if self._connecting:  # A resolver may take longer than anybody waits for the end.
            self._all_tried = self.loop.create_future()
            await asyncio.wait([self._all_tried], timeout=CLOSE_US / 1e6)
        self._links.close()

    def drop(self) -> None:
        """Its event loop has ended: nothing is said to anybody any more, and nothing is left open."""
        self.closed = True
        for session in self.core.sessions.values():
            session.gone = True
        self._links.close()


class Figures(NamedTuple):
    """What a client is about just now, for metrics."""

    connected: bool
    """To the Redis of its URL, or to one that a node named."""
    knows_leader: bool
    calls_pending: int
    sessions: int
    leader_changes: int
    """How often it heard of another leader, the first one included."""


class AsyncClient(Surface[Async], Async):
    """Locks and keys of one cluster, for asyncio.

    async with AsyncClient() as client, client.lock("deploy", ttl=15, wait=30) as lease:
        await write(..., fence=lease.token)
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        cluster: str = "default",
        timeout: float = options.DEFAULT_TIMEOUT_S,
        cache: bool = False,
    ) -> None:
        """`url` and `token` default to CONCLAVE_URL and CONCLAVE_TOKEN; a question may take `timeout` seconds. `cache`:
        what `get`, `files.read` and `files.stat` tell of now is kept, and costs no round trip until it changes.
        Connects at the first question. Raises InvalidRequest."""
        super().__init__(self)
        self._options = options.resolve(url, token, cluster, timeout)
        self.timeout_us = self._options.timeout_us
        self.caches = cache
        self._spawned: set[asyncio.Future[Any]] = set()
        self._pump: _Pump | None = None
        self._closed = False

    def figures(self) -> Figures:
        """What it is about just now. On its event loop."""
        if self._pump is not None:
            return self._pump.figures()
        return Figures(connected=False, knows_leader=False, calls_pending=0, sessions=0, leader_changes=0)

    # --- locks ------------------------------------------------------------------------------------

    async def acquire(
        self,
        name: str,
        *,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        refuse_deadlocks: bool = True,
    ) -> AsyncLease:
        """Take the lock `name`. `ttl` seconds after this process dies it is free; until then it is renewed.

        `wait` seconds in line at the most: 0 does not wait, None waits as long as it takes. A cancelled task leaves the
        queue. `refuse_deadlocks`: where the caller holds something, refuse to wait where that would close a cycle of
        sessions; see `Locks.acquire`. Raises LockNotAcquired, Deadlock (with the cycle), Unavailable, Forbidden,
        InvalidRequest.
        """
        name, ttl_ms, wait_us = options.name(name), options.ttl_ms(ttl), options.wait_us(wait)
        timeout_us = self.timeout_us
        may_refuse = hands.may_close_a_cycle(refuse_deadlocks)

        def flow(core: Core) -> Flow:
            if may_refuse and wait_us != 0:
                hands.InHand((name,), self.asker()).refuse_to_wait(core.sessions)
            return flows.acquire(core, _now_us, name, ttl_ms, wait_us, timeout_us, refuse_deadlocks=may_refuse)

        with hands.place(self.asker()) as place:
            lease = AsyncLease(self, await self._run(flow))
            place.state = lease._state
            return lease

    @contextlib.asynccontextmanager
    async def lock(
        self,
        name: str,
        *,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        refuse_deadlocks: bool = True,
    ) -> AsyncIterator[AsyncLease]:
        """Hold the lock `name` for the length of an `async with`; see `acquire`. Where it was not held any more at its
        end, and nothing was raised in it, it raises LeaseLost: what was done last nothing has guarded."""
        lease, is_whole = await self.acquire(name, ttl=ttl, wait=wait, refuse_deadlocks=refuse_deadlocks), False
        try:
            yield lease
            is_whole = True
        finally:
            if not lease._state.released:
                try:
                    if await lease.release() is False and is_whole and lease._state.is_own:
                        await self._run(lambda core: lock_flows.say_lost(core, _now_us, lease._state.grant))
                except LeaseLost:
                    raise
                except ConclaveError as error:
                    logger.warning("lock %r is still being released: %s", lease.name, error)

    async def _release(self, grant: Grant, deadline_us: int) -> Any:
        return await self._run(lambda core: flows.release(core, _now_us, grant, deadline_us))

    @property
    def cluster_id(self) -> int:
        """The identity of the cluster, once a node has told it; 0 before."""
        return self._pump.core.routing.cluster if self._pump is not None else 0

    async def aclose(self) -> None:
        """End this client's sessions, and with them what they hold. Where its event loop has ended before it, they are
        left to run out. Raises RuntimeError on another event loop than its own."""
        pump = self._pump
        is_own = pump is None or pump.process == process()
        if pump is not None and is_own and pump.loop is not asyncio.get_running_loop() and not pump.loop.is_closed():
            raise RuntimeError(_ELSEWHERE)
        self._pump, self._closed = None, True
        if pump is None or not is_own:
            return  # A forked child shares what its parent's event loop waits on, and would end that for both.
        if pump.loop.is_closed():
            pump.drop()
            return
        try:
            if pump.core.sessions:
                await self._drive(pump, flows.close(pump.core, _now_us, CLOSE_US))
        finally:
            await pump.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    # --- the shell --------------------------------------------------------------------------------

    async def answer(self, ask: Ask[T]) -> T:
        if ask.known is not None and self._pump is not None and self._pump.process == process():
            known = ask.known(self._pump.core)
            if known is not None:
                return known[0]
        pump = self._started()  # First: what is refused here has begun nothing.
        if ask.begins is not None:
            ask.begins()
        answer: T = await self._drive(pump, ask.flow(pump.core))
        return answer

    def spawn(self, ask: Ask[Any]) -> None:
        task = asyncio.ensure_future(self._run(ask.flow))
        self._spawned.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._spawned.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Closed):
            logger.debug("something in the background ended: %r", error)

    def _started(self) -> _Pump:
        if self._closed:
            raise Closed
        loop = asyncio.get_running_loop()
        if self._pump is None:
            self._pump = _Pump(self._options, loop)
        elif self._pump.loop is not loop or self._pump.process != process():
            raise RuntimeError(_ELSEWHERE)
        return self._pump

    async def _run(self, flow: Callable[[Core], Flow]) -> Any:
        pump = self._started()
        return await self._drive(pump, flow(pump.core))

    @staticmethod
    async def _drive(pump: _Pump, flow: Flow) -> Any:
        """Run a flow: each of its calls is awaited."""
        throw: BaseException | None = None
        value: Any = None
        while True:
            try:
                call = flow.throw(throw) if throw is not None else flow.send(value)
            except StopIteration as end:
                return end.value
            finally:
                pump.wake()
            throw, value = None, None
            if pump.closed and not call.done:
                throw = Closed()  # It was answered in the very moment of the end; what it asks next nobody sends.
                continue
            future: asyncio.Future[None] = pump.loop.create_future()
            call.when_done(partial(_set, future))
            try:
                await future
                value = call.result()
            except BaseException as error:  # noqa: BLE001 - a flow cleans up after all of them, and raises them again
                throw = error
