"""Holds are changed: upgraded, downgraded, handed over, broken by force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands, deadlocks, handing, lock_events, locking
from coordinator.statemachine.commands import Done, Failure, Granted, Held, Holder, NotHeld, Queued, Result
from coordinator.statemachine.events import GrantMade, LockBroken
from coordinator.statemachine.lock_commands import (
    BREAKS_MAX,
    COUNTING,
    EXCLUSIVE,
    FORCED,
    HANDED_OVER,
    REASON_BYTES_MAX,
    SHARED,
    Break,
    ChangeMode,
    Deadlock,
    Delay,
    ForceRelease,
    Grant,
    HandOver,
    LockWait,
    Waiter,
)
from coordinator.statemachine.locks import Key, Lock, fencing_token
from coordinator.statemachine.principals import Access, access_of
from coordinator.statemachine.rights import refuse_name

if TYPE_CHECKING:
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State


def change_mode(state: State, index: int, session: Session, op: ChangeMode) -> Result:
    lock = state.locks.rows.get(op.name)
    key = (session.session, op.acquisition)
    if lock is None or key not in lock.holders:
        return NotHeld()
    if len(lock.holders[key].names) > 1 or op.mode not in (EXCLUSIVE, SHARED) or lock.mode not in (EXCLUSIVE, SHARED):
        return Failure(commands.INVALID, "only a shared or exclusive hold of one name changes its mode")
    if op.mode == SHARED:
        return _downgrade(state, index, lock, key)
    return _upgrade(state, index, session, lock, key, wait=op.wait)


def _downgrade(state: State, index: int, lock: Lock, key: Key) -> Result:
    token = lock.holders[key].token
    if lock.mode == SHARED and lock.upgrading != key:
        return Granted(token)
    if lock.mode == EXCLUSIVE and len(lock.holders) > 1:
        return Failure(commands.INVALID, "the session holds it by more than one acquisition")
    state.locks.touch(lock.name)
    lock.hold_as(SHARED, lock.limit)
    lock.upgrading = None
    handing.hand_on(state, index, (lock.name,))
    return Granted(token)


def _upgrade(state: State, index: int, session: Session, lock: Lock, key: Key, *, wait: bool) -> Result:
    if lock.mode == EXCLUSIVE:
        return Granted(lock.holders[key].token)
    if lock.upgrading == key:
        return Queued(1)
    if len(session.locks[lock.name]) > 1:
        return Failure(commands.INVALID, "the session holds it by more than one acquisition")
    if len(lock.holders) == 1 and lock.delay is None:
        token = handing.make_exclusive(state, index, lock, key)
        handing.hand_on(state, index, (), came=((key[0], lock.name),))
        return Granted(token)
    other = next((grant.holder for held, grant in lock.holders.items() if held != key), None)
    if lock.upgrading is not None:
        # Each would wait for the other to let go of what it shares.
        return Deadlock((LockWait(key[0], lock.name), LockWait(lock.upgrading[0], lock.name)))
    if not wait:
        assert other is not None or lock.delay is not None
        _asked_to_be_alone(state, index, lock, key, waits=False)
        return Held(other or lock.holders[key].holder, lock.token)
    cycle = deadlocks.cycle(state, session, EXCLUSIVE, (lock.name,), in_line=False)
    if cycle:
        return Deadlock(cycle)
    state.locks.touch(lock.name)
    lock.upgrading = key
    _asked_to_be_alone(state, index, lock, key, waits=True)
    return Queued(1)


def _asked_to_be_alone(state: State, index: int, lock: Lock, key: Key, *, waits: bool) -> None:
    if len(lock.holders) > 1:
        lock_events.conflict(state, index, lock, lock.holders[key].holder, EXCLUSIVE, waits=waits)


def hand_over(state: State, index: int, session: Session, op: HandOver) -> Result:
    lock = state.locks.rows.get(op.name)
    key = (session.session, op.acquisition)
    if lock is None or key not in lock.holders:
        return NotHeld()
    refused = _not_one_to_give(state, lock, lock.holders[key])
    if refused is not None:
        return refused
    heir = _heir(state, session, lock, op)
    if isinstance(heir, Failure):
        return heir
    to = (op.to_session, op.to_acquisition)
    waiter = lock.queue.get(to)
    cycle = deadlocks.cycle_of_heir(state, heir, deadlocks.Given(op.name, key, to))
    if cycle:
        return Deadlock(cycle)
    state.locks.touch(op.name)
    if waiter is not None:
        locking.leave_line(state, heir, waiter)
    grant = lock.holders[key]
    locking.let_go(state, index, session, lock, op.acquisition, HANDED_OVER)
    lock.token = fencing_token(state.epoch, index)
    made = lock.holders[to] = Grant(Holder(*to, heir.principal), lock.token, (op.name,), grant.delay_ms)
    heir.holds(op.name, op.to_acquisition)
    lock_events.acquired(state, index, lock, made)
    state.events.append(GrantMade(op.to_session, op.name, op.to_acquisition, lock.token))
    handing.hand_on(state, index, (), came=((op.to_session, op.name),))
    return Done(index, existed=True)


def _heir(state: State, giver: Session, lock: Lock, op: HandOver) -> Session | Failure:
    """Whose session it is that is to have the hold, or why it may not."""
    if op.to_acquisition < 0:
        return Failure(commands.INVALID, f"an acquisition is a number from 0 on, got {op.to_acquisition}")
    heir = state.sessions.rows.get(op.to_session)
    access = access_of(state, heir.principal) if heir is not None else None
    if heir is None or not isinstance(access, Access):
        return Failure(commands.NOT_FOUND, f"there is no session {op.to_session}")
    refused = refuse_name(access, (commands.LOCK,), op.name)
    if refused is not None:
        return refused
    to = (op.to_session, op.to_acquisition)
    if to == (giver.session, op.acquisition):
        return Failure(commands.INVALID, "that is whose it is")
    waiter = lock.queue.get(to)
    if waiter is not None and len(waiter.names) > 1:
        return Failure(commands.INVALID, "the heir waits for it together with other names")
    if lock.mode != EXCLUSIVE:
        refused = _not_in_its_place(lock, waiter)
        if refused is not None:
            return refused
    if waiter is None and heir is not giver:
        refused = locking.no_room_in_session(state, heir, 1)
        if refused is not None:
            return refused
    return heir


def _not_one_to_give(state: State, lock: Lock, grant: Grant) -> Failure | None:
    if state.level < commands.LEVEL_OF_SHARED_HAND_OVERS:
        if lock.mode != EXCLUSIVE or len(lock.holders) > 1 or len(grant.names) > 1:
            return Failure(commands.INVALID, "only an exclusive hold of one name, by one acquisition, is handed over")
    elif len(grant.names) > 1 or (lock.mode == EXCLUSIVE and len(lock.holders) > 1):
        return Failure(commands.INVALID, "only a hold of one name is handed over, an exclusive one by one acquisition")
    return None


def _not_in_its_place(lock: Lock, waiter: Waiter | None) -> Failure | None:
    """Why the heir, which stands in line as `waiter`, may not have one of several holds. It is told of a token alone,
    and so must have asked for what it gets: what is shared must never be taken for exclusive."""
    if waiter is None or waiter.mode != lock.mode or (lock.mode == COUNTING and waiter.limit != lock.limit):
        like = f"counting to {lock.limit}" if lock.mode == COUNTING else lock.mode
        return Failure(commands.INVALID, f"a {like} hold is handed over to one that stands in line for the same")
    if lock.upgrading is not None or lock.delay is not None:
        return Failure(commands.REFUSED, "an upgrade or a lock-delay of the name is waited for, nobody is let in")
    return None


def force_release(state: State, index: int, asker: Access, op: ForceRelease) -> Result:
    if len(op.reason.encode()) > REASON_BYTES_MAX or not op.reason:
        return Failure(commands.INVALID, f"a reason has 1 to {REASON_BYTES_MAX} bytes")
    lock = state.locks.rows.get(op.name)
    broken = [
        (key, grant) for key, grant in (lock.holders.items() if lock is not None else ()) if op.session in (0, key[0])
    ]
    delay = None if lock is None else _delay_of(state, lock, op.session)
    if lock is None or not (broken or delay):
        return NotHeld()
    for key, grant in broken:
        locking.let_go(state, index, state.sessions.rows[key[0]], lock, key[1], FORCED)
        _remember(state, Break(state.next_break, index, op.name, grant.holder, grant.token, asker.name, op.reason))
        state.events.append(LockBroken(key[0], op.name, key[1]))
    if delay is not None:
        _remember(state, Break(state.next_break, index, op.name, delay.holder, delay.token, asker.name, op.reason))
        locking.end_delay(state, lock, delay)
    handing.hand_on(state, index, (op.name,))
    return Done(index, existed=True)


def _delay_of(state: State, lock: Lock, session: int) -> Delay | None:
    """What a forced release ends besides holds: the delay under way, where it is of this session (0: of any)."""
    if state.level < commands.LEVEL_OF_ENDED_DELAYS or lock.delay is None:
        return None
    return lock.delay if session in (0, lock.delay.holder.session) else None


def _remember(state: State, broken: Break) -> None:
    state.next_break += 1
    add_break(state, broken)
    breaks = state.breaks
    while len(breaks.rows) > BREAKS_MAX:
        forgotten = breaks.remove(breaks.order.page(None, 1)[0])
        place = (forgotten.name, forgotten.holder.session, forgotten.holder.acquisition)
        if state.broken.get(place) == forgotten.number:
            del state.broken[place]


def add_break(state: State, broken: Break) -> None:
    state.breaks.add(broken.number, broken)
    state.broken[broken.name, broken.holder.session, broken.holder.acquisition] = broken.number
