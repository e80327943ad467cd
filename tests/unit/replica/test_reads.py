"""What a leader has been asked to read: bounded, in turn, and never in the way of a keep-alive."""

from __future__ import annotations

import pytest

from coordinator import wire
from coordinator.replica import reading, reads
from coordinator.replica.callers import RETRY_MS, Caller
from coordinator.replica.reads import NO_ROOM, Read, Waiting
from coordinator.replica.stamps import Stamp
from coordinator.statemachine.commands import INVALID, GetKey, KeyValue, PutKey
from coordinator.statemachine.files import ReadChanges, ReadRange
from tests.unit.replica.stage import CLUSTER, Stage
from tests.unit.replica.test_turn import command, keep_alive, opened


def with_key(stage: Stage, size: int) -> int:
    session = opened(stage)
    stage.ask("node1", command(1, session, 1, PutKey("big", bytes(size))))
    stage.settle()
    return session


def query(number: int) -> wire.QueryRequest:
    return wire.QueryRequest(number, CLUSTER, "", GetKey("big"))


def turns(stage: Stage, count: int) -> None:
    for _ in range(count):
        stage.clock.us += 1_000
        for node in stage.nodes.values():
            node.run()
            stage.carry()


def test_twenty_thousand_reads_of_a_megabyte_do_not_stand_before_a_keep_alive(stage):
    session = with_key(stage, 1_000_000)
    stage.ask("node1", *[query(100 + n) for n in range(20_000)])
    turns(stage, 3)
    channel = stage.ask("node1", keep_alive(stage, 7, session))
    turns(stage, 2)
    assert stage.replies(channel) == [wire.KeptAlive(7, session, 10_000)]


def test_another_channel_has_its_read_answered_in_its_turn(stage):
    with_key(stage, 1_000_000)
    stage.ask("node1", *[query(100 + n) for n in range(1_000)])
    turns(stage, 3)
    channel = stage.ask("node1", query(7))
    turns(stage, 3)
    (reply,) = stage.replies(channel)
    assert isinstance(reply.result, KeyValue)


LONG = "x" * 5_000_000


@pytest.mark.parametrize(
    "long",
    [
        wire.QueryRequest(7, CLUSTER, "", GetKey(LONG)),
        wire.QueryRequest(7, CLUSTER, f"{wire.FOR_TOKEN}{LONG}", GetKey("big")),
        wire.CachedQueryRequest(7, CLUSTER, 1, GetKey(LONG)),
        wire.WatchRequest(7, CLUSTER, "", ReadChanges(LONG), 60_000),
    ],
)
def test_a_read_that_is_megabytes_long_does_not_wait(stage, long):
    """A bound of what waits, by its number alone, would be none of memory: 32,768 of these have 160 GB."""
    with_key(stage, 1_000_000)
    stage.ask("node1", *[query(100 + n) for n in range(1_000)])
    turns(stage, 3)
    leader = stage.nodes["node1"]
    waiting = leader.replica.pending[1]
    channel = stage.ask("node1", query(6), long)
    leader.run()
    stage.carry()
    assert leader.replica.pending[1] <= waiting + 1
    (reply,) = stage.replies(channel)
    assert (reply.id, reply.result.code) == (7, INVALID)
    assert "at most 8192 bytes" in reply.result.message
    turns(stage, 3)
    assert [reply.id for reply in stage.replies(channel)] == [6]


def test_the_longest_names_that_there_are_may_be_read_however_large_the_packet(stage):
    session = opened(stage)
    name = "ä" * 256
    stage.ask("node1", command(1, session, 1, PutKey(name, b"v")))
    stage.settle()
    span = ReadRange(name, name + "b", after=name)
    channel = stage.ask("node1", *[wire.QueryRequest(n, CLUSTER, "user:" + "u" * 150, span) for n in range(100)])
    asked = stage.ask("node1", *[wire.QueryRequest(n, CLUSTER, "", GetKey(name)) for n in range(100)])
    stage.settle()
    assert len(stage.replies(channel)) == 100
    assert {reply.result.value for reply in stage.replies(asked)} == {b"v"}


