"""What a turn costs: CPU time on the leader and on a follower for each operation, without Redis and without a disk.

    python -m bench.turn [--works lock,write,read] [--batches 1,32] [--profile leader|follower] [--evict-mb 64]

Three nodes of the real turn hand one another their packets in memory; the journal is the real one, in memory where the
machine has such a file system. A batch comes in two signed packets, as from two client processes. Beside each figure
stands the time of a reference loop in the same run, so that runs on a busy machine can be compared. With `--evict-mb`
so much memory is copied over before each turn: then caches have forgotten it, as between two requests of one caller.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.options import at_least, ended_tidily, numbers, some_of
from coordinator import records, wire
from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica import ports
from coordinator.replica.births import first_log
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.ports import Inbound, Outbound
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.stored import StoredReplica
from coordinator.replica.turn import Turn
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command
from coordinator.statemachine.machine import Machine
from coordinator.wire import Channels, Token

CLUSTER: Final = 99
WORKS: Final = ("lock", "write", "read")
OPERATIONS: Final = 30_000
WARM_UP_BATCHES: Final = 20
SHARED_MEMORY: Final = Path("/dev/shm")
_REFERENCE_LOOPS: Final = 5_000


class Clock(ports.Clock):
    """Stands still unless it is moved: no timer is part of the figure."""

    us = 1_000_000

    def now_us(self) -> int:
        return self.us

    def wall_ms(self) -> int:
        return self.us // 1_000


class Bus(ports.Bus):
    connected = True

    def __init__(self) -> None:
        self.inbox: list[Inbound] = []
        self.published: list[Outbound] = []

    def drain(self) -> list[Inbound]:
        inbox, self.inbox = self.inbox, []
        return inbox

    def publish(self, packets: list[Outbound]) -> None:
        self.published += packets

    def watch(self, nodes: Mapping[str, str]) -> None:
        """Nobody dies here."""

    def take_silent(self) -> list[str]:
        return []


class Eviction:
    """Memory that is copied over before each turn, one half of it to the other."""

    def __init__(self, megabytes: int) -> None:
        self._half = megabytes * 500_000
        self._all = memoryview(bytearray(2 * self._half))

    def run(self) -> None:
        self._all[: self._half] = self._all[self._half :]


class Node:
    eviction = Eviction(0)

    def __init__(self, member: Member, members: list[Member], token: Token, clock: Clock, directory: Path) -> None:
        log = first_log(CLUSTER, "default", 1, members, token)
        stored = StoredReplica(member.replica, CLUSTER, "default")
        directory.mkdir()
        journal = SqliteJournal(directory)
        journal.admit(stored, 1, log)
        journal.load(member.replica)
        self.raft = Raft(
            member.replica,
            log.hard_state,
            Log(log.terms, log.entries, log.hard_state.commit),
            options=Options(),
            random=Random(member.replica),
            now_us=clock.us,
        )
        self.bus = Bus()
        self.turn = Turn(
            Identity(member.node, 1, 1, faults_allowed=False, waiting_for=""),
            Channels(token.realm),
            b"p" * 32,
            [Replica(CLUSTER, "default", member.replica, self.raft, Machine(), clock.us)],
            journal=journal,
            bus=self.bus,
            clock=clock,
            drops=Counter(),
        )
        self.used_s = 0.0
        self.turns = 0
        self.profile: cProfile.Profile | None = None

    def run(self) -> None:
        self.eviction.run()
        if self.profile is not None:
            self.profile.enable()
        began_s = time.process_time()
        self.turn.run()
        self.used_s += time.process_time() - began_s
        self.turns += 1
        if self.profile is not None:
            self.profile.disable()


class Cluster:
    def __init__(self, directory: Path) -> None:
        self.token = Token.new("0123abcd")
        self.channels = Channels(self.token.realm)
        self.clock = Clock()
        members = [Member(10 + number, f"node{number}") for number in (1, 2, 3)]
        self.nodes = {
            member.node: Node(member, members, self.token, self.clock, directory / member.node) for member in members
        }
        self.leader, *self.followers = self.nodes.values()
        self.replies = [self.channels.reply(), self.channels.reply()]
        self.answers: list[bytes] = []
        self._request = 0
        self._number = 0
        self._session = 0
        self.leader.raft.election_due_us = 0
        for _ in range(5):
            self.settle()
        self.ask([self._command(Command(0, 0, 0, commands.OpenSession(3_600_000, b"")))])
        self.settle()
        (opened,) = self.answered()
        assert isinstance(opened, wire.Answer)
        assert isinstance(opened.result, commands.SessionOpened)
        self._session = opened.result.session

    def _command(self, command: Command) -> wire.Request:
        self._request += 1
        return wire.CommandRequest(self._request, CLUSTER, "", msgspec.Raw(wire.encode(command)))

    def ask(self, requests: list[wire.Request]) -> None:
        half = (len(requests) + 1) // 2
        for reply, part in zip(self.replies, (requests[:half], requests[half:]), strict=True):
            if part:
                batch = wire.RequestBatch(reply, part)
                packet = wire.seal(self.token.key, wire.REQUEST, self.token.token_id, "node1", batch)
                self.leader.bus.inbox.append(Inbound(from_peers=False, data=packet))

    def ask_for(self, work: str, size: int, *, release: bool) -> None:
        requests: list[wire.Request] = []
        for caller in range(size):
            if work == "read":
                self._request += 1
                requests.append(wire.QueryRequest(self._request, CLUSTER, "", commands.GetKey(f"bench-{caller}")))
                continue
            self._number += 1
            op: commands.ClientOp = commands.PutKey(f"bench-{caller}", bytes(64))
            if work == "lock":
                op = commands.AcquireLock(f"bench-{caller}", self._number, wait=True)
                if release:
                    op = commands.ReleaseLock(f"bench-{caller}", self._number - size)
            requests.append(self._command(Command(self._session, self._number, self._number - caller, op)))
        self.ask(requests)

    def answered(self) -> list[wire.Reply]:
        packets, self.answers = self.answers, []
        return [
            reply for packet in packets for reply in wire.decode_replies(wire.open_envelope(packet, wire.REPLY).body)
        ]

    def step(self, node: Node) -> bool:
        """Run a node, and hand over what it says; True where it said anything to another."""
        node.run()
        published, node.bus.published = node.bus.published, []
        spoke = False
        for packet in published:
            target = self.nodes.get(packet.channel.rpartition(":")[2])
            if packet.channel in self.replies:
                self.answers.append(packet.data)
            elif target is not None and packet.channel == self.channels.peer(packet.channel.rpartition(":")[2]):
                target.bus.inbox.append(Inbound(from_peers=True, data=packet.data))
                spoke = True
        return spoke

    def settle(self) -> None:
        while sum(self.step(node) for node in self.nodes.values()):
            pass

    def serve(self) -> None:
        """The turns of one batch: the leader's, each follower's, and the leader's for each acknowledgement."""
        self.step(self.leader)
        for follower in self.followers:
            self.step(follower)
            self.clock.us += 100
            self.step(self.leader)
        self.clock.us += 300


