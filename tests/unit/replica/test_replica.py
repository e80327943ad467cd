"""One replica as its node hosts it: what it takes, whom it answers and when, what it forgets with its leadership."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import HardState, Ready, Role, Snapshot
from coordinator.consensus.members import Change, Member
from coordinator.consensus.raft.messages import AppendEntries
from coordinator.replica import callers, grants, reading
from coordinator.replica.callers import RETRY_MS, Answers
from coordinator.replica.comparison import ASK_TIMES_MAX, ASK_US, HEARD_MAX, Comparison, Verdict
from coordinator.replica.ports import Inbound
from coordinator.replica.replica import COMMAND_BYTES_MAX, NO_ROOM_IN_LOG
from coordinator.replica.report import DIGEST_BYTES_MAX
from coordinator.replica.states import Compaction, _Staged
from coordinator.replica.turn import REFUSALS_MAX, WITNESS, _parts
from coordinator.replica.whereabouts import ROUTES_MAX
from coordinator.statemachine import commands
from coordinator.statemachine.commands import (
    RIGHTS,
    AcquireLock,
    AddToken,
    AwaitGrant,
    CancelAcquire,
    CloseSession,
    Done,
    GetKey,
    Granted,
    PutKey,
    Queued,
    ReleaseLock,
    SetPrincipal,
)
from coordinator.statemachine.snapshot import Dump
from coordinator.wire import PeerMessage, Token
from tests.unit.replica.stage import CHANNELS, CLUSTER, PEER_KEY, REALM, WEB, Stage, Staging
from tests.unit.replica.test_turn import command, keep_alive, opened, peers_of


def answered(stage: Stage, *requests: wire.Request, name: str = "node1", token: Token = WEB) -> list[wire.Reply]:
    channel = stage.ask(name, *requests, token=token)
    stage.settle()
    return stage.replies(channel, token)


def result(stage: Stage, request: wire.Request, **where):
    (answer,) = answered(stage, request, **where)
    assert isinstance(answer, wire.Answer), answer
    return answer.result


# --- what it takes --------------------------------------------------------------------------------


def test_a_command_of_the_largest_size_is_taken_and_a_larger_one_refused(stage):
    session = opened(stage)
    around = len(command(1, session, 1, PutKey("a" * 1_000_000, b"")).command) - 1_000_000
    for size, is_taken in [(COMMAND_BYTES_MAX, True), (COMMAND_BYTES_MAX + 1, False)]:
        # A name is refused at apply, which is after the bound of the node: only the node's refusal speaks of bytes.
        request = command(1, session, 1, PutKey("a" * (size - around), b""))
        assert len(request.command) == size
        said = result(stage, request)
        assert said.code == commands.INVALID
        assert (f"at most {COMMAND_BYTES_MAX} bytes, got {size}" in said.message) is not is_taken


def test_a_cluster_that_is_not_here_has_no_leader_here(stage):
    request = wire.QueryRequest(7, CLUSTER + 1, "", GetKey("a"))
    assert answered(stage, request) == [wire.NotLeader(7, "")]


@pytest.mark.interpreted
def test_who_leads_and_does_not_know_the_token_in_this_cluster_names_nobody(stage):
    """It may still be applying what it inherited, and must not judge."""
    replica = stage.nodes["node1"].replica
    known = replica.machine.key_of(WEB.token_id)
    replica.machine.key_of = lambda token_id: None if known is None else (known[0], b"another key")
    stage.nodes["node1"].turn._key_of = lambda token_id: WEB.key
    assert answered(stage, wire.QueryRequest(7, CLUSTER, "", GetKey("a"))) == [wire.NotLeader(7, "")]


def test_nobody_is_turned_away_with_a_confirmation_for_another(stage):
    """A confirmation names no principal; it says who leads, once a majority has said so."""
    term = stage.nodes["node1"].replica.engine.term
    assert answered(stage, wire.ConfirmRequest(3, CLUSTER)) == [wire.Confirmed(3, term)]
    assert answered(stage, wire.ConfirmRequest(4, CLUSTER), name="node2") == [wire.NotLeader(4, "node1")]


def test_what_is_asked_in_one_turn_is_proposed_together_and_answered_each(stage):
    session = opened(stage)
    before = stage.nodes["node1"].raft.last_index
    channel = stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", b"1")) for n in range(1, 6)])
    stage.nodes["node1"].run()
    stage.carry()
    assert stage.nodes["node1"].raft.last_index == before + 5
    stage.settle()
    assert [reply.id for reply in stage.replies(channel)] == [1, 2, 3, 4, 5]


def test_while_it_hands_over_a_leader_is_busy(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.cut = {"node2", "node3"}
    leader.raft.transfer(12, stage.clock.us)
    (reply,) = answered(stage, command(1, session, 1, PutKey("a", b"1")))
    assert reply.result.code == commands.BUSY, "which its client asks again, and tells nobody"
    assert leader.replica._proposals == {}


def test_who_is_not_fit_to_serve_tells_clients_to_ask_again_and_nobody_else(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    leader.turn._take_in(leader.bus.drain(), stage.clock.us)
    leader.raft.doubt(in_doubt=True)
    answers = Answers("node1")
    leader.replica._propose(answers)
    assert [reply.result.code for reply in replies_of(answers)] == [commands.BUSY]


def replies_of(answers: Answers) -> list[wire.Reply]:
    bodies = [wire.open_envelope(packet.data, wire.REPLY).body for packet in answers.take()]
    return [reply for body in bodies for reply in wire.decode_replies(body)]


def test_past_the_bound_of_uncommitted_bytes_a_caller_is_told_so_at_once_and_nothing_of_it_is_applied(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    leader.raft.options = leader.raft.options._replace(uncommitted_bytes_max=10)
    stage.cut = {"node2", "node3"}
    first = stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    leader.run()
    failed = leader.replica.meters.proposals_failed
    asked = [command(2, session, 2, PutKey("b", b"2")), command(3, session, 3, PutKey("c", b"3"))]
    second = stage.ask("node1", *asked, wire.DirectoryRequest(4))
    leader.run()
    stage.carry()
    assert stage.replies(first) == []
    packets = stage.answers[second]
    told = [reply for reply in stage.replies(second) if isinstance(reply, wire.Overloaded)]
    assert told == [wire.Overloaded(2, NO_ROOM_IN_LOG, RETRY_MS), wire.Overloaded(3, NO_ROOM_IN_LOG, RETRY_MS)]
    assert len(packets) == 2, "a client that does not know the word loses that packet alone"
    assert leader.replica.meters.proposals_failed == failed + 2
    stage.cut = set()
    stage.pass_time(400_000)
    assert stage.replies(first)[0].result.existed is False
    found = [result(stage, wire.QueryRequest(9, CLUSTER, "", GetKey(key))) for key in ("a", "b", "c")]
    assert [getattr(one, "value", None) for one in found] == [b"1", None, None]


def test_who_loses_its_leadership_in_the_turn_of_the_asking_turns_the_asker_away(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.settle()
    channel = stage.ask(
        "node1", command(1, session, 1, PutKey("a", b"1")), wire.QueryRequest(2, CLUSTER, "", GetKey("a"))
    )
    beat = PeerMessage(CLUSTER, 12, 11, AppendEntries(leader.raft.term + 1, 0, 0, 0, 1, [], []))
    packet = wire.seal(PEER_KEY, wire.PEER, "node2", "node1", wire.encode_peer([beat]))
    leader.bus.inbox.append(Inbound(from_peers=True, data=packet))
    leader.run()
    stage.carry()
    assert sorted(stage.replies(channel), key=lambda reply: reply.id) == [
        wire.NotLeader(1, "node2"),
        wire.NotLeader(2, "node2"),
    ]


# --- what it answers ------------------------------------------------------------------------------


@pytest.mark.interpreted
def test_a_result_belongs_to_the_entry_that_was_proposed_and_to_no_other_at_its_index(stage):
    """Two leaders may propose at one index; what is committed there answers only its own asker."""
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.cut = {"node1"}
    channel = stage.ask("node1", command(1, session, 1, PutKey("a", b"old")))
    leader.run()
    stage.carry()
    index = leader.raft.last_index
    (proposal,) = leader.replica._proposals.values()
    stage.elect("node2")
    stage.ask("node2", command(2, session, 2, PutKey("a", b"new")))
    stage.settle()
    stage.cut = set()
    # As if the deposed leader had not noticed: its proposal is still there when the other's entry is applied.
    abdicate = leader.replica._abdicate
    leader.replica._abdicate = lambda answers: None
    stage.pass_time(200_000)
    leader.replica._abdicate = abdicate
    assert leader.raft.applied_index > index
    assert leader.replica.machine.keys["a"].value == b"new"
    term, _ = proposal
    assert term < leader.raft.term
    assert [reply for reply in stage.replies(channel) if isinstance(reply, wire.Answer)] == []


def test_who_waits_in_any_way_for_a_leader_that_is_deposed_is_turned_away_once(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.cut = {"node1"}
    channel = stage.ask(
        "node1", command(1, session, 1, PutKey("a", b"1")), wire.QueryRequest(2, CLUSTER, "", GetKey("a"))
    )
    leader.run()
    replica = leader.replica
    assert replica._proposals
    assert replica.reading.awaits_others
    stage.pass_time(900_000)
    assert sorted(reply.id for reply in stage.replies(channel)) == [1, 2]
    assert (replica._proposals, replica.reading.awaits_others, replica.pending) == ({}, False, (0, 0, 0))
    assert (replica._waiters.count, [*replica._waiters], replica.leases) == (0, [], None)
    stage.pass_time(300_000)
    assert stage.replies(channel) == []


@pytest.mark.interpreted
def test_a_read_that_is_confirmed_and_not_answered_yet_is_turned_away_with_the_leadership(stage, monkeypatch):
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, PutKey("big", bytes(1_000))))
    stage.settle()
    monkeypatch.setattr(reading, "READ_BYTES_MAX", 10)
    channel = stage.ask("node1", *[wire.QueryRequest(10 + n, CLUSTER, "", GetKey("big")) for n in range(3)])
    leader = stage.nodes["node1"]
    while not leader.replica.owes:
        for node in stage.nodes.values():
            node.run()
        stage.carry()
    assert leader.replica.owes
    assert leader.run().deadline_us <= stage.clock.us, "what is owed is due at once"
    leader.raft.step_down(stage.clock.us)
    leader.run()
    stage.carry()
    kinds = [type(reply) for reply in stage.replies(channel)]
    assert kinds.count(wire.NotLeader) >= 1
    assert len(kinds) == 3
    assert not leader.replica.owes


def test_a_turn_applies_so_many_bytes_and_owes_the_rest(stage, monkeypatch):
    session = opened(stage)
    follower = stage.nodes["node2"]
    stage.bound(apply_bytes=2_500)
    stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", bytes(1_000))) for n in range(1, 7)])
    stage.settle()
    stage.clock.us += 60_000
    stage.nodes["node1"].run()
    stage.carry()
    steps = []
    for _ in range(5):
        before = follower.raft.applied_index
        outcome = follower.run()
        steps.append(follower.raft.applied_index - before)
        assert follower.replica.owes == (follower.raft.applied_index < follower.raft.commit_index)
        assert (outcome.deadline_us <= stage.clock.us) == follower.replica.owes
    assert steps == [2, 2, 2, 0, 0]


def test_a_keep_alive_is_answered_for_the_session_of_its_own_principal_alone(stage):
    session = opened(stage)
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.settle()
    assert stage.replies(channel) == [wire.KeptAlive(1, session, 10_000)]
    assert result(stage, keep_alive(stage, 2, session + 1)).code == commands.SESSION_GONE
    term = stage.nodes["node1"].replica.engine.term
    for_another = wire.KeepAliveRequest(3, CLUSTER, "somebody", session, term, 3)
    assert result(stage, for_another).code == commands.SESSION_GONE
    stage.ask("node1", keep_alive(stage, 1, session), reply=channel)
    stage.settle()
    assert stage.replies(channel) == [], "a copy is not answered"


def test_from_the_proposal_of_an_expiry_on_a_keep_alive_is_not_answered(stage):
    """History 11."""
    session = opened(stage, 1_000)
    leader = stage.nodes["node1"]
    assert leader.replica.leases is not None
    while session not in leader.replica.leases._expiring:
        stage.clock.us += 20_000
        leader.run()
        stage.nodes["node2"].run()
        stage.nodes["node3"].run()
        stage.carry()
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    for _ in range(3):
        leader.run()
    assert stage.replies(channel) == []
    stage.settle()
    assert [reply.result.code for reply in stage.replies(channel)] in ([], [commands.SESSION_GONE])
    assert session not in leader.replica.machine.sessions


@pytest.mark.interpreted
def test_an_expiry_that_can_not_be_proposed_now_is_proposed_later(stage):
    session = opened(stage, 1_000)
    leader = stage.nodes["node1"]
    propose = leader.raft.propose
    leader.raft.propose = lambda entries: None
    stage.pass_time(1_500_000)
    assert session in leader.replica.machine.sessions
    assert leader.replica.leases is not None
    assert session not in leader.replica.leases._expiring
    leader.raft.propose = propose
    stage.pass_time(100_000)
    assert session not in leader.replica.machine.sessions


def test_a_session_that_begins_has_its_full_lease_and_one_that_ends_has_none(stage):
    session = opened(stage, 3_000)
    leases = stage.nodes["node1"].replica.leases
    assert leases is not None
    assert 2_900 <= leases.remaining_ms(session) <= 3_000
    assert isinstance(result(stage, command(1, session, 1, CloseSession())), Done)
    assert leases.remaining_ms(session) == 0
    assert session not in leases._deadlines


def test_a_lease_answers_reads_where_that_is_switched_on_and_never_a_keep_alive(stage):
    """History 1: a keep-alive is answered after a majority has confirmed the leader, whatever its lease."""
    session = opened(stage)
    leader = stage.nodes["node1"]
    leader.raft.options = leader.raft.options._replace(lease_reads=True)
    stage.pass_time(60_000)
    stage.cut = {"node1"}
    channel = stage.ask("node1", wire.QueryRequest(1, CLUSTER, "", GetKey("a")), keep_alive(stage, 2, session))
    stage.settle()
    assert [reply.id for reply in stage.replies(channel)] == [1]
    stage.cut = set()
    stage.pass_time(60_000)
    assert wire.KeptAlive(2, session, 10_000) in stage.replies(channel)


def test_a_new_leader_has_states_compared_after_its_interval_and_not_at_once(stage):
    opened(stage)
    node = stage.nodes["node2"]
    compare_us = node.replica.states._compare_us
    stage.clock.us += 2 * compare_us  # It follows for long; nothing is asked for of it.
    stage.settle()
    stage.elect("node2")
    assert node.raft.last_index == node.raft.term_start_index, "no mark is proposed"
    assert node.replica.states.compare_due_us == stage.clock.us + compare_us


# --- whom it tells of a grant ---------------------------------------------------------------------


def lock(number: int, session: int, acquisition: int, *, wait: bool = True, take_over: bool = False, name: str = "l"):
    op = AcquireLock(name, acquisition, wait, take_over=take_over)
    return command(number, session, number, op)


def watched(stage: Stage) -> dict[int, set[tuple[str, int]]]:
    waiters = stage.nodes["node1"].replica._waiters
    found: dict[int, set[tuple[str, int]]] = {}
    for session, name, acquisition in waiters:
        found.setdefault(session, set()).add((name, acquisition))
    assert waiters.count == sum(map(len, found.values()))
    return found


def test_who_waits_is_watched_until_it_is_granted_leaves_or_ends(stage):
    one, two, three = opened(stage), opened(stage), opened(stage)
    assert isinstance(result(stage, lock(1, one, 1)), Granted)
    assert watched(stage) == {}
    assert result(stage, lock(1, two, 1)) == Queued(1)
    assert result(stage, lock(1, three, 1)) == Queued(2)
    assert result(stage, lock(2, three, 2, name="m", wait=False)) == Granted(
        stage.nodes["node1"].replica.machine.locks["m"].token
    )
    assert watched(stage) == {two: {("l", 1)}, three: {("l", 1)}}
    assert result(stage, lock(1, two, 1)) == Queued(1), "a copy watches nothing twice"
    assert watched(stage) == {two: {("l", 1)}, three: {("l", 1)}}
    assert isinstance(result(stage, command(2, two, 2, CancelAcquire("l", 1, 1))), Done | commands.NotHeld)
    assert watched(stage) == {three: {("l", 1)}}
    assert isinstance(result(stage, command(2, one, 2, ReleaseLock("l", 1))), Done)
    assert watched(stage) == {}, "it was told"
    assert result(stage, lock(3, one, 3)) == Queued(1)
    assert watched(stage) == {one: {("l", 3)}}
    result(stage, command(4, one, 4, CloseSession()))
    assert watched(stage) == {}


def test_an_acquisition_that_takes_over_takes_its_watcher_along(stage):
    one, two = opened(stage), opened(stage)
    result(stage, lock(1, one, 1))
    result(stage, lock(2, one, 2, name="m"))
    result(stage, lock(1, two, 1))
    result(stage, lock(2, two, 5, name="m"))
    assert watched(stage) == {two: {("l", 1), ("m", 5)}}
    assert result(stage, lock(3, two, 2, take_over=True)) == Queued(1)
    assert watched(stage) == {two: {("l", 2), ("m", 5)}}
    channel = stage.ask("node1", command(4, two, 4, PutKey("a", b"1")))
    result(stage, command(3, one, 3, ReleaseLock("l", 1)))
    assert stage.replies(channel)
    assert watched(stage) == {two: {("m", 5)}}


def test_who_asks_for_its_grant_is_told_of_it_where_it_asked_from(stage):
    one, two = opened(stage), opened(stage)
    result(stage, lock(1, one, 1))
    result(stage, lock(1, two, 1))
    channel = stage.ask("node1", wire.QueryRequest(9, CLUSTER, "", AwaitGrant("l", 1, two)))
    stage.settle()
    assert [reply.result for reply in stage.replies(channel)] == [Queued(1)]
    assert watched(stage) == {two: {("l", 1)}}
    result(stage, command(2, one, 2, ReleaseLock("l", 1)))
    (pushed,) = stage.replies(channel)
    assert isinstance(pushed, wire.GrantPushed)
    assert (pushed.cluster, pushed.session, pushed.name, pushed.acquisition) == (CLUSTER, two, "l", 1)
    (asked,) = answered(stage, wire.QueryRequest(10, CLUSTER, "", AwaitGrant("l", 1, two)))
    assert asked.result == Granted(pushed.token)
    assert watched(stage) == {}, "who has it waits for nothing"


@pytest.mark.interpreted
def test_past_the_bound_nobody_more_is_watched_and_who_is_stays_so(stage, monkeypatch):
    monkeypatch.setattr(grants, "WAITERS_MAX", 2)
    sessions = [opened(stage) for _ in range(5)]
    for session in sessions:
        result(stage, lock(1, session, 1))
    assert watched(stage).keys() == {sessions[1], sessions[2]}
    assert {*stage.nodes["node1"].replica._waiters._by_session} == {sessions[1], sessions[2]}
    result(stage, lock(1, sessions[1], 1))
    assert stage.nodes["node1"].replica._waiters.count == 2


# --- what it has on disk --------------------------------------------------------------------------


def test_a_turn_without_news_writes_nothing(stage):
    stage.pass_time(200_000)
    for node in stage.nodes.values():
        node.journal.commits.clear()
    stage.pass_time(500_000)
    assert [node.journal.commits for node in stage.nodes.values()] == [[], [], []]


def test_a_snapshot_is_taken_once_so_much_is_applied_and_leaves_a_tail(stage):
    leader = stage.nodes["node1"]
    leader.replica.states.compaction = Compaction(snapshot_entries=10, trailing_entries=3)
    session = opened(stage)
    leader.journal.commits.clear()
    applied = leader.raft.applied_index
    number = 0
    while leader.raft.applied_index < 9:
        number += 1
        stage.ask("node1", command(number, session, number, PutKey("a", b"1")))
        stage.settle()
    assert applied < 9
    assert not [write for writes in leader.journal.commits for write in writes if write.head]
    number += 1
    stage.ask("node1", command(number, session, number, PutKey("a", b"1")))
    stage.settle()
    stage.pass_time(100_000)  # The mark, the word of the others, and the journal.
    (write,) = [write for writes in leader.journal.commits for write in writes if write.head]
    assert write.head.snapshot.last_index == 11
    assert (write.head.offset, write.head.offset_term) == (8, leader.raft.term)
    assert write.head.keep_tail
    assert write.hard_state == (leader.raft.term, leader.raft.vote, leader.raft.commit_index)
    assert leader.raft.first_index == 9


# --- packets --------------------------------------------------------------------------------------


def test_messages_for_one_node_are_closed_into_packets_above_a_size():
    def message(size: int) -> PeerMessage:
        return PeerMessage(CLUSTER, 1, 2, AppendEntries(1, 0, 0, 0, 1, [1], [bytes(size)]))

    exactly, small = message(wire.PACKET_BYTES_TARGET - 64), message(0)
    assert [len(part) for part in _parts([exactly, small, small])] == [2, 1]
    assert [len(part) for part in _parts([message(wire.PACKET_BYTES_TARGET - 63), small])] == [1, 1]
    assert [len(part) for part in _parts([message(wire.PACKET_BYTES_TARGET)] * 3)] == [1, 1, 1]
    assert _parts([small] * 3) == [[small] * 3]


def test_answers_to_one_caller_are_closed_into_packets_above_a_size():
    exactly, small = (msgspec.Raw(bytes(size)) for size in (wire.PACKET_BYTES_TARGET, 1))
    assert [len(part) for part in callers._parts([exactly, small, exactly, small])] == [2, 2]
    assert [len(part) for part in callers._parts([exactly, small, small])] == [2, 1]
    assert callers._parts([small] * 3) == [[small] * 3]


def test_refusals_of_one_turn_are_bounded(stage):
    strangers = [Token.new(REALM) for _ in range(REFUSALS_MAX + 5)]
    channels = [stage.ask("node1", wire.DirectoryRequest(1), token=stranger) for stranger in strangers]
    stage.nodes["node1"].run()
    stage.carry()
    assert sum(channel in stage.answers for channel in channels) == REFUSALS_MAX
    again = stage.ask("node1", wire.DirectoryRequest(1), token=strangers[0])
    stage.nodes["node1"].run()
    stage.carry()
    assert again in stage.answers, "the next turn has a bound of its own"


def test_a_node_without_replicas_says_what_it_waits_for(stage):
    node = stage.nodes["node3"]
    node.turn.replicas.clear()
    node.turn.identity = node.turn.identity._replace(waiting_for="an operator")
    channel = stage.ask("node3", wire.DirectoryRequest(1))
    node.run()
    stage.carry()
    refusal = wire.decode_refusal(wire.open_envelope(stage.answers[channel][0].data, wire.REFUSAL).body)
    assert (refusal.code, refusal.message, refusal.pid) == (wire.REFUSED_WAITING, "an operator", 1_013)


def test_every_node_says_who_is_there_and_who_leads(stage):
    for name in stage.nodes:
        (said,) = answered(stage, wire.DirectoryRequest(5), name=name)
        names = ("node1", "node2", "node3")
        entry = wire.ClusterEntry("default", CLUSTER, "node1", stage.nodes[name].raft.term, names)
        assert said == wire.Directory(5, name, said.nodes, (entry,))
        assert dict(said.nodes) == dict.fromkeys(names, "")


def crash(stage: Stage, token: Token, act_for: str = "") -> str:
    """What the node answers who asks it to end itself; "" where it obeys."""
    node = stage.nodes["node1"]
    channel = stage.ask("node1", wire.CrashRequest(4, CLUSTER, act_for, pid=node.turn.identity.pid), token=token)
    crashes = node.run().crash
    node.turn._crash = False
    stage.carry()
    (answer,) = stage.replies(channel, token)
    assert crashes == isinstance(answer.result, Done)
    return "" if crashes else answer.result.code


def test_a_process_is_ended_by_who_may_administer_for_itself_or_for_whom_it_may_speak(stage):
    session = opened(stage)
    tokens = {}
    for at, (name, rights) in enumerate({"ops": RIGHTS, "ci": ("read", "write", "lock")}.items()):
        token = tokens[name] = Token.new(REALM)
        answered(stage, command(1, session, 2 * at + 1, SetPrincipal(name, rights)))
        answered(stage, command(2, session, 2 * at + 2, AddToken(token.token_id, name, token.key)))
    assert crash(stage, WEB) == ""
    assert crash(stage, tokens["ops"]) == "", "it may administer, and speaks for itself"
    assert crash(stage, tokens["ci"]) == commands.FORBIDDEN
    assert crash(stage, WEB, "ops") == ""
    assert crash(stage, WEB, "ci") == commands.FORBIDDEN
    assert crash(stage, WEB, "nobody") == commands.FORBIDDEN
    assert crash(stage, tokens["ops"], "web") == commands.FORBIDDEN, "it speaks for nobody else"
    node = stage.nodes["node1"]
    node.turn.identity = node.turn.identity._replace(faults_allowed=False)
    assert crash(stage, WEB) == commands.FORBIDDEN


def test_the_status_is_of_the_cluster_that_was_asked_for(stage):
    (known,) = answered(stage, wire.StatusRequest(1, "default"))
    assert known.report.role == "leader"
    (unknown,) = answered(stage, wire.StatusRequest(2, "other"))
    assert unknown.report.cluster_name == "other"
    assert unknown.report.role != "leader"


@pytest.mark.interpreted
def test_a_status_hashes_a_state_once_however_often_it_is_asked_for_and_no_large_one(stage, monkeypatch):
    """Anybody asks for it. Old versions of a key and events of locks count as what is there now does: with 3 MB of them
    each status took its node 40 ms, and on a busy machine no leader was elected any more."""
    slices: list[bytes] = []
    original = Dump.slice

    def slice_of(dump: Dump) -> bytes:
        slices.append(original(dump))
        return slices[-1]

    monkeypatch.setattr(Dump, "slice", slice_of)

    def asked() -> tuple[str, int]:
        slices.clear()
        (known,) = answered(stage, wire.StatusRequest(1, "default"))
        return known.report.digest, len(slices)

    session = opened(stage)
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    stage.settle()
    before, took = asked()
    assert (len(before), took) == (16, 1)
    assert asked() == (before, 0)
    for number in range(2, 7):
        stage.ask("node1", command(number, session, number, PutKey("a", bytes([number]) * 90_000)))
        stage.settle()
    digest, took = asked()
    assert digest == ""
    assert sum(map(len, slices)) < 2 * DIGEST_BYTES_MAX
    assert took > 1
    assert asked() == ("", 0)
    stage.ask("node1", command(7, session, 7, PutKey("a", b"small")))
    stage.settle()
    assert asked()[0] == "", "what is kept of it is as large as before"


def test_the_way_to_replicas_that_no_log_names_is_remembered_and_bounded(stage):
    node = stage.nodes["node2"]
    beat = AppendEntries(1, 0, 0, 0, 1, [], [])
    messages = [PeerMessage(CLUSTER, 1_000 + number, 12, beat) for number in range(ROUTES_MAX + 3)]
    for at in range(0, len(messages), 500):
        packet = wire.seal(PEER_KEY, wire.PEER, "node9", "node2", wire.encode_peer(messages[at : at + 500]))
        node.bus.inbox.append(Inbound(from_peers=True, data=packet))
    node.run()
    assert len(node.turn.whereabouts._routes) == ROUTES_MAX
    assert (CLUSTER, 1_002) not in node.turn.whereabouts._routes
    assert node.turn.whereabouts._routes[CLUSTER, 1_003] == "node9"
    sent = [packet for packet in node.bus.published if packet.channel == CHANNELS.peer("node9")]
    assert sent, "it answers whom it knows by its packets alone"
    assert {packet.address for packet in sent} == {""}
    assert len(peers_of(node)) == ROUTES_MAX


def test_a_member_is_written_to_at_the_address_that_the_log_names(stage):
    leader = stage.nodes["node1"]
    far = Member(19, "node9", "redis://far")
    leader.raft.change(Change(leader.raft.configuration.voters, (far,)), stage.clock.us)
    leader.run()
    assert {(p.address, p.channel) for p in leader.bus.published if p.address} == set()
    stage.carry()
    for name in ("node2", "node3"):
        stage.nodes[name].run()
    published = [packet for node in stage.nodes.values() for packet in node.bus.published]
    for node in stage.nodes.values():
        node.bus.published = [packet for packet in published if packet.channel != CHANNELS.peer("node9")]
        published = []
    leader.bus.inbox.clear()
    stage.clock.us += 60_000
    leader.run()
    assert ("redis://far", CHANNELS.peer("node9")) in {(p.address, p.channel) for p in leader.bus.published}


def test_the_crash_hint_is_for_the_leader_that_fell_silent_and_for_no_other(stage):
    follower = stage.nodes["node2"]
    due_us = follower.raft.election_due_us
    follower.bus.silent = ["node3"]
    follower.run()
    assert follower.raft.election_due_us == due_us
    follower.bus.silent = ["node1"]
    follower.run()
    assert follower.raft.role is Role.PRE_CANDIDATE, "it is the first in rank"


def test_a_leader_watches_nobody_and_a_follower_without_a_leader_neither():
    stage = Stage()
    for node in stage.nodes.values():
        node.run()
        assert node.bus.watched == {}
    stage.elect("node1")
    assert stage.nodes["node1"].bus.watched == {}
    assert stage.nodes["node2"].bus.watched == {"node1": ""}


def test_the_next_turn_is_due_when_a_lease_runs_out(stage):
    session = opened(stage, 1_000)
    leader = stage.nodes["node1"]
    leases = leader.replica.leases
    assert leases is not None
    while leases.remaining_ms(session) > 15:
        stage.clock.us += 10_000
        stage.settle()
    stage.clock.us += 1_000
    leader.raft.rounds.all_sent_us = stage.clock.us  # No heartbeat is due before.
    outcome = leader.run()
    assert leases.remaining_ms(session) > 0
    assert outcome.deadline_us == stage.clock.us + leases.remaining_ms(session) * 1_000


def test_only_commands_are_applied_to_the_state(stage):
    node = stage.nodes["node2"]
    applied = node.replica.machine.applied
    stage.elect("node2")
    stage.pass_time(100_000)
    assert node.raft.applied_index == node.raft.commit_index
    assert node.replica.machine.applied == applied, "the first entry of a term is none"


def test_how_long_a_commit_took_is_measured_from_the_asking(stage):
    session = opened(stage)
    stage.cut = {"node2", "node3"}
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    for _ in range(3):
        stage.clock.us += 100_000
        stage.settle()
    stage.cut = set()
    stage.clock.us += 60_000
    stage.settle()
    meters = stage.nodes["node1"].replica.meters
    assert meters.commit_ms(0.99) == 260.0


def test_a_replica_does_not_count_its_own_digest_twice():
    """What comes back to it under its own name is a copy, or a lie."""
    comparison = Comparison(1)
    comparison.marked(10, b"right", 0)
    comparison.hear(1, 10, b"wrong")
    comparison.hear(2, 10, b"wrong")
    assert comparison.judge((1, 2, 3)) is Verdict.IN_DOUBT


def test_a_comparison_remembers_the_last_marks_and_what_was_said_of_them():
    comparison = Comparison(1)
    for index in range(1, HEARD_MAX + 2):
        comparison.hear(2, index, b"wrong")
    assert sorted(comparison._heard) == list(range(2, HEARD_MAX + 2)), "the oldest is forgotten"
    for index in (10, 20, 30, 40, 50):
        comparison.marked(index, b"right", index)
    assert [comparison.own(index) for index in (10, 20, 50)] == [None, b"right", b"right"]
    assert min(comparison._heard) == 20
    comparison.hear(3, 10, b"wrong")
    assert min(comparison._heard) == 20, "nobody can compare that any more"
    comparison.hear(3, 20, b"right")
    assert comparison._heard[20] == {2: b"wrong", 3: b"right"}


def test_there_is_news_for_a_judge_after_a_mark_and_a_word_and_none_once_it_has_judged():
    comparison = Comparison(1)
    assert not comparison.has_news
    comparison.marked(10, b"a", 5)
    assert comparison.has_news
    comparison.judge((1, 2, 3))
    assert not comparison.has_news
    comparison.hear(2, 10, b"a")
    assert comparison.has_news
    comparison.judge((1, 2, 3))
    comparison.hear(2, 9, b"a")
    assert not comparison.has_news, "of marks that are forgotten nothing is news"


def test_whoever_was_not_heard_of_the_last_mark_is_asked_again_for_some_time():
    comparison = Comparison(1)
    comparison.marked(10, b"a", 5)
    comparison.marked(20, b"b", 5)
    assert comparison.due((2, 3), 4) is None
    assert comparison.due((2, 3), 5) == ((2, 3), 20, b"b")
    comparison.hear(2, 20, b"b")
    comparison.hear(3, 10, b"a")
    assert comparison.due((2, 3), 5 + ASK_US - 1) is None
    assert comparison.due((2, 3), 5 + ASK_US) == ((3,), 20, b"b")
    asked = 2
    for second in range(2, 100):
        asked += comparison.due((2, 3), 5 + second * ASK_US) is not None
    assert asked == ASK_TIMES_MAX
    comparison.marked(30, b"c", 500 * ASK_US)
    assert comparison.due((2,), 500 * ASK_US) == ((2,), 30, b"c"), "a new mark is asked about anew"
    comparison.hear(2, 30, b"c")
    assert comparison.due((2,), 501 * ASK_US) is None


def test_whoever_applies_a_mark_remembers_it_so_that_the_next_leader_makes_no_second_one(stage):
    opened(stage)
    leader = stage.nodes["node1"]
    leader.replica.states.mark(stage.clock.us)
    index = leader.raft.last_index
    assert leader.replica.states.marked_index == index
    stage.pass_time(100_000)
    assert {node.replica.states.marked_index for node in stage.nodes.values()} == {index}
    assert {node.replica.machine.applied for node in stage.nodes.values()} == {index}
    leader.replica.states.mark(stage.clock.us)
    assert leader.raft.last_index == index, "nothing was applied since"


def test_who_waits_for_a_replica_whose_state_turns_out_to_differ_is_turned_away(stage):
    """It stops for good in this turn, and nobody answers later."""
    session = opened(stage)
    node = stage.nodes["node1"]
    stage.cut = {"node1"}
    channel = stage.ask(
        "node1", command(1, session, 1, PutKey("a", b"1")), wire.QueryRequest(2, CLUSTER, "", GetKey("a"))
    )
    node.run()
    assert node.replica._proposals
    node.replica.states.comparison.marked(3, b"own", stage.clock.us)
    for other in (12, 13):
        node.replica.states.comparison.hear(other, 3, b"theirs")
    node.run()
    stage.carry()
    assert sorted(stage.replies(channel), key=lambda reply: reply.id) == [wire.NotLeader(1, ""), wire.NotLeader(2, "")]
    assert "differed" in node.replica.stopped
    (write,) = node.journal.commits[-1]
    assert write.stopped == node.replica.stopped, "and after a restart it knows"
    assert node.run().deadline_us > stage.clock.us


def test_a_witness_refuses_whom_it_can_not_know(stage):
    node = stage.nodes["node3"]
    node.raft.is_witness = True
    stranger = Token.new(REALM)
    channel = stage.ask("node3", wire.DirectoryRequest(1), token=stranger)
    node.run()
    stage.carry()
    refusal = wire.decode_refusal(wire.open_envelope(stage.answers[channel][0].data, wire.REFUSAL).body)
    assert (refusal.code, refusal.message) == (wire.REFUSED_WAITING, WITNESS)


def test_a_snapshot_of_the_own_state_is_dropped_when_one_comes_from_the_leader(stage):
    replica = stage.nodes["node2"].replica
    engine = stage.nodes["node2"].raft
    own = _Staged(Snapshot(2, 1, engine.configuration, b"own"), Staging(), 0)
    theirs = Snapshot(9, 2, engine.configuration, b"theirs")
    replica.states._taken = own
    write = replica.write(Ready([], [], HardState(2, 0, 9), 10, [], [], theirs, keep_tail=False))
    assert write is not None
    assert write.head == (theirs, 9, 2, False, None, False)
    assert own.staging.given_up
    assert replica.states._taken is None
