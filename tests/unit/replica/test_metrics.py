"""A node's figures: what they count, under which names, that they are read while the loop runs, and who is served."""

from __future__ import annotations

import http.client
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from coordinator import wire
from coordinator.config import PROJECT
from coordinator.consensus.engine import HardState, Outgoing, Snapshot
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse
from coordinator.consensus.raft.options import Options
from coordinator.ports import free_port
from coordinator.replica.delegation import TAKEN_US
from coordinator.replica.exporter import NodeCollector, registry_of
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.meters import DISK_BOUNDS_US, Histogram
from coordinator.replica.metrics_server import SILENCE_S_MAX, MetricsAddress, MetricsServer
from coordinator.replica.ports import Head, Write
from coordinator.replica.round_trips import KEPT_US, SAMPLE_US, RoundTrips
from coordinator.replica.snapshot_files import Staging
from coordinator.replica.states import Compaction
from coordinator.replica.stored import StoredReplica
from coordinator.statemachine.commands import LEVEL, AcquireLock, Command, GetKey, OpenSession, PutKey
from coordinator.statemachine.lock_commands import Acquire
from coordinator.wire import PeerMessage
from tests.unit.replica.stage import CLUSTER, Node, Stage

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(registry: CollectorRegistry) -> Figures:
    """Every sample, parsed from the text as Prometheus would."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Seen:
    """What the nodes of a stage export."""

    def __init__(self, stage: Stage, journal: SqliteJournal) -> None:
        self._registries = {name: registry(node, journal) for name, node in stage.nodes.items()}

    def __call__(self, node: str, name: str, **labels: str) -> float:
        figures = read(self._registries[node])
        for more in ({"cluster": "default"}, {}):
            key = name, tuple(sorted((labels | more | {"node": node}).items()))
            if key in figures:
                return figures[key]
        raise AssertionError(f"{name} {labels} is not among {sorted(figures)}")


def registry(node: Node, journal: SqliteJournal) -> CollectorRegistry:
    return registry_of(NodeCollector(node.turn, journal, lambda: node.bus.connected))


@pytest.fixture
def journal(tmp_path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def seen(stage: Stage, journal: SqliteJournal) -> Seen:
    return Seen(stage, journal)


def command(request_id: int, session: int, number: int, op) -> wire.CommandRequest:
    return wire.CommandRequest(request_id, CLUSTER, "", msgspec.Raw(wire.encode(Command(session, number, 0, op))))


def opened(stage: Stage, ttl_ms: int = 10_000) -> int:
    reply = stage.ask("node1", command(1, 0, 0, OpenSession(ttl_ms, b"n")))
    stage.settle()
    return stage.replies(reply)[0].result.session


# --- histograms -----------------------------------------------------------------------------------


def test_a_bucket_holds_its_upper_bound() -> None:
    histogram = Histogram((100, 200))
    for us in (0, 100, 101, 200, 201, 10**9):
        histogram.observe(us)
    assert histogram.counts == [2, 2, 2]
    assert histogram.sum_us == 602 + 10**9


def test_buckets_are_exported_with_all_below(stage: Stage, seen: Seen) -> None:
    turns = stage.nodes["node1"].turn.meters.turns
    for us in (1, 125, 126, 999_999_999):
        turns.observe(us)
    name = "conclave_turn_duration_seconds"
    assert seen("node1", f"{name}_bucket", le="0.000125") == 2
    assert seen("node1", f"{name}_bucket", le="0.00025") == 3
    assert seen("node1", f"{name}_bucket", le="8.192") == 3
    assert seen("node1", f"{name}_bucket", le="+Inf") == seen("node1", f"{name}_count") == 4
    assert seen("node1", f"{name}_sum") == pytest.approx(1000.000251)


def test_the_bounds_include_those_of_etcd() -> None:
    assert {1_000 * 2**step for step in range(14)} <= set(DISK_BOUNDS_US)
    assert list(DISK_BOUNDS_US) == sorted(set(DISK_BOUNDS_US))


# --- what is counted ------------------------------------------------------------------------------


def test_an_election_is_a_leader_and_a_change_of_leader(stage: Stage, seen: Seen) -> None:
    for node in stage.nodes:
        assert seen(node, "etcd_server_has_leader") == 0
        assert seen(node, "etcd_server_leader_changes_seen_total") == 0
    stage.elect("node1")
    stage.pass_time(100_000)
    for node in stage.nodes:
        assert seen(node, "etcd_server_has_leader") == 1
        assert seen(node, "etcd_server_leader_changes_seen_total") == 1
        assert seen(node, "etcd_server_is_leader") == (node == "node1")
    term = seen("node1", "conclave_term")
    assert seen("node1", "conclave_level") == LEVEL
    stage.elect("node2")
    stage.pass_time(100_000)
    for node in stage.nodes:
        assert seen(node, "etcd_server_has_leader") == 1
        assert seen(node, "etcd_server_leader_changes_seen_total") == 2
        assert seen(node, "etcd_server_is_leader") == (node == "node2")
        assert seen(node, "conclave_term") > term


def test_a_leader_cut_off_is_one_without_a_leader(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    stage.pass_time(100_000)
    stage.cut = {"node1"}
    stage.pass_time(2_000_000)
    assert seen("node1", "etcd_server_has_leader") == 0
    assert seen("node1", "etcd_server_is_leader") == 0


def test_proposals_are_pending_until_applied_and_failed_when_lost(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    session = opened(stage)
    stage.pass_time(100_000)
    applied = seen("node1", "etcd_server_proposals_applied_total")
    stage.cut = {"node1"}
    stage.ask("node1", command(2, session, 1, PutKey("a", b"1")), command(3, session, 2, PutKey("b", b"1")))
    stage.settle()
    assert seen("node1", "etcd_server_proposals_pending") == 2
    assert seen("node1", "etcd_server_proposals_applied_total") == applied
    assert seen("node1", "etcd_server_proposals_failed_total") == 0
    stage.pass_time(2_000_000)  # It steps down: nobody answers it.
    assert seen("node1", "etcd_server_proposals_pending") == 0
    assert seen("node1", "etcd_server_proposals_failed_total") == 2
    stage.cut = set()
    stage.elect("node2")
    stage.pass_time(100_000)
    for node in stage.nodes:
        committed = seen(node, "etcd_server_proposals_committed_total")
        assert committed == seen(node, "etcd_server_proposals_applied_total") > applied


@pytest.mark.interpreted
def test_a_proposal_that_the_leader_refuses_has_failed(stage: Stage, seen: Seen) -> None:
    leader = stage.elect("node1")
    session = opened(stage)
    leader.raft.transferring = object()  # type: ignore[assignment]
    stage.ask("node1", command(2, session, 1, PutKey("a", b"1")))
    leader.turn._take_in(leader.bus.drain(), stage.clock.us)
    leader.replica._propose(leader.turn._answers)
    assert seen("node1", "etcd_server_proposals_failed_total") == 1


def test_sessions_locks_waiters_and_keys_are_counted_on_every_node_and_leases_on_the_leader(
    stage: Stage, seen: Seen
) -> None:
    stage.elect("node1")
    session = opened(stage)
    ops = (*(AcquireLock("deploy", number, wait=True) for number in (1, 2, 3)), PutKey("key", b"value"))
    stage.ask("node1", *(command(10 + number, session, number, op) for number, op in enumerate(ops, 1)))
    stage.pass_time(100_000)
    for node in stage.nodes:
        assert seen(node, "conclave_sessions") == 1
        assert seen(node, "conclave_locks") == 1
        assert seen(node, "conclave_lock_waiters") == 2
        assert seen(node, "conclave_keys") == 1
        assert seen(node, "conclave_keys_bytes") == len("key") + len("value")
        assert seen(node, "conclave_leases") == (node == "node1")
        assert seen(node, "conclave_grants_awaited") == (2 if node == "node1" else 0)
    stage.pass_time(11_000_000)
    for node in stage.nodes:
        assert seen(node, "conclave_sessions") == seen(node, "conclave_locks") == 0
        assert seen(node, "etcd_debugging_server_lease_expired_total") == (node == "node1")


def test_reads_that_are_left_to_a_follower_are_counted_and_those_that_come_back(journal: SqliteJournal) -> None:
    stage = Stage(options=Options(spare_us=10_000))
    seen = Seen(stage, journal)
    stage.elect("node1")
    stage.pass_time(100_000)
    for number in range(3):
        stage.cut = {"node2", "node3"} if number == 2 else set()
        stage.ask("node1", wire.QueryRequest(number, CLUSTER, "", GetKey("key")))
        stage.settle()
        stage.clock.us += TAKEN_US
        stage.settle()
    stage.cut = set()
    stage.pass_time(40_000)
    for node in stage.nodes:
        assert seen(node, "conclave_reads_left_total") == (3 if node == "node1" else 0)
        assert seen(node, "conclave_reads_taken_back_total") == (1 if node == "node1" else 0)
        assert seen(node, "conclave_reads_pending") == 0


def test_reads_wait_for_a_majority(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    stage.cut = {"node1"}
    stage.ask("node1", wire.ConfirmRequest(5, CLUSTER))
    stage.settle()
    assert seen("node1", "conclave_reads_pending") == 1


def test_a_replica_that_stopped_for_good_says_so(stage: Stage, seen: Seen) -> None:
    assert seen("node1", "conclave_replica_stopped") == 0
    stage.nodes["node1"].replica.stopped = "its state differed"
    assert seen("node1", "conclave_replica_stopped") == 1


def test_a_replica_that_the_journal_can_not_give_back_or_that_an_operator_stopped_says_so(
    stage: Stage, seen: Seen
) -> None:
    """It has no turns, and none of its other figures is told: no alert would know of it."""
    turn = stage.nodes["node1"].turn
    replica = turn.replicas.pop(CLUSTER)
    turn.resting[CLUSTER] = StoredReplica(replica.replica, CLUSTER, replica.cluster_name)
    assert seen("node1", "conclave_replica_stopped") == 1
    assert seen("node1", "conclave_replicas") == 0
    assert seen("node2", "conclave_replica_stopped") == 0


def test_a_witness_has_no_figures_of_a_state(stage: Stage, seen: Seen) -> None:
    """What it is sent to keep for others grows old there: keys, locks and sessions of long ago were told as of now."""
    stage.elect("node1")
    stage.nodes["node3"].replica.engine.is_witness = True
    assert seen("node3", "conclave_voters") == 3
    assert seen("node2", "conclave_keys") == 0
    for name in ("level", "sessions", "locks", "lock_waiters", "keys", "keys_bytes"):
        with pytest.raises(AssertionError, match="is not among"):
            seen("node3", f"conclave_{name}")


def test_a_lock_that_is_kept_back_for_a_lock_delay_is_not_held(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    session = opened(stage, 1_000)
    stage.ask("node1", command(2, session, 1, Acquire(("a", "b"), 1, delay_ms=60_000)))
    stage.settle()
    assert seen("node1", "conclave_locks") == 2
    stage.pass_time(3_000_000)
    for node, of_it in stage.nodes.items():
        assert len(of_it.replica.machine.delays()) == 2
        assert seen(node, "conclave_locks") == 0


def test_drops_are_counted_by_reason(stage: Stage, seen: Seen) -> None:
    stage.nodes["node1"].drops["client-signature"] += 3
    stage.nodes["node1"].bus.connected = False
    assert seen("node1", "conclave_mailbox_drops_total", reason="client-signature") == 3
    assert seen("node1", "conclave_mailbox_connected") == 0
    assert seen("node2", "conclave_mailbox_connected") == 1


def test_snapshots_made_sent_and_loaded_are_measured(stage: Stage, seen: Seen) -> None:
    for node in stage.nodes.values():
        node.replica.states.compaction = Compaction(snapshot_entries=20, trailing_entries=5)
    stage.elect("node1")
    session = opened(stage)
    stage.cut = {"node3"}
    for number in range(1, 60):
        stage.ask("node1", command(number, session, number, PutKey(f"k{number}", b"1")))
        stage.settle()
    stage.cut = set()
    stage.pass_time(300_000)
    made = seen("node1", "etcd_debugging_snap_save_marshalling_duration_seconds_count")
    assert made >= 2
    assert seen("node1", "etcd_snap_fsync_duration_seconds_count") == made
    assert seen("node1", "conclave_snapshot_load_duration_seconds_count") == 0
    assert seen("node3", "conclave_snapshot_load_duration_seconds_count") == 1
    assert seen("node3", "etcd_snap_fsync_duration_seconds_count") >= 1
    assert seen("node3", "conclave_snapshot_load_duration_seconds_sum") > 0


@pytest.mark.interpreted
def test_a_snapshot_in_a_file_of_its_own_is_measured_with_the_writing_of_that(stage: Stage, seen: Seen) -> None:
    leader = stage.elect("node1")
    staged = Staging("1-1-1.snapshot", b"", lambda name: None)
    staged.took_us = 3_000_000
    snapshot = Snapshot(2, 1, leader.raft.configuration, b"")
    write = Write(1, HardState(1, 0, 2), 3, [], [], Head(snapshot, 2, 1, keep_tail=True, staged=staged))
    leader.replica.write = lambda ready: write  # type: ignore[method-assign]
    leader.turn._write([(leader.replica, leader.raft.ready(stage.clock.us))])
    assert seen("node1", "etcd_snap_fsync_duration_seconds_count") == 1
    assert seen("node1", "etcd_snap_fsync_duration_seconds_sum") == 3


def test_turns_and_commits_are_measured(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    node = stage.nodes["node1"]
    turns = seen("node1", "conclave_turn_duration_seconds_count")
    commits = seen("node1", "etcd_disk_backend_commit_duration_seconds_count")
    assert commits == len(node.journal.commits)
    node.run()
    assert seen("node1", "conclave_turn_duration_seconds_count") == turns + 1
    assert seen("node1", "etcd_disk_backend_commit_duration_seconds_count") == commits


def test_each_sync_of_the_journal_is_measured(stage: Stage, seen: Seen, journal: SqliteJournal) -> None:
    assert seen("node1", "etcd_disk_wal_fsync_duration_seconds_count") == 0
    journal.commit([Write(11, HardState(1, 11, 0), 1, [1], [b"\0" * 100])])
    journal.commit([Write(11, HardState(2, 11, 0), 2, [2], [b"\0" * 100])])
    assert seen("node1", "etcd_disk_wal_fsync_duration_seconds_count") == 2
    assert seen("node1", "etcd_disk_wal_fsync_duration_seconds_sum") > 0
    assert seen("node1", "conclave_journal_bytes") > 4_096


# --- round trips ----------------------------------------------------------------------------------


def _round(number: int, term: int = 3) -> list[Outgoing]:
    return [Outgoing(12, AppendEntries(term, 0, 0, 0, number, [], []))]


def _answer(number: int, term: int = 3) -> PeerMessage:
    response = AppendResponse(term, number, success=True, match=0, hint_index=0, hint_term=0)
    return PeerMessage(CLUSTER, 12, 11, response)


def test_a_round_trip_is_from_the_sending_to_the_answer_of_that_round() -> None:
    trips = RoundTrips()
    trips.sent([(CLUSTER, _round(7))], 1_000)
    trips.answered("node2", _answer(6), 1_100)
    trips.answered("node2", _answer(7, term=2), 1_200)
    assert not trips.by_node
    trips.answered("node2", _answer(7), 1_900)
    trips.answered("node2", _answer(7), 5_000)
    assert trips.by_node["node2"].sum_us == 900
    assert sum(trips.by_node["node2"].counts) == 1


def test_an_answer_that_takes_longer_than_the_next_sample_is_counted() -> None:
    """Else a slow peer had no slow round trip, however long it takes."""
    trips = RoundTrips()
    for number in range(4):
        trips.sent([(CLUSTER, _round(number))], number * SAMPLE_US)
    trips.answered("node2", _answer(0), 3 * SAMPLE_US + 1)
    assert trips.by_node["node2"].sum_us == 3 * SAMPLE_US + 1


def test_a_round_that_is_never_answered_keeps_no_later_one_from_being_looked_at() -> None:
    trips = RoundTrips()
    trips.sent([(CLUSTER, _round(1))], 0)
    trips.sent([(CLUSTER, _round(2))], KEPT_US)
    trips.answered("node2", _answer(2), KEPT_US + 5)
    assert trips.by_node["node2"].sum_us == 5


def test_rounds_are_sampled_and_one_that_is_lost_is_forgotten() -> None:
    trips = RoundTrips()
    trips.sent([(CLUSTER, _round(7))], 1_000)
    assert trips.due_us == 1_000 + SAMPLE_US
    trips.sent([(CLUSTER, [])], 1_000 + SAMPLE_US)
    assert trips.due_us == 1_000 + SAMPLE_US, "there was nothing to look at"
    trips.answered("node2", _answer(8), 1_001 + SAMPLE_US)
    assert not trips.by_node
    trips.sent([(CLUSTER, _round(9))], 1_000 + 2 * SAMPLE_US)
    trips.answered("node2", _answer(9), 1_005 + 2 * SAMPLE_US)
    assert trips.by_node["node2"].sum_us == 5


def test_a_leader_measures_its_followers_and_they_nobody(stage: Stage, seen: Seen) -> None:
    stage.elect("node1")
    stage.pass_time(1_000_000)
    name = "etcd_network_peer_round_trip_time_seconds_count"
    for peer in ("node2", "node3"):
        assert 5 <= seen("node1", name, To=peer) <= 11
    assert not stage.nodes["node2"].turn.round_trips.by_node


# --- reading beside the loop ----------------------------------------------------------------------


def test_what_the_loop_adds_between_two_lines_of_a_scrape_does_no_harm(
    stage: Stage, journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst that the other thread can do, made to happen every time."""
    turn = stage.elect("node1").turn
    stage.pass_time(300_000)
    turn.drops["client-token"] += 1
    changes = 0

    def meanwhile(add: Callable[..., None]) -> Callable[..., None]:
        def add_metric(*args: Any, **options: Any) -> None:
            nonlocal changes
            changes += 1
            turn.drops[f"reason-{changes}"] += 1
            turn.round_trips.by_node[f"peer-{changes}"] = Histogram()
            turn.replicas[1_000 + changes] = stage.nodes["node2"].replica
            turn.meters.turns.observe(changes)
            add(*args, **options)

        return add_metric

    for family in (CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily):
        monkeypatch.setattr(family, "add_metric", meanwhile(family.add_metric))
    read(registry(stage.nodes["node1"], journal))
    assert changes > 50


