"""The state machine of one cluster: what each entry of the log does. Same log, same state, on every replica.

`apply` takes entries in the order of their indices and gives each a result; `query` reads. Neither knows
time, the network or who leads. What the host must tell others (grants, sessions that began and ended) is left
in `events`, in order, for it to take.

A request is applied once by (session, number): its result is kept until the client says that it has it. Checks come in
this order: is the session there, was the number answered before, who asks and by which token, has it the right; then
the command. So a refusal never speaks for a request that an earlier copy brought to effect.

This module hands out; what a command does is in the module of its subject.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from mypy_extensions import mypyc_attr

from coordinator.statemachine import (
    access_views,
    administration,
    commands,
    files,
    lock_commands,
    lock_events,
    locking,
    permissions,
    quotas,
    reading,
    rights,
    sessions,
    snapshot,
    transactions,
    views,
)
from coordinator.statemachine.commands import Done, Entry, Failure, LockList, NodeCommand, Result
from coordinator.statemachine.events import Event, GrantMade, SessionBegan, SessionEnded, StateMarked
from coordinator.statemachine.items import Item
from coordinator.statemachine.lock_commands import Mode
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.performing import PERFORMERS
from coordinator.statemachine.principals import Access, Principal, access_of
from coordinator.statemachine.results import ALL_RESULT_BYTES_MAX
from coordinator.statemachine.sessions import RESULTS_MAX, Session
from coordinator.statemachine.state import State
from coordinator.statemachine.wanted import Wanted

_entries = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode


def stamp(principal: str, actor: str, token: str = "", for_token: str = "") -> tuple[bytes, bytes]:
    """What stands before and behind an encoded `Command` in an entry: who a node verified that it came from, and the
    tokens it was asked with."""
    head = _encode((commands.ENTRY_VERSION, principal, actor))
    return bytes([head[0] + 3]) + head[1:], _encode(token) + _encode(for_token)


def stamp_without_tokens(principal: str, actor: str) -> tuple[bytes, bytes]:
    """The same, for a cluster that is below level 3: some replica could not read more."""
    head = _encode((commands.ENTRY_VERSION, principal, actor))
    return bytes([head[0] + 1]) + head[1:], b""


def encode_entry(principal: str, actor: str, command: bytes, token: str = "", for_token: str = "") -> bytes:
    """An entry of an encoded `Command`, whose bytes stay as they are."""
    head, tail = stamp(principal, actor, token, for_token)
    return head + command + tail


_NODE_HEAD: Final = stamp_without_tokens("", "")[0]


def encode_node_entry(op: commands.NodeOp) -> bytes:
    """An entry in which the leader itself speaks."""
    head, tail = stamp_without_tokens("", "")
    return head + _encode(NodeCommand(0, 0, 0, op)) + tail


def level_from(entry: bytes, start: int = 0) -> int:
    """The level that its cluster has from this entry on, which begins at `start`; 0 where it says nothing of that."""
    if not entry.startswith(_NODE_HEAD, start):
        return 0
    try:
        op = _entries.decode(memoryview(entry)[start:]).command.op
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return op.level if isinstance(op, (commands.Genesis, commands.RaiseLevel)) else 0


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Machine:
    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()

    # --- what the host sees -----------------------------------------------------------------------

    @property
    def cluster_id(self) -> int:
        return self.state.cluster_id

    @property
    def cluster_name(self) -> str:
        return self.state.cluster_name

    @property
    def epoch(self) -> int:
        return self.state.epoch

    @property
    def applied(self) -> int:
        """The index of the last entry that was applied."""
        return self.state.applied

    @property
    def sessions(self) -> Mapping[int, Session]:
        """In the order of their opening."""
        return self.state.sessions.rows

    @property
    def locks(self) -> Mapping[str, Lock]:
        return self.state.locks.rows

    @property
    def keys(self) -> Mapping[str, Item]:
        return self.state.keys.rows

    @property
    def principals(self) -> Mapping[str, Principal]:
        return self.state.principals.rows

    @property
    def tokens(self) -> Mapping[str, str]:
        """Token id to the name of its principal."""
        return self.state.tokens

    @property
    def wanted(self) -> Wanted:
        return self.state.wanted

    @property
    def level(self) -> int:
        """Of the commands that the cluster takes, and of the entries that it reads."""
        return self.state.level

    @property
    def nonces(self) -> Mapping[tuple[str, bytes], int]:
        """Principal and nonce to the session that was opened under it."""
        return self.state.nonces

    @property
    def waiting(self) -> int:
        """How many wait for a lock."""
        return self.state.waiting

    @property
    def key_bytes(self) -> int:
        """Of all keys and values together."""
        return self.state.key_bytes

    @property
    def events(self) -> list[Event]:
        return self.state.events

    @events.setter
    def events(self, events: list[Event]) -> None:
        self.state.events = events

    # --- apply ------------------------------------------------------------------------------------

    def apply(self, index: int, entry: bytes | memoryview) -> Result:
        """Apply the entry at `index` (without its kind). Bytes that are no entry change nothing, on any replica."""
        state = self.state
        assert index > state.applied, f"entry {index} comes after {state.applied}"
        state.applied = index
        try:
            decoded = _entries.decode(entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _no_command()
        if type(decoded.command.op) is commands.Transact and transactions.is_too_deep(decoded.command.op):
            return _no_command()  # Another replica could not read it.
        if decoded.version != commands.ENTRY_VERSION:
            return Failure(commands.INVALID, f"expected entry version {commands.ENTRY_VERSION}, got {decoded.version}")
        if not decoded.principal:
            result = self._apply_node_op(index, decoded.command.op)
            state.history.trim()
            return result
        return self._apply_request(index, decoded)

    def _apply_node_op(self, index: int, op: commands.Op) -> Result:
        early = _too_early(self.state, op)
        if early is not None:
            return early
        match op:
            case commands.Genesis():
                return administration.genesis(self.state, index, op)
            case commands.ExpireSessions():
                sessions.end_sessions(self.state, index, op.sessions, died=True)
                return Done(index)
            case lock_commands.EndLockDelays():
                return locking.end_delays(self.state, index, op)
            case commands.CheckpointSessions():
                return sessions.checkpoint(self.state, index, op)
            case commands.ResetCheckpoints():
                return sessions.reset_checkpoints(self.state, index, op)
            case commands.RaiseLevel():
                return administration.raise_level(self.state, index, op)
            case lock_commands.RaiseEpoch():
                return administration.raise_epoch(self.state, index, op)
            case commands.MarkState():
                self.events.append(StateMarked())
                return Done(index)
        return Failure(commands.INVALID, "not a command that a node may give here")

    def _apply_request(self, index: int, entry: Entry) -> Result:
        command = entry.command
        state = self.state
        if entry.token is None or state.level < commands.LEVEL:
            early = _of_another_level(state, entry)
            if early is not None:
                return early
        if command.session == 0:
            return self._open_session(index, entry)
        sessions_table = state.sessions
        session = sessions_table.rows.get(command.session)
        if session is None or session.principal != (entry.actor or entry.principal):
            # An earlier copy of this very request may have been applied while the session lived (history 4).
            return Failure(commands.OUTCOME_UNKNOWN, f"session {command.session} is gone, or another's")
        if sessions_table.walk is not None:
            sessions_table.walk.touch(command.session)
        number, acked = command.number, command.acked
        if acked > session.acked:
            session.acknowledge(min(acked, number))
        if number < session.acked:
            return Failure(commands.ACKNOWLEDGED, f"request {number} was answered and acknowledged")
        known = session.results.get(number)
        if known is not None:
            return known
        if session.sizes or number >= session.acked + RESULTS_MAX or state.kept.bytes >= ALL_RESULT_BYTES_MAX:
            busy = session.refuse(number, command.op, state.level)
            if busy is not None:
                return busy
        stamp = (entry.principal, entry.actor, entry.token or "", entry.for_token)
        asker = state.accesses.get(stamp) or access_of(state, *stamp)
        result = asker if isinstance(asker, Failure) else self._do(index, asker, session, command)
        return session.keep(number, result)

    def _open_session(self, index: int, entry: Entry) -> Result:
        asker = access_of(self.state, entry.principal, entry.actor, entry.token or "", entry.for_token)
        if isinstance(asker, Failure):
            return asker
        op = entry.command.op
        if isinstance(op, commands.OpenSession):
            return sessions.open_session(self.state, index, asker, op)
        return Failure(commands.INVALID, "only OpenSession comes without a session")

    def access(self, principal: str, actor: str = "", token: str = "", for_token: str = "") -> Access | Failure:
        """What a request with this stamp may do (`commands.Entry`), after the last entry that was applied."""
        return access_of(self.state, principal, actor, token, for_token)

    def may_act_for(self, name: str) -> bool:
        """May the principal `name` act for others?"""
        principal = self.state.principals.rows.get(name)
        return principal is not None and principal.act_for

    def _do(self, index: int, asker: Access, session: Session, command: NodeCommand) -> Result:
        state, op = self.state, command.op
        refused = (_too_early(state, op) if state.level < 2 else None) or rights.refuse(asker, op)
        if refused is not None:
            return refused
        if type(op) is commands.CancelAcquire:
            # Its own number gets its own result.
            in_window = session.acked <= op.number < session.acked + RESULTS_MAX and op.number != command.number
            if in_window and op.number not in session.results:
                session.keep(op.number, Failure(commands.CANCELLED, f"request {op.number} was cancelled"))
        result: Result = PERFORMERS[type(op)](state, index, asker, session, op)
        history = state.history
        if history.order.first != history.order.following:
            history.trim()
        return result

    # --- queries ----------------------------------------------------------------------------------

    def key_of(self, token_id: str) -> tuple[str, bytes] | None:
        """Principal and key of a token; None where the log knows none (any more)."""
        name = self.state.tokens.get(token_id)
        return None if name is None else (name, self.state.principals.rows[name].tokens[token_id])

    def query(
        self,
        query: commands.Query,
        principal: str,
        remaining_ms: Callable[[int], int],
        actor: str = "",
        token: str = "",
        for_token: str = "",
    ) -> Result:
        """Read the state as `principal`; the stamp is that of an entry. `remaining_ms`: what is left of a session's
        lease, by the leader."""
        state = self.state
        asker = state.accesses.get((principal, actor, token, for_token))
        if asker is None:
            judged = access_of(state, principal, actor, token, for_token)
            if isinstance(judged, Failure):
                return judged
            asker = judged
        refused = rights.refuse(asker, query)
        if refused is not None:
            return refused
        answer = _ANSWERS.get(type(query))
        if answer is None:
            return Failure(commands.INVALID, f"{type(query).__name__} is not a query")
        return answer(state, asker, remaining_ms, query)

    def refuse_watch(self, principal: str, of_cluster: int, of_principal: int) -> Failure | None:
        """Why there may be no watch more, where the leader has counted so many."""
        return quotas.refuse_watch(self.state, principal, of_cluster, of_principal)

    def list_locks(self, after: str, limit: int, remaining_ms: Callable[[int], int]) -> LockList:
        """Held locks by name, whoever may see them (for the feed)."""
        return views.list_locks(self.state, after, limit, remaining_ms)

    def list_shared(self, names: Iterable[str]) -> list[tuple[str, Mode, int, int]]:
        """Of these locks those that several may hold: name, mode, limit, how many hold it (for the feed)."""
        return views.list_shared(self.state, names)

    def delays(self) -> list[tuple[str, int, int]]:
        """The lock-delays under way, for a new leader to count: name, the index since which, milliseconds."""
        rows = self.state.locks.rows
        found = [(name, rows[name].delay) for name in sorted(self.state.delayed)]
        return [(name, delay.since, delay.delay_ms) for name, delay in found if delay is not None]

    # --- snapshots --------------------------------------------------------------------------------

    def adopt(self, state: State) -> None:
        """Hold this state from here on, instead of one's own. A dump of the former that is under way goes on."""
        self.state = state

    def digest(self, bytes_max: int = sys.maxsize) -> str:
        """A hash over all of the state, equal on every replica that has applied the same index; "" where the state is
        larger than `bytes_max`, as bytes of a snapshot."""
        return snapshot.digest(self.state, bytes_max)


