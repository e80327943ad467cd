"""The one turn: its order, what may leave before the journal, and who is answered with what."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Outgoing, Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Change, Member
from coordinator.consensus.raft.messages import AppendEntries, VoteRequest, VoteResponse
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.ports import Inbound, JournalFailed
from coordinator.replica.states import Compaction
from coordinator.replica.turn import QUIET_US
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import (
    AcquireLock,
    AddToken,
    Command,
    GetKey,
    Granted,
    OpenSession,
    PutKey,
    Queued,
    SessionOpened,
    SetPrincipal,
)
from coordinator.statemachine.lock_commands import Acquire, Release
from coordinator.statemachine.machine import Machine, encode_entry
from coordinator.wire import PeerMessage, Token
from tests.unit.replica.stage import CHANNELS, CLUSTER, PEER_KEY, WEB, Stage


def command(
    request_id: int, session: int, number: int, op: commands.ClientOp, act_for: str = ""
) -> wire.CommandRequest:
    raw = msgspec.Raw(wire.encode(Command(session, number, 0, op)))
    return wire.CommandRequest(request_id, CLUSTER, act_for, raw)


def keep_alive(stage: Stage, number: int, session: int) -> wire.KeepAliveRequest:
    term = stage.nodes["node1"].replica.engine.term
    return wire.KeepAliveRequest(number, CLUSTER, "", session, term, number)


def opened(stage: Stage, ttl_ms: int = 10_000) -> int:
    channel = stage.ask("node1", command(1, 0, 0, OpenSession(ttl_ms, b"")))
    stage.settle()
    (answer,) = stage.replies(channel)
    assert isinstance(answer.result, SessionOpened)
    return answer.result.session


def peers_of(node) -> list[PeerMessage]:
    found = []
    for packet in node.bus.published:
        if ":p:" in packet.channel:
            found += wire.decode_peer(wire.open_envelope(packet.data, wire.PEER).body)
    return found


def test_a_turn_publishes_commits_and_publishes_in_this_order_and_once_each(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    for number in range(1, 20):
        stage.ask("node1", command(number, session, number, PutKey("a", b"1")))
    leader.run()
    assert leader.events == ["publish", "commit"]
    for name in ("node2", "node3"):
        stage.carry()
        stage.nodes[name].run()
        assert stage.nodes[name].events == ["commit", "publish"]


def test_who_spoke_before_the_journal_says_all_that_is_left_at_once(stage):
    """A promise to a peer and an answer to a client, behind entries: two publishes and no third."""
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")), wire.DirectoryRequest(2))
    leader.raft.late.append(Outgoing(12, VoteResponse(leader.raft.term, granted=False, pre=False, campaign=1)))
    leader.run()
    assert leader.events == ["publish", "commit", "publish"]
    assert [type(one.message) for one in peers_of(leader)].count(VoteResponse) == 1


def test_a_leader_sends_entries_before_its_journal_and_a_follower_acknowledges_after(stage):
    session = opened(stage)
    leader, follower = stage.nodes["node1"], stage.nodes["node2"]
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    leader.journal.broken = True
    with pytest.raises(JournalFailed):
        leader.run()
    assert any(isinstance(m.message, AppendEntries) and m.message.entries for m in peers_of(leader))
    stage.carry()
    follower.journal.broken = True
    with pytest.raises(JournalFailed):
        follower.run()
    assert peers_of(follower) == []


def test_a_vote_does_not_leave_where_the_journal_fails():
    stage = Stage()
    node = stage.nodes["node2"]
    message = PeerMessage(CLUSTER, 11, 12, VoteRequest(5, 2, 1, pre=False, campaign=1))
    packet = wire.seal(PEER_KEY, wire.PEER, "node1", "node2", wire.encode_peer([message]))
    node.bus.inbox.append(Inbound(from_peers=True, data=packet))
    node.journal.broken = True
    with pytest.raises(JournalFailed):
        node.run()
    assert peers_of(node) == []


def test_a_result_is_answered_after_a_majority_has_it(stage):
    session = opened(stage)
    stage.cut = {"node2", "node3"}
    channel = stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    stage.settle()
    assert stage.replies(channel) == []
    stage.cut = {"node3"}
    stage.pass_time(100_000)
    (answer,) = stage.replies(channel)
    assert isinstance(answer.result, commands.Done)


def test_a_leader_is_settled_once_nobody_waits_for_its_followers(stage):
    """What is still to come then may wait for the next turn, as a second acknowledgement may."""
    session = opened(stage)
    leader = stage.nodes["node1"]
    leader.turn.round_trips.open.clear()
    assert leader.run().is_settled
    stage.ask("node1", command(1, session, 1, PutKey("a", b"1")))
    assert not leader.run().is_settled
    for name in ("node2", "node3"):
        stage.carry()
        assert not stage.nodes[name].run().is_settled, "a follower is spoken to by whoever may be its leader"
    stage.carry()
    leader.run()
    leader.turn.round_trips.open.clear()
    assert leader.run().is_settled
    stage.ask("node1", wire.QueryRequest(2, CLUSTER, "", GetKey("a")))
    assert not leader.run().is_settled


def test_a_message_for_another_replica_or_cluster_is_dropped_and_counted(stage):
    """History 6: a cluster or a replica that came again under its old name is another one."""
    node = stage.nodes["node2"]
    term = node.replica.engine.term
    beat = AppendEntries(term + 5, 0, 0, 0, 1, [], [])
    for message in (PeerMessage(CLUSTER + 1, 11, 12, beat), PeerMessage(CLUSTER, 11, 999, beat)):
        packet = wire.seal(PEER_KEY, wire.PEER, "node1", "node2", wire.encode_peer([message]))
        node.bus.inbox.append(Inbound(from_peers=True, data=packet))
    node.run()
    assert node.drops["peer-identity"] == 2
    assert node.replica.engine.term == term


def test_a_follower_names_the_leader_and_a_deposed_one_turns_its_callers_away(stage):
    session = opened(stage)
    channel = stage.ask("node2", command(1, session, 1, PutKey("a", b"1")))
    stage.settle()
    assert stage.replies(channel) == [wire.NotLeader(1, "node1")]
    stage.cut = {"node1"}
    write = stage.ask("node1", command(2, session, 2, PutKey("a", b"1")))
    read = stage.ask("node1", wire.QueryRequest(3, CLUSTER, "", GetKey("a")))
    stage.pass_time(900_000)
    assert stage.nodes["node1"].replica.engine.role is not Role.LEADER
    assert [type(reply) for reply in stage.replies(write) + stage.replies(read)] == [wire.NotLeader] * 2


def test_a_keep_alive_waits_for_a_majority(stage):
    """History 1."""
    session = opened(stage)
    stage.cut = {"node1"}
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.pass_time(300_000)
    assert stage.replies(channel) == []
    stage.cut = set()
    channel = stage.ask("node1", keep_alive(stage, 2, session))
    stage.pass_time(100_000)
    assert wire.KeptAlive(2, session, 10_000) in stage.replies(channel)


def test_a_session_that_is_not_kept_alive_expires_and_its_lock_goes_on(stage):
    one, two = opened(stage, 1_000), opened(stage, 60_000)
    stage.ask("node1", command(1, one, 1, AcquireLock("deploy", 1, wait=True)))
    channel = stage.ask("node1", command(2, two, 1, AcquireLock("deploy", 1, wait=True)))
    stage.settle()
    (queued,) = stage.replies(channel)
    assert queued.result == Queued(1)
    stage.pass_time(900_000)
    assert stage.replies(channel) == []
    stage.pass_time(300_000)
    (pushed,) = stage.replies(channel)
    assert isinstance(pushed, wire.GrantPushed)
    assert (pushed.session, pushed.name) == (two, "deploy")


@pytest.mark.parametrize("ttl_ms", [8_080, 8_160])
def test_a_session_of_a_quiet_cluster_ends_within_100_ms_of_its_deadline(stage, ttl_ms):
    """Its heartbeats are 240 ms apart: a lease that runs out asks for a round of its own."""
    session = opened(stage, ttl_ms)
    machine = stage.nodes["node1"].replica.machine
    stage.pass_time(ttl_ms * 1_000 - 40_000)
    assert session in machine.sessions
    assert stage.nodes["node1"].raft.rounds.is_quiet
    stage.pass_time(140_000)
    assert session not in machine.sessions


def test_a_new_leader_gives_every_session_its_full_lease(stage):
    session = opened(stage, 2_000)
    stage.pass_time(900_000)
    stage.elect("node2")
    leases = stage.nodes["node2"].replica.leases
    assert leases is not None
    assert leases.remaining_ms(session) == 2_000
    assert stage.nodes["node1"].replica.leases is None


def test_nobody_speaks_for_another_without_the_right(stage):
    session = opened(stage)
    ci = Token.new("0123abcd")
    stage.ask("node1", command(1, session, 1, SetPrincipal("ci", ("read", "write", "lock"))))
    stage.ask("node1", command(2, session, 2, AddToken(ci.token_id, "ci", ci.key)))
    stage.settle()
    channel = stage.ask("node1", command(3, 0, 0, OpenSession(5_000, b""), act_for="web"), token=ci)
    stage.settle()
    (answer,) = stage.replies(channel, ci)
    assert answer.result.code == commands.FORBIDDEN
    channel = stage.ask("node1", wire.CrashRequest(4, CLUSTER, "", pid=0), token=ci)
    assert not stage.nodes["node1"].run().crash
    stage.carry()
    (answer,) = stage.replies(channel, ci)
    assert answer.result.code == commands.FORBIDDEN


def test_a_keep_alive_that_waits_for_a_majority_is_answered_before_its_session_is_expired(stage):
    """History 3: what confirms the leader confirms the keep-alives too, and these come first."""
    session = opened(stage, 1_000)
    stage.pass_time(300_000)
    stage.cut = {"node1"}
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    leases = stage.nodes["node1"].replica.leases
    for _ in range(20):
        stage.clock.us += 20_000
        leases._lease_us += 20_000  # As if lease time ran twice as fast: it runs out while nobody answers.
        stage.settle()
    assert leases.remaining_ms(session) == 0
    stage.cut = set()
    stage.pass_time(200_000)
    assert wire.KeptAlive(1, session, 1_000) in stage.replies(channel)
    assert session in stage.nodes["node1"].replica.machine.sessions


def test_an_operator_ends_a_node(stage):
    node = stage.nodes["node2"]
    stage.ask("node2", wire.CrashRequest(4, CLUSTER, "", pid=node.turn.identity.pid))
    assert node.run().crash


def test_a_copy_of_an_operators_word_does_not_end_the_next_process(stage):
    node = stage.nodes["node2"]
    stage.ask("node2", wire.CrashRequest(4, CLUSTER, "", pid=node.turn.identity.pid - 1))
    assert not node.run().crash


def test_answers_go_to_the_clients_prefix_alone(stage):
    stage.ask("node1", wire.DirectoryRequest(1), reply=CHANNELS.peer("node2"))
    stage.nodes["node1"].run()
    assert stage.nodes["node1"].drops["client-reply-channel"] == 1


def test_a_command_that_does_not_parse_is_answered_and_counted(stage):
    channel = stage.ask("node1", wire.CommandRequest(1, CLUSTER, "", msgspec.Raw(b"\x93\x01\x02\x03")))
    stage.settle()
    (answer,) = stage.replies(channel)
    assert answer.result.code == commands.INVALID
    assert stage.nodes["node1"].drops["client-malformed"] == 1


def test_an_unknown_token_gets_an_unsigned_word(stage):
    stranger = Token.new("0123abcd")
    channel = stage.ask("node1", wire.DirectoryRequest(1), token=stranger)
    stage.settle()
    (packet,) = stage.answers[channel]
    envelope = wire.open_envelope(packet.data, wire.REFUSAL)
    assert wire.decode_refusal(envelope.body).code == wire.REFUSED_TOKEN
    assert stage.nodes["node1"].drops["client-token"] == 1


def test_a_follower_watches_its_leader_and_the_hint_starts_an_election(stage):
    follower = stage.nodes["node2"]
    assert follower.bus.watched == {"node1": ""}
    stage.cut = {"node1"}
    for name in ("node2", "node3"):
        stage.nodes[name].bus.silent = ["node1"]
    stage.pass_time(60_000)
    assert follower.replica.engine.role is Role.LEADER


@pytest.mark.parametrize("gaps_us", [[450_000] * 4, [60_000_000]])
def test_a_node_that_stands_still_does_not_depose_a_leader_whose_words_lie_unread(stage, gaps_us):
    """With too little processor each turn comes late, and a first one takes in no more than a read gives."""
    slow = stage.nodes["node2"]
    slow.turn.pace_us = STEP_US_MAX
    unread = []
    for gap_us in gaps_us:
        for _ in range(gap_us // 50_000):
            stage.clock.us += 50_000
            for node in (stage.nodes["node1"], stage.nodes["node3"]):
                node.run()
            stage.carry()
            unread += slow.bus.drain()
        slow.run()
        assert (slow.raft.role, slow.raft.leader) == (Role.FOLLOWER, 11)
    slow.bus.inbox += unread
    stage.settle()
    assert [node.raft.leader for node in stage.nodes.values()] == [11, 11, 11]


def test_a_node_whose_turns_come_late_replaces_a_leader_that_is_silent_though_later(stage):
    stage.cut = {"node1"}
    for node in stage.nodes.values():
        node.turn.pace_us = STEP_US_MAX
    for _ in range(20):
        stage.clock.us += 450_000
        stage.settle()
    assert Role.LEADER in {stage.nodes[name].raft.role for name in ("node2", "node3")}


def test_the_bus_is_told_whom_to_watch_where_that_is_news_alone(stage, monkeypatch):
    told = []
    monkeypatch.setattr(stage.nodes["node2"].bus, "watch", lambda nodes: told.append(dict(nodes)))
    stage.pass_time(300_000)
    assert told == []
    stage.elect("node3")
    stage.pass_time(300_000)
    assert told in ([{"node3": ""}], [{}, {"node3": ""}])


def test_whom_a_replica_followed_that_is_gone_nobody_watches(stage):
    follower = stage.nodes["node2"]
    assert follower.bus.watched == {"node1": ""}
    follower.turn.replicas.clear()
    follower.run()
    assert follower.bus.watched == {}


def test_a_retry_after_a_leader_change_is_applied_once(stage):
    session = opened(stage)
    request = command(1, session, 1, AcquireLock("deploy", 1, wait=False))
    stage.ask("node1", request)
    stage.nodes["node1"].run()
    stage.carry()
    stage.cut = {"node1"}
    stage.settle()
    stage.elect("node2")
    channel = stage.ask("node2", request)
    stage.settle()
    (first,) = stage.replies(channel)
    channel = stage.ask("node2", request)
    stage.settle()
    (second,) = stage.replies(channel)
    assert first.result == second.result
    assert isinstance(first.result, Granted)


def test_all_replicas_hold_the_same_state(stage):
    session = opened(stage)
    for number in range(1, 30):
        stage.ask("node1", command(number, session, number, AcquireLock(f"l{number % 7}", number, wait=True)))
    stage.pass_time(200_000)
    assert len({node.replica.machine.digest() for node in stage.nodes.values()}) == 1
    assert len({node.replica.machine.applied for node in stage.nodes.values()}) == 1


def test_the_feed_is_whole_and_numbered(stage):
    opened(stage)
    stage.pass_time(1_200_000)
    packets = stage.answers[CHANNELS.feed("node1")]
    feeds = []
    for packet in packets:
        envelope = wire.open_envelope(packet.data, wire.FEED)
        wire.verify(envelope, PEER_KEY)
        feeds.append(wire.decode_feed(envelope.body))
    numbers = [feed.number for feed in feeds]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    last = feeds[-1]
    assert (last.report.role, last.report.leader, last.report.voters) == (
        "leader",
        "node1",
        ("node1", "node2", "node3"),
    )
    assert last.locks is not None
    assert last.elections[-1].leader == "node1"
    assert last.log[-1].what.startswith("open session")
    assert WEB.secret not in str(last)


def test_the_feed_tells_of_locks_that_several_may_hold(stage):
    session = opened(stage)
    shared = [Acquire(("reports",), number, "shared") for number in (2, 3)]
    wanted = [Acquire(("alone",), 1), *shared, Acquire(("slots",), 4, "counting", limit=5)]
    for number, op in enumerate(wanted, 1):
        stage.ask("node1", command(number, session, number, op))
    stage.pass_time(1_200_000)
    *_, last = stage.answers[CHANNELS.feed("node1")]
    told = wire.decode_feed(wire.open_envelope(last.data, wire.FEED).body)
    assert told.locks is not None
    assert [view.name for view in told.locks.locks] == ["alone", "reports", "slots"]
    assert told.shared == (wire.SharedLock("reports", "shared", 1, 2), wire.SharedLock("slots", "counting", 5, 1))


def small(stage: Stage) -> None:
    for node in stage.nodes.values():
        node.replica.states.compaction = Compaction(snapshot_entries=20, trailing_entries=5)


def test_the_log_is_cut_behind_a_snapshot_that_is_on_disk(stage):
    small(stage)
    session = opened(stage)
    for number in range(1, 60):
        stage.ask("node1", command(number, session, number, PutKey(f"k{number}", b"1")))
        stage.settle()
    stage.pass_time(100_000)
    for node in stage.nodes.values():
        heads = [write.head for commit in node.journal.commits for write in commit if write.head]
        assert len(heads) >= 2
        assert node.replica.engine.first_index == heads[-1].offset + 1 > 30
        restored = Machine()
        snapshot.load(restored, heads[-1].snapshot.data)
        assert restored.applied == heads[-1].snapshot.last_index


def test_a_node_that_was_away_is_brought_up_by_a_snapshot(stage):
    small(stage)
    session = opened(stage)
    stage.cut = {"node3"}
    for number in range(1, 60):
        stage.ask("node1", command(number, session, number, PutKey(f"k{number}", b"1")))
        stage.settle()
    stage.cut = set()
    stage.pass_time(2_000_000)
    installed = [w.head for c in stage.nodes["node3"].journal.commits for w in c if w.head and not w.head.keep_tail]
    assert len(installed) == 1
    assert len({node.replica.machine.digest() for node in stage.nodes.values()}) == 1


def test_a_new_replica_answers_its_leader_whom_its_own_log_does_not_know(stage):
    leader = stage.nodes["node1"]
    joining = Member(14, "node4")
    new = stage.join(joining)
    leader.raft.change(Change(leader.raft.configuration.voters, (joining,)), stage.clock.us)
    stage.pass_time(1_000_000)
    assert new.raft.commit_index == leader.raft.commit_index


def test_no_principal_named_at_length_wedges_the_cluster(stage):
    """What goes into an entry is bounded: a packet that no follower takes would be sent for ever."""
    session = opened(stage)
    long = command(1, session, 1, PutKey("a", b"1"), act_for="x" * 5_000_000)
    channel = stage.ask("node1", long)
    stage.settle()
    (answer,) = stage.replies(channel)
    assert answer.result.code == commands.INVALID
    stage.ask("node1", command(2, session, 2, PutKey("a", b"2")))
    stage.pass_time(100_000)
    assert stage.nodes["node2"].replica.machine.keys["a"].value == b"2"


def test_what_a_turn_answers_is_bounded_and_every_packet_fits(stage):
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, PutKey("big", bytes(1_000_000))))
    stage.settle()
    channel = stage.ask("node1", *[wire.QueryRequest(10 + i, CLUSTER, "", GetKey("big")) for i in range(30)])
    leader = stage.nodes["node1"]
    sizes = []
    for _ in range(40):
        for node in stage.nodes.values():
            node.run()
            turn = [len(packet.data) for packet in node.bus.published if packet.channel == channel]
            sizes += turn
            assert sum(turn) < 8 * 1024 * 1024
        stage.carry()
    assert len(stage.replies(channel)) == 30
    assert max(sizes) < wire.PACKET_BYTES_MAX
    assert not leader.replica.owes


def test_who_left_the_line_is_not_remembered(stage):
    one, two = opened(stage), opened(stage)
    stage.ask("node1", command(1, one, 1, AcquireLock("deploy", 1, wait=True)))
    for number in range(2, 200, 2):
        stage.ask("node1", command(number, two, number, AcquireLock("deploy", number, wait=True)))
        stage.ask("node1", command(number, two, number + 1, commands.CancelAcquire("deploy", number, number)))
        stage.settle()
    replica = stage.nodes["node1"].replica
    assert (replica._waiters.count, [*replica._waiters]) == (0, [])


def test_whoever_waits_for_several_names_or_in_another_mode_is_told_of_the_grant(stage):
    """Else it would hear of it by asking alone, up to a second later."""
    one, two = opened(stage), opened(stage)
    stage.ask("node1", command(1, one, 1, Acquire(("b",), 1)))
    channel = stage.ask("node1", command(2, two, 1, Acquire(("c", "a", "b"), 2, "shared")))
    stage.ask("node1", command(3, two, 2, Acquire(("b", "a"), 3)))
    stage.settle()
    stage.ask("node1", command(4, two, 3, Release(("b", "a"), 3)))
    stage.ask("node1", command(5, one, 2, Release(("b",), 1)))
    stage.settle()
    pushed = [reply for reply in stage.replies(channel) if isinstance(reply, wire.GrantPushed)]
    assert [(push.session, push.name, push.acquisition) for push in pushed] == [(two, "a", 2)]
    replica = stage.nodes["node1"].replica
    assert (replica._waiters.count, [*replica._waiters]) == (0, [])


def test_a_deaf_leader_does_not_spin():
    stage = Stage(1)
    leader = stage.elect()
    opened(stage, 1_000)
    leases = leader.replica.leases
    assert leases is not None
    while (leases.deadline_in_us or 0) > 20_000:
        stage.clock.us += 20_000
        leader.run()
    stage.clock.us += (leases.deadline_in_us or 0) - 100
    leader.run()
    leader.bus.connected = False
    turns, until_us = 0, stage.clock.us + 1_000_000
    while stage.clock.us < until_us:
        deadline_us = leader.run().deadline_us
        turns += 1
        stage.clock.us = max(stage.clock.us + 50, min(deadline_us, stage.clock.us + 20_000))
    assert turns < 100


def test_a_copied_keep_alive_keeps_nothing_alive(stage):
    """History 7: on a Redis where clients can overhear one another, a copy must not hold a dead client's locks."""
    session = opened(stage, 1_000)
    channel = CHANNELS.reply()
    request = keep_alive(stage, 5, session)
    for _ in range(3):
        stage.ask("node1", request, reply=channel)
        stage.pass_time(200_000)
    assert stage.replies(channel) == [wire.KeptAlive(5, session, 1_000)]
    for _ in range(8):
        stage.ask("node1", request, reply=channel)
        stage.pass_time(100_000)
    assert session not in stage.nodes["node1"].replica.machine.sessions


