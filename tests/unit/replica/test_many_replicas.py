"""Many replicas on one node: the quiet ones have no turns, and whoever wants something of one is served at once."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica.births import first_log
from coordinator.replica.leases import STEP_US_MAX
from coordinator.replica.replica import Replica
from coordinator.replica.turn import FEW_REPLICAS, LOOK_AGAIN_US
from coordinator.statemachine.commands import Command, OpenSession
from coordinator.statemachine.lock_commands import Acquire
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import CHANNELS, WEB, Node, Stage

CLUSTERS = range(1_000, 1_000 + FEW_REPLICAS + 4)


def only_voter(cluster: int, now_us: int) -> Replica:
    member = Member(cluster, "node1")
    log = first_log(cluster, f"cluster{cluster}", 1, [member], WEB)
    raft = Raft(
        member.replica,
        log.hard_state,
        Log([*log.terms], [*log.entries], log.hard_state.commit),
        options=Options(),
        random=Random(cluster),
        now_us=now_us,
    )
    return Replica(cluster, f"cluster{cluster}", member.replica, raft, Machine(), now_us)


@pytest.fixture
def stage() -> Stage:
    """One node that is the only voter of many clusters, all of them quiet by now."""
    stage = Stage(1)
    node = stage.nodes["node1"]
    for cluster in CLUSTERS:
        node.turn.replicas[cluster] = only_voter(cluster, stage.clock.us)
    stage.pass_time(5_000_000)
    return stage


def ticks(node: Node, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    counted: Counter[int] = Counter()
    for cluster, replica in node.turn.replicas.items():

        def tick(now_us: int, *, connected: bool, cluster: int = cluster, tick=replica.tick) -> None:
            counted[cluster] += 1
            tick(now_us, connected=connected)

        monkeypatch.setattr(replica, "tick", tick)
    return counted


@pytest.mark.interpreted
def test_quiet_ones_have_no_turn(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    node = stage.nodes["node1"]
    assert all(node.turn.replicas[cluster].engine.role is Role.LEADER for cluster in CLUSTERS)
    counted = ticks(node, monkeypatch)
    stage.pass_time(2_400_000)
    assert not counted


@pytest.mark.interpreted
def test_those_that_may_not_sleep_have_a_turn_now_and_then(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    node = stage.nodes["node1"]
    for cluster, replica in node.turn.replicas.items():
        node.turn.stir(cluster)
        monkeypatch.setattr(replica.states, "snapshot_wanted", 1 << 40)
    counted = ticks(node, monkeypatch)
    stage.pass_time(2_400_000)
    assert all(2_400_000 // LOOK_AGAIN_US <= counted[cluster] <= 30 for cluster in CLUSTERS)


@pytest.mark.interpreted
def test_one_that_is_asked_answers_in_that_turn_and_sleeps_no_longer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = stage.nodes["node1"]
    cluster = CLUSTERS[3]
    counted = ticks(node, monkeypatch)
    raw = msgspec.Raw(wire.encode(Command(0, 0, 0, OpenSession(10_000, b""))))
    channel = stage.ask("node1", wire.CommandRequest(1, cluster, "", raw))
    node.run()
    stage.carry()
    assert len(stage.replies(channel)) == 1
    assert counted[cluster] == 1
    counted.clear()
    stage.pass_time(1_000_000)
    assert counted[cluster] >= 15, "it counts a lease"
    assert all(counted[other] <= 15 for other in CLUSTERS if other != cluster)


def test_a_lock_delay_passes_as_fast_where_no_session_is_left(stage: Stage) -> None:
    node = stage.nodes["node1"]
    cluster = CLUSTERS[3]
    machine = node.turn.replicas[cluster].machine
    for session, op in ((0, OpenSession(1_000, b"")), (None, Acquire(("a",), 1, delay_ms=5_000))):
        number = next(iter(machine.sessions)) if session is None else session
        raw = msgspec.Raw(wire.encode(Command(number, int(session is None), 0, op)))
        stage.ask("node1", wire.CommandRequest(1, cluster, "", raw))
        stage.settle()
    while not machine.delays():
        stage.pass_time(20_000)
    assert not machine.sessions
    stage.pass_time(4_900_000)
    assert machine.delays()
    stage.pass_time(400_000)
    assert not machine.delays()


def test_lease_time_is_counted_in_steps_and_not_without_rest(stage: Stage) -> None:
    node, cluster = stage.nodes["node1"], CLUSTERS[0]
    raw = msgspec.Raw(wire.encode(Command(0, 0, 0, OpenSession(60_000, b""))))
    stage.ask("node1", wire.CommandRequest(1, cluster, "", raw))
    stage.settle()
    assert node.turn.replicas[cluster].counts_time
    stage.clock.us += 1
    due_us = node.run().deadline_us
    assert stage.clock.us < due_us <= stage.clock.us + STEP_US_MAX // 2


def test_a_report_that_is_due_makes_no_turn_before_the_feed_looks_again(stage: Stage) -> None:
    node = stage.nodes["node1"]
    turns = 0
    until_us = stage.clock.us + 2_000_000
    while stage.clock.us < until_us:
        due_us = node.run().deadline_us
        stage.carry()
        assert due_us > stage.clock.us, "a turn right behind this one"
        stage.clock.us = due_us
        turns += 1
    assert turns < 200


def test_of_more_than_a_hundred_each_is_reported_in_time_and_no_turn_follows_another_at_once() -> None:
    stage = Stage(1)
    node = stage.nodes["node1"]
    clusters = range(1_000, 1_130)
    for cluster in clusters:
        node.turn.replicas[cluster] = only_voter(cluster, stage.clock.us)
    stage.pass_time(5_000_000)
    reported_us: dict[int, int] = dict.fromkeys(clusters, stage.clock.us)
    longest_us = turns = 0
    until_us = stage.clock.us + 5_000_000
    stage.answers.pop(CHANNELS.feed("node1"))
    while stage.clock.us < until_us:
        due_us = node.run().deadline_us
        stage.carry()
        for packet in stage.answers.pop(CHANNELS.feed("node1"), []):
            report = wire.decode_feed(wire.open_envelope(packet.data, wire.FEED).body).report
            longest_us = max(longest_us, stage.clock.us - reported_us.get(report.cluster, stage.clock.us))
            reported_us[report.cluster] = stage.clock.us
        assert due_us > stage.clock.us, "a turn right behind this one"
        stage.clock.us = due_us
        turns += 1
    assert turns < 500
    assert 900_000 < longest_us < 1_300_000
    assert all(stage.clock.us - at_us < 1_300_000 for at_us in reported_us.values())


@pytest.mark.interpreted
def test_a_turn_is_due_when_the_first_of_all_replicas_is(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    node = stage.nodes["node1"]
    for place, (cluster, replica) in enumerate(node.turn.replicas.items()):
        node.turn.stir(cluster)
        after_us = 20_000 + (place * 7 % len(node.turn.replicas)) * 1_000
        monkeypatch.setattr(replica, "due_us", lambda now_us, *, connected, after_us=after_us: now_us + after_us)
    monkeypatch.setattr(node.turn._feed, "due_us", lambda now_us: now_us + 60_000_000)
    for step_us in (1_000, 20_000, 1_000, 5_000):
        stage.clock.us += step_us
        deadline_us = node.run().deadline_us
        awake = [replica for replica in node.turn.replicas.values() if not node.turn.sleep.holds(replica)]
        assert len(awake) == len(node.turn.replicas)
        assert deadline_us == min(node.turn._due_us.values())


def test_one_that_was_stopped_holds_nobody_up(stage: Stage) -> None:
    node = stage.nodes["node1"]
    node.turn.replicas[CLUSTERS[0]].stopped = "it differed"
    stage.pass_time(2_000_000)
    assert node.run().deadline_us > stage.clock.us


@pytest.mark.interpreted
def test_a_replica_that_comes_or_goes_is_seen_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    node = stage.nodes["node1"]
    node.turn.stir(CLUSTERS[0])
    gone = node.turn.replicas.pop(CLUSTERS[0])
    node.run()
    node.turn.replicas[CLUSTERS[0]] = gone
    counted = ticks(node, monkeypatch)
    node.run()
    assert counted[CLUSTERS[0]] == 1
    counted.clear()
    node.turn.stir(CLUSTERS[1])
    node.run()
    assert counted[CLUSTERS[1]] == 1


def test_a_replica_put_in_the_place_of_a_sleeper_has_its_turns(stage: Stage) -> None:
    node, cluster = stage.nodes["node1"], CLUSTERS[2]
    before = node.turn.replicas[cluster]
    assert node.turn.sleep.holds(before)
    stage.pass_time(2 * LOOK_AGAIN_US)  # it has been passed over
    assert node.turn.sleep.holds(before)
    after = only_voter(cluster, stage.clock.us)
    node.turn.host(after)
    node.run()
    assert (after.states.is_crowded, after.reading.address) == (True, before.reading.address)
    stage.pass_time(LOOK_AGAIN_US)
    assert after.engine.role is Role.LEADER, "it campaigned"


def test_whom_a_replica_that_is_gone_followed_nobody_watches_any_more(stage):
    turn = stage.nodes["node1"].turn
    here, gone = CLUSTERS[0], CLUSTERS[1]
    turn._followed_nodes = {here: ("node2", ""), gone: ("node3", "")}
    del turn.replicas[gone]
    turn._awake(stage.clock.us)
    assert turn._followed_nodes == {here: ("node2", "")}, "whoever has no turn now is still watched for"
