"""Reads that a leader leaves to its delegate: who answers, from what, and what happens where the word stays away."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.raft.messages import AppendEntries
from coordinator.consensus.raft.options import Options
from coordinator.replica import delegation, reads
from coordinator.replica.delegation import (
    LATE_US,
    LEFT_BYTES_MAX,
    LEFT_OF_TURN_MAX,
    PAUSE_US,
    READS_OF_WORD_MAX,
    TAKEN_MAX,
    TAKEN_US,
)
from coordinator.replica.ports import Inbound
from coordinator.statemachine.commands import (
    AcquireLock,
    AddToken,
    AwaitGrant,
    GetKey,
    GetLock,
    GetSession,
    ListLocks,
    PutKey,
)
from coordinator.statemachine.machine import _ANSWERS, OF_THE_LEADER
from coordinator.wire import Token
from tests.unit.replica.stage import CHANNELS, CLUSTER, PEER_KEY, REALM, WEB, Node, Stage
from tests.unit.replica.test_turn import command, keep_alive, opened, peers_of

SPARE_US = 10_000


def a_stage(size: int = 3, options: Options | None = None, **addresses: str) -> Stage:
    """With a leader on node1 that has chosen who is sent entries at once."""
    stage = Stage(size, options or Options(spare_us=SPARE_US), addresses)
    stage.elect("node1")
    stage.pass_time(100_000)
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, PutKey("a", b"old")))
    stage.settle()
    stage.pass_time(100_000)
    return stage


@pytest.fixture
def stage() -> Stage:
    return a_stage()


@pytest.fixture
def leader(stage: Stage) -> Node:
    return stage.nodes["node1"]


@pytest.fixture
def delegate(stage: Stage, leader: Node) -> Node:
    chosen = leader.raft.delegate(stage.clock.us)
    assert chosen
    return next(node for node in stage.nodes.values() if node.raft.replica == chosen)


def get(number: int, key: str = "a") -> wire.QueryRequest:
    return wire.QueryRequest(number, CLUSTER, "", GetKey(key))


def answered_by(stage: Stage, channel: str) -> list[str]:
    return [wire.open_envelope(packet.data, wire.REPLY).sender for packet in stage.answers.get(channel, [])]


def put(stage: Stage, session: int, number: int, value: bytes) -> None:
    """Committed and acknowledged; nobody but the leader knows that yet."""
    channel = stage.ask("node1", command(50 + number, session, number, PutKey("a", value)))
    for _ in range(6):
        for node in stage.nodes.values():
            node.run()
            stage.carry()
        if stage.answers.get(channel):
            return
    raise AssertionError("nobody acknowledged the write")


def leave(stage: Stage, leader: Node, *requests: wire.Request) -> tuple[str, list[wire.LeftReads]]:
    """The leader takes these; what it leaves is on its way."""
    channel = stage.ask("node1", *requests)
    leader.run()
    return channel, [said.message for said in peers_of(leader) if isinstance(said.message, wire.LeftReads)]


def forge(to: Node, sender: Node, message: wire.LeftReads | AppendEntries) -> None:
    """A packet of the leader's node."""
    said = wire.PeerMessage(CLUSTER, sender.raft.replica, to.raft.replica, message)
    data = wire.seal(PEER_KEY, wire.PEER, sender.name, to.name, wire.encode_peer([said]))
    to.bus.inbox.append(Inbound(from_peers=True, data=data))


# --- who answers ----------------------------------------------------------------------------------


def test_the_delegate_answers_and_the_leader_has_no_further_turn(stage, leader, delegate):
    channel, left = leave(stage, leader, get(7), get(8))
    assert [[request.id for request in said.reads[0].requests] for said in left] == [[7, 8]]
    assert not [said for said in peers_of(leader) if isinstance(said.message, AppendEntries)], "no round is asked for"
    stage.carry()
    delegate.run()
    assert [packet.channel for packet in delegate.bus.published] == [channel]
    stage.carry()
    assert answered_by(stage, channel) == [delegate.name]
    assert [(reply.id, reply.result.value) for reply in stage.replies(channel)] == [(7, b"old"), (8, b"old")]