def test_a_keep_alive_for_an_earlier_leadership_renews_nothing(stage):
    session = opened(stage, 2_000)
    channel = CHANNELS.reply()
    request = keep_alive(stage, 5, session)
    stage.elect("node2")
    stage.pass_time(500_000)
    stage.ask("node2", request, reply=channel)
    stage.pass_time(40_000)
    term = stage.nodes["node2"].replica.engine.term
    assert stage.replies(channel) == [wire.OtherTerm(5, term)]
    leases = stage.nodes["node2"].replica.leases
    assert leases is not None
    assert leases.remaining_ms(session) < 1_600
    stage.ask("node2", wire.KeepAliveRequest(6, CLUSTER, "", session, term, 1), reply=channel)
    stage.pass_time(40_000)
    assert stage.replies(channel) == [wire.KeptAlive(6, session, 2_000)]


@pytest.mark.interpreted
def test_a_process_that_slept_between_its_clock_and_its_mailbox_counts_nothing_by_the_old_time(stage, monkeypatch):
    """History 3: a read by lease would be stale, and a keep-alive renew from a moment long past."""
    leader = stage.nodes["node1"]
    drain = leader.bus.drain
    seen: list[int] = []

    def slow_drain() -> list[Inbound]:
        stage.clock.us += 5_000_000
        return drain()

    tick = leader.replica.tick

    def watched_tick(now_us: int, *, connected: bool) -> None:
        seen.append(now_us)
        tick(now_us, connected=connected)

    monkeypatch.setattr(leader.bus, "drain", slow_drain)
    monkeypatch.setattr(leader.replica, "tick", watched_tick)
    leader.run()
    assert seen == [stage.clock.us]


def test_a_node_is_quiet_two_seconds_after_it_was_last_asked_anything_or_wrote(stage: Stage) -> None:
    node = stage.elect("node1")
    stage.pass_time(QUIET_US + 20_000)
    assert node.run().is_quiet
    stage.ask("node1", wire.QueryRequest(1, CLUSTER, "", GetKey("k")))
    assert not node.run().is_quiet
    stage.settle()
    stage.pass_time(QUIET_US - 40_000)
    assert not node.run().is_quiet
    stage.pass_time(60_000)
    assert node.run().is_quiet


def test_an_entry_that_is_nested_deeper_than_this_node_reads_is_unreadable_in_its_reports_and_ends_no_turn(stage):
    """A node of another build, which reads deeper, may have brought it into the log."""
    leader = stage.nodes["node1"]
    deep = b"\x94\x1e\x90\x91" * 5_000
    leader.raft.propose([COMMAND_PREFIX + encode_entry("web", "", b"\x94\x02\x01\x00" + deep)])
    stage.pass_time(500_000)
    *_, last = stage.answers[CHANNELS.feed("node1")]
    assert wire.decode_feed(wire.open_envelope(last.data, wire.FEED).body).log[-1].what == "unreadable"
