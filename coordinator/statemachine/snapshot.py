"""The state machine as bytes, and back. The same state gives the same bytes on every replica.

A snapshot begins with its version. A later version of this module reads every earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from coordinator.statemachine.commands import Holder, Result, SetPrincipal
from coordinator.statemachine.keys import Item
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.rights import Principal
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.wanted import Wanted

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Machine

VERSION: Final = 1


class SnapshotDamaged(Exception):
    """The bytes are no snapshot of a version that this reads."""


class _Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    session: int
    principal: str
    ttl_ms: int
    nonce: bytes
    acked: int
    results: list[tuple[int, Result]]
    locks: list[str]
    waiting: list[tuple[str, int]]


class _Lock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: str
    holder: Holder
    token: int
    queue: list[Holder]


class _Principal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    name: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...]
    act_for: bool
    tokens: list[tuple[str, bytes]]


class _State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    version: int
    cluster_id: int
    cluster_name: str
    epoch: int
    applied: int
    sessions: list[_Session]
    locks: list[_Lock]
    keys: list[tuple[str, bytes, int, int]]
    principals: list[_Principal]
    wanted: tuple[int, bytes] = (0, b"")


_states = msgspec.msgpack.Decoder(_State)
_encode = msgspec.msgpack.Encoder().encode


def dump(machine: Machine) -> bytes:
    """All of the state. Sessions are in the order of their opening, locks, keys and principals by name."""
    return _encode(
        _State(
            VERSION,
            machine.cluster_id,
            machine.cluster_name,
            machine.epoch,
            machine.applied,
            [
                _Session(
                    s.session,
                    s.principal,
                    s.ttl_ms,
                    s.nonce,
                    s.acked,
                    sorted(s.results.items(), key=lambda item: item[0]),
                    [*s.locks],
                    [*s.waiting],
                )
                for s in machine.sessions.values()
            ],
            [
                _Lock(lock.name, lock.holder, lock.token, [*lock.queue.values()])
                for _, lock in sorted(machine.locks.items())
                if lock.holder is not None
            ],
            sorted((key, *item) for key, item in machine.keys.items()),
            [
                _Principal(p.name, p.rights, p.prefixes, p.act_for, sorted(p.tokens.items()))
                for _, p in sorted(machine.principals.items())
            ],
            (machine.wanted.generation, machine.wanted.wanted),
        )
    )


def load(machine: Machine, data: bytes) -> None:
    """Replace the whole state of `machine`. Raises SnapshotDamaged, and then changes nothing."""
    try:
        state = _states.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotDamaged(f"not a snapshot of version {VERSION}: {error}") from None
    if state.version != VERSION:
        raise SnapshotDamaged(f"expected a snapshot of version {VERSION}, got {state.version}")
    machine.cluster_id, machine.cluster_name = state.cluster_id, state.cluster_name
    machine.epoch, machine.applied = state.epoch, state.applied
    machine.sessions = {stored.session: _session(stored) for stored in state.sessions}
    machine.nonces = {(s.principal, s.nonce): s.session for s in state.sessions if s.nonce}
    machine.locks = {stored.name: _lock(stored) for stored in state.locks}
    machine.waiting = sum(len(lock.queue) for lock in machine.locks.values())
    machine.keys = {key: Item(value, revision, version) for key, value, revision, version in state.keys}
    machine.key_bytes = sum(len(key) + len(item.value) for key, item in machine.keys.items())
    machine.principals, machine.tokens = {}, {}
    for stored in state.principals:
        principal = Principal(SetPrincipal(stored.name, stored.rights, stored.prefixes, stored.act_for))
        principal.tokens = dict(stored.tokens)
        machine.principals[stored.name] = principal
        machine.tokens.update((token_id, stored.name) for token_id in principal.tokens)
    machine.wanted = Wanted(*state.wanted)
    machine.events = []


def _session(stored: _Session) -> Session:
    session = Session(stored.session, stored.principal, stored.ttl_ms, stored.nonce)
    session.acked = stored.acked
    session.results = dict(stored.results)
    session.locks = dict.fromkeys(stored.locks)
    session.waiting = dict.fromkeys(stored.waiting)
    return session


def _lock(stored: _Lock) -> Lock:
    lock = Lock(stored.name)
    lock.holder = stored.holder
    lock.token = stored.token
    lock.queue = {(holder.session, holder.acquisition): holder for holder in stored.queue}
    return lock
