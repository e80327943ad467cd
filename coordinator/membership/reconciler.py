"""Makes the real membership of every cluster what its administrators want: looks, plans, does one step, looks again.

One process of an installation does it, under a lock of Conclave's own default cluster; another one waits in line. What
it does, or waits for, it writes down for people. It decides nothing: `plan.py` does, from what the log says.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Final, NamedTuple

from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from coordinator import database_errors, record, wire
from coordinator.client import Client, Lease, errors
from coordinator.membership import edits, known, nodes, saying
from coordinator.membership.edits import Agreement
from coordinator.membership.nodes import BrokerUnavailable, NodeReport
from coordinator.membership.plan import (
    Change,
    Delete,
    Host,
    NodeView,
    Real,
    RealMember,
    Replace,
    Settled,
    Step,
    Transfer,
    Waiting,
    plan,
    readdress,
)
from coordinator.membership.wanted import WantedDamaged
from coordinator.models import Cluster, Node, Reconciliation, WantedMembership
from coordinator.seldom import Seldom

LOCK: Final = "conclave/reconciler"
LOCKED: Final = "default"
"""The cluster that the lock is in."""
LOCK_TTL_S: Final = 10.0
BUSY_S: Final = 1.0
"""Between two looks at a cluster that is being changed, or waits."""
QUIET_S: Final = 10.0
"""Between two looks at a cluster that is as wanted, unless somebody says otherwise meanwhile."""
SAID_EVERY_S: Final = 30.0
"""How old what is written down may get while it stays the same."""
UNSAID_MAX: Final = timedelta(seconds=60)
"""How old it may get before one that does not have the lock says why: the one that has it writes sooner, and people ask
whether it runs later (`saying.STALE_AFTER`)."""
WHOLE_LOOK_S: Final = 10.0
"""Between two looks at whoever there is. Any other ends with the last of those that are expected: who is slower than
they, new or back again, is not heard by it."""
TRANSFER_S: Final = 5.0
ASK_AGAIN_S: Final = 5.0
ASK_AGAIN_S_MAX: Final = 60.0
"""Between two times that a node is asked for the same; twice as long after each refusal."""

State = Reconciliation.State
logger = logging.getLogger(__name__)


class Finding(NamedTuple):
    """What is said of a cluster."""

    state: str
    message: str


class _Asked(NamedTuple):
    """What a node was last asked to do. `refusals`: so often in turn it had refused before. `refusal`: its last word on
    it; "" where that was none."""

    request: str
    at: float
    refusals: int
    refusal: str

    @property
    def again_at(self) -> float:
        return self.at + min(ASK_AGAIN_S * 2 ** min(self.refusals, 10), ASK_AGAIN_S_MAX)


class _Watched:
    """What is remembered of one cluster between two looks: since when who is silent, and what was said."""

    def __init__(self) -> None:
        self.due = 0.0
        self.generation = -1
        self.silent: dict[int, float] = {}
        self.said: Finding | None = None
        self.said_at = 0.0
        self.asked: dict[tuple[str, str], _Asked] = {}
        """By node and task."""


class Reconciler:
    def __init__(
        self,
        client_of: Callable[[str], Client],
        clock: Callable[[], float] = time.monotonic,
        *,
        keep: Callable[[Collection[str]], None] = lambda clusters: None,
    ) -> None:
        """`client_of`: a client of the cluster of that name, as principal `web`. `keep`: those of other clusters are
        of no more use."""
        self._client_of = client_of
        self._keep = keep
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        """By the identity of the cluster."""
        self._generations: dict[str, int] = {}
        self._reports: dict[str, NodeReport] = {}
        self._silent_nodes: dict[str, float] = {}
        self._whole_look_due = float("-inf")
        self._not_reconciling = Seldom(clock)
        self._no_database = Seldom(clock)
        self._not_written = Seldom(clock)

    def run(self, stopping: Callable[[float], bool]) -> None:
        """Work until `stopping(seconds)`, which waits so long, is true. Holds the lock, and waits for it as long as it
        takes."""
        while not stopping(0):
            try:
                with self._client_of(LOCKED).lock(LOCK, ttl=LOCK_TTL_S, wait=5.0) as lease:
                    self._not_reconciling.over()
                    logger.info("reconciling, as holder of %r with token %d", LOCK, lease.token)
                    while not stopping(BUSY_S):
                        lease.check()
                        self.look(lease)
            except errors.ConclaveError as error:  # Refused, busy, unavailable: whatever it is, it passes.
                if self._not_reconciling.is_due(str(error)):  # As a second one, it may wait for years.
                    logger.info("not reconciling: %s", error)
                self._say_why_not(error)
                stopping(BUSY_S)

    def _say_why_not(self, error: errors.ConclaveError) -> None:
        """Where nobody has looked for long: that this one would, and can not. Another may hold the lock, and look."""
        close_old_connections()
        now = timezone.now()
        why = {"state": State.WAITING, "message": f"the reconciler does not have its lock: {error}", "looked_at": now}
        try:
            for said in saying.current():
                if abs(now - said.looked_at) <= UNSAID_MAX:
                    continue
                Reconciliation.objects.filter(pk=said.pk, looked_at=said.looked_at).update(**why)
                watched = self._watched.get(said.cluster.cluster_id)
                if watched is not None:
                    watched.said = None
        except DatabaseError as problem:
            if self._no_database.is_due(str(problem)):
                logger.warning("%s", database_errors.in_words(problem))

    # --- one look ---------------------------------------------------------------------------------

    def look(self, lease: Lease | None = None) -> None:
        """Look at every cluster that is due, and do a step for each."""
        close_old_connections()
        now = self._clock()
        try:
            generations = dict(WantedMembership.objects.values_list("cluster__cluster_id", "generation"))
        except DatabaseError as error:
            if self._no_database.is_due(str(error)):
                logger.warning("nothing can be reconciled now: %s", database_errors.in_words(error))
            return
        if self._no_database.over():
            logger.info("the database can be used again")
        changed = generations != self._generations
        self._generations = generations
        if not changed and now < min((watched.due for watched in self._watched.values()), default=0.0):
            return
        trouble = self._ask_nodes(now)
        self._forget_retired()
        clusters = self._clusters()
        # One that no node hosts any more would be due for ever.
        self._watched = {cluster_id: self._watched.get(cluster_id) or _Watched() for cluster_id in clusters}
        self._keep({LOCKED, *clusters.values()})
        for cluster_id, name in clusters.items():
            watched = self._watched[cluster_id]
            generation = generations.get(cluster_id, 0)
            if now < watched.due and generation == watched.generation:
                continue
            if lease is not None:
                lease.check()
            watched.generation = generation
            finding = Finding(State.WAITING, trouble) if trouble else self._reconcile(name, cluster_id, watched, now)
            watched.due = now + (QUIET_S if finding.state in saying.QUIET else BUSY_S)
            self._write_down(name, cluster_id, watched, finding, now)

    def _clusters(self) -> dict[str, str]:
        """Every cluster that any node hosts a replica of, by identity, and its name. What a node said that is silent
        now counts only where no other says who has the name."""
        said = [(name in self._silent_nodes, report) for name, report in self._reports.items()]
        found = _running(report for is_silent, report in said if not is_silent)
        names = {*found.values()}
        of_the_silent = _running(report for is_silent, report in said if is_silent)
        return found | {cluster_id: name for cluster_id, name in of_the_silent.items() if name not in names}

    def _ask_nodes(self, now: float) -> str:
        """Have every node say what it hosts; what went wrong, "" where nothing did."""
        try:
            reports = nodes.look([name for name in self._reports if name not in self._silent_nodes] or None)
            if now >= self._whole_look_due:
                reports |= nodes.look()
                self._whole_look_due = now + WHOLE_LOOK_S
        except BrokerUnavailable as error:
            return str(error)
        self._reports |= reports
        for name in self._reports:
            if name in reports:
                self._silent_nodes.pop(name, None)
            else:
                self._silent_nodes.setdefault(name, now)
        return ""

    def _forget_retired(self) -> None:
        """What a node said that an operator has retired since says nothing any more of which clusters there are. One
        that answers all the same is retired no more as soon as it reports."""
        try:
            retired = known.retired_nodes()
        except DatabaseError:
            return  # Later is soon enough.
        for name in self._silent_nodes.keys() & self._reports.keys() & retired:
            del self._silent_nodes[name]
            del self._reports[name]

    def _reconcile(self, name: str, cluster_id: str, watched: _Watched, now: float) -> Finding:
        try:
            return self._step(name, cluster_id, watched, now)
        except DatabaseError as error:
            return Finding(State.WAITING, f"the database cannot be used: {error}")
        except errors.Refused as error:
            return Finding(State.WAITING, f"refused by the cluster: {error}")
        except errors.ConclaveError as error:
            return Finding(State.WAITING, str(error))
        except (WantedDamaged, ValueError) as error:
            return Finding(State.REFUSED, str(error))

    def _step(self, name: str, cluster_id: str, watched: _Watched, now: float) -> Finding:
        client = self._client_of(name)
        cluster = edits.cluster_row(name, int(cluster_id, 16))
        said = edits.compare(cluster, edits.view_of(client, cluster))
        if said.agreement is Agreement.BEHIND:
            return Finding(State.REFUSED, said.message)
        if said.agreement is Agreement.AHEAD:
            edits.bring_to_log(client, said)
        seen = client.progress()
        edits.check_identity(client, cluster)
        zones = dict(Node.objects.values_list("name", "zone"))
        real = self._real(seen, watched, now)
        views = self._views(cluster_id, zones, real, now)
        step = readdress(real, views) if said.wanted is None else plan(said.wanted, real, views, now, zones)
        if step is None:
            return Finding(State.UNMANAGED, edits.nothing_said(name))
        return self._do(step, cluster, client, seen, watched, now)

    # --- what is seen -----------------------------------------------------------------------------

    def _real(self, seen: wire.Progress, watched: _Watched, now: float) -> Real:
        by_replica = {progress.replica: progress for progress in seen.members}
        found = []
        for member in (*seen.voters, *seen.learners):
            progress = by_replica[member.replica]
            answers = progress.state == "leader" or 0 <= progress.heard_ms <= seen.quorum_ms
            if answers:
                watched.silent.pop(member.replica, None)
            else:
                watched.silent.setdefault(member.replica, now - max(0, progress.heard_ms) / 1_000)
            lag = max(0, seen.commit_index - progress.match)
            votes = member in seen.voters
            found.append(RealMember(member, votes, lag, answers, watched.silent.get(member.replica)))
        settled = not seen.outgoing and seen.configuration_index <= seen.commit_index
        return Real(seen.replica, tuple(found), settled, seen.promote_lag_max)

    def _views(self, cluster_id: str, zones: dict[str, str], real: Real, now: float) -> dict[str, NodeView]:
        """Of all nodes. A member's node that was never heard of is silent from the first look on, which may merely have
        missed it: not for as long as its replica is."""
        views = {}
        for member in real.members:
            if member.node not in self._reports:
                since = self._silent_nodes.setdefault(member.node, now)
                views[member.node] = NodeView(member.node, silent_since=since, zone=zones.get(member.node, ""))
        for name, report in self._reports.items():
            views[name] = view(report, cluster_id, zones.get(name, ""), self._silent_nodes.get(name))
        return views

    # --- what is done -----------------------------------------------------------------------------

    def _do(
        self, step: Step, cluster: Cluster, client: Client, seen: wire.Progress, watched: _Watched, now: float
    ) -> Finding:
        match step:
            case Settled():
                return Finding(State.SETTLED, "")
            case Waiting(reason):
                return Finding(State.WAITING, reason)
            case Host(node):
                what = f"{node} is asked to host a replica"
                arguments = {"cluster": cluster.cluster_id, "cluster_name": cluster.name}
                return self._ask(watched, now, node, "host_replica", what, **arguments)
            case Change(voters, learners, why):
                client.change(seen, voters, learners)
                logger.info("%s: %s", cluster.name, why)
                return Finding(State.MOVING, why)
            case Transfer(node, why):
                logger.info("%s: %s: %s is to lead", cluster.name, why, node)
                client.transfer(node, timeout=TRANSFER_S)
                return Finding(State.MOVING, f"{why}: {node} is to lead")
            case Delete(node, replica):
                return self._ask(
                    watched,
                    now,
                    node,
                    "remove_replica",
                    f"{node} is asked to delete its replica, which is no member any more",
                    cluster=cluster.cluster_id,
                    replica=record.identity(replica),
                    committed_index=seen.commit_index,
                )
            case Replace(gone, by, why):
                answering = {name: said for name, said in self._reports.items() if name not in self._silent_nodes}
                edits.say(client, cluster, lambda wanted: wanted.moving(gone, by), answering)
                logger.warning("%s: %s: %s takes its place", cluster.name, why, by)
                return Finding(State.MOVING, f"{why}: {by} takes its place")

    def _ask(self, watched: _Watched, now: float, node: str, task: str, what: str, **arguments: object) -> Finding:
        """Ask a node, and not again at once while it has not said anything yet, or has refused. `what` in words."""
        last = watched.asked.get((node, task))
        if last is not None and now - last.again_at > ASK_AGAIN_S_MAX:
            last = None  # Nobody asked for it meanwhile: it is another matter.
        refusal = self._refusal(node, last)
        if last is None or now >= last.again_at:
            request = f"{task.partition('_')[0]}-{secrets.token_hex(8)}"
            refusals = last.refusals + 1 if last is not None and refusal else 0
            watched.asked[node, task] = _Asked(request, now, refusals, refusal)
            nodes.ask(node, task, request, **arguments)
        elif refusal != last.refusal:
            watched.asked[node, task] = last._replace(refusal=refusal)
        return Finding(State.WAITING, f"{what}, and refuses: {refusal}") if refusal else Finding(State.MOVING, what)

    def _refusal(self, node: str, asked: _Asked | None) -> str:
        """Why the node does not do what it was asked; while nothing is known of that, why it did not the last time."""
        if asked is None:
            return ""
        report = self._reports.get(node)
        outcome = report.outcomes.get(asked.request) if report is not None else None
        if outcome is None or outcome.state == nodes.PENDING:
            return asked.refusal
        return outcome.message if outcome.state == nodes.REFUSED else ""

    def _write_down(self, name: str, cluster_id: str, watched: _Watched, finding: Finding, now: float) -> None:
        if finding == watched.said and now - watched.said_at < SAID_EVERY_S:
            return
        try:
            cluster = edits.cluster_row(name, int(cluster_id, 16))
            values = {"state": finding.state, "message": finding.message, "looked_at": timezone.now()}
            if finding != watched.said:
                values["since"] = timezone.now()
                logger.info("%s: %s %s", name, finding.state, finding.message)
            Reconciliation.objects.update_or_create(cluster=cluster, defaults=values)
            watched.said, watched.said_at = finding, now
            self._not_written.over()
        except DatabaseError as error:
            text = f"{name}: {finding.state} {finding.message} (not written down: {error})"
            if self._not_written.is_due(text):
                logger.warning("%s", text)


def _running(reports: Iterable[NodeReport]) -> dict[str, str]:
    """The clusters of which replicas run there, by identity, and their names."""
    return {
        hosted.cluster: hosted.cluster_name
        for report in reports
        for hosted in report.replicas
        if hosted.state == "running"
    }


def view(report: NodeReport, cluster_id: str, zone: str, silent_since: float | None) -> NodeView:
    """A node's report as the plan looks at it."""
    hosted = report.hosted(cluster_id)
    return NodeView(
        report.node,
        int(hosted.replica, 16) if hosted is not None else 0,
        hosted.state if hosted is not None else "",
        silent_since,
        zone,
        len(report.replicas),
        report.address,
    )
