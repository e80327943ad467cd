"""Exclusive locks with a first-in-first-out queue, and their fencing tokens.

A token is (restore epoch, log index) in one integer below 2**53, so that it is exact in every language: the index of
the entry that granted, and above it an epoch that a restore raises. It only ever grows for a name, because indices
do; a lock that was deleted and comes again is granted at a higher index.

One entry grants a name at most once: grants are made only when the whole entry has been taken in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Failure, Granted, Held, Holder, NotHeld, Queued, Result
from coordinator.statemachine.events import GrantMade

if TYPE_CHECKING:
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State

LOCKS_MAX: Final = 1_000_000
WAITERS_MAX: Final = 200_000

INDEX_BITS: Final = 40
PLACES_MAX: Final = 256
EPOCH_MAX: Final = 2 ** (53 - INDEX_BITS) - 1


def fencing_token(epoch: int, index: int) -> int:
    """The token of a grant by entry `index` in restore epoch `epoch`."""
    assert 0 <= epoch <= EPOCH_MAX, f"restore epoch {epoch} is above {EPOCH_MAX}"
    assert 0 < index < 1 << INDEX_BITS, f"log index {index} does not fit a fencing token"
    return epoch << INDEX_BITS | index


class Lock:
    """A name that somebody holds. Invariant between entries: whoever waits, waits for a holder."""

    __slots__ = ("holder", "name", "queue", "token")

    def __init__(self, name: str) -> None:
        self.name = name
        self.holder: Holder | None = None
        self.token = 0
        self.queue: dict[tuple[int, int], Holder] = {}
        """(session, acquisition) to waiter, in the order of arrival."""

    def grant(self, holder: Holder, token: int) -> None:
        assert self.holder is None, f"lock {self.name!r} is held by {self.holder}"
        assert token > self.token, f"token {token} of {self.name!r} does not grow from {self.token}"
        self.holder = holder
        self.token = token

    def position(self, session: int, acquisition: int) -> int | None:
        """Place in the queue, 1 the next in line; None where it does not wait. Exact up to PLACES_MAX; further back it
        is the length of the queue, so that asking costs no more the longer it grows."""
        wanted = (session, acquisition)
        if wanted not in self.queue:
            return None
        for place, key in enumerate(islice(self.queue, PLACES_MAX), 1):
            if key == wanted:
                return place
        return len(self.queue)

    def replace(self, session: int, acquisition: int, holder: Holder) -> None:
        """Put `holder` in the place of a waiter."""
        before = (session, acquisition)
        self.queue = {
            (session, holder.acquisition) if key == before else key: holder if key == before else waiter
            for key, waiter in self.queue.items()
        }

    def waiters(self) -> Iterator[Holder]:
        return iter(self.queue.values())


def acquire(state: State, index: int, session: Session, op: commands.AcquireLock) -> Result:
    if op.acquisition < 0:
        return Failure(commands.INVALID, f"an acquisition is a number from 0 on, got {op.acquisition}")
    holder = Holder(session.session, op.acquisition, session.principal)
    lock = state.locks.rows.get(op.name)
    if lock is None:
        if len(state.locks.rows) >= LOCKS_MAX:
            return Failure(commands.FULL, f"the cluster has its {LOCKS_MAX} locks")
        lock = Lock(op.name)
        state.locks.add(op.name, lock)
        _grant(state, index, lock, holder)
        _note_generation(state, lock)
        return Granted(lock.token)
    assert lock.holder is not None
    if op.take_over:
        _take_over(state, session, lock, holder)
    if lock.holder == holder:
        return Granted(lock.token)
    if not op.wait:
        return Held(lock.holder, lock.token)
    place = lock.position(holder.session, holder.acquisition)
    if place is None:
        if state.waiting >= WAITERS_MAX:
            return Failure(commands.FULL, f"the cluster has its {WAITERS_MAX} waiters")
        state.locks.touch(op.name)
        lock.queue[holder.session, holder.acquisition] = holder
        session.waits(op.name, op.acquisition)
        state.waiting += 1
        place = len(lock.queue)
    return Queued(place)


def _take_over(state: State, session: Session, lock: Lock, holder: Holder) -> None:
    """What the session holds of this name, or its place in line, is this acquisition's from here on. So nothing
    that still speaks for the acquisition before, a late release above all, undoes what this one is answered."""
    assert lock.holder is not None
    state.locks.touch(lock.name)
    if lock.holder.session == holder.session:
        lock.holder = holder
        return
    before = session.waiting_for(lock.name)
    if before is not None and before != holder.acquisition:
        lock.replace(holder.session, before, holder)
        waiting = session.waiting[lock.name]
        session.waiting[lock.name] = {
            holder.acquisition if acquisition == before else acquisition: None for acquisition in waiting
        }


def release(state: State, index: int, session: Session, op: commands.ReleaseLock | commands.CancelAcquire) -> Result:
    owner, name, acquisition = session.session, op.name, op.acquisition
    lock = state.locks.rows.get(name)
    if lock is None:
        return NotHeld()
    assert lock.holder is not None
    if acquisition == commands.ANY_ACQUISITION:
        held = lock.holder.session == owner
        acquisition = lock.holder.acquisition if held else session.waiting_for(name) or 0
    if (lock.holder.session, lock.holder.acquisition) == (owner, acquisition):
        session.locks.remove(name)
        let_go(state, name)
        hand_on(state, index, lock)
        return Done(index, existed=True)
    if (owner, acquisition) in lock.queue:
        state.locks.touch(name)
        del lock.queue[owner, acquisition]
        session.waits_no_more(name, acquisition)
        state.waiting -= 1
        return Done(index, existed=True)
    return NotHeld()


def leave_lines(state: State, session: Session) -> None:
    """Take all the waiters of a session out of their queues."""
    for name in sorted(session.waiting):
        state.locks.touch(name)
        queue = state.locks.rows[name].queue
        for acquisition in session.waiting[name]:
            del queue[session.session, acquisition]
            state.waiting -= 1
    session.waiting = {}


def let_go(state: State, name: str) -> None:
    """The holder of `name` holds it no more. Whoever calls this calls `hand_on` within the same entry."""
    state.locks.touch(name)
    state.locks.rows[name].holder = None


def hand_on(state: State, index: int, lock: Lock) -> None:
    """Grant a lock that was let go to the next in line, or forget it."""
    if not lock.queue:
        state.locks.remove(lock.name)
        return
    key = next(iter(lock.queue))
    holder = lock.queue.pop(key)
    state.waiting -= 1
    state.sessions.rows[holder.session].waits_no_more(lock.name, holder.acquisition)
    _grant(state, index, lock, holder)
    state.events.append(GrantMade(holder.session, lock.name, holder.acquisition, lock.token))


def _grant(state: State, index: int, lock: Lock, holder: Holder) -> None:
    lock.grant(holder, fencing_token(state.epoch, index))
    state.sessions.rows[holder.session].locks.add(lock.name)


def _note_generation(state: State, lock: Lock) -> None:
    """A lock that was free became held: its file, where there is one, shows by which token (Chubby, section 2.2)."""
    if lock.name in state.keys.rows:
        if lock.name in state.lock_generations.rows:
            state.lock_generations.touch(lock.name)
            state.lock_generations.rows[lock.name] = lock.token
        else:
            state.lock_generations.add(lock.name, lock.token)
