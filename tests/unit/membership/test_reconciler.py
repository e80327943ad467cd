"""Saying what is wanted, and the reconciler, on nodes without processes."""

from __future__ import annotations

import logging
import shlex
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError
from django.db import OperationalError
from django.utils import timezone

from coordinator import record, wire
from coordinator.client import errors
from coordinator.consensus.membership import Configuration
from coordinator.membership import clients as membership_clients
from coordinator.membership import creation, edits, nodes, restoration, saying, wanted
from coordinator.membership.clients import Clients
from coordinator.membership.edits import DatabaseBehind
from coordinator.membership.nodes import TaskOutcome
from coordinator.membership.reconciler import Reconciler
from coordinator.membership.wanted import Place, Wanted
from coordinator.models import AuditEntry, Birth, Cluster, Node, Reconciliation, Replica, WantedMembership
from tests.unit.membership.company import Company, FakeClient
from tests.unit.membership.reconciling import DEFAULT, NAMES, look, make, manage, row

pytestmark = pytest.mark.django_db


# --- what is wanted -------------------------------------------------------------------------------


def test_the_first_word_begins_with_what_is_and_the_log_gets_it(client):
    said = edits.say(client, row(), lambda w: w.adding("node4"))
    assert said.nodes == NAMES
    assert client.in_log.generation == 1
    assert wanted.decode(client.in_log.wanted) == said
    assert WantedMembership.objects.get().generation == 1


def test_a_database_that_is_behind_is_refused_and_made_again_from_the_log(client):
    edits.say(client, row(), lambda w: w.adding("node4"))
    edits.say(client, row(), lambda w: w.adding("node5"))
    WantedMembership.objects.update(generation=1, wanted="{}")
    with pytest.raises(DatabaseBehind, match=r"manage\.py cluster rebuild default"):
        edits.say(client, row(), lambda w: w.removing("node1"))
    WantedMembership.objects.all().delete()
    with pytest.raises(DatabaseBehind, match="the database has nothing"):
        edits.say(client, row(), lambda w: w.removing("node1"))
    assert client.in_log.generation == 2
    assert edits.rebuild(client, "default") == 2
    assert edits.say(client, row(), lambda w: w.removing("node1")).nodes == ("node2", "node3", "node4", "node5")


def test_a_database_that_was_changed_by_hand_is_not_called_put_back(client):
    edits.say(client, row(), lambda w: w.adding("node4"))
    WantedMembership.objects.update(wanted="{}")
    said = edits.compare(row(), edits.view_of(client, row()))
    assert said.agreement is edits.Agreement.BEHIND
    assert "the database was changed by hand, or is that of elsewhere" in said.message
    assert "manage.py cluster rebuild default" in said.message


def test_a_rebuild_records_the_replicas_that_there_are(client, monkeypatch):
    replica = wire.ReplicaReport(
        "node1", DEFAULT, "default", 1, 1, "leader", "node1", 2, "", 9, 9, 9, "", "", (), {}, False
    )
    monkeypatch.setattr(client, "status", lambda: {"node1": replica, "node2": None})
    edits.rebuild(client, "default")
    (recorded,) = Replica.objects.all()
    assert (recorded.node.name, recorded.role, recorded.applied_index) == ("node1", "leader", 9)


def test_another_word_under_the_same_generation_is_behind_too(client):
    edits.say(client, row(), lambda w: w.adding("node4"))
    WantedMembership.objects.update(wanted='{"voters":[{"node":"node1"}]}')
    with pytest.raises(DatabaseBehind):
        edits.say(client, row(), lambda w: w.adding("node5"))


def test_cut_off_before_the_log_heard_it_the_reconciler_brings_it_there(client, reconciler, time):
    edits.say(client, row(), lambda w: w)
    real, client.command = client.command, None

    def lost(op):
        raise errors.OutcomeUnknown("no answer in time")

    client.command = lost
    with pytest.raises(errors.OutcomeUnknown):
        edits.say(client, row(), lambda w: w.adding("node4"))
    client.command = real
    assert (client.in_log.generation, WantedMembership.objects.get().generation) == (1, 2)
    assert look(reconciler, time).startswith("moving")
    assert client.in_log.generation == 2


def test_what_the_log_could_not_be_told_any_more_is_said_so_and_in_the_audit(
    client, reconciler, time, company, monkeypatch
):
    """It was said that no leader answers, and was done all the same."""

    def lost(op):
        raise errors.Unavailable("no leader answered within 10 s")

    real, client.command = client.command, lost
    with pytest.raises(
        CommandError,
        match=r"^it is written down, as generation 1 .* need not be said again: .* \(no leader answered within 10 s\)$",
    ):
        manage(company, monkeypatch, "move", "default", "node1", "node4")
    assert AuditEntry.objects.get(action="replica.moved").details == {"source": "node1", "target": "node4"}
    client.command = real
    assert look(reconciler, time, times=8) == "settled: "
    assert {member.node for member in client.configuration.voters} == {"node2", "node3", "node4"}


