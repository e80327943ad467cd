"""A few nodes on one fake Redis and fake journals: the real turn, with everything it publishes in the test's hands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

from coordinator import wire
from coordinator.consensus.engine import HardState, Snapshot
from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica import ports
from coordinator.replica.births import first_log
from coordinator.replica.ports import Inbound, JournalFailed, Outbound, Write
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.stored import StoredLog
from coordinator.replica.turn import Outcome, Turn
from coordinator.statemachine.machine import Machine
from coordinator.wire import Channels, Token

REALM = "0123abcd"
CHANNELS = Channels(REALM)
PEER_KEY = b"p" * 32
CLUSTER = 99
WEB = Token.new(REALM)


class Clock(ports.Clock):
    def __init__(self) -> None:
        self.us = 1_000_000

    def now_us(self) -> int:
        return self.us

    def wall_ms(self) -> int:
        return self.us // 1_000


class Bus(ports.Bus):
    connected = True

    def __init__(self, events: list[str]) -> None:
        self.connected = True
        self.inbox: list[Inbound] = []
        self.published: list[Outbound] = []
        self.watched: dict[str, str] = {}
        self.silent: list[str] = []
        self._events = events

    def drain(self) -> list[Inbound]:
        inbox, self.inbox = self.inbox, []
        return inbox

    def publish(self, packets: list[Outbound]) -> None:
        self._events.append("publish")
        self.published += packets

    def watch(self, nodes: Mapping[str, str]) -> None:
        self.watched = dict(nodes)

    def take_silent(self) -> list[str]:
        silent, self.silent = self.silent, []
        return silent


class Staging:
    """A snapshot on its way to disk, as the test says: at once, unless told otherwise."""

    def __init__(self) -> None:
        self.is_done = True
        self.failed = ""
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


class Journal(ports.Journal):
    def __init__(self, events: list[str]) -> None:
        self.commits: list[list[Write]] = []
        self.broken = False
        self.staged: list[Staging] = []
        self.slow = False
        """What is staged is on disk when the test says so."""
        self._events = events

    def commit(self, writes: list[Write]) -> None:
        if self.broken:
            raise JournalFailed("no space left on device")
        self._events.append("commit")
        self.commits.append(writes)

    def stage(self, replica: int, snapshot: Snapshot) -> Staging:
        staging = Staging()
        staging.is_done = not self.slow
        self.staged.append(staging)
        return staging


class Node:
    def __init__(
        self, name: str, member: Member, members: list[Member], clock: Clock, options: Options | None = None
    ) -> None:
        """`members` none: a replica with nothing in its journal."""
        self.name = name
        self.member = member
        self.events: list[str] = []
        self.bus = Bus(self.events)
        self.journal = Journal(self.events)
        self.drops: Counter[str] = Counter()
        empty = StoredLog(HardState(0, 0, 0), [], [])
        log = first_log(CLUSTER, "default", 1, members, WEB) if members else empty
        self.raft = engine = Raft(
            member.replica,
            log.hard_state,
            Log([*log.terms], [*log.entries], log.hard_state.commit),
            options=options or Options(),
            random=Random(member.replica),
            now_us=clock.us,
        )
        self.replica = Replica(CLUSTER, "default", member.replica, engine, Machine(), clock.us)
        self.turn = Turn(
            Identity(name, 1_000 + member.replica, 7, faults_allowed=True, waiting_for=""),
            CHANNELS,
            PEER_KEY,
            [self.replica],
            journal=self.journal,
            bus=self.bus,
            clock=clock,
            drops=self.drops,
        )

    def run(self) -> Outcome:
        self.events.clear()
        return self.turn.run()


class Stage:
    """Nodes node1 to node`size`; `settle` carries everything that they publish to one another."""

    def __init__(self, size: int = 3, options: Options | None = None, addresses: Mapping[str, str] = {}) -> None:
        """`addresses`: of the nodes that have a Redis of their own, as the log says."""
        self.clock = Clock()
        names = [f"node{number}" for number in range(1, size + 1)]
        members = [Member(11 + at, name, address=addresses.get(name, "")) for at, name in enumerate(names)]
        self.nodes = {member.node: Node(member.node, member, members, self.clock, options) for member in members}
        self.cut: set[str] = set()
        self.answers: dict[str, list[Outbound]] = {}

    def bound(self, **bounds: int) -> None:
        """From here on, so much of each replica's work is one turn's (`TurnBounds`)."""
        for node in self.nodes.values():
            node.replica.bounds = node.replica.reading.bounds = node.replica.bounds._replace(**bounds)

    def join(self, member: Member) -> Node:
        """A node with a new replica, which knows nobody."""
        self.nodes[member.node] = Node(member.node, member, [], self.clock)
        return self.nodes[member.node]

    def carry(self) -> bool:
        """Hand over what was published; True where there was something between nodes."""
        moved = False
        for node in self.nodes.values():
            published, node.bus.published = node.bus.published, []
            for packet in published:
                target = packet.channel.rpartition(":")[2]
                if packet.channel == CHANNELS.peer(target):
                    moved = True
                    if not {node.name, target} & self.cut:
                        self.nodes[target].bus.inbox.append(Inbound(from_peers=True, data=packet.data))
                else:
                    self.answers.setdefault(packet.channel, []).append(packet)
        return moved

    def settle(self) -> None:
        for _ in range(50):
            for node in self.nodes.values():
                node.run()
            if not self.carry():
                return
        raise AssertionError("the nodes never fall quiet")

    def pass_time(self, us: int) -> None:
        for _ in range(us // 20_000):
            self.clock.us += 20_000
            self.settle()

    def elect(self, name: str = "node1") -> Node:
        for node in self.nodes.values():
            node.raft.election_due_us = self.clock.us + (0 if node.name == name else 1 << 40)
            node.raft.heard_at_us = None
        self.settle()
        assert self.nodes[name].replica.engine.applied_own_term
        return self.nodes[name]

    def ask(self, name: str, *requests: wire.Request, token: Token = WEB, reply: str = "") -> str:
        """Put requests into a node's client mailbox; the reply channel."""
        reply = reply or CHANNELS.reply()
        batch = wire.RequestBatch(reply, list(requests))
        packet = wire.seal(token.key, wire.REQUEST, token.token_id, name, batch)
        self.nodes[name].bus.inbox.append(Inbound(from_peers=False, data=packet))
        return reply

    def replies(self, channel: str, token: Token = WEB) -> list[wire.Reply]:
        """What was answered on a channel so far, verified."""
        found: list[wire.Reply] = []
        for packet in self.answers.pop(channel, []):
            envelope = wire.open_envelope(packet.data, wire.REPLY)
            wire.verify(envelope, token.key)
            found += wire.decode_replies(envelope.body)
        return found