def test_figures_are_read_while_the_loop_changes_everything_under_them(stage: Stage, journal: SqliteJournal) -> None:
    leader = stage.elect("node1")
    session = opened(stage)
    done = threading.Event()
    failures: list[Exception] = []
    scraped = 0
    before = sys.getswitchinterval()
    exported = registry(leader, journal)

    def scrape() -> None:
        nonlocal scraped
        try:
            while not done.is_set():
                read(exported)
                scraped += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test looks for
            failures.append(error)

    reader = threading.Thread(target=scrape)
    reader.start()
    try:
        sys.setswitchinterval(1e-5)
        number = 0
        while (scraped <= 3 or number < 400) and not failures:
            for _ in range(20):
                number += 1
                leader.drops[f"reason-{number}"] += 1
                leader.turn.round_trips.by_node[f"peer-{number % 50}"] = Histogram()
                stage.ask("node1", command(number, session, number, PutKey(f"k{number % 100}", b"1")))
            stage.settle()
            leader.drops.clear()
    finally:
        sys.setswitchinterval(before)
        done.set()
        reader.join(10)
    assert not failures


# --- the table ------------------------------------------------------------------------------------


def test_the_documented_table_is_what_is_exported(stage: Stage, journal: SqliteJournal) -> None:
    document = (PROJECT / "docs" / "metrics.md").read_text(encoding="utf-8")
    section = document.partition("## A node\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \| (\w+)", section, re.MULTILINE)
    collector = NodeCollector(stage.nodes["node1"].turn, journal, lambda: True)
    exported = [
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for family in collector.collect()
    ]
    assert sorted(documented) == sorted(exported)


