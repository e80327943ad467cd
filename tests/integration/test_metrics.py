"""The figures of a running installation, read as Prometheus reads them; and its logs as a machine reads them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.client import Client
from coordinator.config import Config
from coordinator.ports import free_port
from tests.integration.installation import Installation
from tests.integration.quorum import NODES, leader, wait_in_step, web_client
from tests.integration.waiting import eventually

pytestmark = pytest.mark.integration

AGAIN_S_MAX = 30.0
"""Until a node that died is started again and has caught up."""

Labels = tuple[tuple[str, str], ...]
Figures = dict[tuple[str, Labels], float]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One that writes its logs as JSON, and whose nodes run interpreted."""
    directory = tmp_path_factory.mktemp("metrics") / "data"
    with Installation(directory, settings={"CONCLAVE_LOG": "json", "CONCLAVE_COMPILED": "never"}) as running:
        yield running


def urls(installation: Installation) -> dict[str, str]:
    """Where `up` says that figures are served, by node; `web` too."""
    said = re.findall(r"(http://\S+/metrics) \(([^)]+)\)", installation.terminal)
    return {name: url for url, name in said}


def get(url: str, token: str = "") -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=5)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def scrape(url: str, token: str = "") -> Figures:
    """Empty where nobody answers."""
    status, text = get(url, token)
    if status != 200:
        return {}
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of_replica(figures: Figures, name: str, node: str) -> float | None:
    return figures.get((name, (("cluster", "default"), ("node", node))))


def _says(installation: Installation, name: str, words: str) -> bool:
    return words in installation.log(name)


def test_a_node_says_that_it_runs_interpreted(installation: Installation) -> None:
    where = urls(installation)
    assert {scrape(where[node])["conclave_compiled", (("node", node),)] for node in NODES} == {0}


def test_after_the_leaders_death_the_others_have_seen_one_more_and_have_one_again(installation: Installation) -> None:
    where = urls(installation)
    with web_client(installation, timeout=20) as client:
        wait_in_step(client)
        dead = leader(client)
        before = {node: scrape(where[node]) for node in NODES}
        for node in NODES:
            assert of_replica(before[node], "etcd_server_has_leader", node) == 1
            assert of_replica(before[node], "etcd_server_is_leader", node) == (node == dead)
        others = [node for node in NODES if node != dead]
        installation.kill(dead)

        def elected() -> bool:
            after = {node: scrape(where[node]) for node in others}
            leads = [of_replica(after[node], "etcd_server_is_leader", node) for node in others]
            return sum(each or 0 for each in leads) == 1 and all(
                of_replica(after[node], "etcd_server_has_leader", node) == 1
                and (of_replica(after[node], "etcd_server_leader_changes_seen_total", node) or 0)
                > (of_replica(before[node], "etcd_server_leader_changes_seen_total", node) or 0)
                and (of_replica(after[node], "conclave_term", node) or 0)
                > (of_replica(before[node], "conclave_term", node) or 0)
                for node in others
            )

        eventually(elected, timeout_s=10, what=lambda: f"another leads: {[get(where[node]) for node in others]}")

        def returned() -> bool:
            """On the port that it had, counting anew."""
            figures = scrape(where[dead])
            return of_replica(figures, "etcd_server_has_leader", dead) == 1

        eventually(returned, timeout_s=AGAIN_S_MAX, what=lambda: f"{dead} serves figures again: {get(where[dead])}")
        wait_in_step(client)


def test_what_clients_do_is_counted(installation: Installation) -> None:
    where = urls(installation)
    url, token = installation.new_token("worker")
    with web_client(installation, timeout=20) as watcher, Client(url, token, timeout=20) as client:
        node = leader(watcher)
        before = scrape(where[node])
        with client.lock("deploy", ttl=30):
            for number in range(20):
                client.put(f"key-{number}", b"value")
            during = scrape(where[node])
        assert of_replica(during, "conclave_locks", node) in (1, 2), "the reconciler may hold its own by now"
        assert of_replica(during, "conclave_keys", node) == 20
        assert of_replica(during, "conclave_leases", node) == of_replica(during, "conclave_sessions", node) != 0
        for name in ("etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total"):
            assert (of_replica(during, name, node) or 0) >= (of_replica(before, name, node) or 0) + 21
        for name in ("etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds"):
            counted = [figures[f"{name}_count", (("node", node),)] for figures in (before, during)]
            assert counted[1] >= counted[0] + 21, "one by one, so each is a commit"
        fsync, commit = (
            during[f"etcd_disk_{name}_duration_seconds_sum", (("node", node),)]
            for name in ("wal_fsync", "backend_commit")
        )
        assert 0 < fsync <= commit
        for peer in set(NODES) - {node}:
            to_peer = (("To", peer), ("node", node))
            assert during["etcd_network_peer_round_trip_time_seconds_count", to_peer] > 0
        median = (("cluster", "default"), ("node", node), ("quantile", "0.5"))
        assert during["conclave_recent_proposal_seconds", median] > 0
        assert "deploy" not in get(where[node])[1], "no name of a lock is told"


