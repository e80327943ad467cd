"""Checkpoints of sessions: history 10, and no entry where none is needed."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.consensus.entries import COMMAND
from coordinator.replica.callers import Caller
from coordinator.replica.checkpoints import BATCH_US, SESSIONS_MAX, UNHEARD_US, Checkpoints
from coordinator.replica.leases import CHANNELS_MAX, Leases
from coordinator.statemachine import commands
from coordinator.statemachine.commands import CheckpointSessions, ResetCheckpoints
from coordinator.statemachine.results import Kept
from coordinator.statemachine.sessions import Session
from tests.simulation.checkers.commands import decode
from tests.unit.replica.stage import CLUSTER, Node
from tests.unit.replica.test_turn import keep_alive, opened


def caller(channel: str) -> Caller:
    return Caller(channel, "0" * 16, b"k" * 32)


def after(leases: Leases, us: int) -> None:
    """Lease time passes."""
    for _ in range(us // 100_000):
        leases.advance(leases.seen_us + 100_000, connected=True)
    leases.advance(leases.seen_us + us % 100_000, connected=True)


def said(node: Node, kind: type) -> list[commands.Op]:
    """What a node's log holds of one kind of command."""
    entries = node.raft.log.entries
    found = [decode(memoryview(entry)[1:]).command.op for entry in entries if entry[0] == COMMAND]
    return [op for op in found if isinstance(op, kind)]


def test_what_is_left_of_a_silent_session_is_said_when_half_of_it_has_passed_and_rounded_up():
    leases, checkpoints = Leases(0), Checkpoints()
    leases.renew(5, 10_000)
    checkpoints.begin(5, 10_000, leases.lease_us)
    after(leases, 4_999_000)
    assert checkpoints.take_due(leases) == ()
    after(leases, 1_300)
    assert checkpoints.take_due(leases) == ((5, 5_000),), "4,999.7 ms are left, and none is ended early"
    assert checkpoints.take_due(leases) == ()


def test_whoever_is_kept_alive_has_no_checkpoint():
    leases, checkpoints = Leases(0), Checkpoints()
    leases.renew(5, 10_000)
    checkpoints.begin(5, 10_000, 0)
    for _ in range(30):
        after(leases, 3_400_000)
        leases.renew(5, 10_000)
        checkpoints.heard(5, 10_000, leases.lease_us)
        assert checkpoints.take_due(leases) == ()
        assert len(checkpoints._heap) == 1


def test_one_that_was_not_heard_in_this_leadership_is_written_down_soon_and_then_each_time_after_as_long_again():
    leases, checkpoints = Leases(0), Checkpoints()
    day_ms = 86_400_000
    leases.renew(5, day_ms)
    checkpoints.inherit([Session(5, "web", day_ms, b"", Kept().begin("web"))])
    due_us: list[int] = []
    for _ in range(7_000):
        after(leases, 100_000)
        if checkpoints.take_due(leases):
            due_us.append(leases.lease_us)
    assert due_us == [UNHEARD_US * times for times in (1, 2, 4, 8, 16, 32, 64)]


def test_those_that_fell_silent_at_about_the_same_time_are_written_down_together():
    leases, checkpoints = Leases(0), Checkpoints()
    for session in range(1, 40):
        after(leases, 10_000)
        leases.renew(session, 10_000)
        checkpoints.begin(session, 10_000, leases.lease_us)
    batches: list[int] = []
    for _ in range(80):
        after(leases, 100_000)
        batches += [len(taken)] if (taken := checkpoints.take_due(leases)) else []
    assert batches == [39]
    assert BATCH_US == 500_000


def test_one_entry_holds_so_many_and_the_rest_follows():
    leases, checkpoints = Leases(0), Checkpoints()
    for session in range(1, SESSIONS_MAX + 3):
        leases.renew(session, 10_000)
        checkpoints.begin(session, 10_000, 0)
    after(leases, 5_000_000)
    assert len(checkpoints.take_due(leases)) == SESSIONS_MAX
    assert checkpoints.due_in_us(leases.lease_us) == 0
    assert len(checkpoints.take_due(leases)) == 2
    for session in range(1, SESSIONS_MAX + 3):
        checkpoints.hold(session, caller("a"), 1)
    assert len(checkpoints.take_resets()) == SESSIONS_MAX
    assert len(checkpoints.take_resets()) == 2


def test_who_holds_a_keep_alive_or_is_about_to_end_has_no_checkpoint():
    leases, checkpoints = Leases(0), Checkpoints()
    for session in (1, 2, 3):
        leases.renew(session, 1_000)
        checkpoints.begin(session, 1_000, 0)
    checkpoints.hold(1, caller("a"), 7)
    leases.renew(2, 0)
    assert leases.take_expired(0) == [2]
    after(leases, 500_000)
    assert checkpoints.take_due(leases) == ((3, 500),)


