"""Making clusters, on nodes without processes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from coordinator.membership import creation, edits, nodes, wanted
from coordinator.models import Birth, Cluster, Node
from coordinator.statemachine.locks import EPOCH_MAX
from coordinator.statemachine.wanted import Wanted as InTheLog
from tests.unit.membership.company import Company
from tests.unit.membership.reconciling import make

pytestmark = pytest.mark.django_db


def cut_off(company: Company, silent: str, *on: str, **options) -> Birth:
    """A try one of whose nodes falls silent as it is asked to host: there is no document."""
    real = company.ask

    def ask(node: str, task: str, request: str, **arguments: Any) -> None:
        company.silent = {silent}
        real(node, task, request, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "ask", ask)
        with pytest.raises(creation.NotMade, match="Give the command again"):
            make(company, on=on, **options)
    company.silent = set()
    birth = Birth.objects.get()
    assert birth.members == []
    return birth


def test_a_cluster_is_made_of_what_the_nodes_drew(company):
    Node.objects.create(name="node4", zone="b")
    Node.objects.create(name="node1", zone="a")
    cluster = make(company)
    birth = Birth.objects.get()
    assert (birth.cluster_id, birth.epoch, birth.finished_at is not None) == (cluster.cluster_id, 0, True)
    drawn = {node: company.hosted[node][cluster.cluster_id].replica for node in birth.nodes}
    assert {node: replica for replica, node, *_ in birth.members} == drawn
    assert {"node1", "node4"} <= set(birth.nodes), "spread over zones"
    assert company.clusters["second"].in_log.generation == 1


def test_a_try_that_was_cut_off_is_gone_on_with_under_the_same_document(company):
    birth = cut_off(company, "node2", "node1", "node2", "node3")
    real, company._form_cluster = company._form_cluster, None
    with pytest.raises(TypeError):
        make(company)
    written = Birth.objects.get()
    assert written.pk == birth.pk
    assert len(written.members) == 3
    company._form_cluster = real
    make(company)
    assert Birth.objects.get().members == written.members


def test_nodes_that_would_begin_different_logs_form_nothing(company):
    company.fingerprint["node2"] = "other"
    with pytest.raises(creation.NotMade, match="different"):
        make(company, on=("node1", "node2", "node3"))
    assert not any(task == "form_cluster" for _, task, _ in company.asked)


def test_a_name_that_is_there_is_not_made_again(company):
    with pytest.raises(creation.NotMade, match="there is a cluster default"):
        make(company, "default")


def test_a_name_that_is_served_by_nodes_that_the_broker_does_not_reach_is_not_made_again(company):
    """The database was lost, too: their mailboxes alone say that it is there."""
    company.silent = {"node1", "node2", "node3"}
    with pytest.raises(creation.NotMade, match=r"there is a cluster default \(aa\): node1, node2, node3 serve it"):
        make(company, "default", 1, on=("node4",))
    assert not Birth.objects.exists()


def test_of_two_who_make_one_name_at_the_same_time_one_is_refused(company, monkeypatch):
    look = company.look

    def another_begins(*arguments, **options):
        if not Birth.objects.exists():
            Birth.objects.create(name="second", cluster_id="99")
        return look()

    seen = iter([None])
    real = creation.under_way
    monkeypatch.setattr(creation, "under_way", lambda name: next(seen, real(name)))
    monkeypatch.setattr(nodes, "look", another_begins)
    with pytest.raises(creation.NotMade, match="somebody else is making second"):
        make(company)


def test_a_name_that_was_made_while_one_looked_is_not_made_again(company, monkeypatch):
    look, looks = company.look, []

    def another_is_quicker(*arguments, **options):
        looks.append(1)
        if len(looks) == 2:
            company.host("node1", "99", "second", "5")
        return look()

    monkeypatch.setattr(nodes, "look", another_is_quicker)
    with pytest.raises(creation.NotMade, match="there is a cluster second"):
        make(company)
    assert not Birth.objects.exists()


def test_a_node_that_is_too_busy_for_one_look_is_looked_for_again(company, monkeypatch):
    looks = iter([{"node1", "node4"}, {"node2", "node4"}])

    def look(expected=None, timeout_s=1.0):
        company.silent = next(looks, set())
        return company.look(expected, timeout_s)

    monkeypatch.setattr(nodes, "look", look)
    assert make(company).name == "second"
    assert len(Birth.objects.get().nodes) == 3


def test_a_node_of_the_record_that_one_look_missed_is_looked_for_again(company, monkeypatch):
    """Enough answered without it, and yet it may know an epoch of that name."""
    Node.objects.create(name="node4")
    looks = iter([{"node4"}])

    def look(expected=None, timeout_s=1.0):
        company.silent = next(looks, set())
        return company.look(expected, timeout_s)

    monkeypatch.setattr(nodes, "look", look)
    assert make(company).name == "second"


def test_more_replicas_than_nodes_are_refused(company):
    with pytest.raises(creation.NotMade, match="4 answer"):
        make(company, replicas=5)


def test_a_name_that_comes_back_begins_above_every_epoch_that_it_had(company):
    old = Cluster.objects.create(name="second", cluster_id="77")
    for number, name in enumerate(("node1", "node2", "node3")):
        node = Node.objects.create(name=name)
        old.replicas.create(node=node, replica_id=f"{number}")
    with pytest.raises(creation.NotMade, match="--epoch"):
        make(company)
    company.epochs["node1"]["second"] = 4
    company.epochs["node2"]["second"] = 6
    make(company)
    assert Birth.objects.get().epoch == 7


def unreachable(company: Company, *names: str) -> None:
    """A second cluster on these nodes, which neither the broker nor this client's Redis reaches."""
    company.silent = {*names}
    for number, name in enumerate(names, 5):
        company.host(name, "77", "second", f"{number:x}")
        company.epochs[name]["second"] = 1


