"""Watches: the changes to a range in their order, each once, over leader changes, reconnections and restarts.

A watch holds nothing at the cluster but its position: (`since`, `skip`), before which it has everything. Whatever
happens to the leader or the connection, it asks again from there. What it can not go over is a history that is no
longer kept; then it says so, with the revision from which on changes are kept, and whoever watches reads anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from coordinator import wire
from coordinator.client import options
from coordinator.client.asking import Ask, Asking, S, Stream, T, asked
from coordinator.client.core import Core
from coordinator.client.errors import Closed, Compacted, InvalidRequest, Unavailable, refuse
from coordinator.client.flows import Clock, Flow
from coordinator.statemachine import files
from coordinator.statemachine.files import ChangePage, ChangeView, KeyView, ReadChanges

WAIT_US: Final = 5_000_000
"""How long one question waits at the leader for a change; then it is asked anew, from where it has come to."""
QUESTION_US: Final = 10_000_000
"""How long one question may wait for a leader, at least, before it is asked anew."""


class Snapshot(NamedTuple):
    """All of a range at one revision. `after_gap`: changes before it were missed, since they are not kept any more."""

    keys: tuple[KeyView, ...]
    revision: int
    after_gap: bool


def next_changes(core: Core, clock: Clock, query: ReadChanges, until_us: int | None, act_for: str = "") -> Flow:
    """The next page that has changes; at `until_us` one that has none, which is a progress mark. It is waited for at
    the leader. Raises Compacted, Busy (as many wait as may), and Unavailable where no leader answers at `until_us`."""
    if not query.since:
        query = yield from from_now_on(core, clock, query, clock() + QUESTION_US, act_for)
    while True:
        wait_us = WAIT_US if until_us is None else max(0, min(WAIT_US, until_us - clock()))

        def build(request_id: int, query: ReadChanges = query, ends_us: int = clock() + wait_us) -> wire.Request:
            wait_ms = max(0, ends_us - clock()) // 1_000
            return wire.WatchRequest(request_id, core.routing.cluster, act_for, query, wait_ms)

        asked = core.wait_at_leader(build, wait_us, clock(), clock() + wait_us + QUESTION_US)
        try:
            page: ChangePage = refuse((yield asked))
        except Closed:
            raise
        except Unavailable:
            if until_us is not None and clock() >= until_us:
                raise
            continue
        except BaseException:
            core.abandon(asked)  # Its asker left: it is not to be sent again for as long as it might have waited.
            raise
        if page.changes or (until_us is not None and clock() >= until_us):
            return page
        query = at(query, page.since, page.skip)


def from_now_on(core: Core, clock: Clock, query: ReadChanges, deadline_us: int, act_for: str = "") -> Flow:
    """The same, from behind what is there now: "from now on" would be another place each time that it is asked."""
    one = msgspec.structs.replace(query, limit=1)
    page: ChangePage = refuse((yield core.query(one, clock(), deadline_us, act_for)))
    return at(query, page.since, page.skip)


def at(query: ReadChanges, since: int, skip: int) -> ReadChanges:
    """The same from another position on."""
    return msgspec.structs.replace(query, since=since, skip=skip)


def read_all(
    core: Core,
    clock: Clock,
    start: str,
    end: str,
    *,
    prefix: bool,
    until_us: int | None,
    question_us: int = QUESTION_US,
) -> Flow:
    """All keys of a range at one revision, page after page; a RangeView without `more`. `question_us`: how long a
    leader has to answer each. Raises Unavailable where none does at `until_us` (None: it goes on asking)."""
    keys: list[KeyView] = []
    after, revision = "", 0
    while True:
        query = files.ReadRange(start, end, prefix, revision=revision, after=after)
        try:
            page: files.RangeView = refuse((yield core.query(query, clock(), clock() + question_us, persists=True)))
        except Closed:
            raise
        except Unavailable:
            if until_us is not None and clock() >= until_us:
                raise
            continue
        except Compacted:
            keys, after, revision = [], "", 0  # It took so long that this revision is gone: once more, now.
            continue
        keys += page.keys
        revision = page.revision
        if not page.more:
            return files.RangeView(tuple(keys), page.count, revision)
        after = page.keys[-1].key


class Watch(Stream[S, ChangeView]):
    """The changes to a range, in their order, each once. Iterate over it (`for`, or `async for`): it waits for the next
    change as long as it takes, whatever becomes of leaders and connections.

    It raises Compacted where it comes too late: `oldest` + 1 is the first revision whose changes are kept. (`Follow`
    deals with that by itself.) Its position is (`since`, `skip`): what a later watch takes to go on where this one was,
    exactly where the last change was the last one of its revision, and else from the first of that revision on.
    """

    def __init__(self, shell: S, query: ReadChanges) -> None:
        super().__init__(shell)
        self._from = query
        self._page: deque[ChangeView] = deque()
        """Read, and not taken yet."""

    @property
    def query(self) -> ReadChanges:
        """What is asked next."""
        return self._from

    @property
    def since(self) -> int:
        """Nothing before this revision is missing; 0 before the first question of a watch "from now on"."""
        return self._page[0].revision if self._page else self._from.since

    @property
    def skip(self) -> int:
        """So many changes of the revision `since` were told, or were not asked for."""
        return 0 if self._page else self._from.skip

    @asked
    def begin(self, *, timeout: float | None = None) -> Ask[int]:
        """Fix where a watch "from now on" begins, before anything is waited for; the revision."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            if not self._from.since:
                self._from = yield from from_now_on(core, clock, self._from, deadline_us)
            return self._from.since

        return Ask(flow)

    def _next(self, until_us: int | None) -> Ask[ChangeView | None]:
        clock = self._shell.clock

        def flow(core: Core) -> Asking[ChangeView | None]:
            if not self._page:
                page = yield from next_changes(core, clock, self._from, until_us)
                self._from = at(self._from, page.since, page.skip)
                self._page.extend(page.changes)
            return self._page.popleft() if self._page else None

        return Ask(flow, lambda _, change: None if change is None else self._page.appendleft(change))


