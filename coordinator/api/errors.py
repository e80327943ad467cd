"""Every refusal of the API as a status and one shape: {"error": a short code, "detail": a sentence}."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from coordinator import access
from coordinator.client import errors

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 1
"""What `Retry-After` says at least, and where nobody knows better."""


class Refused(errors.ConclaveError):
    """A refusal that is the API's own. `extra` goes into the body beside code and sentence."""

    def __init__(self, status: int, code: str, detail: str, extra: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = dict(extra or {})


_STATUS_OF: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (access.BadToken, 401, "unauthenticated"),
    (errors.SessionGone, 410, "session-gone"),
    (errors.Forbidden, 403, "forbidden"),
    (errors.NotFound, 404, "not-found"),
    (errors.InvalidRequest, 422, "invalid"),
    (errors.Busy, 429, "busy"),
    (errors.OutcomeUnknown, 503, "outcome-unknown"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.RequestCancelled, 409, "cancelled"),
    (errors.Exists, 409, "exists"),
    (errors.WrongKind, 409, "wrong-kind"),
    (errors.NotEmpty, 409, "not-empty"),
    (errors.Changed, 409, "changed"),
    (errors.Aborted, 409, "aborted"),
    (errors.Deadlock, 409, "deadlock"),
    (errors.Broken, 409, "broken"),
    (errors.Refused, 409, "refused"),
    (errors.Compacted, 410, "compacted"),
    (errors.TooMany, 422, "too-many"),
    (errors.ConclaveError, 500, "internal"),
)
"""The first that fits: children stand before their parents."""


def unauthenticated() -> NoReturn:
    raise Refused(401, "unauthenticated", "expected a signed-in session's cookie, or `Authorization: Bearer TOKEN`")


def answer(status: int, code: str, detail: str, extra: Mapping[str, Any] | None = None) -> HttpResponse:
    response = JsonResponse({"error": code, "detail": detail, **(extra or {})}, status=status)
    if status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="conclave"'
    if status in (429, 503):
        retry_ms = (extra or {}).get("retry_after_ms", 0)
        response["Retry-After"] = str(max(RETRY_AFTER_S, math.ceil(retry_ms / 1_000)))
    return response


def install(api: NinjaAPI) -> None:
    """Make `api` answer every exception that it knows in our shape."""
    api.add_exception_handler(Refused, _refused)
    api.add_exception_handler(errors.ConclaveError, _conclave_error)
    api.add_exception_handler(DatabaseError, _no_database)
    api.add_exception_handler(ValidationError, _validation_error)
    api.add_exception_handler(AuthenticationError, _unauthenticated)
    api.add_exception_handler(HttpError, _http_error)
    api.add_exception_handler(Http404, _not_found)


def _refused(request: HttpRequest, error: Any) -> HttpResponse:
    return answer(error.status, error.code, error.detail, error.extra)


def _conclave_error(request: HttpRequest, error: Any) -> HttpResponse:
    status, code = _status_of(error)
    if status == 403:
        caller = getattr(request, "auth", None)
        if caller is not None:
            caller.was_refused()
    return answer(status, code, str(error), _extra(error))


def _no_database(request: HttpRequest, error: Any) -> HttpResponse:
    """Whatever the cluster could do: a person's session, and what is wanted of a membership, are rows."""
    log.warning("a call of the API needs the database: %s", error)
    return answer(503, "unavailable", "the database of this web process cannot be used now")


def _status_of(error: Exception) -> tuple[int, str]:
    return next((status, code) for kind, status, code in _STATUS_OF if isinstance(error, kind))


def _extra(error: errors.ConclaveError) -> dict[str, Any]:
    """What a program can go by, beside the code."""
    match error:
        case errors.Busy(retry_after=float(seconds)):
            return {"retry_after_ms": math.ceil(seconds * 1_000)}
        case errors.Changed():
            return {"revision": error.revision, "version": error.version, "instance": error.instance}
        case errors.Compacted():
            return {"oldest": error.oldest}
        case errors.Aborted():
            return {"place": list(error.place), "cause": _status_of(error.cause)[1], **_extra(error.cause)}
        case errors.Deadlock():
            return {"cycle": [{"session": f"s{session}", "name": name} for session, name in error.cycle]}
        case errors.Broken():
            return {"by": error.by, "reason": error.reason}
    return {}


def _validation_error(request: HttpRequest, error: Any) -> HttpResponse:
    problems = [_problem(each) for each in error.errors]
    return answer(422, "invalid", "; ".join(problems))


def _problem(error: Mapping[str, Any]) -> str:
    """One field's problem in words: where, what was expected, what came (shortened)."""
    where = ".".join(str(part) for part in error["loc"] if part not in ("body", "payload", "query", "path"))
    message = str(error["msg"]).removeprefix("Value error, ")
    came = repr(error["input"]) if "input" in error and not isinstance(error["input"], dict) else ""
    sentence = f"{where or 'the body'}: {message[:1].lower()}{message[1:]}"
    return f"{sentence}; came {came[:80]}" if came else sentence


def _unauthenticated(request: HttpRequest, error: Any) -> HttpResponse:
    return answer(401, "unauthenticated", "expected a signed-in session's cookie, or `Authorization: Bearer TOKEN`")


def _http_error(request: HttpRequest, error: Any) -> HttpResponse:
    code = {400: "bad-json", 403: "forbidden"}.get(error.status_code, "refused")
    detail = "the body is not valid JSON" if error.status_code == 400 else str(error)
    return answer(error.status_code, code, detail)


def _not_found(request: HttpRequest, error: Any) -> HttpResponse:
    return answer(404, "not-found", "there is nothing at this address")
