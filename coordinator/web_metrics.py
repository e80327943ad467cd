"""`/metrics` of the web process: what its visitors ask and how long that takes, its sockets, its client, its feed.

Routes are labelled by their pattern, never by what stands in an address, so that no name of a lock or key becomes a
label and nobody can make labels without end. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator import access
from coordinator.api.auth import bearer_text
from coordinator.api.errors import Refused
from coordinator.client import errors
from coordinator.database import asking
from coordinator.membership import saying
from coordinator.middleware import DATA_POLICY
from coordinator.statemachine import commands
from dashboard import feed_reader

BOUNDS_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16, 32)
"""An acquire may wait in line for as long as its caller likes."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
READ: Final = "conclave.read_state"
ANSWER_S_MAX: Final = 1.0
"""How long a credential may take to check; a scraper's patience is short."""
READERS_MAX: Final = 256

REGISTRY: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "conclave_http_requests",
    "Requests answered; status `gone` where the caller hung up before.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
DURATIONS: Final = Histogram(
    "conclave_http_request_duration_seconds",
    "From the first byte of a request to the last of its answer.",
    ["method", "route"],
    buckets=BOUNDS_S,
    registry=REGISTRY,
)
UNDER_WAY: Final = Gauge("conclave_http_requests_under_way", "Requests being answered.", registry=REGISTRY)
SOCKETS: Final = Gauge("conclave_websocket_connections", "Open sockets of live pages.", registry=REGISTRY)
SOCKETS_CLOSED: Final = Counter(
    "conclave_websocket_refusals", "Sockets that this process closed, by its code.", ["code"], registry=REGISTRY
)

Scope = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]


# --- what is measured as it happens ---------------------------------------------------------------


class Measured:
    """One HTTP exchange. The route is in the scope once Django has found it (`middleware.NoteRoute`)."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._began = time.perf_counter()
        UNDER_WAY.inc()

    def ended(self, status: str) -> None:
        """`status`: of the answer, or `gone`."""
        method = self._scope["method"] if self._scope["method"] in METHODS else "other"
        route = self._scope.get("conclave.route") or self._unrouted()
        REQUESTS.labels(method, route, status).inc()
        DURATIONS.labels(method, route).observe(time.perf_counter() - self._began)
        UNDER_WAY.dec()

    def _unrouted(self) -> str:
        return "static" if str(self._scope["path"]).startswith(settings.STATIC_URL) else "none"


class CountedSockets:
    """Counts the sockets that are open, and those that we close."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_open = False

        async def counting_send(message: MutableMapping[str, Any]) -> None:
            nonlocal is_open
            if message["type"] == "websocket.accept" and not is_open:
                is_open = True
                SOCKETS.inc()
            elif message["type"] == "websocket.close":
                SOCKETS_CLOSED.labels(str(message.get("code", 1000))).inc()
            await send(message)

        try:
            await self._application(scope, receive, counting_send)
        finally:
            if is_open:
                SOCKETS.dec()


# --- what is looked at when somebody asks ---------------------------------------------------------


