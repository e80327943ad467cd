"""Events of locks, and of who leads: in order, each once, as watches tell changes (`watches.py`).

Chubby's events besides those of files (section 2.5): a lock was acquired; a request conflicts with who holds it;
another leader took over. The first two are in the log, at a revision. The third is told where it belongs among the
others: what comes before it was told by a leader before, and what follows by the new one or a later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from coordinator import wire
from coordinator.client.asking import Ask, Asking, S, Stream, T, asked
from coordinator.client.core import Core
from coordinator.client.errors import Closed, Unavailable, refuse
from coordinator.client.flows import Clock, Flow
from coordinator.client.replies import Said
from coordinator.client.watches import QUESTION_US, WAIT_US
from coordinator.statemachine.files import ChangePage, ReadChanges
from coordinator.statemachine.lock_commands import LockEventPage, ReadLockEvents

Query = ReadChanges | ReadLockEvents


class FailOver(NamedTuple):
    """Another leadership began: the node that leads, and its term. Where one was so short that it answered nothing, it
    is not told of."""

    leader: str
    term: int


class EventWatch(Stream[S, T]):
    """Iterate over it (`for`, or `async for`): it waits for the next event as long as it takes, whatever becomes of
    leaders and connections. Raises Compacted where it comes too late: `oldest` + 1 is the first revision whose events
    are kept.

    Its position is (`since`, `skip`), as that of a `Watch`. `read` makes what is told of an event; None: left out.
    """

    def __init__(self, shell: S, query: Query, read: Callable[[object], T | None]) -> None:
        super().__init__(shell)
        self._from = query
        self._read = read
        self._term = 0
        """Of the leader that answered last; 0: none has."""
        self._taken: tuple[int, T] | None = None
        """What was taken last: should its asker have left, it is the next again."""
        self._ready: deque[tuple[int, T]] = deque()
        """Heard, and not taken yet: with its revision."""

    @property
    def since(self) -> int:
        """Nothing before this revision is missing; 0 before the first question of a watch "from now on"."""
        return self._ready[0][0] if self._ready else self._from.since

    @property
    def skip(self) -> int:
        """So many events of the revision `since` were told, or were not asked for."""
        return 0 if self._ready else self._from.skip

    @asked
    def begin(self, *, timeout: float | None = None) -> Ask[int]:
        """Fix where a watch "from now on" begins, and by whose word, before anything is waited for; the revision."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[int]:
            if not self._term:
                yield from self._ask(core, clock, 0, deadline_us)
            return self.since

        return Ask(flow)

    def _next(self, until_us: int | None) -> Ask[T | None]:
        clock = self._shell.clock

        def flow(core: Core) -> Asking[T | None]:
            while not self._ready:
                wait_us = WAIT_US if until_us is None else max(0, min(WAIT_US, until_us - clock()))
                # The first question is answered at once: whoever waits must know by whose word.
                wait_us = wait_us if self._term else 0
                is_last = until_us is not None and clock() + wait_us >= until_us and bool(self._term)
                try:
                    yield from self._ask(core, clock, wait_us, clock() + wait_us + QUESTION_US)
                except Closed:
                    raise
                except Unavailable:
                    if until_us is not None and clock() >= until_us:
                        raise
                    continue
                if is_last:
                    break
            self._taken = self._ready.popleft() if self._ready else None
            return None if self._taken is None else self._taken[1]

        return Ask(flow, lambda *_: None if self._taken is None else self._ready.appendleft(self._taken))

    def _ask(self, core: Core, clock: Clock, wait_us: int, deadline_us: int) -> Flow:
        self._hear((yield from _ask(core, clock, self._from, self._term, wait_us, deadline_us)))

    def _hear(self, said: Said) -> None:
        page = said.result
        assert isinstance(page, (ChangePage, LockEventPage)), page
        events: list[object] = [*(page.changes if isinstance(page, ChangePage) else page.events)]
        if self._term and said.term != self._term:
            events.insert(0, FailOver(said.leader, said.term))
        self._term = said.term
        for event in events:
            told = self._read(event)
            if told is not None:
                self._ready.append((getattr(event, "revision", self._from.since), told))
        self._from = _at(self._from, page.since, page.skip)


class Heard(NamedTuple):
    """A page, and by whose word: of the node that leads, and its term."""

    page: LockEventPage
    leader: str
    term: int


def next_events(
    core: Core, clock: Clock, query: ReadLockEvents, until_us: int, term: int = 0, act_for: str = ""
) -> Flow:
    """The next page that has events, as Heard; at `until_us` one that has none, which is a progress mark. `term`: of
    the leader that was heard before (0: nobody was); where another answers, its page is the next one, whether it has
    events or not. Raises Compacted, Busy (as many wait as may), and Unavailable where no leader answers at
    `until_us`."""
    while True:
        # "From now on" would be another place each time that it is asked: the first answer fixes it.
        wait_us = max(0, min(WAIT_US, until_us - clock())) if query.since else 0
        try:
            said: Said = yield from _ask(core, clock, query, term, wait_us, clock() + wait_us + QUESTION_US, act_for)
        except Closed:
            raise
        except Unavailable:
            if clock() >= until_us:
                raise
            continue
        page = said.result
        assert isinstance(page, LockEventPage), page
        if page.events or clock() >= until_us or (term and said.term != term):
            return Heard(page, said.leader, said.term)
        query = msgspec.structs.replace(query, since=page.since, skip=page.skip)


def _ask(core: Core, clock: Clock, query: Query, term: int, wait_us: int, deadline_us: int, act_for: str = "") -> Flow:
    """One question to whoever leads, who may wait for so long; what it Said."""
    ends_us = clock() + wait_us

    def build(request_id: int) -> wire.Request:
        wait_ms = max(0, ends_us - clock()) // 1_000
        return wire.EventsRequest(request_id, core.routing.cluster, act_for, query, wait_ms, term)

    call = core.wait_at_leader(build, wait_us, clock(), deadline_us)
    try:
        said: Said = refuse((yield call))
        refuse(said.result)
    except Unavailable:
        raise
    except BaseException:
        core.abandon(call)  # Its asker left: it is not to be sent again for as long as it might have waited.
        raise
    return said


def _at(query: Query, since: int, skip: int) -> Query:
    """The same from another position on."""
    return msgspec.structs.replace(query, since=since, skip=skip)
