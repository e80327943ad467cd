"""What holds for every response: the Content-Security-Policy, secure cookies, that it is not kept, and errors of the
API as JSON; and what holds for every request: it is behind a login unless its view says otherwise.

All of it is async-capable from end to end (see MIDDLEWARE in the settings).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from coordinator import database_errors

log = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], Any]

API_PREFIX: Final = "/api/v1/"
DOCS_PREFIX: Final = "/api/docs"
ADMIN_PREFIX: Final = "/admin/"
RETRY_AFTER_S: Final = 5
"""What a page says that the database keeps from being shown."""
HOST_CHARACTERS_MAX: Final = 255
"""Of a name that a stranger sent, as far as it is repeated."""


def _policy(**directives: str) -> str:
    everything = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "manifest-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    } | {name.replace("_", "-"): sources for name, sources in directives.items()}
    return "; ".join(f"{name} {sources}" for name, sources in everything.items())


OWN_POLICY: Final = _policy()
ADMIN_POLICY: Final = _policy(script_src="'self' 'unsafe-eval'", style_src="'self' 'unsafe-inline'")
"""Unfold's Alpine compiles expressions from attributes, and writes its theme into a style element."""
DOCS_POLICY: Final = _policy(style_src="'self' 'unsafe-inline'")
"""Swagger UI sets style attributes."""
DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For what is no page: JSON, and the bytes of keys, which anybody with the right may have written."""


def policy_for(path: str) -> str:
    """The Content-Security-Policy of whatever answers at `path`."""
    if path.startswith(API_PREFIX):
        return DATA_POLICY
    if path.startswith(ADMIN_PREFIX):
        return ADMIN_POLICY
    if path.startswith(DOCS_PREFIX):
        return DOCS_POLICY
    return OWN_POLICY


def _sync_or_async(finish: Callable[[HttpRequest, HttpResponseBase], HttpResponseBase]) -> Callable[[GetResponse], Any]:
    """A middleware that only looks at the finished response; `finish` does no I/O."""

    @sync_and_async_middleware
    def middleware(get_response: GetResponse) -> Any:
        if iscoroutinefunction(get_response):

            async def on_loop(request: HttpRequest) -> HttpResponseBase:
                answer: Awaitable[HttpResponseBase] = get_response(request)
                return finish(request, await answer)

            return on_loop

        def in_thread(request: HttpRequest) -> HttpResponseBase:
            return finish(request, get_response(request))

        return in_thread

    return middleware


def _finish_policy(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("Content-Security-Policy", policy_for(request.path_info))
    # What is for whoever is signed in is not kept for the next person at the same browser. Static files say otherwise.
    response.headers.setdefault("Cache-Control", "no-store")
    if request.is_secure():
        for cookie in response.cookies.values():
            cookie["secure"] = True
    return response


def _finish_api_error(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Errors that never reached the API's own code (no such route, wrong method, bad host, a bug) get its shape too."""
    if (
        response.status_code < HTTPStatus.BAD_REQUEST
        or not request.path_info.startswith(API_PREFIX)
        or response.headers.get("Content-Type", "").startswith("application/json")
    ):
        return response
    status = HTTPStatus(response.status_code)
    body = {
        "error": status.phrase.lower().replace(" ", "-"),
        "detail": f"{status.phrase}: {status.description}".rstrip(": "),
    }
    replacement = JsonResponse(body, status=status)
    for name in ("Allow", "Retry-After", "WWW-Authenticate"):
        if name in response.headers:
            replacement[name] = response.headers[name]
    return replacement


content_security_policy = _sync_or_async(_finish_policy)
api_errors_are_json = _sync_or_async(_finish_api_error)


class NoteRoute(MiddlewareMixin):
    """Leaves the pattern of the route that was found in the scope, for whoever measures (`web_metrics.Measured`)."""

    async def process_view(self, request: HttpRequest, view_func: Any, view_args: Any, view_kwargs: Any) -> None:
        scope = getattr(request, "scope", None)
        if scope is not None and request.resolver_match is not None:
            scope["conclave.route"] = request.resolver_match.route


def unknown_host(request: HttpRequest) -> HttpResponse:
    """Who asks by a name that is none of ours is told which setting says the names."""
    host = str(request.META.get("HTTP_HOST", ""))[:HOST_CHARACTERS_MAX]
    log.warning("a request for host %r is refused: CONCLAVE_HOSTS names those that are served", host)
    if request.path_info.startswith(API_PREFIX):
        detail = f"{host!r} is no name of this server; CONCLAVE_HOSTS says by which it is reached"
        return JsonResponse({"error": "bad-request", "detail": detail}, status=HTTPStatus.BAD_REQUEST)
    return HttpResponse(render_to_string("conclave/400_host.html", {"host": host}), status=HTTPStatus.BAD_REQUEST)


def _page_without_database(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """What a person reads while the database is away, damaged or without tables; None where the error is another one.
    It is no mistake of this process: a line of the log is enough for it."""
    if not database_errors.is_of_the_database(error):
        return None
    log.warning("%s: %s", request.path, database_errors.in_words(error))
    page = HttpResponse(render_to_string("conclave/503.html"), status=HTTPStatus.SERVICE_UNAVAILABLE)
    page.headers["Retry-After"] = str(RETRY_AFTER_S)
    return page


class WithoutDatabase(MiddlewareMixin):
    """Says so, where a page needs the database and that cannot be used. The API has words of its own for it."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return _page_without_database(request, error)


class LoginRequired(LoginRequiredMiddleware):
    """Every view is behind a login unless it says otherwise. The API has credentials of its own: session or token."""

    async def process_view(  # type: ignore[override]
        self, request: HttpRequest, view_func: Any, view_args: Any, view_kwargs: Any
    ) -> Any:
        # Asked before the user is: who may come without a login must be answered without the database too.
        if request.path_info.startswith(API_PREFIX) or not getattr(view_func, "login_required", True):
            return None
        try:
            if (await request.auser()).is_authenticated:
                return None
        except (DatabaseError, InterfaceError) as error:
            if page := _page_without_database(request, error):
                return page
            raise
        return self.handle_no_permission(request, view_func)
