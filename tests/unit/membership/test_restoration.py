"""Restoring a cluster from a backup, on nodes without processes: who is asked first, and what is refused."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError
from django.utils import timezone

from coordinator import wire
from coordinator.consensus.engine import Committed
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.membership import creation, nodes, restoration
from coordinator.membership.creation import NotMade
from coordinator.models import AuditEntry, Birth, Cluster, Node
from coordinator.replica import backup
from coordinator.replica.births import WebToken, first_log
from coordinator.statemachine import commands
from coordinator.statemachine.machine import encode_node_entry
from tests.unit.membership.company import Company, FakeClient
from tests.unit.membership.reconciling import client_to_be, manage

pytestmark = pytest.mark.django_db

NAMES = ("node1", "node2", "node3")
OLD = 0x77


@pytest.fixture
def company(monkeypatch) -> Company:
    """Nodes that had the cluster, in epoch 3, and host it no more."""
    company = Company(*NAMES, "node4")
    monkeypatch.setattr(nodes, "look", company.look)
    monkeypatch.setattr(nodes, "ask", company.ask)
    monkeypatch.setattr(nodes, "outcomes", company.wait)
    for name in NAMES:
        company.epochs[name]["second"] = 3
    return company


@pytest.fixture(scope="module")
def looked_into() -> dict[bytes, restoration.Backup]:
    return {}


@pytest.fixture(autouse=True)
def each_backup_is_looked_into_once(monkeypatch, looked_into: dict[bytes, restoration.Backup]) -> None:
    """A process for each look is what these tests would mostly wait for; that of the same bytes says the same."""
    look = restoration.look_into

    def remembered(path: Path) -> restoration.Backup:
        content = path.read_bytes() if path.is_file() else b""
        if content not in looked_into:
            looked_into[content] = look(path)
        return looked_into[content]

    monkeypatch.setattr(restoration, "look_into", remembered)


def write_backup(path: Path, *entries: bytes) -> None:
    """Of a cluster of whose log these are the last entries."""
    members = [Member(number, name) for number, name in enumerate(NAMES, 1)]
    log = first_log(OLD, "second", 2, members, WebToken("ab" * 8, b"k" * 32))
    configuration = Configuration(tuple(members))
    committed = Committed(1, [*log.terms, *[1] * len(entries)], [*log.entries, *entries])
    backup.write(path, backup.Captured(OLD, "second", 1, "node1", 2, configuration, None, committed))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backups") / "second.backup"
    write_backup(path)
    return path


def restore(company: Company, path: Path, *on: str, name: str = "second", **options) -> Cluster:
    to_be = client_to_be(company, name)
    return restoration.restore(name, path, on or NAMES, client_of=lambda _: to_be, say=lambda _: None, **options)


def of_a_while_ago() -> None:
    """Nobody can be at what was begun any more."""
    Birth.objects.update(begun_at=timezone.now() - timedelta(seconds=restoration.FIRST_ROUND_S_MAX))


def asked(company: Company, task: str) -> list[tuple[str, dict]]:
    return [(node, arguments) for node, what, arguments in company.asked if what == task]


def test_a_cluster_is_begun_anew_above_every_epoch_that_anybody_knows_of(company, path):
    company.epochs["node4"]["second"] = 6
    cluster = restore(company, path)
    birth = Birth.objects.get()
    assert (birth.cluster_id, birth.epoch, birth.finished_at is not None) == (cluster.cluster_id, 7, True)
    assert cluster.cluster_id != f"{OLD:x}"
    ((node, document),) = asked(company, "restore_replica")
    assert node == "node1"
    drawn = [company.hosted[name][cluster.cluster_id].replica for name in NAMES]
    assert [member[0] for member in document["members"]] == drawn
    assert (document["epoch"], document["path"]) == (7, str(path))
    assert document["digest"] == backup.read(path).digest
    assert not asked(company, "form_cluster")
    assert company.clusters["second"].in_log.generation == 1


def test_an_epoch_of_a_node_that_nobody_expects_and_that_is_slow_to_answer_counts(company, path, monkeypatch):
    """A look for some nodes is over once so many have answered."""
    company.epochs["node4"]["second"] = 6

    def look(expected: Any = None, timeout_s: float = 1.0) -> dict[str, nodes.NodeReport]:
        return {node: report for node, report in company.look().items() if not expected or node in expected}

    monkeypatch.setattr(nodes, "look", look)
    restore(company, path)
    assert Birth.objects.get().epoch == 7


def test_what_was_begun_counts_though_no_node_remembers_it(company, path):
    """The nodes of that try were wiped; the record was not."""
    begun = {"members": [["1", "node1", "", 0]], "finished_at": "2026-01-01T00:00Z"}
    Birth.objects.create(name="second", cluster_id="99", nodes=["node1"], epoch=8, **begun)
    restore(company, path)
    assert Birth.objects.get(finished_at__year__gte=2026, epoch=9).nodes == [*NAMES]


def test_a_try_that_was_given_up_without_a_document_has_used_no_epoch(company, path):
    """No node was told its epoch, and none will be. One beyond the maximum, recorded once, counts for nothing."""
    over = {"name": "second", "nodes": ["node1"], "finished_at": "2026-01-01T00:00Z"}
    Birth.objects.create(cluster_id="98", epoch=8191, **over)
    Birth.objects.create(cluster_id="99", epoch=9000, members=[["1", "node1", "", 0]], **over)
    restore(company, path)
    assert Birth.objects.order_by("begun_at").last().epoch == 4


def test_who_goes_on_with_what_was_given_up_meanwhile_writes_no_document(company, path, monkeypatch):
    real = company.wait

    def gives_up(requests: dict[str, str], timeout_s: float, **options: Any):
        creation.give_up(Birth.objects.get())
        return real(requests, timeout_s, **options)

    monkeypatch.setattr(nodes, "outcomes", gives_up)
    with pytest.raises(NotMade, match="somebody else has changed what second is to be, or gave it up"):
        restore(company, path)
    assert Birth.objects.get().members == []
    assert not asked(company, "restore_replica")


def test_a_restore_that_somebody_has_just_begun_is_not_given_up_for_another(company, path, monkeypatch):
    """Its nodes host nothing for it yet: what they came to host a moment later would stand in the way of the other."""
    real = creation.write_document

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(creation, "write_document", real)
        with pytest.raises(NotMade, match=r"began to be restored 0 s ago, .* give the command again in 15 s"):
            restore(company, path, "node2", "node3", epoch=7)
        real(*arguments)

    monkeypatch.setattr(creation, "write_document", meanwhile)
    restore(company, path)
    assert [(birth.epoch, bool(birth.members)) for birth in Birth.objects.all()] == [(4, True)]


def test_a_restore_that_came_to_nothing_is_given_up_once_nobody_can_be_at_it(company, path):
    begun = Birth.objects.create(name="second", cluster_id="98", epoch=4, nodes=["node1"], fingerprint="restore:f")
    of_a_while_ago()
    restore(company, path)
    begun.refresh_from_db()
    assert begun.finished_at is not None


@pytest.mark.parametrize(
    ("epoch", "why"),
    [
        (9000, "^expected --epoch from 1 to 8191, got 9000$"),
        (-1, "^expected --epoch from 1 to 8191, got -1$"),
        (10**20, "^expected --epoch from 1 to 8191, got 1000"),
        (514, "^expected --epoch from 4 to 513, got 514: 513 is the last restore epoch for a backup of epoch 2 and"),
    ],
)
def test_an_epoch_that_there_can_not_be_burns_no_name(company, path, epoch, why):
    with pytest.raises(NotMade, match=why):
        restore(company, path, epoch=epoch)
    assert not Birth.objects.exists()
    restore(company, path)
    assert Birth.objects.get().epoch == 4


def test_one_that_was_recorded_beyond_the_maximum_is_begun_in_another(company, path):
    digest = creation.RESTORED + backup.read(path).digest
    Birth.objects.create(name="second", cluster_id="99", nodes=[*NAMES], epoch=9000, fingerprint=digest)
    of_a_while_ago()
    restore(company, path)
    assert Birth.objects.exclude(cluster_id="99").get().epoch == 4


def test_a_try_is_not_given_up_before_all_of_the_other_is_checked(company, path):
    digest = creation.RESTORED + "of another file"
    Birth.objects.create(name="second", cluster_id="99", nodes=[*NAMES], epoch=5, fingerprint=digest)
    with pytest.raises(NotMade, match="expected --epoch above 3"):
        restore(company, path, epoch=2)
    assert Birth.objects.get().finished_at is None


def test_a_node_that_nobody_knows_is_named_with_those_that_are(company, path):
    with pytest.raises(NotMade, match=r"^node77: no such node is known; these are: node1, node2, node3, node4$"):
        restore(company, path, "node1", "node77")
    assert not Birth.objects.exists()


def test_given_again_it_goes_on_under_the_same_document(company, path):
    company.silent = set()
    company.refuses_restores = "the disk is full"
    with pytest.raises(NotMade, match=r"node1: the disk is full. Give the command again"):
        restore(company, path)
    birth = Birth.objects.get()
    with pytest.raises(NotMade, match="is being restored"):
        creation.create("second", 3, client_of=lambda _: pytest.fail("asked"), say=lambda _: None)
    company.refuses_restores = ""
    restore(company, path)
    after = Birth.objects.get()
    assert (after.pk, after.members) == (birth.pk, birth.members)
    with pytest.raises(NotMade, match="there is a cluster second still"):
        restore(company, path)


def test_a_log_that_the_broker_does_not_reach_is_no_second_time_begun(company, path):
    """The database was put back to before the document: the cluster is served from elsewhere."""
    digest = creation.RESTORED + backup.read(path).digest
    Birth.objects.create(name="second", cluster_id="99", nodes=[*NAMES], epoch=4, fingerprint=digest)
    client = company.clusters["second"] = FakeClient(0x99, company)
    client.configuration = Configuration((Member(1, "node8"),))
    with pytest.raises(NotMade, match=r"second \(99\) has a log already, on node8, and the database knows of none"):
        restore(company, path)
    assert Birth.objects.get().members == []
    assert not asked(company, "restore_replica")


def test_another_try_under_way_is_given_up_only_where_nobody_could_begin_with_it(company, path):
    company.refuses_restores = "no such file"
    with pytest.raises(NotMade, match="no such file"):
        restore(company, path)
    company.refuses_restores = ""
    first = Birth.objects.get()
    with pytest.raises(NotMade, match=r"is being made already.*remove-replica second NODE --force for node1, node2"):
        restore(company, path, "node2", "node3")
    for name in NAMES:
        company.hosted[name].clear()
    company.silent = {"node1"}
    with pytest.raises(NotMade, match="node1: no answer, and second may still be there"):
        restore(company, path, "node2", "node3")
    company.silent = set()
    restore(company, path, "node2", "node3")
    first.refresh_from_db()
    assert first.finished_at is not None
    assert [birth.epoch for birth in Birth.objects.order_by("epoch")] == [4, 5]


def test_a_birth_under_way_is_not_given_up_for_a_restore(company, path):
    Birth.objects.create(name="second", cluster_id="99", nodes=["node1"], epoch=4, fingerprint="f")
    with pytest.raises(NotMade, match="is being made already"):
        restore(company, path)


def test_while_a_node_hosts_the_old_cluster_nothing_is_begun(company, path):
    company.host("node4", f"{OLD:x}", "second", "5", "stopped")
    with pytest.raises(NotMade, match=r"there is a cluster second still, hosted by node4 \(77\)"):
        restore(company, path)
    assert not Birth.objects.exists()


def test_while_the_old_cluster_answers_from_where_the_broker_does_not_reach_nothing_is_begun(company, path):
    client = company.clusters["second"] = FakeClient(OLD, company)
    client.configuration = Configuration((Member(1, "node8"),))
    client.directory = lambda: wire.Directory(  # type: ignore[method-assign]
        1, "node8", (), (wire.ClusterEntry("second", OLD, "node8", 2, ("node8",)),)
    )
    with pytest.raises(NotMade, match=r"there is a cluster second \(77\): node8 serve it"):
        restore(company, path)
    assert not Birth.objects.exists()


def test_a_wanted_node_that_does_not_answer_is_named(company, path):
    company.silent = {"node2"}
    with pytest.raises(NotMade, match="node2: no answer, and a replica is wanted there"):
        restore(company, path)
    assert not company.asked


def test_a_node_that_had_it_and_does_not_answer_is_named_until_the_operator_says_that_it_is_gone(company, path):
    """Of the backup's own members, and of those that the record knows."""
    old = Cluster.objects.create(name="second", cluster_id=f"{OLD:x}")
    old.replicas.create(node=Node.objects.create(name="node9"), replica_id="9")
    company.silent = {"node2"}
    on = ("node1", "node3")
    with pytest.raises(NotMade, match=r"node2, node9: no answer.*--gone node2,node9"):
        restore(company, path, *on)
    with pytest.raises(NotMade, match=r"node2, node9: had second.*give --epoch.*3 is the highest"):
        restore(company, path, *on, gone=("node2", "node9"))
    with pytest.raises(NotMade, match="expected --epoch above 3, which a cluster second had, got 3"):
        restore(company, path, *on, gone=("node2", "node9"), epoch=3)
    restore(company, path, *on, gone=("node2", "node9"), epoch=10)
    assert Birth.objects.get().epoch == 10