def reference_us() -> float:
    """A loop of the same kind of work, each round of it."""
    table: dict[str, int] = {}
    began_s = time.process_time()
    for number in range(_REFERENCE_LOOPS):
        _, name, (one, two) = msgspec.msgpack.decode(msgspec.msgpack.encode((number, "deploy", [1, 2])))
        table[name] = sorted([number, one, two])[1]
    return (time.process_time() - began_s) * 1e6 / _REFERENCE_LOOPS


def measure(work: str, size: int, directory: Path, profiled: str) -> str:
    cluster = Cluster(directory)
    nodes = cluster.nodes.values()
    batches = max(50, OPERATIONS // size // 4 * 4)
    references = []
    for batch in range(WARM_UP_BATCHES + batches):
        if batch == WARM_UP_BATCHES:
            cluster.answered()
            gc.collect()
            gc.freeze()
            for node in nodes:
                node.used_s, node.turns = 0.0, 0
                node.profile = cProfile.Profile() if (node is cluster.leader) is (profiled == "leader") else None
                node.profile = node.profile if profiled else None
        if batch % (batches // 4) == 0:
            references.append(reference_us())
        cluster.ask_for(work, size, release=bool(batch % 2))
        cluster.serve()
    served = len(cluster.answered())
    assert served >= size * batches, f"{served} answers to {size * batches} requests"
    parts = []
    for name, of_kind in (("leader", [cluster.leader]), ("follower", cluster.followers)):
        used_us = sum(node.used_s for node in of_kind) * 1e6 / len(of_kind)
        turns = sum(node.turns for node in of_kind) // len(of_kind)
        parts.append(f"{name} {used_us / size / batches:6.1f} us each, {used_us / turns:5.0f} us a turn")
    for node in nodes:
        if node.profile is not None:
            pstats.Stats(node.profile).sort_stats("tottime").print_stats(40)
            break
    return f"{work:6} {size:4} at once: {'; '.join(parts)}; reference {sum(references) / len(references):.2f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", type=some_of(WORKS, "some works"), default=[*WORKS])
    parser.add_argument("--batches", type=numbers, default=[1, 32])
    parser.add_argument("--profile", choices=["", "leader", "follower"], default="")
    parser.add_argument("--evict-mb", type=at_least(0), default=0)
    arguments = parser.parse_args()
    Node.eviction = Eviction(arguments.evict_mb)
    records.quicken("coordinator")
    memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    for work in arguments.works:
        for size in arguments.batches:
            with ended_tidily(), tempfile.TemporaryDirectory(dir=memory) as directory:
                print(measure(work, size, Path(directory), arguments.profile), flush=True)


if __name__ == "__main__":
    main()
