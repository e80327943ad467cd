"""Nodes, and a cluster's log, without processes: what `membership.nodes` and a client are for the code above them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from coordinator import wire
from coordinator.client import errors
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import Configuration, next_configuration
from coordinator.membership import nodes
from coordinator.membership.nodes import HostedReplica, NodeReport, TaskOutcome
from coordinator.statemachine import commands
from coordinator.statemachine.commands import GetWantedMembership, SetWantedMembership, WantedMembershipView
from coordinator.statemachine.wanted import Wanted as InTheLog


class Company:
    """Nodes that do at once what they are asked to. `silent`: those that do not; `deaf`: the broker does not answer."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.silent: set[str] = set()
        self.deaf = False
        self.hosted: dict[str, dict[str, HostedReplica]] = {name: {} for name in names}
        self.outcomes: dict[str, dict[str, TaskOutcome]] = {name: {} for name in names}
        self.epochs: dict[str, dict[str, int]] = {name: {} for name in names}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.fingerprint: dict[str, str] = dict.fromkeys(names, "f")
        self.addresses: dict[str, str] = {}
        self.clusters: dict[str, FakeClient] = {}
        self.drawn = 0x100
        self.refuses_restores = ""

    # --- what stands in for coordinator.membership.nodes ---

    def look(self, expected: Any = None, timeout_s: float = 1.0) -> dict[str, NodeReport]:
        if self.deaf:
            raise nodes.BrokerUnavailable("Celery's broker does not answer: gone")
        return {
            name: NodeReport(
                name,
                "1",
                False,
                0,
                self.epochs[name],
                [*self.hosted[name].values()],
                dict(self.outcomes[name]),
                self.addresses.get(name, ""),
            )
            for name in self.names
            if name not in self.silent
        }

    def ask(self, node: str, task: str, request: str, **arguments: Any) -> None:
        if self.deaf:
            raise nodes.BrokerUnavailable("Celery's broker does not answer: gone")
        self.asked.append((node, task, arguments))
        if node in self.silent:
            return
        known = self.outcomes[node].get(request)
        outcome = getattr(self, f"_{task}")(node, **arguments)
        tries = 1 if known is None else known.tries + (known.state == "refused")
        self.outcomes[node][request] = msgspec.structs.replace(outcome, tries=tries)

    def wait(
        self,
        requests: dict[str, str],
        timeout_s: float,
        *,
        settled: bool = True,
        but: Mapping[str, TaskOutcome] = nodes.NO_OUTCOMES,
    ) -> dict[str, TaskOutcome]:
        said = {node: self.outcomes[node].get(request) for node, request in requests.items()}
        found = {node: outcome for node, outcome in said.items() if outcome is not None and node not in self.silent}
        return {node: outcome for node, outcome in found.items() if outcome != but.get(node)}

    # --- what nodes do ---

    def host(self, node: str, cluster: str, name: str, replica: str, state: str = "running") -> None:
        self.hosted[node][cluster] = HostedReplica(cluster, name, replica, state, "follower", "", 1, 1, 1, 1)

    def _host_replica(self, node: str, cluster: str, cluster_name: str) -> TaskOutcome:
        hosted = self.hosted[node].get(cluster)
        if hosted is None:
            self.drawn += 1
            self.host(node, cluster, cluster_name, f"{self.drawn:x}", "empty")
        return TaskOutcome("done", "", self.hosted[node][cluster].replica, -1, self.fingerprint[node])

    def _form_cluster(self, node: str, cluster: str, cluster_name: str, epoch: int, members: Any, fingerprint: str):
        replica = self.hosted[node][cluster].replica
        self.host(node, cluster, cluster_name, replica, "running")
        client = self.clusters.setdefault(cluster_name, FakeClient(int(cluster, 16), self))
        client.configuration = Configuration(tuple(Member(int(m[0], 16), *m[1:]) for m in members))
        client.leader = client.configuration.voters[0].replica
        return TaskOutcome("done", "", replica)

    def _restore_replica(
        self, node: str, cluster: str, cluster_name: str, epoch: int, members: Any, path: str, digest: str
    ):
        replica = self.hosted[node][cluster].replica
        if self.refuses_restores:
            return TaskOutcome("refused", self.refuses_restores, replica)
        assert members[0][1] == node
        for member in members:
            self.epochs[member[1]][cluster_name] = epoch
        return self._form_cluster(node, cluster, cluster_name, epoch, members, "")

    def _stop_replica(self, node: str, cluster: str) -> TaskOutcome:
        return TaskOutcome("done", "stopped", self.hosted[node][cluster].replica)

    def _remove_replica(self, node: str, cluster: str, replica: str, committed_index: int = 0, forced: str = ""):
        hosted = self.hosted[node].get(cluster)
        if hosted is None or hosted.replica != replica:
            return TaskOutcome("refused", "hosts no such replica", replica)
        del self.hosted[node][cluster]
        return TaskOutcome("done", "", replica)


