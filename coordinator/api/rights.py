"""Who may do what in a cluster, and how much of it, over HTTP: principals, roles, permissions, tokens, quotas.

The cluster decides whether the caller may: all of it takes the right to administer, but for looking at what is one's
own. Every change is in the audit, done or refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Body, Query, Router

from coordinator import audit
from coordinator.api.audited import audited
from coordinator.api.auth import ApiRequest
from coordinator.api.locks import REFUSALS
from coordinator.api.rights_schemas import (
    AccessOut,
    ChangedOut,
    HeldPermissionOut,
    MembersOut,
    PermissionsOut,
    PermitIn,
    PrincipalIn,
    PrincipalOut,
    PrincipalsOut,
    QuotaIn,
    QuotaOut,
    RoleIn,
    RoleOut,
    RolesIn,
    RolesOut,
    TokenIn,
    in_order,
    prefix_named,
)
from coordinator.api.schemas import ClusterName
from coordinator.client.errors import refuse
from coordinator.statemachine import commands, permissions
from coordinator.statemachine.permissions import CLUSTER, Holding

access = Router(tags=["rights"])
principals = Router(tags=["rights"])
roles = Router(tags=["rights"])
held = Router(tags=["rights"])
tokens = Router(tags=["rights"])
quotas = Router(tags=["rights"])

After = Annotated[str, Query(max_length=200, description="From the first after this one.")]
Limit = Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)]
Why = Annotated[str, Query(max_length=audit.REASON_CHARACTERS_MAX, description="Why, for the audit.")]


async def _ask(request: ApiRequest, query: commands.Query) -> Any:
    client, principal = await request.auth.acting()
    return refuse(await client.query(query, act_for=principal))


async def _change(request: ApiRequest, cluster: str, name: str, op: commands.ClientOp, reason: str) -> ChangedOut:
    entry: dict[str, Any] = {
        "actor": request.auth.actor,
        "principal": request.auth.principal,
        "action": audit.ACCESS_CHANGED,
        "target": f"{cluster}/{name}",
        "reason": reason,
        "details": {"change": repr(op)},
    }

    async def change() -> Any:
        client, principal = await request.auth.acting()
        return refuse(await client.command(op, act_for=principal))

    done = await audited(entry, change)
    return ChangedOut(revision=done.index, existed=done.existed)


# --- principals -----------------------------------------------------------------------------------


@access.get("", response={200: AccessOut, **REFUSALS}, summary="See what you may do")
async def look_at_oneself(request: ApiRequest, cluster: ClusterName) -> AccessOut:
    return AccessOut.of(await _ask(request, permissions.GetAccess()))


@principals.get("", response={200: PrincipalsOut, **REFUSALS}, summary="List principals")
async def list_principals(
    request: ApiRequest, cluster: ClusterName, after: After = "", limit: Limit = 100
) -> PrincipalsOut:
    found = (await _ask(request, commands.ListPrincipals(after, limit))).principals
    following = found[-1].name if len(found) >= limit else None
    return PrincipalsOut(principals=[PrincipalOut.of(view) for view in found], next=following)


@principals.get("/{name}", response={200: AccessOut, **REFUSALS}, summary="See what a principal may do")
async def look(request: ApiRequest, cluster: ClusterName, name: str) -> AccessOut:
    return AccessOut.of(await _ask(request, permissions.GetAccess(name)))


@principals.put("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Create a principal, or change its rights")
async def set_principal(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[PrincipalIn, Body()]
) -> ChangedOut:
    """Its permissions and roles stay. Tokens are made by `manage.py token NAME`."""
    op = commands.SetPrincipal(name, in_order(payload.rights), tuple(map(prefix_named, payload.prefixes)))
    return await _change(request, cluster, name, op, payload.reason)


@principals.delete("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Remove a principal")
async def remove_principal(request: ApiRequest, cluster: ClusterName, name: str, reason: Why = "") -> ChangedOut:
    """With its tokens. What it holds is let go as its sessions run out."""
    return await _change(request, cluster, name, commands.RemovePrincipal(name), reason)


@principals.put("/{name}/permissions", response={200: ChangedOut, **REFUSALS}, summary="Permit a principal something")
async def permit(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[PermitIn, Body()]
) -> ChangedOut:
    """On top of its rights. Takes the right to administer the prefix alone."""
    return await _permit(request, cluster, "principal", name, payload)


@principals.put("/{name}/roles", response={200: ChangedOut, **REFUSALS}, summary="Say which roles a principal has")
async def set_roles(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[RolesIn, Body()]
) -> ChangedOut:
    return await _change(request, cluster, name, permissions.SetRoles(name, tuple(payload.roles)), payload.reason)


async def _permit(request: ApiRequest, cluster: str, holder: Any, name: str, payload: PermitIn) -> ChangedOut:
    given = payload.permission()
    op = permissions.SetPermission(holder, name, given.prefix, given.rights)
    return await _change(request, cluster, name, op, payload.reason)


# --- roles, permissions, tokens -------------------------------------------------------------------


@roles.get("", response={200: RolesOut, **REFUSALS}, summary="List roles")
async def list_roles(request: ApiRequest, cluster: ClusterName, after: After = "", limit: Limit = 100) -> RolesOut:
    found = (await _ask(request, permissions.ListRoles(after, limit))).roles
    rows = [RoleOut(name=role.name, permissions=role.permissions, members=role.members) for role in found]
    return RolesOut(roles=rows, next=found[-1].name if len(found) >= limit else None)


@roles.put("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Make a role, or replace all that it may do")
async def set_role(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[RoleIn, Body()]
) -> ChangedOut:
    op = permissions.SetRole(name, tuple(each.permission() for each in payload.permissions))
    return await _change(request, cluster, name, op, payload.reason)


@roles.delete("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Remove a role")
async def remove_role(request: ApiRequest, cluster: ClusterName, name: str, reason: Why = "") -> ChangedOut:
    """From here on nobody has it."""
    return await _change(request, cluster, name, permissions.RemoveRole(name), reason)


@roles.put("/{name}/permissions", response={200: ChangedOut, **REFUSALS}, summary="Permit a role something")
async def permit_role(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[PermitIn, Body()]
) -> ChangedOut:
    return await _permit(request, cluster, "role", name, payload)


@roles.get("/{name}/members", response={200: MembersOut, **REFUSALS}, summary="List who has a role")
async def list_members(
    request: ApiRequest, cluster: ClusterName, name: str, after: After = "", limit: Limit = 100
) -> MembersOut:
    found = await _ask(request, permissions.ListMembers(name, after, limit))
    return MembersOut(principals=list(found.principals))


@held.get("", response={200: PermissionsOut, **REFUSALS}, summary="List permissions")
async def list_permissions(
    request: ApiRequest,
    cluster: ClusterName,
    holder: Annotated[Holding, Query(description="Those of which kind.")],
    after: After = "",
    behind: Annotated[str, Query(max_length=commands.NAME_BYTES_MAX, description="And behind this prefix of it.")] = "",
    limit: Limit = 100,
) -> PermissionsOut:
    found = (await _ask(request, permissions.ListPermissions(holder, after, behind, limit))).permissions
    return PermissionsOut(
        permissions=[HeldPermissionOut(name=each.name, prefix=each.prefix, rights=list(each.rights)) for each in found]
    )


@tokens.put("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Narrow a token, or widen it again")
async def narrow(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[TokenIn, Body()]
) -> ChangedOut:
    """By its id, the third part of it."""
    given = payload.permissions
    allowed = None if given is None else tuple(each.permission() for each in given)
    return await _change(request, cluster, name, permissions.NarrowToken(name, allowed), payload.reason)


@tokens.delete("/{name}", response={200: ChangedOut, **REFUSALS}, summary="Remove a token")
async def remove_token(request: ApiRequest, cluster: ClusterName, name: str, reason: Why = "") -> ChangedOut:
    return await _change(request, cluster, name, commands.RemoveToken(name), reason)


# --- quotas ---------------------------------------------------------------------------------------

Whose = Annotated[
    str, Query(max_length=200, description="A principal; empty: the cluster; `*`: each without one of its own.")
]


@quotas.get("", response={200: QuotaOut, **REFUSALS}, summary="See a quota, and what is used of it")
async def quota(request: ApiRequest, cluster: ClusterName, principal: Whose = CLUSTER) -> QuotaOut:
    return QuotaOut.of(await _ask(request, permissions.GetQuota(principal)))


@quotas.put("", response={200: ChangedOut, **REFUSALS}, summary="Set a quota")
async def set_quota(request: ApiRequest, cluster: ClusterName, payload: Annotated[QuotaIn, Body()]) -> ChangedOut:
    """One below what is in use stops growth, and nothing else."""
    op = permissions.SetQuota(payload.principal, payload.quota())
    return await _change(request, cluster, payload.principal, op, payload.reason)


@quotas.delete("", response={200: ChangedOut, **REFUSALS}, summary="Take a quota away")
async def remove_quota(request: ApiRequest, cluster: ClusterName, principal: Whose, reason: Why = "") -> ChangedOut:
    return await _change(request, cluster, principal, permissions.SetQuota(principal, None), reason)
