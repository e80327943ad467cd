"""The state machine of one cluster: what each entry of the log does. Same log, same state, on every replica.

`apply` takes entries in the order of their indices and gives each a result; `query` reads. Neither knows
time, the network or who leads. What the host must tell others (grants, sessions that began and ended) is left
in `events`, in order, for it to take.

A request is applied once by (session, number): its result is kept until the client says that it has it. Checks come in
this order: is the session there, was the number answered before, who asks, has the principal the right; then the
command. So a refusal never speaks for a request that an earlier copy brought to effect.

This module hands out; what a command does is in the module of its subject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.statemachine import administration, commands, keys, locks, sessions, snapshot, views
from coordinator.statemachine.commands import Done, Entry, Failure, LockList, NodeCommand, Result
from coordinator.statemachine.events import Event, GrantMade, SessionBegan, SessionEnded
from coordinator.statemachine.keys import Item
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.rights import RIGHTS_FOR, Principal
from coordinator.statemachine.sessions import RESULTS_MAX, Session
from coordinator.statemachine.state import State

_entries = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode


def encode_entry(principal: str, actor: str, command: bytes) -> bytes:
    """Stamp an encoded `Command` with who a node verified that it came from. The command's bytes stay as they are."""
    head = _encode((commands.ENTRY_VERSION, principal, actor))
    return bytes([head[0] + 1]) + head[1:] + command


