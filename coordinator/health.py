"""Health, for machines: this process lives; it can serve pages; a cluster has a leader that a majority confirms now.

None of them needs a login. Without one a reason names no node, no address and no file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections import Counter
from http import HTTPStatus
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.contrib.staticfiles.storage import staticfiles_storage
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse, JsonResponse

from coordinator import access, database_errors, record
from coordinator.api.auth import bearer_text
from coordinator.api.errors import Refused
from coordinator.api.status import reports_of, summarize
from coordinator.client import errors
from coordinator.seldom import Seldom
from coordinator.wire import ReplicaReport

log = logging.getLogger(__name__)

PAGES_TIMEOUT_S: Final = 1.5
CONFIRM_TIMEOUT_S: Final = 1.0
LOGIN_TIMEOUT_S: Final = 1.0
"""How long a credential may take to check, before the caller counts as a stranger."""

READ_ONLY: Final = (
    "the database takes no writes: nobody can sign in or out, and what is done is in the log of this process, "
    "not in the audit"
)

_PATH: Final = re.compile(r"(?<![\w/])/[^\s:;,()]+")
_ADDRESS: Final = re.compile(r"\b\w+://\S+|\b[\w.-]+:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b")


def _answer(code: HTTPStatus, **body: Any) -> JsonResponse:
    response = JsonResponse(body, status=code)
    response["Cache-Control"] = "no-store"
    if code == HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = "1"
    return response


def _safe_only(request: HttpRequest) -> HttpResponse | None:
    if request.method in ("GET", "HEAD"):
        return None
    response = _answer(HTTPStatus.METHOD_NOT_ALLOWED, error="method-not-allowed", detail="expected GET or HEAD")
    response["Allow"] = "GET, HEAD"
    return response


# --- this process ---------------------------------------------------------------------------------


@login_not_required
async def healthz(request: HttpRequest) -> HttpResponse:
    return _safe_only(request) or _answer(HTTPStatus.OK, status="alive")


class _Seen:
    """What needs no second look at the program's own files, which takes long."""

    migrations: frozenset[tuple[str, str]] = frozenset()
    """All that the tables need; empty before they were first seen to have it."""


_unasked: Final = Seldom()


def _look_at_pages() -> tuple[str | None, bool]:
    """Why this process could not serve pages (None: it could), and whether the database takes writes. Blocks."""
    problem, takes_writes = _problem_with_pages(), True
    if problem is None:
        with contextlib.suppress(DatabaseError):
            takes_writes = _takes_writes(connections[DEFAULT_DB_ALIAS])
    return problem, takes_writes


def _problem_with_pages() -> str | None:
    connection = connections[DEFAULT_DB_ALIAS]
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not _is_migrated(connection):
            return "the database lacks migrations"
    except DatabaseError as error:
        if _unasked.is_due(str(error)):  # Machines ask each second.
            log.warning("%s", database_errors.in_words(error))
        return "the database does not answer"
    _unasked.over()
    if not getattr(staticfiles_storage, "hashed_files", True):
        return "the static files were not collected"
    return None


