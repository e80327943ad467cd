"""What takes several questions: taking a lock, changing a key, asking every node. Written once for both shells.

A flow is a generator. It yields a `Call` and is sent the call's value, or has its error thrown in; its return value is
the answer. The sync shell blocks on each call, the async shell awaits it. Flows know no thread and no loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple

from coordinator import wire
from coordinator.client.calls import Call
from coordinator.client.core import Core
from coordinator.client.errors import (
    REFUSALS,
    Busy,
    ConclaveError,
    Deadlock,
    LockNotAcquired,
    NotFound,
    OutcomeUnknown,
    SessionGone,
    Unavailable,
    caused,
    refuse,
)
from coordinator.client.room import ends_something
from coordinator.client.session import Session
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import Holder

STATUS_US: Final = 500_000
"""How long a node has to say how it is."""
HOLDER_US: Final = 500_000
"""How long to ask who holds a lock that was not had in time; only the error's text is lost without."""

GATHER_US: Final = 300_000
"""How long to wait for the nodes that have not said yet who is there."""
GATHER_LOOK_US: Final = 5_000

Flow = Generator[Call, Any, Any]
Clock = Callable[[], int]

logger = logging.getLogger(__name__)


class Grant(NamedTuple):
    """A lock that this client's session holds."""

    session: Session
    name: str
    acquisition: int
    token: int
    names: tuple[str, ...] = ()
    """All of them, where it is of several; `name` is the first."""


def session(core: Core, clock: Clock, ttl_ms: int, deadline_us: int, *, persists: bool = False) -> Flow:
    """A session that was alive a moment ago. See `Core.session`. Who asks for each question looks for a live one itself
    before: to begin a flow costs more than that."""
    live = core.live_session(ttl_ms, clock())
    if live is not None:
        return live
    while True:
        found: Session | None = yield core.session(ttl_ms, clock(), deadline_us, persists=persists)
        if found is not None:
            return found


def command(
    core: Core,
    clock: Clock,
    op: commands.ClientOp,
    ttl_ms: int,
    deadline_us: int,
    act_for: str,
    read: Callable[[Any], Any] | None = None,
) -> Flow:
    """Apply `op` exactly once, under the numbers of the session for `ttl_ms`. Its result; or what `read` makes of it,
    and then one that is a refusal is raised."""
    own = core.live_session(ttl_ms, clock())
    if own is None:
        own = yield from session(core, clock, ttl_ms, deadline_us, persists=ends_something(op))
    try:
        result = yield core.command(own, op, clock(), deadline_us, act_for)
    except OutcomeUnknown as error:
        _note_gone(core, own, error)
        raise
    return result if read is None else _read(result, read)


def query(
    core: Core, clock: Clock, query: commands.Query, deadline_us: int, act_for: str, read: Callable[[Any], Any]
) -> Flow:
    """A linearizable read: what `read` makes of its result; one that is a refusal is raised."""
    return _read((yield core.query(query, clock(), deadline_us, act_for)), read)


def _read(result: Any, read: Callable[[Any], Any]) -> Any:
    # Looked at here, too: `refuse` is not compiled, and most results are none.
    return read(refuse(result) if type(result) in REFUSALS else result)


def _note_gone(core: Core, own: Session, error: OutcomeUnknown) -> None:
    """An answer (not a time-out) that says "unknown" means that the session of the request's number is gone."""
    if error.session_gone:
        core.lose_session(own)