# --- who is served --------------------------------------------------------------------------------


@pytest.fixture
def serve(stage: Stage, journal: SqliteJournal) -> Iterator[Callable[..., MetricsAddress]]:
    running: list[MetricsServer] = []

    def start(token: str = "") -> MetricsAddress:
        address = MetricsAddress("127.0.0.1", free_port(), token)
        running.append(MetricsServer(address, registry(stage.nodes["node1"], journal)))
        running[-1].start()
        return address

    yield start
    for server in running:
        server.stop()


def get(address: MetricsAddress, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_figures_are_served(serve: Callable[..., MetricsAddress]) -> None:
    address = serve()
    status, text = get(address)
    assert status == 200
    assert 'etcd_server_has_leader{cluster="default",node="node1"} 0.0' in text
    assert "process_cpu_seconds_total" in text
    assert get(address, "/")[0] == get(address, "/metrics/x")[0] == 404


def test_where_there_is_a_token_nothing_is_served_without(serve: Callable[..., MetricsAddress]) -> None:
    address = serve(token="a-token-for-metrics")
    assert get(address)[0] == 401
    for wrong in ("Bearer a-token-for-metric", "Bearer ", "a-token-for-metrics", "Bearer \xff"):
        assert get(address, Authorization=wrong)[0] == 401, wrong
    assert get(address, Authorization="Bearer a-token-for-metrics")[0] == 200
    assert "a-token" not in repr(address)


def test_a_caller_that_says_nothing_holds_the_next_one_up_for_a_moment_only(
    serve: Callable[..., MetricsAddress],
) -> None:
    address = serve()
    with socket.create_connection((address.host, address.port)):
        began = time.monotonic()
        assert get(address)[0] == 200
        assert time.monotonic() - began < SILENCE_S_MAX + 3


def test_a_port_that_is_let_go_can_be_taken_at_once(stage: Stage, journal: SqliteJournal) -> None:
    exported = registry(stage.nodes["node1"], journal)
    address = MetricsAddress("127.0.0.1", free_port())
    for _ in range(3):
        server = MetricsServer(address, exported)
        server.start()
        assert get(address)[0] == 200
        server.stop()


def test_a_port_in_use_is_an_error_of_the_operating_system(stage: Stage, journal: SqliteJournal) -> None:
    exported = registry(stage.nodes["node1"], journal)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        MetricsServer(MetricsAddress("127.0.0.1", other.getsockname()[1]), exported)
