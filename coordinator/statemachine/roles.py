"""Permissions and roles come, change and go, and tokens are narrowed: what an administrator commands.

What one entry changes holds for every entry behind it, and for no entry before: whatever was worked out before is
forgotten (`State.rights_changed`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Failure, Result, name_problem
from coordinator.statemachine.permissions import (
    PERMISSIONS_MAX,
    ROLE_NAME,
    ROLES_HELD_MAX,
    ROLES_MAX,
    NarrowToken,
    Permission,
    RemoveRole,
    SetPermission,
    SetRole,
    SetRoles,
)
from coordinator.statemachine.principals import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coordinator.statemachine.principals import Access, Principal
    from coordinator.statemachine.state import State


def set_role(state: State, index: int, op: SetRole) -> Result:
    if not ROLE_NAME.fullmatch(op.name):
        return Failure(commands.INVALID, f"a role's name matches {ROLE_NAME.pattern}, got {op.name!r}")
    permissions = _in_order(op.permissions)
    if isinstance(permissions, Failure):
        return permissions
    known = state.roles.rows.get(op.name)
    if known is not None:
        state.roles.touch(op.name)
        known.permissions = permissions
    elif len(state.roles.rows) >= ROLES_MAX:
        return Failure(commands.FULL, f"the cluster has its {ROLES_MAX} roles")
    else:
        state.roles.add(op.name, Role(op.name, permissions))
    state.rights_changed(index)
    return Done(index, existed=known is not None)


def remove_role(state: State, index: int, op: RemoveRole) -> Result:
    if op.name not in state.roles.rows:
        return Done(index, existed=False)
    state.roles.remove(op.name)
    # A role that is made again under this name is another one, which nobody has.
    for principal in state.principals.rows.values():
        if op.name in principal.roles:
            state.principals.touch(principal.name)
            principal.roles = tuple(role for role in principal.roles if role != op.name)
    state.rights_changed(index)
    return Done(index, existed=True)


def set_permission(state: State, index: int, asker: Access, op: SetPermission) -> Result:
    if op.holder == "role":
        role = state.roles.rows.get(op.name)
        if role is None:
            return Failure(commands.NOT_FOUND, f"no role {op.name!r} in this cluster")
        before = role.permissions
    else:
        principal = _changeable(state, asker, op.name)
        if isinstance(principal, Failure):
            return principal
        before = principal.permissions
    there = [permission for permission in before if permission.prefix != op.prefix]
    added = (Permission(op.prefix, op.rights),) if op.rights else ()
    permissions = _in_order((*there, *added))
    if isinstance(permissions, Failure):
        return permissions
    if op.holder == "role":
        state.roles.touch(op.name)
        state.roles.rows[op.name].permissions = permissions
    else:
        state.principals.touch(op.name)
        state.principals.rows[op.name].permissions = permissions
    state.rights_changed(index)
    return Done(index, existed=len(there) < len(before))


def set_roles(state: State, index: int, asker: Access, op: SetRoles) -> Result:
    principal = _changeable(state, asker, op.principal)
    if isinstance(principal, Failure):
        return principal
    roles = tuple(sorted({*op.roles}))
    if len(roles) > ROLES_HELD_MAX:
        return Failure(commands.INVALID, f"a principal has at most {ROLES_HELD_MAX} roles, got {len(roles)}")
    for name in roles:
        if name not in state.roles.rows:
            return Failure(commands.NOT_FOUND, f"no role {name!r} in this cluster")
    state.principals.touch(op.principal)
    for name in sorted({*roles} ^ {*principal.roles}):
        state.roles.rows[name].members += 1 if name in roles else -1
    principal.roles = roles
    state.rights_changed(index)
    return Done(index, existed=True)


def narrow_token(state: State, index: int, asker: Access, op: NarrowToken) -> Result:
    name = state.tokens.get(op.token_id)
    if name is None:
        return Failure(commands.NOT_FOUND, "no such token")
    principal = _changeable(state, asker, name)
    if isinstance(principal, Failure):
        return principal
    permissions = None if op.permissions is None else _in_order(op.permissions)
    if isinstance(permissions, Failure):
        return permissions
    known = op.token_id in state.narrowings.rows
    if permissions is None:
        if known:
            state.narrowings.remove(op.token_id)
    else:
        state.narrowings.put(op.token_id, permissions)
    state.rights_changed(index)
    return Done(index, existed=known)


def _changeable(state: State, asker: Access, name: str) -> Principal | Failure:
    """The principal `name`, where the asker may change what it may do."""
    principal = state.principals.rows.get(name)
    if principal is None:
        return Failure(commands.NOT_FOUND, f"no principal {name!r} in this cluster")
    if principal.act_for and not asker.act_for:
        return Failure(commands.FORBIDDEN, f"{name!r} is the web tier's own principal")
    return principal


def _in_order(permissions: Iterable[Permission]) -> tuple[Permission, ...] | Failure:
    """By prefix, each with its rights in one order; those without any are left out. The same permissions have the same
    bytes, however they were said."""
    by_prefix: dict[str, Permission] = {}
    for permission in permissions:
        prefix = permission.prefix
        problem = name_problem(prefix) if prefix else None
        if problem is not None:
            return Failure(commands.INVALID, f"{problem} (a prefix)")
        unknown = [right for right in permission.rights if right not in commands.RIGHTS]
        if unknown:
            return Failure(commands.INVALID, f"rights are {', '.join(commands.RIGHTS)}; got {', '.join(unknown)}")
        if prefix in by_prefix:
            return Failure(commands.INVALID, f"the prefix {prefix!r} comes twice")
        rights = tuple(right for right in commands.RIGHTS if right in permission.rights)
        if rights:
            by_prefix[prefix] = Permission(prefix, rights)
    if len(by_prefix) > PERMISSIONS_MAX:
        return Failure(commands.INVALID, f"at most {PERMISSIONS_MAX} permissions, got {len(by_prefix)}")
    return tuple(by_prefix[prefix] for prefix in sorted(by_prefix))
