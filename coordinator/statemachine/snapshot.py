"""The state machine as bytes, and back, in slices. The same state gives the same bytes on every replica.

A snapshot is a head, frames, and an end:

    head    b"CLST", version (2 bytes), 2 bytes of zero
    frame   length of the body (4 bytes); body: a MessagePack array of items
    end     a frame whose only item is `End`: how many items came before it, and a hash of all bytes before its frame

Numbers are big-endian. Items come in the order of the tables (`TABLES`) and within each in the order of its keys. A
frame is full when its items have FRAME_BYTES or are FRAME_ITEMS: that depends on the items alone, and slices are whole
frames, so that the bytes do not depend on how they were sliced. What of one row may be much, results of a session and
holders and waiters of a lock, goes on in items of its own.

A `Dump` shows the state as it was when it began, though the machine goes on: see `tables.py`. A `Loader` builds a
state beside the one that is in use. A later version of this module reads every earlier one; version 1, one
MessagePack array, is in `snapshot_v1.py`. Version 3 is version 2 with more kinds of items; it is written from level 3
on, and before that, where no such item can be, version 2: the bytes that replicas of that version have too. In the
same way version 4 is version 3 with the events of locks, from level 4 on, and version 5 says from where on those tell
how holds end, from level 5 on.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from coordinator.statemachine import commands, quotas, snapshot_v1
from coordinator.statemachine.commands.levels import LATER_WROTE_IT, why_unreadable
from coordinator.statemachine.items import Item
from coordinator.statemachine.lock_changes import add_break
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.namespace import restore_item
from coordinator.statemachine.principals import Principal, Role
from coordinator.statemachine.sessions import Session
from coordinator.statemachine.snapshot_items import (
    TABLES,
    BreakItem,
    BreaksItem,
    CachingItem,
    ChangeItem,
    End,
    EphemeralItem,
    HeadItem,
    HistoryItem,
    HoldersItem,
    Items,
    KeyItem,
    LockEventItem,
    LockEventsItem,
    LockGenerationItem,
    LockItem,
    LockReleasesItem,
    NarrowingItem,
    OwnedChangeItem,
    OwnedKeyItem,
    PermittedItem,
    PrincipalItem,
    QuotaItem,
    ResultsItem,
    RoleItem,
    SessionItem,
    SnapshotItem,
    WaitersItem,
    WantedItem,
    Was,
)
from coordinator.statemachine.snapshot_v1 import SnapshotDamaged
from coordinator.statemachine.state import State
from coordinator.statemachine.tables import Table, Walk
from coordinator.statemachine.wanted import Wanted

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Machine

MAGIC: Final = b"CLST"
VERSION: Final = 2
"""Of the bytes of a state of level 1 or 2."""
VERSION_OF_QUOTAS: Final = 3
"""Of the bytes of a state of level 3."""
VERSION_OF_LOCK_EVENTS: Final = 4
"""Of the bytes of a state of level 4."""
VERSION_OF_LOCK_RELEASES: Final = 5
"""Of the bytes of a state of level 5 on."""
FRAME_BYTES: Final = 16_384
FRAME_ITEMS: Final = 128
FRAME_BYTES_MAX: Final = 1 << 26
"""Of the body of a frame. No item comes near it: the largest are a file and a result, of some MiB at the most. More
that is read is damage, not state."""
PAGE: Final = 128
"""Rows that are frozen at once."""
SLICE_BYTES: Final = 32_768
"""Of a slice, unless told otherwise: about a millisecond's work."""


