"""Quiet clusters sleep, and wake for whoever wants something of them; nothing is taken for confirmed that is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.messages import VoteRequest
from coordinator.replica.births import first_log
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.ports import Inbound
from coordinator.replica.replica import Replica
from coordinator.replica.sleep import ASK_AGAIN_US, BEAT_US, DEAF_US, PAUSE_US, SILENCE_US
from coordinator.statemachine.commands import ClientOp, CloseSession, Command, OpenSession, PutKey
from coordinator.statemachine.machine import Machine
from coordinator.wire import PeerMessage, SleepAnswer, SleepBeat
from tests.unit.replica.dormitory import CLUSTERS, OPTIONS, Dormitory
from tests.unit.replica.stage import CHANNELS, PEER_KEY, WEB, Node

CLUSTER = CLUSTERS[1]
TIMEOUT_US = 600_000


@pytest.fixture
def room() -> Dormitory:
    room = Dormitory()
    room.lull()
    return room


def words(node: Node) -> list[PeerMessage]:
    """What a node has published to others and nobody has carried yet."""
    packets = [packet for packet in node.bus.published if ":p:" in packet.channel]
    return [m for packet in packets for m in wire.decode_peer(wire.open_envelope(packet.data, wire.PEER).body)]


def put(room: Dormitory, cluster: int, key: str, node: str) -> str:
    raw = msgspec.Raw(wire.encode(Command(0, 0, 0, OpenSession(1_000, b""))))
    channel = room.ask(node, wire.CommandRequest(1, cluster, "", raw))
    room.settle()
    (answer,) = room.replies(channel)
    assert isinstance(answer, wire.Answer)
    session = answer.result.session
    ops: list[ClientOp] = [PutKey(key, b"v"), CloseSession()]
    for number, op in enumerate(ops, 1):
        raw = msgspec.Raw(wire.encode(Command(session, number, 0, op)))
        channel = room.ask(node, wire.CommandRequest(1 + number, cluster, "", raw))
        room.settle()
    return channel


# --- what it is for -------------------------------------------------------------------------------


@pytest.mark.interpreted
def test_all_that_is_said_of_sleepers_is_a_message_and_an_answer_between_two_nodes(room: Dormitory):
    said: list[PeerMessage] = []
    turns = 0
    until_us = room.clock.us + 10 * BEAT_US
    for node in room.nodes.values():
        for replica in node.turn.replicas.values():
            replica.tick = lambda *_, **__: pytest.fail("one that sleeps has a turn")  # type: ignore[method-assign]
    while room.clock.us < until_us:
        room.clock.us += 20_000
        for _ in range(4):
            for node in room.nodes.values():
                node.run()
                turns += 1
                said += words(node)
            room.carry()
    assert {type(one.message) for one in said} == {SleepBeat, SleepAnswer}
    leading = {room.leader(cluster)[0].name for cluster in CLUSTERS}
    assert len(said) == 10 * len(leading) * 2 * 2
    assert room.all_sleep()
    assert [node.turn.drops.total() for node in room.nodes.values()] == [0, 0, 0]


def test_whoever_is_asked_answers_within_one_round_and_sleeps_again(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    channel = put(room, CLUSTER, "k", leader.name)
    assert len(room.replies(channel)) == 1
    assert room.sleepers(CLUSTER) == []
    assert all(len(room.sleepers(other)) == 3 for other in CLUSTERS if other != CLUSTER)
    term = replica.engine.term
    room.lull()
    assert [r.engine.term for r in room.replicas(CLUSTER)] == [term] * 3
    assert all("k" in r.machine.keys for r in room.replicas(CLUSTER))


def test_a_leader_that_is_to_have_states_compared_wakes_for_it(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    put(room, CLUSTER, "k", leader.name)
    room.lull()
    assert replica.states.mark_due_us is not None
    room.pass_time(61_000_000)
    assert replica.states.mark_due_us is None
    agreed = [r.states.comparison.agreed for r in room.replicas(CLUSTER)]
    assert agreed == [replica.states.marked_index] * 3
    room.lull()


def test_leadership_is_handed_over_by_one_that_sleeps(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    leader.turn.stir(CLUSTER)
    target = replica.engine.best_successor(room.clock.us)
    assert target is not None, "it knows who answers"
    assert replica.engine.transfer(target, room.clock.us)
    room.settle()
    assert replica.engine.role is Role.FOLLOWER
    room.lull()


def test_a_node_whose_replicas_sleep_has_its_next_turn_when_the_next_word_is_due(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    at_us = leader.turn.sleep.due_us
    assert room.clock.us < at_us <= room.clock.us + BEAT_US
    assert at_us % BEAT_US == 0
    room.clock.us = at_us
    before = leader.turn.sleep.due_us
    leader.run()
    assert [type(one.message) for one in words(leader)].count(SleepBeat) == 2
    assert before == at_us < leader.turn.sleep.due_us


def test_a_node_that_nobody_answers_does_not_take_turn_after_turn_for_it(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    gone, other = (node for node in room.nodes.values() if node is not leader)
    both = [leader.name, other.name]
    for node in (leader, other):
        node.turn.replicas[2_000] = replica_of(2_000, both, node.name, room.clock.us)
    room.pass_time(8_000_000)
    room.cut = {gone.name}
    until_us = room.clock.us + 2 * SILENCE_US
    while room.clock.us < until_us:
        room.clock.us += 10_000
        for node in room.nodes.values():
            node.run()
        assert leader.turn.sleep.due_us > room.clock.us
        assert leader.turn.sleep.holds(leader.turn.replicas[2_000]), "no member of it is gone"
        room.carry()


def test_who_sleeps_does_not_take_the_standing_still_of_its_own_node_for_its_leaders_silence(room: Dormitory):
    """What was said meanwhile may still lie unread in Redis, and the leader's node may have stood still as well."""
    leader, replica = room.leader(CLUSTER)
    follower = next(node for node in room.nodes.values() if node is not leader)
    follower.turn.pace_us = STEP_US_MAX
    terms = [one.engine.term for one in follower.turn.replicas.values()]
    for _ in range(4):
        room.clock.us += 450_000
        follower.run()
        assert follower.turn.sleep.holds(follower.turn.replicas[CLUSTER])
    assert [one.engine.term for one in follower.turn.replicas.values()] == terms
    for _ in range(30):
        room.clock.us += 100_000
        follower.run()
    awake = follower.turn.replicas[CLUSTER]
    assert (awake.engine.role, awake.engine.leader) == (Role.PRE_CANDIDATE, 0), "it is silent, as far as one can hear"
    assert replica.engine.role is Role.LEADER