def test_of_two_that_want_something_at_the_same_time_neither_is_told_that_it_is_refused(client):
    """The second brings to the log what the first has written down, and its own after that."""
    edits.say(client, row(), lambda w: w)
    real = client.command

    def second_comes_first(op):
        client.command = real
        edits.say(client, row(), lambda w: w.adding("node5"))
        return real(op)

    client.command = second_comes_first
    assert edits.say(client, row(), lambda w: w.adding("node4")).nodes == NAMES
    assert wanted.decode(client.in_log.wanted).nodes == (*NAMES, "node5")


def test_what_changes_nothing_takes_no_generation(client):
    edits.say(client, row(), lambda w: w.adding("node4"))
    edits.say(client, row(), lambda w: w)
    assert client.in_log.generation == 1


def test_who_has_left_is_named_no_more(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.moving("node1", "node4"))
    assert edits.say(client, row(), lambda w: w.replacing_after(7)).leaving == ("node1",), "it hosts its replica yet"
    assert look(reconciler, time, times=8) == "settled: "
    company.silent = {"node1"}
    assert edits.say(client, row(), lambda w: w.replacing_after(8)).leaving == ("node1",), "nobody knows"
    company.silent, company.deaf = set(), True
    assert edits.say(client, row(), lambda w: w.replacing_after(9)).leaving == ("node1",), "nobody can be asked"
    company.deaf = False
    generation = client.in_log.generation
    assert edits.say(client, row(), lambda w: w).leaving == ("node1",), "no change for that alone"
    assert client.in_log.generation == generation
    said = edits.say(client, row(), lambda w: w.removing("node4"))
    assert said.leaving == ("node4",)
    assert wanted.decode(client.in_log.wanted) == said
    assert look(reconciler, time, times=4) == "settled: "


def test_a_member_that_lost_its_replica_has_not_left(client, company):
    edits.say(client, row(), lambda w: w.removing("node3"))
    company.hosted["node3"].clear()
    assert edits.say(client, row(), lambda w: w.replacing_after(7)).leaving == ("node3",)


def test_more_than_the_log_takes_is_refused_before_the_database_has_it(client, reconciler, time):
    """Else the database was one ahead for ever, and no change reached the log any more."""
    leaving = tuple(f"node{number}" for number in range(100, 1_500))
    said = edits.say(client, row(), lambda w: Wanted(w.voters, leaving, 100))
    with pytest.raises(errors.InvalidRequest, match="names 1900 nodes that are to leave and have not said yet"):
        edits.say(client, row(), lambda w: Wanted(w.voters, (*leaving, *(f"other{n}" for n in range(500)))))
    assert wanted.decode(client.in_log.wanted) == said
    assert edits.say(client, row(), lambda w: w.replacing_after(7)).replace_after_s == 7
    assert WantedMembership.objects.get().generation == client.in_log.generation
    assert "refused" not in look(reconciler, time)


# --- the reconciler -------------------------------------------------------------------------------


def test_of_a_cluster_that_nobody_spoke_of_nothing_is_changed(client, reconciler, time, company):
    before = client.configuration
    assert look(reconciler, time).startswith("unmanaged")
    assert client.configuration == before
    assert company.asked == []


def test_a_node_that_has_moved_is_found_there_also_where_nobody_has_said_what_is_wanted(
    client, reconciler, time, company
):
    """Nodes that are all started again look for each other where the log says."""
    company.addresses = {"node2": "redis://two:6379"}
    assert look(reconciler, time) == "moving: node2: the mailbox is elsewhere now"
    assert [m.address for m in client.configuration.voters] == ["", "redis://two:6379", ""]
    assert look(reconciler, time).startswith("unmanaged")
    assert client.in_log.generation == 0


def test_a_replica_is_added_step_by_step(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.adding("node4"))
    assert look(reconciler, time) == "moving: node4 is asked to host a replica"
    assert look(reconciler, time) == "moving: node4 is added as a learner"
    assert look(reconciler, time) == "moving: node4 has caught up and votes"
    assert look(reconciler, time) == "settled: "
    assert [member.node for member in client.configuration.voters] == [*NAMES]


