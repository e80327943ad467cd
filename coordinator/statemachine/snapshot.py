"""The state machine as bytes, and back, in slices. The same state gives the same bytes on every replica.

A snapshot is a head, frames, and an end:

    head    b"CLST", version (2 bytes), 2 bytes of zero
    frame   length of the body (4 bytes); body: a MessagePack array of items
    end     a frame whose only item is `End`: how many items came before it, and a hash of all bytes before its frame

Numbers are big-endian. Items come in the order of the tables (`_TABLES`) and within each in the order of its keys. A
frame is full when its items have FRAME_BYTES or are FRAME_ITEMS: that depends on the items alone, and slices are whole
frames, so that the bytes do not depend on how they were sliced. What of one row may grow without bound, results of
a session and waiters of a lock, goes on in items of its own.

A `Dump` shows the state as it was when it began, though the machine goes on: see `tables.py`. A `Loader` builds a
state beside the one that is in use. A later version of this module reads every earlier one; version 1, one
MessagePack array, is in `snapshot_v1.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from coordinator.statemachine import snapshot_v1
from coordinator.statemachine.commands import Result, SetPrincipal
from coordinator.statemachine.items import Item
from coordinator.statemachine.lock_changes import add_break
from coordinator.statemachine.lock_commands import EXCLUSIVE, Break, Delay, Grant, Mode, Waiter
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.namespace import restore_item
from coordinator.statemachine.rights import Principal
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.snapshot_v1 import SnapshotDamaged
from coordinator.statemachine.state import State
from coordinator.statemachine.tables import Table, Walk
from coordinator.statemachine.wanted import Wanted

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Machine

MAGIC: Final = b"CLST"
VERSION: Final = 2
FRAME_BYTES: Final = 16_384
FRAME_ITEMS: Final = 128
FRAME_BYTES_MAX: Final = 1 << 26
"""Of a frame that is read: more is damage, not state."""
PART_MAX: Final = 128
"""Results of a session, or waiters of a lock, in one item."""
PAGE: Final = 128
"""Rows that are frozen at once."""
SLICE_BYTES: Final = 32_768
"""Of a slice, unless told otherwise: about a millisecond's work."""


