"""The feed reader: what it believes, what it drops, and that it comes back, on a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from asgiref.sync import sync_to_async

from coordinator import record, wire
from dashboard import feed_reader
from dashboard import noting as noting_module
from dashboard.feed_reader import FeedReader, decode_feed
from dashboard.model import FORGET_MS, HOSTS_NONE
from dashboard.noting import REPEAT_MS, Noting
from tests.integration.private_redis import PrivateRedis
from tests.unit.dashboard.reports import NODES, feed, quorum

KEY = b"k" * 32
PATIENCE_S = 10.0


def sealed(report: wire.Feed, *, key: bytes = KEY, sender: str | None = None, receiver: str = "") -> bytes:
    return wire.seal(key, wire.FEED, sender or report.report.node, receiver, report)


# --- one packet ---------------------------------------------------------------------------------


def test_an_honest_packet_is_read() -> None:
    assert decode_feed(sealed(feed("node1")), "node1", KEY) == feed("node1")


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "malformed"),
        (b"\xff" * 64, "malformed"),
        (sealed(feed("node1"))[:-9], "malformed"),
        (b"x" * (wire.PACKET_BYTES_MAX + 1), "oversize"),
        (sealed(feed("node1"), key=b"c" * 32), "signature"),
        (sealed(feed("node2")), "sender"),
        (sealed(feed("node1"), receiver="node1"), "sender"),
        (sealed(feed("node2"), sender="node1"), "sender"),
        (wire.seal(KEY, wire.PEER, "node1", "", feed("node1")), "kind"),
        (wire.seal(KEY, wire.FEED, "node1", "", b"\x93\x01"), "malformed"),
        (wire.encode(wire.Envelope(9, wire.FEED, "node1", "", b"", b"")), "version"),
    ],
)  # fmt: skip
def test_any_other_packet_is_refused_with_a_word_for_a_counter(packet: bytes, reason: str) -> None:
    with pytest.raises(wire.WireError) as refusal:
        decode_feed(packet, "node1", KEY)
    assert refusal.value.reason == reason


# --- on a Redis ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    """One of its own, for the tests that end it."""
    with PrivateRedis(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def reader(server: PrivateRedis) -> AsyncIterator[FeedReader]:
    reader = FeedReader(server.url, realm=server.realm, peer_key=KEY, nodes=NODES)
    await reader.start()
    yield reader
    await reader.stop()


def publish(server: PrivateRedis, packets: list[tuple[str, bytes]]) -> int:
    """Returns how many heard the last one."""
    channels = wire.Channels(server.realm)
    with redis.Redis.from_url(server.url) as client:
        return [int(client.publish(channels.feed(node), packet)) for node, packet in packets][-1]


async def until(condition: Callable[[], Any]) -> None:
    """Looks again after each turn of the loop's other tasks, for at most PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(lambda: None))])


async def spoken_to(server: PrivateRedis, *reports: wire.Feed) -> None:
    """Publishes until the reader listens. Reports that were heard twice are dropped as old."""
    await until(lambda: publish(server, [(each.report.node, sealed(each)) for each in reports]))


async def test_reports_of_a_quorum_become_a_view(server: PrivateRedis, reader: FeedReader) -> None:
    live = reader.clusters["default"]
    await spoken_to(server, *quorum())
    await until(lambda: live.model.view(reader._clock())["cluster"]["leader"] == "node2")


async def test_what_fails_a_check_is_counted_and_changes_nothing(server: PrivateRedis, reader: FeedReader) -> None:
    await spoken_to(server, *quorum())
    forged = sealed(feed("node1", role="leader", leader="node1", term=99, number=2), key=b"c" * 32)
    publish(server, [("node1", forged), ("node2", b"junk"), ("node3", sealed(feed("node3")))])
    live = reader.clusters["default"]
    await until(lambda: {"signature", "malformed", "old"} <= set(live.model.dropped))
    assert live.model.view(reader._clock())["cluster"]["term"] == 3


async def test_reports_that_never_came_are_counted(server: PrivateRedis, reader: FeedReader) -> None:
    await spoken_to(server, feed("node1", number=1))
    publish(server, [("node1", sealed(feed("node1", number=6)))])
    await until(lambda: reader.clusters["default"].model.lost == 4)


async def test_a_voter_that_a_report_names_is_listened_to(server: PrivateRedis, reader: FeedReader) -> None:
    await spoken_to(server, feed("node1", voters=(*NODES, "extra", "no name\n")))
    await spoken_to(server, feed("extra", last_index=77))
    await until(lambda: reader.clusters["default"].model.view(reader._clock())["replicas"]["extra"]["last"] == 77)


