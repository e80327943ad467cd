"""A new cluster on running nodes, without a leader to ask: three rounds, each of which may be cut off and done again.

1. Its identity is drawn, and written down in the database with the nodes that are to have it.
2. Each node hosts an empty replica, with an identity that it draws and journals. So the document that comes next can
   only ever begin a log on the very disk that drew its name: a node that was wiped meanwhile has another identity, and
   refuses.
3. The identities become the document. It is written down once, never changed, and given to every node: each begins its
   journal with the same two entries. From a majority on, they elect a leader.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from coordinator import record, wire
from coordinator.client import Client, errors
from coordinator.consensus.quorum import majority
from coordinator.membership import edits, nodes
from coordinator.membership.nodes import NodeReport, TaskOutcome
from coordinator.membership.plan import NodeView, choose
from coordinator.membership.wanted import VOTERS_MAX, Place, Wanted
from coordinator.models import Birth, Cluster, Node

NODES_S_MAX: Final = 10.0
LOOKS_MAX: Final = 4
LEADER_S_MAX: Final = 15.0
RESTORED: Final = "restore:"
"""How the fingerprint of a cluster begins that is restored from a backup (`restoration.py`): no node takes its document
for that of a birth."""


class NotMade(Exception):
    """The cluster could not be made, or not yet; says what to do."""


def create(
    name: str,
    replicas: int,
    *,
    client_of: Callable[[str], Client],
    on: Sequence[str] = (),
    epoch: int | None = None,
    say: Callable[[str], None],
) -> Cluster:
    """Make the cluster `name`, or go on where an earlier try was cut off. `on`: its nodes, else they are chosen.

    `epoch`: where nodes that had a cluster of this name cannot be asked: above every restore epoch that it ever had.
    Raises NotMade, BrokerUnavailable, DatabaseError.
    """
    if not wire.NODE_NAME.fullmatch(name):
        raise NotMade(f"a cluster's name matches {wire.NODE_NAME.pattern}, got {name!r}")
    reports = _look(len(on) or replicas)
    birth = Birth.objects.filter(name=name, finished_at=None).first()
    if birth is None:
        check_name_is_free(name, reports)
        check_nobody_answers(name, client_of(name))
        chosen = tuple(on) or _choose(replicas, reports)
        birth = begin(name, chosen, _epoch(name, reports, epoch))
        say(f"{name} is {birth.cluster_id}, on {', '.join(chosen)}")
    elif birth.fingerprint.startswith(RESTORED):
        raise NotMade(f"{name} is being restored: give `cluster restore` again to go on with it")
    else:
        say(f"going on with {name}, {birth.cluster_id}, on {', '.join(birth.nodes)}")
    if not birth.members:
        write_document(birth)
    _form(birth, say)
    return finish(birth, client_of(name), say)


def _look(replicas: int) -> dict[str, NodeReport]:
    """What the nodes say. A busy one may take longer than one look lasts."""
    reports = nodes.look()
    for _ in range(LOOKS_MAX - 1):
        if len(reports) < replicas:
            reports |= nodes.look()
    return reports


def begin(name: str, chosen: Sequence[str], epoch: int, fingerprint: str = "") -> Birth:
    """Write it down, once: of two who make the same name at the same time, one is refused. `fingerprint`: of the log,
    where it is known before the nodes say how they would begin one."""
    try:
        with transaction.atomic():
            birth = Birth.objects.create(
                cluster_id=record.identity(secrets.randbits(63) or 1),
                name=name,
                nodes=list(chosen),
                epoch=epoch,
                fingerprint=fingerprint,
            )
    except IntegrityError:
        raise NotMade(f"somebody else is making {name}; give the command again to go on with it") from None
    try:
        check_name_is_free(name, nodes.look())  # Another may have begun and finished since it was looked at.
    except NotMade:
        birth.delete()
        raise
    return birth


def check_name_is_free(name: str, reports: dict[str, NodeReport]) -> None:
    for report in reports.values():
        for hosted in report.replicas:
            if hosted.cluster_name == name:
                raise NotMade(f"there is a cluster {name}: {report.node} hosts a replica of it ({hosted.cluster})")


def check_nobody_answers(name: str, client: Client) -> None:
    """A node that the broker does not reach serves on: with the database lost, nothing else says so."""
    try:
        there = client.directory()
    except errors.Unavailable:
        return
    for entry in there.clusters:
        if entry.name == name:
            raise NotMade(f"there is a cluster {name} ({entry.cluster:x}): {', '.join(entry.nodes)} serve it")


def _choose(replicas: int, reports: dict[str, NodeReport]) -> tuple[str, ...]:
    if not 1 <= replicas <= VOTERS_MAX:
        raise NotMade(f"expected 1 to {VOTERS_MAX} replicas, got {replicas}")
    zones = dict(Node.objects.values_list("name", "zone"))
    views = [NodeView(name, zone=zones.get(name, ""), replicas=len(r.replicas)) for name, r in reports.items()]
    chosen = choose(replicas, None, views)
    if len(chosen) < replicas:
        raise NotMade(
            f"{replicas} replicas take as many nodes, and {len(chosen)} answer: {', '.join(chosen) or 'none'}"
        )
    return chosen


def _epoch(name: str, reports: dict[str, NodeReport], given: int | None) -> int:
    """Above every epoch that a cluster of this name ever had, so that its fencing tokens only grow (rule 6)."""
    known = [report.epochs[name] for report in reports.values() if name in report.epochs]
    known += [epoch for epoch in begun_epochs(name) if epoch is not None]
    if given is not None:
        if known and given <= max(known):
            raise NotMade(f"--epoch must be above {max(known)}, which a cluster {name} had")
        return given
    earlier = Cluster.objects.filter(name=name)
    for cluster in earlier:
        had = set(Node.objects.filter(replicas__cluster=cluster).values_list("name", flat=True))
        asked = {node for node in had if name in (reports[node].epochs if node in reports else {})}
        if len(asked) < majority(len(had)):
            names = ", ".join(sorted(had))
            raise NotMade(
                f"there was a cluster {name} ({cluster.cluster_id}), and a majority of its nodes ({names}) cannot be "
                "asked for its restore epoch: give --epoch, above every epoch that it ever had"
            )
    return max(known) + 1 if known else 0


def begun_epochs(name: str) -> Iterable[int | None]:
    """Of every cluster of this name that was ever begun, as far as the record knows."""
    return Birth.objects.filter(name=name).values_list("epoch", flat=True)


# --- the rounds -----------------------------------------------------------------------------------


def request_of(birth: Birth, round_name: str) -> str:
    return f"birth-{birth.cluster_id}-{round_name}"


def write_document(birth: Birth) -> None:
    """Have the nodes draw identities, and write the document down, once."""
    request = request_of(birth, "host")
    for node in birth.nodes:
        nodes.ask(node, "host_replica", request, cluster=birth.cluster_id, cluster_name=birth.name)
    drawn = nodes.outcomes(dict.fromkeys(birth.nodes, request), NODES_S_MAX)
    all_done(birth, drawn, birth.nodes, needed=len(birth.nodes))
    fingerprints = {outcome.fingerprint for outcome in drawn.values()}
    if len(fingerprints) != 1:
        raise NotMade("the nodes would begin different logs: they have different keys, or run different versions")
    for node, outcome in drawn.items():
        if outcome.epoch >= (birth.epoch or 0) and outcome.epoch >= 0:
            raise NotMade(
                f"expected an epoch above {outcome.epoch}, which {birth.name} had on {node}, got {birth.epoch}"
            )
    reports = nodes.look(birth.nodes)
    members = [[drawn[node].replica, node, reports[node].address, 0] for node in birth.nodes if node in reports]
    if len(members) != len(birth.nodes):
        raise NotMade(f"not all of {', '.join(birth.nodes)} answer. Give the command again to go on with {birth.name}")
    with transaction.atomic():
        kept = Birth.objects.select_for_update().get(pk=birth.pk)
        if not kept.members:
            kept.members, kept.fingerprint = members, kept.fingerprint or fingerprints.pop()
            kept.save(update_fields=["members", "fingerprint"])
    birth.refresh_from_db()


def _form(birth: Birth, say: Callable[[str], None]) -> None:
    """Give every node the document. A majority that has it is a cluster; the rest gets the log from there."""
    request = request_of(birth, "form")
    for node in birth.nodes:
        nodes.ask(
            node,
            "form_cluster",
            request,
            cluster=birth.cluster_id,
            cluster_name=birth.name,
            epoch=birth.epoch,
            members=birth.members,
            fingerprint=birth.fingerprint,
        )
    formed = nodes.outcomes(dict.fromkeys(birth.nodes, request), NODES_S_MAX)
    late = all_done(birth, formed, birth.nodes, needed=majority(len(birth.nodes)))
    if late:
        say(f"not yet on {', '.join(late)}")


def all_done(birth: Birth, outcomes: dict[str, TaskOutcome], asked: Iterable[str], needed: int) -> list[str]:
    """Nodes that have not done it. Raises NotMade where fewer than `needed` have."""
    done = {node for node, outcome in outcomes.items() if outcome.state == nodes.DONE}
    late = [node for node in asked if node not in done]
    if len(done) < needed:
        why = "; ".join(f"{node}: {outcomes[node].message if node in outcomes else 'no answer'}" for node in late)
        raise NotMade(f"{why}. Give the command again to go on with {birth.name}")
    return late


def finish(birth: Birth, client: Client, say: Callable[[str], None], leader_s_max: float = LEADER_S_MAX) -> Cluster:
    """Wait for its first leader, and tell its log what is wanted of it."""
    until = time.monotonic() + leader_s_max
    while True:
        try:
            leader, _ = client.confirm(timeout=2)
            break
        except errors.Unavailable as error:
            if time.monotonic() >= until:
                raise NotMade(f"{error}. Give the command again to go on with {birth.name}") from error
    if record.identity(client.cluster_id) != birth.cluster_id:
        raise NotMade(f"expected {birth.cluster_id} to answer as {birth.name}, got {client.cluster_id:x}")
    cluster = edits.cluster_row(birth.name, int(birth.cluster_id, 16))
    wanted = Wanted(tuple(Place(node) for node in birth.nodes))
    edits.say(client, cluster, lambda _: wanted)
    birth.finished_at = timezone.now()
    birth.save(update_fields=["finished_at"])
    say(f"{leader} leads {birth.name}")
    return cluster
