"""A node's connections to its Redis servers: how often they are tried where they do not last."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from coordinator.channel import BACK_OFF_US_MAX, Channel, ChannelError, Received
from coordinator.replica.links import SILENCE_US_MAX, STEADY_US, Link
from coordinator.replica.mailbox import LOOK_OWN_US, RedisBus
from tests.unit.replica.stage import CHANNELS


class Redis:
    """Takes every connection and drops it at the first word, unless the test says otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.lasts = False
        self.refuses: Exception | None = None
        self.answers: list[object] = []
        """To looks, in their order; behind them there is none."""
        self.comes = 0
        """Bytes that come in each round, of something else."""
        self._open: set[int] = set()
        monkeypatch.setattr(Channel, "connect", lambda channel, _: self._connect(channel))
        monkeypatch.setattr(Channel, "close", lambda channel: self._open.discard(id(channel)))
        monkeypatch.setattr(Channel, "connected", property(lambda channel: id(channel) in self._open))
        monkeypatch.setattr(Channel, "send", lambda channel, _: self._talk())
        monkeypatch.setattr(Channel, "receive", lambda channel: self._hear(channel, self.comes))

    def _connect(self, channel: Channel) -> None:
        self.made += 1
        if self.refuses is not None:
            raise self.refuses
        self._open.add(id(channel))

    def _hear(self, channel: Channel, size: int) -> Received:
        channel.received_bytes += size
        return self._talk()

    def _talk(self) -> Received:
        if not self.lasts:
            raise ChannelError("closed")
        return Received([], [("look", self.answers.pop(0))] if self.answers else [])


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Redis:
    return Redis(monkeypatch)


