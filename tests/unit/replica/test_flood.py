"""What a node takes in and holds is bounded, whatever it is sent; what is dropped is counted, and peers are heard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from coordinator import wire
from coordinator.channel import Channel, Message, Received
from coordinator.replica import mailbox, turn
from coordinator.replica import replica as replica_module
from coordinator.replica.callers import RETRY_MS
from coordinator.replica.mailbox import RedisBus
from coordinator.replica.ports import Inbound
from coordinator.replica.replica import NO_INDEX_LEFT, NO_ROOM_TO_APPLY
from coordinator.statemachine.commands import AcquireLock, Done, PutKey
from tests.unit.replica.stage import CHANNELS
from tests.unit.replica.test_turn import command, keep_alive, opened

PEER = CHANNELS.peer("node1").encode()
CLIENT = CHANNELS.client("node1").encode()


class Flood:
    """A bus, to which a test says what came. Something always has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came: list[Message] = []
        self.drops: Counter[str] = Counter()
        self.reader, self._writer = os.pipe()
        os.write(self._writer, b"x")
        self.wake, self._waker = os.pipe()
        monkeypatch.setattr(Channel, "connected", property(lambda channel: True))
        monkeypatch.setattr(Channel, "fileno", lambda channel: self.reader)
        monkeypatch.setattr(Channel, "receive", lambda channel: self._receive())
        self.bus = RedisBus("node1", "redis://here:1", CHANNELS, Random(1), greet=lambda: None, drops=self.drops)

    def _receive(self) -> Received:
        came, self.came = self.came, []
        return Received(came, [])

    def waits(self, *came: Message, is_settled: bool = False) -> bool:
        self.came += came
        return self.bus.wait(self.wake, 1_000_000, is_settled=is_settled)

    def close(self) -> None:
        for descriptor in (self.reader, self._writer, self.wake, self._waker):
            os.close(descriptor)


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flood]:
    flood = Flood(monkeypatch)
    yield flood
    flood.close()


@pytest.mark.interpreted
def test_what_clients_send_beyond_the_bound_is_dropped_and_counted_and_peers_are_heard(flood, monkeypatch):
    monkeypatch.setattr(mailbox, "INBOX_BYTES_MAX", {False: 100, True: 50})
    assert flood.waits(*[Message(CLIENT, b"c" * 30)] * 5, Message(PEER, b"p" * 30))
    assert flood.waits(Message(CLIENT, b"c" * 30), Message(CLIENT, b"c" * 10), Message(PEER, b"p" * 20))
    assert flood.drops == {"client-flood": 3}
    inbox = flood.bus.drain()
    assert sum(not one.from_peers for one in inbox) == 4
    assert Inbound(from_peers=True, data=b"p" * 20) in inbox
    assert flood.waits(Message(CLIENT, b"c" * 100)), "there is room again"
    assert len(flood.bus.drain()) == 1
    assert flood.drops["client-flood"] == 3


@pytest.mark.interpreted
def test_peers_have_a_bound_too(flood, monkeypatch):
    monkeypatch.setattr(mailbox, "INBOX_BYTES_MAX", {False: 100, True: 50})
    flood.waits(*[Message(PEER, b"p" * 30)] * 3, Message(CLIENT, b"c"))
    assert flood.drops == {"peer-flood": 2}
    assert len(flood.bus.drain()) == 2


@pytest.mark.interpreted
def test_peers_that_never_pause_do_not_put_off_the_turn_for_ever(flood, monkeypatch):
    """Nobody waits for what they say, but it is held until the turn."""
    monkeypatch.setattr(mailbox, "TURN_BYTES", 100)
    waited = [flood.waits(Message(PEER, b"p" * 30), is_settled=True) for _ in range(4)]
    assert waited == [False, False, False, True]


# --- in a turn ------------------------------------------------------------------------------------


