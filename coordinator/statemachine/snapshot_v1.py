"""Snapshots of version 1: one MessagePack array. Read, never written any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from coordinator.statemachine.commands import Holder, Result
from coordinator.statemachine.lock_commands import EXCLUSIVE, Grant, Waiter
from coordinator.statemachine.snapshot_items import (
    HeadItem,
    HistoryItem,
    HoldersItem,
    KeyItem,
    LockItem,
    PrincipalItem,
    ResultsItem,
    SessionItem,
    SnapshotItem,
    WaitersItem,
    WantedItem,
)

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


class State(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


_states = msgspec.msgpack.Decoder(State)


def decode(data: bytes) -> State:
    try:
        state = _states.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotDamaged(f"neither a snapshot with a head nor one of version {VERSION}: {error}") from None
    if state.version != VERSION:
        raise SnapshotDamaged(f"expected a snapshot of version {VERSION}, got {state.version}")
    return state


def items(old: State) -> Iterator[SnapshotItem]:
    """Those that a snapshot of now would have of it."""
    yield HeadItem(old.cluster_id, old.cluster_name, old.epoch, old.applied)
    for one in old.principals:
        yield PrincipalItem(one.name, one.rights, one.prefixes, one.act_for, (*one.tokens,))
    for session in old.sessions:
        yield SessionItem(session.session, session.principal, session.ttl_ms, session.nonce, session.acked)
        yield ResultsItem(session.results)
    for lock in old.locks:
        names = (lock.name,)
        yield LockItem(lock.name, EXCLUSIVE, 1, lock.token, None, None)
        yield HoldersItem((Grant(lock.holder, lock.token, names),))
        yield WaitersItem([Waiter(holder, EXCLUSIVE, 1, names) for holder in lock.queue])
    for key, value, revision, version in old.keys:
        # When it was created is not known; no later one gets an instance that is not greater.
        yield KeyItem(key, value, revision, version, revision)
    yield HistoryItem(old.applied, 1)
    yield WantedItem(*old.wanted)