def test_an_installation_that_was_begun_anew_can_not_say_the_epochs_of_the_one_that_was_lost(company, path):
    """Everything was lost but the keys and the backup: `up` made a cluster of that name on empty nodes, which was
    removed to make room. Its nodes have the names of those that had the old one, and know the epoch of theirs alone:
    the old one may have been restored since the backup, and given tokens in the next epoch."""
    for name in NAMES:
        company.epochs[name]["second"] = 0
    Cluster.objects.create(name="second", cluster_id="99")
    with pytest.raises(
        NotMade, match=r"knows second as 99 alone, and nothing of 77, .*: give --epoch.*; 2 is the highe"
    ):
        restore(company, path)
    assert not Birth.objects.exists()
    restore(company, path, epoch=4)
    assert Birth.objects.get().epoch == 4


def test_nodes_that_know_of_a_later_restore_than_the_backup_may_know_of_another_cluster_of_the_name(company, path):
    """They may have begun anew, and have made one since: they remember its epochs, and not those of the lost one."""
    Cluster.objects.create(name="second", cluster_id="99")
    with pytest.raises(NotMade, match="3 is the highest that is known"):
        restore(company, path)
    restore(company, path, epoch=4)
    assert Birth.objects.get().epoch == 4


def test_a_node_that_had_it_and_remembers_nothing_can_not_say_its_epochs(company, path):
    """It was wiped: what it answers is not that there was nothing."""
    del company.epochs["node3"]["second"]
    with pytest.raises(NotMade, match="node3: had second, and can not say"):
        restore(company, path)
    restore(company, path, epoch=20)