@pytest.mark.interpreted
def test_more_reads_than_there_is_room_for_are_told_so_at_once(stage, monkeypatch):
    monkeypatch.setattr(reads, "CHANNEL_READS_MAX", 5)
    monkeypatch.setattr(reads, "READS_MAX", 8)
    leader = stage.nodes["node1"]
    first = stage.ask("node1", *[query(n) for n in range(7)])
    second = stage.ask("node1", *[query(n) for n in range(5)])
    leader.run()
    assert leader.replica.pending[1] == 8
    stage.carry()
    for channel, refused in [(first, [5, 6]), (second, [3, 4])]:
        busy = stage.replies(channel)
        assert busy == [wire.Overloaded(number, NO_ROOM, RETRY_MS) for number in refused]
    stage.settle()
    assert [len(stage.replies(channel)) for channel in (first, second)] == [5, 3]
    assert leader.replica.pending[1] == 0
    assert stage.nodes["node1"].replica.reading._waiting._counts == {}


@pytest.mark.interpreted
def test_full_of_reads_a_leader_takes_keep_alives(stage, monkeypatch):
    monkeypatch.setattr(reads, "READS_MAX", 1)
    session = opened(stage)
    channel = stage.ask("node1", query(1), query(2), keep_alive(stage, 7, session), wire.ConfirmRequest(8, CLUSTER))
    stage.settle()
    kinds = {type(reply) for reply in stage.replies(channel)}
    assert kinds == {wire.Answer, wire.Overloaded, wire.KeptAlive, wire.Confirmed}


@pytest.mark.interpreted
def test_keep_alives_too_are_bounded(stage, monkeypatch):
    monkeypatch.setattr(reads, "PROMPT_MAX", 1)
    channel = stage.ask("node1", wire.ConfirmRequest(1, CLUSTER), wire.ConfirmRequest(2, CLUSTER))
    stage.settle()
    confirmed, busy = sorted(stage.replies(channel), key=lambda reply: reply.id)
    assert busy == wire.Overloaded(2, NO_ROOM, RETRY_MS)
    assert type(confirmed) is wire.Confirmed
    channel = stage.ask("node1", wire.ConfirmRequest(3, CLUSTER))
    stage.settle()
    assert [type(reply) for reply in stage.replies(channel)] == [wire.Confirmed], "there is room again"


@pytest.mark.interpreted
def test_a_read_that_waited_too_long_is_answered_to_nobody(stage, monkeypatch):
    with_key(stage, 1_000)
    monkeypatch.setattr(reading, "READS_OF_TURN_MAX", 1)
    monkeypatch.setattr(reads, "READ_US_MAX", 100_000)
    began_us = stage.clock.us
    channel = stage.ask("node1", *[query(n) for n in range(10)])
    leader = stage.nodes["node1"]
    turns(stage, 4)
    assert 1 <= len(stage.replies(channel)) < 8
    for waited_us, answered in [(100_000, 1), (100_999, 1), (101_000, 0)]:
        stage.clock.us = began_us + waited_us
        leader.run()
        stage.carry()
        assert len(stage.replies(channel)) == answered
    assert (leader.replica.owes, leader.replica.pending[1]) == (False, 0)


def test_each_channel_in_turn():
    waiting = Waiting()
    come = [
        Read(Caller(channel, "t", b""), query(number), Stamp("web", "", "", ""), 0)
        for channel, number in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("c", 6)]
    ]
    assert all(waiting.takes(read) for read in come)
    waiting.add_ready(come)
    assert [read.request.id for read in waiting.take_ready(1)] == [1, 4, 5, 2, 6, 3]
    assert (waiting.count, waiting.has_ready) == (0, False)


