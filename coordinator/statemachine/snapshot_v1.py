"""Snapshots of version 1: one MessagePack array. Read, never written any more."""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.statemachine.commands import Holder, Result

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
