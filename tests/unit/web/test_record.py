"""The record follows what the nodes say, and never forgets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from coordinator import access, record, wire
from coordinator.membership import saying
from coordinator.membership.note import Note
from coordinator.models import Cluster, Node, Reconciliation, Replica
from tests.unit.web.fake_cluster import CLUSTER_ID, FakeCluster
from tests.unit.web.test_api_status import _changed

pytestmark = pytest.mark.usefixtures("transactional_db")


def test_a_report_makes_the_rows_that_are_missing_and_updates_the_others(cluster: FakeCluster) -> None:
    report: Any = cluster.report("node1")
    record.note(report)
    record.note(_changed(report, role="leader", term=9))
    assert Cluster.objects.get().cluster_id == f"{CLUSTER_ID:x}"
    assert Node.objects.get().name == "node1"
    replica = Replica.objects.get()
    assert (replica.role, replica.term, replica.node.name) == ("leader", 9, "node1")


def test_a_node_that_waits_is_recorded_without_a_replica(cluster: FakeCluster) -> None:
    cluster.waiting_nodes = {"node1": "its journal is empty"}
    report: Any = cluster.report("node1")
    record.note(report)
    assert Node.objects.get().name == "node1"
    assert not Replica.objects.exists()


def test_a_replica_that_comes_back_under_another_identity_is_another_row(cluster: FakeCluster) -> None:
    report: Any = cluster.report("node1")
    record.note(report)
    record.note(_changed(report, replica=0xB0))
    assert set(Replica.objects.values_list("replica_id", flat=True)) == {"a0", "b0"}


def test_a_birth_is_recorded_once_however_it_is_spelt() -> None:
    record.record_birth("default", "00c0ffee", ["node1", "node2"])
    record.record_birth("default", "c0ffee", ["node1", "node2"])
    assert Cluster.objects.get().cluster_id == "c0ffee"
    assert Node.objects.count() == 2
    assert record.is_recorded("default")
    assert not record.is_recorded("other")


def test_of_two_clusters_of_one_name_the_later_is_the_one_that_was_recorded_later_whatever_the_clock_said() -> None:
    record.record_birth("jobs", "a1", ["node1"])
    record.record_birth("jobs", "b2", ["node2"])
    for number, (cluster, state) in enumerate(((0xA1, "refused"), (0xB2, "settled"))):
        row = record._cluster("jobs", cluster)
        Reconciliation.objects.create(cluster=row, state=state)
        node = Node.objects.get(name=f"node{number + 1}")
        Replica.objects.create(cluster=row, node=node, replica_id=f"{number + 1}", role="follower")
    Cluster.objects.filter(cluster_id="b2").update(created_at=timezone.now() - timedelta(days=3_650))
    assert record.nodes_of("jobs") == ["node2"]
    assert saying.by_cluster()["jobs"] == Note()


async def test_the_record_is_made_again_from_what_the_nodes_say(cluster: FakeCluster) -> None:
    await record.make_from_log()
    assert await Cluster.objects.acount() == 1
    assert await Node.objects.acount() == 3
    assert await Replica.objects.acount() == 3
    assert await Replica.objects.filter(role="leader").acount() == 1


async def test_making_the_record_waits_for_a_node_that_answers(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RETRY_S", 0)
    cluster.silent_nodes = set(cluster.nodes)
    making = access.spawn(record.make_from_log(), "make the record")
    for _ in range(20):
        assert not making.done()
        await record.asyncio.sleep(0)
    cluster.silent_nodes = set()
    await making
    assert await Node.objects.acount() == 3


def test_an_address_is_recorded_without_its_password(cluster: FakeCluster) -> None:
    nodes = (("node1", "redis://conclave-client:secret@10.0.0.1:6379/0"), ("node2", ""))
    record.note_directory(wire.Directory(0, "node1", nodes, ()))
    assert list(Node.objects.values_list("address", flat=True)) == ["redis://10.0.0.1:6379/0", ""]


def test_a_node_that_has_moved_is_recorded_where_it_is_now(cluster: FakeCluster) -> None:
    for address in ("redis://10.0.0.1:6379/0", "redis://10.0.0.2:6379/0"):
        record.note_directory(wire.Directory(0, "node1", (("node1", address),), ()))
    assert Node.objects.get().address == "redis://10.0.0.2:6379/0"