class _Data(Protocol):
    """Bytes, or what is read like them."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: slice, /) -> bytes: ...


class _Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class _Head(_Item, tag=0, frozen=True):
    cluster_id: int
    cluster_name: str
    epoch: int
    applied: int
    level: int = 1
    rights_index: int = 0


class _Principal(_Item, tag=1, frozen=True):
    name: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...]
    act_for: bool
    tokens: tuple[tuple[str, bytes], ...]


class _Session(_Item, tag=2, frozen=True):
    session: int
    principal: str
    ttl_ms: int
    nonce: bytes
    acked: int
    remaining_ms: int | None = None


class _Results(_Item, tag=3, frozen=True):
    """Of the session before it, by number."""

    results: Sequence[tuple[int, Result]]


class _Lock(_Item, tag=4, frozen=True):
    name: str
    mode: Mode
    limit: int
    token: int
    upgrading: tuple[int, int] | None
    delay: Delay | None


class _Waiters(_Item, tag=5, frozen=True):
    """Of the lock before it, in their order in line."""

    waiters: Sequence[Waiter]


class _Holders(_Item, tag=12, frozen=True):
    """Of the lock before it, in the order of their grants."""

    holders: Sequence[Grant]


class _Key(_Item, tag=6, frozen=True):
    key: str
    value: bytes | None
    revision: int
    version: int
    instance: int
    ephemeral: bool = False


class _Ephemeral(_Item, tag=8, frozen=True):
    path: str
    sessions: tuple[int, ...]


class _LockGeneration(_Item, tag=9, frozen=True):
    path: str
    token: int


class _History(_Item, tag=10, frozen=True):
    """`following` is the number of the next change. The changes come after it, from the newest on."""

    compacted: int
    following: int


class _Change(_Item, tag=11, frozen=True):
    """What came after it is known from the changes before it here, and from the keys."""

    revision: int
    key: str
    before: Item | None


class _Breaks(_Item, tag=13, frozen=True):
    following: int


class _Break(_Item, tag=14, frozen=True):
    made: Break


class _Wanted(_Item, tag=15, frozen=True):
    generation: int
    wanted: bytes


class End(_Item, tag=7, frozen=True):
    items: int
    hash: bytes


_Items = list[
    _Head
    | _Principal
    | _Session
    | _Results
    | _Lock
    | _Waiters
    | _Key
    | _Ephemeral
    | _LockGeneration
    | _History
    | _Change
    | _Holders
    | _Breaks
    | _Break
    | _Wanted
    | End
]

_encoder = msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(_Items)


# --- from rows to items ---------------------------------------------------------------------------
# `freeze` gives a form of a row that no change reaches, and is as cheap as that can be; `items` the items of it.


def _freeze_principal(principal: Principal) -> _Principal:
    tokens = tuple(sorted(principal.tokens.items()))
    return _Principal(principal.name, principal.rights, principal.prefixes, principal.act_for, tokens)


def _freeze_session(session: Session) -> tuple[_Session, list[tuple[int, Result]]]:
    head = _Session(
        session.session, session.principal, session.ttl_ms, session.nonce, session.acked, session.remaining_ms
    )
    return head, [*session.results.items()]


def _session_items(_: int, frozen: tuple[_Session, list[tuple[int, Result]]]) -> Iterator[_Item]:
    head, results = frozen
    yield head
    results.sort(key=lambda result: result[0])
    for start in range(0, len(results), PART_MAX):
        yield _Results(results[start : start + PART_MAX])


def _freeze_lock(lock: Lock) -> tuple[_Lock, list[Grant], list[Waiter]]:
    head = _Lock(lock.name, lock.mode, lock.limit, lock.token, lock.upgrading, lock.delay)
    return head, [*lock.holders.values()], [*lock.queue.values()]


def _lock_items(_: str, frozen: tuple[_Lock, list[Grant], list[Waiter]]) -> Iterator[_Item]:
    head, holders, waiters = frozen
    yield head
    for start in range(0, len(holders), PART_MAX):
        yield _Holders(holders[start : start + PART_MAX])
    for start in range(0, len(waiters), PART_MAX):
        yield _Waiters(waiters[start : start + PART_MAX])


def _key_items(key: str, item: Item) -> tuple[_Item]:
    return (_Key(key, item.value, item.revision, item.version, item.instance, item.ephemeral),)


def _same(row: Any) -> Any:
    return row


_TABLES: Final[tuple[tuple[str, Callable[[Any], Any], Callable[[Any, Any], Iterator[_Item] | tuple[_Item]]], ...]] = (
    ("principals", _freeze_principal, lambda name, frozen: (frozen,)),
    ("sessions", _freeze_session, _session_items),
    ("locks", _freeze_lock, _lock_items),
    ("keys", _same, _key_items),
    ("ephemerals", _same, lambda path, attached: (_Ephemeral(path, attached),)),
    ("lock_generations", _same, lambda path, token: (_LockGeneration(path, token),)),
    ("breaks", _same, lambda _, made: (_Break(made),)),
    ("history", _same, lambda _, change: (_Change(change.revision, change.key, change.before),)),
)
"""Field of the state, freeze, items. Sessions come before what names them."""


class Dump:
    """A state on its way into bytes, as it was when this was made.

    `slice` gives them piece by piece until `done`; then `digest` is there. `attached`: the state may change
    meanwhile. There is one attached dump of a state at a time; `close` gives one up.
    """

    def __init__(self, state: State, *, attached: bool = True) -> None:
        head = (
            _Head(state.cluster_id, state.cluster_name, state.epoch, state.applied, state.level, state.rights_index),
            _Wanted(*state.wanted),
            _Breaks(state.next_break),
            _History(state.history.compacted, state.history.order.following),
        )
        self.applied = state.applied
        """The index that this is the state of."""
        self._walks: list[tuple[Walk[Any, Any], Callable[[Any, Any], Any]]] = []
        for field, freeze, items in _TABLES:
            walk = Walk(getattr(state, field), freeze, attached=attached)
            if field == "history":
                walk.begin_behind(state.history.order.following)
            self._walks.append((walk, items))
        self._hash = hashlib.blake2b(digest_size=16)
        self._frames = self._all(head)
        self.bytes = 0
        """Given so far."""
        self.done = False

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal on every replica with this state. Of a dump that is done alone."""
        assert self.done, "a digest is there when all has been given"
        return self._hash.hexdigest()[:16]

    def slice(self, budget_bytes: int = SLICE_BYTES) -> bytes:
        """The next bytes: frames until they have the budget; at least one. b"" when it is done."""
        frames: list[bytes] = []
        size = 0
        for frame in self._frames:
            frames.append(frame)
            size += len(frame)
            if size >= budget_bytes:
                break
        else:
            self.done = True
        self.bytes += size
        return b"".join(frames)

    def close(self) -> None:
        """Give it up where it is not done: nothing is kept for it any more."""
        for walk, _ in self._walks:
            walk.close()
        self._frames = iter(())

    def _all(self, head: tuple[_Item, ...]) -> Iterator[bytes]:
        start = MAGIC + VERSION.to_bytes(2, "big") + bytes(2)
        self._hash.update(start)
        yield start
        body = bytearray()
        count = total = 0
        for item in self._items(head):
            _encoder.encode_into(item, body, -1)
            count += 1
            if len(body) >= FRAME_BYTES or count == FRAME_ITEMS:
                yield self._frame(count, body)
                total += count
                body.clear()
                count = 0
        if count:
            yield self._frame(count, body)
            total += count
        end = _encoder.encode([End(total, self._hash.digest())])
        yield len(end).to_bytes(4, "big") + end

    def _frame(self, count: int, body: bytearray) -> bytes:
        head = (len(body) + 3).to_bytes(4, "big") + b"\xdc" + count.to_bytes(2, "big")
        frame = b"".join((head, body))
        self._hash.update(frame)
        return frame

    def _items(self, head: tuple[_Item, ...]) -> Iterator[_Item]:
        yield from head
        for walk, items in self._walks:
            while not walk.over:
                for key, frozen in walk.page(PAGE):
                    yield from items(key, frozen)


