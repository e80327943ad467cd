"""The state machine of one cluster: what each entry of the log does. Same log, same state, on every replica.

`apply` takes entries in the order of their indices and gives each a result; `query` reads. Neither knows
time, the network or who leads. What the host must tell others (grants, sessions that began and ended) is left
in `events`, in order, for it to take.

A request is applied once by (session, number): its result is kept until the client says that it has it. Checks come in
this order: is the session there, was the number answered before, who asks, has the principal the right; then the
command. So a refusal never speaks for a request that an earlier copy brought to effect.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import (
    Done,
    Entry,
    Failure,
    Granted,
    Held,
    Holder,
    KeyValue,
    LockList,
    LockView,
    NodeCommand,
    NotHeld,
    Queued,
    Result,
    SessionOpened,
)
from coordinator.statemachine.keys import Item
from coordinator.statemachine.locks import Lock, fencing_token
from coordinator.statemachine.rights import PREFIXES_MAX, PRINCIPALS_MAX, RIGHTS_FOR, TOKENS_MAX, Principal
from coordinator.statemachine.sessions import RESULTS_MAX, Session
from coordinator.statemachine.wanted import Wanted

SESSIONS_MAX = 200_000
WAITERS_MAX = 200_000
LOCKS_MAX = 1_000_000
KEYS_MAX = 2_000_000
KEY_BYTES_MAX = 1 << 30
"""Of all keys and values together."""
LISTED_WAITERS_MAX = 50
"""Waiters that a view of a lock names; the count beside it is whole."""
NONCE_BYTES_MAX = 32

_entries = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode


class GrantMade(NamedTuple):
    """A waiter became the holder."""

    session: int
    name: str
    acquisition: int
    token: int


class SessionBegan(NamedTuple):
    session: int
    ttl_ms: int


class SessionEnded(NamedTuple):
    session: int


class StateMarked(NamedTuple):
    """Here the replicas compare their states."""


Event = GrantMade | SessionBegan | SessionEnded | StateMarked


def encode_entry(principal: str, actor: str, command: bytes) -> bytes:
    """Stamp an encoded `Command` with who a node verified that it came from. The command's bytes stay as they are."""
    head = _encode((commands.ENTRY_VERSION, principal, actor))
    return bytes([head[0] + 1]) + head[1:] + command


def encode_node_entry(op: commands.NodeOp) -> bytes:
    """An entry in which the leader itself speaks."""
    return encode_entry("", "", _encode(NodeCommand(0, 0, 0, op)))