async def test_a_node_that_names_no_cluster_counts_for_those_that_expect_it(
    server: PrivateRedis, reader: FeedReader
) -> None:
    await spoken_to(server, feed("node1", role="waiting", waiting_for="a journal", cluster_name="", voters=()))
    live = reader.clusters["default"]
    await until(lambda: live.model.view(reader._clock())["replicas"]["node1"]["role"] == "waiting")
    assert list(reader.clusters) == ["default"]


async def test_another_cluster_is_kept_apart(server: PrivateRedis, reader: FeedReader) -> None:
    await spoken_to(server, feed("node1", cluster_name="other", term=9))
    await until(lambda: reader.broadcast("other"))
    assert reader.clusters["default"].model.view(reader._clock())["cluster"]["term"] == 0
    assert reader.broadcast("nobody") is None


async def test_of_a_node_that_hosts_only_another_cluster_it_is_not_said_that_it_does_not_answer(
    server: PrivateRedis, reader: FeedReader
) -> None:
    leads, follows = quorum(nodes=("node2", "node1"))
    await spoken_to(server, leads, follows, feed("node3", cluster_name="other"))
    live = reader.clusters["default"]
    await until(lambda: live.model.view(reader._clock())["replicas"]["node3"]["waiting_for"] == HOSTS_NONE)


async def test_a_lost_redis_is_said_and_its_return_is_found(server: PrivateRedis, reader: FeedReader) -> None:
    live = reader.clusters["default"]

    def state() -> str:
        said: str = live.model.view(reader._clock())["sentence"]["state"]
        return said

    await spoken_to(server, *quorum())
    await until(lambda: state() == "healthy")
    server.stop()
    await until(lambda: state() == "blind")
    server.start()
    await spoken_to(server, *quorum(number=2))
    await until(lambda: state() != "blind")


# --- what the record knows ----------------------------------------------------------------------


def deaf_reader(recorded: Callable[[], list[str]]) -> FeedReader:
    """It hears no node."""
    return FeedReader("redis://127.0.0.1:1", realm="00000000", peer_key=KEY, nodes=NODES, recorded=recorded)


async def test_a_cluster_that_the_record_knows_is_expected_before_its_first_report() -> None:
    reader = deaf_reader(lambda: ["default", "other"])
    default = reader.broadcast("default")
    await reader.start()
    assert reader.broadcast("other") is not None
    assert reader.broadcast("default") is default
    assert reader.broadcast("nobody") is None
    await reader.stop()


async def test_a_record_of_too_many_clusters_is_cut() -> None:
    reader = deaf_reader(lambda: [f"c{number}" for number in range(2 * feed_reader.CLUSTERS_MAX)])
    await reader.start()
    assert len(reader.clusters) == feed_reader.CLUSTERS_MAX
    await reader.stop()


def test_clusters_that_are_no_more_make_room_for_one_that_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """With as many names in the record as there may be clusters, a new one was said to be reported by no node."""
    now_ms = 1_000
    reader = FeedReader("redis://127.0.0.1:1", realm="00000000", peer_key=KEY, nodes=NODES, clock=lambda: now_ms)
    reader._subscribed = {b"node1": "node1"}
    numbers = itertools.count(1)

    def report(name: str) -> None:
        reader._take(b"node1", sealed(feed("node1", cluster_name=name, number=next(numbers))), now_ms)

    names = [f"c{number}" for number in range(feed_reader.CLUSTERS_MAX - 1)]
    for name in names[:-2]:
        reader._expect(name)  # As the record knows it.
    watched = reader.broadcast("c0")
    assert watched is not None
    watched.subscribe()
    report("c1")
    report("new")
    report("newer")
    report("newest")
    assert {"default", "c0", "c1", "new", "newer", "newest"} <= reader.clusters.keys()
    assert len(reader.clusters) == feed_reader.CLUSTERS_MAX
    for name in names:
        report(name)
    assert "newest" in reader.clusters, "whatever is reported now, too many at once put out none of the others"
    assert [words for words in caplog.messages if "no picture of" in words] == [
        f"more than {feed_reader.CLUSTERS_MAX} clusters: no picture of {names[-3]} is kept until somebody opens it"
    ]
    now_ms += FORGET_MS + 1
    report("last")
    assert reader.broadcast("last") is not None
    assert reader.broadcast("c0") is watched
    assert len(reader.clusters) == feed_reader.CLUSTERS_MAX


