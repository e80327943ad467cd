"""The state of a cluster over HTTP, with and without a leader, and fault injection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.test import AsyncClient as DjangoAsyncClient
from django.utils import timezone

from coordinator import access, health
from coordinator.api.status import summarize
from coordinator.client import errors
from coordinator.models import AuditEntry, Cluster, Node, Replica
from tests.unit.web.fake_cluster import CLUSTER_ID, FakeCluster
from tests.unit.web.helpers import API, Bearer, new_token

STATUS = f"{API}/status"


async def test_each_replica_says_how_it_is(worker: Bearer, cluster: FakeCluster) -> None:
    response = await worker.get(STATUS)
    assert response.status_code == 200
    body = response.json()
    assert (body["cluster"], body["leader"], body["term"]) == ("default", "node2", 4)
    assert body["cluster_id"] == f"{CLUSTER_ID:x}"
    assert [replica["node"] for replica in body["replicas"]] == ["node1", "node2", "node3"]
    assert [replica["role"] for replica in body["replicas"]] == ["follower", "leader", "follower"]
    first = body["replicas"][0]
    assert first["pid"] == 1000
    assert first["last_index"] == first["commit_index"] == first["applied_index"] == cluster.machine.applied
    assert first["drops"] == {"malformed": 2}
    assert first["vote"] == "node2"
    assert first["digest"] == cluster.machine.digest()


async def test_a_node_that_does_not_answer_is_unreachable(worker: Bearer, cluster: FakeCluster) -> None:
    cluster.silent_nodes = {"node3"}
    third = (await worker.get(STATUS)).json()["replicas"][2]
    assert third["node"] == "node3"
    assert third["role"] == "unreachable"
    assert third["pid"] is None
    assert third["term"] == third["last_index"] == third["commit_index"] == third["applied_index"] == 0


async def test_a_node_that_waits_says_for_what(worker: Bearer, cluster: FakeCluster) -> None:
    cluster.waiting_nodes = {"node1": "its journal is empty"}
    first = (await worker.get(STATUS)).json()["replicas"][0]
    assert (first["role"], first["waiting_for"], first["replica_id"]) == ("waiting", "its journal is empty", None)


async def test_without_a_leader_it_still_answers(
    worker: Bearer, as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    """Even to a token that was never seen before: nodes that have a replica can check it."""
    cluster.has_leader = False
    for client in (worker, as_admin):
        response = await client.get(STATUS)
        assert response.status_code == 200
        assert response.json()["leader"] is None
        assert {replica["role"] for replica in response.json()["replicas"]} == {"follower"}


async def test_without_a_leader_a_token_that_no_node_knows_is_not_believed(cluster: FakeCluster) -> None:
    stranger = str(new_token(FakeCluster(new_token(cluster, "x")), "stranger"))
    cluster.has_leader = False
    assert (await Bearer(stranger).get(STATUS)).status_code == 503


@pytest.mark.usefixtures("transactional_db")
async def test_a_token_seen_before_is_believed_while_nobody_can_be_asked(worker: Bearer, cluster: FakeCluster) -> None:
    await worker.get(STATUS)
    cluster.has_leader = False
    cluster.silent_nodes = set(cluster.nodes)
    access._tokens = {key: known._replace(at=float("-inf")) for key, known in access._tokens.items()}
    response = await worker.get(STATUS)
    assert response.status_code == 200
    assert {replica["role"] for replica in response.json()["replicas"]} == {"unreachable"}


async def test_with_no_node_at_all_the_record_remembers_who_there_was(
    as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    """In this very cluster: not in another, nor in an earlier one of the name."""
    cluster.silent_nodes = set(cluster.nodes)
    for name, identity in (("default", "1"), ("jobs", "2")):
        other = await Cluster.objects.acreate(name=name, cluster_id=identity)
        node = await Node.objects.acreate(name=f"of-{name}-{identity}")
        await Replica.objects.acreate(cluster=other, node=node, replica_id=identity)
    known = await Cluster.objects.acreate(name="default", cluster_id=f"{CLUSTER_ID:x}")
    for name in ("node1", "node7"):
        node = await Node.objects.acreate(name=name)
        await Replica.objects.acreate(cluster=known, node=node, replica_id=name)
    body = (await as_admin.get(STATUS)).json()
    assert body["leader"] is None
    assert [(replica["node"], replica["role"]) for replica in body["replicas"]] == [
        ("node1", "unreachable"),
        ("node7", "unreachable"),
    ]


async def test_with_no_node_and_no_record_it_names_the_nodes_that_were_to_run(
    as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    cluster.silent_nodes = set(cluster.nodes)
    await Node.objects.acreate(name="hosts-nothing")
    body = (await as_admin.get(STATUS)).json()
    assert [replica["node"] for replica in body["replicas"]] == ["node1", "node2", "node3"]


def test_of_two_that_say_they_lead_the_one_of_the_higher_term_does(settings: Any) -> None:
    cluster = FakeCluster(settings.DATA.web_token())
    reports: dict[str, Any] = {node: cluster.report(node) for node in cluster.nodes}
    reports["node1"] = _changed(reports["node1"], role="leader", term=3)
    body = summarize("default", reports)
    assert (body.leader, body.term) == ("node2", 4)


def _changed(report: Any, **fields: Any) -> Any:
    return type(report)(*(fields.get(name, getattr(report, name)) for name in report.__struct_fields__))


# --- crash ----------------------------------------------------------------------------------------

CRASH = f"{API}/nodes/node2/crash"


@pytest.fixture
def faults(settings: Any) -> None:
    settings.CONCLAVE = settings.CONCLAVE.model_copy(update={"faults": True})


@pytest.mark.usefixtures("faults")
async def test_an_administrator_may_crash_a_node_and_it_lands_in_the_audit(
    as_admin: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    response = await as_admin.post(CRASH, {"reason": "to see the election"}, content_type="application/json")
    assert response.status_code == 200
    assert response.json() == {"node": "node2", "crashed": True}
    assert cluster.crashed == [("node2", "user:admin")]
    entry = await AuditEntry.objects.aget(action="node.crashed")
    assert (entry.actor, entry.principal, entry.target) == ("admin", "user:admin", "default/node2")
    assert (entry.reason, entry.outcome) == ("to see the election", "done")


@pytest.mark.usefixtures("faults")
async def test_others_may_not_and_that_lands_in_the_audit_too(
    as_reader: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    response = await as_reader.post(CRASH, {}, content_type="application/json")
    assert response.status_code == 403
    assert cluster.crashed == []
    entry = await AuditEntry.objects.aget(action="node.crashed")
    assert (entry.actor, entry.outcome) == ("reader", "refused")


@pytest.mark.usefixtures("faults")
async def test_a_node_that_is_not_there_cannot_be_crashed(as_admin: DjangoAsyncClient) -> None:
    for node in ("node9", "Node2", "no%20de"):
        response = await as_admin.post(f"{API}/nodes/{node}/crash", {}, content_type="application/json")
        assert response.status_code == 404, node


async def test_where_faults_are_off_nobody_crashes_anything(
    as_admin: DjangoAsyncClient, cluster: FakeCluster, settings: Any
) -> None:
    settings.CONCLAVE = settings.CONCLAVE.model_copy(update={"faults": False})
    response = await as_admin.post(CRASH, {}, content_type="application/json")
    assert response.status_code == 403
    assert response.json()["error"] == "faults-off"
    assert cluster.crashed == []
    assert (await as_admin.get(STATUS)).json()["faults_allowed"] is False


# --- health ---------------------------------------------------------------------------------------


async def test_healthz_needs_neither_login_nor_database(async_client: DjangoAsyncClient) -> None:
    response = await async_client.get("/healthz", headers={"Cookie": "conclave_session_8000=of-somebody"})
    assert response.status_code == 200
    assert response.json() == {"status": "alive"}
    assert (await async_client.post("/healthz")).status_code == 405


async def test_readyz_says_that_pages_can_be_served(async_client: DjangoAsyncClient, transactional_db: None) -> None:
    response = await async_client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ready"}


async def test_readyz_says_what_is_missing(
    async_client: DjangoAsyncClient, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_problem_with_pages", lambda: "the database does not answer")
    response = await async_client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"error": "not-ready", "detail": "the database does not answer"}


async def test_readyz_says_what_can_not_be_done_while_the_database_takes_no_writes(
    async_client: DjangoAsyncClient, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are served to whoever is signed in: it is ready, and not as it should be."""
    monkeypatch.setattr(health, "_takes_writes", lambda connection: False)
    response = await async_client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert "takes no writes: nobody can sign in" in response.json()["detail"]


