"""Who may do what in a cluster, and how much of it: principals, roles, permissions, narrowed tokens, quotas.

All of it takes the right to administer, but that everybody may look at what is its own. What each change means is in
`docs/semantics.md`, "Rights" and "Quotas"; it holds from one point of the log on. A permission is some rights (`read`,
`write`, `lock`, `administer`) on all names that begin with a prefix; "" is everything. Tokens are made by
`manage.py token NAME`, so that they are printed once and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from coordinator.client import options
from coordinator.client.asking import Ask, Asking, Part, S, T, as_it_is, asked
from coordinator.client.core import Core
from coordinator.client.errors import InvalidRequest, refuse
from coordinator.statemachine import commands, permissions
from coordinator.statemachine.permissions import (
    CLUSTER,
    EACH,
    NO_QUOTA,
    QUOTA_MAX,
    AccessView,
    HeldPermission,
    Holding,
    Permission,
    Quota,
    QuotaView,
    RoleView,
)

__all__ = ["CLUSTER", "EACH", "Access"]

Permissions = Mapping[str, Iterable[str]]
"""The rights on each prefix: `{"build/": ("read", "write")}`."""

_PAGE: Final = commands.LIST_LIMIT_MAX


class Access(Part[S]):
    """`client.access`."""

    # --- principals -------------------------------------------------------------------------------

    @asked
    def look(self, principal: str = "", *, timeout: float | None = None) -> Ask[AccessView]:
        """What a principal may do, and whence; "": whoever asks. Raises NotFound."""
        return self._query(permissions.GetAccess(_text("a principal", principal)), as_it_is, timeout=timeout)

    @asked
    def principals(self, *, timeout: float | None = None) -> Ask[list[commands.PrincipalView]]:
        """All of them, by name, with the rights that `set_principal` said, and the ids of their tokens."""

        def page(last: commands.PrincipalView | None) -> commands.Query:
            return commands.ListPrincipals(last.name if last else "", _PAGE)

        return self._all(page, lambda found: found.principals, timeout)

    @asked
    def set_principal(
        self, name: str, *rights: str, prefixes: Iterable[str] = (), timeout: float | None = None
    ) -> Ask[bool]:
        """Create a principal, or replace these rights of one that is there: on names that begin with one of `prefixes`
        (none: on everything). Its permissions and roles stay. True where it was there."""
        op = commands.SetPrincipal(
            _text("a principal", name), _rights(rights), tuple(map(_prefix, _several("prefixes", prefixes)))
        )
        return self._command(op, _existed, timeout=timeout)

    @asked
    def remove_principal(self, name: str, *, timeout: float | None = None) -> Ask[bool]:
        """Remove a principal with its tokens; what it holds is let go as its sessions run out. True where it was
        there."""
        return self._command(commands.RemovePrincipal(_text("a principal", name)), _existed, timeout=timeout)

    @asked
    def permit(self, principal: str, prefix: str, *rights: str, timeout: float | None = None) -> Ask[bool]:
        """What a principal may do by this prefix: these rights instead of those it had by it; none: nothing. True where
        it had some. Takes the right to administer the prefix alone. Raises NotFound."""
        name = _text("a principal", principal)
        op = permissions.SetPermission("principal", name, _prefix(prefix), _rights(rights))
        return self._command(op, _existed, timeout=timeout)

    @asked
    def set_roles(self, principal: str, *roles: str, timeout: float | None = None) -> Ask[None]:
        """The roles that a principal has, instead of those it had. Raises NotFound."""
        names = tuple(_text("a role", role) for role in roles)
        op = permissions.SetRoles(_text("a principal", principal), names)
        return self._command(op, lambda _: None, timeout=timeout)

    # --- roles ------------------------------------------------------------------------------------

    @asked
    def roles(self, *, timeout: float | None = None) -> Ask[list[RoleView]]:
        """All of them, by name, with how many permissions and members each has."""

        def page(last: RoleView | None) -> commands.Query:
            return permissions.ListRoles(last.name if last else "", _PAGE)

        return self._all(page, lambda found: found.roles, timeout)

    @asked
    def members(self, role: str, *, timeout: float | None = None) -> Ask[list[str]]:
        """The principals that have a role, by name. Raises NotFound."""
        role = _text("a role", role)

        def page(last: str | None) -> commands.Query:
            return permissions.ListMembers(role, last or "", _PAGE)

        return self._all(page, lambda found: found.principals, timeout)

    @asked
    def set_role(self, name: str, allowed: Permissions, *, timeout: float | None = None) -> Ask[bool]:
        """Create a role, or replace all that it may do. True where it was there."""
        op = permissions.SetRole(_text("a role", name), _permissions(allowed))
        return self._command(op, _existed, timeout=timeout)

    @asked
    def permit_role(self, role: str, prefix: str, *rights: str, timeout: float | None = None) -> Ask[bool]:
        """`permit`, for all that have a role."""
        op = permissions.SetPermission("role", _text("a role", role), _prefix(prefix), _rights(rights))
        return self._command(op, _existed, timeout=timeout)

    @asked
    def remove_role(self, name: str, *, timeout: float | None = None) -> Ask[bool]:
        """From here on nobody has it. True where it was there."""
        return self._command(permissions.RemoveRole(_text("a role", name)), _existed, timeout=timeout)

    @asked
    def permissions(self, holder: Holding, *, timeout: float | None = None) -> Ask[list[HeldPermission]]:
        """All permissions of principals, of roles, or of narrowed tokens (`holder`: which of them), by name and then by
        prefix."""
        if holder not in ("principal", "role", "token"):
            raise InvalidRequest(f"permissions are held by a 'principal', a 'role' or a 'token', got {holder!r}")

        def page(last: HeldPermission | None) -> commands.Query:
            after, behind = (last.name, last.prefix) if last else ("", "")
            return permissions.ListPermissions(holder, after, behind, _PAGE)

        return self._all(page, lambda found: found.permissions, timeout)

    # --- tokens -----------------------------------------------------------------------------------

    @asked
    def narrow_token(self, token_id: str, allowed: Permissions, *, timeout: float | None = None) -> Ask[None]:
        """Let a token do only what both its principal and these allow. `token_id`: as `principals` names it, the third
        part of a token. Raises NotFound."""
        op = permissions.NarrowToken(_text("a token's id", token_id), _permissions(allowed))
        return self._command(op, lambda _: None, timeout=timeout)

    @asked
    def widen_token(self, token_id: str, *, timeout: float | None = None) -> Ask[None]:
        """Let a token do all that its principal may. Raises NotFound."""
        op = permissions.NarrowToken(_text("a token's id", token_id), None)
        return self._command(op, lambda _: None, timeout=timeout)

    @asked
    def remove_token(self, token_id: str, *, timeout: float | None = None) -> Ask[bool]:
        """From here on it is nobody's. True where it was there."""
        return self._command(commands.RemoveToken(_text("a token's id", token_id)), _existed, timeout=timeout)

    # --- quotas -----------------------------------------------------------------------------------

    @asked
    def quota(self, who: str = CLUSTER, *, timeout: float | None = None) -> Ask[QuotaView]:
        """What there may be (`quota`; -1: as much as any cluster allows), what was set (`own`) and what is `used`: by a
        principal, or by the CLUSTER. EACH: what was set for each principal without a quota of its own."""
        return self._query(permissions.GetQuota(_text("a principal", who)), as_it_is, timeout=timeout)

    @asked
    def quotas(self, *, timeout: float | None = None) -> Ask[list[QuotaView]]:
        """The same of all principals, by name."""

        def page(last: QuotaView | None) -> commands.Query:
            return permissions.ListQuotas(last.principal if last else "", _PAGE)

        return self._all(page, lambda found: found.quotas, timeout)

    @asked
    def set_quota(
        self,
        who: str,
        *,
        keys: int | None = None,
        key_bytes: int | None = None,
        sessions: int | None = None,
        watches: int | None = None,
        waiters: int | None = None,
        timeout: float | None = None,
    ) -> Ask[None]:
        """How much there may be of each, for a principal, for the CLUSTER, or for EACH principal without a quota of its
        own. It is set as a whole: None is no quota of that. One below what is in use stops growth, and nothing else."""
        quota = Quota(
            keys=_amount("keys", keys),
            key_bytes=_amount("key_bytes", key_bytes),
            sessions=_amount("sessions", sessions),
            watches=_amount("watches", watches),
            waiters=_amount("waiters", waiters),
        )
        op = permissions.SetQuota(_text("a principal", who), quota)
        return self._command(op, lambda _: None, timeout=timeout)

    @asked
    def remove_quota(self, who: str, *, timeout: float | None = None) -> Ask[bool]:
        """True where there was one."""
        return self._command(permissions.SetQuota(_text("a principal", who), None), _existed, timeout=timeout)

    # --- how it is said ---------------------------------------------------------------------------

    def _all(
        self, ask: Callable[[T | None], commands.Query], read: Callable[[Any], Sequence[T]], timeout: float | None
    ) -> Ask[list[T]]:
        """Page after page, each from behind the last row of the one before: what changes meanwhile may be missing."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[list[T]]:
            rows: list[T] = []
            while True:
                query = ask(rows[-1] if rows else None)
                page = read(refuse((yield core.query(query, clock(), deadline_us))))
                rows += page
                if len(page) < _PAGE:
                    return rows

        return Ask(flow)


def _existed(done: commands.Done) -> bool:
    return done.existed


def _text(what: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidRequest(f"{what} is a str, got {name!r}")
    return name


def _several(what: str, given: Iterable[str]) -> Iterable[str]:
    if isinstance(given, str):
        raise InvalidRequest(f"{what} are several, such as ({given!r},), got {given!r}")
    return given


def _rights(given: Iterable[str]) -> tuple[str, ...]:
    rights = tuple(_several("rights", given))
    for right in rights:
        if right not in commands.RIGHTS:
            raise InvalidRequest(f"a right is one of {', '.join(commands.RIGHTS)}, got {right!r}")
    return tuple(right for right in commands.RIGHTS if right in rights)


def _prefix(given: str) -> str:
    return "" if given in ("", "/") else options.name(given)


def _permissions(given: Permissions) -> tuple[Permission, ...]:
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"permissions are rights by prefix, such as {{'build/': ('read',)}}, got {given!r}")
    return tuple(Permission(_prefix(prefix), _rights(rights)) for prefix, rights in given.items())


def _amount(what: str, given: int | None) -> int:
    if given is None:
        return NO_QUOTA
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= QUOTA_MAX:
        raise InvalidRequest(f"a quota of {what} is a whole number from 0 to {QUOTA_MAX}, or None, got {given!r}")
    return given
