"""The feed: what a node tells dashboards, often enough to watch and seldom enough to cost nothing.

Every report is whole and numbered, so that a lost one heals with the next. Nobody answers and nothing waits: a
dashboard that is slow, dead or a hundredfold never reaches the quorum (docs/design.md, rule 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.replica.meters import percentile_ms
from coordinator.replica.ports import Outbound
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity, log_cells, replica_report, waiting_report
from coordinator.wire import Channels

CHANGED_US: Final = 100_000
"""At most this often where something changes."""
QUIET_US: Final = 500_000
"""At least this often in any case: a silent node is a dead one."""

QUIET_US_MAX: Final = 1_000_000
"""The page takes who was not reported for 1.5 s for dead, however many replicas a node has (dashboard/model.py)."""
EACH_US: Final = 10_000
"""Up to a hundred replicas make a hundred reports a second at the most: the more they are, the fewer of each."""
FEW_REPLICAS: Final = 8

_Glance = tuple[object, ...]


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Feed:
    def __init__(self, identity: Identity, channels: Channels, peer_key: bytes) -> None:
        self._identity = identity
        self._channel = channels.feed(identity.node)
        self._peer_key = peer_key
        self._number = 0
        self._told: dict[int, tuple[int, _Glance]] = {}
        """Cluster to when it was last reported, and how it was then; 0 where the node hosts none."""
        self._cells: dict[int, tuple[_Glance, tuple[int, tuple[wire.LogCell, ...]]]] = {}
        """Cluster to the end of its log in words, and what that was made of."""
        self._looked_us = 0
        self._due_us: int | None = None
        self._look_us = 0
        """Before this nothing is due of the replicas of then, `_hosted` in number, whatever has changed."""
        self._hosted = 0

    def due_us(self, now_us: int) -> int:
        if self._due_us is None:
            return now_us
        # Of many replicas one is always due soon; before the next look it would only be asked for, and not made.
        return max(self._due_us, self._looked_us + CHANGED_US) if len(self._told) > FEW_REPLICAS else self._due_us

    def packets(
        self,
        replicas: Collection[Replica],
        drops: Mapping[str, int],
        fsyncs_us: deque[int],
        now_us: int,
        waits_for: Callable[[], str],
    ) -> list[Outbound]:
        """The reports that are due now. `waits_for` says why none of `replicas` runs, where there are none."""
        if len(self._told) > FEW_REPLICAS and now_us - self._looked_us < CHANGED_US:
            return []
        if now_us < self._look_us and len(replicas) == self._hosted:
            return []
        self._looked_us = now_us
        hosted = {replica.cluster: replica for replica in replicas}
        changed_us = max(CHANGED_US, min(QUIET_US_MAX, len(hosted) * EACH_US))
        quiet_us = max(QUIET_US, changed_us)
        fsync_ms = -1.0
        told = {cluster: self._told[cluster] for cluster in hosted or (0,) if cluster in self._told}
        packets = []
        for cluster, replica in hosted.items():
            sent_us, known = told.get(cluster, (now_us - quiet_us, ()))
            passed_us = now_us - sent_us
            if passed_us < changed_us:
                continue
            glance = self._look(replica)
            if passed_us >= quiet_us or glance != known:
                told[cluster] = now_us, glance
                if fsync_ms < 0:
                    fsync_ms = percentile_ms(fsyncs_us, 0.5)  # of the node: the same in all of its reports
                packets.append(self._packet(self._report(replica, drops, fsync_ms, now_us)))
        if not hosted and now_us - told.get(0, (now_us - quiet_us, ()))[0] >= quiet_us:
            told[0] = now_us, ()
            report = waiting_report(self._identity, "", drops, waits_for())
            packets.append(self._packet(wire.Feed(*self._order(), report, (), (), 1, None, 0, 0, 0, 0)))
        self._told = told
        if len(self._cells) > len(told):
            self._cells = {cluster: cells for cluster, cells in self._cells.items() if cluster in told}
        first_us = min(sent_us for sent_us, _ in told.values())
        self._due_us = first_us + quiet_us
        self._look_us, self._hosted = first_us + changed_us, len(hosted)
        return packets

    @staticmethod
    def _look(replica: Replica) -> _Glance:
        engine = replica.engine
        return (
            engine.role,
            engine.term,
            engine.vote,
            engine.leader,
            engine.last_index,
            engine.commit_index,
            engine.applied_index,
        )

    def _order(self) -> tuple[int, int]:
        self._number += 1
        return self._identity.boot, self._number

    def _report(self, replica: Replica, drops: Mapping[str, int], fsync_ms: float, now_us: int) -> wire.Feed:
        first_index, cells = self._cells_of(replica)
        leases = replica.leases
        machine = replica.machine
        locks = machine.list_locks("", wire.FEED_LOCKS_MAX, leases.remaining_ms) if leases is not None else None
        shared = machine.list_shared([view.name for view in locks.locks]) if locks is not None else []
        return wire.Feed(
            *self._order(),
            report=replica_report(self._identity, replica, drops, digest=False),
            elections=tuple(replica.history.elections),
            log=cells,
            first_index=first_index,
            locks=locks,
            commits_per_s=replica.meters.commits_per_s(now_us),
            commit_ms_p50=replica.meters.commit_ms(0.5),
            commit_ms_p99=replica.meters.commit_ms(0.99),
            fsync_ms_p50=fsync_ms,
            shared=tuple([wire.SharedLock(*each) for each in shared]),
        )

    def _cells_of(self, replica: Replica) -> tuple[int, tuple[wire.LogCell, ...]]:
        """The end of its log in words; most reports repeat it."""
        engine = replica.engine
        made_of = (replica.replica, engine.term, engine.first_index, engine.last_index)
        known = self._cells.get(replica.cluster)
        if known is None or known[0] != made_of:
            known = self._cells[replica.cluster] = made_of, log_cells(replica)
        return known[1]

    def _packet(self, feed: wire.Feed) -> Outbound:
        return Outbound(
            self._identity.shared_redis,
            self._channel,
            wire.seal(self._peer_key, wire.FEED, self._identity.node, "", feed),
        )
