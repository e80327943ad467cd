"""What a cluster looks like from inside: works with no leader, and with no node at all."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest
from ninja import Router

from coordinator import access, record
from coordinator.api.auth import BearerToken, SignedIn
from coordinator.api.schemas import ClusterName, Problem, ReplicaOut, StatusOut
from coordinator.client import errors
from coordinator.wire import ReplicaReport

log = logging.getLogger(__name__)
router = Router(tags=["cluster"])


@router.get(
    "/status",
    auth=[BearerToken(may_be_old=True), SignedIn()],
    response={200: StatusOut, frozenset({401, 403, 404, 503}): Problem},
    summary="The state of a cluster",
)
async def status(request: HttpRequest, cluster: ClusterName) -> StatusOut:
    """Each replica as its own node sees it, asked just now. A node that does not answer within half a second is
    unreachable. Needs no leader."""
    await access.known_cluster(cluster)
    reports = await reports_of(cluster)
    return summarize(cluster, reports)


async def reports_of(cluster: str) -> dict[str, ReplicaReport | None]:
    """Each node's own report of its replica, None where it does not answer; nodes are those that anybody knows of."""
    try:
        reports = dict(await access.client(cluster).status())
    except errors.Unavailable:
        reports = {}
    known = set(reports).union(*(report.voters for report in reports.values() if report is not None))
    if not any(reports.values()):
        known |= await _recorded_nodes(cluster)
    return {node: reports.get(node) for node in sorted(known)}


async def _recorded_nodes(cluster: str) -> set[str]:
    """Where no node says who its peers are, the record may remember; and without a record, what `up` was told."""
    names: set[str] = set()
    try:
        names = set(await sync_to_async(record.nodes_of)(cluster))
    except DatabaseError as error:
        log.warning("the record of cluster %s cannot be read: %s", cluster, error)
    return names or (set(settings.CONCLAVE.node_names) if cluster == access.DEFAULT_CLUSTER else set())


def summarize(cluster: str, reports: dict[str, ReplicaReport | None]) -> StatusOut:
    """The answer of the API. The leader is the one that says so in the highest term; an old one may say so still."""
    answering = [report for report in reports.values() if report is not None]
    leaders = [report for report in answering if report.role == "leader"]
    leader = max(leaders, key=lambda report: report.term, default=None)
    newest = max(answering, key=lambda report: (len(report.voters) > 0, report.term), default=None)
    return StatusOut(
        cluster=cluster,
        cluster_id=record.identity(newest.cluster) if newest is not None and newest.cluster else None,
        leader=leader.node if leader is not None else None,
        term=max((report.term for report in answering), default=0),
        voters=list(newest.voters) if newest is not None else [],
        faults_allowed=settings.CONCLAVE.faults,
        replicas=[_replica(node, report) for node, report in sorted(reports.items())],
    )


def _replica(node: str, report: ReplicaReport | None) -> ReplicaOut:
    unknown: dict[str, Any] = dict.fromkeys(("pid", "replica_id", "vote", "leader", "digest", "waiting_for"))
    if report is None:
        return ReplicaOut(
            node=node, role="unreachable", term=0, last_index=0, commit_index=0, applied_index=0, drops={}, **unknown
        )
    return ReplicaOut(
        node=node,
        role=report.role,
        term=report.term,
        last_index=report.last_index,
        commit_index=report.commit_index,
        applied_index=report.applied_index,
        pid=report.pid,
        replica_id=record.identity(report.replica) if report.replica else None,
        vote=report.vote or None,
        leader=report.leader or None,
        digest=report.digest or None,
        waiting_for=report.waiting_for or None,
        drops=report.drops,
    )
