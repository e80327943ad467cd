"""Nodes on real journals that host one cluster together, and hear one another as the test says."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from random import Random

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica.births import WebToken, fingerprint
from coordinator.replica.intents import (
    DONE,
    PENDING,
    CompactReplica,
    FormCluster,
    HostReplica,
    Intent,
    Intents,
    Outcome,
    StartReplica,
    StopReplica,
)
from coordinator.replica.journal import SqliteJournal
from coordinator.replica.lifecycle import Lifecycle
from coordinator.replica.loading import load_all
from coordinator.replica.ports import Inbound
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.states import SLICE_EVERY_US, Compaction
from coordinator.replica.stored import StoredLog, StoredReplica
from coordinator.replica.turn import Turn
from coordinator.statemachine.items import Item
from coordinator.statemachine.machine import Machine
from coordinator.statemachine.state import State
from tests.unit.replica.stage import CHANNELS, PEER_KEY, Bus, Clock

CLUSTER = 77

TOKEN = WebToken("ab" * 8, b"k" * 32)


class Node:
    """A node with a journal on disk, which may be started again."""

    def __init__(self, name: str, directory: Path, clock: Clock, token: WebToken = TOKEN) -> None:
        self.name, self.directory, self.clock, self.token = name, directory, clock, token
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.journal = SqliteJournal(self.directory)
        self.bus = Bus([])
        loaded = load_all(self.journal, self.make)
        self.turn = Turn(
            Identity(self.name, 1, 7, faults_allowed=False, waiting_for="empty"),
            CHANNELS,
            PEER_KEY,
            loaded.replicas,
            journal=self.journal,
            bus=self.bus,
            clock=self.clock,
            drops=Counter(),
        )
        self.intents = Intents(lambda: None)
        self.lifecycle = Lifecycle(
            self.turn,
            self.journal,
            self.intents,
            make=self.make,
            stopped=loaded.stopped,
            damaged=loaded.damaged,
            backups=self.directory / "backups",
            web_token=self.token,
        )

    def restart(self) -> None:
        self.journal.close()
        self.start()

    def make(self, stored: StoredReplica, log: StoredLog, state: State | None) -> Replica:
        engine = Raft(
            stored.replica,
            log.hard_state,
            Log(log.terms, log.entries, log.hard_state.commit, log.offset, log.offset_term),
            options=Options(),
            random=Random(stored.replica),
            now_us=self.clock.us,
            snapshot=log.snapshot,
        )
        machine = Machine()
        if state is not None:
            machine.adopt(state)
        return Replica(stored.cluster, stored.cluster_name, stored.replica, engine, machine, self.clock.us)

    def ask(self, intent: Intent) -> Outcome:
        self.intents.post(intent)
        self.lifecycle.run(self.clock.us)
        return self.intents.outcomes()[intent.request]

    def starts(self, request: str) -> Outcome:
        """What became of starting the replica, in a time that is the test's."""
        self.ask(StartReplica(request, CLUSTER))
        while (outcome := self.intents.outcomes()[request]).state == PENDING:
            self.loaded()
            self.clock.us += SLICE_EVERY_US
            self.lifecycle.run(self.clock.us)
        return outcome

    @staticmethod
    def loaded() -> None:
        """What is to be loaded has been read."""
        for thread in threading.enumerate():
            if thread.name.startswith("conclave-load"):
                thread.join(10.0)

    @property
    def replica(self) -> Replica:
        return self.turn.replicas[CLUSTER]


class Company:
    def __init__(self, directory: Path, names: tuple[str, ...]) -> None:
        self.clock = Clock()
        self.nodes = {name: Node(name, directory / name, self.clock) for name in names}
        self.cut: set[str] = set()

    def pass_time(self, us: int) -> None:
        for _ in range(us // 20_000):
            self.clock.us += 20_000
            for node in self.nodes.values():
                node.lifecycle.run(self.clock.us)
                if node.name not in self.cut:
                    node.turn.run()
            for _ in range(4):
                self._carry()
                for node in self.nodes.values():
                    if node.name not in self.cut:
                        node.turn.run()

    def _carry(self) -> None:
        for node in self.nodes.values():
            published, node.bus.published = node.bus.published, []
            for packet in published:
                for target in self.nodes.values():
                    if packet.channel == CHANNELS.peer(target.name) and not {node.name, target.name} & self.cut:
                        target.bus.inbox.append(Inbound(from_peers=True, data=packet.data))

    def host(self, *names: str) -> dict[str, Member]:
        members = {}
        for name in names:
            outcome = self.nodes[name].ask(HostReplica(f"host-{name}", CLUSTER, "second"))
            assert outcome.state == DONE
            members[name] = Member(outcome.replica, name)
        return members

    def document(self, members: dict[str, Member], request: str = "form", epoch: int = 0) -> FormCluster:
        return FormCluster(request, CLUSTER, "second", epoch, tuple(members.values()), fingerprint(TOKEN))

    def form(self, *names: str) -> dict[str, Member]:
        members = self.host(*names)
        for name in names:
            assert self.nodes[name].ask(self.document(members)).state == DONE
        self.pass_time(2_500_000)
        return members

    def leader(self) -> Node:
        (found,) = [
            node
            for node in self.nodes.values()
            if CLUSTER in node.turn.replicas and node.name not in self.cut and node.replica.engine.role is Role.LEADER
        ]
        return found


def with_a_large_state(company: Company) -> Node:
    """A follower whose replica is stopped, and has a snapshot of many slices."""
    company.form("node1", "node2", "node3")
    follower = next(node for node in company.nodes.values() if node is not company.leader())
    for node in company.nodes.values():
        keys = node.replica.machine.state.keys
        for number in range(300):
            keys.add(f"key{number:04}", Item(bytes(2_000), 1, 1, 1))
        node.replica.states.compaction = Compaction(1_000, 0, staged_bytes_min=1_000)
    follower.ask(CompactReplica("c", CLUSTER))
    company.leader().ask(CompactReplica("c", CLUSTER))
    while follower.replica.engine.first_index == 1:
        company.pass_time(100_000)
    assert follower.ask(StopReplica("s", CLUSTER)).state == DONE
    return follower
