"""Names are handed on: who is let in when something was let go.

`hand_on` is called once behind all that an entry ends, and lets in everybody who can be. A re-entrant waiter passes the
line of what its session holds: it may come in as soon as that is so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from coordinator.statemachine import lock_events, quotas
from coordinator.statemachine.events import GrantMade
from coordinator.statemachine.lock_commands import EXCLUSIVE, Grant, Waiter
from coordinator.statemachine.locks import Key, Lock, fencing_token

if TYPE_CHECKING:
    from coordinator.statemachine.sessions import Session
    from coordinator.statemachine.state import State


def hand_on(state: State, index: int, names: Iterable[str], came: Iterable[tuple[int, str]] = ()) -> None:
    """Let in whoever is first in line for what was let go; forget a lock that nobody has anything of. `came`: sessions
    that have come to hold a name in another way, or hold it alone at last, and the name."""
    handing = _Handing(state, index, names, came)
    handing.finish_upgrades()
    handing.let_join()
    pending = handing.pending
    while pending:
        name, _ = pending.popitem(last=False)
        lock = state.locks.rows.get(name)
        if lock is None:
            continue
        while lock.queue:
            waiter = next(iter(lock.queue.values()))
            if not _is_next(state, waiter):
                break
            handing.let_in(waiter, name)
        if lock.is_free:
            state.locks.remove(name)
        if handing.joined:
            handing.let_join()
    for name in handing.passed:
        if name in state.locks.rows:
            lock_events.passed_on(state, index, state.locks.rows[name])


class _Handing:
    """What is left to go over within one entry."""

    __slots__ = ("_index", "_state", "joined", "passed", "pending")

    def __init__(self, state: State, index: int, names: Iterable[str], came: Iterable[tuple[int, str]]) -> None:
        self._state = state
        self._index = index
        self.pending = OrderedDict.fromkeys(names)
        """Names whose lines may move. The first is found at once, however many went before it."""
        self.joined = OrderedDict.fromkeys(came)
        """Sessions that hold a name now, and the name: what is re-entrant of theirs passes its line."""
        self.passed = dict.fromkeys(name for _, name in self.joined)
        """Names that went to somebody who had waited."""

    def finish_upgrades(self) -> None:
        state, index = self._state, self._index
        for name in self.pending:
            lock = state.locks.rows.get(name)
            if lock is None or lock.upgrading is None:
                continue
            session, _ = lock.upgrading
            if _finish_upgrade(state, index, lock):
                self.passed[name] = None
                self.joined[session, name] = None

    def let_join(self) -> None:
        while self.joined:
            (session, name), _ = self.joined.popitem(last=False)
            for waiter in _reentrant(self._state, session, name):
                if _is_next(self._state, waiter):
                    self.let_in(waiter)

    def let_in(self, waiter: Waiter, name: str = "") -> None:
        """It leaves its lines and has all its names. `name`: the one whose line is being gone over."""
        state = self._state
        session = state.sessions.rows[waiter.holder.session]
        state.waiting -= len(waiter.names)
        state.work.ends(len(waiter.names))
        quotas.count_waiters(state.uses, waiter.holder.principal, -len(waiter.names))
        for taken in waiter.names:
            if taken in session.reentrant and taken not in session.locks:
                self.joined[session.session, taken] = None
            _admit(state, self._index, state.locks.rows[taken], waiter)
            self.passed[taken] = None
            if taken != name:
                self.pending[taken] = None  # Whoever is behind it there may hold it together with it.
        holder = waiter.holder
        token = token_of(state, waiter.names, (holder.session, holder.acquisition))
        for taken in waiter.names:
            state.events.append(GrantMade(holder.session, taken, holder.acquisition, token))


def token_of(state: State, names: Iterable[str], key: Key) -> int:
    """By which an acquisition that has come to hold these names is told so: the highest of theirs. A name that its
    session held before, and that it joined, has an earlier one; the next holder of any gets a higher one."""
    grants = [state.locks.rows[name].holders.get(key) for name in names if name in state.locks.rows]
    return max(grant.token for grant in grants if grant is not None)


def _reentrant(state: State, session: int, name: str) -> list[Waiter]:
    """Those of a session that wait for what it holds, as far as they are re-entrant."""
    acquisitions = state.sessions.rows[session].reentrant.get(name, ())
    return [state.locks.rows[name].queue[session, acquisition] for acquisition in acquisitions]


def _is_next(state: State, waiter: Waiter) -> bool:
    """Is it first in all its lines, but for those of what its session holds already, and does each admit it?"""
    key = (waiter.holder.session, waiter.holder.acquisition)
    session = state.sessions.rows[waiter.holder.session]
    for name in waiter.names:
        lock = state.locks.rows[name]
        if lock.is_joined_by(waiter, session):
            continue
        if next(iter(lock.queue)) != key or not lock.admits(waiter, session):
            return False
    return True


def _admit(state: State, index: int, lock: Lock, waiter: Waiter) -> None:
    holder = waiter.holder
    session = state.sessions.rows[holder.session]
    state.locks.touch(lock.name)
    del lock.queue[holder.session, holder.acquisition]
    session.waits_no_more(lock.name, holder.acquisition)
    let_in(state, index, session, lock, waiter)


def _finish_upgrade(state: State, index: int, lock: Lock) -> bool:
    """Whoever waits to hold it alone does so when it is the only one left; was that so?"""
    key = lock.upgrading
    if key is None or len(lock.holders) > 1 or lock.delay is not None:
        return False
    token = make_exclusive(state, index, lock, key)
    state.events.append(GrantMade(key[0], lock.name, key[1], token))
    return True


def make_exclusive(state: State, index: int, lock: Lock, key: Key) -> int:
    """The only holder of a shared lock holds it exclusively, by a new token."""
    state.locks.touch(lock.name)
    before = lock.holders[key]
    lock.token = fencing_token(state.epoch, index)
    lock.mode, lock.upgrading = EXCLUSIVE, None
    grant = lock.holders[key] = Grant(before.holder, lock.token, before.names, before.delay_ms)
    lock_events.acquired(state, index, lock, grant)
    return lock.token


def let_in(state: State, index: int, session: Session, lock: Lock, waiter: Waiter) -> Grant:
    was_free = not lock.holders
    grant = lock.grant(waiter, fencing_token(state.epoch, index))
    session.holds(lock.name, waiter.holder.acquisition)
    if was_free and lock.name in state.keys.rows:
        # A lock that was free became held: its file shows by which token (Chubby, section 2.2).
        state.lock_generations.put(lock.name, lock.token)
    lock_events.acquired(state, index, lock, grant)
    return grant