def _no_command() -> Failure:
    return Failure(commands.INVALID, "the entry is not a command of this version")


_LEVEL_1: Final = frozenset(
    (
        commands.OpenSession,
        commands.CloseSession,
        commands.AcquireLock,
        commands.ReleaseLock,
        commands.CancelAcquire,
        commands.PutKey,
        commands.DeleteKey,
        commands.SetPrincipal,
        commands.RemovePrincipal,
        commands.AddToken,
        commands.RemoveToken,
        commands.Genesis,
        commands.ExpireSessions,
        commands.SetWantedMembership,
        commands.RaiseLevel,
        commands.MarkState,
    )
)


_LEVEL_3: Final = frozenset(
    (
        permissions.SetRole,
        permissions.RemoveRole,
        permissions.SetPermission,
        permissions.SetRoles,
        permissions.NarrowToken,
        permissions.SetQuota,
    )
)


_LEVEL_4: Final = frozenset((files.BeginCaching,))


def _of_another_level(state: State, entry: Entry) -> Failure | None:
    """Refusals of which nothing is kept."""
    kind = type(entry.command.op)
    # A replica of an earlier level cannot even read those of a later one.
    if kind in _LEVEL_4 and state.level < commands.LEVEL_OF_CACHING:
        return _early(kind.__name__, commands.LEVEL_OF_CACHING, state)
    op = entry.command.op
    if isinstance(op, commands.Transact) and state.level < commands.LEVEL_OF_CACHING:
        target = transactions.late_target(op)
        if target:
            return _early(f"a comparison of {target!r}", commands.LEVEL_OF_CACHING, state)
    if state.level >= commands.LEVEL_OF_QUOTAS:
        if entry.token is not None:
            return None
        # Its leader had yet to apply that tokens count: one that is narrowed must not get more by that.
        return Failure(commands.BUSY, "this copy came while the cluster changed its level")
    return _early(kind.__name__, commands.LEVEL_OF_QUOTAS, state) if kind in _LEVEL_3 else None


