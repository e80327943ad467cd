"""A node's own Celery tasks and remote-control commands: each posts an intent to the node's loop and returns at once.

Tasks go to the node's own queue, `conclave.node.NAME`, and say nothing back: what became of an intent is asked for,
with `celery -A coordinator inspect replicas`. Identities are hex strings, as people see them. The module is also loaded
where no node is hosted, so that `celery inspect` and `celery control` know the commands; there they say that.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from celery import shared_task
from celery.worker.control import control_command, inspect_command

from coordinator import compiled, orders
from coordinator.consensus.members import Member
from coordinator.replica.intents import (
    BackUpReplica,
    CompactReplica,
    Drain,
    FormCluster,
    HostReplica,
    Intent,
    Outcome,
    RemoveReplica,
    RestoreReplica,
    StartReplica,
    StopReplica,
    TransferLeadership,
)

if TYPE_CHECKING:
    from coordinator.replica.host import Host
    from coordinator.replica.hosted import Hosted

NO_NODE: Final = "this worker hosts no node"

_hosts: list[Host] = []
"""The node of this process, where it hosts one."""


def hosts(host: Host | None) -> None:
    """Say which node this process hosts from here on."""
    _hosts[:] = [] if host is None else [host]


def _take(task: str, make: Callable[..., Intent], order: dict[str, Any]) -> None:
    """Post what an order asks for. Raises OrderRefused where it is none: the task then fails in the worker's log."""
    if not _hosts:
        raise RuntimeError(NO_NODE)
    host = _hosts[0]
    orders.open_order(host.order_key, host.node, task, now_ms=time.time_ns() // 1_000_000, **order)
    host.intents.post(make(order["request"], **order["arguments"]))


def _members(document: list[list[Any]]) -> tuple[Member, ...]:
    return tuple(Member(int(replica, 16), *rest) for replica, *rest in document)


# --- tasks: the keyword arguments of each are an order (`coordinator/orders.py`) -------------------


@shared_task(name="conclave.node.host_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def host_replica(**order: Any) -> None:
    def make(request: str, cluster: str, cluster_name: str) -> Intent:
        return HostReplica(request, int(cluster, 16), cluster_name)

    _take("host_replica", make, order)


@shared_task(name="conclave.node.form_cluster", ignore_result=True)  # type: ignore[untyped-decorator]
def form_cluster(**order: Any) -> None:
    """`members`: for each the identity, the node, the address of its mailbox and its priority."""

    def make(
        request: str, cluster: str, cluster_name: str, epoch: int, members: list[list[Any]], fingerprint: str
    ) -> Intent:
        return FormCluster(request, int(cluster, 16), cluster_name, epoch, _members(members), fingerprint)

    _take("form_cluster", make, order)


@shared_task(name="conclave.node.restore_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def restore_replica(**order: Any) -> None:
    """`members` as for `form_cluster`; `path` and `digest`: of the backup."""

    def make(
        request: str, cluster: str, cluster_name: str, epoch: int, members: list[list[Any]], path: str, digest: str
    ) -> Intent:
        return RestoreReplica(request, int(cluster, 16), cluster_name, epoch, _members(members), path, digest)

    _take("restore_replica", make, order)


@shared_task(name="conclave.node.stop_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def stop_replica(**order: Any) -> None:
    _take("stop_replica", lambda request, cluster: StopReplica(request, int(cluster, 16)), order)


@shared_task(name="conclave.node.start_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def start_replica(**order: Any) -> None:
    _take("start_replica", lambda request, cluster: StartReplica(request, int(cluster, 16)), order)


@shared_task(name="conclave.node.remove_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def remove_replica(**order: Any) -> None:
    def make(request: str, cluster: str, replica: str, committed_index: int = 0, forced: str = "") -> Intent:
        return RemoveReplica(request, int(cluster, 16), int(replica, 16), committed_index, forced)

    _take("remove_replica", make, order)


@shared_task(name="conclave.node.back_up_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def back_up_replica(**order: Any) -> None:
    _take("back_up_replica", lambda request, cluster: BackUpReplica(request, int(cluster, 16)), order)


@shared_task(name="conclave.node.compact_replica", ignore_result=True)  # type: ignore[untyped-decorator]
def compact_replica(**order: Any) -> None:
    _take("compact_replica", lambda request, cluster: CompactReplica(request, int(cluster, 16)), order)


# --- remote control -------------------------------------------------------------------------------


def _of_node(usage: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """A command that its node answers, and is handed: `usage` is how it is given. Whoever gives it reads what is wrong
    with the arguments; all of them are text."""

    def decorate(command: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(command)
        def answer(state: Any, **arguments: Any) -> dict[str, Any]:
            if not _hosts:
                return {"error": NO_NODE}
            try:
                inspect.signature(command).bind(_hosts[0], **arguments)
            except TypeError as error:
                return {"error": f"expected {usage}: {error}"}
            for name, value in arguments.items():
                if not isinstance(value, str):
                    return {"error": f"expected {usage}: {name} is to be text, got {value!r}"}
            return command(_hosts[0], **arguments)

        return answer

    return decorate


@inspect_command(args=[("nonce", str)], signature="")  # type: ignore[untyped-decorator]
@_of_node("replicas")
def replicas(host: Host, nonce: str = "") -> dict[str, Any]:
    """The replicas that a node hosts, how they are, and what became of what it was asked to do."""
    lifecycle = host.lifecycle
    report = {
        "node": host.node,
        "journal": f"{host.journal_identity:x}",
        "clock_ms": time.time_ns() // 1_000_000,
        "address": host.address,
        "compiled": compiled.is_used(),
        "draining": lifecycle.draining,
        "loop_silent_ms": (time.monotonic_ns() // 1_000 - lifecycle.ran_us) // 1_000,
        "epochs": lifecycle.epochs(),
        "replicas": [_replica(hosted) for hosted in lifecycle.hosted()],
        "outcomes": {request: _outcome(outcome) for request, outcome in host.intents.outcomes().items()},
    }
    return report | ({"mac": orders.seal_report(host.order_key, nonce, report)} if nonce else {})


def _replica(hosted: Hosted) -> dict[str, Any]:
    fields = hosted._asdict()
    return fields | {
        "cluster": f"{hosted.cluster:x}",
        "replica": f"{hosted.replica:x}",
        "voters": list(hosted.voters),
        "learners": list(hosted.learners),
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return outcome._asdict() | {"replica": f"{outcome.replica:x}"}


@control_command(args=[("cluster", str), ("node", str)], signature="CLUSTER [NODE]")  # type: ignore[untyped-decorator]
@_of_node("transfer CLUSTER [NODE]")
def transfer(host: Host, cluster: str, node: str = "") -> dict[str, Any]:
    """Hand the leadership of a cluster to a node; without one, to whoever is furthest."""
    every = {hosted.cluster_name: hosted for hosted in host.lifecycle.hosted()}
    hosted = every.get(cluster)
    if hosted is None:
        names = f"it hosts {', '.join(sorted(every))}" if every else "it hosts none"
        return {"error": f"{host.node} hosts no replica of {cluster}; {names}"}
    if hosted.role == "leader" and node == host.node:
        return {"ok": f"{node} leads {cluster} already"}
    refused = _no_transfer(host.node, hosted, node)
    if refused:
        return {"error": refused}
    host.intents.post(TransferLeadership(f"transfer-{secrets.token_hex(8)}", hosted.cluster, node))
    return {"ok": f"{host.node} hands {cluster} over"}


def _no_transfer(own: str, hosted: Hosted, node: str) -> str:
    """Why a node can not hand a cluster over to another, as far as that is known at once; "" where it may."""
    name = hosted.cluster_name
    if not hosted.role:
        return f"{own} does not lead {name}: its replica is {hosted.state}"
    if hosted.role != "leader":
        leads = f"as far as it knows {hosted.leader} does" if hosted.leader else "it knows of nobody who does"
        return f"{own} does not lead {name}; {leads}"
    if {*hosted.voters} <= {own}:
        return f"nobody but {own} has a vote in {name}"
    if node and node not in hosted.voters:
        return f"{node} has no vote in {name}; {', '.join(hosted.voters)} have"
    return ""


@control_command(args=[("on", str)], signature="[on|off]")  # type: ignore[untyped-decorator]
@_of_node("drain [on|off]")
def drain(host: Host, on: str = "on") -> dict[str, Any]:
    """Hand over every leadership that a node has, and lead nothing until `drain off` or a restart."""
    if on not in {"on", "off"}:
        return {"error": f"expected drain [on|off]: got {on!r}"}
    host.intents.post(Drain(f"drain-{secrets.token_hex(8)}", on == "on"))
    return {"ok": f"{host.node} {'hands over what it leads' if on == 'on' else 'may lead again'}"}
