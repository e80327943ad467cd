"""Three nodes with a replica of each of a few clusters, all of which fall asleep where nobody keeps them from it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from coordinator.consensus.members import Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica.births import first_log
from coordinator.replica.replica import Replica
from coordinator.replica.report import Identity
from coordinator.replica.turn import Turn
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import CHANNELS, CLUSTER, PEER_KEY, WEB, Node, Stage

CLUSTERS = (CLUSTER, 1_001, 1_002, 1_003)
OPTIONS = Options()
NODES = ("node1", "node2", "node3")


def _members(cluster: int) -> list[Member]:
    return [Member(cluster * 10 + number, node) for number, node in enumerate(NODES, 1)]


def _replica(cluster: int, number: int, now_us: int, random: Random, options: Options) -> Replica:
    log = first_log(cluster, f"cluster{cluster}", 1, _members(cluster), WEB)
    member = _members(cluster)[number - 1]
    raft = Raft(
        member.replica,
        log.hard_state,
        Log([*log.terms], [*log.entries], log.hard_state.commit),
        options=options,
        random=random,
        now_us=now_us,
    )
    return Replica(cluster, f"cluster{cluster}", member.replica, raft, Machine(), now_us)


class Dormitory(Stage):
    def __init__(self, clusters: Iterable[int] = CLUSTERS, seed: int = 1, options: Options = OPTIONS) -> None:
        super().__init__()
        for number, node in enumerate(self.nodes.values(), 1):
            node.turn.few_replicas = 0
            node.turn.replicas.clear()
            for cluster in clusters:
                random = Random(seed * 100 + cluster * 10 + number)
                node.turn.replicas[cluster] = _replica(cluster, number, self.clock.us, random, options)

    def replicas(self, cluster: int) -> list[Replica]:
        """Of a cluster, on node1, node2 and node3."""
        return [node.turn.replicas[cluster] for node in self.nodes.values()]

    def leader(self, cluster: int) -> tuple[Node, Replica]:
        """The one of the highest term."""
        found = [
            (node.turn.replicas[cluster].engine.term, node.name)
            for node in self.nodes.values()
            if node.turn.replicas[cluster].engine.role.value == "leader"
        ]
        assert found, f"nobody leads {cluster}"
        node = self.nodes[max(found)[1]]
        return node, node.turn.replicas[cluster]

    def sleepers(self, cluster: int) -> list[str]:
        return [n.name for n in self.nodes.values() if n.turn.sleep.holds(n.turn.replicas[cluster])]

    def all_sleep(self) -> bool:
        return all(self.sleepers(cluster) == [*NODES] for cluster in self.nodes["node1"].turn.replicas)

    def lull(self) -> None:
        """Let time pass until all sleep."""
        for _ in range(1_500):
            if self.all_sleep():
                return
            self.pass_time(20_000)
        raise AssertionError({cluster: self.sleepers(cluster) for cluster in self.nodes["node1"].turn.replicas})

    def restart(self, name: str) -> None:
        """Another process, with what the engines had on disk."""
        node = self.nodes[name]
        old = node.turn
        replicas = []
        for replica in old.replicas.values():
            engine = replica.engine
            assert isinstance(engine, Raft)
            log = Log([*engine.log.terms], [*engine.log.entries], engine.on_disk.commit)
            raft = Raft(
                replica.replica,
                engine.on_disk,
                log,
                options=engine.options,
                random=Random(engine.random.random()),
                now_us=self.clock.us,
            )
            replicas.append(
                Replica(replica.cluster, replica.cluster_name, replica.replica, raft, Machine(), self.clock.us)
            )
        identity = Identity(name, old.identity.pid + 1, old.identity.boot + 1, faults_allowed=True, waiting_for="")
        node.bus.inbox.clear()
        node.turn = Turn(
            identity,
            CHANNELS,
            PEER_KEY,
            replicas,
            journal=node.journal,
            bus=node.bus,
            clock=self.clock,
            drops=node.drops,
        )
        node.turn.few_replicas = 0