def test_a_delegate_answers_with_what_was_acknowledged_though_nobody_told_it_of_the_commit(stage, leader, delegate):
    session = opened(stage)
    for number in range(1, 4):
        put(stage, session, number, b"new%d" % number)
        assert delegate.raft.commit_index < leader.raft.commit_index, "it has the entry, and not the word"
        channel, left = leave(stage, leader, get(7))
        assert left
        stage.carry()
        delegate.run()
        stage.carry()
        (reply,) = stage.replies(channel)
        assert reply.result.value == b"new%d" % number
        assert answered_by(stage, channel) == []


def test_what_a_leader_alone_counts_or_waits_for_is_never_left(stage, leader):
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, AcquireLock("l", 1, wait=False)))
    stage.settle()
    asked: list[wire.Request] = [
        wire.QueryRequest(1, CLUSTER, "", GetLock("l")),
        wire.QueryRequest(2, CLUSTER, "", ListLocks()),
        wire.QueryRequest(3, CLUSTER, "", GetSession(session)),
        wire.QueryRequest(4, CLUSTER, "", AwaitGrant("l", 1, session)),
        keep_alive(stage, 5, session),
        wire.ConfirmRequest(6, CLUSTER),
    ]
    channel, left = leave(stage, leader, *asked)
    assert left == []
    stage.settle()
    assert {*answered_by(stage, channel)} == {"node1"}
    assert sorted(reply.id for reply in stage.replies(channel)) == [1, 2, 3, 4, 5, 6]


def sample(kind: type[msgspec.Struct]) -> Any:
    """One of them, with what it needs alone."""
    values: dict[object, object] = {str: "a", int: 1}
    fields = [field for field in msgspec.structs.fields(kind) if field.required]
    return kind(**{field.name: values.get(field.type) or next(iter(get_args(field.type)), ()) for field in fields})


def test_every_query_that_asks_what_is_left_of_a_lease_is_the_leaders(stage, leader):
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, AcquireLock("a", 1, wait=False)))
    stage.settle()
    asked: dict[type, list[int]] = {kind: [] for kind in _ANSWERS}

    def remaining_ms(kind: type, of: int) -> int:
        asked[kind].append(of)
        return 1_000

    for kind in _ANSWERS:
        query = GetSession(session) if kind is GetSession else sample(kind)
        leader.replica.machine.query(query, "web", partial(remaining_ms, kind), "", WEB.token_id)
    those = {kind for kind, of in asked.items() if of}
    assert those == {GetLock, ListLocks, GetSession}
    assert those | {AwaitGrant} == OF_THE_LEADER, "who awaits a grant is told of it by the leader"


def moved(node: Node, address: str) -> None:
    """It comes back with its mailbox on another Redis; the log does not say so yet."""
    node.turn.identity = node.turn.identity._replace(address=address)
    node.replica.reading.address = address


@pytest.mark.parametrize("address", ["redis://one", "redis://two"])
def test_a_follower_whose_callers_are_elsewhere_is_left_nothing(address):
    stage = a_stage(3, None, node1="redis://one", node2=address, node3=address)
    leader = stage.nodes["node1"]
    for node in stage.nodes.values():
        moved(node, address if node is not leader else "redis://one")
    assert leader.raft.delegate(stage.clock.us)
    assert bool(leave(stage, leader, get(7))[1]) is (address == "redis://one")


def test_a_leader_that_has_moved_leaves_nothing_and_a_delegate_that_has_moved_declines(stage, leader, delegate):
    moved(delegate, "redis://two")
    _, (said,) = leave(stage, leader, get(7))
    stage.carry()
    assert declined(stage, delegate) == [said.number]
    moved(delegate, "")
    moved(leader, "redis://one")
    stage.pass_time(PAUSE_US)
    assert leave(stage, leader, get(8))[1] == []


def test_nothing_is_left_or_taken_before_it_is_known_where_the_node_is(stage, leader, delegate):
    _, (said,) = leave(stage, leader, get(7))
    delegate.replica.reading.address = None
    stage.carry()
    assert declined(stage, delegate) == [said.number]
    leader.replica.reading.address = None
    stage.pass_time(2 * PAUSE_US)
    assert leave(stage, leader, get(8))[1] == []