def test_while_its_nodes_are_unreachable_no_second_cluster_of_the_name_is_made(company):
    """Not by a database that knows it, with an epoch that was given, nor by one that was lost."""
    unreachable(company, "node2", "node3")
    with pytest.raises(
        creation.NotMade, match=r"^node2, node3: no answer, and second may still be there.*--gone node2,n"
    ):
        make(company, replicas=2)
    old = Cluster.objects.create(name="second", cluster_id="77")
    old.replicas.create(node=Node.objects.create(name="node5"), replica_id="5")
    with pytest.raises(creation.NotMade, match=r"^node2, node3, node5: no answer.*--gone node2,node3,node5$"):
        make(company, replicas=2, epoch=7)
    assert (Birth.objects.count(), company.asked) == (0, [])


def test_a_node_that_only_the_record_knows_or_only_an_earlier_try_is_asked_too(company):
    Node.objects.create(name="node5")
    over = {"members": [["1", "node6", "", 0]], "finished_at": timezone.now()}
    Birth.objects.create(name="second", cluster_id="77", nodes=["node6"], epoch=1, **over)
    with pytest.raises(creation.NotMade, match=r"^node5, node6: no answer"):
        make(company, epoch=7)
    with pytest.raises(creation.NotMade, match=r"^node6: no answer.*--gone node5,node6$"):
        make(company, gone=("node5",), epoch=7)


def test_where_nodes_are_said_to_be_gone_the_epoch_is_given(company):
    unreachable(company, "node3")
    with pytest.raises(
        creation.NotMade, match=r"^node3: may have had second.*give --epoch.*; 1 where there never was one$"
    ):
        make(company, gone=("node3",))
    company.epochs["node1"]["second"] = 3
    with pytest.raises(creation.NotMade, match=r"^node3: may have had second.*; 3 is the highest that is known$"):
        make(company, gone=("node3",))
    with pytest.raises(creation.NotMade, match=r"^expected --epoch above 3, which a cluster second had, got 3$"):
        make(company, gone=("node3",), epoch=3)
    make(company, gone=("node3",), epoch=5)
    assert (Birth.objects.get().epoch, "node3" in Birth.objects.get().nodes) == (5, False)


