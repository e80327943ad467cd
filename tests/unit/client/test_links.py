"""Which connections are made, and made again: a Redis that is gone for good costs nothing but what goes there."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from coordinator import wire
from coordinator.channel import BACK_OFF_US_MAX, ChannelError, Received
from coordinator.client import links as links_module
from coordinator.client.core import Core
from coordinator.client.errors import Closed
from coordinator.client.links import HOME, IDLE_PING_US, PONG_US_MAX, Link, Links
from coordinator.client.routing import PROBE_US_MIN
from tests.unit.client.test_sync import CLUSTER, TOKEN

ALIVE, DEAD = "redis://alive", "redis://dead"
LONG_US = 2 * BACK_OFF_US_MAX


class Socket:
    """A channel that a test connects and breaks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected = False
        self.wants_write = False
        self.closed = 0
        self.sent: list[Any] = []
        self.error: Exception | None = None
        self.unread: list[tuple[Any, Any]] = []

    def connect(self, channels: list[str]) -> None:
        if self.error is not None:
            raise self.error
        self.connected = True

    def close(self) -> None:
        self.connected = False
        self.closed += 1

    def send(self, sent: list[Any]) -> None:
        self.sent += sent

    def publish(self, sent: list[Any]) -> None:
        self.sent += sent

    def receive(self) -> Received:
        if self.error is not None or not self.connected:
            raise ChannelError("closed by Redis")
        replies, self.unread = self.unread, []
        return Received([], replies)


class Hand:
    def __init__(self) -> None:
        self.core = Core(TOKEN, "default", Random(1))
        self.links = Links(self.core, "redis://user:secret@home", Random(2))
        self.now_us = 1_000_000

    def connect(self) -> list[str]:
        """Make what is to be made; which."""
        links = self.links.to_connect(self.now_us)
        for link in links:
            self.links.connected(link, self.links.connect(link), self.now_us)
        return [self.address(link) for link in links]

    def address(self, link: Link) -> str:
        return next(address for address, other in self.links.links.items() if other is link)

    def learns(self, leader: str = "alive", **nodes: str) -> None:
        entry = wire.ClusterEntry("default", CLUSTER, leader, 5, tuple(nodes))
        self.core.routing.learn(wire.Directory(1, "alive", tuple(nodes.items()), (entry,)), self.now_us)

    def asks(self, node: str) -> None:
        self.core.ask_node(node, lambda number: wire.StatusRequest(number, "default"), self.now_us, 1 << 60)
        self.links.send(self.now_us)

    def breaks(self, address: str, error: Exception | None = None) -> None:
        """Its connection is lost, and can not be made again."""
        link = self.links.links[address]
        channel: Any = link.channel
        channel.error = error or ChannelError("timed out")
        self.links.receive(link, self.now_us)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    monkeypatch.setattr(links_module, "new_channel", Socket)
    return Hand()


@pytest.fixture
def two(hand: Hand) -> Hand:
    """Connected at home and to both nodes."""
    hand.learns("dead", alive=ALIVE, dead=DEAD)
    assert hand.connect() == [HOME]
    for node in ("alive", "dead"):
        hand.asks(node)
    assert hand.connect() == [ALIVE, DEAD]
    return hand


def test_a_link_is_made_once_something_is_to_be_sent_over_it(hand):
    hand.learns(alive=ALIVE)
    assert hand.connect() == [HOME]
    hand.asks("alive")
    assert hand.links.links[ALIVE].channel.url == "redis://user:secret@alive"
    assert hand.links.due_us(hand.now_us) <= hand.now_us
    assert hand.connect() == [ALIVE]
    assert hand.connect() == []


def test_the_redis_of_the_leader_is_tried_again_and_one_of_a_leader_of_before_is_not(two):
    two.breaks(DEAD)
    for _ in range(3):
        two.now_us += LONG_US
        assert two.connect() == [DEAD], "what the leader pushes comes by no other way"
    two.core.routing.believe("alive", 6, two.now_us)
    two.now_us += LONG_US
    assert two.connect() == []
    two.core.fail_all(Closed())
    two.links.send(two.now_us)
    assert two.links.due_us(two.now_us) > two.now_us, "nobody is woken for it"
    two.asks("dead")
    assert two.connect() == [DEAD]
    two.now_us += LONG_US
    assert two.connect() == []


def test_home_is_tried_again_always_and_all_are_where_nothing_is_connected(two):
    two.core.routing.believe("alive", 6, two.now_us)
    two.breaks(HOME)
    assert two.connect() == [HOME]
    two.now_us += LONG_US
    two.breaks(DEAD)
    assert two.connect() == [HOME]
    two.now_us += LONG_US
    two.breaks(ALIVE)
    assert two.connect() == [HOME, ALIVE, DEAD]


