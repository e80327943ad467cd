"""Saying what is wanted: the database first, then the log, each change under the next generation.

Cut off between the two, the database is one ahead, and whoever comes next brings it to the log. A database that is
behind the log, since it was lost or put back, is refused: what it says was overtaken (docs/design.md, rule 10).
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import NamedTuple

from django.db import transaction
from django.utils import timezone

from coordinator import record, wire
from coordinator.client import Client, errors
from coordinator.membership import nodes
from coordinator.membership import wanted as wanting
from coordinator.membership.nodes import NodeReport
from coordinator.membership.wanted import Place, Wanted
from coordinator.models import Cluster, WantedMembership
from coordinator.statemachine import commands


class DatabaseBehind(errors.ConclaveError):
    """The database is not that of this log: nothing is changed by what it says."""


class OtherCluster(errors.ConclaveError):
    """Another cluster has the name now: nothing is changed in its log by what is wanted of this one."""


class NotInTheLogYet(errors.OutcomeUnknown):
    """What is wanted is written down, and nobody knows whether the log has it: the reconciler brings it there."""


class Agreement(Enum):
    NOTHING = "nothing is wanted yet"
    SAME = "the database and the log agree"
    AHEAD = "the database is one generation ahead: the last change has not reached the log yet"
    BEHIND = "the database is behind the log"


class Said(NamedTuple):
    """What is wanted, as far as the two agree; None where nothing is, or they do not. `message` says why not."""

    agreement: Agreement
    generation: int
    wanted: Wanted | None
    message: str = ""


def cluster_row(name: str, cluster: int) -> Cluster:
    """The record of a cluster, made where there is none. Raises DatabaseError."""
    row, _ = Cluster.objects.get_or_create(cluster_id=record.identity(cluster), defaults={"name": name})
    return row


def compare(cluster: Cluster, view: commands.WantedMembershipView) -> Said:
    """The database's word beside the log's. Raises DatabaseError, WantedDamaged."""
    row = WantedMembership.objects.filter(cluster=cluster).first()
    if row is None and not view.generation:
        return Said(Agreement.NOTHING, 0, None)
    generation, text = (0, b"") if row is None else (row.generation, row.wanted.encode())
    if (generation, text) == (view.generation, view.wanted):
        return Said(Agreement.SAME, generation, wanting.decode(text))
    if generation == view.generation + 1:
        return Said(Agreement.AHEAD, generation, wanting.decode(text))
    what = f"generation {generation}" if row is not None else "nothing"
    was = "was lost or put back" if generation < view.generation else "was changed by hand, or is that of elsewhere"
    message = (
        f"the database has {what} of the wanted membership and the log holds generation {view.generation}: the "
        f"database {was}. Nothing is changed by what it says; to take the log's word: "
        f"manage.py cluster rebuild {cluster.name}"
    )
    return Said(Agreement.BEHIND, view.generation, None, message)


def say(
    client: Client,
    cluster: Cluster,
    change: Callable[[Wanted], Wanted],
    reports: Mapping[str, NodeReport] | None = None,
) -> Wanted:
    """Change what is wanted, and bring it to the log; what is wanted then. Nodes that were to leave and have left are
    named no more. `reports`: of all that answer, where they were asked a moment ago.

    Raises DatabaseBehind, OtherCluster, ValueError (from `change`, or InvalidRequest where the log would not take it),
    DatabaseError, and the client's errors: up to there nothing has changed. NotInTheLogYet where the log could not be
    told any more: the database has the change, and the reconciler brings it there.
    """
    said = compare(cluster, view_of(client, cluster))
    if said.agreement is Agreement.BEHIND:
        raise DatabaseBehind(said.message)
    if said.agreement is Agreement.AHEAD:
        bring_to_log(client, said)
    before = said.wanted or as_it_is(client)
    after = change(before)
    if said.wanted is not None and after == before:
        return after
    after = after.without_leaving(_left(client, cluster, before.leaving, reports))
    generation = said.generation + 1
    text = wanting.encode(after)
    _check_size(text, after)
    with transaction.atomic():
        Cluster.objects.select_for_update().get(pk=cluster.pk)  # There may be no other row yet that two would wait for.
        row = WantedMembership.objects.filter(cluster=cluster).first()
        if (row.generation if row is not None else 0) != said.generation:
            raise DatabaseBehind("somebody else changed what is wanted at the same time; look again")
        WantedMembership.objects.update_or_create(
            cluster=cluster,
            defaults={"generation": generation, "wanted": text.decode(), "changed_at": timezone.now()},
        )
    _tell_log(client, cluster, generation, text)
    return after


def _tell_log(client: Client, cluster: Cluster, generation: int, text: bytes) -> None:
    """What the database says already. Raises NotInTheLogYet, and what the log refuses it for."""
    try:
        client.command(commands.SetWantedMembership(generation, text))
    except errors.Refused:
        # Whoever came meanwhile brought it to the log, since the database was ahead, and then a word of their own.
        if view_of(client, cluster).generation <= generation:
            raise
    except (errors.Unavailable, errors.Busy) as error:
        raise NotInTheLogYet(
            f"it is written down, as generation {generation} of the wanted membership, and need not be said again: the "
            f"log could not be told of it yet, and the reconciler brings it there ({error})"
        ) from error


def _left(
    client: Client, cluster: Cluster, leaving: Collection[str], reports: Mapping[str, NodeReport] | None
) -> set[str]:
    """Of the nodes that were to leave those that have: they answer, host nothing of the cluster, and are no members."""
    if leaving and reports is None:
        try:
            reports = nodes.look(leaving)
        except nodes.BrokerUnavailable:
            return set()  # They are named until they can be asked.
    there = reports or {}
    bare = {name for name in leaving if name in there and there[name].hosted(cluster.cluster_id) is None}
    if not bare:
        return bare
    seen = client.progress()
    return bare - {member.node for member in (*seen.voters, *seen.outgoing, *seen.learners)}


def _check_size(text: bytes, wanted: Wanted) -> None:
    """Before the database has what the log refuses, and every later change with it. Raises InvalidRequest."""
    most = commands.WANTED_BYTES_MAX
    if len(text) > most:
        raise errors.InvalidRequest(
            f"expected a wanted membership of at most {most} bytes, got {len(text)}: it names {len(wanted.leaving)} "
            "nodes that are to leave and have not said yet that they host nothing, such as "
            f"{reprlib.repr(', '.join(wanted.leaving))}; each that answers and hosts nothing is named no more"
        )


def view_of(client: Client, cluster: Cluster) -> commands.WantedMembershipView:
    """What the log says is wanted of this very cluster. Raises OtherCluster, and the client's errors."""
    view: commands.WantedMembershipView = client.query(commands.GetWantedMembership())
    check_identity(client, cluster)
    return view


