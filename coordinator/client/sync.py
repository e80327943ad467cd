"""The client for threads. A thread of its own keeps the leases, and runs what many callers ask at the same time.

A `Client` is shared by any number of threads, and what they ask at the same time leaves in one message. A caller that
is alone sends and listens itself, so that no other thread need be woken; others hand their flow over and sleep until it
has ended: two hand-overs between threads a question, whatever it takes, and no lock that callers could fight for. In a
forked child it begins anew, with sessions of its own: a lease belongs to the process that took it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from coordinator import wire
from coordinator.client import administration, flows, options
from coordinator.client.calls import Call
from coordinator.client.clock import now_us as _now_us
from coordinator.client.core import WITHDRAW_US_MAX, Core
from coordinator.client.errors import ConclaveError, NotFound, Unavailable
from coordinator.client.flows import Flow, Grant
from coordinator.client.lease import LeaseState
from coordinator.client.loop import CLOSE_US, Job, Loop, Undo
from coordinator.consensus.membership import Member
from coordinator.statemachine import commands

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
        return bool(self._client._release(self._state.grant, timeout))

    def __repr__(self) -> str:
        return f"<Lease {self.name!r} token={self.token}{'' if self.held else ' not held'}>"


class Client:
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
        self._options = options.resolve(url, token, cluster, timeout)
        self._starting = threading.Lock()
        self._loop: Loop | None = None
        self._pid = 0
        self._closed = False

    # --- locks ------------------------------------------------------------------------------------

    def acquire(self, name: str, *, ttl: float = options.DEFAULT_TTL_S, wait: float | None = None) -> Lease:
        """Take the lock `name`. `ttl` seconds after this process dies it is free; until then it is renewed.

        `wait` seconds in line at the most: 0 does not wait, None waits as long as it takes. Raises LockNotAcquired,
        Unavailable, Forbidden, InvalidRequest.
        """
        name, ttl_ms, wait_us = options.name(name), options.ttl_ms(ttl), options.wait_us(wait)
        timeout_us = self._options.timeout_us
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
        deadline_us = self._deadline_us(timeout)
        return self._run(lambda core: flows.release(core, _now_us, grant, deadline_us))

    # --- keys -------------------------------------------------------------------------------------

    def put(self, key: str, value: bytes) -> int:
        """Write a key; its new revision. Applied once, however often it is sent. Raises Unavailable."""
        op = commands.PutKey(options.name(key), options.key_value(value))
        return int(self.command(op).index)

    def get(self, key: str) -> bytes | None:
        """The value of a key, None where there is none. Linearizable: never older than what any client was told."""
        value: bytes | None = self.query(commands.GetKey(options.name(key))).value
        return value

    def delete(self, key: str) -> bool:
        """Delete a key. True where there was one."""
        return bool(self.command(commands.DeleteKey(options.name(key))).existed)

    # --- below the surface ------------------------------------------------------------------------

    def command(self, op: commands.ClientOp, *, act_for: str = "", timeout: float | None = None) -> Any:
        """Apply a command exactly once; its result. Refusals are raised (`errors.py`)."""
        deadline_us = self._deadline_us(timeout)
        ttl_ms = options.ttl_ms(options.DEFAULT_TTL_S)
        return self._run(lambda core: flows.command(core, _now_us, op, ttl_ms, deadline_us, act_for))

    def query(self, query: commands.Query, *, act_for: str = "", timeout: float | None = None) -> Any:
        """A linearizable read."""
        deadline_us = self._deadline_us(timeout)
        return self._ask(lambda core: core.query(query, _now_us(), deadline_us, act_for))

    def keep_alive(self, session: int, *, act_for: str = "", timeout: float | None = None) -> wire.KeptAlive:
        """Give a session its full time to live again. Sessions of this client are kept alive by themselves."""
        deadline_us = self._deadline_us(timeout)
        kept: wire.KeptAlive = self._ask(lambda core: core.keep_alive(session, _now_us(), deadline_us, act_for))
        return kept

    def wait_for_grant(
        self, name: str, owner: int, acquisition: int, *, wait: float, act_for: str = ""
    ) -> commands.Granted | None:
        """Wait for the grant of a queued acquisition. None where it still waits after `wait` seconds."""
        until_us = _now_us() + options.seconds("wait", wait, 0, options.WAIT_S_MAX)
        name = options.name(name)
        granted: commands.Granted | None = self._run(
            lambda core: flows.wait_for_grant(core, _now_us, name, owner, acquisition, until_us, act_for)
        )
        return granted

    def directory(self) -> wire.Directory:
        """Who is there, as the nodes say that answer at once."""
        deadline_us = self._deadline_us(None)
        found: wire.Directory = self._run(lambda core: flows.directory(core, _now_us, deadline_us))
        return found

    def status(self) -> dict[str, wire.ReplicaReport | None]:
        """Each node's own word on its replica; None where it did not answer within half a second."""
        reports: dict[str, wire.ReplicaReport | None] = self._run(lambda core: flows.status(core, _now_us))
        return reports

    def confirm(self, *, timeout: float | None = None) -> tuple[str, int]:
        """The leader's node and term, while a majority confirms it now. Raises Unavailable, saying why."""
        deadline_us = self._deadline_us(timeout)
        leader: tuple[str, int] = self._ask(lambda core: core.confirm(_now_us(), deadline_us))
        return leader

    def crash(self, node: str, *, act_for: str = "") -> None:
        """Fault injection: end the process of a node. Raises Forbidden, NotFound."""
        reports = self.status()
        report = reports.get(node)
        if node not in reports:
            raise NotFound(f"no node {node!r} here")
        if report is None:
            raise Unavailable(f"{node} does not answer")
        pid, deadline_us = report.pid, self._deadline_us(None)
        self._run(lambda core: flows.crash(core, _now_us, node, pid, deadline_us, act_for))

    @property
    def cluster_id(self) -> int:
        """The identity of the cluster, once a node has told it; 0 before."""
        return self._loop.core.routing.cluster if self._loop is not None else 0

    # --- what an operator asks: it takes the right to administer ----------------------------------

    def progress(self, *, act_for: str = "", timeout: float | None = None) -> wire.Progress:
        """The membership, and how far each member has come, as the leader sees it. Raises Forbidden, Unavailable."""
        deadline_us = self._deadline_us(timeout)
        seen: wire.Progress = self._run(lambda core: administration.progress(core, _now_us, deadline_us, act_for))
        return seen

    def change(
        self,
        seen: wire.Progress,
        voters: Sequence[Member],
        learners: Sequence[Member] = (),
        *,
        act_for: str = "",
        timeout: float | None = None,
    ) -> int:
        """Begin to make the membership what is said, where nobody has changed it since it was `seen`; the index of the
        first configuration on the way, which is not committed yet: look at `progress` for that.

        Whoever is new comes in as a learner first, and votes once it has caught up. Raises Refused, saying why.
        """
        deadline_us = self._deadline_us(timeout)
        done: commands.Done = self._run(
            lambda core: administration.change(core, _now_us, seen, voters, learners, deadline_us, act_for)
        )
        return done.index

    def transfer(self, node: str, *, act_for: str = "", timeout: float | None = None) -> int:
        """Hand the leadership to a node's replica, and wait until it leads; its term. Raises NotFound, Refused,
        Unavailable."""
        deadline_us = self._deadline_us(timeout)
        term: int = self._run(lambda core: administration.transfer(core, _now_us, node, deadline_us, act_for))
        return term

    def step_down(self, *, act_for: str = "", timeout: float | None = None) -> str:
        """Have the leader of now give up its leadership; its node."""
        deadline_us = self._deadline_us(timeout)
        node: str = self._run(lambda core: administration.step_down(core, _now_us, deadline_us, act_for))
        return node

    def compact(self, node: str, *, act_for: str = "", timeout: float | None = None) -> int:
        """Have a node take a snapshot now and cut its log behind it; the index. Raises NotFound, Refused."""
        deadline_us = self._deadline_us(timeout)
        done: commands.Done = self._run(lambda core: administration.compact(core, _now_us, node, deadline_us, act_for))
        return done.index

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

    def _deadline_us(self, timeout: float | None) -> int:
        timeout_us = self._options.timeout_us
        if timeout is not None:
            timeout_us = options.seconds("timeout", timeout, 0.01, options.TIMEOUT_S_MAX)
        return _now_us() + timeout_us

    def _started(self) -> Loop:
        loop = self._loop
        if loop is not None and self._pid == os.getpid():
            return loop
        with self._starting:
            if self._closed:
                raise Unavailable("the client was closed")
            if self._loop is None or self._pid != os.getpid():
                self._loop = Loop(self._options)
                self._pid = os.getpid()
                self._loop.start()
            return self._loop

    def _ask(self, ask: Callable[[Core], Call]) -> Any:
        def flow(core: Core) -> Flow:
            return (yield ask(core))

        return self._run(flow)

    def _run(self, flow: Callable[[Core], Flow], undo: Undo | None = None) -> Any:
        loop = self._started()
        return self._drive(loop, flow(loop.core), undo)

    @staticmethod
    def _drive(loop: Loop, flow: Flow, undo: Undo | None = None) -> Any:
        """Have a flow run to its end."""
        return loop.ask(Job(loop, flow, undo))


def _give_back(core: Core, grant: Grant) -> None:
    """A grant that its caller has not taken goes back (history 9)."""
    if not grant.session.gone:
        op = commands.ReleaseLock(grant.name, grant.acquisition)
        core.command(grant.session, op, _now_us(), _now_us() + WITHDRAW_US_MAX)
