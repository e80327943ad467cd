"""Back-pressure at the client: who is told 'busy, retry after' at once, and who is never given up for want of room."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from random import Random

import pytest

from coordinator import wire
from coordinator.client import AsyncClient, Client, flows, links, lock_flows, outstanding, room
from coordinator.client.calls import RESEND_US_MAX, Call
from coordinator.client.core import Core
from coordinator.client.errors import Busy, OutcomeUnknown, Unavailable
from coordinator.client.room import Room, ends_something
from coordinator.client.session import Session
from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import (
    AcquireLock,
    CancelAcquire,
    CloseSession,
    Done,
    GetKey,
    PutKey,
    Queued,
    ReleaseLock,
)
from coordinator.statemachine.lock_commands import EXCLUSIVE, SHARED, ChangeMode, Release
from tests.unit.client.test_core import Stage, op_of
from tests.unit.client.test_sync import TOKEN, FakeChannel

NO_ROOM = "the leader has as much before it as it takes"


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.know()
    return stage


def overloaded(stage: Stage, request: wire.Request) -> None:
    stage.reply("node1", wire.Overloaded(request.id, NO_ROOM, 400))


def soon(stage: Stage) -> int:
    return stage.now_us + 2_000_000


# --- what the leader has no room for --------------------------------------------------------------


def test_of_the_only_copy_that_was_ever_sent_the_caller_is_told_at_once(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, soon(stage))
    overloaded(stage, stage.requests()[-1][1])
    with pytest.raises(Busy, match=NO_ROOM) as caught:
        call.result()
    assert caught.value.retry_after is not None
    assert 0.4 <= caught.value.retry_after <= 0.8
    assert session.acked == call.number + 1, "the cluster need remember nothing of it"
    stage.pass_time(RESEND_US_MAX)
    assert not [r for _, r in stage.requests() if isinstance(r, wire.CommandRequest)]
    assert stage.core.calls_pending == stage.core.room.calls == stage.core.room.bytes == 0


def test_who_was_refused_together_does_not_come_back_together():
    bound = Room(Random(1))
    assert len({bound.busy("no").retry_after for _ in range(10)}) == 10


def test_where_an_earlier_copy_was_sent_nobody_is_told_anything_until_the_deadline(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, stage.now_us + 300_000)
    request = stage.requests()[-1][1]
    stage.pass_time(250_000)
    assert request.id in [r.id for _, r in stage.requests()]
    overloaded(stage, request)
    assert not call.done, "the first copy may have been applied"
    stage.pass_time(100_000)
    stage.requests()
    with pytest.raises(OutcomeUnknown):
        call.result()


def test_and_an_answer_of_the_earlier_copy_still_counts(stage):
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, soon(stage))
    request = stage.requests()[-1][1]
    stage.pass_time(250_000)
    stage.requests()
    overloaded(stage, request)
    stage.reply("node1", wire.Answer(request.id, Done(9)))
    assert call.result() == Done(9)


def test_a_copy_that_was_turned_away_by_a_follower_is_an_earlier_copy_too(stage):
    """It may have been the leader when it took it."""
    session = stage.session()
    call = stage.core.command(session, PutKey("a", b"1"), stage.now_us, soon(stage))
    request = stage.requests()[-1][1]
    stage.reply("node1", wire.NotLeader(request.id, "node2"))
    stage.pass_time(20_000)
    assert ("node2", request.id) in [(node, r.id) for node, r in stage.requests()]
    stage.reply("node2", wire.Overloaded(request.id, NO_ROOM, 400))
    assert not call.done


def test_reads_too_are_told_at_once(stage):
    call = stage.core.query(GetKey("a"), stage.now_us, soon(stage))
    overloaded(stage, stage.requests()[-1][1])
    with pytest.raises(Busy):
        call.result()


@pytest.mark.parametrize(
    "op",
    [
        ReleaseLock("a", 1),
        Release(("a", "b"), 1),
        CancelAcquire("a", 1, 1),
        CloseSession(),
        ChangeMode("a", 1, SHARED),
        files.DetachFile("a"),
    ],
)
def test_what_ends_something_is_asked_again(stage, op):
    session = stage.session()
    call = stage.core.command(session, op, stage.now_us, soon(stage))
    request = stage.requests()[-1][1]
    overloaded(stage, request)
    assert not call.done
    stage.pass_time(RESEND_US_MAX)
    assert request.id in [r.id for _, r in stage.requests()]


def test_what_begins_something_ends_nothing():
    assert not ends_something(ChangeMode("a", 1, EXCLUSIVE))
    assert not ends_something(AcquireLock("a", 1, wait=True))
    assert not ends_something(PutKey("a", b""))


def test_what_goes_on_in_the_background_is_asked_again(stage):
    session = stage.session()
    call = stage.core.in_background(session, PutKey("a", b""), stage.now_us)
    request = stage.requests()[-1][1]
    overloaded(stage, request)
    stage.pass_time(RESEND_US_MAX)
    assert request.id in [r.id for _, r in stage.requests()]
    assert not call.done


def test_the_opening_of_a_session_is_asked_again(stage):
    call = stage.core.session(9_000, stage.now_us, soon(stage))
    request = stage.requests()[-1][1]
    overloaded(stage, request)
    assert not call.done
    stage.pass_time(RESEND_US_MAX)
    assert request.id in [r.id for _, r in stage.requests()]


def test_keep_alives_go_on(stage):
    session = stage.session()
    stage.pass_time(3_500_000)
    kept = [r for _, r in stage.requests() if isinstance(r, wire.KeepAliveRequest)]
    overloaded(stage, kept[0])
    call = stage.core.keep_alive(78, stage.now_us, soon(stage))
    ours = next(r for _, r in stage.requests() if isinstance(r, wire.KeepAliveRequest) and r.session == 78)
    overloaded(stage, ours)
    assert not call.done
    stage.pass_time(300_000)
    again = [r.session for _, r in stage.requests() if isinstance(r, wire.KeepAliveRequest)]
    assert sorted(again) == [session.session, 78]


def test_who_waits_for_a_grant_waits_on_though_its_question_finds_no_room(stage):
    session = stage.session()
    call = stage.core.grant(session.session, "a", 1, stage.now_us, soon(stage), ask=True)
    request = stage.requests()[-1][1]
    assert isinstance(request, wire.QueryRequest)
    overloaded(stage, request)
    stage.pass_time(RESEND_US_MAX)
    assert request.id in [r.id for _, r in stage.requests()]
    assert not call.done


@pytest.mark.parametrize(("patience_us", "is_told"), [(0, True), (1_000_000, False)])
def test_what_may_wait_at_the_leader_waits_for_room_there_too(stage, patience_us, is_told):
    def build(request_id: int) -> wire.Request:
        return wire.WatchRequest(request_id, stage.core.routing.cluster, "", files.ReadChanges("a", since=1), 0)

    call = stage.core.wait_at_leader(build, patience_us, stage.now_us, soon(stage))
    overloaded(stage, stage.requests()[-1][1])
    assert call.done is is_told


def test_an_acquisition_that_is_refused_so_leaves_nothing_behind(stage):
    session = stage.session()
    flow = flows.acquire(stage.core, lambda: stage.now_us, "a", 9_000, None, 2_000_000)
    asked: Call = flow.send(None)
    overloaded(stage, stage.requests()[-1][1])
    with pytest.raises(Busy):
        flow.throw(asked.outcome)
    assert stage.requests() == [], "not even a cancel"
    assert stage.core.calls_pending == 0
    assert session.acked == asked.number + 1


def test_an_upgrade_that_is_refused_so_was_not_done(stage):
    session = stage.session()
    grant = flows.Grant(session, "a", 1, 7)
    flow = lock_flows.upgrade(stage.core, lambda: stage.now_us, grant, None, 2_000_000, lambda token, mode: None)
    asked: Call = flow.send(None)
    overloaded(stage, stage.requests()[-1][1])
    with pytest.raises(Busy) as caught:
        flow.throw(asked.outcome)
    assert lock_flows.was_not_done(caught.value)
    assert stage.requests() == []


def test_a_campaign_that_is_refused_where_it_proclaims_gives_way(cluster, client):
    from coordinator.client.recipes.election import Election

    def is_of_the_value(request: wire.Request) -> bool:
        return isinstance(request, wire.CommandRequest) and isinstance(op_of(request).op, commands.Transact)

    cluster.refuses = is_of_the_value
    with pytest.raises(Busy):
        Election(client, "boss").campaign(b"me")
    cluster.refuses = lambda request: False
    cluster.pass_time(2)
    assert client.query(commands.GetLock("boss")).holder is None
    with Election(client, "boss").campaign(b"me", wait=0):
        pass


def test_a_word_for_nobody_is_nothing(stage):
    stage.reply("node1", wire.Overloaded(99, NO_ROOM, 400))
    assert stage.core.calls_pending == 0


# --- what the client itself has no room for -------------------------------------------------------


def filled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A client with one call that is not over, where there may be one."""
    session = stage.session()
    monkeypatch.setattr(room, "CALLS_MAX", 1)
    stage.core.query(GetKey("first"), stage.now_us, soon(stage))
    stage.requests()
    return session