def test_what_was_not_taken_is_proposed_again():
    leases, checkpoints = Leases(0), Checkpoints()
    leases.renew(5, 10_000)
    checkpoints.begin(5, 10_000, 0)
    after(leases, 5_000_000)
    taken = checkpoints.take_due(leases)
    checkpoints.checkpoint_refused(taken, leases.lease_us)
    assert checkpoints.due_in_us(leases.lease_us) == BATCH_US
    after(leases, BATCH_US)
    assert checkpoints.take_due(leases) == ((5, 4_500),)
    checkpoints.hold(5, caller("a"), 1)
    assert checkpoints.due_in_us(leases.lease_us) == 0
    checkpoints.reset_refused(checkpoints.take_resets())
    assert checkpoints.due_in_us(leases.lease_us) == 10_000
    assert checkpoints.take_resets() == (5,)
    checkpoints.hold(5, caller("a"), 2)
    assert checkpoints.take_resets() == (), "one reset speaks for all who wait"
    assert checkpoints.was_reset(5) == [(caller("a"), 2)]
    assert checkpoints.may_answer(5)
    checkpoints.hold(5, caller("a"), 3)
    assert checkpoints.take_resets() == (5,), "who waits behind it waits for the next one"


def test_of_each_channel_the_last_keep_alive_waits_and_of_so_many_channels():
    checkpoints = Checkpoints()
    session = Session(5, "web", 10_000, b"", Kept().begin("web"))
    session.remaining_ms = 4_000
    checkpoints.inherit([session])
    assert not checkpoints.may_answer(5)
    for number in range(CHANNELS_MAX + 2):
        checkpoints.hold(5, caller(f"c{number}"), number)
    checkpoints.hold(5, caller("c9"), 99)
    held = checkpoints.was_reset(5)
    assert len(held) == CHANNELS_MAX
    assert held[-1] == (caller("c9"), 99)
    assert caller("c1") not in [each for each, _ in held]


def test_who_has_ended_leaves_no_trace():
    leases, checkpoints = Leases(0), Checkpoints()
    for session in range(1, 10_000):
        leases.renew(session, 86_400_000)
        checkpoints.begin(session, 86_400_000, 0)
        checkpoints.hold(session, caller("a"), 1)
        if session % 2:
            assert checkpoints.take_resets() == (session,)
        checkpoints.forget(session)
    assert len(checkpoints._heap) < 200
    kept = (checkpoints._heard_us, checkpoints._due_us, checkpoints._shorter, checkpoints._wanted, checkpoints._held)
    assert not any(kept)
    assert not checkpoints._resetting
    assert checkpoints.take_held() == []


# --- in the turn ----------------------------------------------------------------------------------


def test_a_keep_alive_is_answered_only_behind_the_reset_of_a_checkpoint_and_the_next_leader_knows_of_it(stage):
    """History 10."""
    session = opened(stage, 2_000)
    leader = stage.nodes["node1"]
    stage.pass_time(1_300_000)
    assert (leader.replica.machine.sessions[session].remaining_ms or 0) <= 1_000
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.cut = {"node1"}
    for _ in range(10):
        stage.clock.us += 10_000
        leader.run()
        stage.carry()
    assert stage.replies(channel) == [], "the reset is not committed"
    stage.cut = set()
    stage.pass_time(100_000)
    assert stage.replies(channel) == [wire.KeptAlive(1, session, 2_000)]
    assert leader.replica.machine.sessions[session].remaining_ms is None
    stage.elect("node2")
    leases = stage.nodes["node2"].replica.leases
    assert leases is not None
    assert leases.remaining_ms(session) == 2_000


def test_from_the_proposal_of_a_checkpoint_on_a_keep_alive_waits_though_nothing_is_applied_yet(stage):
    """History 10: the checkpoint is in the followers' logs, and the leader knows nothing of that yet."""
    session = opened(stage, 2_000)
    leader, follower = stage.nodes["node1"], stage.nodes["node2"]
    while not said(leader, CheckpointSessions):
        stage.clock.us += 20_000
        leader.run()
        if not said(leader, CheckpointSessions):
            stage.settle()
    assert leader.replica.machine.sessions[session].remaining_ms is None
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.carry()
    for node in (follower, leader, follower):
        # The round is confirmed together with the checkpoint, at the earliest.
        node.run()
        stage.carry()
    for _ in range(6):
        if stage.answers.get(channel):
            break
        stage.settle()
    assert leader.replica.machine.sessions[session].remaining_ms is None
    assert len(said(leader, ResetCheckpoints)) == 1
    assert stage.replies(channel) == [wire.KeptAlive(1, session, 2_000)]


