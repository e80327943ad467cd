"""A replica that can not be given back, or that a later version wrote: it takes no part, says why, and others do."""

from __future__ import annotations

import errno
import os

import pytest

from coordinator.consensus.engine import HardState, Role, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Change
from coordinator.consensus.membership import Configuration
from coordinator.replica import lifecycle
from coordinator.replica.intents import (
    DONE,
    REFUSED,
    HostReplica,
    RemoveReplica,
)
from coordinator.replica.ports import Head, Write
from coordinator.replica.snapshot_files import SnapshotFiles
from coordinator.replica.stored import JournalUnusable
from coordinator.statemachine import commands
from coordinator.statemachine.machine import encode_node_entry
from tests.unit.replica.company import CLUSTER, with_a_large_state


def test_a_replica_whose_snapshot_is_damaged_is_not_started_and_the_node_goes_on(company):
    follower = with_a_large_state(company)
    (file,) = (follower.directory / "snapshots").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused = follower.starts("t")
    assert (refused.state, "does not match its checksum" in refused.message) == (REFUSED, True)
    assert [hosted.state for hosted in follower.lifecycle.hosted()] == ["stopped"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_a_replica_whose_snapshot_can_not_be_opened_is_not_called_damaged(company, monkeypatch, number):
    """Whoever is told so removes it by force, and it was as it should be: the node starts once it can be read."""
    follower = with_a_large_state(company)

    def read(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotFiles, "read", read)
        refused = follower.starts("t")
        assert (refused.state, os.strerror(number) in refused.message) == (REFUSED, True)
        follower.journal.mark_resting(follower.lifecycle.hosted()[0].replica, resting=False)
        with pytest.raises(JournalUnusable, match=os.strerror(number)):
            follower.restart()
    follower.restart()
    assert [hosted.state for hosted in follower.lifecycle.hosted()] == ["running"]


def test_a_damaged_replica_takes_no_part_and_the_others_of_its_node_do(company):
    company.form("node1", "node2", "node3")
    node = next(node for node in company.nodes.values() if node is not company.leader())
    other = node.ask(HostReplica("other", CLUSTER + 1, "third")).replica
    damaged = node.replica.replica
    node.journal._db.execute("UPDATE batches SET checksum = x'00' WHERE replica = ?", (damaged,))
    node.restart()
    assert [replica.replica for replica in node.turn.replicas.values()] == [other]
    assert {(h.replica, h.state) for h in node.lifecycle.hosted()} == {(damaged, "damaged"), (other, "empty")}
    assert "its replica of second is damaged, and takes no part until" in node.turn._waits_for("second")
    assert "do not match their checksum" in node.starts("s").message
    company.pass_time(200_000)
    assert company.leader().replica.engine.role is Role.LEADER
    assert node.ask(RemoveReplica("r", CLUSTER, damaged, forced=node.name)).state == DONE
    assert node.ask(HostReplica("again", CLUSTER, "second")).state == DONE
    assert damaged in node.journal.tombstones()


def test_the_log_of_a_later_version_is_left_to_it_but_by_a_witness_which_applies_nothing(company):
    """This one passed over the entry, and over all of a later level behind it: a state that no later version had."""
    voters = company.form("node1", "node2")
    witness = company.host("node3")["node3"]._replace(witness=True)
    engine = company.leader().replica.engine
    engine.change(Change((*voters.values(),), (witness,)), company.clock.us)
    company.pass_time(500_000)
    engine.propose([COMMAND_PREFIX + encode_node_entry(commands.RaiseLevel(commands.LEVEL + 1))])
    company.pass_time(200_000)
    for node in company.nodes.values():
        assert node.replica.engine.last_index == engine.last_index
        node.restart()
    for name in voters:
        why = company.nodes[name].turn.damaged[CLUSTER]
        assert f"expected a level up to {commands.LEVEL}, got {commands.LEVEL + 1}: a later version of Conclave" in why
        assert "a later version" in company.nodes[name].starts("s").message
        waits_for_it = f"its replica of second takes no part until that version is started again: {why}"
        assert company.nodes[name].turn._waits_for("second") == waits_for_it, "and nobody is told to remove it"
    assert company.nodes["node3"].replica.engine.is_witness


def test_the_nodes_log_says_once_why_a_replica_takes_no_part(company, caplog):
    company.form("node1")
    company.nodes["node1"].replica.stopped = "its state differed"
    company.pass_time(3 * lifecycle.EPOCHS_US)
    assert caplog.text.count("its replica of second takes no part: its state differed") == 1


def test_a_witness_does_not_read_the_state_that_it_keeps_for_others(company):
    """Nor has it to be of a program that can."""
    company.form("node1", "node2")
    witness = company.host("node3")["node3"]._replace(witness=True)
    configuration = Configuration((*company.leader().replica.configuration.members, witness))
    kept = Snapshot(9, 1, configuration, b"CLST\xff\xff what a later version wrote")
    node = company.nodes["node3"]
    node.journal.commit([Write(witness.replica, HardState(1, 0, 9), 10, [], [], Head(kept, 9, 1, keep_tail=False))])
    node.restart()
    assert node.replica.engine.is_witness
    assert not node.turn.damaged
