"""How replicas and their cluster come about, on real journals: one log, and no identity twice, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.consensus.raft.messages import VoteRequest
from coordinator.replica import lifecycle
from coordinator.replica.births import WebToken, first_log
from coordinator.replica.intents import (
    DONE,
    OUTCOMES_MAX,
    PENDING,
    REFUSED,
    Drain,
    FormCluster,
    HostReplica,
    Intents,
    Outcome,
    RestoreReplica,
    StopReplica,
)
from coordinator.statemachine.locks import EPOCH_MAX
from tests.unit.replica.company import CLUSTER, TOKEN, Company, Node


def test_a_hosted_replica_is_empty_and_nobody(company):
    node = company.nodes["node1"]
    outcome = node.ask(HostReplica("a", CLUSTER, "second"))
    assert (outcome.state, outcome.replica > 0, outcome.epoch) == (DONE, True, -1)
    company.pass_time(3_000_000)
    engine = node.replica.engine
    assert (engine.role, engine.term, engine.last_index) == (Role.FOLLOWER, 0, 0)
    assert [hosted.state for hosted in node.lifecycle.hosted()] == ["empty"]


def test_hosting_asked_for_twice_or_after_a_restart_draws_one_identity(company):
    node = company.nodes["node1"]
    first = node.ask(HostReplica("a", CLUSTER, "second")).replica
    assert node.ask(HostReplica("a", CLUSTER, "second")).replica == first
    assert node.ask(HostReplica("b", CLUSTER, "second")).replica == first
    node.restart()
    assert node.ask(HostReplica("a", CLUSTER, "second")).replica == first
    assert node.replica.replica == first


def test_what_is_asked_for_again_once_it_was_refused_is_told_from_the_try_before():
    intents = Intents(lambda: None)
    drain = Drain("d", on=True)
    intents.post(drain)
    intents.finish("d", Outcome(REFUSED, "not now"))
    assert intents.outcomes()["d"] == Outcome(REFUSED, "not now", tries=1)
    assert intents.post(drain) == Outcome(PENDING, "posted", tries=2)
    assert intents.post(drain).tries == 2, "a copy of what is under way is no other try"
    intents.finish("d", Outcome(REFUSED, "not now"))
    assert intents.outcomes()["d"] == Outcome(REFUSED, "not now", tries=2)


def test_what_became_of_the_last_intents_is_known_and_of_older_ones_no_more():
    intents = Intents(lambda: None)
    for number in range(OUTCOMES_MAX + 3):
        intents.finish(f"asked {number}", Outcome(DONE, f"done {number}"))
    known = intents.outcomes()
    assert [*known] == [f"asked {number}" for number in range(3, OUTCOMES_MAX + 3)]
    intents.finish("asked 3", Outcome(REFUSED, "again"))
    intents.finish("a new one", Outcome(PENDING, "posted"))
    known = intents.outcomes()
    assert "asked 3" in known, "it was heard of since"
    assert "asked 4" not in known


def test_a_node_hosts_one_cluster_of_a_name(company):
    node = company.nodes["node1"]
    assert node.ask(HostReplica("a", CLUSTER, "second")).state == DONE
    outcome = node.ask(HostReplica("b", CLUSTER + 1, "second"))
    assert (outcome.state, "another second: 4d" in outcome.message) == (REFUSED, True)


@pytest.mark.parametrize(("cluster", "name"), [(0, "x"), (-1, "x"), (1 << 63, "x"), (7, ""), (7, "Second"), (7, "a/b")])
def test_a_cluster_that_can_not_be_is_not_hosted(company, cluster, name):
    node = company.nodes["node1"]
    assert node.ask(HostReplica("a", cluster, name)).state == REFUSED
    assert node.journal.replicas() == []


@pytest.mark.interpreted
def test_a_node_hosts_so_many_replicas_and_no_more(company, monkeypatch):
    """Those that rest among them."""
    monkeypatch.setattr(lifecycle, "REPLICAS_MAX", 2)
    node = company.nodes["node1"]
    for number in range(2):
        assert node.ask(HostReplica(f"a{number}", CLUSTER + number, f"cluster{number}")).state == DONE
    assert node.ask(StopReplica("s", CLUSTER)).state == DONE
    outcome = node.ask(HostReplica("b", CLUSTER + 2, "third"))
    assert (outcome.state, outcome.message) == (REFUSED, "this node hosts its 2 replicas")
    assert len(node.journal.replicas()) == 2


def test_three_nodes_form_a_cluster_from_one_document(company):
    members = company.form("node1", "node2", "node3")
    leader = company.leader()
    assert leader.replica.machine.cluster_id == CLUSTER
    assert {node.replica.configuration.voters for node in company.nodes.values()} == {tuple(members.values())}
    assert len({node.replica.machine.digest() for node in company.nodes.values()}) == 1


def test_a_document_that_comes_twice_changes_nothing_and_another_is_refused(company):
    members = company.form("node1", "node2", "node3")
    node = company.nodes["node1"]
    applied = node.replica.engine.applied_index
    assert node.ask(company.document(members, "again")).state == DONE
    assert node.ask(company.document(members, "other", epoch=5)).state == REFUSED
    assert node.replica.engine.applied_index == applied


@pytest.mark.parametrize("epoch", [-1, EPOCH_MAX + 1, 10**20])
def test_a_document_of_an_epoch_that_there_can_not_be_begins_nothing(company, epoch):
    """The log would hold a genesis that every state refuses, and the name would be used up on this node."""
    members = company.host("node1", "node2", "node3")
    node = company.nodes["node1"]
    outcome = node.ask(company.document(members, epoch=epoch))
    assert (outcome.state, outcome.message) == (REFUSED, f"expected an epoch from 0 to {EPOCH_MAX}, got {epoch}")
    assert (node.replica.engine.last_index, node.lifecycle.epochs(), node.journal.epochs()) == (0, {}, {})
    first = RestoreReplica("restore", CLUSTER, "second", epoch, tuple(members.values()), "none", "d")
    assert "expected an epoch from 0 to" in node.ask(first).message


def test_an_epoch_beyond_the_maximum_in_a_journal_uses_up_no_name(company):
    """Nodes wrote down what a document said before they checked it."""
    node = company.nodes["node1"]
    node.journal.keep_epoch("second", 9000)
    node.restart()
    members = company.host("node1", "node2", "node3")
    assert node.ask(company.document(members, epoch=3)).state == DONE


def test_a_document_that_comes_late_finds_a_replica_that_voted_and_keeps_its_vote(company):
    """node3 hears of the cluster from a candidate before it gets the document."""
    members = company.host("node1", "node2", "node3")
    for name in ("node1", "node2"):
        company.nodes[name].ask(company.document(members))
    company.pass_time(2_500_000)
    third = company.nodes["node3"]
    term, vote = third.replica.engine.term, third.replica.engine.vote
    assert term > 0
    outcome = third.ask(company.document(members))
    assert outcome.state == DONE
    assert (third.replica.engine.term, third.replica.engine.vote) == (term, vote)
    company.pass_time(1_000_000)
    assert third.replica.engine.applied_index == company.leader().replica.engine.applied_index


def test_a_vote_that_an_empty_replica_gave_outlives_its_document(company):
    """Rule 3: what was promised stays promised, whatever begins the log."""
    members = company.host("node1", "node2", "node3")
    second = company.nodes["node2"]
    candidate = members["node1"].replica
    second.replica.engine.step(candidate, VoteRequest(7, 2, 1, pre=False, campaign=1), company.clock.us)
    second.turn.run()
    assert (second.replica.engine.term, second.replica.engine.vote) == (7, candidate)
    assert second.ask(company.document(members)).state == DONE
    for _ in range(2):
        engine = second.replica.engine
        assert (engine.term, engine.vote, engine.last_index, engine.commit_index) == (7, candidate, 2, 2)
        second.restart()
    engine = second.replica.engine
    engine.step(members["node3"].replica, VoteRequest(7, 2, 1, pre=False, campaign=1), company.clock.us)
    second.turn.run()
    assert engine.vote == candidate, "a second vote in one term"


def test_a_wiped_node_never_gets_its_old_identity_from_the_document(company, tmp_path):
    """Rule 4: the document names an identity that this disk did not draw."""
    members = company.host("node1", "node2", "node3")
    wiped = Node("node3", tmp_path / "new-disk", company.clock)
    assert wiped.ask(company.document(members)).state == REFUSED
    wiped.ask(HostReplica("host-node3", CLUSTER, "second"))
    assert wiped.replica.replica != members["node3"].replica
    assert wiped.ask(company.document(members)).state == REFUSED
    assert wiped.replica.engine.last_index == 0


def test_a_node_with_other_keys_begins_no_other_log(company, tmp_path):
    other = Node("node9", tmp_path / "node9", company.clock, WebToken("ab" * 8, b"x" * 32))
    replica = other.ask(HostReplica("a", CLUSTER, "second")).replica
    document = company.document({"node9": Member(replica, "node9")})
    assert other.ask(document).state == REFUSED


def test_the_journals_first_entries_are_the_documents(company):
    members = company.form("node1", "node2", "node3")
    log = first_log(CLUSTER, "second", 0, [*members.values()], TOKEN)
    for node in company.nodes.values():
        stored = node.journal.load(node.replica.replica)
        assert stored.entries[:2] == log.entries
        assert wire.encode(stored.terms[:2]) == wire.encode([1, 1])


# --- births, whatever comes in between ------------------------------------------------------------

BIRTH_EVENTS = st.lists(
    st.tuples(st.sampled_from(["host", "document", "form", "form", "restart", "wipe", "time"]), st.integers(0, 2)),
    max_size=25,
)


@pytest.mark.long
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BIRTH_EVENTS)
def test_a_birth_makes_one_log_and_no_identity_comes_back(tmp_path_factory, events) -> None:
    """Rounds of a birth in any order, repeated, with restarts and lost disks in between: every log begins with the one
    document, only on disks that drew a name in it, and once the rounds are done a cluster lives."""
    names = ("node1", "node2", "node3")
    company = Company(tmp_path_factory.mktemp("birth"), names)
    document: FormCluster | None = None
    drawn: dict[str, list[int]] = {name: [] for name in names}
    wiped: set[str] = set()

    def host(name: str) -> int:
        replica = company.nodes[name].ask(HostReplica(f"host-{name}-{len(drawn[name])}", CLUSTER, "second")).replica
        if replica not in drawn[name]:
            drawn[name].append(replica)
        return replica

    def write_document() -> FormCluster:
        return company.document({name: Member(host(name), name) for name in names})

    for number, (what, which) in enumerate(events):
        name = names[which]
        node = company.nodes[name]
        if what == "host":
            host(name)
        elif what == "document" and document is None:
            document = write_document()
        elif what == "form" and document is not None:
            node.ask(document._replace(request=f"form-{number}"))
        elif what == "restart":
            node.restart()
        elif what == "wipe" and len(wiped | {name}) < 2:
            node.journal.close()
            company.nodes[name] = Node(name, node.directory / f"disk{number}", company.clock)
            if document is not None:
                wiped.add(name)
        elif what == "time":
            company.pass_time(400_000)
        _one_log(company, document, wiped)

    document = document or write_document()
    for name in names:
        company.nodes[name].ask(document._replace(request="last"))
    company.pass_time(3_000_000)
    _one_log(company, document, wiped)
    assert company.leader().replica.machine.cluster_id == CLUSTER
    every = [replica for replicas in drawn.values() for replica in replicas]
    assert len(set(every)) == len(every)


def _one_log(company: Company, document: FormCluster | None, wiped: set[str]) -> None:
    for name, node in company.nodes.items():
        if CLUSTER not in node.turn.replicas or not node.replica.engine.last_index:
            continue
        assert document is not None
        assert name not in wiped, "a lost disk took part again"
        first = first_log(CLUSTER, "second", 0, list(document.members), TOKEN).entries
        assert node.journal.load(node.replica.replica).entries[:2] == first
