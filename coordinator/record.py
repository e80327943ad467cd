"""Keeps the rows of clusters, nodes and replicas true to what the log and the nodes say. It creates and updates; it
never deletes (rule 10), and nothing waits for it: the database may be slow, or gone, or new and empty.

Several processes write here at the same time. So that no two wait for each other, each takes rows in the same order:
nodes by name, then clusters by identity, then replicas.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Final

from django.db import DatabaseError, transaction
from django.utils import timezone

from coordinator import access, wire
from coordinator.client import errors
from coordinator.database import asking
from coordinator.models import Cluster, Node, Replica
from coordinator.seldom import Seldom

log = logging.getLogger(__name__)

RETRY_S: Final = 2.0
"""Between two tries to make the record at the start, where nobody answers yet."""
_ADDRESS_CHARACTERS_MAX: Final = Node._meta.get_field("address").max_length
"""The log takes longer ones; the record is for people to read."""


def identity(number: int) -> str:
    """A cluster's or replica's identity as people and the record see it: in hex, without leading zeros."""
    return f"{number:x}"


def record_birth(name: str, cluster_id: str, nodes: Iterable[str]) -> Cluster:
    """A cluster was just born on these nodes. Harmless where it is recorded already. Raises DatabaseError."""
    with transaction.atomic():
        for node in sorted(nodes):
            Node.objects.update_or_create(name=node, defaults={"retired_at": None})
        return _cluster(name, int(cluster_id, 16))


def note(report: wire.ReplicaReport) -> None:
    """Take in what a node reports of its replica. Raises DatabaseError. A node that waits has no replica to record."""
    now = timezone.now()
    with transaction.atomic():
        node, is_new = Node.objects.get_or_create(name=report.node)
        if not is_new:
            node.last_seen, node.retired_at = now, None
            node.save(update_fields=["last_seen", "retired_at"])
        if not report.cluster or not report.replica:
            return
        Replica.objects.update_or_create(
            cluster=_cluster(report.cluster_name, report.cluster),
            replica_id=identity(report.replica),
            defaults={
                "node": node,
                "role": report.role,
                "term": report.term,
                "applied_index": report.applied_index,
                "updated_at": now,
            },
        )


async def record_report(report: wire.ReplicaReport) -> None:
    """`note` for the event loop."""
    await asking(note)(report)


def _cluster(name: str, number: int) -> Cluster:
    cluster, _ = Cluster.objects.get_or_create(cluster_id=identity(number), defaults={"name": name})
    return cluster


def note_directory(directory: wire.Directory) -> None:
    """Take in who there is. Raises DatabaseError."""
    with transaction.atomic():
        for name, address_with_password in sorted(directory.nodes):
            address = re.sub(r"(//)[^@]*@", r"\1", address_with_password)[:_ADDRESS_CHARACTERS_MAX]
            node, _ = Node.objects.get_or_create(name=name, defaults={"address": address})
            if node.address != address:
                node.address = address
                node.save(update_fields=["address"])
        for entry in sorted(directory.clusters, key=lambda entry: entry.cluster):
            if entry.cluster:
                _cluster(entry.name, entry.cluster)


def nodes_of(cluster: str) -> list[str]:
    """Nodes that are known to have had a replica of the cluster that had this name last."""
    latest = Cluster.objects.filter(name=cluster).order_by("-pk").first()  # A clock may have gone back since.
    if latest is None:
        return []
    return sorted(set(Node.objects.filter(replicas__cluster=latest).values_list("name", flat=True)))


def is_recorded(cluster: str) -> bool:
    """Whether there ever was a cluster of this name, as far as the record knows."""
    return Cluster.objects.filter(name=cluster).exists()


def cluster_names() -> list[str]:
    """Names of all clusters that there ever were, as far as the record knows. Raises DatabaseError."""
    return sorted(set(Cluster.objects.values_list("name", flat=True)))


async def make_from_log() -> None:
    """Make the record again from what the nodes say, once, as soon as any of them answers."""
    waits = Seldom()
    while True:
        try:
            directory = await access.client().directory()
            await asking(note_directory)(directory)
            for entry in directory.clusters:
                for report in (await access.client(entry.name).status()).values():
                    if report is not None:
                        await record_report(report)
            return
        except errors.ConclaveError as error:
            if waits.is_due(str(error)):
                log.info("the record waits for a node that answers: %s", error)
        except DatabaseError as error:
            if waits.is_due(str(error)):
                log.warning("the record could not be written: %s", error)
        await asyncio.sleep(RETRY_S)
