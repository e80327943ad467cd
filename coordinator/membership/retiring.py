"""A node that is taken out of service for good. An operator answers for it that nothing of it ever runs again; so who
makes a cluster need not ask it any more (`creation.py`), where it would else be waited for without end.

Its row stays, with what it had: which names it may have had is asked of the record when one of them comes back, since
the epochs that it knew of are known to nobody else. A node that is back is retired no more as soon as it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from django.utils import timezone

from coordinator import access, record, wire
from coordinator.client import Client, errors
from coordinator.membership import creation, known
from coordinator.membership import wanted as wanting
from coordinator.membership.nodes import NodeReport
from coordinator.models import Birth, Node, WantedMembership
from coordinator.statemachine import commands

LEADER_S_MAX: Final = 5.0


class NotRetired(Exception):
    """The node may be in use; says by whom, and what to do."""


def retire(node: str, client_of: Callable[[str], Client]) -> None:
    """Raises ValueError where nobody knows such a node; NotRetired where it answers, is a member of a cluster or is
    wanted as one, where a cluster is being made on it, or where a cluster's leader does not answer; BrokerUnavailable,
    DatabaseError, WantedDamaged."""
    reports = creation.look_for({node})
    if why := known.problem([node], reports):
        raise ValueError(why)
    if node in reports:
        raise NotRetired(f"{node} answers: end its worker first, and take its replicas elsewhere before that")
    for birth in Birth.objects.filter(finished_at=None):
        if node in (*birth.nodes, *birth.left_out):
            raise NotRetired(
                f"{birth.name} is being made on {', '.join(birth.nodes)}, and {node} may have an empty replica of it: "
                "go on with that first, or say other nodes"
            )
    served = _served(reports, creation.ask_for_directories(access.DEFAULT_CLUSTER, client_of))
    if not served:
        raise NotRetired(f"no node answers that serves a cluster: whether {node} is a member of one, nobody can say")
    for name in served:
        _check_no_member(node, name, client_of(name))
    Node.objects.filter(name=node).update(retired_at=timezone.now())


def _served(reports: dict[str, NodeReport], directories: Iterable[wire.Directory]) -> list[str]:
    """The names of all clusters that any node hosts a replica of."""
    names = {hosted.cluster_name for report in reports.values() for hosted in report.replicas}
    return sorted(names.union(entry.name for there in directories for entry in there.clusters))


def _check_no_member(node: str, name: str, client: Client) -> None:
    """Raises NotRetired where the log of this cluster has a replica there or wants one, or does not say. One that is
    only to leave may be retired: it stays named, and should it come back all the same, it is removed."""
    try:
        seen = client.progress(timeout=LEADER_S_MAX)
        view = client.query(commands.GetWantedMembership(), timeout=LEADER_S_MAX)
    except errors.Unavailable as error:
        raise NotRetired(f"no leader of {name} answers, and {node} may be a member of it: {error}") from error
    if node in {member.node for member in (*seen.voters, *seen.outgoing, *seen.learners)}:
        raise NotRetired(
            f"{node} is a member of {name}: manage.py cluster remove-replica {name} {node} --wait 60, or move it "
            "elsewhere"
        )
    row = WantedMembership.objects.filter(cluster__cluster_id=record.identity(client.cluster_id)).first()
    texts = (view.wanted, b"" if row is None else row.wanted.encode())
    if any(node in wanting.decode(text).nodes for text in texts if text):
        raise NotRetired(
            f"{node} is wanted as a member of {name}; how far that is: manage.py cluster status {name}. To want it no "
            f"more: manage.py cluster remove-replica {name} {node}"
        )