def acquire(
    core: Core,
    clock: Clock,
    name: str,
    ttl_ms: int,
    wait_us: int | None,
    timeout_us: int,
    build: Callable[[int], commands.ClientOp] | None = None,
    *,
    refuse_deadlocks: bool = False,
) -> Flow:
    """Take the lock `name`, waiting in line for `wait_us` (None: as long as it takes). A Grant, or LockNotAcquired;
    Busy where there is no room for the question, and then nothing is left of it.

    `build` makes the command of an acquisition, where it is another than the exclusive one of this name; it names
    `name` among others. `refuse_deadlocks`: do not wait where that would close a cycle; it raises Deadlock then.
    """
    since_us = clock()
    until_us = None if wait_us is None else since_us + wait_us
    while True:
        answer_us = max(clock() + timeout_us, until_us or 0)
        own = core.live_session(ttl_ms, clock()) or (yield from session(core, clock, ttl_ms, answer_us))
        acquisition = own.next_acquisition()
        op = build(acquisition) if build is not None else _alone(name, acquisition, wait_us != 0, refuse_deadlocks)
        asked = core.command(own, op, clock(), answer_us)
        is_late = False
        try:
            result = yield asked
            if isinstance(result, commands.Queued):
                result = yield core.grant(own.session, name, acquisition, clock(), until_us)
            # Where this process stood still since it asked, the session may be gone, and with it the grant.
            if isinstance(result, commands.Granted) and (
                own.valid(clock()) or (yield core.revived(own, clock() + timeout_us)) is not None
            ):
                return Grant(own, name, acquisition, result.token, ())
            _raise_not_acquired(name, result)
        except (SessionGone, OutcomeUnknown) as error:
            # With the session went everything that this may have done: asking under a new one is no repetition.
            if isinstance(error, OutcomeUnknown) and not error.session_gone:
                core.withdraw(own, name, acquisition, asked.number, clock())
                raise
            core.lose_session(own)
            if until_us is not None and clock() >= until_us:
                raise caused(LockNotAcquired(name, None), error) from error
        except (Busy, Deadlock):
            raise  # Nothing was done, and nothing will be.
        except LockNotAcquired as too_late:
            if too_late.holder is not None:
                raise
            core.withdraw(own, name, acquisition, asked.number, clock())
            is_late = True
        except BaseException:
            # The caller left (cancelled, interrupted, refused): so does its waiter, and a grant under way goes back.
            core.abandon(asked)
            core.withdraw(own, name, acquisition, asked.number, clock())
            raise
        # Not within a handler: what is compiled, and yields there, leaves its error with whoever runs it, whose own
        # `raise` would raise it.
        if is_late:
            raise LockNotAcquired(name, (yield from _holder(core, clock, name)))


def _alone(name: str, acquisition: int, waits: bool, refuse_deadlocks: bool) -> commands.ClientOp:
    """The exclusive acquisition of one name."""
    if waits and refuse_deadlocks:
        return lock_commands.Acquire((name,), acquisition)
    return commands.AcquireLock(name, acquisition, waits)


def _raise_not_acquired(name: str, result: commands.Result | None) -> None:
    """Unless the line was cleared (NotHeld), or the grant broken, or its session gone, before it was heard of: then
    stand in line again."""
    if result is None:
        raise LockNotAcquired(name, None)
    if isinstance(result, commands.Held):
        raise LockNotAcquired(name, result.holder)
    if not isinstance(result, (commands.Granted, commands.NotHeld, lock_commands.Broken)):
        refuse(result)
        raise AssertionError(f"{result!r} answers no acquisition")


def _holder(core: Core, clock: Clock, name: str) -> Flow:
    try:
        view = yield core.query(commands.GetLock(name), clock(), clock() + HOLDER_US)
    except ConclaveError:
        return None
    holder: Holder | None = view.holder
    return holder


def release(core: Core, clock: Clock, grant: Grant, deadline_us: int) -> Flow:
    """Let go of a lock. True where it was still held. What is not answered in time goes on in the background."""
    if grant.session.gone:
        return False
    op: commands.ClientOp = commands.ReleaseLock(grant.name, grant.acquisition)
    if grant.names:
        op = lock_commands.Release(grant.names, grant.acquisition)
    asked = core.command(grant.session, op, clock(), deadline_us)
    try:
        result = yield asked
    except (SessionGone, OutcomeUnknown) as error:
        if isinstance(error, OutcomeUnknown) and not error.session_gone:
            core.withdraw(grant.session, grant.name, grant.acquisition, asked.number, clock())
            raise
        core.lose_session(grant.session)
        return False
    except BaseException:
        core.withdraw(grant.session, grant.name, grant.acquisition, asked.number, clock())
        raise
    return isinstance(result, commands.Done)


def wait_for_grant(
    core: Core, clock: Clock, name: str, owner: int, acquisition: int, until_us: int, act_for: str
) -> Flow:
    """Wait for the grant of an acquisition of any session that one may act for. None: it still waits."""
    core.room.check()
    result = yield core.grant(owner, name, acquisition, clock(), until_us, act_for, ask=True)
    if isinstance(result, commands.NotHeld):
        raise NotFound(f"acquisition {acquisition} of session {owner} neither holds {name!r} nor waits for it")
    return refuse(result)


