"""The feed: what a node tells dashboards, often enough to watch and seldom enough to cost nothing.

Every report is whole and numbered, so that a lost one heals with the next. Nobody answers and nothing waits: a
dashboard that is slow, dead or a hundredfold never reaches the quorum (DESIGN.md, rule 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

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

_Glance = tuple[object, ...]


class Feed:
    def __init__(self, identity: Identity, channels: Channels, peer_key: bytes) -> None:
        self._identity = identity
        self._channel = channels.feed(identity.node)
        self._peer_key = peer_key
        self._number = 0
        self._sent_us: int | None = None
        self._glance: _Glance = ()

    def due_us(self, now_us: int) -> int:
        return now_us if self._sent_us is None else self._sent_us + QUIET_US

    def packets(
        self, replicas: Iterable[Replica], drops: Mapping[str, int], fsyncs_us: deque[int], now_us: int
    ) -> list[Outbound]:
        """The reports that are due now."""
        passed = now_us - self._sent_us if self._sent_us is not None else QUIET_US
        if passed < CHANGED_US:
            return []
        hosted = [*replicas]
        glance = tuple(self._look(replica) for replica in hosted)
        if passed < QUIET_US and glance == self._glance:
            return []
        self._sent_us = now_us
        self._glance = glance
        if not hosted:
            return [
                self._packet(
                    wire.Feed(*self._order(), waiting_report(self._identity, "", drops), (), (), 1, None, 0, 0, 0, 0)
                )
            ]
        return [self._packet(self._report(replica, drops, fsyncs_us, now_us)) for replica in hosted]

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

    def _report(self, replica: Replica, drops: Mapping[str, int], fsyncs_us: deque[int], now_us: int) -> wire.Feed:
        first_index, cells = log_cells(replica)
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
            fsync_ms_p50=percentile_ms(fsyncs_us, 0.5),
        )

    def _packet(self, feed: wire.Feed) -> Outbound:
        return Outbound(
            self._identity.shared_redis,
            self._channel,
            wire.seal(self._peer_key, wire.FEED, self._identity.node, "", feed),
        )
