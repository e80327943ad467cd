"""A node's mailbox on a real Redis: what wakes the loop, and what does not."""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from coordinator.replica.mailbox import PATIENCE_US, RedisBus
from coordinator.replica.ports import Inbound, Outbound
from coordinator.replica.yielding import SHORT_WAITS, Conversation, Yielding
from coordinator.wire import Channels
from tests.integration.private_redis import PrivateRedis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class Node:
    """The part of a node's loop that waits."""

    def __init__(self, name: str, redis: PrivateRedis) -> None:
        self.channels = Channels(redis.realm)
        self.drops: Counter[str] = Counter()
        self.bus = RedisBus(name, redis.url, self.channels, Random(1), greet=lambda: None, drops=self.drops)
        self.wake, self.waker = os.pipe()
        self.bus.keep(self.now_us())

    @staticmethod
    def now_us() -> int:
        return time.monotonic_ns() // 1_000

    def has_work(self, within_us: int) -> bool:
        """Does anything come that is worth a turn?"""
        until_us = self.now_us() + within_us
        while (left_us := until_us - self.now_us()) > 0:
            self.bus.keep(self.now_us())
            if self.bus.wait(self.wake, left_us):
                return True
        return False

    def close(self) -> None:
        self.bus._channel.close()
        os.close(self.wake)
        os.close(self.waker)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    directory: Path = tmp_path_factory.mktemp("mailbox")
    with PrivateRedis(directory) as server:
        yield server


@pytest.fixture
def nodes(redis: PrivateRedis) -> Iterator[tuple[Node, Node]]:
    pair = Node("node1", redis), Node("node2", redis)
    yield pair
    for node in pair:
        node.close()


def test_what_is_published_arrives_in_order_and_its_sender_hears_nothing_of_it(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    packets = [Outbound("", one.channels.peer("node2"), b"%d" % number) for number in range(100)]
    one.bus.publish(packets[:50])
    one.bus.publish([*packets[50:], Outbound("", one.channels.client("node2"), b"asked")])
    arrived: list[Inbound] = []
    while len(arrived) < 101:
        assert two.has_work(5_000_000)
        arrived += two.bus.drain()
    assert arrived == [*(Inbound(True, packet.data) for packet in packets), Inbound(False, b"asked")]
    assert not one.has_work(100_000), "neither replies to its publishes nor answers to its looks are work"
    assert one.bus._looks_open <= 1, "the looks in between are answered: replies still fit their questions"
    assert not one.drops


def test_the_fall_of_a_watched_mailbox_is_work(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    one.bus.watch({"node2": ""})
    one.bus.publish([Outbound("", one.channels.peer("node2"), b"x")])
    assert not one.has_work(100_000)
    two.bus._channel.close()
    began_us = one.now_us()
    assert one.has_work(1_000_000)
    assert one.bus.take_silent() == ["node2"]
    assert one.now_us() - began_us < 500_000


def test_another_thread_wakes_it(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    os.write(one.waker, b"\0")
    assert one.has_work(1_000_000)
    assert not one.has_work(50_000), "it is woken once"


def test_a_lost_connection_is_work_and_is_made_again(redis: PrivateRedis, nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    redis.stop()
    for node in nodes:
        assert node.has_work(1_000_000)
        assert not node.bus.connected
    one.bus.publish([Outbound("", one.channels.peer("node2"), b"lost")])
    assert one.drops["not-connected"] == 1
    redis.start()
    for node in nodes:
        until_us = node.now_us() + 5_000_000
        while not node.bus.connected:
            assert node.now_us() < until_us
            node.has_work(20_000)
    one.bus.publish([Outbound("", one.channels.peer("node2"), b"again")])
    assert two.has_work(1_000_000)
    assert [packet.data for packet in two.bus.drain()] == [b"again"]


def test_what_peers_say_waits_for_something_else_where_nobody_waits_for_it(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    peer, client = one.channels.peer("node2"), one.channels.client("node2")
    for rest, least_us in ((), PATIENCE_US), ((Outbound("", client, b"asked"),), 0):
        one.bus.publish([Outbound("", peer, b"said"), *rest])
        began_us = two.now_us()
        while not two.bus.wait(two.wake, 1_000_000, is_settled=True):
            assert two.now_us() - began_us < 5_000_000
        assert two.now_us() - began_us >= least_us
        assert two.bus.drain() == [Inbound(True, b"said"), *(Inbound(False, packet.data) for packet in rest)]
    one.bus.publish([Outbound("", peer, b"said")])
    assert two.has_work(1_000_000)
    assert two.bus.drain() == [Inbound(True, b"said")]


@pytest.mark.parametrize("kind", ["peer", "client"])
def test_a_node_that_slept_since_it_was_woken_takes_in_what_came_meanwhile(nodes: tuple[Node, Node], kind: str) -> None:
    """History 3: who spoke meanwhile counts, a keep-alive that waited unread too, before any lease does."""
    one, two = nodes
    channel = getattr(one.channels, kind)("node2")
    one.bus.publish([Outbound("", channel, b"first")])
    assert two.has_work(1_000_000)
    one.bus.publish([Outbound("", channel, b"meanwhile")])
    with socket.socket(fileno=os.dup(two.bus._channel.fileno())) as peeked:
        poll = select.poll()
        poll.register(peeked, select.POLLIN)
        there = b""
        while b"meanwhile" not in there:  # What came first may have been an answer of Redis.
            assert poll.poll(5_000)
            there = peeked.recv(65_536, socket.MSG_PEEK)
    two.bus._read_ns -= 1_000_000  # So long it slept.
    assert [packet.data for packet in two.bus.drain()] == [b"first", b"meanwhile"]


def test_whom_a_packet_wakes_runs_first_where_redis_is_on_this_machine(redis: PrivateRedis) -> None:
    """A host and a port may be anywhere: what has the processor here then are others."""
    yields: list[str] = []
    for url, expected in ((redis.url, ["yields"]), (redis.url.partition("#")[0], [])):
        bus = RedisBus("node1", url, Channels(redis.realm), Random(1), greet=lambda: None, drops=Counter())
        bus._yielding = Yielding(yields=lambda: yields.append("yields"))
        bus.publish([Outbound("", "nobody", b"not connected yet")])
        assert not yields
        bus.keep(Node.now_us())
        bus.publish([Outbound("", "nobody", b"one"), Outbound("", "nobody", b"in the same write")])
        assert yields == expected
        bus._channel.close()
        yields.clear()


def test_in_a_conversation_a_node_looks_for_what_comes_and_does_not_fall_asleep(nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    packet = [Outbound("", one.channels.peer("node2"), b"a word")]
    two.bus._conversation = Conversation(Yielding(yields=lambda: one.bus.publish(packet)), now_ns=lambda: 1)
    for _ in range(SHORT_WAITS):
        one.bus.publish(packet)
        assert two.has_work(5_000_000)
        two.bus.drain()
    assert two.has_work(5_000_000), "nobody speaks but who was given way to"
