"""Restores, on real journals: a cluster that is begun anew from a backup, and what no restore may bring back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Member
from coordinator.replica import backup, restoring
from coordinator.replica.births import WebToken, fingerprint
from coordinator.replica.intents import (
    DONE,
    PENDING,
    REFUSED,
    BackUpReplica,
    CompactReplica,
    FormCluster,
    HostReplica,
    Outcome,
    RemoveReplica,
    RestoreReplica,
    StopReplica,
)
from coordinator.replica.restoration import state_of
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.locks import INDEX_BITS
from coordinator.statemachine.machine import encode_entry, encode_node_entry
from coordinator.statemachine.restoration import NotRestorable
from tests.unit.replica.company import CLUSTER, TOKEN, Company, Node

NAMES = ("node1", "node2", "node3")


class Installation(Company):
    """Nodes, and a client who takes the lock `l`, each time in a session of its own."""

    def __init__(self, directory: Path, names: tuple[str, ...] = NAMES) -> None:
        super().__init__(directory, names)
        self.cluster = CLUSTER

    def leading(self) -> Node:
        (found,) = [
            node
            for node in self.nodes.values()
            if self.cluster in node.turn.replicas
            and node.turn.replicas[self.cluster].engine.role is Role.LEADER
            and node.name not in self.cut
        ]
        return found

    def begin(self, epoch: int = 0) -> dict[str, Member]:
        """A cluster that is born."""
        members = self.host_all()
        document = FormCluster(f"f{self.cluster}", self.cluster, "second", epoch, (*members,), fingerprint(TOKEN))
        for name in NAMES:
            assert self.nodes[name].ask(document).state == DONE
        self.pass_time(2_500_000)
        return {member.node: member for member in members}

    def host_all(self) -> list[Member]:
        return [
            Member(self.nodes[name].ask(HostReplica(f"h{self.cluster}{name}", self.cluster, "second")).replica, name)
            for name in NAMES
        ]

    def command(self, op: commands.ClientOp, session: int, number: int) -> int:
        """Put through the log; its index."""
        engine = self.leading().turn.replicas[self.cluster].engine
        command = msgspec.msgpack.encode(commands.Command(session, number, 1, op))
        index = engine.propose([COMMAND_PREFIX + encode_entry("web", "", command, "", "")])
        assert index is not None
        self.pass_time(200_000)
        assert engine.applied_index >= index
        return index

    def grant(self) -> int:
        """Take the lock and leave it; the token."""
        self.command(commands.OpenSession(1_000, b""), 0, 0)
        machine = self.leading().turn.replicas[self.cluster].machine
        session = max(machine.sessions)
        self.command(commands.AcquireLock("l", 1, wait=True), session, 1)
        lock = machine.locks["l"]
        assert [key[0] for key in lock.holders] == [session]
        token = lock.token
        self.command(commands.CloseSession(), session, 2)
        return token

    def back_up(self) -> Path:
        node = self.leading()
        node.ask(BackUpReplica(f"b{self.cluster}", self.cluster))
        join("conclave-backup")
        return Path(node.intents.outcomes()[f"b{self.cluster}"].message)

    def remove_all(self) -> None:
        for node in self.nodes.values():
            replica = node.turn.replicas[self.cluster].replica
            ask = RemoveReplica(f"r{self.cluster}{node.name}", self.cluster, replica, forced=node.name)
            assert node.ask(ask).state == DONE

    def known_epoch(self) -> int:
        return max(node.lifecycle.epochs().get("second", -1) for node in self.nodes.values())

    def written(self, path: Path, epoch: int, **fields) -> RestoreReplica:
        members = (*self.host_all(),)
        digest = backup.read(path).digest if "digest" not in fields else ""
        document = RestoreReplica(f"x{self.cluster}", self.cluster, "second", epoch, members, str(path), digest)
        return document._replace(**fields)

    def restore(self, path: Path) -> None:
        """As an operator does it: the old cluster is removed, and the nodes are asked what they know."""
        self.remove_all()
        self.cluster += 1
        document = self.written(path, self.known_epoch() + 1)
        outcome = ask(self.nodes["node1"], document)
        assert outcome.state == DONE, outcome
        self.pass_time(3_000_000)


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(20)


def ask(node: Node, document: RestoreReplica) -> Outcome:
    """Until something has become of it."""
    node.ask(document)
    join("conclave-restore")
    until = time.monotonic() + 20
    while (outcome := node.intents.outcomes()[document.request]).state == PENDING and time.monotonic() < until:
        node.lifecycle.run(node.clock.us)  # Another thread puts a file on disk.
    return outcome


@pytest.fixture
def company(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


# --- the issue's own sequences --------------------------------------------------------------------


def test_tokens_only_grow_through_restores_of_one_backup_and_through_deletion(company):
    """Back up, grant, restore, grant, restore the same backup again, grant; delete, create again, grant."""
    company.begin()
    tokens = [company.grant()]
    path = company.back_up()
    tokens += [company.grant(), company.grant()]
    for _ in range(2):
        company.restore(path)
        tokens += [company.grant(), company.grant()]
    company.remove_all()
    company.cluster += 1
    company.begin(company.known_epoch() + 1)
    tokens.append(company.grant())
    assert tokens == sorted({*tokens})
    assert [token >> INDEX_BITS for token in tokens] == [0, 0, 0, 1, 1, 2, 2, 3]


def test_the_restored_cluster_has_the_state_of_the_backup_on_all_its_nodes_and_the_epoch_first(company):
    company.begin()
    company.command(commands.OpenSession(1_000, b""), 0, 0)
    session = max(company.leading().replica.machine.sessions)
    company.command(commands.PutKey("k", b"in it"), session, 1)
    company.leading().ask(CompactReplica("c", CLUSTER))
    company.pass_time(500_000)
    company.command(commands.PutKey("l", b"behind the snapshot"), session, 2)
    path = company.back_up()
    company.command(commands.PutKey("k", b"undone"), session, 3)
    company.restore(path)
    machines = [node.turn.replicas[company.cluster].machine for node in company.nodes.values()]
    for machine in machines:
        assert {key: item.value for key, item in machine.keys.items()} == {"k": b"in it", "l": b"behind the snapshot"}
        assert (machine.epoch, machine.cluster_id) == (1, company.cluster)
    assert len({machine.digest() for machine in machines}) == 1
    assert backup.read(path).header.snapshot_index > 0
    old = {replica for node in company.nodes.values() for replica in node.journal.tombstones()}
    assert old.isdisjoint(node.turn.replicas[company.cluster].replica for node in company.nodes.values())


def test_whoever_has_anything_of_the_restored_log_knows_its_epoch_though_it_be_killed_at_once(company):
    """Before it applied a single entry of it: a node that was asked then, and said an epoch of before, would have its
    tokens repeated by the next restore."""
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    assert ask(company.nodes["node1"], document).state == DONE
    known: set[str] = set()
    for _ in range(200):
        company.pass_time(20_000)
        for name, node in company.nodes.items():
            if name not in known and node.turn.replicas[company.cluster].engine.last_index:
                node.restart()
                assert node.lifecycle.epochs() == {"second": 1}
                known.add(name)
    assert known == {*NAMES}


def test_it_stays_restored_over_restarts_of_all_nodes(company):
    company.begin()
    path = company.back_up()
    company.restore(path)
    before = company.grant()
    for node in company.nodes.values():
        node.restart()
    company.pass_time(2_500_000)
    assert company.grant() > before
    assert company.known_epoch() == 1


def test_nothing_is_decided_before_a_majority_has_the_state(company):
    """The first of the members alone, however long it runs, serves nothing that could be lost with it."""
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    company.cut = {"node2", "node3"}
    assert ask(company.nodes["node1"], document).state == DONE
    company.pass_time(5_000_000)
    engine = company.nodes["node1"].turn.replicas[company.cluster].engine
    assert engine.role is not Role.LEADER
    assert engine.last_index == engine.first_index - 1


def test_a_large_state_is_put_on_disk_beside_the_loop(company, monkeypatch):
    monkeypatch.setattr(restoring, "STAGED_BYTES_MIN", 1)
    company.begin()
    path = company.back_up()
    company.restore(path)
    assert company.grant() >> INDEX_BITS == 1
    node = company.nodes["node1"]
    assert len(list((node.directory / "snapshots").glob("*.snapshot"))) == 1
    node.restart()
    assert node.turn.replicas[company.cluster].machine.cluster_id == company.cluster


# --- asked for twice, cut off, come late ----------------------------------------------------------


def test_asked_for_again_it_is_done_once(company):
    company.begin()
    path = company.back_up()
    company.restore(path)
    company.grant()
    node = company.nodes["node1"]
    index = node.turn.replicas[company.cluster].engine.applied_index
    document = company.written(path, 1)
    assert ask(node, document).state == DONE
    assert ask(node, document._replace(request="again")).state == DONE
    node.restart()
    assert ask(node, document).state == DONE
    assert node.turn.replicas[company.cluster].engine.applied_index <= index
    assert ask(node, document._replace(request="other", epoch=2)).state == REFUSED


def test_cut_off_while_the_backup_is_read_it_is_done_by_the_next_try(company):
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    node = company.nodes["node1"]
    node.ask(document)
    node.restart()
    assert node.turn.replicas[company.cluster].engine.last_index == 0
    assert ask(node, document).state == DONE


def test_a_replica_that_is_stopped_while_the_backup_is_read_does_not_begin(company, monkeypatch):
    monkeypatch.setattr(restoring, "STAGED_BYTES_MIN", 1)
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    node = company.nodes["node1"]
    node.ask(document)
    assert node.ask(StopReplica("s", company.cluster)).state == DONE
    assert ask(node, document).state == REFUSED
    assert node.lifecycle._restoring._works == {}


def test_a_wiped_node_does_not_begin_the_log_that_was_begun_on_its_old_disk(company, tmp_path):
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    wiped = Node("node1", tmp_path / "new-disk", company.clock)
    assert ask(wiped, document).state == REFUSED
    wiped.ask(HostReplica("again", company.cluster, "second"))
    assert ask(wiped, document).state == REFUSED


def test_only_the_first_member_begins_and_no_document_of_a_birth_is_taken_for_it(company):
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    document = company.written(path, 1)
    assert ask(company.nodes["node2"], document).state == REFUSED
    birth = FormCluster("f", company.cluster, "second", 1, document.members, "restore:" + document.digest)
    assert company.nodes["node2"].ask(birth).state == REFUSED


# --- what is refused ------------------------------------------------------------------------------


def test_a_node_that_knows_a_higher_epoch_refuses_and_says_which(company):
    """The operator asked others; this one had the cluster that was restored meanwhile."""
    company.begin()
    path = company.back_up()
    company.restore(path)
    company.restore(path)
    company.remove_all()
    company.cluster += 1
    for epoch in (1, 2):
        outcome = ask(company.nodes["node1"], company.written(path, epoch, request=f"e{epoch}"))
        assert outcome.state == REFUSED
        assert f"expected an epoch above 2, which second had here, got {epoch}" in outcome.message
    node = company.nodes["node1"]
    node.restart()
    assert ask(node, company.written(path, 2, request="later")).state == REFUSED
    birth = FormCluster("f", company.cluster, "second", 2, (*company.host_all(),), fingerprint(TOKEN))
    assert "expected an epoch above 2" in node.ask(birth).message


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_an_epoch_outlives_a_replica_that_was_stopped_and_forced_out(company, name):
    """The epoch of a learner's log was in its log alone, and nobody reads a log that rests."""
    company.begin()
    company.restore(company.back_up())
    node = company.nodes[name]
    replica = node.turn.replicas[company.cluster].replica
    node.ask(StopReplica("s", company.cluster))
    company.pass_time(3_000_000)  # A leader hands over first.
    assert node.intents.outcomes()["s"].state == DONE
    node.restart()
    assert node.lifecycle.epochs() == {"second": 1}
    assert node.ask(RemoveReplica("r", company.cluster, replica, forced=name)).state == DONE
    node.restart()
    assert node.lifecycle.epochs() == {"second": 1}


