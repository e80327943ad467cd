"""The client for threads. A thread of its own keeps the leases, and runs what many callers ask at the same time.

A `Client` is shared by any number of threads, and what they ask at the same time leaves in one message. A caller that
is alone sends and listens itself, so that no other thread need be woken; others hand their flow over and sleep until it
has ended: two hand-overs between threads a question, whatever it takes, and no lock that callers could fight for. In a
forked child it begins anew, with sessions of its own: a lease belongs to the process that took it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from types import BuiltinFunctionType
from typing import Any, Self

from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Sync, T
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import Core
from coordinator.client.errors import Closed, ConclaveError, LeaseLost
from coordinator.client.flows import Grant
from coordinator.client.jobs import Job
from coordinator.client.lease import LeaseState
from coordinator.client.loop import CLOSE_US, Loop
from coordinator.client.session import process
from coordinator.client.stack import must_have_room_to_ask
from coordinator.client.surface import Surface
from coordinator.statemachine import commands, lock_commands

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
        """Raises LeaseLost unless its session can be proven alive at this moment. Costs no round trip: that it was
        taken away by force (Broken) is known once this client has been told."""
        self._state.check()

    def sequencer(self) -> str:
        """`name:exclusive:token`, for a third party to check (`Locks.check_sequencer`)."""
        return lock_commands.sequencer(self.name, lock_commands.EXCLUSIVE, self.token)

    def release(self, *, timeout: float | None = None) -> bool:
        """Let go. True where it was still held. Raises InvalidRequest, and OutcomeUnknown: then it goes on trying in
        the background."""
        deadline_us = self._client.deadline_us(timeout)  # First: what is refused here has let go of nothing.
        must_have_room_to_ask()
        try:
            self._state.released = True
            return self._state.is_own and self._client._release(self._state, deadline_us)
        except ConclaveError as error:
            if lock_flows.was_not_done(error):  # Nor goes on: a defect may have ended it before it began.
                self._client._let_go(self._state)
            raise
        except BaseException:
            self._client._let_go(self._state)
            raise

    def __repr__(self) -> str:
        return f"<Lease {self.name!r} token={self.token}{'' if self.held else ' not held'}>"


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
        cache: bool = False,
    ) -> None:
        """`url` and `token` default to CONCLAVE_URL and CONCLAVE_TOKEN; a question may take `timeout` seconds. `cache`:
        what `get`, `files.read` and `files.stat` tell of now is kept, and costs no round trip until it changes.
        Connects at the first question. Raises InvalidRequest."""
        super().__init__(self)
        self._options = options.resolve(url, token, cluster, timeout)
        self.timeout_us = self._options.timeout_us
        self.caches = cache
        self._starting: dict[tuple[int, int], Any] = {}
        """By process: who starts its loop. A lock that another thread held at a fork is never let go in the child."""
        self._loop: Loop | None = None
        self._closed = False

    # --- locks ------------------------------------------------------------------------------------

    def acquire(
        self,
        name: str,
        *,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        refuse_deadlocks: bool = True,
    ) -> Lease:
        """Take the lock `name`. `ttl` seconds after this process dies it is free; until then it is renewed.

        `wait` seconds in line at the most: 0 does not wait, None waits as long as it takes. `refuse_deadlocks`: where
        the caller holds something, refuse to wait where that would close a cycle of sessions; see `Locks.acquire`.
        Raises LockNotAcquired, Deadlock (with the cycle), Unavailable, Forbidden, InvalidRequest.
        """
        name, ttl_ms, wait_us = options.name(name), options.ttl_ms(ttl), options.wait_us(wait)
        timeout_us = self.timeout_us
        may_refuse = hands.may_close_a_cycle(refuse_deadlocks)
        must_have_room_to_ask()
        loop = self._started()
        if may_refuse and wait_us != 0:
            hands.InHand((name,), self.asker()).refuse_to_wait(loop.core.sessions)
        asked = flows.acquire(loop.core, _now_us, name, ttl_ms, wait_us, timeout_us, refuse_deadlocks=may_refuse)
        job = Job(loop, asked, _give_back)
        place = hands.place(self.asker())
        try:
            lease = Lease(self, loop.ask(job))
            place.state, place.is_asked_for = lease._state, False
            return lease
        except BaseException as error:
            place.state, place.is_asked_for = None, False
            if error is not job.error:
                loop.post(job, error)
            raise

    @contextlib.contextmanager
    def lock(
        self,
        name: str,
        *,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        refuse_deadlocks: bool = True,
    ) -> Iterator[Lease]:
        """Hold the lock `name` for the length of a `with`; see `acquire`. Where it was not held any more at its end,
        and nothing was raised in it, it raises LeaseLost: what was done last nothing has guarded."""
        lease, is_whole = None, False
        try:
            lease = self.acquire(name, ttl=ttl, wait=wait, refuse_deadlocks=refuse_deadlocks)
            yield lease
            is_whole = True
        finally:
            try:
                if lease is not None and not lease._state.released and lease.release() is False and is_whole:
                    self._say_lost(lease._state)
            except LeaseLost:
                raise
            except ConclaveError as error:
                logger.warning("lock %r is still being released: %s", name, error)
            except BaseException:
                if lease is not None:
                    self._let_go(lease._state)
                raise

    def _release(self, state: LeaseState, deadline_us: int) -> bool:
        loop = self._started()
        return bool(loop.ask(Job(loop, flows.release(loop.core, _now_us, state.grant, deadline_us), None)))

    def _say_lost(self, state: LeaseState) -> None:
        """Raises LeaseLost, unless this is a fork of the process that held it."""
        if state.is_own:
            self.answer(Ask(lambda core: lock_flows.say_lost(core, _now_us, state.grant)))

    def _let_go(self, state: LeaseState) -> None:
        """Something was thrown into the caller, perhaps before it had asked: it goes back in the background."""
        state.released, grant = True, state.grant
        if not state.is_own:
            return
        with contextlib.suppress(Closed):  # Then the session ends.
            self.spawn(Ask(lambda core: lock_flows.let_go(core, _now_us, grant)))

    @property
    def cluster_id(self) -> int:
        """The identity of the cluster, once a node has told it; 0 before."""
        loop = self._loop
        return loop.core.routing.cluster if loop is not None else 0

    def close(self) -> None:
        """End this client's sessions, and with them what they hold."""
        with self._starts():
            loop, self._loop, self._closed = self._loop, None, True
        if loop is not None and loop.process == process():
            loop.close(lambda core: flows.close(core, _now_us, CLOSE_US))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the shell --------------------------------------------------------------------------------

    def answer(self, ask: Ask[T]) -> T:
        loop = self._loop
        if ask.known is not None and loop is not None and loop.process == process():
            known = ask.known(loop.core)
            if known is not None:
                return known[0]
        must_have_room_to_ask()
        loop = self._started()
        try:
            if ask.begins is not None:
                ask.begins()
            answer: T = loop.ask(Job(loop, ask.flow(loop.core), ask.undo))
            return answer
        except ConclaveError as error:
            if ask.left is not None and lock_flows.was_not_done(error):  # A defect may have ended it before it began.
                ask.left()
            raise
        except BaseException:
            if ask.left is not None:
                ask.left()
            raise

    def spawn(self, ask: Ask[Any]) -> None:
        loop = self._started()
        loop.post(Job(loop, ask.flow(loop.core), None))

    def _started(self) -> Loop:
        loop = self._loop
        if loop is not None and loop.process == process():
            return loop
        with self._starts():
            if not (self._closed or self._has_loop()):
                self._start()
            loop = self._loop
            if loop is None:
                raise Closed
            return loop

    def _start(self) -> None:
        """A signal handler may come here, too, in the middle of this and on the same thread: who is ready first counts.
        A loop that did not start, or whose starter was interrupted, is nobody's."""
        if not isinstance(threading.get_ident, BuiltinFunctionType):  # Theirs is of Python, or of Cython.
            raise RuntimeError("threads are patched here (gevent, eventlet); this client needs those of the system")
        if sys.is_finalizing():
            raise Closed  # A thread that is started now never runs, and is waited for without end.
        loop = Loop(self._options)
        try:
            loop.start()
            if not (self._closed or self._has_loop()):
                self._loop = loop
        finally:
            if self._loop is not loop:
                loop.abandon()

    def _has_loop(self) -> bool:
        return self._loop is not None and self._loop.process == process()

    def _starts(self) -> Any:
        """Whoever holds it starts the loop, or ends it."""
        return self._starting.setdefault(process(), threading.RLock())


def _give_back(core: Core, grant: Grant) -> None:
    """A grant that its caller has not taken goes back (history 9)."""
    if not grant.session.gone:
        op = commands.ReleaseLock(grant.name, grant.acquisition)
        core.in_background(grant.session, op, _now_us())
