"""The page on which administrators say who may do what in a cluster, and how much of it: permissions, roles, narrowed
tokens and quotas. It asks the cluster as the person who looks, and the log decides each change (rule 9)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from coordinator import access, audit, permitting
from coordinator.client import errors
from coordinator.statemachine import commands
from coordinator.statemachine.permissions import (
    CLUSTER,
    EACH,
    GetAccess,
    GetQuota,
    ListPermissions,
    ListRoles,
    QuotaView,
)
from dashboard import rights
from dashboard.views import forbidden, frame, known_clusters

ROWS: Final = 25
"""Principals of a page."""
SHOWN_MAX: Final = 1_000
"""Permissions of roles and of tokens that are shown."""
TIMEOUT_S: Final = 2.0


class Row(NamedTuple):
    """A principal as the page shows it."""

    name: str
    permissions: list[str]
    roles: tuple[str, ...]
    tokens: list[tuple[str, list[str] | None]]
    """Each with what it is narrowed to, if it is."""
    quota: list[str]


class Shown(NamedTuple):
    rows: list[Row]
    following: str
    """The principal behind which the next page begins; "": this is the last."""
    roles: list[tuple[str, int, list[str]]]
    quotas: list[tuple[str, list[str]]]


@require_http_methods(["GET", "HEAD", "POST"])
def access_page(request: HttpRequest, cluster: str) -> HttpResponse:
    if not request.user.has_perm(rights.ADMINISTER):
        return forbidden(request, "Can administer clusters")
    names = known_clusters()
    if cluster not in names:
        raise Http404
    problem, status, shown = "", 200, None
    refused: dict[str, dict[str, str]] = {}
    if request.method == "POST":
        fields = {name: str(value) for name, value in request.POST.items()}
        try:
            done = _change(request, cluster, fields)
        except (errors.ConclaveError, ValueError) as error:
            is_known = not isinstance(error, (errors.Unavailable, errors.OutcomeUnknown))
            problem, status = str(error), 409 if is_known else 503
            refused[fields.get("form", "")] = fields
        else:
            # The page that is shown then is asked for by itself: loaded again, or come back to, it changes nothing.
            messages.success(request, done)
            return redirect(request.get_full_path())
    try:
        shown = async_to_sync(_look)(request.user.pk, cluster, request.GET.get("after", ""))
    except (errors.ConclaveError, ValueError) as error:
        problem, status = problem or str(error), status if problem else 503
    kept = refused.get("quota", {})
    context = frame(request, "access", names) | {
        "cluster": cluster,
        "shown": shown,
        "said": [str(done) for done in messages.get_messages(request)],
        "problem": problem,
        "refused": refused,
        "amounts": [(what, _words(what), kept.get(what, "")) for what in permitting.AMOUNTS],
        "rights_known": commands.RIGHTS,
    }
    return render(request, "conclave/access.html", context, status=status)


# --- changing -------------------------------------------------------------------------------------


def _change(request: HttpRequest, cluster: str, fields: dict[str, str]) -> str:
    """Do what the form says; what was done, in words. Raises ValueError, ConclaveError."""
    change = permitting.change_of(fields.get("kind", ""), fields)
    entry: dict[str, Any] = {
        "actor": request.user.get_username(),
        "principal": f"user:{request.user.get_username()}",
        "action": audit.ACCESS_CHANGED,
        "target": f"{cluster}/{fields.get('name', '')}",
        "reason": fields.get("reason", ""),
        "details": {"change": repr(change)},
    }
    try:
        async_to_sync(_command)(request.user.pk, cluster, change)
    except errors.ConclaveError as error:
        entry["details"] |= {"error": str(error)}
        audit.keep(**entry, outcome=audit.outcome_of(error))
        raise
    audit.keep(**entry)
    return f"Done: {fields['kind']} {fields.get('name', '')}"


async def _command(user_id: Any, cluster: str, change: permitting.Change) -> None:
    principal = await access.act_as_user(user_id, cluster)
    await access.client(cluster).command(change, act_for=principal, timeout=TIMEOUT_S)


# --- looking --------------------------------------------------------------------------------------


async def _look(user_id: Any, cluster: str, after: str) -> Shown:
    principal = await access.act_as_user(user_id, cluster)
    client = access.client(cluster)

    async def ask(query: commands.Query) -> Any:
        return await client.query(query, act_for=principal, timeout=TIMEOUT_S)

    tokens = _by_name((await ask(ListPermissions("token", limit=SHOWN_MAX))).permissions)
    of_roles = _by_name((await ask(ListPermissions("role", limit=SHOWN_MAX))).permissions)
    roles = (await ask(ListRoles(limit=SHOWN_MAX))).roles
    views = (await ask(commands.ListPrincipals(after, ROWS + 1))).principals
    rows = []
    for view in views[:ROWS]:
        held, quota = await ask(GetAccess(view.name)), await ask(GetQuota(view.name))
        narrow = [(token, tokens.get(token)) for token in view.tokens]
        rows.append(Row(view.name, permitting.all_of(held), held.roles, narrow, _amounts(quota)))
    of_all, of_each = await ask(GetQuota(CLUSTER)), await ask(GetQuota(EACH))
    quotas = [
        ("The cluster has", _amounts(of_all) or ["nothing that is counted"]),
        ("A principal without a quota of its own may have", _amounts(of_each) or ["any amount"]),
    ]
    return Shown(
        rows,
        views[ROWS - 1].name if len(views) > ROWS else "",
        [(role.name, role.members, of_roles.get(role.name, [])) for role in roles],
        quotas,
    )


def _by_name(held: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in held:
        found.setdefault(one.name, []).append(permitting.spelled(one))
    return found


def _amounts(view: QuotaView) -> list[str]:
    """What there is of each, and how much there may be, where a quota holds."""
    said = []
    for what in permitting.AMOUNTS:
        most, used = getattr(view.quota, what), getattr(view.used, what, None) if view.principal != EACH else None
        words = _words(what)
        if most >= 0:
            said.append(f"{words} {used} of {most}" if used is not None else f"{words} up to {most}")
        elif used:
            said.append(f"{words} {used}")
    return said


def _words(what: str) -> str:
    return what.replace("_", " ")
