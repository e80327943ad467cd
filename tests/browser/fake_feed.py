"""Publishes the signed reports of an invented cluster, to work on the live page without one.

    python -m tests.browser.fake_feed REDIS_URL REALM PEER_KEY_HEX [--crash-every SECONDS]

Invented are the nodes, their log, elections and locks; the packets are real ones. No test of what Conclave does may be
built on this: it shows what the page makes of reports, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Final

import redis.asyncio

from coordinator import wire
from coordinator.statemachine.commands import Holder, LockList, LockView

TICK_MS: Final = 100
ELECTION_MS: Final = 400
DOWN_MS: Final = 6_000
CLUSTER_ID: Final = 0x5EED
_WORK: Final = (
    "acquire lock deploy",
    "put key config/limits",
    "release lock beat",
    "open session",
    "acquire lock beat",
)


@dataclass
class InventedLock:
    principal: str
    session: int
    token: int
    ttl_ms: int
    renewed_ms: int
    renews: bool = True
    waiters: list[tuple[int, str]] = field(default_factory=list)


class InventedCluster:
    """Three or more nodes that agree by decree. `now_ms` is any monotonic clock."""

    def __init__(self, now_ms: int, *, nodes: int = 3, term: int = 14, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.term = term
        self.leader = self.nodes[1]
        self.log: list[tuple[int, str]] = [(term - 3, "new term")]
        for past in (term - 3, term - 2, term - 1, term):
            self.log += [(past, self.random.choice(_WORK)) for _ in range(self.random.randint(4, 8))]
        self.base = 18_400
        self.behind = dict.fromkeys(self.nodes, 0)
        self.down: dict[str, int] = {}
        self.waiting: dict[str, str] = {}
        self.vacant_ms: int | None = None
        self.why = ""
        self.rate = 2.0
        self.boots = {node: self.random.randint(1, 2**31) for node in self.nodes}
        self.numbers = dict.fromkeys(self.nodes, 0)
        wall_ms = int(time.time() * 1000)
        silence = "election time-out: nothing heard from node2 for 1.4 s"
        self.elections = [
            self._election(term - 2, self.nodes[0], silence, 900, wall_ms - 17_400_000),
            self._election(term - 1, self.nodes[-1], "node1's channel fell silent", 38, wall_ms - 1_280_000),
            self._election(term, self.leader, "node3's channel fell silent", 41, wall_ms - 192_000),
        ]
        in_line = [(32, "user:bob"), (33, "invoices")]
        self.locks = {
            "billing/month-end": InventedLock("invoices", 31, 18_377, 10_000, now_ms - 1_800, waiters=in_line),
            "search/reindex": InventedLock("search", 41, 18_402, 15_000, now_ms - 4_900, waiters=[(42, "search")]),
            "beat": InventedLock("beat", 51, 12_007, 12_000, now_ms - 9_300, renews=False),
        }

    def _election(self, term: int, leader: str, reason: str, waited_ms: int, at_ms: int) -> wire.Election:
        voters = len(self.nodes)
        return wire.Election(term, leader, reason, voters // 2 + 1, voters, at_ms, waited_ms)

    # --- what befalls it ---

    def crash(self, node: str, now_ms: int) -> None:
        self.down[node] = now_ms + DOWN_MS
        if node == self.leader:
            self.leader = ""
            self.vacant_ms = now_ms
            self.why = f"{node}'s channel fell silent"

    def advance(self, now_ms: int) -> None:
        """Once a tick."""
        for node, until_ms in list(self.down.items()):
            if now_ms >= until_ms:
                del self.down[node]
                self.boots[node] += 1
                self.numbers[node] = 0
        up = [node for node in self.nodes if node not in self.down and node not in self.waiting]
        is_due = not self.leader and self.vacant_ms is not None and now_ms - self.vacant_ms >= ELECTION_MS
        if is_due and len(up) > len(self.nodes) // 2:
            self._elect(up, now_ms)
        if self.leader:
            for _ in range(self._poisson(self.rate * TICK_MS / 1000)):
                self.log.append((self.term, self.random.choice(_WORK)))
        for node in self.nodes:
            self.behind[node] = self.random.choice((0, 0, 0, 1, 2)) if self.leader and node != self.leader else 0
        for name, lock in list(self.locks.items()):
            if not self.leader:
                lock.renewed_ms += TICK_MS
            left_ms = lock.ttl_ms - (now_ms - lock.renewed_ms)
            if lock.renews and left_ms < lock.ttl_ms * 2 / 3:
                lock.renewed_ms = now_ms
            elif left_ms < -500:
                self.free(name, now_ms)

    def _poisson(self, mean: float) -> int:
        return int(mean) + (self.random.random() < mean - int(mean))

    def _elect(self, up: list[str], now_ms: int) -> None:
        self.leader = self.random.choice(up)
        self.term += 1
        waited_ms = now_ms - (self.vacant_ms or now_ms)
        self.elections.append(self._election(self.term, self.leader, self.why, waited_ms, int(time.time() * 1000)))
        self.vacant_ms = None
        self.log.append((self.term, "new term"))
        for lock in self.locks.values():
            lock.renewed_ms = now_ms

    def free(self, name: str, now_ms: int) -> None:
        lock = self.locks.pop(name)
        if lock.waiters:
            session, principal = lock.waiters[0]
            token = self.base + len(self.log)
            self.locks[name] = InventedLock(principal, session, token, lock.ttl_ms, now_ms, waiters=lock.waiters[1:])
            self.log.append((self.term, f"release lock {name}"))

    # --- what it reports ---

    def feeds(self, now_ms: int) -> list[wire.Feed]:
        return [self._feed(node, now_ms) for node in self.nodes if node not in self.down]

    def _feed(self, node: str, now_ms: int) -> wire.Feed:
        self.numbers[node] += 1
        held = self.log[: len(self.log) - self.behind[node]]
        last = self.base + len(held)
        commit = min(last, self.base + len(self.log) - (1 if self.leader else 0))
        tail = held[-wire.FEED_LOG_CELLS :]
        cells = tuple(wire.LogCell(index, *entry) for index, entry in enumerate(tail, last - len(tail) + 1))
        if node in self.waiting:
            role, cells, last, commit = "waiting", (), 0, 0
        else:
            role = "leader" if node == self.leader else "follower" if self.leader else "pre-candidate"
        place = self.nodes.index(node)
        report = wire.ReplicaReport(
            node=node,
            cluster=CLUSTER_ID,
            cluster_name="default",
            replica=0 if role == "waiting" else place + 1,
            pid=4_000 + place,
            role=role,
            leader=self.leader,
            term=self.term,
            vote=self.leader,
            last_index=last,
            commit_index=commit,
            applied_index=commit,
            digest="",
            waiting_for=self.waiting.get(node, ""),
            voters=tuple(self.nodes),
            drops={},
            faults_allowed=True,
        )
        return wire.Feed(
            self.boots[node],
            self.numbers[node],
            report,
            tuple(self.elections),
            cells,
            self.base + 1,
            self._lock_list(now_ms) if role == "leader" else None,
            commits_per_s=self.random.gauss(1_284, 30),
            commit_ms_p50=0.8,
            commit_ms_p99=1.9,
            fsync_ms_p50=0.21,
        )

    def _lock_list(self, now_ms: int) -> LockList:
        views = tuple(self._lock_view(name, lock, now_ms) for name, lock in sorted(self.locks.items()))
        return LockList(views, len(views), sum(len(view.waiters) for view in views))

    @staticmethod
    def _lock_view(name: str, lock: InventedLock, now_ms: int) -> LockView:
        waiters = tuple(Holder(session, 0, principal) for session, principal in lock.waiters)
        left_ms = max(0, lock.ttl_ms - (now_ms - lock.renewed_ms))
        return LockView(name, Holder(lock.session, 0, lock.principal), lock.token, waiters, left_ms, lock.ttl_ms)


async def publish(cluster: InventedCluster, url: str, realm: str, peer_key: bytes) -> None:
    """Publish for ever."""
    channels = wire.Channels(realm)
    async with redis.asyncio.Redis.from_url(url) as client:
        while True:
            now_ms = time.monotonic_ns() // 1_000_000
            cluster.advance(now_ms)
            for feed in cluster.feeds(now_ms):
                node = feed.report.node
                await client.publish(channels.feed(node), wire.seal(peer_key, wire.FEED, node, "", feed))
            await asyncio.sleep(TICK_MS / 1000)


async def _crash_now_and_then(cluster: InventedCluster, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        if cluster.leader:
            cluster.crash(cluster.leader, time.monotonic_ns() // 1_000_000)


async def _main(options: argparse.Namespace) -> None:
    cluster = InventedCluster(time.monotonic_ns() // 1_000_000, nodes=options.nodes)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish(cluster, options.url, options.realm, bytes.fromhex(options.peer_key)))
        if options.crash_every:
            tasks.create_task(_crash_now_and_then(cluster, options.crash_every))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("realm")
    parser.add_argument("peer_key")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--crash-every", type=float, default=0.0)
    asyncio.run(_main(parser.parse_args()))