@pytest.fixture(params=["own", "other"])
def keep(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """A round of the loop: of the connection to the own Redis, or of a link to another."""
    if request.param == "own":
        bus = RedisBus("node1", "redis://here:1", CHANNELS, Random(1), greet=lambda: None, drops=Counter())

        def heard(now_us: int) -> None:
            bus.keep(now_us)
            bus._take_in()

        return heard
    link = Link("redis://there:1", "redis://there:1", Random(1), Counter(), 0)

    def kept(now_us: int) -> None:
        link.keep(now_us, 20_000)
        for thread in threading.enumerate():
            if thread.name == "conclave-link":
                thread.join()
        link.take_in()

    return kept


def rounds(keep: Callable[[int], None], from_us: int, to_us: int) -> None:
    for now_us in range(from_us, to_us, 5_000):
        keep(now_us)


@pytest.mark.interpreted
def test_a_redis_that_takes_connections_and_drops_them_is_tried_ever_more_seldom(redis, keep, caplog):
    caplog.set_level(logging.WARNING)
    rounds(keep, 1_000_000, 11_000_000)
    assert 10_000_000 // (2 * BACK_OFF_US_MAX) <= redis.made <= 50, "there were 2,000 rounds"
    assert len(caplog.records) == 1, "and people are told once"


@pytest.mark.interpreted
def test_one_that_lasts_is_good_and_the_next_loss_is_mended_soon(redis, keep, caplog):
    caplog.set_level(logging.WARNING)
    rounds(keep, 1_000_000, 6_000_000)
    redis.lasts = True
    rounds(keep, 6_000_000, 6_000_000 + STEADY_US + 2 * BACK_OFF_US_MAX)
    assert len(caplog.records) == 2, "that it was lost, and that it is back"
    before = redis.made
    redis.lasts = False
    now_us = 6_000_000 + STEADY_US + 2 * BACK_OFF_US_MAX
    rounds(keep, now_us, now_us + 100_000)
    assert redis.made > before, "the first pause is a short one"
    assert len(caplog.records) == 3


@pytest.mark.interpreted
def test_one_that_says_nothing_any_more_is_left(redis, keep):
    """As behind a firewall that has forgotten the connection: nothing is refused, and nothing comes."""
    redis.lasts = True
    rounds(keep, 1_000_000, 1_000_000 + SILENCE_US_MAX)
    assert redis.made == 1
    rounds(keep, 1_000_000 + SILENCE_US_MAX, 1_000_000 + SILENCE_US_MAX + 3 * LOOK_OWN_US)
    assert redis.made == 2


@pytest.mark.interpreted
def test_a_node_that_stood_still_leaves_no_redis_for_its_own_silence(redis, keep):
    """Behind a suspended machine or a disk that stalled, the first question has as long for its answer as any other."""
    redis.lasts = True
    redis.answers = [[CHANNELS.peer("node1").encode(), 1]] * 1_000
    rounds(keep, 1_000_000, 2_000_000)
    redis.answers = []
    woke_us = 2_000_000 + 2 * SILENCE_US_MAX
    rounds(keep, woke_us, woke_us + SILENCE_US_MAX)
    assert redis.made == 1
    rounds(keep, woke_us + SILENCE_US_MAX, woke_us + SILENCE_US_MAX + 3 * LOOK_OWN_US)
    assert redis.made == 2


@pytest.mark.interpreted
def test_a_redis_whose_answer_lies_behind_much_else_is_not_left(redis):
    """In a flood of large values, of which a turn takes in one or two, and its disk is slow."""
    redis.lasts = True
    bus = RedisBus("node1", "redis://here:1", CHANNELS, Random(1), greet=lambda: None, drops=Counter())

    def keep(now_us: int) -> None:
        bus.keep(now_us)
        bus._take_in()

    redis.comes = 900_000
    rounds(keep, 1_000_000, 1_000_000 + 3 * SILENCE_US_MAX)
    assert redis.made == 1
    redis.comes = 0
    silent_us = 1_000_000 + 3 * SILENCE_US_MAX
    rounds(keep, silent_us, silent_us + SILENCE_US_MAX + 3 * LOOK_OWN_US)
    assert redis.made == 2


@pytest.mark.interpreted
def test_an_answer_that_no_redis_gives_ends_no_node(redis, keep):
    redis.lasts = True
    redis.answers = [
        [[], 1],
        [b"a"],
        [b"a", b"1"],
        [CHANNELS.peer("node1").encode(), b"1"],
        [b"a", None],
        b"a",
        1,
        None,
    ]
    rounds(keep, 1_000_000, 2_000_000)
    assert (redis.made, redis.answers) == (1, [])


@pytest.mark.interpreted
def test_whatever_keeps_it_from_connecting_is_a_try_that_failed(redis, keep):
    """As `socket.create_connection` says of a host called `a..b`."""
    redis.refuses = UnicodeError("label empty or too long")
    rounds(keep, 1_000_000, 11_000_000)
    assert 10 <= redis.made <= 50
    redis.refuses, redis.lasts = None, True
    before = redis.made
    rounds(keep, 11_000_000, 13_000_000)
    assert redis.made == before + 1


@pytest.mark.interpreted
def test_what_keeps_it_from_coming_back_is_told_where_it_is_not_what_lost_it(redis, keep, caplog):
    """A Redis that came back with another password, or full, was called closed for as long as that lasted."""
    redis.lasts = True
    rounds(keep, 1_000_000, 1_000_000 + STEADY_US)
    redis.lasts = False
    rounds(keep, 5_000_000, 6_000_000)
    redis.refuses = ChannelError("WRONGPASS invalid username-password pair")
    rounds(keep, 6_000_000, 16_000_000)
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [line.rpartition(": ")[2] for line in said] == ["closed", "WRONGPASS invalid username-password pair"]
    redis.lasts, redis.refuses = True, None
    rounds(keep, 16_000_000, 16_000_000 + STEADY_US + 2 * BACK_OFF_US_MAX)
    assert "again" in caplog.messages[-1]
    assert len(caplog.messages) == 3