def test_who_is_woken_by_it_still_waits_for_what_its_node_could_not_hear(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    follower = next(node for node in room.nodes.values() if node is not leader)
    follower.turn.pace_us = STEP_US_MAX
    room.clock.us += 5_000_000
    follower.turn.stir(CLUSTER)
    follower.run()
    engine = follower.turn.replicas[CLUSTER].engine
    assert not follower.turn.sleep.holds(follower.turn.replicas[CLUSTER])
    assert (engine.role, engine.leader) == (Role.FOLLOWER, leader.turn.replicas[CLUSTER].replica)


# --- what must wake -------------------------------------------------------------------------------


def test_followers_of_a_node_that_died_elect_as_early_as_if_they_were_awake(room: Dormitory):
    dead = room.leader(CLUSTER)[0].name
    led = [cluster for cluster in CLUSTERS if room.leader(cluster)[0].name == dead]
    room.cut = {dead}
    room.pass_time(1_300_000)
    for cluster in led:
        leaders = [n.name for n in room.nodes.values() if n.turn.replicas[cluster].engine.role is Role.LEADER]
        assert leaders not in ([], [dead])


def test_followers_whose_leaders_node_falls_silent_elect_at_once(room: Dormitory):
    dead = room.leader(CLUSTER)[0].name
    room.cut = {dead}
    for node in room.nodes.values():
        if node.name != dead:
            node.bus.silent = [dead]
    room.pass_time(100_000)
    assert room.leader(CLUSTER)[0].name != dead


def test_a_leader_whom_nobody_answers_wakes_and_steps_down_in_time(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    room.cut = {leader.name}
    room.pass_time(TIMEOUT_US + 60_000 + BEAT_US)
    assert replica.engine.role is not Role.LEADER


def test_a_leader_that_one_follower_answers_leads_on_awake(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    term = replica.engine.term
    gone = next(name for name in room.nodes if name != leader.name)
    room.cut = {gone}
    room.pass_time(3_000_000)
    assert (replica.engine.role, replica.engine.term) == (Role.LEADER, term)
    assert leader.name not in room.sleepers(CLUSTER)
    room.cut = set()
    room.lull()


def test_a_follower_that_its_leader_speaks_for_no_more_wakes(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    leader.turn.stir(CLUSTER)
    replica.engine.role = Role.FOLLOWER
    room.pass_time(BEAT_US + 20_000)
    assert room.sleepers(CLUSTER) == []


def test_a_replica_that_was_begun_anew_is_not_answered_for_and_its_leader_wakes(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    restarted = next(name for name in room.nodes if name != leader.name)
    room.restart(restarted)
    room.pass_time(BEAT_US)
    assert CLUSTER not in [c for c in CLUSTERS if len(room.sleepers(c)) == 3]
    room.pass_time(PAUSE_US // 2)
    assert leader.name not in room.sleepers(CLUSTER), "it is left in peace for a while"
    assert replica.engine.role is Role.LEADER
    room.lull()


def test_a_replica_that_is_gone_is_spoken_for_no_more(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    del leader.turn.replicas[CLUSTER]
    room.clock.us += BEAT_US
    leader.run()
    beats = [m.message for m in words(leader) if isinstance(m.message, SleepBeat)]
    assert beats
    assert all(sleeper.cluster != CLUSTER for beat in beats for sleeper in beat.sleepers)


def test_leaders_on_a_node_that_has_few_replicas_again_beat_for_themselves():
    """Nine clusters of one member, and one is taken away: nobody was woken, and the node turned without end."""
    room = Dormitory(clusters=range(1_001, 1_010))
    node = room.nodes["node1"]
    node.turn.replicas.update({c: replica_of(c, ["node1"], "node1", room.clock.us) for c in node.turn.replicas})
    node.turn.few_replicas = 8
    for _ in range(1_000):
        room.clock.us += 20_000
        node.run()
    assert node.turn.sleep.count == 9
    del node.turn.replicas[1_001]
    for _ in range(50):
        room.clock.us += 20_000
        assert node.run().deadline_us > room.clock.us
    assert node.turn.sleep.count == 0


def test_whoever_is_woken_does_not_hide_that_the_others_are_named_no_more(room: Dormitory):
    """A node's last word speaks for nobody: that is not what it said before, though one of its followers woke since."""
    node, sleepers = next(
        (node, [*guard.clusters])
        for node in room.nodes.values()
        for guard in node.turn.sleep._guards.values()
        if len(guard.clusters) > 1
    )
    (leader,) = {node.turn.replicas[cluster].leader_node for cluster in sleepers}
    node.turn.stir(sleepers[0])
    room.clock.us += BEAT_US
    node.turn.sleep.take_beat(leader, SleepBeat(77, 1_000, []), room.clock.us)
    assert [cluster for cluster in sleepers if node.name in room.sleepers(cluster)] == []


def test_the_death_of_a_sleepers_leader_is_watched_for_though_another_replica_comes(room: Dormitory):
    node = next(node for node in room.nodes.values() if node.bus.watched)
    watched = node.bus.watched
    for other in room.nodes.values():
        other.turn.replicas[2_000] = replica_of(2_000, [other.name], other.name, room.clock.us)
    room.pass_time(100_000)
    assert node.bus.watched == watched


def replica_of(cluster: int, nodes: Sequence[str], own: str, now_us: int) -> Replica:
    """The replica on `own` of a cluster that is on `nodes` alone."""
    members = [Member(cluster * 10 + number, node) for number, node in enumerate(nodes, 1)]
    me = members[nodes.index(own)].replica
    log = first_log(cluster, f"cluster{cluster}", 1, members, WEB)
    entries = Log([*log.terms], [*log.entries], log.hard_state.commit)
    raft = Raft(me, log.hard_state, entries, options=OPTIONS, random=Random(me), now_us=now_us)
    return Replica(cluster, f"cluster{cluster}", me, raft, Machine(), now_us)


@pytest.mark.interpreted
def test_where_a_node_does_not_know_how_nobody_sleeps_and_it_is_asked_seldom():
    room = Dormitory()
    for node in room.nodes.values():
        node.turn.sleep.take_beat = lambda *_: None  # type: ignore[method-assign]
    room.pass_time(8_000_000)
    assert not any(room.sleepers(cluster) for cluster in CLUSTERS)
    asked = 0
    for _ in range(2 * ASK_AGAIN_US // 20_000):
        room.clock.us += 20_000
        for node in room.nodes.values():
            node.run()
            asked += sum(isinstance(m.message, SleepBeat) for m in words(node))
        room.carry()
        room.settle()
    assert 0 < asked <= 2 * 3 * 2


# --- what must not be taken for confirmed ---------------------------------------------------------


def confirmed_us(room: Dormitory) -> Callable[[], int]:
    """What the leader takes for confirmed once it wakes."""
    leader, replica = room.leader(CLUSTER)

    def wake() -> int:
        leader.turn.stir(CLUSTER)
        return replica.engine.confirmed_at_us

    return wake


def test_a_leader_is_confirmed_by_what_was_answered_while_it_slept(room: Dormitory):
    room.pass_time(3 * BEAT_US)
    assert room.clock.us - confirmed_us(room)() <= BEAT_US + 20_000


def test_followers_that_voted_for_another_confirm_nothing_though_their_node_answers_for_others(room: Dormitory):
    """The history: its followers elect another while its node is not heard; then the node's words come again, and are
    answered for the other clusters."""
    leader, replica = room.leader(CLUSTER)
    before_us = room.clock.us
    for node in room.nodes.values():
        if node is not leader:
            other = node.turn.replicas[CLUSTER]
            node.turn.stir(CLUSTER)
            assert isinstance(other.engine.heard_at_us, int)
            other.engine.heard_at_us = None
            later = VoteRequest(replica.engine.term + 1, 99, replica.engine.term, pre=False, campaign=1)
            other.engine.step(12345, later, room.clock.us)
    room.nodes = {name: node for name, node in room.nodes.items() if name}
    for _ in range(20):
        room.clock.us += 20_000
        leader.run()
        for node in room.nodes.values():
            for packet in [p for p in leader.bus.published if p.channel == CHANNELS.peer(node.name)]:
                kinds = {type(m.message) for m in wire.decode_peer(wire.open_envelope(packet.data, wire.PEER).body)}
                if kinds <= {SleepBeat, SleepAnswer}:
                    node.bus.inbox.append(Inbound(from_peers=True, data=packet.data))
        leader.bus.published.clear()
        for node in room.nodes.values():
            if node is not leader:
                node.turn._take_in(node.bus.drain(), room.clock.us)
                node.bus.published.clear()
                node.bus.publish(node.turn._words())
                for packet in [p for p in node.bus.published if p.channel == CHANNELS.peer(leader.name)]:
                    leader.bus.inbox.append(Inbound(from_peers=True, data=packet.data))
                node.bus.published.clear()
    assert replica.engine.confirmed_at_us <= before_us
    assert not leader.turn.sleep.holds(replica)


def test_an_answer_that_comes_twice_late_or_from_another_start_confirms_nothing(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    room.clock.us += BEAT_US
    leader.run()
    beat = next(m.message for m in words(leader) if isinstance(m.message, SleepBeat))
    leader.bus.published.clear()
    before_us = room.clock.us
    other = next(name for name in room.nodes if name != leader.name)

    def answer(said: SleepAnswer) -> None:
        body = wire.encode_peer([PeerMessage(0, 0, 0, said)])
        packet = wire.seal(PEER_KEY, wire.PEER, other, leader.name, body)
        leader.bus.inbox.append(Inbound(from_peers=True, data=packet))
        leader.run()

    heard = leader.turn.sleep._peers[other].heard
    answer(SleepAnswer(beat.boot + 1, beat.number, []))
    answer(SleepAnswer(beat.boot, beat.number + 1, []))
    assert leader.turn.sleep._peers[other].heard == heard
    answer(SleepAnswer(beat.boot, beat.number, []))
    assert leader.turn.sleep._peers[other].heard.sent_us == before_us
    room.clock.us += 50_000
    answer(SleepAnswer(beat.boot, beat.number, []))
    assert leader.turn.sleep._peers[other].heard.answered_us == before_us
    room.clock.us += SILENCE_US
    assert confirmed_us(room)() == before_us
    assert replica.engine.role is Role.LEADER


def test_an_answer_to_a_word_from_before_it_slept_confirms_nothing(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    leader.turn.stir(CLUSTER)
    room.settle()
    room.clock.us = (room.clock.us // BEAT_US + 1) * BEAT_US
    leader.run()  # The word that does not speak for it, since it is to answer and has a turn.
    leader.bus.published.clear()
    confirmed = replica.engine.confirmed_at_us
    for peer in leader.turn.sleep._peers.values():
        peer.number -= 1
    leader.turn.stir(CLUSTER)
    assert replica.engine.confirmed_at_us == confirmed


def test_a_node_answers_for_whoever_is_busy_and_names_whoever_is_not_there(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    other = next(node for node in room.nodes.values() if node is not leader)
    busy = other.turn.replicas[CLUSTER]
    room.clock.us += BEAT_US
    leader.run()
    beats = [m.message for m in words(leader) if isinstance(m.message, SleepBeat)]
    beat = next(b for b in beats if any(s.follower == busy.replica for s in b.sleepers))
    other.turn.stir(CLUSTER)
    unknown = wire.Sleeper(7, 1, 2, 3, 4)
    other.turn.sleep.take_beat(leader.name, beat._replace(sleepers=[*beat.sleepers, unknown]), room.clock.us)
    ((to, _, said),) = other.turn.sleep.take_words()
    assert (to, said) == (leader.name, SleepAnswer(beat.boot, beat.number, [7]))
    assert busy.engine.heard_at_us == room.clock.us
    assert not other.turn.sleep.holds(busy)


def test_a_node_answers_for_no_leader_of_another_node_or_another_term(room: Dormitory):
    leader, replica = room.leader(CLUSTER)
    other = next(node for node in room.nodes.values() if node is not leader)
    follower = other.turn.replicas[CLUSTER]
    engine = replica.engine
    right = wire.Sleeper(CLUSTER, replica.replica, follower.replica, engine.term, engine.last_index)
    all_wrong = (
        ("node9", right),
        (leader.name, right._replace(term=engine.term + 1)),
        (leader.name, right._replace(leader=1)),
        (leader.name, right._replace(follower=1)),
        (leader.name, right._replace(last_index=engine.last_index - 1)),
    )
    for number, (node, wrong) in enumerate(all_wrong, 6):
        other.turn.sleep.take_beat(node, SleepBeat(5, number, [wrong]), room.clock.us)
        assert other.turn.sleep.take_words()[-1][2] == SleepAnswer(5, number, [CLUSTER])


def test_copies_of_the_words_of_a_dead_node_keep_nobody_from_electing(room: Dormitory):
    dead = room.leader(CLUSTER)[0]
    others = [node for node in room.nodes.values() if node is not dead]
    said: dict[str, bytes] = {}
    while len(said) < len(others):
        room.carry()
        room.clock.us += 20_000
        dead.run()
        for packet in dead.bus.published:
            body = wire.open_envelope(packet.data, wire.PEER).body if ":p:" in packet.channel else b""
            if body and isinstance(wire.decode_peer(body)[0].message, SleepBeat):
                said[packet.channel] = packet.data
    room.carry()
    room.cut = {dead.name}
    for _ in range(25):
        room.pass_time(BEAT_US)
        for node in others:
            node.bus.inbox.append(Inbound(from_peers=True, data=said[CHANNELS.peer(node.name)]))
    assert any(node.turn.replicas[CLUSTER].engine.role is Role.LEADER for node in others)


def test_one_that_is_deaf_counts_from_the_last_word_and_not_from_when_it_wakes(room: Dormitory):
    leader, _ = room.leader(CLUSTER)
    other = next(node for node in room.nodes.values() if node is not leader)
    heard_us = other.turn.sleep._guards[leader.name].heard_us
    room.clock.us = heard_us + DEAF_US
    other.run()
    engine = other.turn.replicas[CLUSTER].engine
    assert not other.turn.sleep.holds(other.turn.replicas[CLUSTER])
    assert engine.heard_at_us == heard_us
    assert heard_us + TIMEOUT_US <= engine.deadline_us