def test_an_epoch_outlives_a_replica_that_the_journal_can_not_give_back(company):
    company.begin()
    company.restore(company.back_up())
    node = company.nodes["node3"]
    replica = node.turn.replicas[company.cluster].replica
    node.journal._db.execute("UPDATE heads SET checksum = x'00' WHERE replica = ?", (replica,))
    node.restart()
    assert [hosted.state for hosted in node.lifecycle.hosted()] == ["damaged"]
    assert node.lifecycle.epochs() == {"second": 1}
    assert node.ask(RemoveReplica("r", company.cluster, replica, forced="node3")).state == DONE
    node.restart()
    assert node.lifecycle.epochs() == {"second": 1}


def refused(company: Installation, path: Path, **fields) -> str:
    node = company.nodes["node1"]
    outcome = ask(node, company.written(path, 5, **fields))
    assert outcome.state == REFUSED
    assert node.turn.replicas[company.cluster].engine.last_index == 0, "it is as empty as before"
    assert "second" not in node.journal.epochs() or node.journal.epochs()["second"] < 5
    return outcome.message


@pytest.fixture
def backed_up(company) -> Path:
    company.begin()
    path = company.back_up()
    company.remove_all()
    company.cluster += 1
    return path


@pytest.mark.parametrize("position", [0, 20, 40, 300, -1])
def test_a_damaged_backup_is_refused_with_what_was_expected(company, backed_up, position):
    digest = backup.read(backed_up).digest
    data = bytearray(backed_up.read_bytes())
    data[position] ^= 1
    backed_up.write_bytes(data)
    message = refused(company, backed_up, digest=digest)
    assert str(backed_up) in message
    assert "checksum" in message or "cut off" in message or "expected a file that begins with" in message


