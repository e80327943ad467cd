"""Deadlocks between sessions: would one that is about to wait close a cycle, or one that is to be given a name?

A session waits for those that hold a name that it is in line for, and for those before it in that line, unless the two
could hold the name together; one that waits to hold it alone is taken to do so. A re-entrant one waits for nobody in
the line of a name that its own session holds. Counting locks have no part in this:
any of their holders may be the one that lets go, and whoever lets go need not be the one that took.

The search goes from both ends: backwards, from who waits for the session, and ahead, from whom it would wait for, one
step each in turn until they meet. As soon as one of both has been everywhere it is over: most have nobody that waits
for them, and then that is at once; and who holds what a crowd waits for mostly waits for few itself. What was found
takes its turns too, so that nothing lies behind the end of a long line; and no part of a line is gone over twice by
one side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from coordinator.statemachine.lock_commands import COUNTING, CYCLE_STEPS_MAX, EXCLUSIVE, SHARED, LockWait, Mode, Waiter

if TYPE_CHECKING:
    from coordinator.statemachine.locks import Key, Lock
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State

STEP_ROWS: Final = 8
"""A step of both ends takes as long as to go over so many rows."""

_Step = tuple[int, str] | None
"""A session, and the name by which it waits, or is waited for; None: a step that led to nobody."""


def cycle(
    state: State, session: Session, mode: Mode, names: Iterable[str], *, in_line: bool = True
) -> tuple[LockWait, ...]:
    """The cycle that `session` would close by waiting for `names` in `mode`; () where there is none. `in_line`: behind
    all that wait for them now; else it waits for the holders alone."""
    rows = state.locks.rows
    if mode == COUNTING or not (session.waiting or any(_is_waited_for(rows[name]) for name in session.locks)):
        return ()
    wanted = [rows[name] for name in names if name in rows]

    def closes(waiting: int) -> str | None:
        other = state.sessions.rows[waiting]
        for lock in wanted:
            if _blocks(lock, other, mode, in_line=in_line):
                return lock.name
        return None

    me, waits = session.session, _Waits(state)
    behind = _Side(waits.of_those_behind, me, waits.of_those_behind(session), closes, knows_me=True)
    ahead = _Side(waits.of_those_ahead, me, waits.at_the_end(session, mode, wanted, in_line=in_line))
    return _met(state, me, behind, ahead)


class Given(NamedTuple):
    """A name as if it had been handed over: `heir` (session and acquisition) holds it in the place of `giver`, and
    stands in line for it no more."""

    name: str
    giver: Key
    heir: Key


def cycle_of_heir(state: State, heir: Session, given: Given) -> tuple[LockWait, ...]:
    """The cycle, from the heir on, that a hand-over would close: one that stands in line for the name, and could not
    hold it together with the heir, would wait for it, and the heir for that one; () where there is none."""
    lock, me = state.locks.rows[given.name], heir.session
    if not lock.queue or me == given.giver[0]:
        return ()

    def closes(waited_for: int) -> str | None:
        waiting = state.sessions.rows[waited_for].waiting.get(given.name, ())
        kept_out = any(_excludes(lock.mode, lock.queue[waited_for, one].mode) for one in waiting)
        return lock.name if kept_out else None

    waits = _Waits(state, given)
    behind = _Side(waits.of_those_behind, me, _kept_out_by_heir(lock, me))
    ahead = _Side(waits.of_those_ahead, me, waits.of_those_ahead(heir), closes, knows_me=True)
    return _met(state, me, behind, ahead)


def _kept_out_by_heir(lock: Lock, heir: int) -> Iterator[_Step]:
    """Those that stand in line for it, and could not hold it together with the heir."""
    for key, waiter in lock.queue.items():
        yield (key[0], lock.name) if key[0] != heir and _excludes(lock.mode, waiter.mode) else None


class _Side:
    """One of the two searches: what it has found, and where it goes on."""

    def __init__(
        self,
        of: Callable[[Session], Iterator[_Step]],
        me: int,
        first: Iterator[_Step],
        closes: Callable[[int], str | None] | None = None,
        *,
        knows_me: bool = False,
    ) -> None:
        """`of`: whom it goes to from a session; `first`: from `me`. `closes`: the name by which whoever was found has
        to do with `me` on the other side, seen at once. `knows_me`: the other side ends by coming to `me`."""
        self.edges: dict[int, tuple[int, str]] = {}
        """Each session that was found: from which, and by which name the one waits for the other."""
        self.closes = closes
        self._of = of
        self._me = me if knows_me else None
        self._pending: deque[tuple[int, Iterator[_Step]]] = deque([(me, first)])

    def knows(self, session: int) -> bool:
        return session in self.edges or session == self._me

    @property
    def is_over(self) -> bool:
        return not self._pending

    def step(self, state: State) -> int | None:
        """The session that was found, if it is a new one."""
        while self._pending:
            origin, steps = self._pending.popleft()
            for step in steps:
                self._pending.append((origin, steps))
                if step is None or self.knows(step[0]):
                    return None
                found, name = step
                self.edges[found] = origin, name
                self._pending.append((found, self._of(state.sessions.rows[found])))
                return found
        return None


def _met(state: State, me: int, behind: _Side, ahead: _Side) -> tuple[LockWait, ...]:
    """The cycle where the two sides meet, from `me` on."""
    for _ in range(CYCLE_STEPS_MAX // 2):
        state.work.passes(STEP_ROWS)
        for side, other in ((behind, ahead), (ahead, behind)):
            found = side.step(state)
            if found is not None:
                name = side.closes(found) if side.closes is not None and not other.knows(found) else None
                if name is not None:
                    other.edges[found] = me, name
                if other.knows(found):
                    return _told(me, found, behind, ahead)
            if side.is_over:
                return ()
    return ()


def _told(me: int, meeting: int, behind: _Side, ahead: _Side) -> tuple[LockWait, ...]:
    told: list[LockWait] = []
    at = meeting
    while at in ahead.edges:
        at, name = ahead.edges[at]
        told.append(LockWait(at, name))
        if at == me:
            break
    told.reverse()
    at = meeting
    while at in behind.edges:
        waited_for, name = behind.edges[at]
        told.append(LockWait(at, name))
        at = waited_for
        if at == me:
            break
    return tuple(told)


class _Line:
    """Waiters of a name in one direction, and up to where they have been gone over."""

    __slots__ = ("passed", "rest")

    def __init__(self, waiters: Iterator[tuple[Key, Waiter]]) -> None:
        self.rest = waiters
        self.passed: set[Key] = set()


class _Waits:
    """Who waits for whom, looked at from both ends."""

    def __init__(self, state: State, given: Given | None = None) -> None:
        self._state = state
        self._given = given
        self._ahead: dict[tuple[str, Mode], _Line] = {}
        """Lines from their head on, by how those that go over them wait: what one has gone over is found for all."""
        self._behind: dict[tuple[str, Mode], _Line] = {}
        """Lines from their end on, by how those that go over them hold the name, or wait."""
        self._holders: dict[str, Iterator[Key]] = {}
        """Those that hold a name, gone over once for all that would hold it alone."""

    # --- ahead ------------------------------------------------------------------------------------

    def of_those_ahead(self, session: Session) -> Iterator[_Step]:
        """Sessions that this one waits for."""
        for name in sorted(session.waiting):
            lock = self._state.locks.rows[name]
            for acquisition in session.waiting[name]:
                key = (session.session, acquisition)
                waiter = lock.queue[key]
                if waiter.mode == COUNTING or self._has_left(name, key) or self._is_joined(lock, waiter):
                    yield None
                    continue
                yield from _hold(lock, session, waiter.mode, self._holders_of(lock))
                line = self._ahead.get((name, waiter.mode))
                if line is None:
                    line = self._ahead[name, waiter.mode] = _Line(iter(lock.queue.items()))
                yield from _before(lock, session, waiter.mode, line, key)
        rows = self._state.locks.rows
        for name in sorted([name for name in session.locks if _is_upgrading(rows[name], session)]):
            yield from _hold(rows[name], session, EXCLUSIVE, self._holders_of(rows[name]))

    def _holders_of(self, lock: Lock) -> Iterator[Key]:
        """But for the hold that is given: that it leads to the heir is known."""
        found = self._holders.get(lock.name)
        if found is None:
            found = self._holders[lock.name] = filter(lambda key: not self._is_given(lock.name, key), lock.holders)
        return found

    def at_the_end(self, session: Session, mode: Mode, wanted: Iterable[Lock], *, in_line: bool) -> Iterator[_Step]:
        """Those that one would wait for that comes now. They are gone over apart from what others wait for: who comes
        now passes over its own places, and others may wait for those."""
        for lock in wanted:
            yield from _hold(lock, session, mode, iter(lock.holders))
            if in_line:
                yield from _before(lock, session, mode, _Line(iter(lock.queue.items())), None)

    # --- behind -----------------------------------------------------------------------------------

    def of_those_behind(self, session: Session) -> Iterator[_Step]:
        """Sessions that wait for this one."""
        rows = self._state.locks.rows
        for name in sorted([name for name in session.locks if _is_waited_for(rows[name])]):
            lock = rows[name]
            if lock.mode == COUNTING or all(
                self._is_given(name, (session.session, one)) for one in session.locks[name]
            ):
                continue
            if lock.upgrading is not None and lock.upgrading[0] != session.session:
                yield lock.upgrading[0], name
            yield from self._after(lock, session, _mode(lock, session), None)
        for name in sorted(session.waiting):
            for acquisition in session.waiting[name]:
                key = (session.session, acquisition)
                mode = rows[name].queue[key].mode
                if mode == COUNTING:
                    yield None
                else:
                    yield from self._after(rows[name], session, mode, key)

    def _after(self, lock: Lock, session: Session, mode: Mode, key: Key | None) -> Iterator[_Step]:
        """Those that stand in line behind `key` (None: in the whole line), and could not hold the name together with
        this session, which has it in `mode`, or is to."""
        line = self._behind.get((lock.name, mode))
        if line is None:
            line = self._behind[lock.name, mode] = _Line(reversed(lock.queue.items()))
        passed, me = line.passed, session.session
        if key in passed:
            return
        for place, waiter in line.rest:
            passed.add(place)
            waits = place[0] != me and _excludes(mode, waiter.mode) and not self._is_joined(lock, waiter)
            yield (place[0], lock.name) if waits and not self._has_left(lock.name, place) else None
            if key in passed:
                return

    def _is_joined(self, lock: Lock, waiter: Waiter) -> bool:
        """As `Lock.is_joined_by`, whoever else holds it."""
        if not waiter.reentrant or lock.mode not in (EXCLUSIVE, waiter.mode):
            return False
        session = waiter.holder.session
        if self._given is not None and (lock.name, session) == (self._given.name, self._given.heir[0]):
            return True
        held = self._state.sessions.rows[session].locks.get(lock.name, ())
        return lock.mode != COUNTING and not all(self._is_given(lock.name, (session, one)) for one in held)

    def _is_given(self, name: str, key: Key) -> bool:
        """Does this holder have it no more, once the name is given?"""
        return self._given is not None and name == self._given.name and key == self._given.giver

    def _has_left(self, name: str, key: Key) -> bool:
        """Does this waiter stand in line no more, once the name is given?"""
        return self._given is not None and name == self._given.name and key == self._given.heir


def _hold(lock: Lock, session: Session, mode: Mode, holders: Iterator[Key]) -> Iterator[_Step]:
    """Those that hold it, and would not hold it together with one that has it in `mode`."""
    if lock.mode == COUNTING:
        return
    if lock.mode == SHARED == mode:
        if lock.upgrading is not None:
            yield (lock.upgrading[0], lock.name) if lock.upgrading[0] != session.session else None
        return
    for holder, _ in holders:
        yield (holder, lock.name) if holder != session.session else None


def _before(lock: Lock, session: Session, mode: Mode, line: _Line, key: Key | None) -> Iterator[_Step]:
    passed, me = line.passed, session.session
    if key in passed:
        return
    for place, waiter in line.rest:
        passed.add(place)
        yield (place[0], lock.name) if place[0] != me and _excludes(waiter.mode, mode) else None
        if key in passed:
            return


def _blocks(lock: Lock, session: Session, mode: Mode, *, in_line: bool) -> bool:
    """Would one that comes now, to hold it in `mode`, wait for this session?"""
    if lock.name in session.locks and lock.mode != COUNTING and _excludes(_mode(lock, session), mode):
        return True
    if not in_line or lock.name not in session.waiting:
        return False
    waiting = session.waiting[lock.name]
    return any(_excludes(lock.queue[session.session, acquisition].mode, mode) for acquisition in waiting)


def _is_waited_for(lock: Lock) -> bool:
    return bool(lock.queue) or lock.upgrading is not None


def _mode(lock: Lock, session: Session) -> Mode:
    """How others have to reckon with what this session, a holder, has: one that waits to hold it alone lets nobody in
    before that."""
    return EXCLUSIVE if _is_upgrading(lock, session) else lock.mode


def _is_upgrading(lock: Lock, session: Session) -> bool:
    return lock.upgrading is not None and lock.upgrading[0] == session.session


def _excludes(one: Mode, other: Mode) -> bool:
    return COUNTING not in (one, other) and not one == other == SHARED
