"""A cluster for tests of the client: the real state machine behind real cores, on a clock that a test moves.

Nothing is replicated: there is one machine, and whoever leads serves it. What a test can do to it: kill the leader,
lose answers, be without a leader, let time pass. Clients are the real surface over a shell that steps all of this until
the answer is there, so that a test reads as its user's program would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from typing import Any, Generic, TypeVar

import msgspec

from coordinator import wire
from coordinator.client import flows
from coordinator.client.asking import Ask, Shell, Sync
from coordinator.client.calls import Call
from coordinator.client.core import Core
from coordinator.client.errors import Closed
from coordinator.client.surface import Surface
from coordinator.replica.broken_holds import BrokenHolds
from coordinator.replica.callers import Caller
from coordinator.statemachine import commands, files, lock_commands
from coordinator.statemachine.events import GrantMade, LockBroken, LockDelayed, SessionBegan, SessionEnded
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

T = TypeVar("T")

CLUSTER = 42
NODES = ("node1", "node2", "node3")
STEP_US = 5_000
STEPS_MAX = 100_000
"""Of one answer: 500 seconds."""

encode = msgspec.msgpack.encode


class Cluster:
    def __init__(self) -> None:
        self.now_us = 1_000_000
        self.machine = Machine()
        self.index = 0
        self.term = 1
        self.leader = "node1"
        """ "": there is none."""
        self.clients: list[TestClient] = []
        self.made = 0
        """Clients that there ever were: each draws numbers of its own."""
        self.loses: Callable[[wire.Request], bool] = lambda request: False
        """Requests whose answers are lost; they take effect all the same."""
        self.drops: Callable[[wire.Request], bool] = lambda request: False
        """Requests that never come."""
        self.refuses: Callable[[wire.Request], bool] = lambda request: False
        """Requests that there is no room for."""
        self.ops: list[Any] = []
        self.served = 0
        """Requests that came."""
        self.pushes = True
        self.lets_cache = True
        """May what is read be kept? As long as it says so by `tell_to_drop`, and no longer."""
        self.tells_to_drop = False
        """Is everything that is kept dropped before a command is applied? Else a test says it by `tell_to_drop`."""
        self.cache_number = 1
        self.dropped: list[wire.DroppedRequest] = []
        self._tickets = 0
        self._until_us: dict[int, int] = {}
        """Leases, as the leader counts them."""
        self._delays: dict[tuple[str, int], int] = {}
        self._broken_holds = BrokenHolds(self.machine)
        self._watchers: dict[tuple[int, str, int], TestClient] = {}
        self._watches: dict[tuple[TestClient, int], tuple[wire.WatchRequest | wire.EventsRequest, int]] = {}
        self._principals = [commands.SetPrincipal("root", commands.RIGHTS)]
        self.token = wire.Token.new("0123abcd")
        self.node(
            commands.Genesis(
                CLUSTER,
                "default",
                0,
                tuple(self._principals),
                (commands.AddToken(self.token.token_id, "root", self.token.key),),
                commands.LEVEL,
            )
        )

    def client(self, principal: str = "root") -> TestClient:
        self.made += 1
        return TestClient(self, principal)

    def grant(self, principal: str, *rights: str, prefixes: tuple[str, ...] = ()) -> None:
        """Make a principal that may so much."""
        self.clients[0].command(commands.SetPrincipal(principal, rights, prefixes))

    # --- what befalls it --------------------------------------------------------------------------

    def node(self, op: commands.NodeOp) -> None:
        self.index += 1
        self.machine.apply(self.index, encode_node_entry(op))
        self._take_events()

    def kill_leader(self) -> None:
        """The next node leads, and knows nothing of leases and waiters but what the log says."""
        self.lose_leader()
        self.elect()

    def lose_leader(self) -> None:
        self._dead, self.leader = self.leader, ""
        self._watchers, self._watches = {}, {}

    def elect(self) -> None:
        self.term += 1
        self.leader = NODES[(NODES.index(self._dead) + 1) % len(NODES)]
        self._broken_holds = BrokenHolds(self.machine)
        for session, row in self.machine.sessions.items():
            self._until_us[session] = self.now_us + row.ttl_ms * 1_000

    def tell_to_drop(self, client: TestClient, *paths: str) -> int:
        """Push an invalidation of these (none: of everything); its ticket."""
        self._tickets += 1
        told = wire.Invalidation(CLUSTER, 1, self.term, self.cache_number, self._tickets, paths, not paths)
        client.inbox.append(told)
        return self._tickets

    def expire(self, session: int) -> None:
        """A session runs out, whatever its client does."""
        self.node(commands.ExpireSessions((session,)))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 1e6 / STEP_US)):
            self.step()

    def step(self) -> None:
        """5 ms of everything."""
        self.now_us += STEP_US
        if self.leader:
            gone = tuple(session for session, until_us in self._until_us.items() if until_us <= self.now_us)
            if gone:
                self.node(commands.ExpireSessions(gone))
            ended = tuple(key for key, until_us in self._delays.items() if until_us <= self.now_us)
            if ended:
                for key in ended:
                    del self._delays[key]
                self.node(lock_commands.EndLockDelays(ended))
        for client, request_id in [*self._watches]:
            client.inbox += self._watched(client, request_id)
        for client in [*self.clients]:
            client.step()

    # --- what it answers --------------------------------------------------------------------------

    def serve(self, client: TestClient, node: str, request: wire.Request) -> list[wire.Reply]:
        self.served += 1
        if self.drops(request):
            return []
        if isinstance(request, wire.DirectoryRequest):
            nodes = tuple((name, "") for name in NODES)
            return [wire.Directory(request.id, node, nodes, (self._entry(),))]
        if node != self.leader:
            return [wire.NotLeader(request.id, self.leader)]
        if self.refuses(request):
            return [wire.Overloaded(request.id, "there is no room", 250)]
        answers = self._answer(client, request)
        return [] if self.loses(request) else answers

    def _entry(self) -> wire.ClusterEntry:
        return wire.ClusterEntry("default", CLUSTER, self.leader, self.term, NODES)

    def _answer(self, client: TestClient, request: wire.Request) -> list[wire.Reply]:
        match request:
            case wire.CommandRequest():
                return [wire.Answer(request.id, self._apply(client, bytes(request.command)))]
            case wire.QueryRequest():
                result = self.machine.query(request.query, client.principal, self._left_ms)
                if isinstance(request.query, commands.AwaitGrant) and isinstance(result, commands.Queued):
                    query = request.query
                    self._watchers[query.owner, query.name, query.acquisition] = client
                return [wire.Answer(request.id, result)]
            case wire.WatchRequest() | wire.EventsRequest():
                is_other = isinstance(request, wire.EventsRequest) and request.term not in (0, self.term)
                wait_ms = 0 if is_other else request.wait_ms
                self._watches[client, request.id] = (request, self.now_us + wait_ms * 1_000)
                return self._watched(client, request.id)
            case wire.CachedQueryRequest():
                result = self.machine.query(request.query, client.principal, self._left_ms)
                if not self.lets_cache:
                    return [wire.Answer(request.id, result)]
                return [wire.CachedAnswer(request.id, result, self.term, self.cache_number, self._tickets, 2_000)]
            case wire.RenewCacheRequest():
                is_so = (request.term, request.number) == (self.term, self.cache_number)
                if not is_so:
                    self.cache_number += 1
                return [wire.CacheRenewed(request.id, self.term, self.cache_number, 2_000)]
            case wire.DroppedRequest():
                self.dropped.append(request)
                return []
            case wire.KeepAliveRequest():
                if request.term != self.term:
                    return [wire.OtherTerm(request.id, self.term)]
                if request.session not in self.machine.sessions:
                    return [wire.Answer(request.id, commands.Failure(commands.SESSION_GONE, "it is gone"))]
                ttl_ms = self.machine.sessions[request.session].ttl_ms
                self._until_us[request.session] = self.now_us + ttl_ms * 1_000
                breaks = self._broken_holds.kept_alive(request.session, Caller(client.core.reply_channel, "", b""))
                kept = wire.KeptAlive(request.id, request.session, ttl_ms)
                return [kept, *(wire.HoldBroken(CLUSTER, broken) for broken in breaks)]
        raise AssertionError(f"nobody plays a {type(request).__name__} here")

    def _watched(self, client: TestClient, request_id: int) -> list[wire.Reply]:
        """The answer to a question that waits; [] while there is none."""
        request, until_us = self._watches[client, request_id]
        result = self.machine.query(request.query, client.principal, self._left_ms)
        told = getattr(result, "changes", ()) or getattr(result, "events", ())
        if isinstance(result, (files.ChangePage, lock_commands.LockEventPage)) and not told and self.now_us < until_us:
            return []
        del self._watches[client, request_id]
        if self.loses(request):
            return []
        if isinstance(request, wire.EventsRequest):
            return [wire.Told(request_id, result, self.term)]
        return [wire.Answer(request_id, result)]

    def _apply(self, client: TestClient, command: bytes) -> Any:
        self.index += 1
        decoded = wire.decode_command(command)
        op = decoded.op
        self.ops.append(op)
        if self.tells_to_drop:
            for other in self.clients:
                if other.caches:
                    self.tell_to_drop(other)
                    other.take_inbox()
        result = self.machine.apply(self.index, encode_entry(client.principal, "", command))
        if isinstance(result, commands.Queued):
            if isinstance(op, commands.AcquireLock):
                self._watchers[decoded.session, op.name, op.acquisition] = client
            elif isinstance(op, lock_commands.Acquire):
                self._watchers[decoded.session, min(op.names), op.acquisition] = client
        self._take_events()
        return result

    def _left_ms(self, session: int) -> int:
        return max(0, self._until_us.get(session, 0) - self.now_us) // 1_000

    def _take_events(self) -> None:
        events, self.machine.events = self.machine.events, []
        for event in events:
            match event:
                case SessionBegan(session, ttl_ms):
                    self._until_us[session] = self.now_us + ttl_ms * 1_000
                case SessionEnded(session):
                    self._until_us.pop(session, None)
                    self._broken_holds.ended(session)
                case LockDelayed(name, since, delay_ms):
                    self._delays[name, since] = self.now_us + delay_ms * 1_000
                case GrantMade(session, name, acquisition, token):
                    client = self._watchers.pop((session, name, acquisition), None)
                    if client is not None and self.pushes:
                        client.inbox.append(wire.GrantPushed(CLUSTER, session, name, acquisition, token))
                case LockBroken(session, name, acquisition):
                    told = self._broken_holds.broken(name, session, acquisition)
                    if told is not None and self.pushes:
                        caller, broken = told
                        (client,) = (one for one in self.clients if one.core.reply_channel == caller.channel)
                        client.inbox.append(wire.HoldBroken(CLUSTER, broken))


class Running(Generic[T]):
    """Something that was asked for and is under way. `value` once it `is_over`."""

    def __init__(self, client: TestClient, ask: Ask[T]) -> None:
        self._client = client
        if ask.begins is not None:
            ask.begins()
        self._flow = ask.flow(client.core)
        self._call: Call | None = None
        self.is_over = False
        self.outcome: Any = None
        self.error: BaseException | None = None
        client.running.append(self)

    def go_on(self, throw: BaseException | None = None) -> None:
        """As far as it goes without waiting."""
        in_hand = sys.exc_info()[1]
        try:
            while throw is not None or self._call is None or self._call.done:
                outcome = self._call.outcome if self._call is not None else None
                throw = throw or (outcome if isinstance(outcome, BaseException) else None)
                self._call = self._flow.send(outcome) if throw is None else self._flow.throw(throw)
                throw = None
                assert sys.exc_info()[1] is in_hand, "what waits leaves no error of its own with whoever runs it"
        except StopIteration as end:
            self.outcome = end.value
            self._end()
        except BaseException as error:  # noqa: BLE001 - `value` raises it
            self.error = error
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self._client.running.remove(self)

    def cancel(self) -> None:
        """Its asker leaves."""
        self.go_on(KeyboardInterrupt())
        assert isinstance(self.error, KeyboardInterrupt)

    def value(self) -> T:
        """Step everything until it is over."""
        for _ in range(STEPS_MAX):
            if self.is_over:
                break
            self._client.cluster.step()
        assert self.is_over, "it does not end"
        if self.error is not None:
            raise self.error
        result: T = self.outcome
        return result


class TestClient(Surface[Sync], Sync):
    """Asks as a `Client` does; `later` begins without waiting: `client.later.files.read("a")` is a `Running`."""

    __test__ = False

    def __init__(self, cluster: Cluster, principal: str) -> None:
        super().__init__(self)
        self.cluster = cluster
        self.principal = principal
        self.core = Core(cluster.token, "default", Random(cluster.made))
        self.clock = lambda: cluster.now_us
        self.timeout_us = 10_000_000
        self.running: list[Running[Any]] = []
        self.inbox: list[wire.Reply] = []
        self.is_cut_off = False
        """Nothing that it sends arrives, and nothing reaches it."""
        self.later: Any = Later(self)
        cluster.clients.append(self)

    def answer(self, ask: Ask[T]) -> T:
        return Running(self, ask).value()

    def spawn(self, ask: Ask[Any]) -> None:
        Running(self, ask)

    def later_of(self, part: Any) -> Any:
        """The same part, asking without waiting: `client.later_of(hold).upgrade()`."""
        return _LaterOf(self, part)

    def step(self) -> None:
        now_us = self.cluster.now_us
        for running in [*self.running]:
            running.go_on()
        for packet in self.core.take_packets(now_us):
            if self.is_cut_off:
                continue
            if packet.node and packet.node != self.cluster.leader and not self.cluster.leader:
                self.core.undelivered(packet, now_us)
                continue
            envelope = wire.open_envelope(packet.data, wire.REQUEST)
            node = packet.node or "node2"
            for request in wire.decode_requests(envelope.body).requests:
                self.reply(node, self.cluster.serve(self, node, request))
        self.take_inbox()
        for running in [*self.running]:
            running.go_on()

    def take_inbox(self) -> None:
        inbox, self.inbox = self.inbox, []
        if not self.is_cut_off:
            self.reply(self.cluster.leader or "node2", inbox)

    def reply(self, node: str, replies: list[wire.Reply]) -> None:
        if replies:
            token = self.cluster.token
            packet = wire.seal(token.key, wire.REPLY, node, self.core.reply_channel, replies)
            self.core.receive(packet, self.cluster.now_us)

    def die(self) -> None:
        """Its process is killed: nobody keeps its sessions alive any more."""
        self.cluster.clients.remove(self)

    def close(self) -> None:
        self.core.fail_all(Closed())
        for running in [*self.running]:
            running.go_on()


class _LaterOf:
    def __init__(self, client: TestClient, part: Any) -> None:
        self._client = client
        self._part = part

    def __getattr__(self, name: str) -> Callable[..., Running[Any]]:
        describe = getattr(type(self._part), name).describe
        return lambda *arguments, **named: self._client.later.answer(describe(self._part, *arguments, **named))


class Later(Surface[Any], Shell):
    """The same client, for what is not to be waited for."""

    def __init__(self, client: TestClient) -> None:
        super().__init__(self)
        self._client = client
        self.clock = client.clock
        self.timeout_us = client.timeout_us

    def asker(self) -> object:
        """Not who waits for what it asks otherwise."""
        return object()

    def acquire_plain(self, name: str) -> Running[Any]:
        """`Client.acquire`, whose wrapping is each shell's own."""
        return self.answer(Ask(lambda core: flows.acquire(core, self.clock, name, 15_000, None, self.timeout_us)))

    def answer(self, ask: Ask[T]) -> Running[T]:
        running = Running(self._client, ask)
        running.go_on()
        return running

    def spawn(self, ask: Ask[Any]) -> None:
        self._client.spawn(ask)
