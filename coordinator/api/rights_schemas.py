"""The shapes of principals, roles, permissions, tokens and quotas. What each means is in `docs/semantics.md`."""

from __future__ import annotations

from typing import Annotated, Literal

from ninja import Schema
from pydantic import Field

from coordinator.api.errors import Refused
from coordinator.api.schemas import StrictIn, Text
from coordinator.audit import REASON_CHARACTERS_MAX
from coordinator.statemachine import commands, permissions
from coordinator.statemachine.permissions import NO_QUOTA, QUOTA_MAX, AccessView, Permission

Right = Literal["read", "write", "lock", "administer"]
Rights = Annotated[list[Right], Field(max_length=len(commands.RIGHTS))]
Reason = Annotated[str, Field(max_length=REASON_CHARACTERS_MAX, description="Why, for the audit.")]
Prefix = Annotated[str, Field(max_length=commands.NAME_BYTES_MAX, description="All names that begin so; empty: all.")]
Amount = Annotated[int | None, Field(ge=0, le=QUOTA_MAX, description="null: no quota of this.")]


def prefix_named(text: str) -> str:
    """A prefix as the cluster keeps it; "" is everything. Raises Refused."""
    try:
        return commands.canonical_name(text) if text.removeprefix("/") else ""
    except ValueError as error:
        raise Refused(422, "invalid", str(error)) from None


def in_order(rights: list[Right]) -> tuple[str, ...]:
    """As the cluster lists them, each once."""
    return tuple(right for right in commands.RIGHTS if right in rights)


class PermissionIn(StrictIn):
    prefix: Prefix
    rights: Rights

    def permission(self) -> Permission:
        return Permission(prefix_named(self.prefix), in_order(self.rights))


class PrincipalIn(StrictIn):
    rights: Rights
    prefixes: list[Prefix] = Field([], description="What the rights are on; none: everything.")
    reason: Reason = ""


class PermitIn(PermissionIn):
    """These rights by this prefix, instead of those that were held by it; none: nothing."""

    reason: Reason = ""


class RolesIn(StrictIn):
    roles: list[Text] = Field(max_length=permissions.ROLES_HELD_MAX, description="Instead of those it had.")
    reason: Reason = ""


class RoleIn(StrictIn):
    permissions: list[PermissionIn] = Field(
        max_length=permissions.PERMISSIONS_MAX, description="All that it may do, instead of what it might."
    )
    reason: Reason = ""


class TokenIn(StrictIn):
    permissions: list[PermissionIn] | None = Field(
        max_length=permissions.PERMISSIONS_MAX, description="What it may of what its principal may; null: all of it."
    )
    reason: Reason = ""


class QuotaIn(StrictIn):
    """Set as a whole: what is left out has no quota."""

    principal: Text = Field(
        description="Whose; empty: of the cluster as a whole; `*`: of each principal that has no quota of its own."
    )
    keys: Amount = None
    key_bytes: Amount = None
    sessions: Amount = None
    watches: Amount = None
    waiters: Amount = None
    reason: Reason = ""

    def quota(self) -> permissions.Quota:
        amounts = {what: getattr(self, what) for what in permissions.Quota.__struct_fields__}
        return permissions.Quota(**{what: NO_QUOTA if most is None else most for what, most in amounts.items()})


class ChangedOut(Schema):
    revision: int = Field(description="The log index of the change: it holds for every request behind it.")
    existed: bool = Field(description="Whether there was one before.")


class PermissionOut(Schema):
    prefix: str
    rights: list[str]


class AccessOut(Schema):
    principal: str
    rights: list[str] = Field(description="On all of `prefixes`; permissions and those of the roles come on top.")
    prefixes: list[str] = Field(description="None: everything.")
    act_for: bool = Field(description="Whether it may act for others.")
    permissions: list[PermissionOut]
    roles: list[str]

    @classmethod
    def of(cls, view: AccessView) -> AccessOut:
        held = [PermissionOut(prefix=each.prefix, rights=list(each.rights)) for each in view.permissions]
        return cls(
            principal=view.principal,
            rights=list(view.rights),
            prefixes=list(view.prefixes),
            act_for=view.act_for,
            permissions=held,
            roles=list(view.roles),
        )


class PrincipalOut(Schema):
    name: str
    rights: list[str]
    prefixes: list[str]
    act_for: bool
    tokens: list[str] = Field(description="The ids of its tokens.")

    @classmethod
    def of(cls, view: commands.PrincipalView) -> PrincipalOut:
        return cls(
            name=view.name,
            rights=list(view.rights),
            prefixes=list(view.prefixes),
            act_for=view.act_for,
            tokens=list(view.tokens),
        )


class PrincipalsOut(Schema):
    principals: list[PrincipalOut] = Field(description="By name.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class RoleOut(Schema):
    name: str
    permissions: int = Field(description="How many.")
    members: int = Field(description="How many principals have it.")


class RolesOut(Schema):
    roles: list[RoleOut] = Field(description="By name.")
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class HeldPermissionOut(PermissionOut):
    name: str = Field(description="Of the principal or role, or the id of the token.")


class PermissionsOut(Schema):
    permissions: list[HeldPermissionOut] = Field(
        description="By name and prefix; the next page comes behind the last one's (`after`, `behind`)."
    )


class MembersOut(Schema):
    principals: list[str] = Field(description="By name; the next page comes behind the last one.")


class UsedOut(Schema):
    keys: int
    key_bytes: int
    sessions: int
    waiters: int


class AmountsOut(Schema):
    """null: no quota of that."""

    keys: int | None
    key_bytes: int | None
    sessions: int | None
    watches: int | None
    waiters: int | None

    @classmethod
    def of(cls, quota: permissions.Quota) -> AmountsOut:
        amounts = {what: getattr(quota, what) for what in permissions.Quota.__struct_fields__}
        return cls(**{what: None if most == NO_QUOTA else most for what, most in amounts.items()})


class QuotaOut(Schema):
    principal: str = Field(description="Empty: the cluster; `*`: each principal without a quota of its own.")
    own: AmountsOut | None = Field(description="What was set; null: nothing.")
    quota: AmountsOut = Field(description="What holds.")
    used: UsedOut

    @classmethod
    def of(cls, view: permissions.QuotaView) -> QuotaOut:
        used = view.used
        return cls(
            principal=view.principal,
            own=None if view.own is None else AmountsOut.of(view.own),
            quota=AmountsOut.of(view.quota),
            used=UsedOut(keys=used.keys, key_bytes=used.key_bytes, sessions=used.sessions, waiters=used.waiters),
        )