class _Data(Protocol):
    """Bytes, or what is read like them."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: slice, /) -> bytes: ...


_encoder = msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(Items)


class Dump:
    """A state on its way into bytes, as it was when this was made.

    `slice` gives them piece by piece until `done`; then `digest` is there. `attached`: the state may change
    meanwhile. There is one attached dump of a state at a time; `close` gives one up.
    """

    def __init__(self, state: State, *, attached: bool = True) -> None:
        head: tuple[SnapshotItem, ...] = (
            HeadItem(state.cluster_id, state.cluster_name, state.epoch, state.applied, state.level, state.rights_index),
            WantedItem(*state.wanted),
            BreaksItem(state.next_break),
            HistoryItem(state.history.compacted, state.history.order.following),
        )
        self.applied = state.applied
        """The index that this is the state of."""
        self._version = VERSION_OF_QUOTAS if state.level >= commands.LEVEL_OF_QUOTAS else VERSION
        if state.level >= commands.LEVEL_OF_LOCK_EVENTS:
            self._version, events = VERSION_OF_LOCK_EVENTS, state.lock_events
            head += (LockEventsItem(events.compacted, events.order.following),)
        if state.level >= commands.LEVEL_OF_LOCK_RELEASES:
            self._version = VERSION_OF_LOCK_RELEASES
            head += (LockReleasesItem(state.lock_events.released_since),)
        self._walks: list[tuple[Walk[Any, Any], Callable[[Any, Any], Any]]] = []
        for field, freeze, items in TABLES:
            walk = Walk(getattr(state, field), freeze, attached=attached)
            if field in ("history", "lock_events"):
                walk.begin_behind(getattr(state, field).order.following)
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

    def _all(self, head: tuple[SnapshotItem, ...]) -> Iterator[bytes]:
        start = MAGIC + self._version.to_bytes(2, "big") + bytes(2)
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
        assert len(frame) <= 4 + FRAME_BYTES_MAX, f"a frame of {len(frame)} bytes is one that no replica loads"
        self._hash.update(frame)
        return frame

    def _items(self, head: tuple[SnapshotItem, ...]) -> Iterator[SnapshotItem]:
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
        self._names: dict[str, str] = {}
        """Of owners: one string for each, however many keys it owns."""
        self._session: Session | None = None
        self._lock: Lock | None = None

    @property
    def state(self) -> State:
        """What is built of it so far."""
        return self._state

    def feed(self, part: bytes | memoryview) -> None:
        waiting = self._waiting
        waiting += part
        if not self._version:
            self._begin()
        if self._version < VERSION:
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
            for item in snapshot_v1.items(snapshot_v1.decode(bytes(self._waiting))):
                _ADD[type(item)](self, item)
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
        if not VERSION <= version <= VERSION_OF_LOCK_RELEASES:
            why = f"expected a snapshot of version 1 to {VERSION_OF_LOCK_RELEASES}, got {version}"
            raise SnapshotDamaged(why if version < VERSION else f"{why}: {LATER_WROTE_IT}")
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
            _ADD[type(item)](self, item)
            self._items += 1
        self._hash.update(frame)

    def _end(self, end: End) -> None:
        if end.items != self._items or end.hash != self._hash.digest():
            raise SnapshotDamaged(f"expected the {end.items} items whose hash this has, got {self._items} others")
        self._ended = True

    # --- from items to rows -----------------------------------------------------------------------

    def _add_head(self, head: HeadItem) -> None:
        if why := why_unreadable(head.level):  # What comes behind it would be passed over.
            raise SnapshotDamaged(why)
        state = self._state
        state.cluster_id, state.cluster_name = head.cluster_id, head.cluster_name
        state.epoch, state.applied = head.epoch, head.applied
        state.level, state.rights_index = head.level, head.rights_index

    def _add_principal(self, stored: PrincipalItem) -> None:
        principal = Principal(commands.SetPrincipal(stored.name, stored.rights, stored.prefixes, stored.act_for))
        principal.tokens = dict(stored.tokens)
        self._append(self._state.principals, stored.name, principal)
        self._state.tokens.update((token_id, stored.name) for token_id in principal.tokens)

    def _add_session(self, stored: SessionItem) -> None:
        share = self._state.kept.begin(stored.principal)
        session = self._session = Session(stored.session, stored.principal, stored.ttl_ms, stored.nonce, share)
        session.acked = stored.acked
        session.remaining_ms = stored.remaining_ms
        self._append(self._state.sessions, stored.session, session)
        quotas.count_session(self._state.uses, stored.principal, 1)
        if stored.nonce:
            self._state.nonces[stored.principal, stored.nonce] = stored.session

    def _add_caching(self, stored: CachingItem) -> None:
        if self._session is None or self._session.session != stored.session:
            raise SnapshotDamaged("a session that is not there may keep what it reads")
        self._session.caches = True
        self._state.caching.add(stored.session)

    def _add_results(self, stored: ResultsItem) -> None:
        if self._session is None:
            raise SnapshotDamaged("results without a session")
        for number, result in stored.results:
            self._session.keep(number, result)

    def _add_lock(self, stored: LockItem) -> None:
        lock = self._lock = Lock(stored.name)
        lock.hold_as(stored.mode, stored.limit)
        lock.upgrading, lock.delay, lock.token = stored.upgrading, stored.delay, stored.token
        self._append(self._state.locks, stored.name, lock)
        if stored.delay is not None:
            self._state.delayed.add(stored.name)

    def _add_holders(self, stored: HoldersItem) -> None:
        lock = self._the_lock()
        for grant in stored.holders:
            holder = grant.holder
            lock.holders[holder.session, holder.acquisition] = grant
            self._session_of(holder.session).holds(lock.name, holder.acquisition)

    def _add_waiters(self, stored: WaitersItem) -> None:
        lock = self._the_lock()
        for waiter in stored.waiters:
            holder = waiter.holder
            lock.line_up(waiter)
            session = self._session_of(holder.session)
            session.waits(lock.name, holder.acquisition, reentrant=waiter.reentrant)
            quotas.count_waiters(self._state.uses, session.principal, 1)
        self._state.waiting += len(stored.waiters)

    def _the_lock(self) -> Lock:
        if self._lock is None:
            raise SnapshotDamaged("holders or waiters without a lock")
        return self._lock

    def _add_breaks(self, stored: BreaksItem) -> None:
        self._state.next_break = stored.following

    def _add_wanted(self, stored: WantedItem) -> None:
        self._state.wanted = Wanted(stored.generation, stored.wanted)

    def _add_break(self, stored: BreakItem) -> None:
        add_break(self._state, stored.made)

    def _add_key(self, stored: KeyItem) -> None:
        item = Item(stored.value, stored.revision, stored.version, stored.instance, stored.ephemeral)
        self._restore(stored.key, item)

    def _add_owned_key(self, stored: OwnedKeyItem) -> None:
        owner = self._names.setdefault(stored.owner, stored.owner)
        item = Item(stored.value, stored.revision, stored.version, stored.instance, stored.ephemeral, owner)
        self._restore(stored.key, item)

    def _restore(self, key: str, item: Item) -> None:
        if key in self._state.keys.rows:
            raise SnapshotDamaged(f"{key!r} is there twice")
        restore_item(self._state, key, item)

    def _add_role(self, stored: RoleItem) -> None:
        self._append(self._state.roles, stored.name, Role(stored.name, stored.permissions))

    def _add_permitted(self, stored: PermittedItem) -> None:
        principal = self._state.principals.rows.get(stored.principal)
        if principal is None:
            raise SnapshotDamaged(f"principal {stored.principal!r} may do something and is not there")
        principal.permissions, principal.roles = stored.permissions, stored.roles
        for name in stored.roles:
            role = self._state.roles.rows.get(name)
            if role is None:
                raise SnapshotDamaged(f"{stored.principal!r} has the role {name!r}, which is not there")
            role.members += 1

    def _add_narrowing(self, stored: NarrowingItem) -> None:
        self._append(self._state.narrowings, stored.token_id, stored.permissions)

    def _add_quota(self, stored: QuotaItem) -> None:
        self._append(self._state.quotas, stored.principal, stored.quota)

    def _add_ephemeral(self, stored: EphemeralItem) -> None:
        self._append(self._state.ephemerals, stored.path, stored.sessions)
        for session in stored.sessions:
            self._session_of(session).files.add(stored.path)

    def _add_lock_generation(self, stored: LockGenerationItem) -> None:
        self._append(self._state.lock_generations, stored.path, stored.token)

    def _add_history(self, stored: HistoryItem) -> None:
        self._state.history.begin(stored.compacted, stored.following)

    def _add_change(self, stored: ChangeItem) -> None:
        self._prepend(stored.revision, stored.key, None if stored.before is None else _item(stored.before, ""))

    def _add_owned_change(self, stored: OwnedChangeItem) -> None:
        owner = self._names.setdefault(stored.owner, stored.owner)
        self._prepend(stored.revision, stored.key, _item(stored.before, owner))

    def _prepend(self, revision: int, key: str, before: Item | None) -> None:
        self._state.history.prepend(revision, key, before, self._state.keys.rows.get(key))

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


_ADD: Final[dict[type, Callable[[Loader, Any], None]]] = {
    HeadItem: Loader._add_head,
    PrincipalItem: Loader._add_principal,
    SessionItem: Loader._add_session,
    ResultsItem: Loader._add_results,
    LockItem: Loader._add_lock,
    WaitersItem: Loader._add_waiters,
    KeyItem: Loader._add_key,
    EphemeralItem: Loader._add_ephemeral,
    LockGenerationItem: Loader._add_lock_generation,
    HistoryItem: Loader._add_history,
    ChangeItem: Loader._add_change,
    HoldersItem: Loader._add_holders,
    BreaksItem: Loader._add_breaks,
    BreakItem: Loader._add_break,
    WantedItem: Loader._add_wanted,
    OwnedKeyItem: Loader._add_owned_key,
    OwnedChangeItem: Loader._add_owned_change,
    PermittedItem: Loader._add_permitted,
    RoleItem: Loader._add_role,
    NarrowingItem: Loader._add_narrowing,
    QuotaItem: Loader._add_quota,
    CachingItem: Loader._add_caching,
    LockEventsItem: lambda loader, stored: loader._state.lock_events.begin(stored.compacted, stored.following),
    LockEventItem: lambda loader, stored: loader._state.lock_events.prepend(stored.event),
    LockReleasesItem: lambda loader, stored: loader._state.lock_events.begin_ends(stored.since),
    End: Loader._end,
}
"""What becomes of each kind of item. No loader has this, bound to itself: it would be part of a cycle, and keep the
state that it has built until a full collection, or for good where that was frozen (`host.py`)."""


def _item(was: Was, owner: str) -> Item:
    return Item(was.value, was.revision, was.version, was.instance, was.ephemeral, owner)


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


def digest(state: State, bytes_max: int = sys.maxsize) -> str:
    """`Dump.digest` of the state as it is; "" where it comes to more than `bytes_max`, which is noticed after a slice
    more."""
    whole = Dump(state, attached=False)
    while not whole.done:
        if whole.bytes > bytes_max:
            return ""
        whole.slice()
    return whole.digest


__all__ = ["Dump", "Loader", "SnapshotDamaged", "begin", "digest", "dump", "load"]