def encode_node_entry(op: commands.NodeOp) -> bytes:
    """An entry in which the leader itself speaks."""
    return encode_entry("", "", _encode(NodeCommand(0, 0, 0, op)))


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
            return Failure(commands.INVALID, "the entry is not a command of this version")
        if decoded.version != commands.ENTRY_VERSION:
            return Failure(commands.INVALID, f"expected entry version {commands.ENTRY_VERSION}, got {decoded.version}")
        if not decoded.principal:
            return self._apply_node_op(index, decoded.command.op)
        return self._apply_request(index, decoded)

    def _apply_node_op(self, index: int, op: commands.Op) -> Result:
        match op:
            case commands.Genesis():
                return administration.genesis(self.state, index, op)
            case commands.ExpireSessions():
                sessions.end_sessions(self.state, index, op.sessions)
                return Done(index)
        return Failure(commands.INVALID, "not a command that a node may give here")

    def _apply_request(self, index: int, entry: Entry) -> Result:
        signer = entry.actor or entry.principal
        command = entry.command
        op = command.op
        if command.session == 0:
            principal = self._speaker(entry)
            if isinstance(principal, Failure):
                return principal
            if isinstance(op, commands.OpenSession):
                return sessions.open_session(self.state, index, principal, op)
            return Failure(commands.INVALID, "only OpenSession comes without a session")
        session = self.state.sessions.rows.get(command.session)
        if session is None or session.principal != signer:
            # An earlier copy of this very request may have been applied while the session lived (history 4).
            return Failure(commands.OUTCOME_UNKNOWN, f"session {command.session} is gone, or another's")
        self.state.sessions.touch(command.session)
        session.acknowledge(min(command.acked, command.number))
        if command.number < session.acked:
            return Failure(commands.ACKNOWLEDGED, f"request {command.number} was answered and acknowledged")
        known = session.results.get(command.number)
        if known is not None:
            return known
        if command.number >= session.acked + RESULTS_MAX:
            # A window, not a count: the lowest number, whose answer would move it, is always taken.
            return Failure(commands.BUSY, f"session {session.session} has not acknowledged from {session.acked} on")
        speaker = self._speaker(entry)
        result = speaker if isinstance(speaker, Failure) else self._do(index, speaker, session, command)
        session.results[command.number] = result
        return result

    def _speaker(self, entry: Entry) -> Principal | Failure:
        """The principal whose rights apply, where whoever signed may speak for it."""
        if entry.actor and not self.may_act_for(entry.actor):
            return Failure(commands.FORBIDDEN, f"{entry.actor!r} may not act for others")
        principal = self.state.principals.rows.get(entry.principal)
        if principal is None:
            return Failure(commands.FORBIDDEN, f"no principal {entry.principal!r} in this cluster")
        return principal

    def may_act_for(self, name: str) -> bool:
        """May the principal `name` act for others?"""
        principal = self.state.principals.rows.get(name)
        return principal is not None and principal.act_for

    def _do(self, index: int, principal: Principal, session: Session, command: NodeCommand) -> Result:
        op = command.op
        refused = _refuse(principal, op)
        if refused is not None:
            return refused
        state = self.state
        match op:
            case commands.AcquireLock() | commands.ReleaseLock() | commands.CancelAcquire():
                return self._lock(index, principal, session, op)
            case commands.PutKey():
                return keys.put(state, index, op)
            case commands.DeleteKey():
                return keys.delete(state, index, op)
            case commands.OpenSession():
                return sessions.open_session(state, index, principal, op)
            case commands.CloseSession():
                return sessions.close_session(state, index, principal, op.owner or session.session)
            case commands.SetPrincipal():
                return administration.set_principal(state, index, principal, op)
            case commands.RemovePrincipal():
                return administration.remove_principal(state, index, op)
            case commands.AddToken():
                return administration.add_token(state, index, principal, op)
            case commands.RemoveToken():
                return administration.remove_token(state, index, principal, op)
        return Failure(commands.INVALID, f"{type(op).__name__} is not a client's command")

    def _lock(
        self,
        index: int,
        principal: Principal,
        session: Session,
        op: commands.AcquireLock | commands.ReleaseLock | commands.CancelAcquire,
    ) -> Result:
        if isinstance(op, commands.CancelAcquire):
            in_window = session.acked <= op.number < session.acked + RESULTS_MAX
            if in_window and op.number not in session.results:
                session.results[op.number] = Failure(commands.CANCELLED, f"request {op.number} was cancelled")
        owner = op.owner or session.session
        holding = sessions.own(self.state, principal, owner)
        if holding is None:
            return sessions.session_gone(owner)
        if isinstance(op, commands.AcquireLock):
            return locks.acquire(self.state, index, holding, op)
        return locks.release(self.state, index, holding, op.name, op.acquisition)

    # --- queries ----------------------------------------------------------------------------------

    def key_of(self, token_id: str) -> tuple[str, bytes] | None:
        """Principal and key of a token; None where the log knows none (any more)."""
        name = self.state.tokens.get(token_id)
        return None if name is None else (name, self.state.principals.rows[name].tokens[token_id])

    def query(self, query: commands.Query, principal_name: str, remaining_ms: Callable[[int], int]) -> Result:
        """Read the state as `principal_name`. `remaining_ms`: what is left of a session's lease, by the leader."""
        state = self.state
        principal = state.principals.rows.get(principal_name)
        if principal is None:
            return Failure(commands.FORBIDDEN, f"no principal {principal_name!r} in this cluster")
        refused = _refuse(principal, query)
        if refused is not None:
            return refused
        match query:
            case commands.GetKey():
                return views.get_key(state, query.key)
            case commands.GetLock():
                return views.lock(state, query.name, remaining_ms)
            case commands.ListLocks():
                return views.list_locks(state, query.after, query.limit, remaining_ms, principal)
            case commands.AwaitGrant():
                return views.await_grant(state, principal, query)
            case commands.GetSession():
                return views.session(state, principal, query.session, remaining_ms)
            case commands.GetToken():
                return views.token(state, principal, query.token_id)
            case commands.GetPrincipal():
                return views.principal(state, query.name)
            case commands.ListPrincipals():
                return views.list_principals(state, query.after, query.limit)

    def list_locks(self, after: str, limit: int, remaining_ms: Callable[[int], int]) -> LockList:
        """Held locks by name, whoever may see them (for the feed)."""
        return views.list_locks(self.state, after, limit, remaining_ms)

    # --- snapshots --------------------------------------------------------------------------------

    def adopt(self, state: State) -> None:
        """Hold this state from here on, instead of one's own. A dump of the former that is under way goes on."""
        self.state = state

    def digest(self) -> str:
        """A hash over all of the state, equal on every replica that has applied the same index."""
        return snapshot.digest(self.state)


def _refuse(principal: Principal, op: Any) -> Failure | None:
    """Names that are none, and rights that are lacking."""
    name = None
    if isinstance(op, (commands.PutKey, commands.DeleteKey, commands.GetKey)):
        name = op.key
    elif isinstance(op, (commands.AcquireLock, commands.ReleaseLock, commands.CancelAcquire, commands.GetLock)):
        name = op.name
    if name is not None:
        problem = commands.name_problem(name)
        if problem is not None:
            return Failure(commands.INVALID, problem)
    rights = RIGHTS_FOR.get(type(op))
    if rights is None:
        return Failure(commands.INVALID, f"{type(op).__name__} is not a client's command")
    if rights and not principal.may(*rights):
        return Failure(commands.FORBIDDEN, f"{principal.name!r} lacks the right to {' or '.join(rights)}")
    if rights and name is not None and not principal.reaches(name):
        return Failure(commands.FORBIDDEN, f"{principal.name!r} may touch only what its prefixes name, not {name!r}")
    return None


__all__ = ["Event", "GrantMade", "Machine", "SessionBegan", "SessionEnded", "encode_entry", "encode_node_entry"]
