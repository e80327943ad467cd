"""Callers that wait for changes to a path, a prefix or a range, or for events of locks. Pure; a leader's memory alone.

A watch is a question that is answered later (`wire.WatchRequest`): when something of what was asked for has changed,
or with a progress mark when its time is over. Nothing is held for it but its question; the changes themselves are the
state machine's, and the position from which to go on is the caller's. So a reader that is slow holds no memory here: it
asks again from where it was, and where that is no longer kept it is told so (`files.Compacted`). A leader that falls
turns everybody away, and the next one is asked from the same position.

What was applied is looked at once, in order; whom it wakes is found in `listeners.py`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from coordinator.replica.callers import Caller
from coordinator.replica.listeners import Listeners, Log, Query
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Failure, Result
from coordinator.statemachine.files import ChangePage
from coordinator.statemachine.lock_commands import LockEventPage, ReadLockEvents
from coordinator.statemachine.machine import Machine
from coordinator.statemachine.state import State

WATCHES_MAX: Final = 50_000
"""Of one cluster. Past it a watch is refused."""
WAIT_MS_MAX: Final = 60_000
"""Of one watch: its caller is then told how far it has come, and asks again."""

_Question = tuple[str, int]
"""A caller's channel, and the number of its request."""
_Page = ChangePage | LockEventPage


class Watch(NamedTuple):
    """Who waits, for whom it speaks and by which tokens, and for what; `query` says from which position on.
    `tells_term`: its answer says whose it is."""

    caller: Caller
    request_id: int
    principal: str
    actor: str
    query: Query
    token: str = ""
    for_token: str = ""
    tells_term: bool = False

    @property
    def question(self) -> _Question:
        return self.caller.channel, self.request_id


class Woken(NamedTuple):
    """A watch to be answered, by `query`. From its position up to and with the entry `seen` there are so many `matches`
    for it, and its `limit` is no more than that; 0: nothing is said of that."""

    watch: Watch
    query: Query
    matches: int
    seen: int

    def page(self, found: _Page) -> _Page:
        """What was found, with where to go on: behind all that was looked at, where nothing of it was left out."""
        if not self.matches or len(told(found)) < self.matches or found.since > self.seen:
            return found
        return msgspec.structs.replace(found, since=self.seen + 1, skip=0)


def told(page: _Page) -> tuple[object, ...]:
    """What a page tells, of whichever log it is."""
    return page.changes if isinstance(page, ChangePage) else page.events


