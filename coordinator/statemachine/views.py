"""What can be seen of the state: pages and views, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands, handing, sessions
from coordinator.statemachine.commands import Failure, Granted, LockList, LockView, NotHeld, Queued, Result
from coordinator.statemachine.lock_commands import EXCLUSIVE, BreakList, Broken, LockState, Mode, SequencerState
from coordinator.statemachine.principals import EVERYTHING, least

if TYPE_CHECKING:
    from coordinator.statemachine.ordered import OrderedKeys
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.state import State

LISTED_MAX: Final = 50
"""Holders and waiters that a view of a lock names; the counts beside them are whole."""
TOKEN_DIGITS_MAX: Final = 16

Remaining = Callable[[int], int]
"""What is left of a session's lease in milliseconds, by the leader."""


def lock(state: State, name: str, remaining_ms: Remaining) -> LockView:
    """The first holder, where there are several."""
    found = state.locks.rows.get(name)
    if found is None:
        return LockView(name, None, 0, (), 0, 0, 0)
    holder = found.holder
    waiters = tuple(waiter.holder for waiter in islice(found.queue.values(), LISTED_MAX))
    if holder is None:
        return LockView(name, None, found.token, waiters, 0, 0, len(found.queue))
    ttl_ms = state.sessions.rows[holder.session].ttl_ms
    token = found.holders[holder.session, holder.acquisition].token
    return LockView(name, holder, token, waiters, remaining_ms(holder.session), ttl_ms, len(found.queue))


def lock_state(state: State, name: str) -> LockState:
    found = state.locks.rows.get(name)
    if found is None:
        return LockState(name, EXCLUSIVE, 1, 0, (), 0, (), 0, 0, None)
    return LockState(
        name,
        found.mode,
        found.limit,
        found.token,
        tuple(islice(found.holders.values(), LISTED_MAX)),
        len(found.holders),
        tuple(islice(found.queue.values(), LISTED_MAX)),
        len(found.queue),
        0 if found.delay is None else found.delay.delay_ms,
        None if found.upgrading is None else found.holders[found.upgrading].holder,
    )


def check_sequencer(state: State, sequencer: str) -> Result:
    name, _, rest = sequencer.rpartition(":")
    name, _, mode = name.rpartition(":")
    found = state.locks.rows.get(name)
    if found is None or found.mode != mode or not rest.isascii() or not rest.isdigit() or len(rest) > TOKEN_DIGITS_MAX:
        return SequencerState(valid=False)
    state.work.goes_over(len(found.holders))
    return SequencerState(any(grant.token == int(rest) for grant in found.holders.values()))


def list_breaks(state: State, after: int, limit: int) -> BreakList:
    page = state.breaks.order.page(after, page_limit(limit))
    return BreakList(tuple(state.breaks.rows[number] for number in page))


def list_locks(state: State, after: str, limit: int, remaining_ms: Remaining, asker: Access | None = None) -> LockList:
    """Held locks by name, of those that the asker may read or lock; None: all of them (for the feed)."""
    prefixes = EVERYTHING if asker is None else least(asker.reach[commands.READ] + asker.reach[commands.LOCK])
    page = page_of(state.locks.order, after, limit, prefixes)
    locks = tuple(lock(state, name, remaining_ms) for name in page)
    return LockList(locks, len(state.locks.rows), state.waiting)


def list_shared(state: State, names: Iterable[str]) -> list[tuple[str, Mode, int, int]]:
    """Of these names those that are held by one or several who share or count them: name, mode, limit, how many."""
    rows = state.locks.rows
    found = [rows[name] for name in names if name in rows]
    shared = [each for each in found if each.mode != EXCLUSIVE and each.holders]
    return [(each.name, each.mode, each.limit, len(each.holders)) for each in shared]


def await_grant(state: State, asker: Access, query: commands.AwaitGrant) -> Result:
    if sessions.own(state, asker, query.owner) is None:
        return sessions.session_gone(query.owner)
    found = state.locks.rows.get(query.name)
    key = (query.owner, query.acquisition)
    if found is not None:
        grant = found.holders.get(key)
        if grant is not None and found.upgrading != key:
            return Granted(grant.token if len(grant.names) == 1 else handing.token_of(state, grant.names, key))
        place = 1 if grant is not None else found.position(*key)
        if place is not None:
            return Queued(place)
    number = state.broken.get((query.name, *key))
    return NotHeld() if number is None else Broken(state.breaks.rows[number])


def session(state: State, asker: Access, number: int, remaining_ms: Remaining) -> Result:
    found = sessions.own(state, asker, number)
    if found is None:
        return sessions.session_gone(number)
    return commands.SessionView(number, found.principal, found.ttl_ms, remaining_ms(number), tuple(sorted(found.locks)))


def token(state: State, asker: Access, token_id: str) -> commands.TokenView | Failure:
    if not asker.act_for:
        return Failure(commands.FORBIDDEN, f"{asker.name!r} may not read token keys")
    owner = state.tokens.get(token_id)
    if owner is None:
        return Failure(commands.NOT_FOUND, "no such token")
    return commands.TokenView(token_id, owner, state.principals.rows[owner].tokens[token_id])


def principal(state: State, name: str) -> Result:
    known = state.principals.rows.get(name)
    return known.view() if known else Failure(commands.NOT_FOUND, f"no principal {name!r}")


def list_principals(state: State, after: str, limit: int) -> Result:
    names = page_of(state.principals.order, after, limit)
    return commands.PrincipalList(tuple(state.principals.rows[name].view() for name in names))


def page_of(names: OrderedKeys[str], after: str, limit: int, prefixes: tuple[str, ...] = EVERYTHING) -> list[str]:
    """Names behind `after` that begin with one of `prefixes`, which are sorted, none of them within another."""
    limit = page_limit(limit)
    if prefixes == EVERYTHING:
        return names.page(after, limit)
    return [*islice(_beginning_with_one(names, prefixes, after), limit)]


def _beginning_with_one(names: OrderedKeys[str], prefixes: tuple[str, ...], after: str) -> Iterator[str]:
    for prefix in prefixes:
        yield from _beginning(names, prefix, after)


def _beginning(names: OrderedKeys[str], prefix: str, after: str) -> Iterator[str]:
    found = names.seek(prefix) if after < prefix else names.seek(after, after=True)
    return takewhile(lambda name: name.startswith(prefix), found)


def page_limit(limit: int) -> int:
    """How many a page has that is asked for with this limit."""
    return max(1, min(limit, commands.LIST_LIMIT_MAX))
