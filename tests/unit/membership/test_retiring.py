"""Nodes that are taken out of service for good, on nodes without processes."""

from __future__ import annotations

import pytest
from django.core.management import CommandError
from django.utils import timezone

from coordinator import record, wire
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.membership import creation, edits, known, retiring
from coordinator.membership.wanted import Place, Wanted, encode
from coordinator.models import AuditEntry, Birth, Cluster, Node, Replica, WantedMembership
from tests.unit.membership.reconciling import NAMES, make, manage, row

pytestmark = pytest.mark.django_db


@pytest.fixture
def gone(company) -> Node:
    """A node that the record knows, that had nothing, and that does not answer."""
    for name in NAMES:
        Node.objects.create(name=name)
    company.silent = {"node4"}
    return Node.objects.get(name="node4")


def is_retired(node: str) -> bool:
    return node in known.retired_nodes()


def retire(company, node: str = "node4") -> None:
    retiring.retire(node, company.clusters.__getitem__)


def had(cluster_name: str, node: Node) -> None:
    """The record says that this node once had a replica of a cluster of that name."""
    cluster = Cluster.objects.create(name=cluster_name, cluster_id="77")
    Replica.objects.create(cluster=cluster, node=node, replica_id="7")


def test_nobody_waits_for_a_retired_node(company, gone):
    with pytest.raises(creation.NotMade, match="node4: no answer"):
        make(company)
    retire(company)
    cluster = make(company)
    assert Birth.objects.get(cluster_id=cluster.cluster_id).epoch == 0, "it had no cluster of that name"


def test_it_is_said_in_the_browser_at_the_command_line_and_in_the_audit(company, gone, monkeypatch, admin_client):
    assert "node4               silent" in manage(company, monkeypatch, "nodes")
    assert "node4 is retired" in manage(company, monkeypatch, "retire", "node4", "--reason", "rack 7 is sold")
    said = manage(company, monkeypatch, "nodes").splitlines()
    assert [line.split()[:2] for line in said[1:]] == [
        ["node1", "answers"],
        ["node2", "answers"],
        ["node3", "answers"],
        ["node4", "retired"],
    ]
    assert said[1].endswith(" default")
    entry = AuditEntry.objects.get(action="node.retired")
    assert (entry.details, entry.reason) == ({"node": "node4"}, "rack 7 is sold")
    page = admin_client.get("/admin/conclave/node/").content.decode()
    assert page.count(f"{Node.objects.get(name='node4').retired_at:%Y-%m-%d}") > 0
    assert 'class="field-show_retired_at' in page


def test_a_node_that_answers_is_not_retired(company, gone):
    company.silent = set()
    with pytest.raises(retiring.NotRetired, match="node4 answers"):
        retire(company)
    assert not is_retired("node4")


def test_one_that_nobody_knows_is_a_slip(company, gone):
    """Those that are known were all said not to answer."""
    there = r"node1, node2, node3, node4 \(does not answer\)$"
    with pytest.raises(ValueError, match=rf"^node44: no such node is known; these are: {there}"):
        retire(company, "node44")


def test_a_member_is_not_retired_nor_one_that_is_wanted_as_one(company, client, gone):
    company.silent = {"node3", "node4"}
    with pytest.raises(retiring.NotRetired, match=r"node3 is a member of default.*remove-replica default node3"):
        retire(company, "node3")
    edits.say(client, row(), lambda wanted: wanted.adding("node4"))
    with pytest.raises(retiring.NotRetired, match="node4 is wanted as a member of default"):
        retire(company)
    assert not known.retired_nodes()


def test_a_change_that_has_not_reached_the_log_yet_counts_as_well(company, client, gone):
    """Of this cluster: the database has what is wanted of others, too."""
    other = Cluster.objects.create(name="other", cluster_id="99")
    WantedMembership.objects.create(
        cluster=other, generation=1, wanted=encode(Wanted((Place("node9"),))).decode(), changed_at=timezone.now()
    )
    edits.say(client, row(), lambda wanted: wanted.replacing_after(60))
    client.command, real = None, client.command
    with pytest.raises(TypeError):
        edits.say(client, row(), lambda wanted: wanted.adding("node4"))
    client.command = real
    with pytest.raises(retiring.NotRetired, match="node4 is wanted"):
        retire(company)


def test_one_that_was_replaced_is_retired_although_it_is_named_as_leaving(company, client, gone):
    wanted = edits.say(client, row(), lambda wanted: Wanted((*wanted.voters, Place("node4"))).removing("node4"))
    assert wanted.leaving == ("node4",)
    retire(company)
    assert is_retired("node4")


@pytest.mark.parametrize("how", ["no leader", "nobody"])
def test_where_no_log_can_be_asked_nothing_is_retired(company, client, gone, how):
    client.down = True
    if how == "nobody":
        company.silent = {*NAMES}
    with pytest.raises(retiring.NotRetired, match="no leader of default answers" if how == "no leader" else "no node"):
        retire(company)
    assert not is_retired("node4")


def test_one_on_which_a_cluster_is_being_made_is_not_retired(company, gone):
    Birth.objects.create(cluster_id="99", name="third", nodes=["node1", "node2", "node4"], epoch=0)
    with pytest.raises(retiring.NotRetired, match="third is being made on node1, node2, node4"):
        retire(company)
    Birth.objects.update(finished_at=timezone.now())
    retire(company)
    assert is_retired("node4")


def test_a_name_that_it_had_comes_back_only_in_an_epoch_that_is_said(company, gone):
    had("second", gone)
    retire(company)
    with pytest.raises(creation.NotMade, match=r"node4: may have had second.*--epoch"):
        make(company)
    assert Birth.objects.get(cluster_id=make(company, epoch=5).cluster_id).epoch == 5


def test_it_is_back_once_it_reports(company, gone):
    retire(company)
    record.note(
        wire.ReplicaReport("node4", *(0, "default", 0, 1, "waiting", "", 0, "", 0, 0, 0, "", "x", (), {}, False))
    )
    assert not is_retired("node4")
    with pytest.raises(creation.NotMade, match="node4: no answer"):
        make(company)


def test_it_is_back_once_a_cluster_is_made_on_it(company, gone):
    retire(company)
    company.silent = set()
    make(company, on=("node1", "node2", "node4"))
    assert not is_retired("node4")


def test_one_that_serves_a_cluster_again_is_asked_although_no_report_said_so(company, client, gone):
    retire(company)
    client.configuration = Configuration((*client.configuration.voters, Member(4, "node4")))
    with pytest.raises(creation.NotMade, match="node4: no answer"):
        make(company)


def test_nothing_is_wanted_on_a_retired_node(company, gone, monkeypatch):
    retire(company)
    with pytest.raises(CommandError, match="node4: retired, and does not answer"):
        manage(company, monkeypatch, "add-replica", "default", "node4")
    assert is_retired("node4")


def test_without_a_leader_that_could_be_asked_the_command_says_so(company, client, gone, monkeypatch):
    client.down = True
    with pytest.raises(CommandError, match="no leader of default answers"):
        manage(company, monkeypatch, "retire", "node4")
    assert not is_retired("node4")
