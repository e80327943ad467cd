"""The pages themselves: thin, each behind a login (the middleware sees to it) and a right.

The live page is an empty frame that its socket fills; nothing here asks a node.
"""

from __future__ import annotations

from typing import Any, Final

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from coordinator import record
from coordinator.models import AuditEntry
from dashboard import rights

DEFAULT_CLUSTER: Final = "default"
AUDIT_PAGE: Final = 50


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The live page of the default cluster is the first page."""
    return redirect("conclave_dashboard:live", DEFAULT_CLUSTER)


@require_safe
def live(request: HttpRequest, cluster: str) -> HttpResponse:
    """One cluster as it lives."""
    if not request.user.has_perm(rights.READ):
        return forbidden(request, "Can read keys and locks of clusters")
    names = known_clusters()
    if cluster not in names:
        raise Http404
    context = frame(request, "live", names) | {
        "cluster": cluster,
        "api_base": f"/api/v1/clusters/{cluster}",
        "socket_path": f"/ws/live/{cluster}/",
        "login_url": f"{reverse('login')}?next={request.path}",
        "may_lock": request.user.has_perm(rights.LOCK),
        "may_administer": request.user.has_perm(rights.ADMINISTER),
    }
    return render(request, "conclave/live.html", context)


@require_safe
def audit(request: HttpRequest) -> HttpResponse:
    """Who did what through the web tier, newest first."""
    if not rights.may_see_audit(request.user):
        return forbidden(request, "Can view audit entry")
    page = Paginator(AuditEntry.objects.all(), AUDIT_PAGE).get_page(request.GET.get("page"))
    context = frame(request, "audit", known_clusters()) | {
        "entries": page.object_list,
        "newer": page.previous_page_number() if page.has_previous() else None,
        "older": page.next_page_number() if page.has_next() else None,
    }
    return render(request, "conclave/audit.html", context)


def known_clusters() -> list[str]:
    """Names of the clusters that the record knows, the default one among them even before its first report."""
    return sorted({DEFAULT_CLUSTER, *record.cluster_names()})


def frame(request: HttpRequest, page: str, clusters: list[str]) -> dict[str, Any]:
    """What the sidebar needs; it lists what exists in this project."""
    return {
        "page": page,
        "clusters": clusters,
        "standing": rights.standing(request.user),
        "may_see_audit": rights.may_see_audit(request.user),
        "may_see_access": request.user.has_perm(rights.ADMINISTER),
        "admin_url": _address("admin:index"),
        "api_url": _address("api-docs"),
    }


def _address(name: str) -> str:
    """Where `name` is, "" where this project has no such page."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


def forbidden(request: HttpRequest, needed: str) -> HttpResponse:
    return render(request, "conclave/403.html", {"needed": needed}, status=403)