@pytest.mark.interpreted
def test_more_calls_than_there_may_be_are_refused_at_once_and_nothing_is_sent(stage, monkeypatch):
    session = filled(stage, monkeypatch)
    acked = session.acked
    for ask in (
        lambda: stage.core.command(session, PutKey("a", b""), stage.now_us, soon(stage)),
        lambda: stage.core.query(GetKey("a"), stage.now_us, soon(stage)),
        lambda: stage.core.cached_query(session, GetKey("a"), stage.now_us, soon(stage)),
        lambda: stage.core.confirm(stage.now_us, soon(stage)),
        lambda: stage.core.directory(stage.now_us, soon(stage)),
        lambda: stage.core.session(7_000, stage.now_us, soon(stage)),
        lambda: next(flows.wait_for_grant(stage.core, lambda: stage.now_us, "a", 5, 1, soon(stage), "")),
        lambda: next(flows.acquire(stage.core, lambda: stage.now_us, "a", 9_000, None, 1_000_000)),
    ):
        with pytest.raises(Busy, match="this client has its 1 questions") as caught:
            ask()
        assert caught.value.retry_after is not None
        assert 0.25 <= caught.value.retry_after <= 0.5
    assert stage.requests() == []
    assert stage.core.calls_pending == stage.core.room.calls == 1
    assert session.acked > acked, "numbers that were never sent hold up nothing"


