"""Deadlocks between sessions: would one that is about to wait close a cycle?

A session waits for those that hold a name that it is in line for, and for those before it in that line, unless the two
could hold the name together; one that waits to hold it alone is taken to do so. A re-entrant one waits for nobody in
the line of a name that its own session holds. Counting locks have no part in this:
any of their holders may be the one that lets go, and whoever lets go need not be the one that took.

The search goes backwards, from who waits for the session: most have nobody, and then it is over at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from coordinator.statemachine.lock_commands import COUNTING, CYCLE_STEPS_MAX, EXCLUSIVE, SHARED, LockWait, Mode, Waiter

if TYPE_CHECKING:
    from coordinator.statemachine.locks import Lock
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State


def cycle(
    state: State, session: Session, mode: Mode, names: Iterable[str], *, in_line: bool = True
) -> tuple[LockWait, ...]:
    """The cycle that `session` would close by waiting for `names` in `mode`; () where there is none. `in_line`: behind
    all that wait for them now; else it waits for the holders alone."""
    if mode == COUNTING or not (session.locks or session.waiting):
        return ()
    wanted = [state.locks.rows[name] for name in names if name in state.locks.rows]
    found: dict[int, LockWait | None] = {session.session: None}
    waits_for: dict[int, int] = {}
    steps = count()
    pending = deque((session,))
    while pending:
        blocking = pending.popleft()
        for waiting, name in _waiting_for(state, blocking, steps):
            if waiting in found:
                continue
            found[waiting] = LockWait(waiting, name)
            waits_for[waiting] = blocking.session
            for lock in wanted:
                if _blocks(lock, state.sessions.rows[waiting], mode, in_line=in_line):
                    return _told(session, lock, waiting, found, waits_for)
            pending.append(state.sessions.rows[waiting])
    return ()


def _told(
    session: Session, lock: Lock, blocking: int, found: dict[int, LockWait | None], waits_for: dict[int, int]
) -> tuple[LockWait, ...]:
    told = [LockWait(session.session, lock.name)]
    while blocking != session.session:
        wait = found[blocking]
        assert wait is not None
        told.append(wait)
        blocking = waits_for[blocking]
    return tuple(told)


def _waiting_for(state: State, session: Session, steps: Iterator[int]) -> Iterator[tuple[int, str]]:
    """Sessions that wait for this one, each with the name, as long as there are steps left."""
    for name in sorted(session.locks):
        lock = state.locks.rows[name]
        if lock.mode == COUNTING:
            continue
        if lock.upgrading is not None and lock.upgrading[0] != session.session:
            yield lock.upgrading[0], name
        for waiter in lock.queue.values():
            if next(steps) > CYCLE_STEPS_MAX:
                return
            if waiter.holder.session == session.session or lock.is_joined_by(waiter):
                continue
            if _excludes(_mode(lock, session), waiter.mode):
                yield waiter.holder.session, name
    yield from _behind(state, session, steps)


def _behind(state: State, session: Session, steps: Iterator[int]) -> Iterator[tuple[int, str]]:
    """Those that stand in line behind this session, and could not hold the name together with it."""
    for name in sorted(session.waiting):
        ahead: Waiter | None = None
        lock = state.locks.rows[name]
        for waiter in lock.queue.values():
            if next(steps) > CYCLE_STEPS_MAX:
                return
            if waiter.holder.session == session.session:
                if waiter.mode != COUNTING and (ahead is None or ahead.mode == SHARED):
                    ahead = waiter
            elif ahead is not None and _excludes(ahead.mode, waiter.mode) and not lock.is_joined_by(waiter):
                yield waiter.holder.session, name


def _blocks(lock: Lock, session: Session, mode: Mode, *, in_line: bool) -> bool:
    """Would one that comes now, to hold it in `mode`, wait for this session?"""
    if lock.name in session.locks and lock.mode != COUNTING and _excludes(_mode(lock, session), mode):
        return True
    waiting = session.waiting.get(lock.name, ()) if in_line else ()
    return any(_excludes(lock.queue[session.session, acquisition].mode, mode) for acquisition in waiting)


def _mode(lock: Lock, session: Session) -> Mode:
    """How others have to reckon with what this session, a holder, has: one that waits to hold it alone lets nobody in
    before that."""
    is_upgrading = lock.upgrading is not None and lock.upgrading[0] == session.session
    return EXCLUSIVE if is_upgrading else lock.mode


def _excludes(one: Mode, other: Mode) -> bool:
    return COUNTING not in (one, other) and not one == other == SHARED
