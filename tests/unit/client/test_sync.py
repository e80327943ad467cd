"""The client for threads over a channel that answers by itself: what is batched, who is woken, what an interrupted
caller leaves behind."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator import wire
from coordinator.channel import Message, Received
from coordinator.client import flows, links
from coordinator.client.errors import Closed, LockNotAcquired, OutcomeUnknown, Unavailable
from coordinator.client.jobs import Job
from coordinator.client.sync import Client
from coordinator.statemachine import commands
from coordinator.statemachine.commands import (
    AcquireLock,
    CancelAcquire,
    CloseSession,
    Done,
    Granted,
    OpenSession,
    PutKey,
    Queued,
    ReleaseLock,
    SessionOpened,
)
from coordinator.statemachine.files import Created, CreateFile
from coordinator.statemachine.lock_commands import Acquire, ChangeMode
from coordinator.wire import Token
from tests.integration.waiting import eventually

TOKEN = Token.new("0123abcd")
CLUSTER = 42
KEY = commands.KeyValue(b"value", 1, 1)


class FakeChannel:
    """Redis, and a leader behind it that answers at once; what it leaves open, the test answers."""

    made: FakeChannel

    def __init__(self, url: str) -> None:
        FakeChannel.made = self
        self.connected = False
        self.wants_write = False
        self.packets: list[list[wire.Request]] = []
        self.ops: list[commands.Op] = []
        self.open: list[wire.Request] = []
        self.holds_back: Callable[[commands.Op], bool] = lambda op: False
        self.breaks = False
        self._ours, self._theirs = socket.socketpair()
        self._inbox: list[bytes] = []
        self._reply = ""
        self._index = 100

    def connect(self, channels: list[str]) -> None:
        self.connected, self._reply = True, channels[0]

    def close(self) -> None:
        self.connected = False

    def fileno(self) -> int:
        return self._ours.fileno()

    def send(self, sent: list[tuple[Any, tuple[Any, ...]]]) -> None:
        self.publish([command[1:] for _, command in sent if command[0] == "PUBLISH"])

    def publish(self, sent: list[tuple[str, bytes]]) -> None:
        if self.breaks:
            self.breaks = False
            raise RuntimeError("planted")
        for _, data in sent:
            requests = wire.decode_requests(wire.open_envelope(data, wire.REQUEST).body).requests
            self.packets.append(requests)
            replies = [reply for request in requests if (reply := self._answer(request)) is not None]
            if replies:
                self.reply(*replies)

    def reply(self, *replies: wire.Reply) -> None:
        self._inbox.append(wire.seal(TOKEN.key, wire.REPLY, "node1", self._reply, list(replies)))
        self._theirs.send(b"x")

    def receive(self) -> Received:
        self._ours.recv(4_096)
        inbox, self._inbox = self._inbox, []
        return Received([Message(b"", data) for data in inbox], [])

    def _answer(self, request: wire.Request) -> wire.Reply | None:
        if isinstance(request, wire.DirectoryRequest):
            entry = wire.ClusterEntry("default", CLUSTER, "node1", 5, ("node1",))
            return wire.Directory(request.id, "node1", (("node1", ""),), (entry,))
        if isinstance(request, wire.QueryRequest):
            free = commands.LockView("deploy", None, 0, (), 0, 0, 0)
            return wire.Answer(request.id, free if isinstance(request.query, commands.GetLock) else KEY)
        if isinstance(request, wire.KeepAliveRequest):
            return wire.KeptAlive(request.id, request.session, 15_000)
        assert isinstance(request, wire.CommandRequest)
        op = wire.decode_command(request.command).op
        self.ops.append(op)
        if self.holds_back(op):
            self.open.append(request)
            return None
        self._index += 1
        if isinstance(op, OpenSession):
            return wire.Answer(request.id, SessionOpened(77, op.ttl_ms))
        if isinstance(op, CreateFile):
            return wire.Answer(request.id, Created(op.path, self._index))
        return wire.Answer(
            request.id,
            Granted(self._index) if isinstance(op, (AcquireLock, Acquire, ChangeMode)) else Done(self._index, True),
        )


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        client.put("first", b"")
        yield client


def until(holds: Callable[[], object]) -> None:
    eventually(holds, timeout_s=5, what="it holds", look_every_s=0.002)


def in_the_middle(channel: FakeChannel, finaliser: Callable[[], Any]) -> None:
    """Run it once in the middle of the client's work, when it next publishes: the collector comes by anywhere."""
    publish = channel.publish

    def published(sent: list[tuple[str, bytes]]) -> None:
        channel.publish = publish  # type: ignore[method-assign]
        finaliser()
        publish(sent)

    channel.publish = published  # type: ignore[method-assign]


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """What Ctrl-C does to the main thread, and a soft time limit of Celery."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_lease_has_a_sequencer(client):
    with client.lock("deploy") as lease:
        assert lease.sequencer() == f"deploy:exclusive:{lease.token}"


def test_threads_that_are_none_of_the_system_are_refused(monkeypatch: pytest.MonkeyPatch):
    """As gevent and eventlet make them: who holds the baton could not be found among them."""
    monkeypatch.setattr(links, "new_channel", FakeChannel)
    with Client("redis://nowhere", str(TOKEN), timeout=5) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "get_ident", lambda: -1)
            with pytest.raises(RuntimeError, match="gevent, eventlet"):
                client.put("a", b"")
        assert client.put("a", b"") > 0


def test_threads_get_each_its_own_answer(client):
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        results[number] = [client.put(f"key-{number}", b"x") for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    indices = [index for of_one in results.values() for index in of_one]
    assert len(set(indices)) == len(indices) == 320
    assert all(of_one == sorted(of_one) for of_one in results.values())
    puts = [op for op in FakeChannel.made.ops if isinstance(op, PutKey)]
    assert len(puts) == 321, "each is sent once"


def test_what_waits_while_an_answer_is_out_leaves_in_one_packet(client):
    channel = FakeChannel.made
    loop = client._loop
    assert loop is not None
    asked = threading.Barrier(9)

    def work(number: int) -> None:
        asked.wait(5)
        client.put(f"key-{number}", b"x")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    gate = threading.Event()
    in_the_middle(channel, lambda: gate.wait(5))
    client_turns = threading.Thread(target=client.get, args=("a",))  # Brings the loop to the gate.
    client_turns.start()
    until(lambda: loop._baton)
    before = len(channel.packets)
    asked.wait(5)
    until(lambda: len(loop.work.posted) >= 8)
    gate.set()
    for thread in [*threads, client_turns]:
        thread.join(5)
    sizes = [len(packet) for packet in channel.packets[before:]]
    assert max(sizes) >= 8, sizes


def test_an_interrupted_waiter_leaves_the_queue(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, AcquireLock)

    def queue() -> None:
        until(lambda: channel.open)
        channel.reply(wire.Answer(channel.open[0].id, Queued(1)))

    thread = threading.Thread(target=queue)
    thread.start()
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.3):
        client.acquire("deploy")
    thread.join(5)
    until(lambda: any(isinstance(op, CancelAcquire) for op in channel.ops))
    assert client.put("a", b"") > 0, "the client goes on"


def test_a_grant_that_its_caller_never_took_goes_back(client):
    """The caller was interrupted after the grant had come, and before it had it in its hand (history 9)."""
    taken = []
    wait = Job.wait

    def interrupted(job: Job, bell: int) -> None:
        wait(job, bell)
        taken.append(job.value)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.acquire("deploy")
    (grant,) = taken
    until(lambda: ReleaseLock("deploy", grant.acquisition) in FakeChannel.made.ops)


def put_without_answer(client: Client) -> Callable[[], Exception]:
    """A put of another thread, sent when this returns, that is not answered. Gives what it raises in the end."""
    channel, raised = FakeChannel.made, []
    channel.holds_back = lambda op: op == PutKey("sent", b"")

    def work() -> None:
        with pytest.raises(Unavailable) as caught:
            client.put("sent", b"")
        raised.append(caught.value)

    def ended() -> Exception:
        thread.join(5)
        (error,) = raised
        return error

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: channel.open)
    return ended


def test_who_waits_when_the_client_is_closed_is_told_so(client):
    ended = put_without_answer(client)
    client.close()
    error = ended()
    assert str(error) == "the client was closed before an answer came: it may have been applied"
    assert isinstance(error, Closed)
    assert isinstance(error, OutcomeUnknown), "whoever asks again by another client must know"
    assert any(isinstance(op, CloseSession) for op in FakeChannel.made.ops)
    with pytest.raises(Unavailable, match="closed"):
        client.get("a")


def test_a_job_that_comes_after_the_end_is_refused(client):
    loop = client._loop
    assert loop is not None
    client.close()
    job = Job(loop, flows.directory(loop.core, client.clock, 0), None)
    with pytest.raises(Unavailable, match="closed"):
        loop.ask(job)


def test_a_defect_fails_what_is_asked_and_the_client_goes_on(client, caplog):
    FakeChannel.made.breaks = True
    with pytest.raises(Unavailable, match="a defect in the client"):
        client.put("a", b"")
    assert client.put("a", b"") > 0
    assert "planted" in caplog.text


def test_what_was_sent_before_a_defect_is_not_said_to_be_undone(client):
    """Whoever was told so added once more."""
    ended = put_without_answer(client)
    FakeChannel.made.breaks = True
    with pytest.raises(Unavailable, match="a defect in the client") as not_sent:
        client.get("a")
    error = ended()
    assert type(error) is OutcomeUnknown
    assert "a defect in the client" in str(error)
    assert not isinstance(not_sent.value, OutcomeUnknown)


def test_a_lock_that_is_not_granted_in_time_is_not_acquired(client):
    channel = FakeChannel.made
    channel.holds_back = lambda op: isinstance(op, AcquireLock)

    def queue() -> None:
        until(lambda: channel.open)
        channel.reply(wire.Answer(channel.open[0].id, Queued(1)))

    thread = threading.Thread(target=queue)
    thread.start()
    with pytest.raises(LockNotAcquired):
        client.acquire("deploy", wait=0.2)
    thread.join(5)
    assert any(isinstance(op, CancelAcquire) for op in channel.ops)