def test_there_is_room_again_when_one_is_answered(stage, monkeypatch):
    filled(stage, monkeypatch)
    stage.core.fail_all(OutcomeUnknown("over"))
    assert stage.core.room.calls == stage.core.room.bytes == 0
    call = stage.core.query(GetKey("a"), stage.now_us, soon(stage))
    stage.core.abandon(call)
    stage.core.abandon(call)
    assert stage.core.room.calls == stage.core.room.bytes == 0


def test_what_ends_something_and_what_runs_in_the_background_always_has_room(stage, monkeypatch):
    session = filled(stage, monkeypatch)
    stage.core.command(session, ReleaseLock("a", 1), stage.now_us, soon(stage))
    stage.core.withdraw(session, "a", 1, 1, stage.now_us)
    stage.core.in_background(session, PutKey("a", b""), stage.now_us)
    stage.core.keep_alive(78, stage.now_us, soon(stage))
    stage.core.grant(session.session, "a", 1, stage.now_us, soon(stage), ask=True)
    next(flows.command(stage.core, lambda: stage.now_us, CloseSession(5), 9_000, soon(stage), ""))
    assert len(stage.requests()) == 6
    assert stage.core.room.calls == 7, "what the wait for the grant asks does not count beside it"


@pytest.mark.interpreted
def test_waits_count(stage, monkeypatch):
    session = stage.session()
    monkeypatch.setattr(room, "CALLS_MAX", 1)
    stage.core.grant(session.session, "a", 1, stage.now_us, None)
    with pytest.raises(Busy):
        stage.core.query(GetKey("a"), stage.now_us, soon(stage))