class Watches:
    def __init__(self) -> None:
        self._next_number = 1
        self._watches: dict[int, Watch] = {}
        """Those that wait for a change or for their time, by number."""
        self._numbers: dict[_Question, int] = {}
        self._of_changes = Listeners()
        self._of_locks = Listeners()
        self._due: list[tuple[int, int]] = []
        self._woken: OrderedDict[_Question, Woken] = OrderedDict()
        self._of_principals: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Watches that are not answered."""
        return len(self._watches) + len(self._woken)

    def count_of(self, principal: str) -> int:
        """Of these, the watches that are for `principal`."""
        return self._of_principals.get(principal, 0)

    @property
    def has_woken(self) -> bool:
        """Is anybody to be answered?"""
        return bool(self._woken)

    @property
    def due_us(self) -> int | None:
        """When the next one's time is over; None where nobody waits."""
        return self._due[0][0] if self._due else None

    def begin(
        self, watch: Watch, wait_ms: int, now_us: int, machine: Machine, remaining_ms: Callable[[int], int]
    ) -> Result | None:
        """The answer to a watch, where there is one now; else None, and it waits. All that was applied was looked at.
        An earlier copy of it waits no longer."""
        self.forget(watch.caller, watch.request_id)
        if not 0 <= wait_ms <= WAIT_MS_MAX:
            return Failure(commands.INVALID, f"a watch waits for 0 to {WAIT_MS_MAX} ms, got {wait_ms}")
        found = self._ask(watch, watch.query, machine, remaining_ms)
        if not isinstance(found, _Page) or told(found) or found.since <= machine.applied or not wait_ms:
            return found
        refused = machine.refuse_watch(watch.principal, self.count, self.count_of(watch.principal))
        if refused is not None:
            return refused
        waiting = watch._replace(query=msgspec.structs.replace(watch.query, since=found.since, skip=found.skip))
        if self.add(waiting, now_us + wait_ms * 1_000, machine.state):
            return None
        return Failure(commands.FULL, f"the cluster has its {WATCHES_MAX} watches")

    def answer(self, machine: Machine, remaining_ms: Callable[[int], int]) -> tuple[Watch, Result] | None:
        """The next one that was woken, and its answer by the rights of now; None where there is none."""
        woken = self.take_woken()
        if woken is None:
            return None
        watch = woken.watch
        found = self._ask(watch, woken.query, machine, remaining_ms)
        return watch, woken.page(found) if isinstance(found, _Page) else found

    @staticmethod
    def _ask(watch: Watch, query: Query, machine: Machine, remaining_ms: Callable[[int], int]) -> Result:
        return machine.query(query, watch.principal, remaining_ms, watch.actor, watch.token, watch.for_token)

    def _of(self, query: Query) -> Listeners:
        return self._of_locks if isinstance(query, ReadLockEvents) else self._of_changes

    def add(self, watch: Watch, due_us: int, state: State) -> bool:
        """Let it wait until `due_us`. All that was applied before was looked at, or is behind its position. False
        where there are too many."""
        if self.count >= WATCHES_MAX:
            return False
        number = self._next_number
        self._next_number += 1
        self._watches[number] = watch
        self._numbers[watch.question] = number
        self._of_principals[watch.principal] = self._of_principals.get(watch.principal, 0) + 1
        log: Log = state.lock_events if isinstance(watch.query, ReadLockEvents) else state.history
        self._of(watch.query).add(number, watch.query, log)
        heapq.heappush(self._due, (due_us, number))
        if len(self._due) > 64 + 4 * len(self._watches):
            self._due = [(due_us, number) for due_us, number in self._due if number in self._watches]
            heapq.heapify(self._due)
        return True

    def forget(self, caller: Caller, request_id: int) -> None:
        """It is asked anew, or not any more."""
        question = (caller.channel, request_id)
        number = self._numbers.get(question)
        woken = self._woken.pop(question, None)
        if number is not None:
            self._is_over(self._remove(number))
        elif woken is not None:
            self._is_over(woken.watch)

    def _is_over(self, watch: Watch) -> None:
        self._of_principals[watch.principal] -= 1
        if not self._of_principals[watch.principal]:
            del self._of_principals[watch.principal]

    def _remove(self, number: int) -> Watch:
        watch = self._watches.pop(number)
        del self._numbers[watch.question]
        self._of(watch.query).remove(number)
        return watch

    # --- waking -----------------------------------------------------------------------------------

    def look(self, state: State) -> None:
        """Wake whoever waits for what came about since the last look."""
        if self._watches:
            self._look(self._of_changes, state.history, state.applied)
            self._look(self._of_locks, state.lock_events, state.applied)

    def _look(self, listeners: Listeners, log: Log, applied: int) -> None:
        hits = listeners.look(log)
        if hits is None:
            # Each reads on from where it was, or is told that this is not kept.
            for number in listeners.all:
                watch = self._remove(number)
                self._woken[watch.question] = Woken(watch, watch.query, 0, applied)
            return
        for number, (since, matches) in hits.items():
            watch = self._remove(number)
            asked = watch.query  # From the beginning of a revision on: what waits has read all that was applied.
            limit = min(asked.limit or matches, matches)
            query = msgspec.structs.replace(asked, since=since, skip=0, limit=limit)
            self._woken[watch.question] = Woken(watch, query, matches, applied)

    def pass_time(self, now_us: int, applied: int) -> None:
        """Wake those whose time is over; all that was applied was looked at."""
        while self._due and self._due[0][0] <= now_us:
            number = heapq.heappop(self._due)[1]
            if number in self._watches:
                watch = self._remove(number)
                query = msgspec.structs.replace(watch.query, since=max(watch.query.since, applied + 1), skip=0)
                self._woken[watch.question] = Woken(watch, query, 0, applied)

    def take_woken(self) -> Woken | None:
        """The next one to be answered."""
        if not self._woken:
            return None
        _, woken = self._woken.popitem(last=False)
        self._is_over(woken.watch)
        return woken

    def take_all(self) -> list[Watch]:
        """Everybody who waits: this leadership is over."""
        return [*self._watches.values(), *(woken.watch for woken in self._woken.values())]