def test_a_node_that_is_said_to_be_gone_and_answers_or_is_to_have_a_replica_is_not(company):
    with pytest.raises(creation.NotMade, match=r"^node2: said to be gone, and answers$"):
        make(company, gone=("node2",), epoch=5)
    with pytest.raises(creation.NotMade, match=r"^node2: a node that is gone gets no replica$"):
        make(company, on=("node1", "node2"), gone=("node2",), epoch=5)
    assert not Birth.objects.exists()


def test_a_cluster_whose_nodes_were_never_recorded_takes_an_epoch_that_is_given(company):
    Cluster.objects.create(name="second", cluster_id="77")
    with pytest.raises(
        creation.NotMade, match=r"\(77\), and the record does not say on which nodes.*: give --epoch, above"
    ):
        make(company)
    make(company, epoch=2)
    assert Birth.objects.get().epoch == 2


@pytest.mark.parametrize("epoch", [-1, 0, EPOCH_MAX + 1, 10**20])
def test_an_epoch_that_there_can_not_be_is_refused_before_anything_is_written_down(company, epoch):
    with pytest.raises(creation.NotMade, match=rf"^expected --epoch from 1 to 8191, got {epoch}$"):
        make(company, epoch=epoch)
    assert (Birth.objects.count(), company.asked) == (0, [])


def test_a_record_that_can_not_be_kept_is_not_taken_for_somebody_else(company, monkeypatch):
    def refuses(**_: Any) -> Birth:
        raise IntegrityError("CHECK constraint failed")

    monkeypatch.setattr(creation.Birth.objects, "create", refuses)
    with pytest.raises(IntegrityError):
        make(company)


@pytest.mark.parametrize(
    ("on", "why"),
    [
        (("node1", "node77"), r"^node77: no such node is known; these are: node1, node2, node3, node4$"),
        (("node1", "node1"), "expected 1 to 15 nodes, each once, got node1, node1"),
        (tuple(f"node{number}" for number in range(16)), "expected 1 to 15 nodes, each once"),
        (("node1", "Node 2"), r"^a node's name matches .*, got 'Node 2'$"),
        (("node1", "n" * 10_000), r"^a node's name matches .{1,60}, got .{1,40}$"),
    ],
)
def test_nodes_that_nothing_can_be_made_on_are_refused_before_anything_is_written_down(company, on, why):
    with pytest.raises(creation.NotMade, match=why):
        make(company, on=on)
    assert (Birth.objects.count(), company.asked) == (0, [])


def test_a_node_of_the_record_that_does_not_answer_is_told_from_one_that_nobody_knows(company):
    Node.objects.create(name="node4")
    company.silent = {"node4"}
    with pytest.raises(creation.NotMade, match=r"^node4: no answer, and a replica is wanted there$"):
        make(company, on=("node1", "node4"))
    with pytest.raises(creation.NotMade, match=r"these are: node1, node2, node3, node4 \(does not answer\)$"):
        make(company, on=("node1", "node5"))
    assert not Birth.objects.exists()


@pytest.mark.parametrize("replicas", [0, -1, 16, 10**20])
def test_as_many_replicas_as_there_can_not_be_are_refused(company, replicas):
    with pytest.raises(creation.NotMade, match=f"^expected 1 to 15 replicas, got {replicas}$"):
        make(company, replicas=replicas)


@pytest.mark.parametrize("replicas", [0, 2, 4])
def test_another_number_of_replicas_than_of_the_nodes_that_are_named_is_refused(company, replicas):
    """Which of the two was meant nobody can tell; a cluster of another size is not made in silence."""
    with pytest.raises(creation.NotMade, match=f"^expected {replicas} nodes, one a replica, got node1, node2, node3$"):
        make(company, replicas=replicas, on=("node1", "node2", "node3"))
    assert not Birth.objects.exists()
    assert make(company, replicas=2, on=("node1", "node2")).name == "second"


