"""Django's own middleware without its detours: under ASGI each hook of it runs in a thread, only to read headers.

A call of the API went through seventeen such hops, which took four fifths of its time. Here a hook runs on the event
loop itself where it does no I/O, and in a thread only where it may: when there is a session or a message to store.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf, security

from coordinator.middleware import unknown_host


class _OnTheLoop:
    """Before a class of Django's middleware among the bases."""

    get_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        middleware: Any = self
        response = middleware.process_request(request) if hasattr(middleware, "process_request") else None
        if response is None:
            response = await self.get_response(request)
        if not hasattr(middleware, "process_response"):
            return response
        if self.stores_something(request):
            return await sync_to_async(middleware.process_response)(request, response)
        return middleware.process_response(request, response)

    def stores_something(self, request: HttpRequest) -> bool:
        """Whether finishing the response may do I/O."""
        return False


class SecurityMiddleware(_OnTheLoop, security.SecurityMiddleware):
    pass


class CommonMiddleware(_OnTheLoop, common.CommonMiddleware):
    """Says which setting a name that is none of ours is missing from. Django itself says that the request is bad, and
    leaves a traceback that names another setting."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override]
        try:
            answer: HttpResponseBase | None = super().process_request(request)
        except DisallowedHost:
            return unknown_host(request)
        return answer


class AuthenticationMiddleware(_OnTheLoop, auth.AuthenticationMiddleware):
    """Only promises a user: whoever asks for it, asks the database."""


class XFrameOptionsMiddleware(_OnTheLoop, clickjacking.XFrameOptionsMiddleware):
    pass


class CsrfViewMiddleware(_OnTheLoop, csrf.CsrfViewMiddleware):
    """Its secret is in a cookie, not in the session: nothing is read."""

    async def process_view(self, request: HttpRequest, callback: Any, args: Any, kwargs: Any) -> Any:  # type: ignore[override]
        return super().process_view(request, callback, args, kwargs)


class SessionMiddleware(_OnTheLoop, sessions.SessionMiddleware):
    def stores_something(self, request: HttpRequest) -> bool:
        return bool(request.session.modified)


class MessageMiddleware(_OnTheLoop, messages.MessageMiddleware):
    def stores_something(self, request: HttpRequest) -> bool:
        storage: Any = getattr(request, "_messages", None)
        return storage is not None and bool(storage.used or storage.added_new)
