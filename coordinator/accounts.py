"""Signing in and out. Conclave's users are Django's; what each may do in a cluster follows from its permissions."""

from __future__ import annotations

import asyncio
import logging
import threading
from http import HTTPStatus
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView, redirect_to_login
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from coordinator import audit
from coordinator.database import asking

FORGET_SIGN_INS_S: Final = 6 * 3_600.0
"""Between two times that the rows of sign-ins that have run out are deleted."""

SIGN_INS_MAX: Final = 16
"""Of sign-ins under way; the next one is to come again. One password is checked at a time: that takes a processor for a
good part of a second, for a stranger too, and whoever is signed in, or has a token, renews leases meanwhile."""
COME_AGAIN_S: Final = 3

ADMIN: Final = "/admin/"

log = logging.getLogger(__name__)

_under_way = threading.BoundedSemaphore(SIGN_INS_MAX)
_checking = threading.Lock()


class SignIn(LoginView):
    template_name = "conclave/login.html"
    form_class = AuthenticationForm

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not _under_way.acquire(blocking=False):
            return self._busy(request.POST.get("username", ""))
        try:
            with _checking:
                return super().post(request, *args, **kwargs)
        finally:
            _under_way.release()

    def _busy(self, username: str) -> HttpResponse:
        """No password is looked at: the form comes back as it was, but for that."""
        form = self.form_class(self.request, initial={"username": username})
        context = self.get_context_data(form=form) | {"is_busy": True}
        response = self.render_to_response(context, status=HTTPStatus.SERVICE_UNAVAILABLE)
        response.headers["Retry-After"] = str(COME_AGAIN_S)
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        user = self.request.user
        # Somebody who is signed in already was sent here by the admin, which refused them, or came back by themselves.
        context["signed_in_as"] = user.get_username() if user.is_authenticated else ""
        context["is_refused"] = self._leads_to_the_admin() and not admin.site.has_permission(self.request)
        context["onward"] = self.get_success_url()
        return context

    def _leads_to_the_admin(self) -> bool:
        return self.get_redirect_url().startswith(ADMIN)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        audit.record(actor=form.get_user().get_username(), action=audit.SIGNED_IN)
        return response


@method_decorator(login_not_required, name="dispatch")
class SignOut(LogoutView):
    """Takes POST alone, so that no foreign page can sign anybody out."""


@login_not_required
@require_safe
def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """The admin's own sign-in page is ours: one form, one look, one place to guard."""
    return redirect_to_login(request.GET.get(REDIRECT_FIELD_NAME, ADMIN))


# --- sign-ins that have run out -------------------------------------------------------------------


def _delete_expired() -> None:
    SessionStore.clear_expired()


async def forget_expired_sign_ins() -> None:
    """Delete the rows of sign-ins that have run out, for ever: of each that nobody signs out of, Django keeps one."""
    while True:
        try:
            await asking(_delete_expired, thread_sensitive=False)()
        except Exception as error:  # noqa: BLE001 - whatever it is, it may pass
            log.warning("sign-ins that have run out stay until the next time: %s", error)
        await asyncio.sleep(FORGET_SIGN_INS_S)
