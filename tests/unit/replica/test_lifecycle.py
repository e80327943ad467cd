"""The lives of a node's replicas, on real journals: started, stopped, handed over and removed, and what never is."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Snapshot
from coordinator.consensus.members import Change
from coordinator.consensus.membership import ChangeRefused
from coordinator.consensus.raft.core import Raft
from coordinator.replica.intents import (
    DONE,
    PENDING,
    REFUSED,
    BackUpReplica,
    CompactReplica,
    Drain,
    HostReplica,
    RemoveReplica,
    StartReplica,
    StopReplica,
    TransferLeadership,
)
from coordinator.replica.lifecycle import SILENCE_US_MIN, STOP_US_MAX
from coordinator.replica.loading import LOAD_BYTES
from coordinator.replica.states import SLICE_EVERY_US, Compaction, _Staged
from tests.integration.waiting import eventually
from tests.unit.replica.company import CLUSTER, Company, Node, with_a_large_state
from tests.unit.replica.stage import CHANNELS


def with_a_witness(company: Company) -> None:
    """Two full voters, and node3 as a witness."""
    company.form("node1", "node2")
    witness = company.host("node3")["node3"]._replace(witness=True)
    leader = company.leader()
    engine = leader.replica.engine
    voters = engine.configuration.voters
    engine.change(Change(voters, (witness,)), company.clock.us)
    company.pass_time(500_000)
    engine.change(Change((*voters, witness)), company.clock.us)
    company.pass_time(500_000)


def test_an_order_to_hand_over_to_a_witness_says_that_it_is_one(company):
    with_a_witness(company)
    outcome = company.leader().ask(TransferLeadership("t", CLUSTER, "node3"))
    assert (outcome.state, outcome.message) == (REFUSED, "node3 is a witness: it has no state, so it can not lead")


def test_a_witness_writes_no_backup_and_takes_no_snapshot(company):
    """Once its log was cut it wrote one without a state, called it done, and the check of the file found nothing."""
    with_a_witness(company)
    witness = company.nodes["node3"]
    assert witness.replica.engine.is_witness
    witness.replica.machine.adopt(company.leader().replica.machine.state)  # As where it was sent the log's snapshot.
    assert witness.replica.machine.cluster_id
    outcome = witness.ask(BackUpReplica("b", CLUSTER))
    assert outcome.state == REFUSED
    assert outcome.message == "its replica is a witness, which has no state: have another node back it up"
    outcome = witness.ask(CompactReplica("c", CLUSTER))
    assert (outcome.state, "it has no state to take a snapshot of" in outcome.message) == (REFUSED, True)


def test_a_stopped_replica_stays_stopped_over_a_restart_until_it_is_started(company):
    company.form("node1", "node2", "node3")
    follower = next(node for node in company.nodes.values() if node is not company.leader())
    assert follower.ask(StopReplica("s", CLUSTER)).state == DONE
    follower.restart()
    assert CLUSTER not in follower.turn.replicas
    assert [hosted.state for hosted in follower.lifecycle.hosted()] == ["stopped"]
    assert follower.starts("t").state == DONE
    company.pass_time(500_000)
    assert follower.replica.engine.applied_index == company.leader().replica.engine.applied_index
    follower.restart()
    assert CLUSTER in follower.turn.replicas


@pytest.mark.interpreted
def test_a_leader_that_nobody_takes_over_from_stops_all_the_same(company, monkeypatch):
    company.form("node1", "node2", "node3")
    leader = company.leader()
    monkeypatch.setattr(Raft, "transfer", lambda *_: True)
    assert leader.ask(StopReplica("s", CLUSTER)).state == PENDING
    company.pass_time(STOP_US_MAX - 20_000)
    assert leader.intents.outcomes()["s"].state == PENDING
    company.pass_time(20_000)
    assert leader.intents.outcomes()["s"].state == DONE
    assert CLUSTER not in leader.turn.replicas


def test_a_large_state_is_loaded_in_slices_while_the_node_goes_on(company):
    follower = with_a_large_state(company)
    digest = company.leader().replica.machine.digest()
    assert follower.ask(StartReplica("t", CLUSTER)).state == PENDING
    follower.loaded()
    company.clock.us += SLICE_EVERY_US
    runs = 0
    while follower.intents.outcomes()["t"].state == PENDING:
        assert follower.lifecycle.hosted()[0].state == "stopped"
        assert follower.lifecycle.due_us(company.clock.us) is not None
        follower.lifecycle.run(company.clock.us)
        company.clock.us += SLICE_EVERY_US
        runs += 1
    assert runs >= 600_000 // LOAD_BYTES
    assert follower.lifecycle.due_us(company.clock.us) is None
    assert follower.replica.machine.digest() == digest
    assert follower.replica.engine.deadline_us > company.clock.us, "its time-outs begin when it is there"


@pytest.mark.parametrize("of", ["follower", "leader"])
def test_a_snapshot_whose_file_somebody_deletes_is_written_anew_while_it_is_in_memory(company, caplog, of):
    """Nobody noticed before the next start, when the state was gone and the replica to be removed by force."""
    follower = with_a_large_state(company)
    follower.starts("t")
    node = company.leader() if of == "leader" else follower
    while node.replica.engine.first_index == 1:  # Its file is not whole yet.
        company.pass_time(100_000)
    (old,) = (node.directory / "snapshots").iterdir()
    old.unlink()
    while node.journal.without_snapshot():
        company.pass_time(100_000)
    (new,) = (node.directory / "snapshots").iterdir()
    assert new != old
    company.pass_time(2_000_000)
    assert caplog.text.count("the file of its snapshot of second is gone: it writes another") == 1
    assert node.journal.without_snapshot() == []
    digest = node.replica.machine.digest()
    node.restart()
    assert not node.turn.damaged
    company.pass_time(2_000_000)
    assert node.replica.machine.digest() == digest


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_a_snapshot_that_is_being_written_goes_with_its_replica(company, how):
    company.form("node1", "node2", "node3")
    node = next(node for node in company.nodes.values() if node is not company.leader())
    replica, engine = node.replica, node.replica.engine
    large = Snapshot(2, 1, engine.configuration, bytes(1 << 20))
    staging = node.journal.stage(replica.replica, large)
    replica.states._taken = _Staged(large, staging, 0)
    directory = node.directory / "snapshots"
    eventually(lambda: staging.is_done, timeout_s=10, what="it is on disk")
    if how == "stop":
        assert node.ask(StopReplica("s", CLUSTER)).state == DONE
    else:
        assert node.ask(RemoveReplica("r", CLUSTER, replica.replica, forced=node.name)).state == DONE
    eventually(lambda: list(directory.iterdir()) == [], timeout_s=10, what="it is gone")


def test_a_replica_that_is_being_started_may_be_stopped_or_removed(company):
    follower = with_a_large_state(company)
    assert follower.ask(StartReplica("t", CLUSTER)).state == PENDING
    follower.loaded()
    assert follower.ask(StopReplica("u", CLUSTER)).state == DONE
    assert follower.intents.outcomes()["t"].state == REFUSED
    assert follower.starts("v").state == DONE
    follower.ask(StopReplica("w", CLUSTER))
    identity = follower.turn.resting[CLUSTER].replica
    assert follower.ask(StartReplica("x", CLUSTER)).state == PENDING
    follower.loaded()
    assert follower.ask(RemoveReplica("y", CLUSTER, identity, 0, follower.name)).state == DONE
    follower.lifecycle.run(company.clock.us)
    assert follower.intents.outcomes()["x"].state == REFUSED
    assert CLUSTER not in follower.turn.replicas


def test_a_node_whose_replica_is_stopped_says_so_and_not_that_it_has_none(company):
    company.form("node1", "node2", "node3")
    follower = next(node for node in company.nodes.values() if node is not company.leader())
    follower.ask(StopReplica("s", CLUSTER))
    follower.restart()
    assert waits_for(follower) == "its replica of second is stopped, until it is started"
    follower.starts("t")
    assert waits_for(follower) == ""
    company.nodes["node9"] = bare = Node("node9", follower.directory.parent / "node9", company.clock)
    assert waits_for(bare) == "empty"


@pytest.mark.parametrize("forced", [False, True])
def test_nobody_answers_for_a_sleeper_that_was_stopped_or_removed(company, forced):
    """Else its leader takes it for one that answers, and would make the cluster one of itself and that one."""
    company.form("node1", "node2", "node3")
    for node in company.nodes.values():
        node.turn.few_replicas = 0
    for _ in range(500):
        company.pass_time(20_000)
        if all(node.turn.sleep.holds(node.replica) for node in company.nodes.values()):
            break
    else:
        pytest.fail("they never sleep")
    leader = company.leader()
    follower = next(node for node in company.nodes.values() if node is not leader)
    follower.turn.few_replicas = 8  # It answers for who sleeps, and lays nobody to sleep itself.
    member = leader.replica.configuration.member(follower.replica.replica)
    if forced:
        outcome = follower.ask(RemoveReplica("r", CLUSTER, member.replica, forced=follower.name))
    else:
        outcome = follower.ask(StopReplica("s", CLUSTER))
    assert outcome.state == DONE
    company.pass_time(2_000_000)
    engine = leader.replica.engine
    assert not leader.turn.sleep.holds(leader.replica)
    own = engine.configuration.member(leader.replica.replica)
    with pytest.raises(ChangeRefused, match="leave no quorum"):
        engine.change(Change((own, member)), company.clock.us)


def waits_for(node: Node) -> str:
    """As its feed tells dashboards."""
    node.clock.us += 2_000_000
    node.turn.run()
    *_, told = [packet for packet in node.bus.published if packet.channel == CHANNELS.feed(node.name)]
    body = wire.open_envelope(told.data, wire.FEED).body
    return msgspec.msgpack.decode(body, type=wire.Feed).report.waiting_for


def test_a_leader_that_is_stopped_hands_over_first(company):
    company.form("node1", "node2", "node3")
    leader = company.leader()
    term = leader.replica.engine.term
    assert leader.ask(StopReplica("s", CLUSTER)).state == PENDING
    company.pass_time(300_000)
    assert leader.intents.outcomes()["s"].state == DONE
    assert company.leader().replica.engine.term == term + 1


def test_a_member_is_not_removed_at_its_nodes_word_alone(company):
    company.form("node1", "node2", "node3")
    follower = next(node for node in company.nodes.values() if node is not company.leader())
    replica = follower.replica
    ask = RemoveReplica("r1", CLUSTER, replica.replica)
    assert follower.ask(ask).state == REFUSED
    lie = RemoveReplica("r2", CLUSTER, replica.replica, committed_index=replica.engine.commit_index + 100)
    assert follower.ask(lie).state == REFUSED, "its leader speaks to it"
    assert follower.replica is replica


def test_a_member_that_is_cut_off_is_not_removed_by_what_its_own_log_knows_better(company):
    """It hears no leader, and whoever asks has seen nothing later than its own log, which names it."""
    company.form("node1", "node2", "node3")
    follower = next(node for node in company.nodes.values() if node is not company.leader())
    company.cut = {follower.name}
    company.pass_time(1_000_000)
    company.clock.us += SILENCE_US_MIN
    follower.turn.run()
    replica = follower.replica
    for number, seen in enumerate((0, 1, replica.engine.commit_index)):
        outcome = follower.ask(RemoveReplica(f"r{number}", CLUSTER, replica.replica, committed_index=seen))
        assert (outcome.state, "its log names it" in outcome.message) == (REFUSED, True)
    assert follower.replica is replica


def test_whoever_the_log_names_no_more_is_removed_and_never_comes_back(company):
    members = company.form("node1", "node2", "node3")
    leader = company.leader()
    gone = next(node for node in company.nodes.values() if node is not leader)
    identity = gone.replica.replica
    index = leader.replica.engine.change(
        Change(tuple(m for m in members.values() if m.replica != identity)), company.clock.us
    )
    company.pass_time(SILENCE_US_MIN + 1_000_000)
    assert leader.replica.engine.commit_index >= index
    assert gone.ask(RemoveReplica("r", CLUSTER, identity, committed_index=index)).state == DONE
    assert gone.journal.replicas() == []
    assert gone.ask(RemoveReplica("r-again", CLUSTER, identity, committed_index=index)).state == DONE
    assert gone.ask(HostReplica(f"host-{gone.name}", CLUSTER, "second")).state == DONE  # Kept under that request.
    gone.restart()
    assert gone.ask(HostReplica(f"host-{gone.name}", CLUSTER, "second")).state == REFUSED
    fresh = gone.ask(HostReplica("anew", CLUSTER, "second"))
    assert (fresh.state, fresh.replica != identity, fresh.epoch) == (DONE, True, 0)


def test_force_takes_the_nodes_own_name(company):
    company.form("node1", "node2", "node3")
    node = company.nodes["node2"]
    identity = node.replica.replica
    assert node.ask(RemoveReplica("r1", CLUSTER, identity, forced="node1")).state == REFUSED
    assert node.ask(RemoveReplica("r2", CLUSTER, identity, forced="node2")).state == DONE
    assert identity in node.journal.tombstones()


def test_another_identity_than_the_one_named_is_not_removed(company):
    company.form("node1", "node2", "node3")
    node = company.nodes["node2"]
    assert node.ask(RemoveReplica("r", CLUSTER, 12345, forced="node2")).state == REFUSED
    assert CLUSTER in node.turn.replicas


def test_a_drained_node_leads_nothing(company):
    company.form("node1", "node2", "node3")
    leader = company.leader()
    leader.ask(Drain("d", on=True))
    company.pass_time(400_000)
    assert company.leader() is not leader
    others = [node for node in company.nodes.values() if node is not leader]
    for node in others:
        node.ask(Drain("d", on=True))
    leader.ask(Drain("off", on=False))
    company.pass_time(3_000_000)
    assert company.leader() is leader
    term = leader.replica.engine.term
    company.pass_time(1_000_000)
    assert leader.replica.engine.term == term


def test_nodes_that_all_drain_do_not_throw_leadership_to_and_fro_without_end(company):
    company.form("node1", "node2", "node3")
    term = company.leader().replica.engine.term
    for node in company.nodes.values():
        node.ask(Drain("d", on=True))
    company.pass_time(7_000_000)
    assert max(node.replica.engine.term for node in company.nodes.values()) <= term + 3 * 5


def test_leadership_is_handed_to_the_node_that_is_named(company):
    company.form("node1", "node2", "node3")
    leader = company.leader()
    target = next(name for name in company.nodes if name != leader.name)
    leader.ask(TransferLeadership("t", CLUSTER, target))
    company.pass_time(300_000)
    assert company.leader().name == target
    assert leader.intents.outcomes()["t"].state == DONE
    assert company.leader().ask(TransferLeadership("u", CLUSTER, "node9")).state == REFUSED


def test_a_hosted_replica_is_brought_up_by_a_snapshot_and_keeps_it(tmp_path):
    company = Company(tmp_path, ("node1", "node2", "node3", "node4"))
    company.form("node1", "node2", "node3")
    leader = company.leader()
    leader.replica.states.compaction = Compaction(1_000, 0)
    leader.ask(CompactReplica("c", CLUSTER))
    company.pass_time(100_000)
    assert leader.replica.engine.first_index > 1
    fourth = company.nodes["node4"]
    (member,) = company.host("node4").values()
    voters = leader.replica.configuration.voters
    leader.replica.engine.change(Change(voters, (member,)), company.clock.us)
    company.pass_time(500_000)
    for _ in range(2):
        assert fourth.replica.engine.first_index > 1
        assert fourth.replica.machine.digest() == leader.replica.machine.digest()
        assert fourth.replica.configuration.learners == (member,)
        fourth.restart()