class Machine:
    def __init__(self) -> None:
        self.cluster_id = 0
        self.cluster_name = ""
        self.epoch = 0
        self.applied = 0
        self.sessions: dict[int, Session] = {}
        self.locks: dict[str, Lock] = {}
        """Locks that are held; a free name costs nothing."""
        self.keys: dict[str, Item] = {}
        self.principals: dict[str, Principal] = {}
        self.tokens: dict[str, str] = {}
        """Token id to the name of its principal."""
        self.waiting = 0
        self.key_bytes = 0
        self.events: list[Event] = []
        self.nonces: dict[tuple[str, bytes], int] = {}
        self.wanted = Wanted()

    # --- apply ------------------------------------------------------------------------------------

    def apply(self, index: int, entry: bytes | memoryview) -> Result:
        """Apply the entry at `index` (without its kind). Bytes that are no entry change nothing, on any replica."""
        assert index > self.applied, f"entry {index} comes after {self.applied}"
        self.applied = index
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
            case commands.Genesis() if not self.cluster_id:
                self.cluster_id, self.cluster_name, self.epoch = op.cluster_id, op.name, op.epoch
                for principal in op.principals:
                    self.principals[principal.name] = Principal(principal)
                for token in op.tokens:
                    self.principals[token.principal].tokens[token.token_id] = token.key
                    self.tokens[token.token_id] = token.principal
                return Done(index)
            case commands.ExpireSessions():
                self._end_sessions(index, op.sessions)
                return Done(index)
            case commands.MarkState():
                self.events.append(StateMarked())
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
                return self._open_session(index, principal, op)
            return Failure(commands.INVALID, "only OpenSession comes without a session")
        session = self.sessions.get(command.session)
        if session is None or session.principal != signer:
            # An earlier copy of this very request may have been applied while the session lived (history 4).
            return Failure(commands.OUTCOME_UNKNOWN, f"session {command.session} is gone, or another's")
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
        principal = self.principals.get(entry.principal)
        if principal is None:
            return Failure(commands.FORBIDDEN, f"no principal {entry.principal!r} in this cluster")
        return principal

    def may_act_for(self, name: str) -> bool:
        """May the principal `name` act for others?"""
        principal = self.principals.get(name)
        return principal is not None and principal.act_for

    def _do(self, index: int, principal: Principal, session: Session, command: NodeCommand) -> Result:
        op = command.op
        refused = self._refuse(principal, op)
        if refused is not None:
            return refused
        match op:
            case commands.AcquireLock():
                return self._acquire(index, principal, op.owner or session.session, op)
            case commands.ReleaseLock():
                return self._release(index, principal, op.owner or session.session, op.name, op.acquisition)
            case commands.CancelAcquire():
                in_window = session.acked <= op.number < session.acked + RESULTS_MAX
                if in_window and op.number not in session.results:
                    session.results[op.number] = Failure(commands.CANCELLED, f"request {op.number} was cancelled")
                return self._release(index, principal, op.owner or session.session, op.name, op.acquisition)
            case commands.PutKey():
                return self._put(index, op)
            case commands.DeleteKey():
                return self._delete(index, op)
            case commands.OpenSession():
                return self._open_session(index, principal, op)
            case commands.CloseSession():
                owner = op.owner or session.session
                if self._own(principal, owner) is None:
                    return _session_gone(owner)
                self._end_sessions(index, (owner,))
                return Done(index, existed=True)
        return self._administer(index, principal, op)

    def _refuse(self, principal: Principal, op: Any) -> Failure | None:
        """Names that are none, and rights that are lacking."""
        name = (
            getattr(op, "key", None) if isinstance(op, (commands.PutKey, commands.DeleteKey, commands.GetKey)) else None
        )
        if isinstance(op, (commands.AcquireLock, commands.ReleaseLock, commands.CancelAcquire, commands.GetLock)):
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
            return Failure(
                commands.FORBIDDEN, f"{principal.name!r} may touch only what its prefixes name, not {name!r}"
            )
        return None

    # --- sessions ---------------------------------------------------------------------------------

    def _own(self, principal: Principal, owner: int) -> Session | None:
        session = self.sessions.get(owner)
        return session if session is not None and session.principal == principal.name else None

    def _open_session(self, index: int, principal: Principal, op: commands.OpenSession) -> Result:
        if not commands.TTL_MS_MIN <= op.ttl_ms <= commands.TTL_MS_MAX:
            return Failure(
                commands.INVALID, f"ttl_ms is {commands.TTL_MS_MIN} to {commands.TTL_MS_MAX}, got {op.ttl_ms}"
            )
        if len(op.nonce) > NONCE_BYTES_MAX:
            return Failure(commands.INVALID, f"a nonce has at most {NONCE_BYTES_MAX} bytes, got {len(op.nonce)}")
        known = self.sessions.get(self.nonces.get((principal.name, op.nonce), 0))
        if known is not None:
            return SessionOpened(known.session, known.ttl_ms)
        if len(self.sessions) >= SESSIONS_MAX:
            return Failure(commands.FULL, f"the cluster has its {SESSIONS_MAX} sessions")
        self.sessions[index] = Session(index, principal.name, op.ttl_ms, op.nonce)
        if op.nonce:
            self.nonces[principal.name, op.nonce] = index
        self.events.append(SessionBegan(index, op.ttl_ms))
        return SessionOpened(index, op.ttl_ms)

    def _end_sessions(self, index: int, ended: Iterable[int]) -> None:
        """End sessions, all of them before anything is granted: what one frees must not go to another that ends too."""
        freed: dict[str, None] = {}
        for number in ended:
            session = self.sessions.pop(number, None)
            if session is None:
                continue
            self.nonces.pop((session.principal, session.nonce), None)
            self.events.append(SessionEnded(number))
            self._leave_lines(session)
            for name in session.locks:
                self.locks[name].holder = None
                freed[name] = None
        for name in freed:
            self._hand_on(index, self.locks[name])

    def _leave_lines(self, session: Session) -> None:
        for name, acquisition in session.waiting:
            del self.locks[name].queue[session.session, acquisition]
        self.waiting -= len(session.waiting)
        session.waiting = {}

    # --- locks ------------------------------------------------------------------------------------

    def _acquire(self, index: int, principal: Principal, owner: int, op: commands.AcquireLock) -> Result:
        session = self._own(principal, owner)
        if session is None:
            return _session_gone(owner)
        if op.acquisition < 0:
            return Failure(commands.INVALID, f"an acquisition is a number from 0 on, got {op.acquisition}")
        holder = Holder(owner, op.acquisition, principal.name)
        lock = self.locks.get(op.name)
        if lock is None:
            if len(self.locks) >= LOCKS_MAX:
                return Failure(commands.FULL, f"the cluster has its {LOCKS_MAX} locks")
            lock = self.locks[op.name] = Lock(op.name)
            self._grant(index, lock, holder)
            return Granted(lock.token)
        assert lock.holder is not None
        if op.take_over:
            self._take_over(session, lock, holder)
        if lock.holder == holder:
            return Granted(lock.token)
        if not op.wait:
            return Held(lock.holder, lock.token)
        place = lock.position(owner, op.acquisition)
        if place is None:
            if self.waiting >= WAITERS_MAX:
                return Failure(commands.FULL, f"the cluster has its {WAITERS_MAX} waiters")
            lock.queue[owner, op.acquisition] = holder
            session.waiting[op.name, op.acquisition] = None
            self.waiting += 1
            place = len(lock.queue)
        return Queued(place)

    def _take_over(self, session: Session, lock: Lock, holder: Holder) -> None:
        """What the session holds of this name, or its place in line, is this acquisition's from here on. So nothing
        that still speaks for the acquisition before, a late release above all, undoes what this one is answered."""
        assert lock.holder is not None
        if lock.holder.session == holder.session:
            lock.holder = holder
            return
        before = session.waiting_for(lock.name)
        if before is not None and before != holder.acquisition:
            lock.replace(holder.session, before, holder)
            del session.waiting[lock.name, before]
            session.waiting[lock.name, holder.acquisition] = None

    def _release(self, index: int, principal: Principal, owner: int, name: str, acquisition: int) -> Result:
        session = self._own(principal, owner)
        if session is None:
            return _session_gone(owner)
        lock = self.locks.get(name)
        if lock is None:
            return NotHeld()
        assert lock.holder is not None
        if acquisition == commands.ANY_ACQUISITION:
            held = lock.holder.session == owner
            acquisition = lock.holder.acquisition if held else session.waiting_for(name) or 0
        if (lock.holder.session, lock.holder.acquisition) == (owner, acquisition):
            del session.locks[name]
            lock.holder = None
            self._hand_on(index, lock)
            return Done(index, existed=True)
        if lock.queue.pop((owner, acquisition), None) is not None:
            del session.waiting[name, acquisition]
            self.waiting -= 1
            return Done(index, existed=True)
        return NotHeld()

    def _grant(self, index: int, lock: Lock, holder: Holder) -> None:
        lock.grant(holder, fencing_token(self.epoch, index))
        self.sessions[holder.session].locks[lock.name] = None

    def _hand_on(self, index: int, lock: Lock) -> None:
        """Grant a lock that was let go to the next in line, or forget it."""
        if not lock.queue:
            del self.locks[lock.name]
            return
        key = next(iter(lock.queue))
        holder = lock.queue.pop(key)
        self.waiting -= 1
        del self.sessions[holder.session].waiting[lock.name, holder.acquisition]
        self._grant(index, lock, holder)
        self.events.append(GrantMade(holder.session, lock.name, holder.acquisition, lock.token))

    # --- keys and principals ----------------------------------------------------------------------

    def _put(self, index: int, op: commands.PutKey) -> Result:
        if len(op.value) > commands.VALUE_BYTES_MAX:
            return Failure(
                commands.INVALID, f"a value has at most {commands.VALUE_BYTES_MAX} bytes, got {len(op.value)}"
            )
        known = self.keys.get(op.key)
        if known is None and len(self.keys) >= KEYS_MAX:
            return Failure(commands.FULL, f"the cluster has its {KEYS_MAX} keys")
        grown = len(op.value) - len(known.value) if known else len(op.value) + len(op.key)
        if grown > 0 and self.key_bytes + grown > KEY_BYTES_MAX:
            return Failure(commands.FULL, f"the cluster has its {KEY_BYTES_MAX} bytes of keys and values")
        self.key_bytes += grown
        self.keys[op.key] = Item(op.value, index, known.version + 1 if known else 1)
        return Done(index, known is not None)

    def _delete(self, index: int, op: commands.DeleteKey) -> Result:
        known = self.keys.pop(op.key, None)
        if known is not None:
            self.key_bytes -= len(known.value) + len(op.key)
        return Done(index, known is not None)

    def _administer(self, index: int, asker: Principal, op: commands.Op) -> Result:
        match op:
            case commands.SetPrincipal():
                return self._set_principal(index, asker, op)
            case commands.RemovePrincipal():
                return self._remove_principal(index, op)
            case commands.AddToken():
                return self._add_token(index, asker, op)
            case commands.RemoveToken():
                return self._remove_token(index, asker, op)
            case commands.SetWantedMembership():
                self.wanted, answer = self.wanted.put(index, op)
                return answer
        return Failure(commands.INVALID, f"{type(op).__name__} is not a client's command")

    def _set_principal(self, index: int, asker: Principal, op: commands.SetPrincipal) -> Result:
        if not commands.PRINCIPAL_NAME.fullmatch(op.name):
            return Failure(
                commands.INVALID, f"a principal's name matches {commands.PRINCIPAL_NAME.pattern}, got {op.name!r}"
            )
        unknown = [right for right in op.rights if right not in commands.RIGHTS]
        if unknown:
            return Failure(commands.INVALID, f"rights are {', '.join(commands.RIGHTS)}; got {', '.join(unknown)}")
        if len(op.prefixes) > PREFIXES_MAX:
            return Failure(commands.INVALID, f"at most {PREFIXES_MAX} prefixes, got {len(op.prefixes)}")
        known = self.principals.get(op.name)
        if (op.act_for or (known is not None and known.act_for)) and not asker.act_for:
            return Failure(commands.FORBIDDEN, "only a principal that may act for others can give or change that right")
        loses = not {*asker.rights} <= {*op.rights} or (asker.act_for and not op.act_for)
        if known is asker and loses:
            return Failure(commands.INVALID, "a principal can not take rights from itself; let another do it")
        if known is not None:
            known.change(op)
        elif len(self.principals) >= PRINCIPALS_MAX:
            return Failure(commands.FULL, f"the cluster has its {PRINCIPALS_MAX} principals")
        else:
            self.principals[op.name] = Principal(op)
        return Done(index, known is not None)

    def _remove_principal(self, index: int, op: commands.RemovePrincipal) -> Result:
        known = self.principals.get(op.name)
        if known is None:
            return Done(index, existed=False)
        if known.act_for:
            return Failure(commands.INVALID, f"{op.name!r} is the web tier's own principal and stays")
        del self.principals[op.name]
        for token_id in known.tokens:
            del self.tokens[token_id]
        # Its sessions run out by themselves, since nobody may keep them alive: a lease that can still be proven is not
        # broken. But nothing more is granted to them.
        for session in self.sessions.values():
            if session.principal == op.name:
                self._leave_lines(session)
        return Done(index, existed=True)

    def _add_token(self, index: int, asker: Principal, op: commands.AddToken) -> Result:
        principal = self.principals.get(op.principal)
        if principal is None:
            return Failure(commands.NOT_FOUND, f"no principal {op.principal!r} in this cluster")
        if principal.act_for and not asker.act_for:
            return Failure(commands.FORBIDDEN, f"{op.principal!r} is the web tier's own principal")
        if len(op.key) != commands.KEY_BYTES or not commands.TOKEN_ID.fullmatch(op.token_id):
            return Failure(
                commands.INVALID, f"a token has an id of 16 hex digits and a key of {commands.KEY_BYTES} bytes"
            )
        if self.tokens.get(op.token_id, op.principal) != op.principal:
            return Failure(commands.INVALID, f"token {op.token_id!r} belongs to another principal")
        if len(self.tokens) >= TOKENS_MAX:
            return Failure(commands.FULL, f"the cluster has its {TOKENS_MAX} tokens")
        principal.tokens[op.token_id] = op.key
        self.tokens[op.token_id] = op.principal
        return Done(index)

    def _remove_token(self, index: int, asker: Principal, op: commands.RemoveToken) -> Result:
        name = self.tokens.get(op.token_id)
        if name is None:
            return Done(index, existed=False)
        if self.principals[name].act_for and not asker.act_for:
            return Failure(commands.FORBIDDEN, f"{name!r} is the web tier's own principal")
        del self.tokens[op.token_id]
        del self.principals[name].tokens[op.token_id]
        return Done(index, existed=True)

    # --- queries ----------------------------------------------------------------------------------

    def key_of(self, token_id: str) -> tuple[str, bytes] | None:
        """Principal and key of a token; None where the log knows none (any more)."""
        name = self.tokens.get(token_id)
        return None if name is None else (name, self.principals[name].tokens[token_id])

    def query(self, query: commands.Query, principal_name: str, remaining_ms: Callable[[int], int]) -> Result:
        """Read the state as `principal_name`. `remaining_ms`: what is left of a session's lease, by the leader."""
        principal = self.principals.get(principal_name)
        if principal is None:
            return Failure(commands.FORBIDDEN, f"no principal {principal_name!r} in this cluster")
        refused = self._refuse(principal, query)
        if refused is not None:
            return refused
        match query:
            case commands.GetKey():
                item = self.keys.get(query.key)
                return KeyValue(item.value, item.revision, item.version) if item else KeyValue(None)
            case commands.GetLock():
                return self._view(query.name, remaining_ms)
            case commands.ListLocks():
                return self.list_locks(query.after, query.limit, remaining_ms, principal)
            case commands.AwaitGrant():
                return self._await_grant(principal, query)
            case commands.GetSession():
                return self._view_session(principal, query.session, remaining_ms)
            case commands.GetToken() | commands.GetPrincipal() | commands.ListPrincipals():
                return self._view_rights(principal, query)
            case commands.GetWantedMembership():
                return commands.WantedMembershipView(*self.wanted)

    def _view_session(self, principal: Principal, number: int, remaining_ms: Callable[[int], int]) -> Result:
        session = self._own(principal, number)
        if session is None:
            return _session_gone(number)
        locks = tuple(session.locks)
        return commands.SessionView(number, session.principal, session.ttl_ms, remaining_ms(number), locks)

    def _view_rights(
        self, principal: Principal, query: commands.GetToken | commands.GetPrincipal | commands.ListPrincipals
    ) -> Result:
        match query:
            case commands.GetToken():
                token = self.key_of(query.token_id)
                if not principal.act_for:
                    return Failure(commands.FORBIDDEN, f"{principal.name!r} may not read token keys")
                if token is None:
                    return Failure(commands.NOT_FOUND, "no such token")
                return commands.TokenView(query.token_id, *token)
            case commands.GetPrincipal():
                known = self.principals.get(query.name)
                return known.view() if known else Failure(commands.NOT_FOUND, f"no principal {query.name!r}")
            case commands.ListPrincipals():
                names = _page(self.principals, query.after, query.limit)
                return commands.PrincipalList(tuple(self.principals[name].view() for name in names))

    def list_locks(
        self, after: str, limit: int, remaining_ms: Callable[[int], int], principal: Principal | None = None
    ) -> LockList:
        """Held locks by name; `principal` None: all of them (for the feed)."""
        names: Iterable[str] = self.locks
        if principal is not None and principal.prefixes:
            names = (name for name in self.locks if name.startswith(principal.prefixes))
        page = _page(names, after, limit)
        return LockList(tuple(self._view(name, remaining_ms) for name in page), len(self.locks), self.waiting)

    def _view(self, name: str, remaining_ms: Callable[[int], int]) -> LockView:
        lock = self.locks.get(name)
        if lock is None:
            return LockView(name, None, 0, (), 0, 0, 0)
        assert lock.holder is not None
        session = lock.holder.session
        waiters = tuple(islice(lock.waiters(), LISTED_WAITERS_MAX))
        return LockView(
            name,
            lock.holder,
            lock.token,
            waiters,
            remaining_ms(session),
            self.sessions[session].ttl_ms,
            len(lock.queue),
        )

    def _await_grant(self, principal: Principal, query: commands.AwaitGrant) -> Result:
        if self._own(principal, query.owner) is None:
            return _session_gone(query.owner)
        lock = self.locks.get(query.name)
        if lock is None:
            return NotHeld()
        assert lock.holder is not None
        if (lock.holder.session, lock.holder.acquisition) == (query.owner, query.acquisition):
            return Granted(lock.token)
        place = lock.position(query.owner, query.acquisition)
        return NotHeld() if place is None else Queued(place)

    # --- digest -----------------------------------------------------------------------------------

    def digest(self) -> str:
        """A hash over all of the state, equal on every replica that has applied the same index."""
        return hashlib.blake2b(snapshot.dump(self), digest_size=8).hexdigest()


def _session_gone(session: int) -> Failure:
    return Failure(commands.SESSION_GONE, f"session {session} is gone, or another's")


def _page(names: Iterable[str], after: str, limit: int) -> list[str]:
    limit = max(1, min(limit, commands.LIST_LIMIT_MAX))
    return heapq.nsmallest(limit, (name for name in names if name > after))


__all__ = [
    "Event",
    "GrantMade",
    "Machine",
    "SessionBegan",
    "SessionEnded",
    "StateMarked",
    "encode_entry",
    "encode_node_entry",
]