class _Client(Collector):
    """This process's own clients, one for each cluster that it was asked about."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        figures = {name: client.figures() for name, client in access.clients().items()}
        for name, text, of in (
            ("conclave_client_connected", "1 if the client is connected to Redis, else 0.", "connected"),
            ("conclave_client_knows_leader", "1 if the client believes in a leader, else 0.", "knows_leader"),
            ("conclave_client_calls_pending", "Questions that wait for their answer.", "calls_pending"),
            ("conclave_client_sessions", "Sessions that the client keeps alive.", "sessions"),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["cluster"])
            for cluster, each in figures.items():
                gauge.add_metric([cluster], getattr(each, of))
            yield gauge
        changes = CounterMetricFamily(
            "conclave_client_leader_changes", "How often the client heard of another leader.", labels=["cluster"]
        )
        for cluster, each in figures.items():
            changes.add_metric([cluster], each.leader_changes)
        yield changes


class _Feed(Collector):
    """What the nodes tell the live pages."""

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        reader = feed_reader.running()
        if reader is None:
            return
        figures = reader.figures()
        connected = GaugeMetricFamily("conclave_feed_connected", "1 if the feed's Redis is connected, else 0.")
        connected.add_metric([], figures.connected)
        yield connected
        lag = GaugeMetricFamily("conclave_feed_lag_seconds", "Since a node's last report came.", labels=["node"])
        for node, seconds in figures.lag_s.items():
            lag.add_metric([node], seconds)
        yield lag
        lost = CounterMetricFamily("conclave_feed_reports_lost", "Reports that were sent and never came.")
        lost.add_metric([], figures.lost)
        yield lost
        drops = CounterMetricFamily("conclave_feed_drops", "Packets dropped, by reason.", labels=["reason"])
        for reason, count in figures.drops.items():
            drops.add_metric([reason], count)
        yield drops
        pages = GaugeMetricFamily("conclave_live_pages", "Live pages that are sent changes.", labels=["cluster"])
        overruns = CounterMetricFamily(
            "conclave_live_page_overruns",
            "Changes pending for a live page that gave way to a snapshot.",
            labels=["cluster"],
        )
        for cluster, broadcast in reader.clusters.items():
            pages.add_metric([cluster], broadcast.subscribers)
            overruns.add_metric([cluster], broadcast.overruns)
        yield pages
        yield overruns


class _Reconciled(Collector):
    """What the reconciler wrote into the database last: read for each scrape, before it."""

    def __init__(self) -> None:
        self._said: saying.Figures | None = None

    async def read(self) -> None:
        """A database that is slow or away says nothing: then there are no figures of it."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                self._said = await asking(saying.figures, thread_sensitive=False)()
        except (DatabaseError, TimeoutError):
            self._said = None

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        said = self._said
        if said is None:
            return
        looked_at = GaugeMetricFamily(
            "conclave_reconciler_looked_timestamp_seconds",
            "When the reconciler last wrote down what it found, since 1970.",
        )
        looked_at.add_metric([], said.looked_at)
        yield looked_at
        text = "1 if the membership is as it is wanted, else 0."
        as_wanted = GaugeMetricFamily("conclave_membership_as_wanted", text, labels=["cluster"])
        for cluster, is_so in said.as_wanted.items():
            as_wanted.add_metric([cluster], is_so)
        yield as_wanted


_RECONCILED: Final = _Reconciled()
REGISTRY.register(_RECONCILED)
REGISTRY.register(_Client())
REGISTRY.register(_Feed())
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


# --- who may read it ------------------------------------------------------------------------------

_readers: dict[bytes, None] = {}
"""Digests of tokens that were found to have the right to read: taken at that word while no leader can be asked, for
then the figures are wanted most."""


async def _token_may_read(text: str) -> bool:
    """Is it the operator's token for metrics, or that of a principal with the right to read? Raises BadToken,
    Unavailable."""
    own = settings.CONCLAVE.metrics_token
    if own and hmac.compare_digest(text.encode(), own.encode()):
        return True
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            principal = await access.principal_of_token(text)
            view = await access.client().query(commands.GetPrincipal(principal))
    except access.BadToken:
        _readers.pop(digest, None)
        raise
    except (errors.Unavailable, TimeoutError):
        if digest in _readers:
            return True
        raise errors.Unavailable("no leader answers, so this token can not be checked") from None
    may_read = commands.READ in view.rights
    _readers.pop(digest, None)
    if may_read:
        _readers[digest] = None
        while len(_readers) > READERS_MAX:
            del _readers[next(iter(_readers))]
    return may_read


async def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Why the caller may not read the figures; None where it may."""
    try:
        text = bearer_text(request)
        if text is not None:
            return None if await _token_may_read(text) else _answer(HTTPStatus.FORBIDDEN, "the right to read is needed")
        user = await request.auser()
        if user.is_authenticated:
            may_read = await user.ahas_perm(READ)
            return None if may_read else _answer(HTTPStatus.FORBIDDEN, "the right to read is needed")
    except (Refused, access.BadToken):
        pass
    except (errors.Unavailable, DatabaseError):
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "nobody can say now whether this caller may read")
    refusal = _answer(HTTPStatus.UNAUTHORIZED, "expected a bearer token, or a session")
    refusal["WWW-Authenticate"] = "Bearer"
    return refusal


def _answer(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")


@login_not_required
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, or OpenMetrics where that is asked for."""
    if request.method not in ("GET", "HEAD"):
        response = _answer(HTTPStatus.METHOD_NOT_ALLOWED, "expected GET or HEAD")
        response["Allow"] = "GET, HEAD"
        return response
    response = await _refusal(request) or await _figures(request)
    response["Cache-Control"] = "no-store"
    response["Content-Security-Policy"] = DATA_POLICY
    return response


async def _figures(request: HttpRequest) -> HttpResponse:
    await _RECONCILED.read()
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(REGISTRY), content_type=content_type)
