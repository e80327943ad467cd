"""What can be seen of the state: pages and views, without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands, sessions
from coordinator.statemachine.commands import Failure, Granted, LockList, LockView, NotHeld, Queued, Result

if TYPE_CHECKING:
    from coordinator.statemachine.ordered import OrderedKeys
    from coordinator.statemachine.rights import Principal
    from coordinator.statemachine.state import State

LISTED_WAITERS_MAX: Final = 50
"""Waiters that a view of a lock names; the count beside it is whole."""

Remaining = Callable[[int], int]
"""What is left of a session's lease in milliseconds, by the leader."""


def lock(state: State, name: str, remaining_ms: Remaining) -> LockView:
    found = state.locks.rows.get(name)
    if found is None:
        return LockView(name, None, 0, (), 0, 0, 0)
    assert found.holder is not None
    session = found.holder.session
    return LockView(
        name,
        found.holder,
        found.token,
        tuple(islice(found.waiters(), LISTED_WAITERS_MAX)),
        remaining_ms(session),
        state.sessions.rows[session].ttl_ms,
        len(found.queue),
    )


def list_locks(
    state: State, after: str, limit: int, remaining_ms: Remaining, principal: Principal | None = None
) -> LockList:
    """Held locks by name, of those that the principal reaches; None: all of them (for the feed)."""
    prefixes = principal.prefixes if principal is not None else ()
    page = _page(state.locks.order, after, limit, prefixes)
    locks = tuple(lock(state, name, remaining_ms) for name in page)
    return LockList(locks, len(state.locks.rows), state.waiting)


def await_grant(state: State, principal: Principal, query: commands.AwaitGrant) -> Result:
    if sessions.own(state, principal, query.owner) is None:
        return sessions.session_gone(query.owner)
    found = state.locks.rows.get(query.name)
    if found is None:
        return NotHeld()
    assert found.holder is not None
    if (found.holder.session, found.holder.acquisition) == (query.owner, query.acquisition):
        return Granted(found.token)
    place = found.position(query.owner, query.acquisition)
    return NotHeld() if place is None else Queued(place)


def session(state: State, principal: Principal, number: int, remaining_ms: Remaining) -> Result:
    found = sessions.own(state, principal, number)
    if found is None:
        return sessions.session_gone(number)
    return commands.SessionView(number, found.principal, found.ttl_ms, remaining_ms(number), tuple(sorted(found.locks)))


def token(state: State, principal: Principal, token_id: str) -> Result:
    if not principal.act_for:
        return Failure(commands.FORBIDDEN, f"{principal.name!r} may not read token keys")
    owner = state.tokens.get(token_id)
    if owner is None:
        return Failure(commands.NOT_FOUND, "no such token")
    return commands.TokenView(token_id, owner, state.principals.rows[owner].tokens[token_id])


def principal(state: State, name: str) -> Result:
    known = state.principals.rows.get(name)
    return known.view() if known else Failure(commands.NOT_FOUND, f"no principal {name!r}")


def list_principals(state: State, after: str, limit: int) -> Result:
    names = _page(state.principals.order, after, limit)
    return commands.PrincipalList(tuple(state.principals.rows[name].view() for name in names))


def _page(names: OrderedKeys[str], after: str, limit: int, prefixes: tuple[str, ...] = ()) -> list[str]:
    limit = max(1, min(limit, commands.LIST_LIMIT_MAX))
    if not prefixes:
        return names.page(after, limit)
    within: Iterable[str] = (name for name in names.seek(after, after=True) if name.startswith(prefixes))
    return [*islice(within, limit)]