def test_a_backup_that_is_cut_off_or_too_long_or_missing_is_refused(company, backed_up):
    digest, whole = backup.read(backed_up).digest, backed_up.read_bytes()
    backed_up.write_bytes(whole[:-7])
    assert "checksum" in refused(company, backed_up, digest=digest)
    backed_up.write_bytes(whole + b"\0")
    assert "there is more behind its end" in refused(company, backed_up, digest=digest, request="x2")
    backed_up.unlink()
    assert "No such file" in refused(company, backed_up, digest=digest, request="x3")


def test_another_file_than_the_operators_is_refused(company, backed_up):
    message = refused(company, backed_up, digest="00" * 16)
    assert f"expected the file with digest {'00' * 16}, got {backup.read(backed_up).digest}" in message


def test_a_backup_of_a_cluster_of_another_name_is_refused(company, backed_up, tmp_path):
    for name in NAMES:
        company.nodes[name].ask(HostReplica(f"o{name}", 500, "other"))
    members = tuple(Member(company.nodes[name].turn.replicas[500].replica, name) for name in NAMES)
    node = company.nodes["node1"]
    document = RestoreReplica("x", 500, "other", 5, members, str(backed_up), backup.read(backed_up).digest)
    assert ask(node, document).message == "expected a backup of other, got one of second"
    assert "other" not in node.lifecycle.epochs()


