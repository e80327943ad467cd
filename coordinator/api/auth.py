"""Who calls: a person with a session cookie (and the CSRF token, where something changes), or a bearer token.

A call that brings an Authorization header is judged by that header alone: a bad token is never made good by a cookie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, QueryDict
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from coordinator import access
from coordinator.api.errors import Refused, unauthenticated
from coordinator.client import AsyncClient

_NO_FORM: Final = QueryDict()
"""Instead of the form that a body may be: the API takes none, and looks for the CSRF token in the header alone. Django
would look there first, and take what it fails to read as a form for a fault of its own."""


@dataclass(frozen=True)
class Caller:
    """Who asks, in which cluster. `user_id` is None for a token; `act_for` is how the cluster is told of it then."""

    cluster: str
    actor: str
    principal: str
    user_id: Any = None
    act_for: str = ""

    async def acting(self) -> tuple[AsyncClient, str]:
        """The client to ask with, and whom to act for, whose rights are then up to date in the log.

        Raises UnknownCluster, Forbidden, Unavailable, OutcomeUnknown.
        """
        cluster = await access.known_cluster(self.cluster)
        if self.user_id is None:
            return access.client(cluster), self.act_for or self.principal
        return access.client(cluster), await access.act_as_user(self.user_id, cluster)

    def was_refused(self) -> None:
        """The cluster refused it something: look at its rights again before the next call."""
        access.forget_user(self.principal, self.cluster)


class ApiRequest(HttpRequest):
    """What a view of the API is handed: a request whose caller is known."""

    auth: Caller


def _cluster(request: HttpRequest) -> str:
    match = request.resolver_match
    return str(match.kwargs.get("cluster", access.DEFAULT_CLUSTER)) if match else access.DEFAULT_CLUSTER


def bearer_text(request: HttpRequest) -> str | None:
    """The token of an Authorization header; None where there is no such header. Raises Refused for another scheme."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        unauthenticated()
    return text.strip()


class BearerToken(HttpBearer):
    """A token that `manage.py token NAME` printed, in the header `Authorization: Bearer …`."""

    def __init__(self, *, may_be_old: bool = False) -> None:
        """`may_be_old`: for what must be told while no leader answers."""
        super().__init__()
        self._principal = access.reader_of_token if may_be_old else access.principal_of_token

    async def __call__(self, request: HttpRequest) -> Caller | None:
        text = bearer_text(request)
        return None if text is None else await self.authenticate(request, text)

    async def authenticate(self, request: HttpRequest, token: str) -> Caller:
        cluster = await access.known_cluster(_cluster(request))
        principal = await self._principal(token, cluster)
        return Caller(cluster, f"token of {principal}", principal, act_for=access.act_for_token(token, cluster))


class SignedIn(APIKeyCookie):
    """The cookie of a person who signed in on the page; with the CSRF token in `X-CSRFToken` for what is no GET."""

    param_name = settings.SESSION_COOKIE_NAME

    async def __call__(self, request: HttpRequest) -> Caller | None:
        return await self.authenticate(request, request.COOKIES.get(self.param_name))

    async def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        if not key:
            return None
        user = await request.auser()
        if not user.is_authenticated:
            return None
        request.POST = _NO_FORM
        if check_csrf(request):
            raise Refused(403, "csrf-failed", "expected the CSRF token of this session in the header X-CSRFToken")
        name = user.get_username()
        return Caller(_cluster(request), name, f"user:{name}", user.pk)
