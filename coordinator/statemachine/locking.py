"""Names are taken, waited for and let go.

The line of a name is strictly first come, first served: nobody is let in past another, and those that can hold it
together are let in together. A waiter for several names stands in all their lines and is let in when it is
first in each and each admits it; until then it holds none of them. Lines are joined by whole entries, so that two such
waiters are in the same order in every line that they share. A re-entrant one passes the line of what its session holds.

Whoever lets go of something calls `handing.hand_on` with the names within the same entry, when all that the entry ends
has ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.statemachine import commands, deadlocks, handing, lock_events, quotas
from coordinator.statemachine.commands import Done, Failure, Granted, Held, Holder, NotHeld, Queued, Result
from coordinator.statemachine.events import LockDelayed, LockDelayEnded
from coordinator.statemachine.lock_commands import (
    COUNTING,
    EXCLUSIVE,
    EXPIRED,
    LIMIT_MAX,
    LOCK_DELAY_MS_MAX,
    NAMES_MAX,
    RELEASED,
    SHARED,
    Acquire,
    Broken,
    Deadlock,
    Delay,
    EndLockDelays,
    EventKind,
    Grant,
    Release,
    Waiter,
)
from coordinator.statemachine.locks import LOCKS_MAX, PLACES_OF_SESSION_MAX, WAITERS_MAX, Key, Lock

if TYPE_CHECKING:
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State


# --- taking ---------------------------------------------------------------------------------------


def acquire(state: State, index: int, session: Session, op: commands.AcquireLock) -> Result:
    """An exclusive lock of one name. No deadlock is looked for."""
    name = op.name
    if op.acquisition < 0:
        return _no_acquisition(op.acquisition)
    holder = Holder(session.session, op.acquisition, session.principal)
    waiter = Waiter(holder, EXCLUSIVE, 1, (name,))
    lock = state.locks.rows.get(name)
    if lock is None:
        return _take_free(state, index, session, waiter)
    if op.take_over:
        refused = _take_over(state, session, lock, holder)
        if refused is not None:
            return refused
    known = _known(lock, waiter, wait=op.wait)
    return known or _take_or_wait(state, index, session, waiter, wait=op.wait)


def acquire_names(state: State, index: int, session: Session, op: Acquire) -> Result:
    refused = _unfit(op)
    if refused is not None:
        return refused
    holder = Holder(session.session, op.acquisition, session.principal)
    limit = op.limit if op.mode == COUNTING else 1
    waiter = Waiter(holder, op.mode, limit, tuple(sorted({*op.names})), op.reentrant, op.delay_ms)
    known: Result | None = None
    for name in waiter.names:
        lock = state.locks.rows.get(name)
        if lock is None:
            continue
        has = _known(lock, waiter, wait=op.wait)
        refused = _unlike(session, lock, waiter) if has is None or type(has) is Granted else None
        if refused is not None:
            return refused
        known = _of_both(known, has)
    if known is not None:
        lacks = [name for name in waiter.names if not _has(state, name, waiter)]
        if not lacks:
            if type(known) is Granted and len(waiter.names) > 1:
                key = (session.session, op.acquisition)
                return Granted(handing.token_of(state, waiter.names, key))
            return known
        broken = _broken(state, lacks, (session.session, op.acquisition))
        return broken or Failure(commands.INVALID, f"acquisition {op.acquisition} is one of other names already")
    if op.wait and op.refuse_deadlocks:
        blocked = [name for name in waiter.names if not _is_free_for(state, name, session, waiter)]
        cycle = deadlocks.cycle(state, session, waiter.mode, blocked) if blocked else ()
        if cycle:
            return Deadlock(cycle)
    return _take_or_wait(state, index, session, waiter, wait=op.wait)


def _unfit(op: Acquire) -> Failure | None:
    if op.acquisition < 0:
        return _no_acquisition(op.acquisition)
    if not 1 <= len(op.names) <= NAMES_MAX:
        return Failure(commands.INVALID, f"an acquisition is of 1 to {NAMES_MAX} names, got {len(op.names)}")
    if op.mode == COUNTING and not 1 <= op.limit <= LIMIT_MAX:
        return Failure(commands.INVALID, f"a counting lock has 1 to {LIMIT_MAX} holders, got {op.limit}")
    if not 0 <= op.delay_ms <= LOCK_DELAY_MS_MAX:
        return Failure(commands.INVALID, f"a lock-delay has 0 to {LOCK_DELAY_MS_MAX} ms, got {op.delay_ms}")
    return None


def _no_acquisition(number: int) -> Failure:
    return Failure(commands.INVALID, f"an acquisition is a number from 0 on, got {number}")


def _known(lock: Lock, waiter: Waiter, *, wait: bool) -> Result | None:
    """What the acquisition has of the name already. One that does not want to wait is told whom it waits for."""
    key = (waiter.holder.session, waiter.holder.acquisition)
    grant = lock.holders.get(key)
    if grant is not None:
        if lock.mode not in (EXCLUSIVE, waiter.mode):
            return _other_mode(lock.name, lock.mode)
        return Granted(grant.token)
    waiting = lock.queue.get(key)
    if waiting is None:
        return None
    if waiting.mode != waiter.mode:
        return _other_mode(lock.name, waiting.mode)
    return Queued(lock.position(*key) or len(lock.queue)) if wait else _held(lock)


def _of_both(one: Result | None, other: Result | None) -> Result | None:
    """What an acquisition is told of two names, of what it has of each. They may have been asked for one by one, so
    that it holds the one and waits for the other; of two places in line the one further back counts."""
    if one is None or other is None:
        return one or other
    if isinstance(one, Queued) and isinstance(other, Queued):
        return max(one, other, key=lambda queued: queued.position)
    return other if isinstance(one, Granted) or isinstance(other, Failure) else one


def _unlike(session: Session, lock: Lock, waiter: Waiter) -> Failure | None:
    """Why one that does not stand in its line may not ask for it like that, as it is held."""
    if lock.holders and lock.mode == COUNTING == waiter.mode and lock.limit != waiter.limit:
        return Failure(commands.INVALID, f"{lock.name!r} is counted to {lock.limit}, not to {waiter.limit}")
    if waiter.reentrant and waiter.mode == EXCLUSIVE and lock.mode == SHARED and lock.is_of(session):
        return _other_mode(lock.name, SHARED)
    return None


def _other_mode(name: str, mode: str) -> Failure:
    return Failure(commands.INVALID, f"this acquisition of {name!r} is a {mode} one; ChangeMode upgrades it")


def _has(state: State, name: str, waiter: Waiter) -> bool:
    lock = state.locks.rows.get(name)
    key = (waiter.holder.session, waiter.holder.acquisition)
    return lock is not None and (key in lock.holders or key in lock.queue)


def _is_free_for(state: State, name: str, session: Session, waiter: Waiter) -> bool:
    """Could it be let in at once? Not past others that wait."""
    lock = state.locks.rows.get(name)
    if lock is None:
        return True
    if lock.queue and not (waiter.reentrant and lock.is_of(session)):
        return False  # A re-entrant one joins past the line: it would wait for itself.
    return lock.admits(waiter, session)


def _take_or_wait(state: State, index: int, session: Session, waiter: Waiter, *, wait: bool) -> Result:
    for name in waiter.names:
        if not _is_free_for(state, name, session, waiter):
            result = _wait(state, session, waiter) if wait else _held(state.locks.rows[name])
            if not isinstance(result, Failure):
                for asked in waiter.names:
                    if asked in state.locks.rows:
                        lock_events.asked(state, index, state.locks.rows[asked], waiter, waits=wait)
            return result
    return _take_free(state, index, session, waiter)


def _take_free(state: State, index: int, session: Session, waiter: Waiter) -> Result:
    refused = no_room_in_session(state, session, len(waiter.names)) or _no_room_for_locks(state, waiter)
    if refused is not None:
        return refused
    token = 0
    for name in waiter.names:
        lock = state.locks.rows.get(name)
        if lock is None:
            lock = Lock(name)
            state.locks.add(name, lock)
        else:
            state.locks.touch(name)
        token = max(token, handing.let_in(state, index, session, lock, waiter).token)
    return Granted(token)


def no_room_in_session(state: State, session: Session, places: int) -> Failure | None:
    """Why it may not hold or wait for so many more. An acquisition of three names has three, waiting or holding."""
    if session.places + places <= PLACES_OF_SESSION_MAX or state.level < commands.LEVEL_OF_BOUNDS:
        return None
    message = f"session {session.session} has its {PLACES_OF_SESSION_MAX} holds and places in line"
    return Failure(commands.FULL, message)


def _no_room_for_locks(state: State, waiter: Waiter) -> Failure | None:
    if len(state.locks.rows) + len(waiter.names) > LOCKS_MAX and any(
        name not in state.locks.rows for name in waiter.names
    ):
        return Failure(commands.FULL, f"the cluster has its {LOCKS_MAX} locks")
    return None


def _held(lock: Lock) -> Held:
    """Whom the caller would wait for."""
    if lock.holder is not None:
        return Held(lock.holder, lock.token)
    if lock.delay is not None:
        return Held(lock.delay.holder, lock.delay.token)
    return Held(next(iter(lock.queue.values())).holder, lock.token)


def _wait(state: State, session: Session, waiter: Waiter) -> Result:
    if state.waiting + len(waiter.names) > WAITERS_MAX:
        return Failure(commands.FULL, f"the cluster has its {WAITERS_MAX} waiters")
    refused = (
        no_room_in_session(state, session, len(waiter.names))
        or _no_room_for_locks(state, waiter)
        or quotas.refuse_waiters(state, session.principal, len(waiter.names))
    )
    if refused is not None:
        return refused
    place = 0
    for name in waiter.names:
        lock = state.locks.rows.get(name)
        if lock is None:
            lock = Lock(name)
            state.locks.add(name, lock)
        else:
            state.locks.touch(name)
        lock.line_up(waiter)
        session.waits(name, waiter.holder.acquisition, reentrant=waiter.reentrant)
        place = max(place, len(lock.queue))
    state.waiting += len(waiter.names)
    quotas.count_waiters(state.uses, session.principal, len(waiter.names))
    return Queued(place)


def _take_over(state: State, session: Session, lock: Lock, holder: Holder) -> Failure | None:
    """What the session holds of this name, or its place in line, is this acquisition's from here on. So nothing
    that still speaks for the acquisition before, a late release above all, undoes what this one is answered. What it
    has in another mode it keeps, and this acquisition is refused."""
    mine = (session.session, holder.acquisition)
    if mine in lock.holders or mine in lock.queue:
        return None
    held = session.holding(lock.name)
    if held is not None:
        before = (session.session, held)
        if lock.mode != EXCLUSIVE:
            return _other_mode(lock.name, lock.mode)
        if len(lock.holders[before].names) == 1 and lock.upgrading != before:
            state.locks.touch(lock.name)
            state.work.passes(len(lock.holders))
            lock.holders = {
                mine if key == before else key: _renamed(grant, holder) if key == before else grant
                for key, grant in lock.holders.items()
            }
            session.renumber(session.locks, lock.name, held, holder.acquisition)
        return None
    waiting = session.waiting_for(lock.name)
    if waiting is not None:
        before = (session.session, waiting)
        if lock.queue[before].mode != EXCLUSIVE:
            return _other_mode(lock.name, lock.queue[before].mode)
        if len(lock.queue[before].names) == 1:
            state.locks.touch(lock.name)
            state.work.passes(len(lock.queue))
            lock.queue = OrderedDict(
                (mine, _replaced(waiter, holder)) if key == before else (key, waiter)
                for key, waiter in lock.queue.items()
            )
            for names in (session.waiting, session.reentrant):
                session.renumber(names, lock.name, waiting, holder.acquisition)
    return None


def _renamed(grant: Grant, holder: Holder) -> Grant:
    return Grant(holder, grant.token, grant.names, grant.delay_ms)


def _replaced(waiter: Waiter, holder: Holder) -> Waiter:
    return Waiter(holder, waiter.mode, waiter.limit, waiter.names, waiter.reentrant, waiter.delay_ms)


# --- letting go -----------------------------------------------------------------------------------


def release(state: State, index: int, session: Session, op: commands.ReleaseLock) -> Result:
    acquisition = op.acquisition
    if acquisition == commands.ANY_ACQUISITION:
        held = session.holding(op.name)
        acquisition = held if held is not None else session.waiting_for(op.name) or 0
    return _release(state, index, session, (op.name,), acquisition)


def release_names(state: State, index: int, session: Session, op: Release) -> Result:
    if len(op.names) > NAMES_MAX:
        return Failure(commands.INVALID, f"an acquisition is of 1 to {NAMES_MAX} names, got {len(op.names)}")
    return _release(state, index, session, tuple(sorted({*op.names})), op.acquisition)


def cancel(state: State, index: int, session: Session, op: commands.CancelAcquire) -> Result:
    """All that the acquisition has, whatever it was for."""
    lock = state.locks.rows.get(op.name)
    key = (session.session, op.acquisition)
    has = None if lock is None else lock.holders.get(key) or lock.queue.get(key)
    if has is not None:
        names = has.names
    else:
        state.work.passes(len(session.locks))
        names = (op.name, *taken_with(state, session, op.name, op.acquisition))
    return _release(state, index, session, names, op.acquisition)


def taken_with(state: State, session: Session, name: str, acquisition: int) -> list[str]:
    """What the acquisition holds still of names that it took together with `name`, which was let go of, or taken by
    force."""
    key = (session.session, acquisition)
    return sorted(
        other
        for other, held in session.locks.items()
        if acquisition in held and name in state.locks.rows[other].holders[key].names
    )


def _release(state: State, index: int, session: Session, names: tuple[str, ...], acquisition: int) -> Result:
    key = (session.session, acquisition)
    freed: list[str] = []
    for name in names:
        lock = state.locks.rows.get(name)
        if lock is None:
            continue
        if key in lock.holders:
            let_go(state, index, session, lock, acquisition, RELEASED)
            freed.append(name)
        elif key in lock.queue:
            freed += leave_line(state, session, lock.queue[key])
    if not freed:
        return _broken(state, names, key) or NotHeld()
    if len(freed) == 1 and state.locks.rows[freed[0]].is_free:
        state.locks.remove(freed[0])  # As most are: nobody waits.
    else:
        handing.hand_on(state, index, freed)
    return Done(index, existed=True)


def _broken(state: State, names: Iterable[str], key: Key) -> Broken | None:
    """The first of these names that was taken from the acquisition by force."""
    for name in names:
        number = state.broken.get((name, *key))
        if number is not None:
            return Broken(state.breaks.rows[number])
    return None


def let_go(state: State, index: int, session: Session, lock: Lock, acquisition: int, how: EventKind) -> None:
    """The acquisition holds it no more."""
    state.locks.touch(lock.name)
    key = (session.session, acquisition)
    lock_events.ended(state, index, lock, lock.holders.pop(key), how)
    session.holds_no_more(lock.name, acquisition)
    if lock.upgrading == key:
        lock.upgrading = None


def leave_line(state: State, session: Session, waiter: Waiter) -> tuple[str, ...]:
    """The waiter leaves all its lines; their names."""
    key = (session.session, waiter.holder.acquisition)
    for name in waiter.names:
        state.locks.touch(name)
        del state.locks.rows[name].queue[key]
        session.waits_no_more(name, waiter.holder.acquisition)
    state.waiting -= len(waiter.names)
    quotas.count_waiters(state.uses, session.principal, -len(waiter.names))
    return waiter.names


def leave_lines(state: State, session: Session) -> list[str]:
    """All the waiters of a session leave; the names of their lines."""
    left: list[str] = []
    for name in sorted(session.waiting):
        for acquisition in [*session.waiting.get(name, ())]:
            left += leave_line(state, session, state.locks.rows[name].queue[session.session, acquisition])
    return left


def let_go_of_all(state: State, index: int, session: Session, *, died: bool) -> list[str]:
    """A session that ends holds nothing any more; the names. `died`: its lock-delays begin."""
    freed: list[str] = []
    for name in sorted(session.locks):
        lock = state.locks.rows[name]
        for acquisition in [*session.locks[name]]:
            grant = lock.holders[session.session, acquisition]
            let_go(state, index, session, lock, acquisition, EXPIRED if died else RELEASED)
            if died and grant.delay_ms:
                _delay(state, index, lock, grant)
        freed.append(name)
    return freed


def _delay(state: State, index: int, lock: Lock, grant: Grant) -> None:
    """What is left of a delay that is under way is not known here: both together take as long as the longer one, from
    now on."""
    delay_ms = max(grant.delay_ms, lock.delay.delay_ms if lock.delay is not None else 0)
    lock.delay = Delay(grant.holder, grant.token, delay_ms, index)
    state.delayed.add(lock.name)
    state.events.append(LockDelayed(lock.name, index, delay_ms))


def end_delays(state: State, index: int, op: EndLockDelays) -> Result:
    ended: list[str] = []
    for name, since in op.delays:
        lock = state.locks.rows.get(name)
        if lock is not None and lock.delay is not None and lock.delay.since == since:
            end_delay(state, lock, lock.delay)
            ended.append(name)
    handing.hand_on(state, index, ended)
    return Done(index, existed=bool(ended))


def end_delay(state: State, lock: Lock, delay: Delay) -> None:
    state.locks.touch(lock.name)
    lock.delay = None
    state.delayed.discard(lock.name)
    state.events.append(LockDelayEnded(lock.name, delay.since))