def test_a_new_leader_begins_with_what_the_checkpoint_says(stage):
    session = opened(stage, 2_000)
    stage.pass_time(1_300_000)
    left_ms = stage.nodes["node1"].replica.machine.sessions[session].remaining_ms
    assert left_ms is not None
    assert 700 < left_ms <= 1_000
    stage.elect("node2")
    leases = stage.nodes["node2"].replica.leases
    assert leases is not None
    assert leases.remaining_ms(session) == left_ms
    term = stage.nodes["node2"].replica.engine.term
    stage.pass_time(500_000)
    channel = stage.ask("node2", wire.KeepAliveRequest(1, CLUSTER, "", session, term, 1))
    stage.settle()
    stage.settle()
    assert stage.replies(channel) == [wire.KeptAlive(1, session, 2_000)]
    assert stage.nodes["node2"].replica.machine.sessions[session].remaining_ms is None
    stage.pass_time(1_900_000)
    assert session in stage.nodes["node2"].replica.machine.sessions, "it was kept alive"
    stage.pass_time(200_000)
    assert session not in stage.nodes["node2"].replica.machine.sessions, "within 100 ms of its end"


def test_a_keep_alive_that_waits_for_a_slow_reset_is_not_taken_for_silence(stage):
    session = opened(stage, 1_000)
    leader = stage.nodes["node1"]
    stage.pass_time(600_000)
    propose = leader.raft.propose
    leader.raft.propose = lambda entries: None
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.pass_time(2_000_000)
    leader.raft.propose = propose
    stage.pass_time(100_000)
    assert stage.replies(channel) == [wire.KeptAlive(1, session, 1_000)]
    stage.pass_time(1_200_000)
    assert session not in leader.replica.machine.sessions


@pytest.mark.interpreted
def test_a_leader_that_leads_no_more_turns_away_whoever_waits_for_a_reset(stage):
    session = opened(stage, 2_000)
    leader = stage.nodes["node1"]
    stage.pass_time(1_300_000)
    leader.raft.propose = lambda entries: None
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    stage.pass_time(40_000)
    assert stage.replies(channel) == []
    stage.elect("node2")
    stage.settle()
    assert stage.replies(channel) == [wire.NotLeader(1, "node2")]


@pytest.mark.interpreted
def test_a_reset_that_is_committed_in_the_turn_in_which_the_leader_steps_down_answers_nobody(stage):
    """Only a leader speaks for a session; whoever waits asks the next one."""
    session = opened(stage, 2_000)
    leader = stage.nodes["node1"]
    stage.pass_time(1_300_000)
    channel = stage.ask("node1", keep_alive(stage, 1, session))
    while not said(leader, ResetCheckpoints):
        stage.clock.us += 1_000
        leader.run()
        stage.carry()
        if not said(leader, ResetCheckpoints):
            stage.nodes["node2"].run()
            stage.carry()
    stage.nodes["node2"].run()
    stage.carry()
    leader.raft.tick = leader.raft.step_down
    leader.run()
    stage.carry()
    assert leader.replica.machine.sessions[session].remaining_ms is None, "it is committed"
    assert [type(reply) for reply in stage.replies(channel)] == [wire.NotLeader]


def test_a_reset_that_comes_behind_the_proposal_of_an_expiry_answers_nobody(stage):
    """History 11."""
    session = opened(stage, 2_000)
    leader = stage.nodes["node1"]
    stage.pass_time(1_300_000)
    tenure = leader.replica._tenure
    assert tenure is not None
    tenure.checkpoints.hold(session, caller("a"), 1)
    tenure.leases._expiring.add(session)
    assert tenure.was_reset(session) == []
    assert not tenure.keep_alive(session, caller("a"), 2)
    assert not tenure.checkpoints.is_held(session)


def test_a_dead_session_of_a_day_costs_a_few_entries_and_one_that_renews_none(stage):
    opened(stage, 86_400_000)
    kept = opened(stage, 3_000)
    leader = stage.nodes["node1"]
    for number in range(1, 31):
        stage.pass_time(1_000_000)
        channel = stage.ask("node1", keep_alive(stage, number, kept))
        stage.settle()
        assert stage.replies(channel) == [wire.KeptAlive(number, kept, 3_000)]
    assert said(leader, CheckpointSessions) == []
    assert said(leader, ResetCheckpoints) == []


def test_below_level_2_nothing_is_said_of_checkpoints(stage):
    session = opened(stage, 1_000)
    for node in stage.nodes.values():
        node.replica.machine.state.level = 1
        node.replica.levels.own = 1
    stage.pass_time(1_200_000)
    leader = stage.nodes["node1"]
    assert session not in leader.replica.machine.sessions
    assert said(leader, CheckpointSessions) == []
