"""A node's figures for Prometheus: under etcd's names where they mean what etcd's mean, else under `conclave_`.

`docs/metrics.md` has the table, and where a meaning differs in detail. Read at scrape time, on the thread of whoever
scrapes, while the loop goes on: nothing is locked, so the figures of one scrape may be a turn apart. Whatever the loop
adds to or takes from is copied first, which the interpreter does in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator import compiled
from coordinator.consensus.engine import Role
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.meters import Histogram
from coordinator.replica.replica import Replica
from coordinator.replica.turn import Turn

NOBODY: Final = 0
"""As engines name the leader where they know of none."""
QUANTILES: Final = (0.5, 0.99)


def _leases(replica: Replica) -> int:
    leases = replica.leases
    return 0 if leases is None else leases.count


def _held_locks(replica: Replica) -> int:
    """A name that is kept back for a lock-delay has a row, and mostly nobody who holds it."""
    rows = replica.machine.locks
    delayed = [rows.get(name) for name in [*replica.machine.state.delayed]]
    return len(rows) - sum(row is not None and not row.holders for row in delayed)


_Figure = tuple[str, str, Callable[[Replica], float]]

_GAUGES: Final[tuple[_Figure, ...]] = (
    ("etcd_server_has_leader", "1 if this replica knows a leader, else 0.", lambda r: r.engine.leader != NOBODY),
    ("etcd_server_is_leader", "1 if this replica leads, else 0.", lambda r: r.engine.role is Role.LEADER),
    ("etcd_server_proposals_pending", "Proposals taken here and not applied yet.", lambda r: r.pending[0]),
    ("conclave_reads_pending", "Reads and keep-alives that wait here for a majority's word.", lambda r: r.pending[1]),
    ("conclave_watches", "Callers that wait here for changes.", lambda r: r.watches),
    ("conclave_grants_awaited", "Callers that this leader will tell of their grant.", lambda r: r.pending[2]),
    ("conclave_term", "The term of this replica.", lambda r: r.engine.term),
    ("conclave_voters", "Voters of the cluster, as this replica's log says.", lambda r: len(r.configuration.voters)),
    ("conclave_log_entries", "Entries that the log holds.", lambda r: r.engine.last_index - r.engine.first_index + 1),
    ("conclave_leases", "Leases that this leader counts; 0 elsewhere.", _leases),
)
_OF_THE_STATE: Final[tuple[_Figure, ...]] = (
    ("conclave_level", "The level of the cluster, as applied here.", lambda r: r.machine.state.level),
    ("conclave_sessions", "Open sessions, as applied here.", lambda r: len(r.machine.sessions)),
    ("conclave_locks", "Locks that are held, as applied here.", _held_locks),
    ("conclave_lock_waiters", "Callers that wait in line for a lock, as applied here.", lambda r: r.machine.waiting),
    ("conclave_keys", "Keys, as applied here.", lambda r: len(r.machine.keys)),
    ("conclave_keys_bytes", "Keys and values together, as applied here.", lambda r: r.machine.key_bytes),
)
"""A witness has none: what it may keep for others is a state of long ago."""
_COUNTERS: Final[tuple[_Figure, ...]] = (
    (
        "etcd_server_leader_changes_seen",
        "Leaderships that this replica came to know of.",
        lambda r: r.history.leaders_seen,
    ),
    (
        "etcd_server_proposals_committed",
        "Index up to which the log is known to be committed.",
        lambda r: r.engine.commit_index,
    ),
    ("etcd_server_proposals_applied", "Index up to which the log is applied.", lambda r: r.engine.applied_index),
    (
        "etcd_server_proposals_failed",
        "Proposals refused, or lost with the leadership.",
        lambda r: r.meters.proposals_failed,
    ),
    (
        "etcd_debugging_server_lease_expired",
        "Leases that ran out while this replica led.",
        lambda r: r.meters.sessions_expired,
    ),
    (
        "conclave_reads_left",
        "Reads that this replica, as leader, left to the follower that confirms them.",
        lambda r: r.reading.left.count,
    ),
    (
        "conclave_reads_taken_back",
        "Of these, those that it answered itself after all.",
        lambda r: r.reading.left.count_back,
    ),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Replica], Histogram]], ...]] = (
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "Making a snapshot of the state in memory.",
        lambda r: r.meters.snapshot_dumps,
    ),
    (
        "conclave_snapshot_load_duration_seconds",
        "Putting a leader's snapshot in place of the state.",
        lambda r: r.meters.snapshot_loads,
    ),
)


class NodeCollector(Collector):
    """Of one node. `turn` and `journal` belong to the loop's thread; they are only looked at."""

    def __init__(self, turn: Turn, journal: SqliteJournal, is_connected: Callable[[], bool]) -> None:
        self._turn = turn
        self._journal = journal
        self._is_connected = is_connected

    def describe(self) -> Iterable[Metric]:
        """No look at the node when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._of_replicas()
        yield from self._of_node()

    def _of_replicas(self) -> Iterator[Metric]:
        labels = ["cluster", "node"]
        node = self._turn.identity.node
        replicas = [*self._turn.replicas.values()]
        full = [replica for replica in replicas if not replica.engine.is_witness]
        of_whom = [(figure, replicas) for figure in _GAUGES] + [(figure, full) for figure in _OF_THE_STATE]
        for (name, text, value), these in of_whom:
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for replica in these:
                gauge.add_metric([replica.cluster_name, node], float(value(replica)))
            yield gauge
        yield self._stopped(labels)
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=labels)
            for replica in replicas:
                counter.add_metric([replica.cluster_name, node], float(value(replica)))
            yield counter
        for name, text, of in _HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for replica in replicas:
                _add(histogram, [replica.cluster_name, node], of(replica))
            yield histogram
        recent = GaugeMetricFamily(
            "conclave_recent_proposal_seconds",
            "From proposal to apply, of this leader's last 512 proposals.",
            labels=[*labels, "quantile"],
        )
        for replica in replicas:
            for share in QUANTILES:
                seconds = replica.meters.commit_ms(share) / 1_000
                recent.add_metric([replica.cluster_name, node, str(share)], seconds)
        yield recent

    def _stopped(self, labels: list[str]) -> Metric:
        """Those of the journal that have no turns, too: of them nothing else is told."""
        turn = self._turn
        gauge = GaugeMetricFamily(
            "conclave_replica_stopped",
            "1 if it takes no part: its state differed from the others', a later version wrote its log, it is damaged, "
            "or an operator stopped it; else 0.",
            labels=labels,
        )
        for replica in [*turn.replicas.values()]:
            gauge.add_metric([replica.cluster_name, turn.identity.node], float(bool(replica.stopped)))
        for stored in [*turn.resting.values()]:
            gauge.add_metric([stored.cluster_name, turn.identity.node], 1.0)
        return gauge

    def _of_node(self) -> Iterator[Metric]:
        turn = self._turn
        node = turn.identity.node
        for name, text, histogram in (
            ("conclave_loop_cpu_seconds", "CPU time from one sleep of the loop to the next.", turn.meters.loops_cpu),
            ("etcd_disk_wal_fsync_duration_seconds", "The journal's write and sync.", self._journal.fsyncs),
            ("etcd_disk_backend_commit_duration_seconds", "The journal's whole commit.", turn.meters.commits),
            ("etcd_snap_fsync_duration_seconds", "Snapshots put on disk.", turn.meters.snapshot_writes),
            ("conclave_turn_duration_seconds", "Turns of the node's loop.", turn.meters.turns),
            ("conclave_loop_duration_seconds", "From one sleep of the node's loop to the next.", turn.meters.loops),
        ):
            family = HistogramMetricFamily(name, text, labels=["node"])
            _add(family, [node], histogram)
            yield family
        family = HistogramMetricFamily(
            "etcd_network_peer_round_trip_time_seconds",
            "From a leader's message to the follower's answer, sampled.",
            labels=["node", "To"],
        )
        for peer, histogram in dict(turn.round_trips.by_node).items():
            _add(family, [node, peer], histogram)
        yield family
        drops = CounterMetricFamily(
            "conclave_mailbox_drops", "Packets and messages dropped, by reason.", labels=["node", "reason"]
        )
        for reason, count in dict(turn.drops).items():
            drops.add_metric([node, reason], count)
        yield drops
        for name, text, value in (
            ("conclave_mailbox_connected", "1 if the node hears its mailbox, else 0.", float(self._is_connected())),
            ("conclave_compiled", "1 if it runs compiled, 0 if interpreted.", float(compiled.is_used())),
            ("conclave_replicas", "Replicas that the node hosts; 0 while it waits.", len(turn.replicas)),
            ("conclave_replicas_asleep", "Replicas of quiet clusters, which cost nothing.", turn.sleep.count),
            ("conclave_journal_bytes", "The journal on disk.", self._journal.size_bytes()),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["node"])
            gauge.add_metric([node], value)
            yield gauge


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """The buckets as Prometheus counts them, each with all below. The sum may be one measurement ahead or behind."""
    counts = [*histogram.counts]
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound_us, count in zip((*histogram.bounds_us, None), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_us is None else str(bound_us / 1e6), total))
    family.add_metric(labels, buckets=buckets, sum_value=histogram.sum_us / 1e6)


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry of `collector` and what Prometheus asks of any process: CPU, memory, open files, collected garbage."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