def test_while_it_has_no_document_a_cluster_is_put_on_other_nodes(company, reconciler, time):
    """What a node drew that is left out is nobody, and deleted."""
    first = cut_off(company, "node2", "node1", "node2", "node3")
    assert first.cluster_id in company.hosted["node1"]
    make(company, on=("node3", "node4"))
    birth = Birth.objects.get()
    assert (birth.cluster_id, birth.nodes) == (first.cluster_id, ["node3", "node4"])
    assert [member[1] for member in birth.members] == ["node3", "node4"]
    said = wanted.decode(company.clusters["second"].in_log.wanted)
    assert (said.nodes, said.leaving) == (("node3", "node4"), ("node1", "node2"))
    for _ in range(3):
        time.now += 11
        reconciler.look()
    assert first.cluster_id not in company.hosted["node1"]


def test_a_cluster_that_was_written_down_on_a_node_that_there_is_not_is_put_on_others(company):
    """As it was before the nodes were looked for first: there was no way out."""
    Birth.objects.create(name="second", cluster_id="99", nodes=["node1", "node77"], epoch=0)
    with pytest.raises(creation.NotMade, match=r"node77: no answer.*--gone node77"):
        make(company, replicas=3)
    make(company, replicas=3, gone=("node77",), epoch=1)
    assert len(Birth.objects.get(cluster_id="99").members) == 3


def test_an_epoch_beyond_the_maximum_that_was_written_down_burns_no_name(company):
    Birth.objects.create(name="second", cluster_id="99", nodes=["node1", "node2"], epoch=9000)
    make(company)
    assert Birth.objects.get(finished_at__isnull=False).epoch == 0


def test_once_there_is_a_document_it_is_given_up_only_where_nobody_could_begin_with_it(company):
    real, company._form_cluster = company._form_cluster, lambda *_, **__: nodes.TaskOutcome("refused", "full", "0")
    with pytest.raises(creation.NotMade, match=r"full. Give the command again to go on with second$"):
        make(company, on=("node1", "node2"), epoch=4)
    company._form_cluster = real
    first = Birth.objects.get()
    with pytest.raises(creation.NotMade, match=r"made already.*remove-replica second NODE --force for node1, node2$"):
        make(company, on=("node3", "node4"))
    for name in ("node1", "node2"):
        company.hosted[name].pop(first.cluster_id)
    make(company, on=("node3", "node4"))
    first.refresh_from_db()
    assert first.finished_at is not None
    assert Birth.objects.get(nodes=["node3", "node4"]).epoch == 5, "the nodes were told of epoch 4"


def test_who_goes_on_with_what_another_has_put_elsewhere_writes_no_document(company, monkeypatch):
    """The identities that it has are of the nodes of before."""
    real = company.wait

    def put_elsewhere(requests: dict[str, str], timeout_s: float, **options: Any) -> dict[str, nodes.TaskOutcome]:
        Birth.objects.update(nodes=["node4"])
        return real(requests, timeout_s, **options)

    monkeypatch.setattr(nodes, "outcomes", put_elsewhere)
    with pytest.raises(creation.NotMade, match="somebody else has changed what second is to be"):
        make(company, on=("node1", "node2"))
    assert Birth.objects.get().members == []
    assert not any(task == "form_cluster" for _, task, _ in company.asked)


def test_what_a_node_drew_that_was_down_when_the_cluster_was_made_is_deleted_once_it_is_back(company, reconciler, time):
    first = cut_off(company, "node2", "node1", "node2", "node3")
    company.silent = {"node1"}
    make(company, on=("node3", "node4"), gone=("node1",), epoch=1)
    said = wanted.decode(company.clusters["second"].in_log.wanted)
    assert (said.nodes, said.leaving) == (("node3", "node4"), ("node1", "node2"))
    company.silent = set()
    for _ in range(3):
        time.now += 11
        reconciler.look()
    assert first.cluster_id not in company.hosted["node1"]


