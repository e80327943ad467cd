"""The web process' figures: what is counted under which label, and who may read them."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import AsyncClient as DjangoAsyncClient
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from coordinator import access, asgi, web_metrics
from coordinator.client import AsyncClient
from coordinator.config import PROJECT
from coordinator.membership import saying
from coordinator.middleware import DATA_POLICY
from coordinator.models import Cluster, Reconciliation
from coordinator.statemachine import commands
from dashboard import feed_reader
from dashboard.broadcast import CHANGES_MAX, PULSE_MS
from dashboard.feed_reader import FeedReader
from tests.unit.dashboard.reports import feed
from tests.unit.dashboard.test_feed_reader import KEY, sealed
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token, settled, until
from tests.unit.web.test_web_process import Exchange

TOKEN = "the-operators-own-token"


def value(name: str, **labels: str) -> float:
    return web_metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def names() -> dict[str, str]:
    """Every family that is exported, with its type."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in web_metrics.REGISTRY.collect()
    }


@pytest.fixture(autouse=True)
def _nobody_remembered() -> None:
    web_metrics._readers.clear()


@pytest.fixture
def own_token(settings: Any) -> None:
    settings.CONCLAVE = settings.CONCLAVE.model_copy(update={"metrics_token": TOKEN})


# --- who may read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic YWRtaW46YWRtaW4=", "Bearer nonsense", "Bearer \xff"])
async def test_nobody_reads_without_a_credential_not_even_from_loopback(
    cluster: FakeCluster, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = await DjangoAsyncClient().get("/metrics", headers=headers, REMOTE_ADDR="127.0.0.1")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert b"conclave_" not in response.content


async def test_a_person_with_the_permission_reads(as_reader: DjangoAsyncClient) -> None:
    response = await as_reader.get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Security-Policy"] == DATA_POLICY
    found = {family.name for family in text_string_to_metric_families(response.content.decode())}
    assert {"conclave_http_requests", "conclave_client_connected", "process_cpu_seconds"} <= found


@pytest.mark.usefixtures("transactional_db")
async def test_a_person_without_it_is_refused(cluster: FakeCluster) -> None:
    client = DjangoAsyncClient()
    await client.aforce_login(await User.objects.acreate(username="nobody"))
    assert (await client.get("/metrics")).status_code == 403


@pytest.mark.parametrize(("rights", "status"), [(("read",), 200), (("write", "lock"), 403), ((), 403)])
@pytest.mark.usefixtures("transactional_db")
async def test_a_principals_token_reads_where_it_has_the_right(
    cluster: FakeCluster, rights: tuple[str, ...], status: int
) -> None:
    """No database fixture here: a query would raise."""
    response = await Bearer(str(new_token(cluster, "scraper", rights))).get("/metrics")
    assert response.status_code == status


@pytest.mark.usefixtures("transactional_db")
async def test_the_operators_token_reads_while_no_leader_answers(cluster: FakeCluster, own_token: None) -> None:
    cluster.has_leader = False
    assert (await Bearer(TOKEN).get("/metrics")).status_code == 200
    assert (await Bearer(TOKEN[:-1]).get("/metrics")).status_code == 401


@pytest.mark.usefixtures("transactional_db")
async def test_while_no_leader_answers_a_principals_token_is_good_if_it_was(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TOKEN_FRESH_S", -1)
    known, unknown = (Bearer(str(new_token(cluster, name, ("read",)))) for name in ("known", "unknown"))
    assert (await known.get("/metrics")).status_code == 200
    cluster.has_leader = False
    assert (await known.get("/metrics")).status_code == 200
    assert (await unknown.get("/metrics")).status_code == 503
    cluster.has_leader = True
    await FakeClient(cluster).command(commands.RemovePrincipal("known"))
    assert (await known.get("/metrics")).status_code == 401
    cluster.has_leader = False
    assert (await known.get("/metrics")).status_code == 503


@pytest.mark.usefixtures("transactional_db")
async def test_a_right_that_was_taken_away_is_gone(cluster: FakeCluster) -> None:
    bearer = Bearer(str(new_token(cluster, "scraper", ("read",))))
    assert (await bearer.get("/metrics")).status_code == 200
    await FakeClient(cluster).command(commands.SetPrincipal("scraper", ("lock",)))
    assert (await bearer.get("/metrics")).status_code == 403


async def test_a_leader_that_takes_its_time_does_not_take_the_scrapers(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: Any, **options: Any) -> None:
        await asyncio.sleep(3_600)

    monkeypatch.setattr(access, "principal_of_token", never)
    monkeypatch.setattr(web_metrics, "ANSWER_S_MAX", 0.01)
    assert (await Bearer(str(new_token(cluster, "scraper"))).get("/metrics")).status_code == 503


async def test_it_is_only_read(as_admin: DjangoAsyncClient) -> None:
    response = await as_admin.post("/metrics")
    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD"


@pytest.mark.usefixtures("transactional_db")
async def test_open_metrics_is_there_for_the_asking(cluster: FakeCluster, own_token: None) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text; version=1.0.0"}
    response = await DjangoAsyncClient().get("/metrics", headers=headers)
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


# --- requests -------------------------------------------------------------------------------------

ACQUIRE = "api/v1/clusters/<cluster>/locks/<path:name>/acquire"


def requests(route: str, status: str, method: str = "POST") -> float:
    return value("conclave_http_requests_total", method=method, route=route, status=status)


async def test_requests_are_counted_by_pattern_and_no_name_becomes_a_label(worker: Bearer) -> None:
    before = requests(ACQUIRE, "200")
    timed = value("conclave_http_request_duration_seconds_count", method="POST", route=ACQUIRE)
    for name in ("very-secret-1", "very-secret-2"):
        await Exchange("POST", f"{API}/locks/{name}/acquire", worker.headers, b"{}").run()
    assert requests(ACQUIRE, "200") == before + 2
    assert value("conclave_http_request_duration_seconds_count", method="POST", route=ACQUIRE) == timed + 2
    labels = [str(s.labels) for family in web_metrics.REGISTRY.collect() for s in family.samples]
    assert not [text for text in labels if "very-secret" in text]


async def test_whatever_is_asked_for_the_labels_stay_few(cluster: FakeCluster) -> None:
    missing, odd = requests("none", "404", "GET"), requests("none", "404", "other")
    for number in range(5):
        await Exchange("GET", f"/nothing-{number}/at/all", {}).run()
        await Exchange(f"METHOD{number}", f"/nothing-{number}/at/all", {}).run()
    assert requests("none", "404", "GET") == missing + 5
    assert requests("none", "404", "other") == odd + 5


async def test_a_body_that_is_too_large_is_counted(worker: Bearer) -> None:
    before = requests("none", "413", "PUT")
    await Exchange("PUT", f"{API}/keys/a", worker.headers, b"x" * (asgi.BODY_BYTES_MAX + 1)).run()
    assert requests("none", "413", "PUT") == before + 1


async def test_a_caller_that_hangs_up_is_gone_and_nothing_stays_under_way(worker: Bearer, other: Bearer) -> None:
    before, under_way = requests(ACQUIRE, "gone"), value("conclave_http_requests_under_way")
    await worker.post(f"{API}/locks/deploy/acquire")
    exchange = Exchange("POST", f"{API}/locks/deploy/acquire", other.headers, b'{"wait_ms": 60000}')
    running = asyncio.ensure_future(exchange.run())
    await until(lambda: value("conclave_http_requests_under_way") == under_way + 1)
    await asyncio.sleep(0.05)
    exchange.hang_up()
    await running
    await settled()
    assert requests(ACQUIRE, "gone") == before + 1
    assert value("conclave_http_requests_under_way") == under_way


# --- sockets --------------------------------------------------------------------------------------


async def test_sockets_are_counted_while_they_are_open_and_by_the_code_that_closes_them() -> None:
    closing = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await closing.wait()
        await send({"type": "websocket.close", "code": 4408})

    async def send(message: Any) -> None:
        pass

    before = value("conclave_websocket_connections"), value("conclave_websocket_refusals_total", code="4408")
    counted = web_metrics.CountedSockets(application)
    running = [asyncio.ensure_future(counted({}, None, send)) for _ in range(3)]
    await until(lambda: value("conclave_websocket_connections") == before[0] + 3)
    running[0].cancel()
    await asyncio.gather(running[0], return_exceptions=True)
    assert value("conclave_websocket_connections") == before[0] + 2
    closing.set()
    await asyncio.gather(*running[1:])
    assert value("conclave_websocket_connections") == before[0]
    assert value("conclave_websocket_refusals_total", code="4408") == before[1] + 2


# --- the client and the feed ----------------------------------------------------------------------


async def test_the_client_of_each_cluster_is_looked_at(cluster: FakeCluster) -> None:
    access.client()
    assert value("conclave_client_knows_leader", cluster="default") == 1
    cluster.has_leader = False
    assert value("conclave_client_knows_leader", cluster="default") == 0
    assert value("conclave_client_leader_changes_total", cluster="default") == 2


async def test_a_client_that_was_never_used_has_figures(settings: Any) -> None:
    """The real one, which the others stand in for."""
    client = AsyncClient("redis://127.0.0.1:1/0", str(settings.DATA.web_token()))
    assert client.figures() == (False, False, 0, 0, 0)
    asking = asyncio.ensure_future(client.confirm(timeout=5))
    await until(lambda: client.figures().calls_pending == 1)
    await client.aclose()
    await asyncio.gather(asking, return_exceptions=True)


async def test_the_feeds_lag_grows_until_a_node_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000]
    reader = FeedReader(
        "redis://unused", realm="0123abcd", peer_key=KEY, nodes=["node1", "node2"], clock=lambda: clock[0]
    )
    reader._subscribed = {b"1": "node1", b"2": "node2"}
    monkeypatch.setattr(feed_reader, "_readers", [reader])
    clock[0] += 2_500
    reader._take(b"1", sealed(feed("node1")), clock[0])
    reader._take(b"2", sealed(feed("node2"), key=b"c" * 32), clock[0])
    clock[0] += 500
    assert value("conclave_feed_lag_seconds", node="node1") == 0.5
    assert value("conclave_feed_lag_seconds", node="node2") == 3.0
    assert value("conclave_feed_drops_total", reason="signature") == 1
    assert value("conclave_feed_connected") == 0


# --- the reconciler -------------------------------------------------------------------------------


@pytest.mark.usefixtures("transactional_db")
async def test_how_the_reconciler_is_can_be_alerted_on(as_reader: DjangoAsyncClient, monkeypatch) -> None:
    at = timezone.now()
    for name, state in (("default", "settled"), ("jobs", "waiting"), ("left-alone", "unmanaged")):
        made = await Cluster.objects.acreate(name=name, cluster_id=name)
        await Reconciliation.objects.acreate(cluster=made, state=state, looked_at=at - timedelta(seconds=len(name)))
    gone = await Cluster.objects.acreate(name="gone", cluster_id="gone")
    await Reconciliation.objects.acreate(cluster=gone, state="waiting", looked_at=at - timedelta(days=1))
    await as_reader.get("/metrics")
    newest = (at - timedelta(seconds=len("jobs"))).timestamp()
    assert value("conclave_reconciler_looked_timestamp_seconds") == pytest.approx(newest)
    clusters = ("default", "jobs", "left-alone", "gone")
    found = [
        web_metrics.REGISTRY.get_sample_value("conclave_membership_as_wanted", {"cluster": name}) for name in clusters
    ]
    assert found == [1, 0, 1, None]

    def away() -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(saying, "figures", away)
    assert (await as_reader.get("/metrics")).status_code == 200
    assert "conclave_reconciler_looked_timestamp_seconds" not in names(), "what is not known is not said"


# --- live pages -----------------------------------------------------------------------------------


async def test_a_live_page_that_takes_its_changes_too_slowly_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ms = [0]
    reader = FeedReader("redis://unused", realm="0123abcd", peer_key=KEY, nodes=["node1"], clock=lambda: clock_ms[0])
    monkeypatch.setattr(feed_reader, "_readers", [reader])
    live = reader.broadcast("default")
    assert live is not None
    page = live.subscribe()
    await page.next()
    assert value("conclave_live_page_overruns_total", cluster="default") == 0
    for _ in range(CHANGES_MAX + 1):
        clock_ms[0] += PULSE_MS
        live.publish(clock_ms[0])
    assert value("conclave_live_page_overruns_total", cluster="default") == 1


# --- the table ------------------------------------------------------------------------------------


async def test_the_documented_table_is_what_is_exported(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FeedReader("redis://unused", realm="0123abcd", peer_key=KEY, nodes=["node1"])
    monkeypatch.setattr(feed_reader, "_readers", [reader])
    monkeypatch.setattr(web_metrics._RECONCILED, "_said", saying.Figures(1.0, {"default": True}))
    document = (PROJECT / "docs" / "metrics.md").read_text(encoding="utf-8")
    section = document.partition("## The web process\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (\w+)", section, re.MULTILINE))
    assert documented == {name: kind for name, kind in names().items() if name.startswith("conclave_")}