def directory(core: Core, clock: Clock, deadline_us: int) -> Flow:
    """Who is there, as all nodes say that answer: each knows the clusters alone of which it hosts a replica."""
    since_us = clock()
    first: wire.Directory = yield core.directory(since_us, deadline_us)
    until_us = min(deadline_us, clock() + GATHER_US)
    while True:
        said = [each for at_us, each in core.directories.values() if at_us >= since_us]
        heard = {each.node for each in said}
        if heard >= set(core.routing.addresses) or clock() >= until_us:
            _forget_who_is_gone(core, since_us, heard, clock())
            return _merged(first, said)
        yield core.pause(clock() + GATHER_LOOK_US)


def _forget_who_is_gone(core: Core, since_us: int, answered: set[str], now_us: int) -> None:
    """Nodes that answered since then say who else there is; where none said that, nobody can tell who is gone."""
    said = [each for at_us, each in core.directories.values() if at_us >= since_us]
    if said:
        core.routing.are_there(answered.union(name for each in said for name, _ in each.nodes), now_us)


def _merged(first: wire.Directory, said: list[wire.Directory]) -> wire.Directory:
    """Of a cluster, what the node says that knows the highest term."""
    nodes: dict[str, str] = {}
    clusters: dict[int, wire.ClusterEntry] = {}
    for each in (first, *said):
        nodes.update(each.nodes)
        for entry in each.clusters:
            known = clusters.get(entry.cluster)
            if known is None or (entry.term, bool(entry.leader)) > (known.term, bool(known.leader)):
                clusters[entry.cluster] = entry
    return wire.Directory(first.id, first.node, tuple(nodes.items()), tuple(clusters.values()))


def status(core: Core, clock: Clock) -> Flow:
    """Every node's word on its replica of the cluster: node to ReplicaReport, or to None where it did not answer."""
    until_us = clock() + STATUS_US
    if not (core.routing.addresses and core.routing.cluster):
        yield from directory(core, clock, until_us)
        until_us = clock() + STATUS_US
    since_us = clock()
    core.directory(since_us, until_us)  # Of whom nobody speaks any more, and who does not answer, is gone.
    asked: dict[str, Call] = {}
    for node in sorted(core.routing.addresses):
        asked[node] = core.ask_node(node, lambda i: wire.StatusRequest(i, core.cluster_name), clock(), until_us)
    reports: dict[str, wire.ReplicaReport | None] = {}
    for node, call in asked.items():
        try:
            answer = yield call
        except Unavailable:
            reports[node] = None
            continue
        reports[node] = _waiting(core, node, answer) if isinstance(answer, wire.Refusal) else answer
    _forget_who_is_gone(core, since_us, {node for node, report in reports.items() if report is not None}, clock())
    return reports


def _waiting(core: Core, node: str, refusal: wire.Refusal) -> wire.ReplicaReport:
    """The report of a node without replicas, which can verify nobody and so signs nothing."""
    return wire.ReplicaReport(
        node=node,
        cluster=core.routing.cluster,
        cluster_name=core.cluster_name,
        replica=0,
        pid=refusal.pid,
        role="waiting",
        leader="",
        term=0,
        vote="",
        last_index=0,
        commit_index=0,
        applied_index=0,
        digest="",
        waiting_for=refusal.message,
        voters=(),
        drops={},
        faults_allowed=False,
    )


def crash(core: Core, clock: Clock, node: str, pid: int, deadline_us: int, act_for: str) -> Flow:
    """End the process `pid` of `node`. The answer may be lost with it: silence after the sending is success."""
    if not core.routing.cluster:
        yield core.directory(clock(), deadline_us)
    until_us = min(deadline_us, clock() + STATUS_US)
    asked = core.ask_node(node, lambda i: wire.CrashRequest(i, core.routing.cluster, act_for, pid), clock(), until_us)
    try:
        yield asked
    except Unavailable:
        if asked.first_sent_us is None:
            raise


def close(core: Core, clock: Clock, timeout_us: int) -> Flow:
    """End this client's sessions, so that what they hold is free at once."""
    until_us = clock() + timeout_us
    core.cache.clear()  # The cluster waits for that before it ends the session.
    closing = []
    for own in core.sessions.values():
        if not own.gone:
            own.gone = True  # First: from here on nobody may take a lease of it for good.
            closing.append(core.command(own, commands.CloseSession(), clock(), until_us))
    for call in closing:
        try:
            yield call
        except ConclaveError as error:
            logger.debug("a session was left to expire: %s", error)