@pytest.mark.interpreted
def test_a_waiter_whose_acquisition_came_through_waits_however_full_it_is_by_then(stage, monkeypatch):
    stage.session()
    flow = flows.acquire(stage.core, lambda: stage.now_us, "a", 9_000, 0, 2_000_000)
    asked: Call = flow.send(None)
    (request,) = [r for _, r in stage.requests() if isinstance(r, wire.CommandRequest)]
    monkeypatch.setattr(room, "CALLS_MAX", 0)
    stage.reply("node1", wire.Answer(request.id, Queued(1)))
    waits: Call = flow.send(asked.outcome)
    assert not waits.done
    with pytest.raises(Busy):
        stage.core.room.check()


@pytest.mark.interpreted
def test_bytes_of_requests_are_bounded_and_one_alone_always_goes(stage, monkeypatch):
    session = stage.session()
    monkeypatch.setattr(room, "CALL_BYTES_MAX", 1_000)
    big = stage.core.command(session, PutKey("a", bytes(5_000)), stage.now_us, soon(stage))
    request = stage.requests()[-1][1]
    with pytest.raises(Busy, match="this client has its 1000 bytes of requests"):
        stage.core.command(session, PutKey("b", b""), stage.now_us, soon(stage))
    stage.reply("node1", wire.Answer(request.id, Done(9)))
    assert big.done
    stage.core.command(session, PutKey("b", bytes(500)), stage.now_us, soon(stage))
    with pytest.raises(Busy):
        stage.core.command(session, PutKey("c", bytes(500)), stage.now_us, soon(stage))


# --- in both clients ------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        yield client


@pytest.mark.interpreted
def test_a_client_for_threads_raises_it_and_goes_on(threads, monkeypatch):
    with monkeypatch.context() as bound:
        bound.setattr(room, "CALLS_MAX", 0)
        for ask in (lambda: threads.put("a", b""), lambda: threads.get("a"), lambda: threads.acquire("a")):
            with pytest.raises(Busy):
                ask()
    assert threads.put("a", b"") > 0