class FakeClient:
    """A client of one cluster whose log is in memory."""

    def __init__(self, cluster_id: int, company: Company) -> None:
        self.cluster_id = cluster_id
        self.company = company
        self.configuration = Configuration(())
        self.leader = 0
        self.index = 10
        self.in_log = InTheLog()
        self.down = False

    def _check(self) -> None:
        if self.down:
            raise errors.Unavailable("no leader is known")

    def confirm(self, *, timeout: float | None = None) -> tuple[str, int]:
        self._check()
        return self.configuration.node_of(self.leader), 2

    def query(self, query: commands.Query, *, timeout: float | None = None) -> Any:
        self._check()
        assert isinstance(query, GetWantedMembership)
        return WantedMembershipView(*self.in_log)

    def command(self, op: commands.ClientOp) -> Any:
        self._check()
        assert isinstance(op, SetWantedMembership)
        self.index += 1
        self.in_log, answer = self.in_log.put(self.index, op)
        if isinstance(answer, commands.Failure):
            raise errors.from_failure(answer)
        return answer

    def _answers(self, member: Member) -> bool:
        hosted = self.company.hosted[member.node].get(f"{self.cluster_id:x}")
        there = hosted is not None and int(hosted.replica, 16) == member.replica
        return there and member.node not in self.company.silent

    def progress(self, *, timeout: float | None = None) -> wire.Progress:
        self._check()
        members = tuple(
            wire.MemberProgress(
                m.replica,
                self.index,
                "leader" if m.replica == self.leader else "replicate",
                5 if self._answers(m) else 10_000,
                0,
                0,
            )
            for m in self.configuration.members
        )
        leader = self.configuration.node_of(self.leader)
        return wire.Progress(
            1,
            leader,
            self.leader,
            2,
            self.index,
            self.index,
            1,
            self.index,
            self.configuration.voters,
            self.configuration.outgoing,
            self.configuration.learners,
            members,
            256,
            600,
        )

    def change(self, seen: wire.Progress, voters: Any, learners: Any = ()) -> int:
        self._check()
        self.index += 1
        for member in learners:
            hosted = self.company.hosted[member.node].get(f"{self.cluster_id:x}")
            if hosted is not None:
                self.company.host(member.node, hosted.cluster, hosted.cluster_name, hosted.replica)
        self.configuration = next_configuration(self.configuration, Change(tuple(voters), tuple(learners))).left()
        return self.index

    def transfer(self, node: str, *, timeout: float | None = None) -> int:
        self._check()
        self.leader = next(member.replica for member in self.configuration.voters if member.node == node)
        return 3

    def directory(self) -> wire.Directory:
        self._check()
        nodes_of = tuple(member.node for member in self.configuration.members)
        name = next((name for name, client in self.company.clusters.items() if client is self), "default")
        entry = wire.ClusterEntry(name, self.cluster_id, nodes_of[0], 2, nodes_of)
        return wire.Directory(1, nodes_of[0], tuple((node, "") for node in nodes_of), (entry,))

    def status(self) -> dict[str, Any]:
        return {}