def test_a_turn_tells_the_replicas_where_their_node_is():
    stage = Stage(3, None, {"node2": "redis://two"})
    for node in stage.nodes.values():
        node.turn.identity = node.turn.identity._replace(address="redis://" + node.name)
        node.run()
        assert node.replica.reading.address == "redis://" + node.name


@pytest.mark.interpreted
def test_long_requests_and_too_many_stay_with_the_leader(stage, leader, delegate, monkeypatch):
    """What is left lies in a follower's mailbox beside entries and votes."""
    asked = [get(1, "k" * LEFT_BYTES_MAX), get(2, "k" * (LEFT_BYTES_MAX - 50)), *[get(n) for n in range(3, 7)]]
    monkeypatch.setattr(delegation, "LEFT_OF_TURN_MAX", 3)
    channel, left = leave(stage, leader, *asked)
    assert [[request.id for request in asked.requests] for said in left for asked in said.reads] == [[2, 3, 4]]
    stage.settle()
    assert sorted(reply.id for reply in stage.replies(channel)) == [1, 2, 3, 4, 5, 6]
    longest = (LEFT_OF_TURN_MAX // READS_OF_WORD_MAX) * READS_OF_WORD_MAX * LEFT_BYTES_MAX
    assert longest <= 2 * wire.PACKET_BYTES_TARGET < wire.PACKET_BYTES_MAX


def test_who_acts_for_a_token_that_is_not_known_turns_nothing_off(stage, leader, delegate):
    asked = wire.QueryRequest(2, CLUSTER, f"token:{Token.new(REALM).token_id}", GetKey("a"))
    channel, left = leave(stage, leader, get(1), asked)
    assert [request.id for said in left for request in said.reads[0].requests] == [1]
    stage.settle()
    assert leader.replica.reading.left.trusts(stage.clock.us)
    assert sorted(reply.id for reply in stage.replies(channel)) == [1, 2]


# --- what a delegate declines ---------------------------------------------------------------------


def declined(stage: Stage, delegate: Node, *, answers: int = 0) -> list[int]:
    """What the delegate says in its turn that it does not take; it answers so many callers."""
    delegate.run()
    assert len([packet for packet in delegate.bus.published if ":p:" not in packet.channel]) == answers
    return [
        number
        for said in peers_of(delegate)
        if isinstance(said.message, wire.ReadsTaken)
        for number in said.message.declined
    ]


def test_who_has_gone_on_to_a_later_term_answers_nobody_and_owes_no_word(stage, leader, delegate):
    leave(stage, leader, get(7))
    delegate.raft.term += 1
    stage.carry()
    assert declined(stage, delegate) == []


def test_a_copy_from_an_earlier_term_is_passed_over_by_who_follows_the_next_leader(stage, leader, delegate):
    _, (said,) = leave(stage, leader, get(7))
    leader.bus.published.clear()
    other = next(node for node in stage.nodes.values() if node not in (leader, delegate))
    stage.elect(other.name)
    assert delegate.raft.leader == other.raft.replica
    forge(delegate, leader, said)
    assert declined(stage, delegate) == []


def test_a_copy_of_a_leader_of_the_past_does_not_make_a_delegate_forget_what_it_owes_this_one(stage, leader, delegate):
    _, (said,) = leave(stage, leader, get(7))
    stage.carry()
    delegate.run()
    forge(delegate, leader, said._replace(term=said.term - 1))
    delegate.run()
    stage.clock.us += TAKEN_US
    delegate.run()
    assert [word.message for word in peers_of(delegate)] == [wire.ReadsTaken(said.term, [said.number], [])]


def test_the_next_leader_is_told_of_its_own_words_alone(stage, leader, delegate):
    """It numbers from the beginning, too: what the last one left under these numbers is not its own."""
    for number in range(2):
        leave(stage, leader, get(number))
        stage.carry()
        delegate.run()
    other = next(node for node in stage.nodes.values() if node not in (leader, delegate))
    term = leader.raft.term + 1
    forge(delegate, other, wire.LeftReads(term, 3, 1, []))
    delegate.run()
    assert [said.message for said in peers_of(delegate)] == [wire.ReadsTaken(term, [], [3])]


def test_a_leader_of_a_term_that_was_not_heard_of_yet_is_told_so(stage, leader, delegate):
    """Its word overtook its first entry."""
    _, (said,) = leave(stage, leader, get(7))
    leader.bus.published.clear()
    forge(delegate, leader, said._replace(term=said.term + 1))
    assert declined(stage, delegate) == [said.number]
    assert delegate.raft.term == said.term


def test_who_campaigns_declines_and_a_word_is_no_sign_of_life(stage, leader, delegate):
    heard_us, due_us = delegate.raft.heard_at_us, delegate.raft.election_due_us
    stage.clock.us += 10_000
    _, (said,) = leave(stage, leader, get(7))
    stage.carry()
    delegate.run()
    stage.carry()
    assert (delegate.raft.heard_at_us, delegate.raft.election_due_us) == (heard_us, due_us)
    delegate.raft.role = Role.PRE_CANDIDATE
    forge(delegate, leader, said)
    assert declined(stage, delegate) == [said.number]


def test_who_doubts_its_state_declines(stage, leader, delegate):
    _, (said,) = leave(stage, leader, get(7))
    delegate.raft.doubt(True)
    stage.carry()
    assert declined(stage, delegate) == [said.number]


def test_who_lacks_the_entry_declines_and_commits_nothing_of_what_it_has(stage, leader, delegate):
    session = opened(stage)
    delegate.bus.drain()
    before = delegate.raft.commit_index
    stage.cut = {delegate.name}
    stage.ask("node1", command(60, session, 1, PutKey("a", b"new")))
    stage.settle()
    stage.pass_time(20_000)
    stage.cut = set()
    said = wire.LeftReads(leader.raft.term, 99, leader.raft.commit_index, [])
    assert leader.raft.commit_index > delegate.raft.last_index
    forge(delegate, leader, said)
    assert declined(stage, delegate) == [99]
    assert delegate.raft.commit_index <= delegate.raft.last_index
    assert before <= delegate.raft.commit_index


def test_who_has_much_to_apply_declines_since_its_leader_answers_sooner(stage, leader, delegate):
    session = opened(stage)
    stage.ask("node1", *[command(n, session, n, PutKey("a", bytes(1_000))) for n in range(1, 11)])
    for node in (leader, delegate, leader):
        node.run()
        stage.carry()
    assert leader.raft.applied_index == leader.raft.last_index > delegate.raft.applied_index
    delegate.replica.bounds = delegate.replica.bounds._replace(apply_bytes=2_000)
    _, (said,) = leave(stage, leader, get(7))
    stage.carry()
    assert declined(stage, delegate) == [said.number]
    assert delegate.raft.applied_index < delegate.raft.commit_index == leader.raft.commit_index


def test_the_first_read_with_a_new_token_is_taken(stage, leader, delegate):
    session, new = opened(stage), Token.new(REALM)
    channel = stage.ask("node1", command(60, session, 1, AddToken(new.token_id, "web", new.key)))
    for node in (leader, delegate, leader):
        node.run()
        stage.carry()
    assert len(stage.replies(channel)) == 1
    assert delegate.replica.machine.key_of(new.token_id) is None, "it has not been told of the commit"
    channel = stage.ask("node1", get(7), token=new)
    leader.run()
    stage.carry()
    assert declined(stage, delegate, answers=1) == []
    stage.carry()
    assert [reply.id for reply in stage.replies(channel, new)] == [7]


def test_who_does_not_know_the_token_declines_all_of_the_word(stage, leader, delegate):
    _, (said,) = leave(stage, leader, get(7))
    leader.bus.published.clear()
    stranger = wire.Questions("conclave:r:x", Token.new(REALM).token_id, [get(8)])
    forge(delegate, leader, said._replace(reads=[*said.reads, stranger]))
    assert declined(stage, delegate) == [said.number]
    assert delegate.replica.reading.delegate.waiting.count == 0


@pytest.mark.parametrize("query", [GetLock("a"), ListLocks(), AwaitGrant("a", 1, 1), GetSession(1)], ids=repr)
def test_a_delegate_answers_nothing_that_a_leader_alone_can(stage, leader, delegate, query):
    _, (said,) = leave(stage, leader, get(7))
    leader.bus.published.clear()
    asked = wire.Questions(*said.reads[0][:2], [get(8), wire.QueryRequest(9, CLUSTER, "", query)])
    forge(delegate, leader, said._replace(reads=[asked]))
    assert declined(stage, delegate) == [said.number]
    assert delegate.replica.reading.delegate.waiting.count == 0


@pytest.mark.interpreted
def test_a_delegate_without_room_declines(stage, leader, delegate, monkeypatch):
    _, (said,) = leave(stage, leader, get(7), get(8))
    stage.carry()
    monkeypatch.setattr(reads, "CHANNEL_READS_MAX", 1)
    assert declined(stage, delegate) == [said.number]
    assert delegate.replica.reading.delegate.waiting.count == 0


def test_what_is_declined_is_answered_by_the_leader_which_leaves_nothing_for_a_while(stage, leader, delegate):
    channel, _ = leave(stage, leader, get(7))
    delegate.raft.doubt(True)
    stage.settle()
    assert answered_by(stage, channel) == ["node1"]
    assert [reply.id for reply in stage.replies(channel)] == [7]
    delegate.raft.doubt(False)
    stage.pass_time(PAUSE_US - 20_000)
    assert leave(stage, leader, get(8))[1] == []
    stage.settle()
    stage.pass_time(20_000)
    assert leave(stage, leader, get(9))[1]


# --- what a leader keeps --------------------------------------------------------------------------


def test_a_delegate_says_what_it_took_in_one_word_for_many_and_until_then_the_leader_keeps_it(stage, leader, delegate):
    for number in range(3):
        leave(stage, leader, get(number))
        stage.carry()
        outcome = delegate.run()
        stage.carry()
    assert leader.replica.pending[1] == 3
    assert outcome.deadline_us <= stage.clock.us + TAKEN_US
    assert not delegate.replica.is_still
    assert not leader.replica.is_still
    stage.clock.us += TAKEN_US
    delegate.run()
    assert [said.message for said in peers_of(delegate)] == [wire.ReadsTaken(leader.raft.term, [1, 2, 3], [])]
    stage.carry()
    leader.run()
    assert leader.replica.pending[1] == 0
    assert not leader.replica.reading.left.is_open


def test_after_many_words_a_delegate_does_not_wait_to_say_so(stage, leader, delegate):
    for number in range(TAKEN_MAX):
        leave(stage, leader, get(number))
        stage.carry()
        assert not [said for said in peers_of(delegate) if isinstance(said.message, wire.ReadsTaken)]
        delegate.run()
    assert [len(said.message.taken) for said in peers_of(delegate)] == [TAKEN_MAX]


def test_where_the_delegate_is_silent_the_leader_answers_in_time_and_leaves_nothing_for_a_while(
    stage, leader, delegate
):
    stage.cut = {delegate.name}
    channel, left = leave(stage, leader, get(7))
    assert left
    assert leader.run().deadline_us <= stage.clock.us + LATE_US
    stage.clock.us += LATE_US - 1
    leader.run()
    assert leader.replica.reading.left.is_open
    stage.clock.us += 1
    stage.settle()
    assert answered_by(stage, channel) == ["node1"]
    assert leader.replica.pending[1] == 0
    assert leave(stage, leader, get(8))[1] == []


def test_who_died_is_left_nothing_again_though_nothing_is_written(stage, leader, delegate):
    stage.cut = {delegate.name}
    stage.ask("node1", get(7))
    stage.pass_time(2 * PAUSE_US)
    for number in range(3):
        channel, left = leave(stage, leader, get(number))
        assert delegate.raft.replica not in {said.receiver for said in peers_of(leader) if said.message in left}
        stage.settle()
        assert len(stage.replies(channel)) == 1
        stage.pass_time(PAUSE_US)


def test_a_word_that_comes_late_or_twice_or_of_another_term_frees_nothing_else(stage, leader, delegate):
    leave(stage, leader, get(7))
    leave(stage, leader, get(8))
    replica, reading = leader.replica, leader.replica.reading
    term, now_us = leader.raft.term, stage.clock.us
    reading.hear_taken(delegate.raft.replica, wire.ReadsTaken(term - 1, [1, 2], []), now_us)
    reading.hear_taken(99, wire.ReadsTaken(term, [1, 2], []), now_us)
    assert replica.pending[1] == 2
    for _ in range(2):
        reading.hear_taken(delegate.raft.replica, wire.ReadsTaken(term, [1, 5], []), now_us)
        assert replica.pending[1] == 1
    reading.hear_taken(delegate.raft.replica, wire.ReadsTaken(term, [], [1]), now_us)
    assert not reading.left.has_back


def test_a_deposed_leader_turns_away_what_it_left_and_was_not_told_of(stage, leader):
    channel, _ = leave(stage, leader, get(7))
    leader.bus.published.clear()
    leader.raft.step_down(stage.clock.us)
    leader.run()
    stage.carry()
    assert [(reply.id, type(reply)) for reply in stage.replies(channel)] == [(7, wire.NotLeader)]
    assert leader.replica.pending[1] == 0
    assert not leader.replica.reading.left.is_open


@pytest.mark.interpreted
def test_a_delegate_that_comes_to_doubt_its_state_turns_away_what_it_has_not_answered(
    stage, leader, delegate, monkeypatch
):
    monkeypatch.setattr("coordinator.replica.reading.READS_OF_TURN_MAX", 1)
    channel, _ = leave(stage, leader, get(7), get(8), get(9))
    stage.carry()
    assert delegate.run().deadline_us <= stage.clock.us, "it owes the rest"
    delegate.raft.doubt(True)
    delegate.run()
    stage.carry()
    assert [(reply.id, type(reply)) for reply in stage.replies(channel)] == [
        (7, wire.Answer),
        (8, wire.NotLeader),
        (9, wire.NotLeader),
    ]
    assert not delegate.replica.owes
    assert delegate.replica.reading.delegate.waiting.count == 0


def test_many_reads_go_in_several_words(stage, leader, delegate):
    channel, left = leave(stage, leader, *[get(number) for number in range(READS_OF_WORD_MAX + 1)])
    assert [[len(asked.requests) for asked in said.reads] for said in left] == [[READS_OF_WORD_MAX], [1]]
    stage.carry()
    delegate.run()
    stage.carry()
    assert len(stage.replies(channel)) == READS_OF_WORD_MAX + 1


def test_each_caller_is_named_once_and_has_its_own_answers(stage, leader, delegate):
    first, second = stage.ask("node1", get(1)), stage.ask("node1", get(2))
    stage.ask("node1", get(3), reply=first)
    leader.run()
    (said,) = [said.message for said in peers_of(leader)]
    assert {asked.channel: [request.id for request in asked.requests] for asked in said.reads} == {
        first: [1, 3],
        second: [2],
    }
    stage.carry()
    delegate.run()
    stage.carry()
    assert [reply.id for reply in stage.replies(first)] == [1, 3]
    assert [reply.id for reply in stage.replies(second)] == [2]


def test_who_acts_for_another_is_judged_by_the_delegate_as_the_leader_would(stage, leader, delegate):
    channel, left = leave(stage, leader, wire.QueryRequest(7, CLUSTER, "nobody", GetKey("a")))
    assert left[0].reads[0].requests[0].act_for == "nobody"
    stage.carry()
    delegate.run()
    stage.carry()
    (by_delegate,) = stage.replies(channel)
    leader.replica.reading.left._trusts_from_us = stage.clock.us + 1
    channel, left = leave(stage, leader, wire.QueryRequest(7, CLUSTER, "nobody", GetKey("a")))
    assert left == []
    stage.settle()
    assert [by_delegate] == stage.replies(channel)


def test_what_is_left_has_a_packet_of_its_own_behind_the_entries(stage, leader, delegate):
    """An older version drops a packet with a word that it does not know."""
    session = opened(stage)
    leave(stage, leader, get(7), command(50, session, 1, PutKey("a", b"new")), get(8))
    packets = [packet for packet in leader.bus.published if packet.channel == CHANNELS.peer(delegate.name)]
    kinds = [
        [type(said.message) for said in wire.decode_peer(wire.open_envelope(packet.data, wire.PEER).body)]
        for packet in packets
    ]
    assert kinds == [[AppendEntries], [wire.LeftReads]]


def test_a_delegate_says_what_it_took_long_before_its_leader_takes_that_back():
    assert 2 * TAKEN_US < LATE_US < PAUSE_US
