"""Garbage on every mailbox: nothing crashes, nothing is applied, every drop is counted."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from random import Random

import msgspec
import pytest
import redis

from coordinator import wire
from coordinator.client import Client
from coordinator.config import Config
from coordinator.consensus.raft.messages import AppendEntries
from coordinator.wire import PEER, REQUEST, Channels, Envelope, PeerMessage, Token
from tests.integration.installation import Installation
from tests.integration.quorum import NODES, reports, wait_in_step, web_client
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FLOOD_S = float(os.environ.get("PROVE_FLOOD_S", "5"))
"""`make prove` floods for 30 s."""
HUGE = bytes(10_000_000)


def forgeries(
    random: Random, channels: Channels, node: str, token: Token, honest: bytes
) -> list[tuple[str, str, bytes]]:
    """(channel, the reason that must count it, packet) of each kind, for one node."""
    peer, client = channels.peer(node), channels.client(node)
    evil = PeerMessage(1, 2, 3, AppendEntries(99, 0, 0, 1 << 40, 1, [99], [b"\x01evil"]))
    body = wire.encode_peer([evil])
    requests = wire.encode(wire.RequestBatch(channels.reply(), [wire.DirectoryRequest(1)]))
    signed = msgspec.msgpack.decode(wire.seal(token.key, REQUEST, token.token_id, node, requests), type=Envelope)
    newer = msgspec.msgpack.encode(msgspec.structs.replace(signed, version=2))
    elsewhere = wire.encode(wire.RequestBatch(channels.peer(node), [wire.DirectoryRequest(1)]))
    return [
        (peer, "peer-malformed", secrets.token_bytes(random.randrange(1, 2_000))),
        (client, "client-malformed", secrets.token_bytes(random.randrange(1, 2_000))),
        (peer, "peer-malformed", honest[: random.randrange(1, len(honest))]),
        (client, "client-version", newer),
        (peer, "peer-signature", wire.seal(secrets.token_bytes(32), PEER, "node1", node, body)),
        (peer, "peer-signature", wire.seal(token.key, PEER, "node1", node, body)),
        (peer, "peer-kind", wire.seal(token.key, REQUEST, token.token_id, node, requests)),
        (client, "client-kind", wire.seal(token.key, PEER, token.token_id, node, body)),
        (client, "client-signature", wire.seal(secrets.token_bytes(32), REQUEST, token.token_id, node, requests)),
        (client, "client-receiver", wire.seal(token.key, REQUEST, token.token_id, "node7", requests)),
        (client, "client-token", wire.seal(token.key, REQUEST, "00" * 8, node, requests)),
        (client, "client-reply-channel", wire.seal(token.key, REQUEST, token.token_id, node, elsewhere)),
        (client, "client-malformed", wire.seal(token.key, REQUEST, token.token_id, node, b"\x91" * 5_000)),
        (peer, "peer-oversize", HUGE),
        (client, "client-oversize", HUGE),
    ]


def test_garbage_is_dropped_and_counted_and_changes_nothing(installation: Installation) -> None:
    url, text = installation.new_token("garbler")
    token = Token.parse(text)
    channels = Channels(token.realm)
    random = Random(1)
    connection = redis.Redis.from_url(installation.data.node_redis_url(Config.model_construct(redis_url=None)))
    listener = connection.pubsub()
    listener.subscribe(channels.peer("node1"))
    honest = eventually(
        lambda: (m := listener.get_message(timeout=1)) and m["type"] == "message" and m["data"],
        timeout_s=5,
        what="a packet",
    )
    listener.close()
    pids = {name: process.pid for name, process in installation.parts().items()}

    with web_client(installation) as watcher, Client(url, text) as client:
        wait_in_step(watcher)
        lease = client.acquire("calm", ttl=60)
        before = {node: Counter(report.drops) for node, report in reports(watcher).items()}
        keys = {node: report.applied_index for node, report in reports(watcher).items()}
        sent: dict[str, Counter[str]] = {node: Counter() for node in NODES}
        until_s = time.monotonic() + FLOOD_S
        rounds = served = 0
        while time.monotonic() < until_s:
            for node in NODES:
                for channel, reason, packet in forgeries(random, channels, node, token, honest):
                    if packet is HUGE and rounds % 20:
                        continue
                    assert connection.publish(channel, packet) == 1
                    sent[node][reason] += 1
            rounds += 1
            client.put("calm", str(rounds).encode())
            served += 1
        lease.check()
        packets = sum(counts.total() for counts in sent.values())
        print(f"{packets} packets of garbage, {served} writes served among them")

        def counted() -> bool:
            now = {node: Counter(report.drops) for node, report in reports(watcher).items()}
            return set(now) == set(NODES) and all(
                now[node][reason] - before[node][reason] >= count
                for node in NODES
                for reason, count in sent[node].items()
            )

        eventually(counted, timeout_s=20, what=lambda: f"every drop is counted: {sent} of {reports(watcher)}")
        for node, report in reports(watcher).items():
            exact = {reason: report.drops[reason] - before[node][reason] for reason in sent[node]}
            assert exact == dict(sent[node]), node
        wait_in_step(watcher)
        assert client.get("calm") == str(rounds).encode()
        applied = {report.applied_index for report in reports(watcher).values()}
        assert max(applied) - min(keys.values()) <= served + 25, "something else was applied"
    assert {name: process.pid for name, process in installation.parts().items()} == pids, "a part died"