def test_a_node_that_is_said_to_be_gone_and_answers_is_not(company, path):
    with pytest.raises(NotMade, match="node2: said to be gone, and answers"):
        restore(company, path, "node1", "node3", gone=("node2",), epoch=9)
    with pytest.raises(NotMade, match="node1: a node that is gone gets no replica"):
        restore(company, path, gone=("node1",), epoch=9)


def test_an_epoch_that_came_up_while_nodes_were_asked_is_seen_when_they_host(company, path):
    real = company._host_replica

    def knows_more(node: str, **arguments: Any):
        return msgspec.structs.replace(real(node, **arguments), epoch=9)

    company._host_replica = knows_more
    with pytest.raises(NotMade, match="expected an epoch above 9, which second had on node1, got 4"):
        restore(company, path)
    assert not asked(company, "restore_replica")


def test_a_damaged_file_a_missing_one_and_that_of_another_cluster_are_refused_before_anything_is_asked(
    company, path, tmp_path
):
    damaged = tmp_path / "damaged.backup"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(NotMade, match="does not match its checksum"):
        restore(company, damaged)
    damaged.write_bytes(b"no backup at all, and long enough")
    with pytest.raises(NotMade, match=r"expected a file that begins with b'CONCLAVE-BACKUP 1.*got b'no backup"):
        restore(company, damaged)
    with pytest.raises(NotMade, match="No such file"):
        restore(company, tmp_path / "none")
    with pytest.raises(NotMade, match="expected a backup of third, got one of second"):
        restore(company, path, name="third")
    assert not company.asked