@pytest.mark.parametrize("how", ["not committed", "joint"])
def test_while_a_change_is_under_way_no_other_is_begun(client, reconciler, time, company, monkeypatch, how):
    edits.say(client, row(), lambda w: w.adding("node4"))
    seen = client.progress()
    changes = {"configuration_index": seen.commit_index + 1} if how == "not committed" else {"outgoing": seen.voters}
    with monkeypatch.context() as patch:
        patch.setattr(client, "progress", lambda **_: msgspec.structs.replace(seen, **changes))
        assert look(reconciler, time) == "waiting: a change of the membership is being committed"
    assert company.asked == []
    assert look(reconciler, time) == "moving: node4 is asked to host a replica"


def test_a_node_that_says_nothing_is_asked_again_as_soon_each_time(client, reconciler, time, company, monkeypatch):
    """It has refused nothing: only who refuses is asked ever more seldom."""
    monkeypatch.setattr(company, "_host_replica", lambda *_, **__: TaskOutcome("pending", "posted", "0"))
    edits.say(client, row(), lambda w: w.adding("node4"))
    asked: list[int] = []
    for second in range(31):
        time.now += 1
        reconciler.look()
        if len(company.asked) > len(asked):
            asked.append(second)
    assert asked == [*range(0, 31, 5)]


def test_what_a_node_refuses_is_said_and_asked_for_again_ever_more_seldom(
    client, reconciler, time, company, monkeypatch
):
    def refuse(node: str, **arguments: Any) -> TaskOutcome:
        return TaskOutcome("refused", f"this node hosts a replica of another {arguments['cluster_name']}: 99", "0")

    hosts = company._host_replica
    monkeypatch.setattr(company, "_host_replica", refuse)
    edits.say(client, row(), lambda w: w.adding("node4"))
    said: list[Reconciliation] = []
    asked: list[int] = []
    for second in range(300):
        time.now += 1
        reconciler.look()
        if len(company.asked) > len(asked):
            asked.append(second)
        said.append(Reconciliation.objects.get(cluster__cluster_id="aa"))
    assert said[0].message == "node4 is asked to host a replica"
    refused = "node4 is asked to host a replica, and refuses: this node hosts a replica of another default: 99"
    assert {(each.state, each.message) for each in said[1:]} == {("waiting", refused)}
    assert len({each.since for each in said[1:]}) == 1, "it is one and the same word, also where it is asked again"
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255]
    monkeypatch.setattr(company, "_host_replica", hosts)
    for _ in range(70):
        time.now += 1
        reconciler.look()
    assert look(reconciler, time) == "settled: "


def test_the_leaders_replica_is_moved_and_then_deleted(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.moving("node1", "node4"))
    assert look(reconciler, time, times=8) == "settled: "
    assert sorted(member.node for member in client.configuration.voters) == ["node2", "node3", "node4"]
    assert company.hosted["node1"] == {}
    assert client.configuration.node_of(client.leader) != "node1"


def test_a_node_that_was_to_leave_and_is_to_be_a_witness_becomes_one(client, reconciler, time, company, monkeypatch):
    manage(company, monkeypatch, "remove-replica", "default", "node3")
    manage(company, monkeypatch, "add-replica", "default", "node3", "--witness")
    with pytest.raises(CommandError, match="not within"):
        manage(company, monkeypatch, "add-replica", "default", "node4", "--wait", "0.01")
    assert look(reconciler, time, times=12) == "settled: "
    assert {m.node: m.witness for m in client.configuration.voters} == {
        "node1": False,
        "node2": False,
        "node3": True,
        "node4": False,
    }


def test_a_database_that_was_put_back_changes_nothing(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.adding("node4"))
    look(reconciler, time, times=5)
    before = client.configuration
    WantedMembership.objects.all().delete()
    assert look(reconciler, time).startswith("refused: the database has nothing of the wanted membership")
    assert client.configuration == before
    assert "cluster rebuild default" in saying.by_cluster()["default"].words
    edits.rebuild(client, "default")
    assert look(reconciler, time) == "settled: "


def test_a_node_that_is_gone_for_good_is_replaced(client, reconciler, time, company):
    edits.say(client, row(), lambda w: wanted.Wanted(w.voters, (), 100))
    assert look(reconciler, time) == "settled: "
    company.silent = {"node3"}
    assert "node3 does not answer: it is replaced after 100 s" in look(reconciler, time)
    time.now += 100
    assert "node4 takes its place" in look(reconciler, time)
    assert "node3 has a replica to delete that is no member any more" in look(reconciler, time, times=4)
    assert sorted(member.node for member in client.configuration.voters) == ["node1", "node2", "node4"]
    company.silent = set()
    assert look(reconciler, time, times=3) == "settled: "
    assert company.hosted["node3"] == {}, "what came back was out"


@pytest.fixture
def long_silent(client, company) -> None:
    """node3's replica was stopped an hour ago."""
    company.host("node3", "aa", "default", "3", "stopped")
    real = client.progress

    def progress(**options: Any):
        seen = real(**options)
        members = [m if m.replica != 3 else msgspec.structs.replace(m, heard_ms=3_600_000) for m in seen.members]
        return msgspec.structs.replace(seen, members=tuple(members))

    client.progress = progress