def test_a_database_that_was_put_back_to_before_the_document_begins_no_second_log(company):
    """It was put elsewhere and made there; the database of before that knows the first of its lists alone."""
    first = cut_off(company, "node2", "node1", "node2")
    make(company, on=("node3", "node4"))
    Birth.objects.update(nodes=["node1", "node2"], left_out=[], members=[], finished_at=None)
    company.clusters["second"].down = True
    company.asked.clear()
    with pytest.raises(
        creation.NotMade, match=rf"^second \({first.cluster_id}\) has a log already, on node3, node4, and"
    ):
        make(company)
    assert Birth.objects.get().members == []
    assert not any(task == "form_cluster" for _, task, _ in company.asked)
    company.clusters["second"].down = False
    with pytest.raises(creation.NotMade, match=r"^there is a cluster second .*: node3, node4 serve it$"):
        make(company)


@pytest.mark.parametrize("reached_the_log", [True, False])
def test_given_again_after_its_last_step_was_cut_off_it_undoes_no_move_that_was_made_since(
    company, reconciler, time, monkeypatch, reached_the_log
):
    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(edits, "say", cut)
        with pytest.raises(KeyboardInterrupt):
            make(company, on=("node1", "node2", "node3"))
    second = company.clusters["second"]
    edits.say(second, edits.cluster_row("second", second.cluster_id), lambda w: w.moving("node1", "node4"))
    if not reached_the_log:
        second.in_log = InTheLog()

    def form_again(node: str, cluster: str, **_: Any) -> nodes.TaskOutcome:
        there = cluster in company.hosted[node]
        return nodes.TaskOutcome("done" if there else "refused", "", "0")

    monkeypatch.setattr(company, "_form_cluster", form_again)
    make(company)
    assert Birth.objects.get().finished_at is not None
    for _ in range(12):
        time.now += 11
        reconciler.look()
    assert {member.node for member in second.configuration.voters} == {"node2", "node3", "node4"}
    assert second.in_log.generation == 1


def test_of_two_who_go_on_with_one_try_both_have_it_made(company, monkeypatch):
    """The log that the slower one sees is that of the document which the other wrote meanwhile."""
    real, company._form_cluster = company._form_cluster, None
    with pytest.raises(TypeError):
        make(company, on=("node1", "node2"))
    company._form_cluster = real
    slower = Birth.objects.get()
    make(company)
    document = Birth.objects.get().members
    slower.members = []
    Birth.objects.update(finished_at=None)
    creation.write_document(slower, lambda _: company.clusters["second"])
    assert slower.members == document


@pytest.mark.parametrize("says_more", [False, True])
def test_of_two_who_have_made_it_neither_is_told_that_somebody_else_changes_it(company, monkeypatch, says_more):
    """Both wait for its first leader, and tell its log what is wanted at the same moment."""
    seen = edits.as_it_is
    others = iter(["the other one"])

    def the_other_was_quicker(client):
        if next(others, None):
            cluster = Cluster.objects.get(name="second")
            edits.say(client, cluster, lambda _: seen(client))
            if says_more:
                edits.say(client, cluster, lambda w: w.replacing_after(7))
        return seen(client)

    monkeypatch.setattr(edits, "as_it_is", the_other_was_quicker)
    cluster = make(company)
    assert Birth.objects.get().finished_at is not None
    said = edits.compare(cluster, edits.view_of(company.clusters["second"], cluster))
    assert said.wanted is not None
    assert (said.generation, said.wanted.replace_after_s) == ((2, 7) if says_more else (1, 600))


def test_a_try_without_a_document_is_not_gone_on_with_while_a_node_does_not_answer(company):
    """The database may have been put back: the cluster that the try became may be on that node."""
    birth = cut_off(company, "node2", "node1", "node2")
    company.silent = {"node3"}
    with pytest.raises(creation.NotMade, match=r"^node3: no answer, and second may still be there"):
        make(company)
    with pytest.raises(creation.NotMade, match=r"^node3: may have had second"):
        make(company, gone=("node3",))
    make(company, gone=("node3",), epoch=4)
    made = Birth.objects.get()
    assert (made.cluster_id, made.nodes, made.epoch) == (birth.cluster_id, birth.nodes, 4)