def test_what_a_later_version_wrote_is_refused_before_it_takes_an_epoch(company, path, tmp_path):
    """The node refused it, under an epoch that was gone for good by then; and said to give the command again."""
    later = tmp_path / "later.backup"
    write_backup(later, COMMAND_PREFIX + encode_node_entry(commands.RaiseLevel(commands.LEVEL + 1)))
    with pytest.raises(
        NotMade, match=r"later\.backup: expected a level up to .*: a later version of Conclave wrote it"
    ):
        restore(company, later)
    assert not company.asked
    restore(company, path)
    (begun,) = [arguments for _, arguments in asked(company, "restore_replica")]
    assert begun["epoch"] == 4  # They had it in epoch 3.


def test_what_is_no_regular_file_is_refused_and_not_waited_for(company, tmp_path, monkeypatch):
    monkeypatch.setattr(restoration, "READ_S_MAX", 20.0)
    pipe = tmp_path / "second.backup"
    os.mkfifo(pipe)
    with pytest.raises(NotMade, match=r"^nothing can be restored from this: .*second\.backup: expected a regular file"):
        restore(company, pipe)
    with pytest.raises(NotMade, match="Is a directory"):
        restore(company, tmp_path)
    assert not company.asked


@pytest.mark.parametrize(
    ("name", "on", "why"),
    [("a name", NAMES, "a cluster's name"), ("second", ("node1", "node1"), "each once"), ("second", ("",), "expected")],
)
def test_what_makes_no_sense_is_refused(company, path, name, on, why):
    with pytest.raises(NotMade, match=why):
        restoration.restore(
            name, path, [node for node in on if node], client_of=lambda _: pytest.fail("asked"), say=lambda _: None
        )


def test_the_command_restores_and_writes_it_into_the_audit(company, path, monkeypatch):
    arguments = ("restore", "second", str(path), "--nodes", ",".join(NAMES))
    company.clusters["second"] = FakeClient(0, company)  # Looked up before there is a cluster that it is of.
    company.clusters["second"].directory = lambda: wire.Directory(1, "node4", (), ())
    company.clusters["default"] = company.clusters["second"]
    with pytest.raises(CommandError, match="expected --epoch above 3"):
        manage(company, monkeypatch, *arguments, "--epoch", "2")
    assert not AuditEntry.objects.exists()
    monkeypatch.setattr(creation.record, "identity", lambda number: f"{number:x}" if number else born())

    def born() -> str:
        return Birth.objects.get().cluster_id

    said = manage(company, monkeypatch, *arguments, "--reason", "a disk was lost")
    assert "in restore epoch 4" in said
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.reason) == ("cluster.restored", "second", "a disk was lost")
    assert entry.details == {"on": [*NAMES], "from": str(path), "gone": []}