def test_of_more_clusters_than_are_kept_each_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond were said to be reported by no node, for ever."""
    monkeypatch.setattr(feed_reader, "CLUSTERS_MAX", 4)
    now_ms = itertools.count(1_000)
    reader = FeedReader("redis://127.0.0.1:1", realm="00000000", peer_key=KEY, nodes=NODES, clock=lambda: 1_000)
    reader._subscribed = {b"node1": "node1"}

    def report(*names: str) -> None:
        for name in names:
            at = next(now_ms)
            reader._take(b"node1", sealed(feed("node1", cluster_name=name, number=at)), at)

    names = [f"c{number}" for number in range(40)]
    report(*names)
    assert sorted(reader.clusters) == ["c0", "c1", "c2", "default"]
    for name in names:
        opened = reader.broadcast(name)
        if opened is None:
            report(*names)
            opened = reader.broadcast(name)
        assert opened is not None, f"{name} can be watched"
        if name in {"c0", "c9"}:
            opened.subscribe()
        report(*names)
    assert sorted(reader.clusters) == ["c0", "c39", "c9", "default"]
    for name in names:
        reader.broadcast(f"none-{name}")
    assert len(reader._opened) == feed_reader.OPENED_MAX
    report(*names)
    assert sorted(reader.clusters) == ["c0", "c39", "c9", "default"], "who opens what there is not puts out nobody"


async def test_a_database_that_fails_is_asked_again_which_clusters_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_reader, "RECORD_S", 0.0)
    answers: list[Any] = [OSError("no database"), OSError("locked"), ["other"]]

    def read() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return list(answer)

    reader = deaf_reader(read)
    await reader.start()
    await until(lambda: reader.broadcast("other"))
    await reader.stop()


async def test_a_database_that_hangs_does_not_keep_the_reader_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_reader, "RECORD_S_MAX", 0.01)
    gate = threading.Event()

    def read() -> list[str]:
        gate.wait(PATIENCE_S)
        return ["other"]

    reader = deaf_reader(read)
    await reader.start()
    assert reader.broadcast("other") is None
    gate.set()
    await until(lambda: reader.broadcast("other"))
    await reader.stop()


@pytest.mark.django_db(transaction=True)
async def test_the_reader_of_a_web_process_expects_what_the_record_knows() -> None:
    await sync_to_async(record.record_birth)("other", "5eed", NODES)
    reader = await feed_reader.start(realm="00000000", peer_key=KEY, nodes=NODES, noting=None)
    try:
        assert sorted(reader.clusters) == ["default", "other"]
    finally:
        await feed_reader.stop()


# --- the database, on the side ------------------------------------------------------------------


def gist(report: wire.ReplicaReport, **changed: Any) -> wire.ReplicaReport:
    return msgspec.structs.replace(report, **changed)


async def noted(
    monkeypatch: pytest.MonkeyPatch, note: Callable[[wire.ReplicaReport], None]
) -> tuple[Noting, asyncio.Task[None]]:
    monkeypatch.setattr(record, "note", note)
    noting = Noting()
    return noting, asyncio.create_task(noting.run())


async def test_a_database_that_hangs_holds_nobody_up_and_gets_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    seen: list[int] = []

    def note(report: wire.ReplicaReport) -> None:
        gate.wait(PATIENCE_S)
        seen.append(report.term)

    noting, task = await noted(monkeypatch, note)
    report = feed("node1").report
    for term in range(1, 200):
        noting.offer(gist(report, term=term), now_ms=term)
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(lambda: None))])
    assert len(noting._waiting) <= 1
    gate.set()
    await until(lambda: seen and seen[-1] == 199)
    assert len(seen) <= 2
    task.cancel()


async def test_a_database_that_fails_is_tried_again_with_the_next_report(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def note(report: wire.ReplicaReport) -> None:
        tries.append(report.node)
        if len(tries) == 1:
            raise OSError("the disk is full")

    noting, task = await noted(monkeypatch, note)
    noting.offer(feed("node1").report, now_ms=0)
    await until(lambda: noting.failures == 1)
    noting.offer(feed("node1").report, now_ms=1)
    await until(lambda: len(tries) == 2)
    assert not task.done()
    task.cancel()


def test_indices_alone_are_no_news_for_the_database() -> None:
    noting = Noting()
    report = feed("node1").report
    noting.offer(report, now_ms=7_000)
    noting._waiting.clear()
    noting.offer(gist(report, last_index=99), now_ms=7_000 + REPEAT_MS - 1)
    assert not noting._waiting
    noting.offer(gist(report, last_index=99), now_ms=7_000 + REPEAT_MS)
    assert noting._waiting


def test_what_waits_for_the_database_has_a_bound_and_is_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting_module, "WAITING_MAX", 2)
    noting = Noting()
    for node in NODES:
        noting.offer(feed(node, term=3).report, now_ms=0)
    noting.offer(feed("node1", term=4).report, now_ms=1)
    assert [(report.node, report.term) for report in noting._waiting.values()] == [("node1", 4), ("node2", 3)]
    assert noting.refused == 1
