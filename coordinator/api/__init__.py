"""The HTTP API: `/api/v1/`, and its documents at `/api/docs`. One module for each kind of thing; what all share is in
`auth`, `errors` and `schemas`."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.urls import register_converter
from django.urls.converters import StringConverter
from ninja import NinjaAPI, Router
from ninja.errors import ValidationError, ValidationErrorContext
from ninja.openapi.docs import Swagger
from ninja.parser import Parser

from coordinator.api import errors, faults, files, holds, keys, locks, membership, ranges, rights, sessions, status
from coordinator.api.auth import BearerToken, SignedIn
from coordinator.api.schemas import name_in_path

MISTAKES_NAMED_MAX: Final = 1_000
"""In one request; of more it is said how many there are."""

_DESCRIPTION = """\
Locks, sessions, keys and files of Conclave's clusters. Every grant and every value is decided by a quorum.

* **Credentials**: `Authorization: Bearer …` with a token of `manage.py token NAME`, or the cookie of a signed-in
  session (with `X-CSRFToken` where something changes).
* **Refusals** carry `{"error": code, "detail": sentence}`. 503 says that no leader answered; `outcome-unknown` among
  them that a change may have been applied all the same. 410 says that the session is gone, and everything that it held
  with it.
* **Names** of locks, keys and files may hold slashes; percent-encode them in addresses.
"""


class _Api(NinjaAPI):
    def validation_error_from_error_contexts(self, error_contexts: list[ValidationErrorContext]) -> ValidationError:
        """A body has room for hundreds of thousands of mistakes: to word them would hold up everybody for seconds."""
        mistakes = sum(context.pydantic_validation_error.error_count() for context in error_contexts)
        if mistakes > MISTAKES_NAMED_MAX:
            return ValidationError([{"loc": (), "msg": f"{mistakes} mistakes are too many to be named"}])
        return super().validation_error_from_error_contexts(error_contexts)


class _Parser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        """Raises JSONDecodeError for what is no JSON, or nests too deep to be any of ours."""
        try:
            return json.loads(request.body)
        except RecursionError:
            raise JSONDecodeError("nested too deep", "", 0) from None


_docs = Swagger(settings={"docExpansion": "list", "validatorUrl": None, "persistAuthorization": False})

api = _Api(
    title="Conclave",
    version="1",
    description=_DESCRIPTION,
    urls_namespace="api-1",
    docs=_docs,
    docs_url=None,
    openapi_url=None,
    auth=[BearerToken(), SignedIn()],
    parser=_Parser(),
)
errors.install(api)
api.add_router("/clusters/{cluster}", status.router)
api.add_router("/clusters/{cluster}/locks", locks.router)
api.add_router("/clusters/{cluster}/sessions", sessions.router)
api.add_router("/clusters/{cluster}/keys", keys.router)
api.add_router("/clusters/{cluster}/counters", ranges.counters)
api.add_router("/clusters/{cluster}/files", files.router)
api.add_router("/clusters/{cluster}/directories", files.directories)
api.add_router("/clusters/{cluster}/stats", files.stats)
api.add_router("/clusters/{cluster}/attachments", files.attachments)
api.add_router("/clusters/{cluster}/compactions", files.compactions)
api.add_router("/clusters/{cluster}/ranges", ranges.ranges)
api.add_router("/clusters/{cluster}/changes", ranges.changes)
api.add_router("/clusters/{cluster}/lock-events", ranges.lock_events)
api.add_router("/clusters/{cluster}/transactions", ranges.transactions)
api.add_router("/clusters/{cluster}/holds", holds.router)
api.add_router("/clusters/{cluster}/forced-releases", holds.forced)
api.add_router("/clusters/{cluster}/sequencers", holds.sequencers)
api.add_router("/clusters/{cluster}/elections", holds.elections)
api.add_router("/clusters/{cluster}/access", rights.access)
api.add_router("/clusters/{cluster}/principals", rights.principals)
api.add_router("/clusters/{cluster}/roles", rights.roles)
api.add_router("/clusters/{cluster}/permissions", rights.held)
api.add_router("/clusters/{cluster}/tokens", rights.tokens)
api.add_router("/clusters/{cluster}/quotas", rights.quotas)
api.add_router("/clusters/{cluster}/nodes", faults.router)
api.add_router("/clusters/{cluster}/membership", membership.router)


@api.get("/openapi.json", include_in_schema=False, url_name="openapi-json")
async def openapi(request: HttpRequest) -> HttpResponse:
    return HttpResponse(json.dumps(api.get_openapi_schema(), indent=1), content_type="application/json")


class _AnyText(StringConverter):
    """Slashes and line feeds too, at which Django's `path` ends."""

    regex = r"[\s\S]+"


register_converter(_AnyText, "any")
_rest = Router()
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@_rest.api_operation(_METHODS, "/{any:rest}", include_in_schema=False)
async def no_such_route(request: HttpRequest, rest: str) -> HttpResponse:
    """Behind the same credentials as what is there: a stranger learns nothing from a guess. What a line feed kept from
    its route is refused as other names that are none."""
    if "\n" in rest:
        name_in_path(rest)
    return errors.answer(404, "not-found", "there is nothing at this address; /api/docs lists what there is")


@_rest.api_operation(_METHODS, "/", include_in_schema=False)
async def no_route(request: HttpRequest) -> HttpResponse:
    return await no_such_route(request, "")


api.add_router("", _rest)


def docs(request: HttpRequest) -> HttpResponse:
    """The documents, for whoever is signed in."""
    return _docs.render_page(request, api)