def _too_early(state: State, op: Any) -> Failure | None:
    """A replica of level 1 could not decode it, and would have another state from then on."""
    return None if state.level >= 2 or type(op) in _LEVEL_1 else _early(type(op).__name__, 2, state)


def _early(what: str, level: int, state: State) -> Failure:
    return Failure(commands.INVALID, f"{what} is of level {level}, the cluster is at level {state.level}")


_ANSWERS: Final[dict[type, Callable[[State, Access, views.Remaining, Any], Result]]] = {
    commands.GetKey: lambda state, _, __, query: reading.get_key(state, query.key),
    commands.GetLock: lambda state, _, remaining_ms, query: views.lock(state, query.name, remaining_ms),
    commands.ListLocks: lambda state, asker, remaining_ms, query: views.list_locks(
        state, query.after, query.limit, remaining_ms, asker
    ),
    commands.AwaitGrant: lambda state, asker, _, query: views.await_grant(state, asker, query),
    commands.GetSession: lambda state, asker, remaining_ms, query: views.session(
        state, asker, query.session, remaining_ms
    ),
    commands.GetToken: lambda state, asker, _, query: views.token(state, asker, query.token_id),
    commands.GetPrincipal: lambda state, _, __, query: views.principal(state, query.name),
    commands.ListPrincipals: lambda state, _, __, query: views.list_principals(state, query.after, query.limit),
    commands.GetWantedMembership: lambda state, _, __, query: commands.WantedMembershipView(*state.wanted),
    files.ReadFile: lambda state, _, __, query: reading.read_file(state, query),
    files.GetStat: lambda state, _, __, query: reading.read_stat(state, query.path),
    files.ReadStat: lambda state, _, __, query: reading.read_stat(state, query.path, query.revision),
    files.ReadRange: lambda state, _, __, query: reading.read_range(state, query),
    files.ListDirectory: lambda state, _, __, query: reading.list_directory(
        state, query.path, query.after, query.limit
    ),
    files.ReadDirectory: lambda state, _, __, query: reading.list_directory(
        state, query.path, query.after, query.limit, query.revision
    ),
    files.ReadChanges: lambda state, _, __, query: reading.read_changes(state, query),
    lock_commands.GetLockState: lambda state, _, __, query: views.lock_state(state, query.name),
    lock_commands.CheckSequencer: lambda state, _, __, query: views.check_sequencer(state, query.sequencer),
    lock_commands.ListBreaks: lambda state, _, __, query: views.list_breaks(state, query.after, query.limit),
    lock_commands.ReadLockEvents: lambda state, _, __, query: lock_events.read_lock_events(state, query),
    lock_commands.ReadLockLives: lambda state, _, __, query: lock_events.read_lock_events(state, query),
    permissions.GetAccess: lambda state, asker, _, query: access_views.access(state, asker, query.principal),
    permissions.ListPermissions: lambda state, _, __, query: access_views.list_permissions(state, query),
    permissions.ListRoles: lambda state, _, __, query: access_views.list_roles(state, query),
    permissions.ListMembers: lambda state, _, __, query: access_views.list_members(state, query),
    permissions.GetQuota: lambda state, asker, _, query: access_views.quota(state, asker, query.principal),
    permissions.ListQuotas: lambda state, _, __, query: access_views.list_quotas(state, query),
    permissions.GetTokenAccess: lambda state, asker, _, query: access_views.token_access(state, asker, query.token_id),
}
OF_THE_LEADER: Final = frozenset({commands.GetLock, commands.ListLocks, commands.GetSession, commands.AwaitGrant})
"""Queries that ask what is left of a lease, or that wait: any other one is answered from the state alone."""


__all__ = [
    "OF_THE_LEADER",
    "Event",
    "GrantMade",
    "Machine",
    "SessionBegan",
    "SessionEnded",
    "StateMarked",
    "encode_entry",
    "encode_node_entry",
]
