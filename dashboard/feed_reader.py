"""Listens to what the nodes tell dashboards: one reader a web process, one subscription for all its browsers.

Every packet is checked as the nodes check theirs: envelope, signature, sender, body. What fails is dropped and counted.
Reports go into the pure model; its views go to the browsers through `broadcast`. The database hears of the reports
that matter, on the side: a slow one is left behind, never waited for.

The reader decides nothing, and answers nobody: losing it costs the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from coordinator import wire
from coordinator.database import asking
from coordinator.membership.note import Note
from coordinator.seldom import Seldom
from dashboard.broadcast import Broadcast
from dashboard.model import FORGET_MS, NODES_MAX, ClusterModel
from dashboard.noting import Noting
from dashboard.order import FeedOrder

TURN_MS: Final = 100
"""Views are published at most this often."""
SILENCE_MS_MAX: Final = 3_000
"""A connection that brings nothing for this long, not even a pong, is given up."""
BACKOFF_MS_MIN: Final = 100
BACKOFF_MS_MAX: Final = 3_000
CLUSTERS_MAX: Final = 128
"""Of which a picture is kept; of more, of those that somebody opens."""
OPENED_MAX: Final = 16
"""Clusters that somebody opened and that wait for a report, before which there is no room made."""
MEMBERSHIP_S: Final = 2.0
"""Between two looks at what the reconciler says."""
RECORD_S: Final = 2.0
"""Between two looks at which clusters the record knows, until the database has said it once."""
RECORD_S_MAX: Final = 0.5
"""A reader that starts waits so long for the record at the most; it learns the rest as it goes."""

log = logging.getLogger(__name__)


def clock_ms() -> int:
    """The monotonic clock that every time of a view is a reading of."""
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def decode_feed(packet: bytes, node: str, peer_key: bytes) -> wire.Feed:
    """The report in a packet that came on `node`'s channel. Raises WireError with a word for a counter."""
    envelope = wire.open_envelope(packet, wire.FEED)
    wire.verify(envelope, peer_key)
    if envelope.sender != node or envelope.receiver:
        raise wire.WireError("sender")
    feed = wire.decode_feed(envelope.body)
    if feed.report.node != node:
        raise wire.WireError("sender")
    return feed


class Figures(NamedTuple):
    """How the reading goes, for metrics."""

    connected: bool
    lag_s: dict[str, float]
    """By node: seconds since its last report came, or since this reader began where none has."""
    lost: int
    drops: dict[str, int]