@pytest.mark.usefixtures("long_silent")
def test_a_node_that_the_first_look_missed_is_not_gone_for_good(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.replacing_after(600))
    company.silent = {"node3"}
    assert look(reconciler, time) == (
        "waiting: node3 does not answer: it is replaced after 600 s, of which 0 have passed"
    )
    company.silent = set()
    assert look(reconciler, time) == "waiting: the replica on node3 is stopped"
    assert wanted.decode(client.in_log.wanted).nodes == ("node1", "node2", "node3")


@pytest.mark.usefixtures("long_silent")
def test_a_node_that_no_look_finds_is_gone_for_good_in_the_end(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.replacing_after(600))
    company.silent = {"node3"}
    look(reconciler, time)
    time.now += 500
    assert "does not answer" in look(reconciler, time)
    time.now += 100
    assert "node4 takes its place" in look(reconciler, time)


def test_a_node_that_answers_behind_those_that_are_expected_is_found_all_the_same(
    client, reconciler, time, company, monkeypatch
):
    """A look ends with the last answer that it waits for: a node that was always slower was never heard of again."""

    def look_for(expected: Any = None, timeout_s: float = 1.0) -> dict[str, nodes.NodeReport]:
        said = everybody()
        return {name: said[name] for name in sorted(said)[: len(expected or said)]}

    everybody = company.look
    monkeypatch.setattr(nodes, "look", look_for)
    edits.say(client, row(), lambda w: w.adding("node4"))
    company.silent = {"node4"}
    assert look(reconciler, time) == "waiting: node4 is to get a replica, and does not answer"
    company.silent = set()
    assert look(reconciler, time) == "moving: node4 is asked to host a replica"
    assert look(reconciler, time, times=3) == "settled: "


def test_without_a_broker_or_a_leader_it_says_so(client, reconciler, time, company):
    edits.say(client, row(), lambda w: w.adding("node4"))
    look(reconciler, time)
    company.deaf = True
    assert "broker" in look(reconciler, time)
    company.deaf, client.down = False, True
    assert "no leader" in look(reconciler, time)


def test_a_cluster_that_is_as_wanted_is_left_alone_for_a_while(client, reconciler, time):
    edits.say(client, row(), lambda w: w)
    look(reconciler, time)
    client.progress = None  # Would fail if it were asked.
    time.now += 2
    reconciler.look()


def test_a_cluster_that_is_gone_keeps_nobody_busy(client, reconciler, time, company, monkeypatch):
    """The moment at which it was to be looked at next never passed, and every node was asked every second."""
    edits.say(client, row(), lambda w: w)
    second = make(company)
    assert look(reconciler, time) == "settled: "
    for hosted in company.hosted.values():
        hosted.pop(second.cluster_id, None)
    assert look(reconciler, time) == "settled: "
    monkeypatch.setattr(nodes, "look", None)  # Would fail if they were asked.
    time.now += 2
    reconciler.look()


def test_a_cluster_that_only_a_retired_node_had_is_asked_no_more(company, reconciler, time):
    """It was asked at each look until the reconciler ended, and everybody else waited for its time-out."""
    second = make(company, replicas=1)
    look(reconciler, time)
    (node,) = [name for name, hosted in company.hosted.items() if second.cluster_id in hosted]
    company.silent = {node}
    look(reconciler, time)
    Node.objects.filter(name=node).update(retired_at=timezone.now())
    del company.clusters["second"]
    before = Reconciliation.objects.get(cluster__cluster_id=second.cluster_id).looked_at
    look(reconciler, time, times=5)
    assert Reconciliation.objects.get(cluster__cluster_id=second.cluster_id).looked_at == before


def test_of_a_cluster_that_is_gone_no_client_is_kept(company, time):
    """Each has a connection and a thread, and they were kept for as long as the reconciler ran."""
    kept: list[set[str]] = []
    reconciler = Reconciler(lambda name: company.clusters[name], time, keep=lambda names: kept.append({*names}))
    second = make(company)
    look(reconciler, time)
    assert kept[-1] == {"default", "second"}
    for hosted in company.hosted.values():
        hosted.pop(second.cluster_id, None)
    look(reconciler, time)
    assert kept[-1] == {"default"}


def test_clients_of_other_clusters_are_closed():
    with Clients() as clients:
        default, second = clients("default"), clients("second")
        clients.keep({"default"})
        assert clients("default") is default
        assert clients("second") is not second
        with pytest.raises(errors.Closed):
            second.get("a")