def check_identity(client: Client, cluster: Cluster) -> None:
    """Raises OtherCluster where another answered last to the name: it was restored, or made again."""
    if record.identity(client.cluster_id) != cluster.cluster_id:
        raise OtherCluster(f"another cluster has the name {cluster.name} now: {record.identity(client.cluster_id)}")


def bring_to_log(client: Client, said: Said) -> None:
    """Tell the log what the database is ahead by."""
    assert said.agreement is Agreement.AHEAD, said
    assert said.wanted is not None, said
    client.command(commands.SetWantedMembership(said.generation, wanting.encode(said.wanted)))


class Word(NamedTuple):
    """What a cluster says of itself: its identity, what is wanted of it, who is there, and each replica's report."""

    cluster: int
    view: commands.WantedMembershipView
    directory: wire.Directory
    reports: Mapping[str, wire.ReplicaReport | None]


def take_word(name: str, word: Word) -> int:
    """Make the database say what the log says; its generation. Raises DatabaseError."""
    record.note_directory(word.directory)
    cluster, view = cluster_row(name, word.cluster), word.view
    if view.generation:
        WantedMembership.objects.update_or_create(
            cluster=cluster,
            defaults={"generation": view.generation, "wanted": view.wanted.decode(), "changed_at": timezone.now()},
        )
    else:
        WantedMembership.objects.filter(cluster=cluster).delete()
    for report in word.reports.values():
        if report is not None:
            record.note(report)
    return int(view.generation)


def rebuild(client: Client, name: str) -> int:
    """Ask the cluster, and take its word. Raises DatabaseError and the client's errors."""
    view = client.query(commands.GetWantedMembership())
    return take_word(name, Word(client.cluster_id, view, client.directory(), client.status()))


def nothing_said(name: str) -> str:
    """Of a cluster of which nobody has said what is wanted: what that means, and what to do."""
    return (
        "nobody has said yet what its membership is to be: it stays as it is, and no replica that is lost is replaced. "
        f"To have that looked after: manage.py cluster replace-after {name} {wanting.REPLACE_AFTER_S}"
    )


def as_it_is(client: Client) -> Wanted:
    """The real voters, as what is wanted: for a cluster of which nobody has said anything yet."""
    return Wanted(tuple(Place(m.node, m.priority, m.witness) for m in client.progress().voters))