class FeedReader:
    """Reads the feeds of an installation's nodes. Used on one event loop."""

    def __init__(
        self,
        url: str,
        *,
        realm: str,
        peer_key: bytes,
        nodes: Iterable[str],
        clusters: Iterable[str] = ("default",),
        noting: Noting | None = None,
        membership: Callable[[], Mapping[str, Note]] | None = None,
        recorded: Callable[[], Iterable[str]] | None = None,
        clock: Callable[[], int] = clock_ms,
    ) -> None:
        """`membership`: what is to be said of the membership of each cluster, by name; it may take its time.
        `recorded`: clusters that are expected beside `clusters`; it may take its time, and fail."""
        self._url = url
        self._channels = wire.Channels(realm)
        self._peer_key = peer_key
        self._nodes = tuple(nodes)
        self._clock = clock
        self._noting = noting
        self._membership = membership
        self._recorded = recorded
        self._subscribed: dict[bytes, str] = {}
        self._orders: dict[str, FeedOrder] = {}
        self._is_connected = False
        self._begun_ms = clock()
        self._heard_ms: dict[str, int] = {}
        self._drops: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._reported_ms: dict[str, int] = {}
        """By cluster: when a node last named it. The record knows many that are no more."""
        self._opened: dict[str, None] = {}
        self._expected = frozenset(clusters)
        self.clusters: dict[str, Broadcast] = {}
        for name in self._expected:
            self._add_cluster(name)
        self._said_too_many = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to listen. The connection is made, and made again, in the background. What is recorded is expected
        when this returns, where the record answers within RECORD_S_MAX."""
        if self._tasks:
            return
        self._tasks = [asyncio.create_task(self._listen(), name="conclave-feed")]
        self._tasks.append(asyncio.create_task(self._publish(), name="conclave-views"))
        if self._noting is not None:
            self._tasks.append(asyncio.create_task(self._noting.run(), name="conclave-noting"))
        if self._membership is not None:
            self._tasks.append(
                asyncio.create_task(self._follow_membership(self._membership), name="conclave-membership")
            )
        if self._recorded is not None:
            learning = asyncio.create_task(self._expect_recorded(self._recorded), name="conclave-recorded")
            self._tasks.append(learning)
            await asyncio.wait({learning}, timeout=RECORD_S_MAX)

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def broadcast(self, cluster: str) -> Broadcast | None:
        """Where to listen to `cluster`; None where no node has spoken of it and nobody expects it, or where there were
        too many: then there is room for it with its next report."""
        known = self.clusters.get(cluster)
        if known is None:
            self._opened.pop(cluster, None)
            self._opened[cluster] = None
            while len(self._opened) > OPENED_MAX:
                del self._opened[next(iter(self._opened))]
        return known

    def _expect(self, cluster: str) -> Broadcast | None:
        """Where to listen to `cluster` from now on; None where it is one too many."""
        known = self.clusters.get(cluster)
        if known is not None or len(self.clusters) < CLUSTERS_MAX:
            return known or self._add_cluster(cluster)
        if not self._said_too_many:
            self._said_too_many = True
            log.warning(
                "more than %d clusters: no picture of %s is kept until somebody opens it", CLUSTERS_MAX, cluster
            )
        return None

    def _make_room(self, cluster: str, now_ms: int) -> None:
        """For a cluster that a node reports, where there are as many as there may be: the one that was reported longest
        ago goes, if that is long ago or somebody has opened the new one, and nobody watches it."""
        is_opened = cluster in self._opened
        self._opened.pop(cluster, None)
        if len(self.clusters) < CLUSTERS_MAX:
            return
        idle = {
            name: self._reported_ms.get(name, now_ms - FORGET_MS - 1)
            for name, broadcast in self.clusters.items()
            if not broadcast.subscribers and name not in self._expected
        }
        name = min(idle, key=lambda each: idle[each], default="")
        if name and (is_opened or now_ms - idle[name] > FORGET_MS):
            del self.clusters[name]
            self._reported_ms.pop(name, None)

    def figures(self) -> Figures:
        now_ms = self._clock()
        lag_s = {node: (now_ms - self._heard_ms.get(node, self._begun_ms)) / 1_000 for node in sorted(self._wanted())}
        return Figures(self._is_connected, lag_s, sum(order.lost for order in self._orders.values()), dict(self._drops))

    def _add_cluster(self, name: str) -> Broadcast:
        broadcast = Broadcast(ClusterModel(name, self._nodes, self._clock()), self._clock)
        self.clusters[name] = broadcast
        return broadcast

    # --- its tasks ------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(TURN_MS / 1000)
            now_ms = self._clock()
            for broadcast in self.clusters.values():
                try:
                    if not broadcast.subscribers:
                        broadcast.model.tick(now_ms)
                    broadcast.turn(now_ms)
                except Exception:
                    log.exception("a view of cluster %s could not be made", broadcast.model.name)

    async def _follow_membership(self, read: Callable[[], Mapping[str, Note]]) -> None:
        """Look what the reconciler says, where anybody watches. A database that is slow or gone says nothing new."""
        unread = Seldom()
        while True:
            await asyncio.sleep(MEMBERSHIP_S)
            if not any(broadcast.subscribers for broadcast in self.clusters.values()):
                continue
            try:
                said = await asking(read, thread_sensitive=False)()
            except Exception as problem:  # noqa: BLE001 - whatever it is, the picture goes on
                if unread.is_due(str(problem)):
                    log.info("what the reconciler says cannot be read: %s", problem)
                continue
            unread.over()
            for name, broadcast in self.clusters.items():
                broadcast.model.membership = said.get(name, Note())

    async def _expect_recorded(self, read: Callable[[], Iterable[str]]) -> None:
        """A page of a cluster that the record knows is not turned away until its first report. A database that cannot
        be asked is asked again, until it has answered once."""
        unread = Seldom()
        while True:
            try:
                names = await asking(read, thread_sensitive=False)()
            except Exception as problem:  # noqa: BLE001 - whatever it is, reports tell the same, only later
                if unread.is_due(str(problem)):
                    log.info("which clusters the record knows cannot be read: %s", problem)
                await asyncio.sleep(RECORD_S)
                continue
            for name in names:
                self._expect(name)
            return

    async def _listen(self) -> None:
        backoff_ms = BACKOFF_MS_MIN
        while True:
            try:
                await self._listen_once()
            except (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError) as problem:
                if self._is_connected:
                    log.warning("the feed's Redis is gone: %s", problem)
                    backoff_ms = BACKOFF_MS_MIN
            except Exception:
                log.exception("the feed reader begins again")
            self._is_connected = False
            self._set_blind(is_blind=True)
            await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_ms / 1000)  # noqa: S311 - no secret
            backoff_ms = min(2 * backoff_ms, BACKOFF_MS_MAX)

    async def _listen_once(self) -> None:
        client = redis.asyncio.Redis.from_url(
            self._url, socket_connect_timeout=2.0, socket_timeout=2.0, health_check_interval=0, retry=None
        )
        pubsub = client.pubsub()
        try:
            self._subscribed = {}
            await self._subscribe(pubsub, self._wanted())
            self._is_connected = True
            self._set_blind(is_blind=False)
            await self._read(pubsub)
        finally:
            with contextlib.suppress(Exception):
                await pubsub.aclose()
            with contextlib.suppress(Exception):
                await client.aclose()

    async def _read(self, pubsub: PubSub) -> None:
        """Until the connection breaks. A quiet connection is asked whether it lives."""
        heard_ms = self._clock()
        while True:
            message = await pubsub.get_message(timeout=1.0)
            now_ms = self._clock()
            if message is None:
                if now_ms - heard_ms > SILENCE_MS_MAX:
                    raise TimeoutError(f"nothing heard for {SILENCE_MS_MAX} ms")
                await pubsub.ping()
                continue
            heard_ms = now_ms
            if message["type"] == "message":
                self._take(message["channel"], message["data"], now_ms)
                missing = self._wanted() - set(self._subscribed.values())
                if missing:
                    await self._subscribe(pubsub, missing)

    # --- packets --------------------------------------------------------------------------------

    def _take(self, channel: bytes, packet: bytes, now_ms: int) -> None:
        node = self._subscribed.get(channel)
        if node is None:
            return
        try:
            feed = decode_feed(packet, node, self._peer_key)
        except wire.WireError as problem:
            self._count(problem.reason)
            return
        order = self._orders.setdefault(node, FeedOrder())
        if not order.is_news(feed.boot, feed.number):
            self._count("old")
            return
        self._heard_ms[node] = now_ms
        taken = [
            broadcast
            for broadcast in self._about(feed.report, now_ms)
            if broadcast.model.apply(feed, now_ms, _wall_ms())
        ]
        taken += [
            broadcast
            for broadcast in self.clusters.values()
            if feed.report.cluster_name
            and broadcast.model.name != feed.report.cluster_name
            and broadcast.model.elsewhere(feed, now_ms)
        ]
        lost = sum(order.lost for order in self._orders.values())
        for broadcast in taken:
            broadcast.model.lost = lost
            broadcast.dirty = True
        if taken and self._noting is not None:
            self._noting.offer(feed.report, now_ms)

    def _about(self, report: wire.ReplicaReport, now_ms: int) -> list[Broadcast]:
        """The clusters that a report is about: the one that it names; of a node that hosts none, all that expect it."""
        if not report.cluster_name:
            return [each for each in self.clusters.values() if report.node in each.model.nodes()]
        if report.cluster_name not in self.clusters:
            self._make_room(report.cluster_name, now_ms)
        known = self._expect(report.cluster_name)
        if known is None:
            return []
        self._reported_ms[report.cluster_name] = now_ms
        return [known]

    def _count(self, reason: str) -> None:
        self._drops[reason] += 1
        for broadcast in self.clusters.values():
            broadcast.model.drop(reason)

    def _wanted(self) -> set[str]:
        named = set(self._nodes).union(*(broadcast.model.nodes() for broadcast in self.clusters.values()))
        valid = sorted(node for node in named if wire.NODE_NAME.fullmatch(node))
        return set(valid[:NODES_MAX])

    async def _subscribe(self, pubsub: PubSub, nodes: set[str]) -> None:
        channels = {self._channels.feed(node).encode(): node for node in nodes}
        if channels:
            await pubsub.subscribe(*channels)
            self._subscribed |= channels

    def _set_blind(self, *, is_blind: bool) -> None:
        now_ms = self._clock()
        for broadcast in self.clusters.values():
            broadcast.model.blind(now_ms) if is_blind else broadcast.model.sighted(now_ms)
            broadcast.dirty = True


def _what_the_reconciler_says() -> Mapping[str, Note]:
    from coordinator.membership.saying import by_cluster

    return by_cluster()


def _what_the_record_knows() -> list[str]:
    from coordinator import record

    return record.cluster_names()


# --- the one of this process -----------------------------------------------------------------------

_readers: list[FeedReader] = []
"""At most one."""


async def start(**overrides: Any) -> FeedReader:
    """Start this process's reader, once; called when the web process starts, and by the first browser otherwise."""
    if not _readers:
        from coordinator.config import load_config
        from coordinator.data_directory import DataDirectory

        config = load_config()
        data = DataDirectory.of(config)
        options: dict[str, Any] = {
            "realm": data.realm(),
            "peer_key": data.peer_key(),
            "nodes": config.node_names,
            "noting": Noting(),
            "membership": _what_the_reconciler_says,
            "recorded": _what_the_record_knows,
        }
        _readers.append(FeedReader(data.node_redis_url(config), **(options | overrides)))
        await _readers[0].start()
    return _readers[0]


def running() -> FeedReader | None:
    """This process's reader, where it has one."""
    return _readers[0] if _readers else None


async def stop() -> None:
    """Stop this process's reader."""
    while _readers:
        await _readers.pop().stop()
