"""What every client can do, described once: keys, and what lies below the surface. `sync.py` and `aio.py` run it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from coordinator import wire
from coordinator.client import administration, events, flows, jeopardy, options, watches
from coordinator.client.access import Access
from coordinator.client.asking import DEFAULT_TTL_MS, Ask, Asking, Part, S, T, as_it_is, asked
from coordinator.client.calls import Call
from coordinator.client.core import Core
from coordinator.client.errors import InvalidRequest, NotFound, Unavailable
from coordinator.client.files import Files
from coordinator.client.flows import Clock
from coordinator.client.jeopardy import SessionHandle
from coordinator.client.locks import Locks
from coordinator.client.transactions import Transaction
from coordinator.consensus.members import Member
from coordinator.statemachine import commands
from coordinator.statemachine.files import AddToKey, ChangePage, ReadChanges
from coordinator.statemachine.lock_commands import ReadLockEvents


class Surface(Part[S]):
    @property
    def files(self) -> Files[S]:
        """Files, directories, ranges, watches."""
        return Files(self._shell)

    @property
    def locks(self) -> Locks[S]:
        """Locks in all modes."""
        return Locks(self._shell)

    @property
    def access(self) -> Access[S]:
        """Principals, roles, permissions, tokens, quotas."""
        return Access(self._shell)

    @asked
    def session(
        self,
        *,
        ttl: float = options.DEFAULT_TTL_S,
        grace: float = jeopardy.DEFAULT_GRACE_S,
        timeout: float | None = None,
    ) -> Ask[SessionHandle[S]]:
        """The session under which everything of this client with the same `ttl` lives, to be followed: whether it is
        safe, in jeopardy or expired. After `grace` seconds in jeopardy it expires for good."""
        return jeopardy.open_handle(self._shell, ttl, grace, timeout)

    @asked
    def transact(self, transaction: Transaction, *, timeout: float | None = None) -> Ask[commands.Transacted]:
        """Do a transaction (`transactions.py`): `succeeded` says whether its comparisons held, `results` are those of
        the branch that was taken. Raises Aborted where an operation is refused; then nothing was done."""
        if not isinstance(transaction, Transaction):
            raise InvalidRequest(f"what is done whole or not at all is a Transaction, got {transaction!r}")
        return self._command(transaction.build(), as_it_is, timeout=timeout)

    @asked
    def add(self, key: str, amount: int = 1, *, timeout: float | None = None) -> Ask[int]:
        """Add to a counter, a key whose value is a decimal number of 64 bits; the sum. Applied once, however often it
        is sent. Raises WrongKind, InvalidRequest (beyond 64 bits)."""
        op = AddToKey(options.name(key), options.amount(amount))
        return self._command(op, lambda counted: int(counted.value), timeout=timeout)

    # --- keys -------------------------------------------------------------------------------------

    @asked
    def put(self, key: str, value: bytes) -> Ask[int]:
        """Write a key; its new revision. Applied once, however often it is sent. Raises OutcomeUnknown, Unavailable."""
        return self._command(commands.PutKey(options.name(key), options.key_value(value)), _index)

    @asked
    def get(self, key: str) -> Ask[bytes | None]:
        """The value of a key, None where there is none. Linearizable: never older than what any client was told."""
        return self._kept_read(commands.GetKey(options.name(key)), _value)

    @asked
    def delete(self, key: str) -> Ask[bool]:
        """Delete a key. True where there was one."""
        return self._command(commands.DeleteKey(options.name(key)), _existed)

    # --- below the surface ------------------------------------------------------------------------

    @asked
    def command(self, op: commands.ClientOp, *, act_for: str = "", timeout: float | None = None) -> Ask[Any]:
        """Apply a command exactly once; its result. Failures are raised (`errors.py`)."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: flows.command(core, clock, op, DEFAULT_TTL_MS, deadline_us, act_for))

    @asked
    def query(self, query: commands.Query, *, act_for: str = "", timeout: float | None = None) -> Ask[Any]:
        """A linearizable read. Failures are raised."""
        return self._one(lambda core, clock, until_us: core.query(query, clock(), until_us, act_for), timeout)

    @asked
    def keep_alive(self, session: int, *, act_for: str = "", timeout: float | None = None) -> Ask[wire.KeptAlive]:
        """Give a session its full time to live again. Sessions of this client are kept alive by themselves."""
        session = options.identity("a session", session)
        return self._one(lambda core, clock, until_us: core.keep_alive(session, clock(), until_us, act_for), timeout)

    @asked
    def wait_for_grant(
        self, name: str, owner: int, acquisition: int, *, wait: float, act_for: str = ""
    ) -> Ask[commands.Granted | None]:
        """Wait for the grant of a queued acquisition. None where it still waits after `wait` seconds."""
        clock = self._shell.clock
        until_us = clock() + options.seconds("wait", wait, 0, options.WAIT_S_MAX)
        name, owner = options.name(name), options.identity("a session", owner)
        acquisition = options.identity("an acquisition", acquisition)
        return Ask(lambda core: flows.wait_for_grant(core, clock, name, owner, acquisition, until_us, act_for))

    @asked
    def wait_for_changes(self, query: ReadChanges, *, wait: float, act_for: str = "") -> Ask[ChangePage]:
        """A page of changes as soon as there are some; after `wait` seconds one without, which says where to go on. A
        Watch (`files.watch`) goes on by itself. Raises Compacted, Busy."""
        clock, wait_us = self._shell.clock, options.seconds("wait", wait, 0, options.WAIT_S_MAX)
        until_us = clock() + wait_us
        return Ask(lambda core: watches.next_changes(core, clock, query, until_us, act_for))

    @asked
    def wait_for_lock_events(
        self, query: ReadLockEvents, *, wait: float, term: int = 0, act_for: str = ""
    ) -> Ask[events.Heard]:
        """A page of events of locks as soon as there are some; after `wait` seconds one without, which says where to go
        on. With it comes by whose word: given the `term` of the page before, it is also told at once that another
        leader took over. An EventWatch (`locks.watch`) goes on by itself. Raises Compacted, Busy."""
        clock, wait_us = self._shell.clock, options.seconds("wait", wait, 0, options.WAIT_S_MAX)
        until_us = clock() + wait_us
        return Ask(lambda core: events.next_events(core, clock, query, until_us, term, act_for))

    @asked
    def directory(self) -> Ask[wire.Directory]:
        """Who is there, as the nodes say that answer at once."""
        return self._flow(flows.directory)

    @asked
    def status(self) -> Ask[dict[str, wire.ReplicaReport | None]]:
        """Each node's own word on its replica; None where it did not answer within half a second."""
        clock = self._shell.clock
        return Ask(lambda core: flows.status(core, clock))

    @asked
    def confirm(self, *, timeout: float | None = None) -> Ask[tuple[str, int]]:
        """The leader's node and term, while a majority confirms it now. Raises Unavailable, saying why."""
        return self._one(lambda core, clock, until_us: core.confirm(clock(), until_us), timeout)

    @asked
    def crash(self, node: str, *, act_for: str = "") -> Ask[None]:
        """Fault injection: end the process of a node. Raises Forbidden, NotFound."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(None)

        def flow(core: Core) -> Asking[None]:
            reports = yield from flows.status(core, clock)
            if node not in reports:
                raise NotFound(f"no node {node!r} here")
            if reports[node] is None:
                raise Unavailable(f"{node} does not answer")
            yield from flows.crash(core, clock, node, reports[node].pid, deadline_us, act_for)

        return Ask(flow)

    # --- what an operator asks: it takes the right to administer ----------------------------------

    @asked
    def progress(self, *, act_for: str = "", timeout: float | None = None) -> Ask[wire.Progress]:
        """The membership, and how far each member has come, as the leader sees it. Raises Forbidden, Unavailable."""
        return self._flow(administration.progress, act_for, timeout=timeout)

    @asked
    def change(
        self,
        seen: wire.Progress,
        voters: Sequence[Member],
        learners: Sequence[Member] = (),
        *,
        act_for: str = "",
        timeout: float | None = None,
    ) -> Ask[int]:
        """Begin to make the membership what is said, where nobody has changed it since it was `seen`; the index of the
        first configuration on the way, which is not committed yet: look at `progress` for that.

        Whoever is new comes in as a learner first, and votes once it has caught up. Raises Refused, saying why.
        """
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            return _index((yield from administration.change(core, clock, seen, voters, learners, deadline_us, act_for)))

        return Ask(flow)

    @asked
    def transfer(self, node: str, *, act_for: str = "", timeout: float | None = None) -> Ask[int]:
        """Hand the leadership to a node's replica, and wait until it leads; its term. Raises NotFound, Refused,
        Unavailable."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: administration.transfer(core, clock, node, deadline_us, act_for))

    @asked
    def step_down(self, *, act_for: str = "", timeout: float | None = None) -> Ask[str]:
        """Have the leader of now give up its leadership; its node."""
        return self._flow(administration.step_down, act_for, timeout=timeout)

    @asked
    def compact(self, node: str, *, act_for: str = "", timeout: float | None = None) -> Ask[int]:
        """Have a node take a snapshot at the next mark and cut its log there; the index. Raises NotFound, Refused."""
        node = options.node(node)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            return _index((yield from administration.compact(core, clock, node, deadline_us, act_for)))

        return Ask(flow)

    # --- how it is said ---------------------------------------------------------------------------

    def _one(self, ask: Callable[[Core, Clock, int], Call], timeout: float | None) -> Ask[Any]:
        """One question, whose outcome is the answer."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[Any]:
            return (yield ask(core, clock, deadline_us))

        return Ask(flow)

    def _flow(
        self, ask: Callable[..., Generator[Call, Any, T]], *arguments: Any, timeout: float | None = None
    ) -> Ask[T]:
        """A flow that takes the core, the clock and a deadline before its own arguments."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: ask(core, clock, deadline_us, *arguments))


def _index(done: commands.Done) -> int:
    return done.index


def _existed(done: commands.Done) -> bool:
    return done.existed


def _value(found: commands.KeyValue) -> bytes | None:
    return found.value