class Follow(Stream[S, Snapshot | ChangeView]):
    """What a range holds, as a Snapshot, and then each change to it, in order. Where changes were missed because their
    history is not kept any more, another Snapshot follows in their place."""

    def __init__(self, shell: S, start: str, end: str, prefix: bool, *, previous: bool = False) -> None:
        """`previous`: each change says what was there before, too."""
        super().__init__(shell)
        self._range = (start, end, prefix)
        self._previous = previous
        self._position: ReadChanges | None = None
        """None: the range is to be read."""
        self._page: deque[ChangeView] = deque()
        self._has_begun = False

    def _next(self, until_us: int | None) -> Ask[Snapshot | ChangeView | None]:
        clock = self._shell.clock

        def flow(core: Core) -> Asking[Snapshot | ChangeView | None]:
            if not self._page and self._position is not None:
                try:
                    page = yield from next_changes(core, clock, self._position, until_us)
                    self._position = at(self._position, page.since, page.skip)
                    self._page.extend(page.changes)
                except Compacted:
                    self._position = None
            if self._position is None:
                snapshot: Snapshot = yield from self._read(core, clock, until_us)
                return snapshot
            return self._page.popleft() if self._page else None

        return Ask(flow, lambda _, told: self._untake(told))

    def _read(self, core: Core, clock: Clock, until_us: int | None) -> Flow:
        view = yield from read_all(core, clock, *self._range[:2], prefix=self._range[2], until_us=until_us)
        self._position = ReadChanges(*self._range, since=view.revision + 1, previous=self._previous)
        snapshot = Snapshot(view.keys, view.revision, after_gap=self._has_begun)
        self._has_begun = True
        return snapshot

    def _untake(self, told: Snapshot | ChangeView | None) -> None:
        """Its asker left before it had this."""
        if isinstance(told, Snapshot):
            self._position, self._has_begun = None, told.after_gap
        elif told is not None:
            self._page.appendleft(told)


class Mapped(Stream[S, T]):
    """What a Follow tells, as `read` takes it; where that is None it is left out."""

    def __init__(self, follow: Follow[S], read: Callable[[Snapshot | ChangeView], T | None]) -> None:
        super().__init__(follow._shell)
        self._follow = follow
        self._read = read
        self._last: Snapshot | ChangeView | None = None

    def _next(self, until_us: int | None) -> Ask[T | None]:
        def flow(core: Core) -> Asking[T | None]:
            while True:
                self._last = yield from self._follow._next(until_us).flow(core)
                if self._last is None:
                    return None
                told = self._read(self._last)
                if told is not None:
                    return told

        return Ask(flow, lambda *_: self._follow._untake(self._last))


def range_of(start: str, end: str, *, prefix: bool) -> tuple[str, str, bool]:
    """A range as the cluster takes it. Raises InvalidRequest."""
    if prefix and end:
        raise InvalidRequest("a range is a prefix, or ends before a name; got both")
    bare = start.removeprefix("/") if isinstance(start, str) else start
    if prefix and bare == "":
        return "", "", True
    return options.name(start), options.name(end) if end != "" else "", prefix