def _takes_writes(connection: BaseDatabaseWrapper) -> bool:
    """Whether a change would be taken: not by a standby, nor on a disk that is mounted to be read."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_read_only")
            return bool(cursor.fetchone()[0] == "off")
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():  # type: ignore[attr-defined]
        return os.access(connection.settings_dict["NAME"], os.W_OK)
    return True


def _is_migrated(connection: BaseDatabaseWrapper) -> bool:
    """Looked at each time: a database may be deleted, or put back from an older copy, while this process runs."""
    if _Seen.migrations:
        return _Seen.migrations <= MigrationRecorder(connection).applied_migrations().keys()
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return False
    _Seen.migrations = frozenset(executor.loader.applied_migrations)
    return True


@login_not_required
async def readyz(request: HttpRequest) -> HttpResponse:
    if refused := _safe_only(request):
        return refused
    try:
        problem, takes_writes = await asyncio.wait_for(sync_to_async(_look_at_pages)(), PAGES_TIMEOUT_S)
    except TimeoutError:
        problem, takes_writes = "the database does not answer in time", True
    if problem:
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, error="not-ready", detail=problem)
    if not takes_writes:  # Pages are served all the same, to whoever is signed in.
        return _answer(HTTPStatus.OK, status="ready", detail=READ_ONLY)
    return _answer(HTTPStatus.OK, status="ready")


# --- a cluster ------------------------------------------------------------------------------------


@login_not_required
async def readyz_cluster(request: HttpRequest, cluster: str) -> HttpResponse:
    if refused := _safe_only(request):
        return refused
    try:
        if not await _exists(cluster):
            return _answer(HTTPStatus.NOT_FOUND, error="not-found", detail="there is no such cluster")
        confirmed, reports, may_know = await asyncio.gather(
            _confirm(cluster), reports_of(cluster), _may_know_names(request, cluster)
        )
    except errors.Unavailable:
        confirmed, reports, may_know = errors.Unavailable("no worker answers"), {}, False
    if isinstance(confirmed, errors.ConclaveError):
        detail = why_not_ready(reports)
        body: dict[str, Any] = {"error": "no-leader", "detail": detail}
        if may_know:
            body |= {"reason": str(confirmed), "nodes": _by_node(cluster, reports)}
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, **body)
    body = {"status": "ready", "term": confirmed[1], "detail": summary(reports)}
    if may_know:
        body |= {"leader": confirmed[0], "nodes": _by_node(cluster, reports)}
    return _answer(HTTPStatus.OK, **body)


async def _exists(cluster: str) -> bool:
    try:
        return bool(await access.known_cluster(cluster))
    except access.UnknownCluster:
        return False
    except errors.Unavailable:
        # Nobody can be asked. Where the record has heard of it, it is not ready; where it has not, it is not there.
        try:
            return await sync_to_async(record.is_recorded)(cluster)
        except DatabaseError:
            return True


async def _confirm(cluster: str) -> tuple[str, int] | errors.ConclaveError:
    try:
        return await access.client(cluster).confirm(timeout=CONFIRM_TIMEOUT_S)
    except errors.ConclaveError as error:
        return error


async def _may_know_names(request: HttpRequest, cluster: str) -> bool:
    try:
        async with asyncio.timeout(LOGIN_TIMEOUT_S):
            text = bearer_text(request)
            if text is not None:
                return bool(await access.reader_of_token(text, cluster))
            return (await request.auser()).is_authenticated
    except (TimeoutError, Refused, errors.ConclaveError, DatabaseError):
        return False


def _by_node(cluster: str, reports: dict[str, ReplicaReport | None]) -> list[dict[str, Any]]:
    return [
        {"node": replica.node, "role": replica.role, "term": replica.term, "waiting_for": replica.waiting_for}
        for replica in summarize(cluster, reports).replicas
    ]


def summary(reports: dict[str, ReplicaReport | None]) -> str:
    """How many nodes answer and what the rest wait for, without a name."""
    answering = [report for report in reports.values() if report is not None]
    sentence = f"{len(answering)} of {len(reports)} workers answer"
    waiting = Counter(_nameless(report.waiting_for, reports) for report in answering if report.role == "waiting")
    for reason, count in sorted(waiting.items()):
        sentence += f"; {count} of them {'waits' if count == 1 else 'wait'} ({reason})"
    return sentence


def _nameless(text: str, reports: dict[str, ReplicaReport | None]) -> str:
    """What a node says, without names of nodes, and without anything that looks like an address or a file's path."""
    text = _PATH.sub("a file", _ADDRESS.sub("an address", text))
    for node in sorted(reports, key=len, reverse=True):
        text = text.replace(node, "a worker")
    return text


def why_not_ready(reports: dict[str, ReplicaReport | None]) -> str:
    """Why no leader is confirmed, in words that name no node."""
    if not any(reports.values()):
        return "no worker answers"
    serving = sum(report is not None and report.role != "waiting" for report in reports.values())
    voters = max((len(report.voters) for report in reports.values() if report is not None), default=0) or len(reports)
    needed = voters // 2 + 1
    if serving < needed:
        there = f"{serving} {'is' if serving == 1 else 'are'} there"
        return f"no majority: {needed} of {voters} replicas are needed, {there}; {summary(reports)}"
    return f"no leader is confirmed by a majority now; {summary(reports)}"
