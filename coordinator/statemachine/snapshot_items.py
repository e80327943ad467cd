"""The items of a snapshot (`snapshot.py`), and the items of a row of each table.

Items are append-only: their tags and fields stay what they are, new fields come at the end, with a default. What is of
level 3 has items of its own, so that a state of level 2 has the bytes that it always had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from coordinator.statemachine.commands import Result
from coordinator.statemachine.items import Change, Item
from coordinator.statemachine.lock_commands import Break, Delay, Grant, LockEvent, Mode, Waiter
from coordinator.statemachine.locks import Lock
from coordinator.statemachine.permissions import Permission, Quota
from coordinator.statemachine.principals import Principal
from coordinator.statemachine.sessions import Session

PART_MAX: Final = 128
"""Results of a session, or holders or waiters of a lock, in one item."""
PART_BYTES: Final = 16_384
"""Of the results in one item, or one result."""

FrozenSession = tuple["SessionItem", dict[int, Result], dict[int, int], bool]
"""Its item, its results, what each of them has in bytes where it is no small one, and whether its client caches."""


class SnapshotItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class HeadItem(SnapshotItem, tag=0, frozen=True):
    cluster_id: int
    cluster_name: str
    epoch: int
    applied: int
    level: int = 1
    rights_index: int = 0


class PrincipalItem(SnapshotItem, tag=1, frozen=True):
    name: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...]
    act_for: bool
    tokens: tuple[tuple[str, bytes], ...]


class SessionItem(SnapshotItem, tag=2, frozen=True):
    session: int
    principal: str
    ttl_ms: int
    nonce: bytes
    acked: int
    remaining_ms: int | None = None


class ResultsItem(SnapshotItem, tag=3, frozen=True):
    """Of the session before it, by number."""

    results: Sequence[tuple[int, Result]]


class LockItem(SnapshotItem, tag=4, frozen=True):
    name: str
    mode: Mode
    limit: int
    token: int
    upgrading: tuple[int, int] | None
    delay: Delay | None


class WaitersItem(SnapshotItem, tag=5, frozen=True):
    """Of the lock before it, in their order in line."""

    waiters: Sequence[Waiter]


class HoldersItem(SnapshotItem, tag=12, frozen=True):
    """Of the lock before it, in the order of their grants."""

    holders: Sequence[Grant]


class KeyItem(SnapshotItem, tag=6, frozen=True):
    key: str
    value: bytes | None
    revision: int
    version: int
    instance: int
    ephemeral: bool = False


class EphemeralItem(SnapshotItem, tag=8, frozen=True):
    path: str
    sessions: tuple[int, ...]


class LockGenerationItem(SnapshotItem, tag=9, frozen=True):
    path: str
    token: int


class HistoryItem(SnapshotItem, tag=10, frozen=True):
    """`following` is the number of the next change. The changes come after it, from the newest on."""

    compacted: int
    following: int


class OwnedKeyItem(SnapshotItem, tag=16, frozen=True):
    key: str
    value: bytes | None
    revision: int
    version: int
    instance: int
    ephemeral: bool
    owner: str


class Was(SnapshotItem, frozen=True):
    """What was at a key: an `Item` but for its owner."""

    value: bytes | None
    revision: int
    version: int
    instance: int
    ephemeral: bool = False


class ChangeItem(SnapshotItem, tag=11, frozen=True):
    """What came after it is known from the changes before it here, and from the keys."""

    revision: int
    key: str
    before: Was | None


class OwnedChangeItem(SnapshotItem, tag=17, frozen=True):
    """Of a key that had an owner."""

    revision: int
    key: str
    before: Was
    owner: str


class BreaksItem(SnapshotItem, tag=13, frozen=True):
    following: int


class BreakItem(SnapshotItem, tag=14, frozen=True):
    made: Break


class WantedItem(SnapshotItem, tag=15, frozen=True):
    generation: int
    wanted: bytes


class PermittedItem(SnapshotItem, tag=18, frozen=True):
    """What a principal may do besides what its `PrincipalItem` says. All roles come before."""

    principal: str
    permissions: tuple[Permission, ...]
    roles: tuple[str, ...]


class RoleItem(SnapshotItem, tag=19, frozen=True):
    name: str
    permissions: tuple[Permission, ...]


class NarrowingItem(SnapshotItem, tag=20, frozen=True):
    token_id: str
    permissions: tuple[Permission, ...]


class QuotaItem(SnapshotItem, tag=21, frozen=True):
    principal: str
    quota: Quota


class LockEventsItem(SnapshotItem, tag=22, frozen=True):
    """`following` is the number of the next event. The events come at the end, from the newest on."""

    compacted: int
    following: int


class LockEventItem(SnapshotItem, tag=23, frozen=True):
    event: LockEvent


class LockReleasesItem(SnapshotItem, tag=25, frozen=True):
    """Of a state of level 5 on: from behind which revision on the events tell how holds ended."""

    since: int


class CachingItem(SnapshotItem, tag=24, frozen=True):
    """The client of the session before it may keep what it reads."""

    session: int


class End(SnapshotItem, tag=7, frozen=True):
    items: int
    hash: bytes


Items = list[
    HeadItem
    | PrincipalItem
    | SessionItem
    | ResultsItem
    | LockItem
    | WaitersItem
    | KeyItem
    | EphemeralItem
    | LockGenerationItem
    | HistoryItem
    | ChangeItem
    | HoldersItem
    | BreaksItem
    | BreakItem
    | WantedItem
    | OwnedKeyItem
    | OwnedChangeItem
    | PermittedItem
    | RoleItem
    | NarrowingItem
    | QuotaItem
    | LockEventsItem
    | LockEventItem
    | CachingItem
    | LockReleasesItem
    | End
]


# --- from rows to items ---------------------------------------------------------------------------
# `freeze` gives a form of a row that no change reaches, and is as cheap as that can be; `items` the items of it.


def _freeze_principal(principal: Principal) -> tuple[SnapshotItem, ...]:
    tokens = tuple(sorted(principal.tokens.items()))
    said = PrincipalItem(principal.name, principal.rights, principal.prefixes, principal.act_for, tokens)
    if not principal.permissions and not principal.roles:
        return (said,)
    return said, PermittedItem(principal.name, principal.permissions, principal.roles)


def _freeze_session(session: Session) -> FrozenSession:
    head = SessionItem(
        session.session, session.principal, session.ttl_ms, session.nonce, session.acked, session.remaining_ms
    )
    return head, session.results.copy(), session.sizes.copy(), session.caches


def _session_items(_: int, frozen: FrozenSession) -> Iterator[SnapshotItem]:
    head, results, sizes, caches = frozen
    yield head
    if caches:
        yield CachingItem(head.session)
    for part in _parts(sorted(results), sizes):
        yield ResultsItem([(number, results[number]) for number in part])


def _parts(numbers: list[int], sizes: dict[int, int]) -> Iterator[list[int]]:
    """PART_MAX of them at the most and PART_BYTES, but one at least."""
    start = size = 0
    for at, number in enumerate(numbers):
        size += sizes.get(number, 0)
        if at > start and (at - start == PART_MAX or size > PART_BYTES):
            yield numbers[start:at]
            start, size = at, sizes.get(number, 0)
    if start < len(numbers):
        yield numbers[start:]


def _freeze_lock(lock: Lock) -> tuple[LockItem, list[Grant], list[Waiter]]:
    head = LockItem(lock.name, lock.mode, lock.limit, lock.token, lock.upgrading, lock.delay)
    return head, [*lock.holders.values()], [*lock.queue.values()]


def _lock_items(_: str, frozen: tuple[LockItem, list[Grant], list[Waiter]]) -> Iterator[SnapshotItem]:
    head, holders, waiters = frozen
    yield head
    for start in range(0, len(holders), PART_MAX):
        yield HoldersItem(holders[start : start + PART_MAX])
    for start in range(0, len(waiters), PART_MAX):
        yield WaitersItem(waiters[start : start + PART_MAX])


def _key_items(key: str, item: Item) -> tuple[SnapshotItem]:
    if item.owner:
        return (OwnedKeyItem(key, item.value, item.revision, item.version, item.instance, item.ephemeral, item.owner),)
    return (KeyItem(key, item.value, item.revision, item.version, item.instance, item.ephemeral),)


def _change_items(_: int, change: Change) -> tuple[SnapshotItem]:
    before = change.before
    if before is None:
        return (ChangeItem(change.revision, change.key, None),)
    was = Was(before.value, before.revision, before.version, before.instance, before.ephemeral)
    if before.owner:
        return (OwnedChangeItem(change.revision, change.key, was, before.owner),)
    return (ChangeItem(change.revision, change.key, was),)


def _same(row: Any) -> Any:
    return row


TABLES: Final[
    tuple[
        tuple[str, Callable[[Any], Any], Callable[[Any, Any], Iterator[SnapshotItem] | tuple[SnapshotItem, ...]]], ...
    ]
] = (
    ("roles", lambda role: role.permissions, lambda name, permissions: (RoleItem(name, permissions),)),
    ("principals", _freeze_principal, lambda name, frozen: frozen),
    ("narrowings", _same, lambda token_id, permissions: (NarrowingItem(token_id, permissions),)),
    ("quotas", _same, lambda principal, quota: (QuotaItem(principal, quota),)),
    ("sessions", _freeze_session, _session_items),
    ("locks", _freeze_lock, _lock_items),
    ("keys", _same, _key_items),
    ("ephemerals", _same, lambda path, attached: (EphemeralItem(path, attached),)),
    ("lock_generations", _same, lambda path, token: (LockGenerationItem(path, token),)),
    ("breaks", _same, lambda _, made: (BreakItem(made),)),
    ("history", _same, _change_items),
    ("lock_events", _same, lambda _, event: (LockEventItem(event),)),
)
"""Field of the state, freeze, items. Roles and sessions come before what names them."""
