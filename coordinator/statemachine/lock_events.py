"""What became of locks, for those that watch them: grants, requests that conflict with who holds a name, and how holds
ended.

Chubby's events of locks (section 2.5). They are numbered one after the other, as the changes of the namespace are, and
kept apart from those: a busy lock costs no file its past. An entry may bring about several, all of its revision. The
newest LOCK_EVENTS_MAX are kept; whoever brings one about drops the oldest. Below level 4 none is kept, and below level
5 none of a hold that ended, so that replicas of an earlier program hold the same state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Failure, Result
from coordinator.statemachine.files import SCANNED_MAX, Compacted
from coordinator.statemachine.history import NewestFirst
from coordinator.statemachine.lock_commands import (
    ACQUIRED,
    CONFLICT,
    EventKind,
    Grant,
    LockEvent,
    LockEventPage,
    Mode,
    ReadLockEvents,
    ReadLockLives,
    Waiter,
)
from coordinator.statemachine.paths import span_of
from coordinator.statemachine.tables import Walk

if TYPE_CHECKING:
    from coordinator.statemachine.locks import Lock
    from coordinator.statemachine.state import State

LOCK_EVENTS_MAX: Final = 50_000


class LockEvents:
    """Has what `tables.Walk` asks of a table, and what the leader's watches ask of a log (`replica/listeners.py`)."""

    __slots__ = ("compacted", "order", "released_since", "rows", "walk")

    def __init__(self) -> None:
        self.rows: dict[int, LockEvent] = {}
        self.order = NewestFirst()
        self.walk: Walk[int, LockEvent] | None = None
        self.compacted = 0
        """Events of this revision and those below may be missing."""
        self.released_since = 0
        """Of holds that ended, those of this revision and those below are missing: the cluster came to tell of them."""

    def append(self, event: LockEvent) -> None:
        order, rows = self.order, self.rows
        rows[order.following] = event
        order.following += 1
        if order.following - order.first > LOCK_EVENTS_MAX:
            if self.walk is not None:
                self.walk.touch(order.first)
            self.compacted = rows.pop(order.first).revision
            order.first += 1

    def begin(self, compacted: int, following: int) -> None:
        """For a snapshot: `prepend` brings the events, from the newest on."""
        self.compacted = compacted
        self.order.first = self.order.following = following

    def begin_anew(self, revision: int) -> None:
        """Give up all that are kept, and whatever there was up to this revision. No walk is under way."""
        self.rows.clear()
        self.begin(revision, self.order.following)

    def begin_ends(self, revision: int) -> None:
        """From behind this one on it is told how holds end."""
        self.released_since = revision

    def prepend(self, event: LockEvent) -> None:
        self.order.first -= 1
        self.rows[self.order.first] = event

    def since(self, revision: int) -> Iterator[LockEvent]:
        """The events from `revision` on, in order. Nothing must change while this is under way."""
        rows, low, high = self.rows, self.order.first, self.order.following
        while low < high:
            middle = (low + high) // 2
            if rows[middle].revision < revision:
                low = middle + 1
            else:
                high = middle
        return map(rows.__getitem__, range(low, self.order.following))


# --- what entries bring about ---------------------------------------------------------------------


def acquired(state: State, index: int, lock: Lock, grant: Grant) -> None:
    """The grant was made by entry `index`."""
    if state.level >= commands.LEVEL_OF_LOCK_EVENTS:
        event = LockEvent(index, lock.name, ACQUIRED, grant.holder, lock.mode, grant.token)
        state.lock_events.append(event)


def ended(state: State, index: int, lock: Lock, grant: Grant, how: EventKind) -> None:
    """The hold was ended by entry `index`."""
    if state.level >= commands.LEVEL_OF_LOCK_RELEASES:
        state.lock_events.append(LockEvent(index, lock.name, how, grant.holder, lock.mode, grant.token))


def asked(state: State, index: int, lock: Lock, waiter: Waiter, *, waits: bool) -> None:
    """`waiter` was not let in by entry `index`. Where that is because of who holds the name, they can learn of it."""
    if lock.conflicts(waiter, state.sessions.rows[waiter.holder.session]):
        conflict(state, index, lock, waiter.holder, waiter.mode, waits=waits)


def conflict(state: State, index: int, lock: Lock, asker: commands.Holder, mode: Mode, *, waits: bool) -> None:
    """`asker` wants the name in a mode that it can not have beside who holds it."""
    if state.level >= commands.LEVEL_OF_LOCK_EVENTS:
        state.lock_events.append(LockEvent(index, lock.name, CONFLICT, asker, mode, lock.token, waits))


def passed_on(state: State, index: int, lock: Lock) -> None:
    """Somebody holds the name now who did not before entry `index`: is told of who is first in line, who asked when
    another held it."""
    first = next(iter(lock.queue.values()), None)
    if first is not None:
        asked(state, index, lock, first, waits=True)


# --- reading --------------------------------------------------------------------------------------


def read_lock_events(state: State, query: ReadLockEvents) -> Result:
    """A page goes over SCANNED_MAX events at most."""
    events = state.lock_events
    if state.level < commands.LEVEL_OF_LOCK_EVENTS:
        message = (
            f"events of locks are kept from level {commands.LEVEL_OF_LOCK_EVENTS} on, the cluster has {state.level}"
        )
        return Failure(commands.REFUSED, message)
    if query.since < 0 or query.skip < 0:
        return Failure(commands.INVALID, f"revisions and counts are not negative, got {query.since}, {query.skip}")
    since = query.since or state.applied + 1
    oldest = events.compacted
    if isinstance(query, ReadLockLives) and query.released:
        if state.level < commands.LEVEL_OF_LOCK_RELEASES:
            message = f"is told from level {commands.LEVEL_OF_LOCK_RELEASES} on, the cluster has {state.level}"
            return Failure(commands.REFUSED, f"how holds end {message}")
        oldest = max(oldest, events.released_since)
    if since <= oldest:
        return Compacted(oldest)
    span = span_of(query.start, query.end, query.prefix)
    limit = query.limit if 0 < query.limit < commands.LIST_LIMIT_MAX else commands.LIST_LIMIT_MAX
    found: list[LockEvent] = []
    revision, place, scanned = since, 0, 0
    position = (since, query.skip)
    for event in events.since(since):
        if event.revision != revision:
            revision, place = event.revision, 0
        place += 1
        if revision == since and place <= query.skip:
            state.work.goes_over(1)
            continue
        is_wanted = span.holds(event.name) and query.wants(event)
        if scanned == SCANNED_MAX or (is_wanted and len(found) == limit):
            break
        if is_wanted:
            found.append(event)
        scanned += 1
        position = (revision, place)
    else:
        position = (max(since, state.applied + 1), 0)
    state.work.goes_over(scanned)
    return LockEventPage(tuple(found), *position)