def with_past(stage: Stage, keys: int) -> int:
    """So many keys, each written once; the session that wrote them, and a count of the past goes over all of them."""
    session = opened(stage)
    stage.ask("node1", *[command(n, session, n, PutKey(f"k{n}", b"")) for n in range(1, keys + 1)])
    stage.settle()
    return session


def count_of_the_past(number: int) -> wire.QueryRequest:
    return wire.QueryRequest(number, CLUSTER, "", ReadRange("", prefix=True, revision=4, count_only=True))


def answers_by_turn(stage: Stage, channel: str, count: int) -> list[list[int]]:
    """The numbers of what is answered, turn for turn of the leader."""
    told = []
    for _ in range(count):
        turns(stage, 1)
        told.append([reply.id for reply in stage.replies(channel)])
    return [numbers for numbers in told if numbers]


def test_a_turn_goes_over_so_many_rows_and_owes_the_rest(stage, monkeypatch):
    """Fifty small answers can be the work of a second, in which no heartbeat goes out."""
    with_past(stage, 30)
    work = stage.nodes["node1"].replica.machine.state.work
    before = work.rows
    stage.ask("node1", count_of_the_past(1))
    turns(stage, 4)
    each = work.rows - before
    assert each >= 30
    stage.bound(read_rows=3 * each)
    channel = stage.ask("node1", *[count_of_the_past(n) for n in range(10)])
    told = answers_by_turn(stage, channel, 8)
    assert told == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]], "in their order, with one confirmation"


def test_one_read_that_is_more_than_a_turn_may_do_is_answered(stage, monkeypatch):
    with_past(stage, 30)
    stage.bound(read_rows=0)
    channel = stage.ask("node1", *[count_of_the_past(n) for n in range(3)])
    assert answers_by_turn(stage, channel, 8) == [[0], [1], [2]]


def test_what_costs_no_rows_is_not_put_off(stage, monkeypatch):
    with_key(stage, 10)
    stage.bound(read_rows=0)
    channel = stage.ask("node1", *[query(n) for n in range(20)])
    assert answers_by_turn(stage, channel, 6) == [[*range(20)]]


def test_keep_alives_and_other_channels_do_not_wait_behind_long_reads(stage, monkeypatch):
    session = with_past(stage, 30)
    stage.bound(read_rows=0)
    many = stage.ask("node1", *[count_of_the_past(n) for n in range(50)])
    turns(stage, 3)
    channel = stage.ask("node1", query(1), query(2), keep_alive(stage, 7, session))
    turns(stage, 6)
    assert {reply.id for reply in stage.replies(channel)} == {1, 2, 7}
    assert len(stage.replies(many)) < 10
    turns(stage, 50)
    assert not stage.nodes["node1"].replica.owes


def test_reads_that_are_put_off_go_with_the_leadership(stage, monkeypatch):
    """Confirmed once is confirmed for as long as it leads, and no longer."""
    with_past(stage, 30)
    stage.bound(read_rows=0)
    channel = stage.ask("node1", *[count_of_the_past(n) for n in range(9)])
    leader = stage.nodes["node1"]
    told = answers_by_turn(stage, channel, 3)
    assert leader.replica.owes
    leader.raft.step_down(stage.clock.us)
    leader.run()
    stage.carry()
    kinds = {reply.id: type(reply) for reply in stage.replies(channel)}
    assert told
    assert sorted([*kinds, *(number for numbers in told for number in numbers)]) == [*range(9)]
    assert kinds[8] is wire.NotLeader


def test_watches_that_are_woken_are_answered_as_far_as_the_rows_go(stage, monkeypatch):
    session = with_past(stage, 1)
    look = ReadChanges("w", prefix=True)
    channel = stage.ask("node1", *[wire.WatchRequest(n, CLUSTER, "", look, 60_000) for n in range(5)])
    turns(stage, 4)
    stage.bound(read_rows=0)
    stage.ask("node1", command(9, session, 2, PutKey("w", b"")))
    assert answers_by_turn(stage, channel, 10) == [[0], [1], [2], [3], [4]]