@pytest.mark.interpreted
def test_one_for_asyncio_refuses_the_task_that_is_one_too_many(monkeypatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    monkeypatch.setattr(room, "CALLS_MAX", 100)

    async def work() -> list[object]:
        async with AsyncClient("redis://nowhere", str(TOKEN), timeout=5) as client:
            await client.put("first", b"")
            asked = [client.put(f"k{number}", b"") for number in range(150)]
            return await asyncio.gather(*asked, return_exceptions=True)

    done = asyncio.run(work())
    assert [type(one) for one in done] == [int] * 100 + [Busy] * 50


def test_the_bounds_are_those_of_the_page():
    assert (room.CALLS_MAX, room.CALL_BYTES_MAX) == (10_000, 64 * 1024 * 1024)
    core = Core(TOKEN, "default", Random(1))
    calls = [core.query(GetKey("a"), 0, 1_000_000) for _ in range(10_000)]
    with pytest.raises(Busy):
        core.query(GetKey("a"), 0, 1_000_000)
    core.give_up(1_000_000)
    assert all(call.done for call in calls)
    core.query(GetKey("a"), 1_000_000, 2_000_000)


# --- what is sent at once -------------------------------------------------------------------------


def commands_of(stage: Stage) -> list[wire.CommandRequest]:
    return [request for _, request in stage.requests() if isinstance(request, wire.CommandRequest)]


@pytest.mark.interpreted
@pytest.mark.parametrize(("window", "bound"), [("WINDOW_BYTES", 2_500), ("WINDOW_CALLS", 2)])
def test_what_is_beyond_the_window_is_sent_when_others_are_answered(stage, monkeypatch, window, bound):
    session = stage.session()
    monkeypatch.setattr(outstanding, window, bound)
    calls = [
        stage.core.command(session, PutKey("a", bytes(1_000)), stage.now_us, stage.now_us + 1_000_000) for _ in range(5)
    ]
    release = stage.core.command(session, ReleaseLock("a", 1), stage.now_us, soon(stage))
    first = commands_of(stage)
    assert [request.id for request in first] == [calls[0].request_id, calls[1].request_id, release.request_id]
    assert stage.core.due_us(stage.now_us) > stage.now_us, "nothing is due until then"
    stage.reply("node1", wire.Answer(first[0].id, Done(9)))
    assert stage.core.due_us(stage.now_us) <= stage.now_us
    assert [request.id for request in commands_of(stage)] == [calls[2].request_id]
    stage.pass_time(300_000)
    again = {request.id for request in commands_of(stage)}
    assert again == {calls[1].request_id, calls[2].request_id, release.request_id}, "only what was sent is sent again"
    stage.pass_time(700_000)
    stage.requests()
    assert [type(call.outcome) for call in calls[1:]] == [OutcomeUnknown, OutcomeUnknown, Unavailable, Unavailable]
    stage.reply("node1", wire.Answer(release.request_id, Done(9)))
    assert (stage.core._outstanding._in_flight, stage.core._outstanding._in_flight_bytes) == (0, 0)


@pytest.mark.interpreted
def test_one_that_is_larger_than_the_window_goes_alone(stage, monkeypatch):
    session = stage.session()
    monkeypatch.setattr(outstanding, "WINDOW_BYTES", 100)
    for _ in range(2):
        stage.core.command(session, PutKey("a", bytes(1_000)), stage.now_us, soon(stage))
    assert len(commands_of(stage)) == 1


@pytest.mark.interpreted
def test_no_packet_is_larger_than_a_node_takes(stage, monkeypatch):
    """256 requests of 60 kB were one packet of 15 MB, which each node dropped."""
    session = stage.session()
    monkeypatch.setattr(outstanding, "WINDOW_BYTES", 64 * 1024 * 1024)
    calls = [stage.core.command(session, PutKey("a", bytes(60_000)), stage.now_us, soon(stage)) for _ in range(300)]
    stage.sent.clear()
    assert len(commands_of(stage)) == len(calls)
    assert all(len(packet.data) < 3 * 1024 * 1024 < wire.PACKET_BYTES_MAX for packet in stage.sent)
    assert len(stage.sent) < 12
    small = [stage.core.query(GetKey("a"), stage.now_us, soon(stage)) for _ in range(300)]
    stage.sent.clear()
    assert len([r for _, r in stage.requests() if isinstance(r, wire.QueryRequest)]) == len(small)
    assert len(stage.sent) == 2


def test_while_the_connection_takes_nothing_nothing_is_handed_to_it(monkeypatch):
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    core = Core(TOKEN, "default", Random(1))
    made = links.Links(core, "redis://nowhere", Random(1))
    (link,) = made.to_connect(0)
    made.connected(link, made.connect(link), 0)
    core.query(GetKey("a"), 0, 1_000_000)
    monkeypatch.setattr(link.channel, "wants_write", True, raising=False)
    made.send(0)  # It does not take all of it.
    sent = len(link.channel.packets)
    call = core.query(GetKey("a"), 0, 1_000_000)
    made.send(0)
    assert len(link.channel.packets) == sent
    assert made.due_us(20_000) == 20_000 + links.FULL_US, "it is no tight circle"
    made.send(1_000_000)
    assert call.done, "though the time goes on"
    core.query(GetKey("a"), 1_000_000, 2_000_000)
    monkeypatch.setattr(link.channel, "wants_write", False, raising=False)
    assert made.due_us(1_000_000) <= 1_000_000


def test_a_connection_that_broke_while_it_was_full_is_let_go_of(monkeypatch):
    """The system knows its descriptor no more: a defect, of which everything that was asked failed."""

    async def work() -> None:
        client = AsyncClient("redis://nowhere", str(TOKEN), timeout=5)
        pump = client._started()
        one, other = socket.socketpair()
        link = next(iter(pump._links.links.values()))
        link.channel._socket = one
        link.channel._unsent += b"x"
        pump._watch(link)
        link.channel.close()
        pump._watch(link)
        assert not pump._watched
        other.close()
        await client.aclose()

    asyncio.run(work())
