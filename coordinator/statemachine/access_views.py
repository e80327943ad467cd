"""What can be seen of permissions, roles, tokens and quotas: pages and views, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from coordinator.statemachine import commands, permissions, quotas
from coordinator.statemachine.commands import Failure, Result
from coordinator.statemachine.permissions import (
    AccessView,
    HeldPermission,
    MemberList,
    Permission,
    PermissionList,
    QuotaList,
    RoleList,
    RoleView,
    TokenAccess,
)
from coordinator.statemachine.views import page_limit, page_of, token

if TYPE_CHECKING:
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.state import State


def access(state: State, asker: Access, name: str) -> Result:
    refused = _refuse_others(asker, name or asker.name)
    if refused is not None:
        return refused
    known = state.principals.rows.get(name or asker.name)
    if known is None:
        return _no_principal(name)
    return AccessView(known.name, known.rights, known.prefixes, known.act_for, known.permissions, known.roles)


def list_permissions(state: State, query: permissions.ListPermissions) -> Result:
    return PermissionList(tuple(islice(_held(state, query), page_limit(query.limit))))


def _held(state: State, query: permissions.ListPermissions) -> Iterator[HeldPermission]:
    after = query.after
    for permission in _permissions_of(state, query.holder, after):
        if permission.prefix > query.behind:
            yield HeldPermission(after, permission.prefix, permission.rights)
    orders = {"principal": state.principals.order, "role": state.roles.order, "token": state.narrowings.order}
    for name in orders[query.holder].seek(after, after=True):
        state.work.goes_over(1)
        for permission in _permissions_of(state, query.holder, name):
            yield HeldPermission(name, permission.prefix, permission.rights)


def _permissions_of(state: State, holder: permissions.Holding, name: str) -> tuple[Permission, ...]:
    if holder == "token":
        return state.narrowings.rows.get(name, ())
    known = state.principals.rows.get(name) if holder == "principal" else state.roles.rows.get(name)
    return () if known is None else known.permissions


def list_roles(state: State, query: permissions.ListRoles) -> Result:
    roles = [state.roles.rows[name] for name in page_of(state.roles.order, query.after, query.limit)]
    return RoleList(tuple(RoleView(role.name, len(role.permissions), role.members) for role in roles))


def list_members(state: State, query: permissions.ListMembers) -> Result:
    if query.role not in state.roles.rows:
        return Failure(commands.NOT_FOUND, f"no role {query.role!r} in this cluster")
    rows = state.principals.rows
    state.work.goes_over(len(rows))
    behind = state.principals.order.seek(query.after, after=True)
    names = filter(lambda name: query.role in rows[name].roles, behind)
    return MemberList(tuple(islice(names, page_limit(query.limit))))


def quota(state: State, asker: Access, name: str) -> Result:
    refused = _refuse_others(asker, name)
    if refused is not None:
        return refused
    if name not in (permissions.CLUSTER, permissions.EACH) and name not in state.principals.rows:
        # One that was removed may still own keys.
        return quotas.view(state, name) if name in state.uses else _no_principal(name)
    return quotas.view(state, name)


def list_quotas(state: State, query: permissions.ListQuotas) -> Result:
    names = page_of(state.principals.order, query.after, query.limit)
    return QuotaList(tuple(quotas.view(state, name) for name in names))


def token_access(state: State, asker: Access, token_id: str) -> Result:
    found = token(state, asker, token_id)
    if isinstance(found, Failure):
        return found
    return TokenAccess(token_id, found.principal, found.key, state.narrowings.rows.get(token_id))


def _refuse_others(asker: Access, name: str) -> Failure | None:
    """Everybody may see what is its own."""
    if name == asker.name or asker.may(commands.ADMINISTER):
        return None
    return Failure(commands.FORBIDDEN, f"{asker.name!r} lacks the right to {commands.ADMINISTER}")


def _no_principal(name: str) -> Failure:
    return Failure(commands.NOT_FOUND, f"no principal {name!r} in this cluster")