def test_a_file_on_a_disk_that_can_only_be_read_takes_no_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "db.sqlite3"
    file.touch()
    database = DatabaseWrapper({**connection.settings_dict, "NAME": file})
    assert health._takes_writes(database)
    monkeypatch.setattr("os.access", lambda path, mode: path != file)
    assert not health._takes_writes(database)


async def test_a_machine_that_asks_each_second_does_not_fill_the_log(
    async_client: DjangoAsyncClient,
    transactional_db: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("connection refused")

    assert (await async_client.get("/readyz")).status_code == 200
    monkeypatch.setattr(health, "_is_migrated", away)
    for _ in range(3):
        assert (await async_client.get("/readyz")).status_code == 503
    said = [each for each in caplog.messages if "connection refused" in each]
    assert said == ["the database cannot be used: connection refused"]


async def test_readyz_notices_a_database_that_comes_back_without_tables(
    async_client: DjangoAsyncClient, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is deleted while this process runs, or is put back from an older copy: pages could not be served."""
    assert (await async_client.get("/readyz")).status_code == 200
    with monkeypatch.context() as emptied:
        emptied.setattr(MigrationRecorder, "applied_migrations", lambda recorder: {})
        response = await async_client.get("/readyz")
    assert (response.status_code, response.json()["detail"]) == (503, "the database lacks migrations")
    assert (await async_client.get("/readyz")).status_code == 200


NAMES = re.compile(r"node\d|127\.0\.0\.1|\d+\.\d+\.\d+\.\d+|:\d{4}")


async def test_readyz_of_a_cluster_is_200_while_a_leader_is_confirmed(
    async_client: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    response = await async_client.get("/readyz/default")
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert not NAMES.search(response.content.decode())


async def test_readyz_of_a_cluster_gives_a_stranger_a_reason_without_a_name(
    async_client: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    cluster.has_leader = False
    cluster.waiting_nodes = {"node1": "node1's journal is empty", "node3": "node3's journal is empty"}
    response = await async_client.get("/readyz/default")
    assert response.status_code == 503
    assert response["Retry-After"] == "1"
    detail = response.json()["detail"]
    assert detail.startswith("no majority: 2 of 3 replicas are needed, 1 is there; ")
    assert "journal" in detail
    assert not NAMES.search(response.content.decode())


async def test_a_stranger_learns_no_path_of_the_machine(async_client: DjangoAsyncClient, cluster: FakeCluster) -> None:
    """The name of the node was taken out of the path of its journal, and the rest of it was told."""
    cluster.waiting_nodes = {"node1": "it is damaged: /srv/data/nodes/node1/journal.sqlite3: the hard state is missing"}
    detail = (await async_client.get("/readyz/default")).json()["detail"]
    assert detail == "3 of 3 workers answer; 1 of them waits (it is damaged: a file: the hard state is missing)"


async def test_readyz_says_that_no_leader_is_confirmed_where_enough_are_there_to_elect_one(
    async_client: DjangoAsyncClient, cluster: FakeCluster
) -> None:
    cluster.has_leader = False
    cluster.waiting_nodes = {"node1": "its journal is empty"}
    detail = (await async_client.get("/readyz/default")).json()["detail"]
    assert detail.startswith("no leader is confirmed by a majority now; 3 of 3 workers answer; 1 of them waits")


async def test_readyz_of_a_cluster_names_nodes_to_whoever_is_signed_in(
    as_admin: DjangoAsyncClient, worker: Bearer, cluster: FakeCluster
) -> None:
    cluster.has_leader = False
    cluster.waiting_nodes = {"node1": "its journal is empty"}
    for client in (as_admin, worker):
        body = (await client.get("/readyz/default")).json()
        assert body["nodes"][0] == {
            "node": "node1",
            "role": "waiting",
            "term": 0,
            "waiting_for": "its journal is empty",
        }
        assert "reason" in body


async def test_readyz_with_a_bad_token_is_a_strangers(async_client: DjangoAsyncClient, cluster: FakeCluster) -> None:
    response = await async_client.get("/readyz/default", headers={"Authorization": "Bearer nonsense"})
    assert response.status_code == 200
    assert "nodes" not in response.json()


async def test_readyz_with_no_node_at_all(
    async_client: DjangoAsyncClient, cluster: FakeCluster, transactional_db: None
) -> None:
    cluster.has_leader = False
    cluster.silent_nodes = set(cluster.nodes)
    response = await async_client.get("/readyz/default")
    assert response.status_code == 503
    assert response.json()["detail"] == "no worker answers"
    assert (await async_client.get("/readyz/elsewhere")).status_code == 404


async def test_readyz_of_a_cluster_that_is_not_there_is_404(
    async_client: DjangoAsyncClient, cluster: FakeCluster, transactional_db: None
) -> None:
    assert (await async_client.get("/readyz/elsewhere")).status_code == 404


async def _had_jobs(*names: str) -> None:
    """The record knows a cluster `jobs`, and that these nodes had a replica of it."""
    jobs = await Cluster.objects.acreate(name="jobs", cluster_id="77")
    for number, name in enumerate(names):
        node, _ = await Node.objects.aget_or_create(name=name)
        await Replica.objects.acreate(cluster=jobs, node=node, replica_id=f"{number}")


async def test_a_cluster_whose_nodes_are_down_while_others_answer_is_not_said_to_be_none(
    async_client: DjangoAsyncClient, cluster: FakeCluster, transactional_db: None
) -> None:
    await _had_jobs(cluster.nodes[0])
    cluster.silent_nodes = {cluster.nodes[0]}
    cluster.has_leader = False
    assert (await async_client.get("/readyz/jobs")).status_code == 503
    with pytest.raises(errors.Unavailable, match="one that had it does not answer"):
        await access.known_cluster("jobs")


async def test_a_cluster_that_is_gone_from_all_nodes_that_had_it_is_none(
    async_client: DjangoAsyncClient, cluster: FakeCluster, transactional_db: None
) -> None:
    await _had_jobs(cluster.nodes[0], "retired")
    await Node.objects.filter(name="retired").aupdate(retired_at=timezone.now())
    assert (await async_client.get("/readyz/jobs")).status_code == 404
    with pytest.raises(access.UnknownCluster):
        await access.known_cluster("jobs")


async def test_a_cluster_whose_nodes_told_of_it_too_late_is_there(
    cluster: FakeCluster, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _had_jobs(cluster.nodes[0])
    report = cluster.report(cluster.nodes[0])
    assert report is not None
    of_jobs = msgspec.structs.replace(report, cluster_name="jobs")
    monkeypatch.setattr(cluster, "report", lambda node: of_jobs)
    assert await access.known_cluster("jobs") == "jobs"