def test_clients_are_as_many_as_may_be_however_many_clusters_there_are(monkeypatch):
    monkeypatch.setattr(membership_clients, "CLIENTS_MAX", 3)
    with Clients() as clients:
        first, second, third, _ = (clients(name) for name in ("default", "second", "third", "fourth"))
        with pytest.raises(errors.Closed):
            third.get("a")
        assert [clients("default"), clients("second")] == [first, second]
        assert clients("third") is not third


class Lock:
    """A client's lock that is granted, or not, as the test says."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self.grants: list[bool | Exception] = []
        self.held = True
        self.taken = 0

    def lock(self, name: str, *, ttl: float, wait: float):
        assert name == "conclave/reconciler"
        granted = self.grants.pop(0) if self.grants else True
        if isinstance(granted, Exception):
            raise granted
        if not granted:
            raise errors.LockNotAcquired(name, None)
        self.taken += 1
        self.held = True
        return self

    token = 1

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None: ...

    def check(self) -> None:
        if not self.held:
            raise errors.LeaseLost("lost")


def test_it_works_under_the_lock_alone(client, company, time):
    """Where another has the lock it waits; where its own lease is lost it does nothing more under it."""
    edits.say(client, row(), lambda w: w.adding("node4"))
    lock = Lock(company)
    client.lock = lock.lock
    reconciler = Reconciler(company.clusters.__getitem__, time)
    turns = []

    def stopping(seconds: float) -> bool:
        turns.append((lock.taken, len(company.asked), lock.held))
        time.now += 11
        if len(turns) == 8:
            lock.held = False  # As a pause of the process would have it.
        return len(turns) > 14

    lock.grants = [False, errors.Busy("too much at once"), True]
    reconciler.run(stopping)
    assert all(asked == 0 for taken, asked, _ in turns if not taken)
    assert lock.taken >= 2, "taken again after it was lost"
    lost = [asked for _, asked, held in turns if not held]
    assert len(set(lost)) <= 1, "nothing was asked while it was lost"
    assert company.hosted["node4"]


def test_a_trouble_that_lasts_is_no_line_of_the_log_each_time(client, company, time, monkeypatch, caplog):
    """Who waits behind another reconciler does so for as long as that one runs, and a database may be away for days."""
    caplog.set_level(logging.INFO, "coordinator.membership.reconciler")
    lock = Lock(company)
    client.lock = lock.lock
    reconciler = Reconciler(company.clusters.__getitem__, time)
    lock.grants = [False] * 100
    turns = []

    def stopping(seconds: float) -> bool:
        turns.append(lock.taken)
        time.now += 6
        return len(turns) > 400

    def away(*_: object, **__: object) -> object:
        raise OperationalError("no such table: conclave_wantedmembership")

    with monkeypatch.context() as without:
        without.setattr(WantedMembership.objects, "values_list", away)
        reconciler.run(stopping)
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= sum("not acquired" in line for line in said) <= 3, "100 tries in 20 minutes"
    assert 1 <= sum("migrate" in line for line in said) <= 3, "200 looks in 20 minutes"
    assert len(said) <= 8
    reconciler.look()
    assert "the database can be used again" in [record.getMessage() for record in caplog.records]


# --- an earlier cluster of the name ---------------------------------------------------------------


def made_again(company: Company) -> Any:
    """Of `second` one cluster was lost, whose wanted membership the database has, and another was made. A replica of
    the first is back on node1. The new one's client."""
    lost = edits.cluster_row("second", 0x77)
    text = wanted.encode(Wanted(tuple(Place(f"node{number}") for number in (1, 2, 3)), ("node4",), 5)).decode()
    WantedMembership.objects.create(cluster=lost, generation=2, wanted=text)
    for number, name in enumerate(("node1", "node2", "node3"), 5):
        node, _ = Node.objects.get_or_create(name=name)
        lost.replicas.create(node=node, replica_id=f"{number}")
    company.epochs["node2"]["second"] = company.epochs["node3"]["second"] = 0
    make(company, on=("node2", "node3", "node4"))
    company.host("node1", "77", "second", "5")
    return company.clusters["second"]


def test_what_was_wanted_of_an_earlier_cluster_of_the_name_is_not_written_into_the_new_ones_log(
    company, reconciler, time
):
    again = made_again(company)
    before, members = again.in_log, again.configuration
    look(reconciler, time, times=5)
    assert (again.in_log, again.configuration) == (before, members)
    assert before.generation == 1, "behind the other's by one, as if a change had not reached it"
    said = {each.cluster.cluster_id: each for each in Reconciliation.objects.filter(cluster__name="second")}
    assert said["77"].message == f"another cluster has the name second now: {again.cluster_id:x}"
    assert said[f"{again.cluster_id:x}"].state == "settled"
    with pytest.raises(edits.OtherCluster, match="another cluster has the name second now"):
        edits.say(again, edits.cluster_row("second", 0x77), lambda w: w.removing("node1"))
    assert again.in_log == before