def test_a_backup_of_another_installation_is_refused(company, backed_up, tmp_path):
    """Whoever has that one's keys could ask the restored cluster, and this one's web tier could not."""
    stranger = Node("node1", tmp_path / "stranger", company.clock, WebToken("cd" * 8, b"x" * 32))
    replica = stranger.ask(HostReplica("h", company.cluster, "second")).replica
    document = company.written(backed_up, 5, members=(Member(replica, "node1"),))
    outcome = ask(stranger, document)
    assert outcome.state == REFUSED
    assert "expected a backup of this installation" in outcome.message
    assert stranger.turn.replicas[company.cluster].engine.last_index == 0


@pytest.mark.parametrize("by", [{"first_index": 3}, {"first_index": -1, "snapshot_index": -1}])
def test_a_backup_whose_parts_do_not_belong_together_is_refused(company, backed_up, by):
    """As where entries that the snapshot holds already would be applied once more."""
    contents = backup.read(backed_up)
    fields = {name: getattr(contents.header, name) + more for name, more in by.items()}
    header = msgspec.structs.replace(contents.header, **fields)
    with pytest.raises(Exception, match="expected entries from"):
        state_of(contents._replace(header=header))


def test_a_backup_of_a_later_version_is_refused(company, backed_up):
    """Of what lies behind the entry much was passed over, without a word."""
    contents = backup.read(backed_up)
    raised = COMMAND_PREFIX + encode_node_entry(commands.RaiseLevel(commands.LEVEL + 1))
    why = f"expected a level up to {commands.LEVEL}, got {commands.LEVEL + 1}: a later version of Conclave wrote it"
    with pytest.raises(NotRestorable, match=why):
        state_of(contents._replace(entries=[*contents.entries, raised]))
    machine = state_of(contents)
    machine.state.level = commands.LEVEL + 1
    applied = machine.applied
    header = msgspec.structs.replace(contents.header, snapshot_index=applied, first_index=applied + 1)
    with pytest.raises(snapshot.SnapshotDamaged, match=why):
        state_of(contents._replace(header=header, snapshot=snapshot.dump(machine), terms=[], entries=[]))


def test_a_state_of_another_cluster_than_its_header_names_is_refused(company, backed_up):
    contents = backup.read(backed_up)
    for fields in ({"cluster": contents.header.cluster + 1}, {"cluster_name": "other"}):
        header = msgspec.structs.replace(contents.header, **fields)
        with pytest.raises(NotRestorable, match="does not hold the state of the cluster that its header names"):
            state_of(contents._replace(header=header))
