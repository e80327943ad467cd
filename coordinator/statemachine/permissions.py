"""The vocabulary of permissions, roles and quotas: commands, queries and results. A part of `commands/`, which names
them all. All of it is of level 3.

Words: a *permission* is some rights on all names that begin with a prefix ("": on everything). It is held by a
principal or by a *role*, which principals have. A token may be *narrowed* to permissions: then it may do what both its
principal and they allow. A *quota* says how much of something the cluster or a principal may have. What each does is in
`docs/semantics.md`.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from coordinator.statemachine.structs import WireStruct

PERMISSIONS_MAX: Final = 64
"""Of one principal, role or token."""
ROLES_MAX: Final = 1_000
"""Of a cluster."""
ROLES_HELD_MAX: Final = 32
"""Of one principal."""
QUOTA_MAX: Final = 2**53 - 1
NO_QUOTA: Final = -1
ROLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,149}")
CLUSTER: Final = ""
"""In place of a principal's name: the cluster as a whole."""
EACH: Final = "*"
"""In place of a principal's name: each principal that has no quota of its own."""

Holding = Literal["principal", "role", "token"]


class Permission(WireStruct, frozen=True):
    """`rights` on all names that begin with `prefix`; "": on everything."""

    prefix: str
    rights: tuple[str, ...]


class Quota(WireStruct, frozen=True):
    """How much there may be of each; NO_QUOTA: as much as the limits of every cluster allow. `key_bytes` and `keys`
    are counted as the cluster counts them, for the principal that created the key."""

    key_bytes: int = NO_QUOTA
    keys: int = NO_QUOTA
    sessions: int = NO_QUOTA
    watches: int = NO_QUOTA
    waiters: int = NO_QUOTA


# --- commands -------------------------------------------------------------------------------------


class SetRole(WireStruct, tag=50, frozen=True):
    """Create a role or replace all of its permissions."""

    name: str
    permissions: tuple[Permission, ...] = ()


class RemoveRole(WireStruct, tag=51, frozen=True):
    """Remove a role: from this entry on nobody has it."""

    name: str


class SetPermission(WireStruct, tag=52, frozen=True):
    """What a principal or a role may do by this prefix: `rights` instead of those it had by it; none: nothing."""

    holder: Literal["principal", "role"]
    name: str
    prefix: str
    rights: tuple[str, ...]


class SetRoles(WireStruct, tag=53, frozen=True):
    """The roles that a principal has, instead of those it had."""

    principal: str
    roles: tuple[str, ...]


class NarrowToken(WireStruct, tag=54, frozen=True):
    """What a token may do of what its principal may; None: all of it."""

    token_id: str
    permissions: tuple[Permission, ...] | None


class SetQuota(WireStruct, tag=55, frozen=True):
    """How much a principal may have; CLUSTER: the cluster; EACH: each principal without a quota of its own. None: take
    it away."""

    principal: str
    quota: Quota | None


# --- queries --------------------------------------------------------------------------------------


class GetAccess(WireStruct, tag=50, frozen=True):
    """What a principal may do, and whence; "": whoever asks."""

    principal: str = ""


class ListPermissions(WireStruct, tag=51, frozen=True):
    """Permissions of all principals, roles or tokens, by name and then by prefix, from the first behind (`after`,
    `behind`)."""

    holder: Holding
    after: str = ""
    behind: str = ""
    limit: int = 100


class ListRoles(WireStruct, tag=52, frozen=True):
    """Roles by name, from the first after `after`."""

    after: str = ""
    limit: int = 100


class ListMembers(WireStruct, tag=53, frozen=True):
    """Principals that have a role, by name, from the first after `after`."""

    role: str
    after: str = ""
    limit: int = 100


class GetQuota(WireStruct, tag=54, frozen=True):
    """What a principal may have and has; CLUSTER: the cluster."""

    principal: str = CLUSTER


class ListQuotas(WireStruct, tag=55, frozen=True):
    """The same of all principals, by name, from the first after `after`."""

    after: str = ""
    limit: int = 100


class GetTokenAccess(WireStruct, tag=56, frozen=True):
    """The key, the principal and the permissions of a token. Only a principal that may act for others may ask."""

    token_id: str


# --- results --------------------------------------------------------------------------------------


class AccessView(WireStruct, tag=50, frozen=True):
    """`rights` on `prefixes` (none: everything) are what `SetPrincipal` said; `permissions` and `roles` come on top."""

    principal: str
    rights: tuple[str, ...]
    prefixes: tuple[str, ...]
    act_for: bool
    permissions: tuple[Permission, ...]
    roles: tuple[str, ...]


class HeldPermission(WireStruct, frozen=True):
    name: str
    prefix: str
    rights: tuple[str, ...]


class PermissionList(WireStruct, tag=51, frozen=True):
    permissions: tuple[HeldPermission, ...]


class RoleView(WireStruct, frozen=True):
    """`permissions` and `members` are how many."""

    name: str
    permissions: int
    members: int


class RoleList(WireStruct, tag=52, frozen=True):
    roles: tuple[RoleView, ...]


class MemberList(WireStruct, tag=53, frozen=True):
    principals: tuple[str, ...]


class Used(WireStruct, frozen=True):
    """Watches are not here: the leader counts them."""

    key_bytes: int
    keys: int
    sessions: int
    waiters: int


class QuotaView(WireStruct, tag=54, frozen=True):
    """`own`: what was set for this principal, or the cluster; None: nothing. `quota`: what holds."""

    principal: str
    own: Quota | None
    quota: Quota
    used: Used


class QuotaList(WireStruct, tag=55, frozen=True):
    quotas: tuple[QuotaView, ...]


class TokenAccess(WireStruct, tag=56, frozen=True):
    """`permissions` None: it is not narrowed."""

    token_id: str
    principal: str
    key: bytes
    permissions: tuple[Permission, ...] | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_id!r}, {self.principal!r}, {self.permissions!r})"