def test_what_the_cluster_refuses_is_said_and_tried_again(client, reconciler, time, monkeypatch):
    """As where another operator was quicker: it ends no look at the others."""
    edits.say(client, row(), lambda w: w.adding("node4"))
    look(reconciler, time)

    def refuses(*_: object) -> int:
        raise errors.Refused("the membership has changed since")

    with monkeypatch.context() as patch:
        patch.setattr(client, "change", refuses)
        assert look(reconciler, time) == "waiting: refused by the cluster: the membership has changed since"
    assert look(reconciler, time) == "moving: node4 is added as a learner"


def test_a_cluster_that_is_restored_between_two_questions_is_left_alone(client, reconciler, time, company, monkeypatch):
    """What is wanted was asked of the one, and who the members are of the other."""
    edits.say(client, row(), lambda w: w.adding("node4"))
    seen = client.progress()

    def of_another(**_):
        client.cluster_id = 0xBB
        return seen

    monkeypatch.setattr(client, "progress", of_another)
    assert look(reconciler, time) == "waiting: another cluster has the name default now: bb"
    assert company.asked == []


def test_a_rebuild_after_an_earlier_cluster_came_back_moves_no_replica(company, reconciler, time):
    again = made_again(company)
    look(reconciler, time, times=3)
    edits.rebuild(again, "second")
    look(reconciler, time, times=12)
    assert {member.node for member in again.configuration.voters} == {"node2", "node3", "node4"}


def test_a_silent_nodes_word_of_an_earlier_cluster_does_not_count(company, reconciler, time):
    made_again(company)
    look(reconciler, time)
    company.silent = {"node1"}
    look(reconciler, time)
    before = Reconciliation.objects.get(cluster__cluster_id="77").looked_at
    look(reconciler, time, times=5)
    assert Reconciliation.objects.get(cluster__cluster_id="77").looked_at == before


# --- the command, the page and the admin ----------------------------------------------------------


def test_the_command_says_which_nodes_are_gone_and_writes_it_into_the_audit(company, client, monkeypatch):
    company.silent = {"node3"}
    company.clusters["second"] = client  # Looked up before there is a cluster that it is of.
    arguments = ("create", "second", "--on", "node1,node2")
    with pytest.raises(CommandError, match=r"node3: no answer.*--gone node3"):
        manage(company, monkeypatch, *arguments)
    del company.clusters["second"]
    monkeypatch.setattr(
        creation, "create", lambda *_, **said: Birth.objects.create(cluster_id="99", nodes=said["gone"])
    )
    manage(company, monkeypatch, *arguments, "--gone", "node3", "--epoch", "4")
    assert AuditEntry.objects.get().details == {"on": ["node1", "node2"], "replicas": 1, "gone": ["node3"]}


def test_the_status_says_who_is_a_witness(company, client, monkeypatch):
    *full, last = client.configuration.voters
    client.configuration = Configuration((*full, last._replace(witness=True)))
    lines = manage(company, monkeypatch, "status").splitlines()
    assert [line.split()[0] for line in lines if line.endswith("  a witness")] == [last.node]


def test_the_status_says_what_keeps_a_node_that_answers_from_what_it_is_to_do(company, client, monkeypatch):
    why = "its disk does not take a snapshot: no space left"
    monkeypatch.setattr(
        client, "status", lambda: {"node1": SimpleNamespace(waiting_for=why), "node2": SimpleNamespace(waiting_for="")}
    )
    lines = manage(company, monkeypatch, "status").splitlines()
    assert [line for line in lines if why in line] == [line for line in lines if line.startswith("node1 ")]