def test_where_the_redis_of_the_url_is_gone_those_of_the_nodes_are_tried_though_nothing_was_ever_sent_there(hand):
    hand.learns("dead", alive=ALIVE, dead=DEAD)
    assert hand.connect() == [HOME]
    hand.breaks(HOME)
    assert hand.connect() == [HOME]
    hand.now_us += LONG_US
    assert hand.connect() == [HOME, ALIVE, DEAD]


def test_where_nobody_at_home_says_who_leads_the_nodes_that_listen_elsewhere_are_asked(hand):
    hand.learns("", alive=ALIVE, dead=DEAD, home=HOME)
    assert hand.connect() == [HOME]
    hand.core.confirm(hand.now_us, hand.now_us + 60_000_000)
    hand.links.send(hand.now_us)
    assert hand.connect() == [], "one question may be enough"
    hand.now_us += PROBE_US_MIN
    hand.links.send(hand.now_us)
    assert hand.connect() == [ALIVE, DEAD]


def test_one_try_at_a_time_and_none_before_the_back_off_is_over(hand):
    (link,) = hand.links.to_connect(hand.now_us)
    assert hand.links.to_connect(hand.now_us + LONG_US) == []
    link.channel.connected = True
    assert not link.connected, "it is the connecting thread's until that has said what came of it"
    link.channel.connected = False
    hand.links.connected(link, ChannelError("refused"), hand.now_us)
    assert hand.links.to_connect(link.back_off.retry_us - 1) == []
    assert hand.links.due_us(hand.now_us) == link.back_off.retry_us
    assert hand.links.to_connect(link.back_off.retry_us) == [link]


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), RuntimeError("a defect")])
def test_whatever_goes_wrong_with_a_connection_is_one_that_could_not_be_made(hand, error):
    hand.breaks(HOME, error)
    assert hand.connect() == [HOME]
    assert str(error) in hand.core.routing.trouble
    assert hand.connect() == []


@pytest.mark.parametrize("address", ["redis://redis..svc", "redis://[", "http://a"])
def test_a_nodes_address_that_is_none_costs_what_was_to_be_sent_there(monkeypatch, address):
    hand = Hand()
    monkeypatch.setattr(links_module, "new_channel", Socket)
    hand.links.links[HOME].channel = Socket("")
    monkeypatch.undo()
    hand.learns("bad", bad=address, alive="")
    hand.connect()
    hand.asks("bad")
    assert "a node's address can not be used" in hand.core.routing.trouble
    assert hand.core.due_us(hand.now_us) > hand.now_us
    hand.asks("alive")
    assert hand.links.links[HOME].channel.sent


def test_a_link_to_where_no_node_is_any_more_is_forgotten_once_it_is_down(two):
    two.core.routing.believe("alive", 6, two.now_us)
    two.learns("alive", dead=ALIVE)
    two.connect()
    assert DEAD in two.links.links
    two.breaks(DEAD)
    two.connect()
    assert [*two.links.links] == [HOME, ALIVE]


def test_after_a_defect_every_connection_is_made_again_after_a_pause(two):
    two.breaks(DEAD)
    two.asks("dead")
    (late,) = two.links.to_connect(two.now_us + LONG_US)
    alive = two.links.links[ALIVE]
    two.now_us += LONG_US
    two.links.begin_anew(two.now_us)
    assert alive.channel.closed == 1
    assert two.connect() == []
    late.channel.connected = True
    two.links.connected(late, None, two.now_us)
    assert not late.channel.connected, "another has its place"
    assert two.links.links[DEAD] is not late
    two.now_us += LONG_US
    assert two.connect() == [HOME, ALIVE, DEAD]


def test_a_loss_that_shows_with_the_last_that_came_is_a_loss(two, monkeypatch):
    """`Channel.receive` gives what came before the end, and raises nothing then."""
    link = two.links.links[ALIVE]
    assert two.connect() == []

    def ends(channel):
        channel.connected = False
        return Received([], [])

    monkeypatch.setattr(Socket, "receive", ends)
    two.links.receive(link, two.now_us)
    two.asks("alive")
    assert two.connect() == [ALIVE]


def test_whoever_watches_the_sockets_is_told_of_what_could_not_be_sent(two):
    two.links.is_changed = False
    two.asks("alive")
    assert not two.links.is_changed
    channel = two.links.links[ALIVE].channel
    channel.wants_write = True
    two.asks("alive")
    assert two.links.is_changed, "it is to be watched for room"


@pytest.mark.parametrize("answers", [True, False])
def test_a_connection_that_nobody_watches_is_not_given_up_for_an_answer_that_lies_there_unread(
    hand: Hand, answers: bool
) -> None:
    """A client that nobody asks anything sleeps, and does not look at its connections: each was made again every
    thirteen seconds."""
    hand.connect()
    link = hand.links.links[HOME]
    hand.now_us += IDLE_PING_US + 1
    hand.links.send(hand.now_us)
    assert link.channel.sent[-1] == (None, ("PING",))
    if answers:
        link.channel.unread.append((None, "PONG"))
    hand.now_us += PONG_US_MAX + 1
    hand.links.send(hand.now_us)
    assert link.connected == answers
