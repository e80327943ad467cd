"""Principals, roles and narrowed tokens, and what a request of theirs may do.

What a principal may do is the sum of what `SetPrincipal` said of it, of its own permissions and of its roles'. A
narrowed token may do the part of that which its permissions allow too. Both are worked out when they are first asked
for after a change of rights, and are no part of the state (`State.accesses`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.commands import ADMINISTER, RIGHTS, Failure, PrincipalView, SetPrincipal
from coordinator.statemachine.permissions import Permission

if TYPE_CHECKING:
    from coordinator.statemachine.paths import Span
    from coordinator.statemachine.state import State

TOKENS_MAX: Final = 10_000
PRINCIPALS_MAX: Final = 10_000
PREFIXES_MAX: Final = 64
ACCESSES_MAX: Final = 4_096
"""Stamps of which it is remembered what they may do."""

Stamp = tuple[str, str, str, str]
"""Principal, actor, token and the token acted for, as in `commands.Entry`."""

EVERYTHING: Final = ("",)
"""All names, among what a right reaches. To be compared by `==`: what is compiled has no one object of it."""

Reach = Mapping[str, tuple[str, ...]]
"""For each right the prefixes of the names that it reaches: sorted, none of them within another."""


class Access:
    """What a request may do."""

    __slots__ = ("has", "name", "principal", "reach")

    def __init__(self, principal: Principal, reach: Reach, *, administers: bool) -> None:
        self.name = principal.name
        self.principal = principal
        self.reach = reach
        self.has = frozenset(right for right in RIGHTS if (administers if right == ADMINISTER else reach[right]))
        """Rights that it has on some name; the right to administer only where it has it altogether."""

    @property
    def act_for(self) -> bool:
        """May it act for others?"""
        return self.principal.act_for

    def may(self, *rights: str) -> bool:
        """Has it one of `rights`?"""
        return not self.has.isdisjoint(rights)

    def reaches_all(self, rights: Iterable[str], span: Span) -> bool:
        """May it, by one prefix of one of `rights`, touch everything that may ever be in `span`?"""
        return any(span.within(prefix) for right in rights for prefix in self.reach[right])


class Principal:
    __slots__ = ("act_for", "name", "permissions", "prefixes", "rights", "roles", "tokens")

    def __init__(self, set_principal: SetPrincipal) -> None:
        self.name = set_principal.name
        self.tokens: dict[str, bytes] = {}
        self.permissions: tuple[Permission, ...] = ()
        """By prefix, in their order."""
        self.roles: tuple[str, ...] = ()
        """By name, in their order. All of them are there."""
        self.change(set_principal)

    def change(self, set_principal: SetPrincipal) -> None:
        self.rights = set_principal.rights
        self.prefixes = set_principal.prefixes
        self.act_for = set_principal.act_for

    def access(self, state: State) -> Access:
        """What it may do altogether."""
        said = [Permission(prefix, self.rights) for prefix in self.prefixes or ("",)]
        held = [self.permissions, *(state.roles.rows[role].permissions for role in self.roles)]
        reach = _reach_of([*said, *chain.from_iterable(held)])
        # What SetPrincipal gives is not bounded by its prefixes where nothing has a name.
        return Access(self, reach, administers=ADMINISTER in self.rights or reach[ADMINISTER] == EVERYTHING)

    def view(self) -> PrincipalView:
        return PrincipalView(self.name, self.rights, self.prefixes, self.act_for, tuple(sorted(self.tokens)))


class Role:
    __slots__ = ("members", "name", "permissions")

    def __init__(self, name: str, permissions: tuple[Permission, ...]) -> None:
        self.name = name
        self.permissions = permissions
        """By prefix, in their order."""
        self.members = 0
        """How many principals have it. Can be told from them."""


def access_of(state: State, name: str, actor: str = "", token: str = "", for_token: str = "") -> Access | Failure:
    """What a request with this stamp may do. "" for a token: no word of it."""
    stamp = (name, actor, token, for_token)
    known = state.accesses.get(stamp)
    if known is not None:
        return known
    found = _work_out(state, stamp)
    if isinstance(found, Access):
        if len(state.accesses) >= ACCESSES_MAX:
            state.accesses.clear()
        state.accesses[stamp] = found
    return found


def _work_out(state: State, stamp: Stamp) -> Access | Failure:
    name, actor, token, for_token = stamp
    principals = state.principals.rows
    if actor and (actor not in principals or not principals[actor].act_for):
        return Failure(commands.FORBIDDEN, f"{actor!r} may not act for others")
    principal = principals.get(name)
    if principal is None:
        return Failure(commands.FORBIDDEN, f"no principal {name!r} in this cluster")
    if (token and state.tokens.get(token) != (actor or name)) or (for_token and state.tokens.get(for_token) != name):
        return Failure(commands.FORBIDDEN, "the token that this was asked with was removed")
    access = principal.access(state)
    for one in (token, for_token):
        if one in state.narrowings.rows:
            access = _narrowed(access, _reach_of(state.narrowings.rows[one]))
    return access


def _narrowed(access: Access, bounds: Reach) -> Access:
    reach = {right: _within_both(access.reach[right], bounds[right]) for right in RIGHTS}
    return Access(access.principal, reach, administers=access.may(ADMINISTER) and bounds[ADMINISTER] == EVERYTHING)


def _reach_of(permissions: Collection[Permission]) -> Reach:
    return {right: least([one.prefix for one in permissions if right in one.rights]) for right in RIGHTS}


def least(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Those that are not within another, sorted."""
    found: list[str] = []
    for prefix in sorted(prefixes):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return tuple(found)


def _within_both(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The prefixes of what begins with one of each."""
    return least([*(prefix for prefix in one if prefix.startswith(other)), *(p for p in other if p.startswith(one))])