def test_the_command_says_what_is_wanted_and_what_it_waits_for(company, client, reconciler, time, monkeypatch):
    assert "nobody has said yet" in manage(company, monkeypatch, "status")
    assert "manage.py cluster replace-after default 600" in manage(company, monkeypatch, "status")
    assert "wanted: replicas of default on node1, node2, node3, node4" in manage(
        company, monkeypatch, "add-replica", "default", "--reason", "more"
    )
    entry = AuditEntry.objects.get(action="replica.added")
    assert (entry.reason, entry.details["node"]) == ("more", "node4")
    company.silent = {"node4"}
    look(reconciler, time)
    status = manage(company, monkeypatch, "status")
    assert "wanted (generation 1): node1, node2, node3, node4" in status
    assert "waiting: node4 is to get a replica, and does not answer" in status
    with pytest.raises(CommandError, match="node9 has no replica"):
        manage(company, monkeypatch, "remove-replica", "default", "node9")
    with pytest.raises(CommandError, match="already"):
        manage(company, monkeypatch, "add-replica", "default", "node1")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("add-replica default node4 --priority 18446744073709551615", "^expected a priority from -1000 to 1000, got"),
        ("add-replica default node77", "^node77: no such node is known; these are: node1, node2, node3, node4$"),
        ("add-replica default Node_4", "^a node's name matches .*, got 'Node_4'$"),
        ("add-replica default " + "n" * 10_000, "^a node's name matches .{1,90}$"),
        ("add-replica default ''", "^a node's name matches .*, got ''$"),
        ("add-replica default node4 --wait nan", "^expected --wait from 0 to 86400 seconds, got nan$"),
        ("add-replica default node4 --wait=-5", "^expected --wait from 0 to 86400 seconds, got -5$"),
        ("add-replica default node4 --wait inf", "^expected --wait from 0 to 86400 seconds, got inf$"),
        ("move default node1 node77", "^node77: no such node is known"),
        ("move default node77 node4", "^node77 has no replica that is wanted; these have: node1, node2, node3$"),
        ("move default node1 n_", "^a node's name matches"),
        ("remove-replica default node77", "^node77 has no replica of default; these have: node1, node2, node3$"),
        ("remove-replica default node77 --force", "^node77: no such node is known"),
        ("replace-after default 100000000000000000000000", r"^expected 0 \(never\) to 31536000 seconds, got 1"),
        ("replace-after default -- -1", r"^expected 0 \(never\) to 31536000 seconds, got -1$"),
        ("zone '' a", "^a node's name matches .*, got ''$"),
        ("zone node77 a", "^node77: no such node is known"),
        ("zone node1 " + "z" * 10_000, "^a zone's name matches .{1,90}$"),
        ("transfer default ''", "^a node's name matches"),
        ("stop-replica default node77", "^node77: no such node is known; these are: node1, node2, node3, node4$"),
        ("start-replica default node77", "^node77: no such node is known"),
        ("compact default node77", "^node77: no such node is known"),
        ("backup default node77", "^node77: no such node is known"),
        ("status " + "c" * 10_000, "^a cluster's name matches .{1,90}$"),
    ],
)
def test_a_slip_is_refused_in_one_line_before_anything_is_written_down(company, client, monkeypatch, arguments, why):
    with pytest.raises(CommandError, match=why):
        manage(company, monkeypatch, *shlex.split(arguments))
    assert (company.asked, client.in_log.generation) == ([], 0)
    assert not WantedMembership.objects.exists()
    assert not AuditEntry.objects.exists()
    assert not Node.objects.exists()


def test_a_node_of_the_record_is_known_though_it_does_not_answer(company, client, monkeypatch):
    Node.objects.create(name="node5")
    assert "node3, node5" in manage(company, monkeypatch, "add-replica", "default", "node5")


def test_a_status_of_a_cluster_that_there_is_not_fails(company, client, monkeypatch):
    Cluster.objects.create(name="of-another-name", cluster_id="77")
    company.clusters["nosuch"] = FakeClient(0, company)
    company.clusters["nosuch"].down = True
    with pytest.raises(CommandError, match=r"^there is no cluster nosuch; these are: default$"):
        manage(company, monkeypatch, "status", "nosuch")


def test_a_status_without_a_leader_fails(company, client, monkeypatch):
    client.down = True
    with pytest.raises(CommandError, match=r"^no leader answers: "):
        manage(company, monkeypatch, "status", "default")


def test_waiting_until_it_is_so_ends_with_what_it_waits_for(company, client, monkeypatch):
    with pytest.raises(CommandError, match=r"not within 0\.1 s"):
        manage(company, monkeypatch, "add-replica", "default", "node4", "--wait", "0.1")


def test_force_deletes_at_the_nodes_own_name(company, monkeypatch):
    manage(company, monkeypatch, "remove-replica", "default", "node3", "--force")
    assert company.hosted["node3"] == {}
    assert company.asked[-1][2]["forced"] == "node3"
    assert AuditEntry.objects.get(action="replica.forced-out").outcome == "done"


@pytest.mark.parametrize("arguments", ["remove-replica default node3 --force", "stop-replica default node3"])
def test_what_a_node_has_not_answered_in_time_is_in_the_audit(company, monkeypatch, arguments):
    """It may do it all the same, and did."""
    monkeypatch.setattr(nodes, "outcomes", lambda *_, **__: {})
    with pytest.raises(
        CommandError, match=r"^node3 was asked, .*: where it takes that within 60 s of being asked, it does it still"
    ):
        manage(company, monkeypatch, *arguments.split())
    assert AuditEntry.objects.get().outcome == "unknown"


