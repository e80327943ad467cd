"""Nodes with a Redis of their own: to which address each packet goes, and how a node that is new learns of it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from coordinator import wire
from coordinator.channel import with_credentials, without_credentials
from coordinator.consensus.members import Change, Member
from coordinator.replica.mailbox import RedisBus
from coordinator.replica.ports import Inbound, Outbound
from coordinator.replica.whereabouts import WHEREABOUTS_OLD_US, WHEREABOUTS_US
from tests.unit.replica.dormitory import Dormitory
from tests.unit.replica.stage import CHANNELS, Node, Stage

NODES = ("node1", "node2", "node3")
SHARED = "redis://shared:6379"


def moved(stage: Stage, *names: str) -> None:
    for name in names:
        node = stage.nodes[name]
        node.turn.identity = node.turn.identity._replace(address=f"redis://{name}:6379", shared_redis=SHARED)


def addresses(node: Node) -> dict[str, str]:
    """Peer to the address that a packet for it was last published at."""
    return {
        packet.channel.rpartition(":")[2]: packet.address for packet in node.bus.published if ":p:" in packet.channel
    }


def test_all_share_one_redis_unless_somebody_says_otherwise():
    stage = Stage()
    leader = stage.elect("node1")
    stage.clock.us += 100_000
    leader.run()
    assert addresses(leader) == {"node2": "", "node3": ""}


def test_a_node_that_has_moved_tells_its_peers_and_finds_those_that_have_not():
    stage = Stage()
    moved(stage, "node3")
    leader = stage.elect("node1")
    stage.pass_time(200_000)
    stage.clock.us += 100_000
    leader.run()
    assert addresses(leader) == {"node2": "", "node3": "redis://node3:6379"}
    stage.carry()
    follower = stage.nodes["node3"]
    follower.run()
    assert addresses(follower) == {"node1": SHARED}
    assert follower.bus.watched == {"node1": SHARED}
    assert [node.turn.drops.total() for node in stage.nodes.values()] == [0, 0, 0], (
        "what is said of nodes is for no replica"
    )


def test_a_node_that_has_moved_back_to_the_shared_one_is_found_there():
    stage = Stage()
    moved(stage, "node3")
    leader = stage.elect("node1")
    stage.pass_time(200_000)
    node = stage.nodes["node3"]
    node.turn.identity = node.turn.identity._replace(address="", shared_redis="")
    stage.pass_time(WHEREABOUTS_OLD_US + 200_000)
    stage.clock.us += 300_000
    leader.run()
    assert addresses(leader) == {"node2": "", "node3": ""}


@pytest.mark.parametrize(("before", "now"), [("", "redis://there:6379"), ("redis://there:6379", "")])
def test_nodes_that_have_moved_to_one_redis_all_at_once_find_each_other(before, now):
    """The log says where they were, and none is there to be told."""
    stage = Stage(addresses=dict.fromkeys(NODES, before))
    for one in stage.nodes.values():
        one.turn.identity = one.turn.identity._replace(address=now, shared_redis=SHARED if now else "")
    until_us = stage.clock.us + 3 * WHEREABOUTS_OLD_US
    while stage.clock.us < until_us and not all(node.replica.leader_node for node in stage.nodes.values()):
        stage.clock.us += 20_000
        for one in stage.nodes.values():
            one.run()
            one.bus.published = [p for p in one.bus.published if p.address == now]
        stage.carry()
    assert all(node.replica.leader_node for node in stage.nodes.values())
    for node in stage.nodes:
        channel = stage.ask(node, wire.DirectoryRequest(1))
        stage.settle()
        (answer,) = stage.replies(channel)
        told = dict(answer.nodes)
        assert told[node] == told[answer.clusters[0].leader] == now, "who is to bring it to the log is a client"


@pytest.mark.parametrize("has_moved", [False, True])
def test_only_who_has_moved_and_hears_no_leader_looks_where_it_is_itself(has_moved):
    stage = Stage(addresses={node: f"redis://{node}:6379" for node in NODES})
    own = "redis://elsewhere:6379" if has_moved else "redis://node3:6379"
    alone = stage.nodes["node3"]
    alone.turn.identity = alone.turn.identity._replace(address=own, shared_redis=SHARED)
    seen = set()
    until_us = stage.clock.us + 3 * WHEREABOUTS_OLD_US
    while stage.clock.us < until_us:
        stage.clock.us += 20_000
        alone.run()
        seen |= {*addresses(alone).items()}
        alone.bus.published.clear()
    where_they_are = {("node1", "redis://node1:6379"), ("node2", "redis://node2:6379")}
    assert seen == where_they_are | ({("node1", own), ("node2", own)} if has_moved else set())


def test_a_node_that_was_silent_for_long_is_not_forgotten():
    stage = Stage()
    moved(stage, "node3")
    leader = stage.elect("node1")
    stage.pass_time(200_000)
    stage.cut = {"node3"}
    stage.pass_time(2 * WHEREABOUTS_OLD_US)
    leader.run()
    stage.clock.us += 300_000
    leader.run()
    assert addresses(leader)["node3"] == "redis://node3:6379"
    stage.cut = set()
    stage.pass_time(1_000_000)
    stage.clock.us += 300_000
    leader.run()
    assert addresses(leader)["node3"] == "redis://node3:6379"


def test_what_goes_to_an_address_that_is_none_is_counted_as_lost():
    drops: Counter[str] = Counter()
    bus = RedisBus("node1", "redis://here:1", CHANNELS, Random(1), greet=lambda: None, drops=drops, address="redis://a")
    for _ in range(2):
        bus.publish([Outbound("http://nowhere", CHANNELS.peer("node2"), b"lost")])
    assert drops == {"peer-redis": 2}


def test_what_was_seen_of_a_mailbox_where_its_node_was_is_no_sign_of_its_death_where_it_is():
    """An answer to a look that was under way before the node moved there knows nothing of its mailbox."""
    drops: Counter[str] = Counter()
    bus = RedisBus("node1", "redis://here:1", CHANNELS, Random(1), greet=lambda: None, drops=drops, address="redis://a")
    bus.watch({"node2": ""})
    bus._note_seen({CHANNELS.peer("node2").encode(): 1}, "")
    bus._links._bad.add("redis://b")  # So that nothing is connected to.
    bus.watch({"node2": "redis://b"})
    bus._note_seen({}, "redis://b")
    assert bus.take_silent() == []


def test_a_new_replica_answers_a_leader_of_whom_its_log_says_nothing():
    stage = Stage()
    moved(stage, "node1", "node2", "node3")
    leader = stage.elect("node1")
    joined = stage.join(Member(21, "node4"))
    moved(stage, "node4")
    members = leader.raft.configuration.voters
    leader.raft.change(Change(members, (Member(21, "node4", "redis://node4:6379"),)), stage.clock.us)
    stage.clock.us += 100_000
    leader.run()
    assert addresses(leader)["node4"] == "redis://node4:6379"
    stage.carry()
    joined.run()
    assert addresses(joined) == {"node1": "redis://node1:6379"}


def test_it_is_told_now_and_then_and_not_with_every_packet():
    stage = Stage()
    moved(stage, "node1")
    leader = stage.elect("node1")
    stage.pass_time(200_000)
    told = 0
    for _ in range(20):
        stage.clock.us += 100_000
        leader.run()
        for packet in leader.bus.published:
            if packet.channel == CHANNELS.peer("node2"):
                body = wire.open_envelope(packet.data, wire.PEER).body
                told += sum(isinstance(one.message, wire.Whereabouts) for one in wire.decode_peer(body))
        stage.settle()
    assert 2_000_000 // WHEREABOUTS_US - 1 <= told <= 2_000_000 // WHEREABOUTS_US + 1


def test_nodes_that_have_moved_find_each_other_while_their_clusters_sleep():
    """Their words for sleepers name no address, and the log has none yet."""
    room = Dormitory()
    moved(room, "node1", "node2", "node3")
    room.lull()
    until_us = room.clock.us + 2 * WHEREABOUTS_OLD_US
    while room.clock.us < until_us:
        room.clock.us += 20_000
        for _ in range(4):
            for node in room.nodes.values():
                node.run()
                assert all(address == f"redis://{name}:6379" for name, address in addresses(node).items())
            room.carry()
        assert room.all_sleep()


def test_clients_are_told_addresses_without_passwords():
    stage = Stage()
    moved(stage, *NODES)
    leader = stage.elect("node1")
    there = tuple(m._replace(address=f"redis://user:secret@{m.node}:6379") for m in leader.raft.configuration.voters)
    leader.raft.change(Change(there), stage.clock.us)
    stage.settle()
    channel = stage.ask("node1", wire.DirectoryRequest(1))
    stage.settle()
    (answer,) = stage.replies(channel)
    assert answer.nodes == tuple((m.node, f"redis://{m.node}:6379") for m in there)


def test_who_we_are_elsewhere_is_who_we_are_at_home_unless_the_address_says():
    own = "redis://user:se%2Fcret@here:6379"
    assert with_credentials("rediss://there:1?ssl_cert_reqs=none", own) == (
        "rediss://user:se%2Fcret@there:1?ssl_cert_reqs=none"
    )
    assert with_credentials("redis://other:word@there:1", own) == "redis://other:word@there:1"
    assert with_credentials("redis://there:1", "redis://here:6379") == "redis://there:1"
    files = "ssl_ca_certs=/ours/ca.pem&ssl_certfile=/ours/c.pem&ssl_keyfile=/ours/k.pem"
    tls = f"rediss://user:word@here:6379?{files}&ssl_cert_reqs=required"
    assert with_credentials("rediss://there:1", tls) == f"rediss://user:word@there:1?{files}"
    assert with_credentials("rediss://there:1?ssl_cert_reqs=none&ssl_ca_certs=/theirs.pem", tls) == (
        f"rediss://user:word@there:1?ssl_cert_reqs=none&{files}"
    )
    assert with_credentials("redis://there:1", tls) == "redis://user:word@there:1"
    assert without_credentials(own) == "redis://here:6379"
    assert without_credentials("") == ""


@pytest.mark.parametrize(
    ("now", "is_copied"), [("redis://elsewhere:6379", False), ("", False), ("redis://elsewhere:6379", True)]
)
def test_a_learner_that_has_moved_since_is_found(now, is_copied):
    """It never speaks first; and the log says where it is, but its own word was another: which of them is newer?"""
    stage = Stage()
    leader = stage.elect("node1")
    learner = stage.join(Member(21, "node4"))
    moved(stage, "node4")
    voters = leader.raft.configuration.voters
    leader.raft.change(Change(voters, (Member(21, "node4", "redis://node4:6379"),)), stage.clock.us)
    stage.clock.us += 100_000
    leader.run()
    stage.carry()
    learner.run()
    (word,) = [packet.data for packet in learner.bus.published if packet.channel == CHANNELS.peer("node1")]
    stage.pass_time(1_000_000)
    learner.turn.identity = learner.turn.identity._replace(address=now, shared_redis="")
    leader.raft.change(Change(voters, (Member(21, "node4", now),)), stage.clock.us)
    if is_copied:
        stage.pass_time(1_000_000)  # It has said so.
        leader.bus.inbox.append(Inbound(from_peers=True, data=word))
    channel = CHANNELS.peer("node4")
    for _ in range(1_000):
        stage.clock.us += 20_000
        for node in stage.nodes.values():
            node.run()
            node.bus.published = [p for p in node.bus.published if p.channel != channel or p.address == now]
        stage.carry()
    heard_us = leader.raft.progress[21].heard_at_us
    assert heard_us is not None
    assert stage.clock.us - heard_us < 1_000_000