def test_the_web_process_tells_its_figures_to_who_may_read(installation: Installation) -> None:
    web = urls(installation)["web"]
    assert get(web)[0] == 401
    _, token = installation.new_token("scraper")
    installation.get("/readyz/default")
    figures = scrape(web, token)
    labels: Labels = (("method", "GET"), ("route", "readyz/<str:cluster>"), ("status", "200"))
    assert figures["conclave_http_requests_total", labels] >= 1
    assert figures["conclave_client_connected", (("cluster", "default"),)] == 1
    for node in NODES:
        assert 0 <= figures["conclave_feed_lag_seconds", (("node", node),)] < 5


def test_every_line_that_is_logged_is_json(installation: Installation) -> None:
    """Those that begin as one; Celery says by itself that it ends, and that it should not be root."""
    for name in (*NODES, "web"):
        lines = [text for text in installation.log(name).splitlines() if text.startswith("{")]
        found = [json.loads(text) for text in lines]
        assert found, name
        assert all({"time", "level", "logger", "message"} <= set(each) for each in found)
        assert not re.search(r"^\[?\d{4}-\d\d-\d\d|^(INFO|WARNING|ERROR)", installation.log(name), re.MULTILINE), name
        loggers = {each["logger"].partition(".")[0] for each in found}
        assert loggers >= ({"uvicorn"} if name == "web" else {"celery", "coordinator"})
        assert {each.get("node") for each in found} == ({None} if name == "web" else {name})


def test_ports_are_kept_and_one_in_use_costs_its_figures_alone(new_installation: Callable[..., Installation]) -> None:
    installation = new_installation()
    taken = installation.data.metrics_port("node2", Config.model_construct(port=installation.port))
    with socket.create_server(("127.0.0.1", taken)), installation:
        first = urls(installation)
        assert f"http://127.0.0.1:{taken}/metrics (node2, not served: another program listens there)" in (
            installation.terminal
        )
        eventually(lambda: scrape(first["node1"]), timeout_s=AGAIN_S_MAX, what="node1 serves its figures")
        for said in ("node2 serves no metrics", "node2@conclave ready"):
            eventually(partial(_says, installation, "node2", said), timeout_s=AGAIN_S_MAX, what=f"it says {said!r}")
        installation.stop(signal.SIGTERM)
    begun = len(installation.terminal)
    with installation:
        again = {
            name: url for url, name in re.findall(r"(http://\S+/metrics) \((\w+)\)", installation.terminal[begun:])
        }
        assert again["node1"] == first["node1"]
        assert again["node2"] == f"http://127.0.0.1:{taken}/metrics"
        eventually(lambda: scrape(again["node2"]), timeout_s=AGAIN_S_MAX, what="node2 serves its figures")


def test_with_a_token_of_the_operators_it_alone_opens_them_and_ports_can_be_named(
    new_installation: Callable[..., Installation],
) -> None:
    token, port = "an-operators-own-token", free_port()
    settings = {"CONCLAVE_METRICS_TOKEN": token, "CONCLAVE_METRICS_PORT": str(port), "CONCLAVE_NODES": "2"}
    with new_installation(settings=settings) as installation:
        assert urls(installation) == {
            "web": f"{installation.url}/metrics",
            "node1": f"http://127.0.0.1:{port}/metrics",
            "node2": f"http://127.0.0.1:{port + 1}/metrics",
        }
        for url in urls(installation).values():
            eventually(partial(scrape, url, token), timeout_s=AGAIN_S_MAX, what=f"{url} serves its figures")
            assert get(url)[0] == 401
            assert get(url, "another-token-than-that")[0] == 401
            assert get(url, token)[0] == 200