class Loader:
    """Bytes on their way into a state. Feed it all of them in order, in any parts; then `finish`.

    The work of a part is in proportion to its bytes, and nothing is changed but the state that is being built.
    Raises SnapshotDamaged as soon as the bytes are seen not to be a snapshot.
    """

    def __init__(self) -> None:
        self._state = State()
        self._waiting = bytearray()
        """Bytes of a frame that is not whole yet."""
        self._hash = hashlib.blake2b(digest_size=16)
        self._version = 0
        self._items = 0
        self._ended = False
        self._add: dict[type, Callable[[Any], None]] = {
            _Head: self._add_head,
            _Principal: self._add_principal,
            _Session: self._add_session,
            _Results: self._add_results,
            _Lock: self._add_lock,
            _Waiters: self._add_waiters,
            _Key: self._add_key,
            _Ephemeral: self._add_ephemeral,
            _LockGeneration: self._add_lock_generation,
            _History: self._add_history,
            _Change: self._add_change,
            _Holders: self._add_holders,
            _Breaks: self._add_breaks,
            _Break: self._add_break,
            _Wanted: self._add_wanted,
            End: self._end,
        }
        self._session: Session | None = None
        self._lock: Lock | None = None

    def feed(self, part: bytes | memoryview) -> None:
        waiting = self._waiting
        waiting += part
        if not self._version:
            self._begin()
        if self._version != VERSION:
            return
        start = 0
        while len(waiting) - start >= 4:
            size = int.from_bytes(waiting[start : start + 4], "big")
            if size > FRAME_BYTES_MAX:
                raise SnapshotDamaged(f"a frame has at most {FRAME_BYTES_MAX} bytes, this one {size}")
            if len(waiting) - start < 4 + size:
                break
            self._take(bytes(waiting[start : start + 4 + size]))
            start += 4 + size
        if start:
            del waiting[:start]

    def finish(self) -> State:
        """The state. Raises SnapshotDamaged where the bytes end before the snapshot does."""
        if self._version == snapshot_v1.VERSION:
            _load_v1(self, snapshot_v1.decode(bytes(self._waiting)))
            self._waiting.clear()
        elif not self._ended:
            raise SnapshotDamaged(f"the snapshot ends too early, after {self._items} items")
        self._state.history.loaded()
        if self._waiting:
            raise SnapshotDamaged("bytes follow the end of the snapshot")
        return self._state

    def _begin(self) -> None:
        waiting = self._waiting
        if waiting and not MAGIC.startswith(waiting[: len(MAGIC)]):
            self._version = snapshot_v1.VERSION  # It says so itself, when it is whole.
            return
        if len(waiting) < 8:
            return
        version = int.from_bytes(waiting[4:6], "big")
        if version != VERSION:
            raise SnapshotDamaged(f"expected a snapshot of version 1 to {VERSION}, got {version}")
        self._version = version
        self._hash.update(waiting[:8])
        del waiting[:8]

    def _take(self, frame: bytes) -> None:
        if self._ended:
            raise SnapshotDamaged("a frame follows the end of the snapshot")
        try:
            items = _frames.decode(memoryview(frame)[4:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise SnapshotDamaged(f"a frame is damaged: {error}") from None
        for item in items:
            self._add[type(item)](item)
            self._items += 1
        self._hash.update(frame)

    def _end(self, end: End) -> None:
        if end.items != self._items or end.hash != self._hash.digest():
            raise SnapshotDamaged(f"expected the {end.items} items whose hash this has, got {self._items} others")
        self._ended = True

    # --- from items to rows -----------------------------------------------------------------------

    def _add_head(self, head: _Head) -> None:
        state = self._state
        state.cluster_id, state.cluster_name = head.cluster_id, head.cluster_name
        state.epoch, state.applied = head.epoch, head.applied
        state.level, state.rights_index = head.level, head.rights_index

    def _add_principal(self, stored: _Principal) -> None:
        principal = Principal(SetPrincipal(stored.name, stored.rights, stored.prefixes, stored.act_for))
        principal.tokens = dict(stored.tokens)
        self._append(self._state.principals, stored.name, principal)
        self._state.tokens.update((token_id, stored.name) for token_id in principal.tokens)

    def _add_session(self, stored: _Session) -> None:
        session = self._session = Session(stored.session, stored.principal, stored.ttl_ms, stored.nonce)
        session.acked = stored.acked
        session.remaining_ms = stored.remaining_ms
        self._append(self._state.sessions, stored.session, session)
        if stored.nonce:
            self._state.nonces[stored.principal, stored.nonce] = stored.session

    def _add_results(self, stored: _Results) -> None:
        if self._session is None:
            raise SnapshotDamaged("results without a session")
        self._session.results.update(stored.results)

    def _add_lock(self, stored: _Lock) -> None:
        lock = self._lock = Lock(stored.name)
        lock.mode, lock.limit = stored.mode, stored.limit
        lock.token = stored.token
        lock.upgrading, lock.delay = stored.upgrading, stored.delay
        self._append(self._state.locks, stored.name, lock)
        if stored.delay is not None:
            self._state.delayed.add(stored.name)

    def _add_holders(self, stored: _Holders) -> None:
        lock = self._the_lock()
        for grant in stored.holders:
            holder = grant.holder
            lock.holders[holder.session, holder.acquisition] = grant
            self._session_of(holder.session).holds(lock.name, holder.acquisition)

    def _add_waiters(self, stored: _Waiters) -> None:
        lock = self._the_lock()
        for waiter in stored.waiters:
            holder = waiter.holder
            lock.queue[holder.session, holder.acquisition] = waiter
            self._session_of(holder.session).waits(lock.name, holder.acquisition)
        self._state.waiting += len(stored.waiters)

    def _the_lock(self) -> Lock:
        if self._lock is None:
            raise SnapshotDamaged("holders or waiters without a lock")
        return self._lock

    def _add_breaks(self, stored: _Breaks) -> None:
        self._state.next_break = stored.following

    def _add_wanted(self, stored: _Wanted) -> None:
        self._state.wanted = Wanted(stored.generation, stored.wanted)

    def _add_break(self, stored: _Break) -> None:
        add_break(self._state, stored.made)

    def _add_key(self, stored: _Key) -> None:
        item = Item(stored.value, stored.revision, stored.version, stored.instance, stored.ephemeral)
        if stored.key in self._state.keys.rows:
            raise SnapshotDamaged(f"{stored.key!r} is there twice")
        restore_item(self._state, stored.key, item)

    def _add_ephemeral(self, stored: _Ephemeral) -> None:
        self._append(self._state.ephemerals, stored.path, stored.sessions)
        for session in stored.sessions:
            self._session_of(session).files.add(stored.path)

    def _add_lock_generation(self, stored: _LockGeneration) -> None:
        self._append(self._state.lock_generations, stored.path, stored.token)

    def _add_history(self, stored: _History) -> None:
        self._state.history.begin(stored.compacted, stored.following)

    def _add_change(self, stored: _Change) -> None:
        history = self._state.history
        history.prepend(stored.revision, stored.key, stored.before, self._state.keys.rows.get(stored.key))

    def _session_of(self, number: int) -> Session:
        session = self._state.sessions.rows.get(number)
        if session is None:
            raise SnapshotDamaged(f"session {number} has something and is not there")
        return session

    @staticmethod
    def _append(table: Table[Any, Any], key: Any, row: Any) -> None:
        if key in table.rows:
            raise SnapshotDamaged(f"{key!r} is there twice")
        table.add(key, row)


def _load_v1(loader: Loader, old: snapshot_v1.State) -> None:
    loader._add_head(_Head(old.cluster_id, old.cluster_name, old.epoch, old.applied))
    for principal in old.principals:
        loader._add_principal(
            _Principal(principal.name, principal.rights, principal.prefixes, principal.act_for, (*principal.tokens,))
        )
    for session in old.sessions:
        loader._add_session(_Session(session.session, session.principal, session.ttl_ms, session.nonce, session.acked))
        loader._add_results(_Results(session.results))
    for lock in old.locks:
        names = (lock.name,)
        loader._add_lock(_Lock(lock.name, EXCLUSIVE, 1, lock.token, None, None))
        loader._add_holders(_Holders((Grant(lock.holder, lock.token, names),)))
        loader._add_waiters(_Waiters([Waiter(holder, EXCLUSIVE, 1, names) for holder in lock.queue]))
    for key, value, revision, version in old.keys:
        # When it was created is not known; no later one gets an instance that is not greater.
        loader._add_key(_Key(key, value, revision, version, revision))
    loader._add_history(_History(old.applied, 1))
    loader._add_wanted(_Wanted(*old.wanted))


# --- at once --------------------------------------------------------------------------------------


def begin(machine: Machine) -> Dump:
    """Begin to take a snapshot of `machine`, which may go on applying meanwhile."""
    return Dump(machine.state)


def dump(machine: Machine) -> bytes:
    """All of the state, at once."""
    whole = Dump(machine.state, attached=False)
    parts = []
    while not whole.done:
        parts.append(whole.slice(1 << 20))
    return b"".join(parts)


def load(machine: Machine, data: _Data) -> None:
    """Replace the whole state of `machine`, at once. Raises SnapshotDamaged, and then changes nothing."""
    loader = Loader()
    for start in range(0, len(data), 1 << 20):
        loader.feed(data[start : start + (1 << 20)])
    machine.adopt(loader.finish())


def digest(state: State) -> str:
    """`Dump.digest` of the state as it is."""
    whole = Dump(state, attached=False)
    while not whole.done:
        whole.slice(1 << 20)
    return whole.digest


__all__ = ["Dump", "Loader", "SnapshotDamaged", "begin", "digest", "dump", "load"]
