"""The nodes, over Celery: what each hosts, and what it is asked to do with its replicas.

A task goes to the node's own queue and says nothing back; what became of it is read from the node's report
(`celery -A coordinator inspect replicas`). A task that its node does not take within `TASK_EXPIRES_S` is dropped, so
that nothing old is done late: by the clock of the node's machine, which its reports tell. What a node says decides
nothing by itself: the log does.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from coordinator import orders
from coordinator.client.errors import ConclaveError

LOOK_S: Final = 1.0
"""How long nodes have to say what they host, where it is not known how many will."""
TASK_EXPIRES_S: Final = 60
POLL_S: Final = 0.2
PENDING: Final = "pending"
DONE: Final = "done"
REFUSED: Final = "refused"
LOST: Final = "lost"
"""No node says it of itself: what it had in hand, and knows nothing of any more."""


class BrokerUnavailable(ConclaveError):
    """Celery's broker does not answer: nodes can not be asked to do anything, and go on as they are."""


class HostedReplica(msgspec.Struct, frozen=True):
    """As a node says it; identities in hex. `state`: running, stopped, or empty (no log yet)."""

    cluster: str
    cluster_name: str
    replica: str
    state: str
    role: str
    leader: str
    term: int
    last_index: int
    commit_index: int
    applied_index: int


class TaskOutcome(msgspec.Struct, frozen=True):
    state: str
    message: str
    replica: str
    epoch: int = -1
    fingerprint: str = ""
    tries: int = 1
    """How often it was asked for: what was refused may be again, under the same request."""


NO_OUTCOMES: Final[Mapping[str, TaskOutcome]] = MappingProxyType({})
FORGOTTEN: Final = TaskOutcome(
    LOST, "its process ended with this in hand, and the next one knows nothing of it: it may be done or not", "0"
)


class NodeReport(msgspec.Struct, frozen=True):
    node: str
    journal: str
    draining: bool
    loop_silent_ms: int
    epochs: dict[str, int]
    replicas: list[HostedReplica]
    outcomes: dict[str, TaskOutcome]
    address: str = ""
    """Of the Redis of its mailbox; "" where all share one."""
    clock_ms: int | None = None
    """What the clock of its machine says; None: it is of a version that does not tell."""

    def hosted(self, cluster_id: str) -> HostedReplica | None:
        return next((replica for replica in self.replicas if replica.cluster == cluster_id), None)


_ahead_ms: dict[str, int] = {}
"""How far the clock of each node's machine is ahead of this one's, as of its last report."""


def look(expected: Collection[str] | None = None, timeout_s: float = LOOK_S) -> dict[str, NodeReport]:
    """What each node hosts, by node. Returns as soon as all of the `expected` nodes have answered, or at the time-out.

    Raises BrokerUnavailable.
    """
    found = _broadcast(len(expected) if expected else 0, timeout_s)
    if expected and not found.keys() >= {*expected}:
        # So many answered, but others may have been among the first.
        found |= _broadcast(0, timeout_s)
    return found


def _broadcast(limit: int, timeout_s: float) -> dict[str, NodeReport]:
    """The first `limit` answers (0: all) of whichever nodes are there."""
    nonce = secrets.token_hex(8)
    asked_ms = _clock_ms()
    options: dict[str, Any] = {"reply": True, "timeout": timeout_s, "arguments": {"nonce": nonce}}
    if limit:
        options["limit"] = limit
    try:
        answers = current_app.control.broadcast("replicas", **options)
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"Celery's broker does not answer: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "redis":
            raise BrokerUnavailable(f"Celery's broker does not answer: {error}") from error
        raise
    found = {}
    for answer in answers or []:
        for said in answer.values():
            report = _believed(said, nonce)
            if report is not None:
                found[report.node] = report
                _ahead_ms[report.node] = 0 if report.clock_ms is None else report.clock_ms - asked_ms
    return found


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _key() -> bytes:
    return orders.key_of(settings.DATA.peer_key())


def _believed(said: Any, nonce: str) -> NodeReport | None:
    """A report that a node with the installation's key made for this very question; None for anything else: a worker of
    another version, one that hosts no node, somebody else on the broker."""
    if not isinstance(said, dict):
        return None
    said = dict(said)
    mac = said.pop("mac", "")
    if not orders.is_report(_key(), nonce, said, mac):
        return None
    try:
        return msgspec.convert(said, NodeReport)
    except msgspec.ValidationError:
        return None


def ask(node: str, task: str, request: str, **arguments: Any) -> None:
    """Send a node one of its own tasks, dated by the node's clock: it may be hours from ours, and Celery and the node
    drop by it what is old. Raises BrokerUnavailable."""
    ahead_ms = _ahead_ms.get(node, 0)
    try:
        current_app.send_task(
            f"conclave.node.{task}",
            kwargs=orders.seal_order(_key(), node, task, request, arguments, _clock_ms() + ahead_ms),
            queue=f"conclave.node.{node}",
            expires=TASK_EXPIRES_S + max(0, ahead_ms) // 1_000,
            ignore_result=True,
            retry=False,
        )
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"Celery's broker does not answer: {error}") from error


def outcomes(
    requests: Mapping[str, str],
    timeout_s: float,
    *,
    settled: bool = True,
    but: Mapping[str, TaskOutcome] = NO_OUTCOMES,
) -> dict[str, TaskOutcome]:
    """What became of requests (node to request), of those nodes that said so in time. `settled`: wait until nothing of
    it is pending. `but`: what nodes had said before they were asked this time. Of a node whose process ended with a
    request in hand nobody waits for more: FORGOTTEN. Raises BrokerUnavailable."""
    until = time.monotonic() + timeout_s
    found: dict[str, TaskOutcome] = {}
    in_hand: set[str] = set()
    while True:
        said = _said_of(requests, min(LOOK_S, timeout_s))
        found |= dict.fromkeys((node for node in in_hand if node in said and said[node] is None), FORGOTTEN)
        found |= {
            node: outcome
            for node, outcome in said.items()
            if outcome is not None and not (settled and outcome.state == PENDING) and outcome != but.get(node)
        }
        in_hand |= {node for node, outcome in said.items() if outcome is not None and outcome.state == PENDING}
        if len(found) == len(requests) or time.monotonic() >= until:
            return found
        time.sleep(POLL_S)


def _said_of(requests: Mapping[str, str], timeout_s: float) -> dict[str, TaskOutcome | None]:
    """What the nodes that answered have to say of these, by node; None where they know nothing of it."""
    reports = look(requests.keys(), timeout_s)
    return {node: report.outcomes.get(requests[node]) for node, report in reports.items() if node in requests}


class Asked(NamedTuple):
    """A node's answer to one request."""

    node: str
    outcome: TaskOutcome | None


def ask_and_wait(node: str, task: str, request: str, timeout_s: float, **arguments: Any) -> Asked:
    """Send a node a task, and wait for what becomes of it. Raises BrokerUnavailable."""
    return Asked(node, ask_all([node], task, request, timeout_s, **arguments).get(node))


def ask_all(
    asked: Collection[str], task: str, request: str, timeout_s: float, **arguments: Any
) -> dict[str, TaskOutcome]:
    """Send nodes the same task, and wait for what becomes of it: of those nodes that say so in time. What they refused
    when they were asked before, under the same request, is no answer. Raises BrokerUnavailable."""
    requests = dict.fromkeys(asked, request)
    said = _said_of(requests, LOOK_S).items()
    before = {node: outcome for node, outcome in said if outcome is not None and outcome.state == REFUSED}
    for node in asked:
        ask(node, task, request, **arguments)
    return outcomes(requests, timeout_s, but=before)