@pytest.mark.parametrize("arguments", ["remove-replica default node3 --force", "stop-replica default node3"])
@pytest.mark.parametrize("how", [KeyboardInterrupt(), nodes.BrokerUnavailable("gone")], ids=["interrupt", "broker"])
def test_what_nobody_waits_for_any_more_is_in_the_audit(company, monkeypatch, arguments, how):
    """The node has it in hand, and does it."""

    def outcomes(*_: object, **__: object) -> dict[str, TaskOutcome]:
        assert company.asked
        raise how

    monkeypatch.setattr(nodes, "outcomes", outcomes)
    with pytest.raises((KeyboardInterrupt, CommandError)):
        manage(company, monkeypatch, *arguments.split())
    assert AuditEntry.objects.get().outcome == "unknown"


@pytest.mark.parametrize(
    ("arguments", "module", "name"),
    [
        ("create second --replicas 1 --on node1", creation, "create"),
        ("restore default /a/backup --nodes node1", restoration, "restore"),
    ],
)
def test_a_cluster_that_somebody_stops_waiting_for_is_in_the_audit(company, monkeypatch, arguments, module, name):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        manage(company, monkeypatch, *arguments.split())
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.outcome) == (f"cluster.{name.removesuffix('e')}ed", "unknown")


def test_a_transfer_that_has_not_come_to_be_in_time_is_in_the_audit(company, client, monkeypatch):
    """It may come to be a moment later."""

    def transfer(node: str) -> int:
        raise errors.Unavailable(f"{node} does not lead yet; node1 does, in term 3")

    monkeypatch.setattr(client, "transfer", transfer)
    with pytest.raises(CommandError, match=r"^node2 does not lead yet"):
        manage(company, monkeypatch, "transfer", "default", "node2")
    entry = AuditEntry.objects.get(action="leadership.transferred")
    assert (entry.outcome, entry.details) == ("unknown", {"node": "node2"})


def test_the_admin_shows_it(company, client, reconciler, time, admin_client):
    edits.say(client, row(), lambda w: w.adding("node9"))
    look(reconciler, time)
    page = admin_client.get(f"/admin/conclave/cluster/{row().pk}/change/").content.decode()
    assert "replicas on node1, node2, node3, node9 (generation 1)" in page
    assert "node9 is to get a replica, and does not answer" in page
    assert "waiting" in admin_client.get("/admin/conclave/cluster/").content.decode()


def test_a_reconciler_that_fell_silent_is_noticed(company):
    """On the live page, too: what was as wanted when it looked last was all that the page knew, and it said nothing."""
    old = timezone.now() - 2 * saying.STALE_AFTER
    said = Reconciliation.objects.create(cluster=row(), state="settled", looked_at=old)
    assert "does it run?" in saying.in_words(said, timezone.now())
    assert "does it run?" in saying.by_cluster()["default"].words
    Reconciliation.objects.update(looked_at=timezone.now())
    assert saying.by_cluster()["default"].words == ""
    assert record.identity(DEFAULT) == "aa"


def test_one_that_can_not_take_its_lock_says_so_where_nobody_looks(client, company, time):
    """Without a leader it runs, and was asked after as if it did not. Where another holds the lock, that one looks."""
    edits.say(client, row(), lambda w: w)
    reconciler = Reconciler(company.clusters.__getitem__, time)
    assert look(reconciler, time) == "settled: "
    gone = Cluster.objects.create(name="gone", cluster_id="77")
    long_ago = timezone.now() - 9 * saying.STALE_AFTER
    Reconciliation.objects.create(cluster=gone, state="settled", looked_at=long_ago)
    lock = Lock(company)
    client.lock = lock.lock

    def turn() -> str:
        turns = iter([False, True])
        lock.grants = [errors.Unavailable("no leader is known")]
        reconciler.run(lambda seconds: bool(seconds) or next(turns))
        return saying.in_words(saying.of(row()), timezone.now())

    assert turn() == "as wanted", "another one may look"
    Reconciliation.objects.filter(cluster=row()).update(looked_at=timezone.now() - saying.STALE_AFTER)
    assert turn() == "waiting: the reconciler does not have its lock: no leader is known"
    assert Reconciliation.objects.get(cluster=gone).looked_at == long_ago
    assert saying.figures().as_wanted == {"default": False}
    del client.lock
    assert look(reconciler, time) == "settled: "
    assert saying.figures().as_wanted == {"default": True}


def test_a_reconciler_that_fell_silent_is_noticed_behind_a_clock_that_was_put_back(company):
    said = Reconciliation.objects.create(cluster=row(), state="settled", looked_at=timezone.now())
    assert saying.in_words(said, said.looked_at - saying.STALE_AFTER) == "as wanted", "it will look again soon"
    assert "does it run?" in saying.in_words(said, said.looked_at - 2 * saying.STALE_AFTER)