@pytest.mark.interpreted
def test_who_asks_for_more_than_a_turn_may_answer_is_not_heard_and_others_are_in_the_next(stage, monkeypatch):
    monkeypatch.setattr(turn, "ANSWERS_BYTES_MAX", 1_000)
    leader = stage.nodes["node1"]
    first = stage.ask("node1", *[wire.DirectoryRequest(number) for number in range(1_000)])
    second = stage.ask("node1", *[wire.DirectoryRequest(number) for number in range(10)])
    leader.run()
    stage.carry()
    answered = len(stage.replies(first))
    assert 5 < answered < 20
    assert stage.replies(second) == []
    assert leader.drops["client-flood"] == 1_010 - answered
    third = stage.ask("node1", wire.DirectoryRequest(1))
    leader.run()
    stage.carry()
    assert len(stage.replies(third)) == 1


@pytest.mark.interpreted
def test_where_indices_end_clients_are_refused_and_nodes_let_in_whoever_waits_for_one_that_died(stage, monkeypatch):
    owner, waiter = opened(stage, ttl_ms=2_000), opened(stage)
    for session in (owner, waiter):
        stage.ask("node1", command(1, session, 1, AcquireLock("l", 1, wait=True)))
        stage.settle()
    leader = stage.nodes["node1"]
    last = leader.raft.last_index
    monkeypatch.setattr(replica_module, "CLIENTS_INDEX_MAX", last + 1)
    asked = stage.ask("node1", command(2, waiter, 2, PutKey("k", b"v")), command(3, waiter, 3, PutKey("k", b"w")))
    stage.settle()
    assert stage.replies(asked) == [wire.Overloaded(number, NO_INDEX_LEFT, RETRY_MS) for number in (2, 3)]
    fits = stage.ask("node1", command(4, waiter, 4, PutKey("k", b"v")))
    stage.settle()
    assert stage.replies(fits)[0].result == Done(last + 1, existed=False)
    for number in range(5, 25):
        stage.ask("node1", keep_alive(stage, number, waiter))
        stage.pass_time(200_000)
    machine = leader.replica.machine
    assert [*machine.sessions] == [waiter]
    assert [key[0] for key in machine.locks["l"].holders] == [waiter]


@pytest.mark.interpreted
def test_entries_that_are_committed_faster_than_they_are_applied_are_bounded(stage, monkeypatch):
    stage.bound(apply_bytes=1)
    monkeypatch.setattr(replica_module, "UNAPPLIED_BYTES_MAX", 20_000)
    session = opened(stage)
    leader = stage.nodes["node1"]
    channel = stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", bytes(1_000))) for n in range(1, 11)])
    leader.run()
    stage.carry()
    stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", bytes(1_000))) for n in range(11, 16)], reply=channel)
    stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", bytes(1_000))) for n in range(16, 26)], reply=channel)
    leader.run()
    stage.carry()
    refused = stage.replies(channel)
    assert refused == [wire.Overloaded(n, NO_ROOM_TO_APPLY, RETRY_MS) for n in range(11, 26)]
    for _ in range(12):
        stage.settle()
    assert leader.replica._unapplied_bytes == 0
    assert [type(reply.result) for reply in stage.replies(channel)] == [Done] * 10
    stage.ask("node1", command(30, session, 30, PutKey("a", bytes(30_000))), reply=channel)
    stage.settle()
    assert len(stage.replies(channel)) == 1, "one alone always goes"


def test_a_fallen_leader_counts_from_nothing(stage, monkeypatch):
    session = opened(stage)
    leader = stage.nodes["node1"]
    stage.cut = {"node1"}
    stage.ask("node1", command(1, session, 1, PutKey("a", bytes(1_000))))
    leader.run()
    assert leader.replica._unapplied_bytes > 1_000
    stage.elect("node2")
    stage.cut = set()
    stage.pass_time(1_000_000)
    assert leader.replica._unapplied_bytes == 0
    assert not leader.replica._unapplied
