"""The feed: what a node tells dashboards, often enough to watch and seldom enough to cost nothing.

Every report is whole and numbered, so that a lost one heals with the next. Nobody answers and nothing waits: a
dashboard that is slow, dead or a hundredfold never reaches the quorum (docs/design.md, rule 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr

from coordinator import wire
from coordinator.replica.meters import percentile_ms
from coordinator.replica.ports import Outbound
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity, log_cells, replica_report, waiting_report
from coordinator.replica.sleep import Sleep
from coordinator.wire import Channels

CHANGED_US: Final = 100_000
"""At most this often where something changes."""
QUIET_US: Final = 500_000
"""At least this often in any case: a silent node is a dead one."""

QUIET_US_MAX: Final = 1_000_000
ASLEEP_US: Final = 4_000_000
"""One that sleeps is reported this often: nothing happens to it, and the node's other reports say that the node lives.
Less than a bar of the page's history (dashboard/history.py), which would be empty else."""
EACH_US: Final = 10_000
"""A node with many replicas reports a hundred of them a second at the most, and each of them that much less often."""
FEW_REPLICAS: Final = 8

_Glance = tuple[object, ...]


class _Told(NamedTuple):
    """When a replica was last reported, how it was then, and before when it is not to be looked at again."""

    sent_us: int
    glance: _Glance
    look_us: int


@mypyc_attr(allow_interpreted_subclasses=True)  # the simulator looks on from one
class Feed:
    def __init__(self, identity: Identity, channels: Channels, peer_key: bytes) -> None:
        self._identity = identity
        self._channel = channels.feed(identity.node)
        self._peer_key = peer_key
        self._number = 0
        self._told: dict[int, _Told] = {}
        """By cluster; 0 where the node hosts none."""
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
        sleep: Sleep,
    ) -> list[Outbound]:
        """The reports that are due now. `waits_for` says why none of `replicas` runs, where there are none; `sleep`
        which of them sleep."""
        if len(self._told) > FEW_REPLICAS and now_us - self._looked_us < CHANGED_US:
            return []
        if now_us < self._look_us and len(replicas) == self._hosted:
            return []
        self._looked_us = now_us
        hosted = {replica.cluster: replica for replica in replicas}
        is_many = len(hosted) > FEW_REPLICAS
        changed_us = max(CHANGED_US, len(hosted) * EACH_US)
        quiet_us = max(QUIET_US, min(QUIET_US_MAX, len(hosted) * EACH_US))
        unknown = _Told(now_us - ASLEEP_US, (), now_us)
        due_us, look_us = now_us + ASLEEP_US, now_us + ASLEEP_US
        fsync_ms = -1.0
        told: dict[int, _Told] = {}
        packets = []
        for cluster, replica in hosted.items():
            known = self._told.get(cluster, unknown)
            again_us = ASLEEP_US if is_many and sleep.holds(replica) else quiet_us
            if now_us >= known.look_us:
                glance = self._look(replica)
                if now_us - known.sent_us >= again_us or glance != known.glance:
                    known = _Told(now_us, glance, now_us + changed_us)
                    if fsync_ms < 0:
                        fsync_ms = percentile_ms(fsyncs_us, 0.5)  # of the node: the same for all
                    again_ms = (again_us + changed_us) // 1_000
                    packets.append(self._packet(self._report(replica, drops, fsync_ms, now_us, again_ms)))
                elif is_many:
                    known = _Told(known.sent_us, known.glance, now_us + changed_us)
            told[cluster] = known
            look_us = min(look_us, known.look_us)
            due_us = min(due_us, max(known.look_us, known.sent_us + again_us))
        if not hosted:
            known = self._told.get(0, unknown)
            if now_us - known.sent_us >= quiet_us:
                known = _Told(now_us, (), now_us + changed_us)
                report = waiting_report(self._identity, "", drops, waits_for())
                packets.append(self._packet(wire.Feed(*self._order(), report, (), (), 1, None, 0, 0, 0, 0)))
            told[0] = known
            due_us, look_us = known.sent_us + quiet_us, known.look_us
        self._told = told
        if len(self._cells) > len(told):
            self._cells = {cluster: cells for cluster, cells in self._cells.items() if cluster in told}
        self._due_us, self._look_us, self._hosted = due_us, look_us, len(hosted)
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

    def _report(
        self, replica: Replica, drops: Mapping[str, int], fsync_ms: float, now_us: int, again_ms: int
    ) -> wire.Feed:
        first_index, cells = self._cells_of(replica)
        leases = replica.leases
        locks = replica.machine.list_locks("", wire.FEED_LOCKS_MAX, leases.remaining_ms) if leases is not None else None
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
            again_ms=again_ms,
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
