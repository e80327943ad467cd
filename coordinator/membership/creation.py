"""A new cluster on running nodes, without a leader to ask: three rounds, each of which may be cut off and done again.

1. Its identity is drawn, and written down in the database with the nodes that are to have it.
2. Each node hosts an empty replica, with an identity that it draws and journals. So the document that comes next can
   only ever begin a log on the very disk that drew its name: a node that was wiped meanwhile has another identity, and
   refuses.
3. The identities become the document. It is written down once, never changed, and given to every node: each begins its
   journal with the same two entries. From a majority on, they elect a leader.

Before there is a document no node knows the epoch, and none can begin: until then the nodes and the epoch may be said
anew (`_change`), and a try that is given up has used no epoch. What may be done is looked up under the row's lock.

Nothing is begun before every node that is known was asked whether the name is there still: one that does not answer
may serve it. The database may be lost or a day old, so what the logs say of who there is counts as well.
"""

from __future__ import annotations

import contextlib
import reprlib
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from coordinator import access, record, wire
from coordinator.client import Client, errors
from coordinator.consensus.quorum import majority
from coordinator.membership import edits, known, nodes
from coordinator.membership.nodes import NodeReport, TaskOutcome
from coordinator.membership.plan import EMPTY, NodeView, choose
from coordinator.membership.wanted import VOTERS_MAX, Place, Wanted, name_problem
from coordinator.models import Birth, Cluster, Node
from coordinator.statemachine import commands
from coordinator.statemachine.locks import EPOCH_MAX

NODES_S_MAX: Final = 10.0
REPLICAS: Final = 3
"""Of a cluster of which nobody said how many it is to have."""
EPOCH_MIN: Final = 1
"""That can be said: a name that no cluster ever had begins in epoch 0 by itself."""
LEADER_S_MAX: Final = 15.0
RESTORED: Final = "restore:"
"""How the fingerprint of a cluster begins that is restored from a backup (`restoration.py`): no node takes its document
for that of a birth."""


class NotMade(Exception):
    """The cluster could not be made, or not yet; says what to do."""


def create(
    name: str,
    replicas: int | None,
    *,
    client_of: Callable[[str], Client],
    on: Sequence[str] = (),
    gone: Collection[str] = (),
    epoch: int | None = None,
    say: Callable[[str], None],
) -> Cluster:
    """Make the cluster `name`, or go on where an earlier try was cut off. `on`: its nodes, else `replicas` are chosen;
    where neither is said, those of the earlier try, or three.

    `gone`: nodes that do not answer and never will. `epoch`: above every restore epoch that a cluster of this name ever
    had; needed where some are gone, or lost what they knew. Raises NotMade, BrokerUnavailable, DatabaseError.
    """
    check_said(name, on, gone, epoch)
    if not on and replicas is not None and not 1 <= replicas <= VOTERS_MAX:
        raise NotMade(f"expected 1 to {VOTERS_MAX} replicas, got {reprlib.repr(replicas)}")
    if on and replicas not in (None, len(on)):
        raise NotMade(f"expected {reprlib.repr(replicas)} nodes, one a replica, got {', '.join(on)}")
    birth = under_way(name)
    if birth is not None and is_restore(birth):
        raise NotMade(f"{name} is being restored: give `cluster restore` again to go on with it")
    if birth is None or _wants_else(birth, replicas, on, gone, epoch):
        birth = _record(name, birth, replicas, client_of, on, gone, epoch)
        say(f"{name} is {birth.cluster_id}, on {', '.join(birth.nodes)}")
    else:
        if not birth.members:
            _check_again(birth, client_of)
        say(f"going on with {name}, {birth.cluster_id}, on {', '.join(birth.nodes)}")
    if not birth.members:
        write_document(birth, client_of)
    _form(birth, say)
    return finish(birth, client_of(name), say)


def check_said(name: str, on: Sequence[str], gone: Collection[str], epoch: int | None) -> None:
    """What can be told without asking anybody. Raises NotMade."""
    if not wire.NODE_NAME.fullmatch(name):
        raise NotMade(f"a cluster's name matches {wire.NODE_NAME.pattern}, got {reprlib.repr(name)}")
    for node in (*on, *gone):
        if why := name_problem(node):
            raise NotMade(why)
    both = [node for node in on if node in gone]
    if both:
        raise NotMade(f"{', '.join(both)}: a node that is gone gets no replica")
    if len(on) > VOTERS_MAX or len({*on}) != len(on):
        raise NotMade(f"expected 1 to {VOTERS_MAX} nodes, each once, got {', '.join(on)}")
    if epoch is not None and not EPOCH_MIN <= epoch <= EPOCH_MAX:
        raise NotMade(f"expected --epoch from {EPOCH_MIN} to {EPOCH_MAX}, got {reprlib.repr(epoch)}")


def under_way(name: str) -> Birth | None:
    """The try to make or to restore `name` that is not over."""
    return Birth.objects.filter(name=name, finished_at=None).first()


def is_restore(birth: Birth) -> bool:
    return birth.fingerprint.startswith(RESTORED)


def _wants_else(
    birth: Birth, replicas: int | None, on: Sequence[str], gone: Collection[str], epoch: int | None
) -> bool:
    """Is another cluster wanted than the one that is under way? What is not said is as it was. Before there is a
    document, nodes that are gone change what its epoch rests on."""
    other = {*on} != {*birth.nodes} if on else replicas not in (None, len(birth.nodes))
    return other or is_other_epoch(birth, epoch) or bool(gone and not birth.members)


def is_other_epoch(birth: Birth, epoch: int | None) -> bool:
    """One beyond the maximum, which was recorded before this was checked, is never gone on with."""
    return epoch not in (None, birth.epoch) or (birth.epoch or 0) > EPOCH_MAX


def _record(
    name: str,
    birth: Birth | None,
    replicas: int | None,
    client_of: Callable[[str], Client],
    on: Sequence[str],
    gone: Collection[str],
    epoch: int | None,
) -> Birth:
    """Write down what is to be made, once all is checked. `birth`: the try of something else that is under way."""
    as_before = birth is not None and not on and replicas in (None, len(birth.nodes))
    wanted = on or (birth.nodes if birth is not None and as_before else ())
    reports = _ask_all(name, birth, wanted, len(wanted) or replicas or REPLICAS, client_of, gone)
    chosen = tuple(wanted) or _choose(replicas or REPLICAS, reports)
    above = _epoch(name, reports, epoch, {*gone, *retired_that_had(name, reports)}, but=birth)
    if birth is not None and not birth.members:
        return _change(birth, chosen, above)
    if birth is not None:
        give_up(birth)
    return begin(name, chosen, above)


def _check_again(birth: Birth, client_of: Callable[[str], Client]) -> None:
    """A try without a document may be one of long ago, in a database that was put back. Raises NotMade where it cannot
    be gone on with."""
    reports = _ask_all(birth.name, birth, birth.nodes, len(birth.nodes), client_of, ())
    _epoch(birth.name, reports, birth.epoch, retired_that_had(birth.name, reports), but=birth)


def _ask_all(
    name: str,
    birth: Birth | None,
    wanted: Sequence[str],
    replicas: int,
    client_of: Callable[[str], Client],
    gone: Collection[str],
) -> dict[str, NodeReport]:
    """What every node says that anybody knows of. Raises NotMade where one of them does not answer, or the name is
    there. `birth`: the try that is under way."""
    directories = ask_for_directories(name, client_of)
    asked = _nodes_known(name, directories) - {*gone}
    reports = look_for({*wanted, *asked}, replicas)
    if birth is not None and birth.members:
        check_is_over(birth, reports)
    check_name_is_free(name, reports, but=birth)
    check_nobody_answers(name, directories)
    if wanted:
        check_nodes(wanted, reports)
    check_all_answer(name, asked, gone, reports)
    return reports


def _nodes_known(name: str, directories: Iterable[wire.Directory]) -> set[str]:
    """Every node of which the record knows, earlier tries of this name do, or the logs, which outlive the database. One
    that is retired counts only where a log names it as one of those who serve its cluster: it came back."""
    known_nodes = {*Node.objects.values_list("name", flat=True), *nodes_of_births(name)}
    known_nodes.update(node for there in directories for node, _ in there.nodes)
    serving = {node for there in directories for entry in there.clusters for node in entry.nodes}
    return (known_nodes - known.retired_nodes()) | serving


def nodes_of_births(name: str) -> set[str]:
    """Of all tries to make or to restore a cluster of this name."""
    return {node for named in Birth.objects.filter(name=name).values_list("nodes", flat=True) for node in named}


def nodes_that_had(name: str) -> set[str]:
    """A replica of a cluster of this name, as far as the record knows."""
    return {*Node.objects.filter(replicas__cluster__name=name).values_list("name", flat=True)}


def retired_that_had(name: str, reports: Collection[str], others: Collection[str] = ()) -> set[str]:
    """Retired nodes that may have had a cluster of this name, as far as the record knows, and do not answer: its epochs
    are known to them alone. `others`: nodes that had it, as somebody else knows."""
    had = nodes_that_had(name) | nodes_of_births(name)
    return (had.union(others) & known.retired_nodes()) - {*reports}


def look_for(expected: Collection[str], replicas: int = 0) -> dict[str, NodeReport]:
    """What all nodes say, also those that nobody expects: of a look for some, the quickest answers alone come back. A
    busy node may take longer than one look lasts."""
    reports = nodes.look()
    for _ in range(known.LOOKS_MAX - 1):
        if len(reports) < replicas or not reports.keys() >= {*expected}:
            reports |= nodes.look()
    return reports


def check_nodes(wanted: Sequence[str], reports: dict[str, NodeReport], heard_of: Iterable[str] = ()) -> None:
    """Raises NotMade where one of these is not known, or does not answer. `heard_of`: elsewhere than in the record."""
    if why := known.problem({*wanted} - {*heard_of}, reports):
        raise NotMade(why)
    silent = [node for node in wanted if node not in reports]
    if silent:
        raise NotMade(f"{', '.join(silent)}: no answer, and a replica is wanted there")


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
        if under_way(name) is None:
            raise
        raise NotMade(f"somebody else is making {name}; give the command again to go on with it") from None
    try:
        check_name_is_free(name, nodes.look())  # Another may have begun and finished since it was looked at.
    except NotMade:
        birth.delete()
        raise
    return birth


def check_name_is_free(name: str, reports: dict[str, NodeReport], but: Birth | None = None) -> None:
    """`but`: a try that is under way, whose replicas may be there."""
    own = but.cluster_id if but is not None else ""
    for report in reports.values():
        for hosted in report.replicas:
            if hosted.cluster_name == name and hosted.cluster != own:
                raise NotMade(f"there is a cluster {name}: {report.node} hosts a replica of it ({hosted.cluster})")


def check_all_answer(name: str, asked: Collection[str], gone: Collection[str], reports: dict[str, NodeReport]) -> None:
    """Raises NotMade for any of these nodes that does not answer, and for one that does although it is `gone`."""
    silent = sorted({*asked} - reports.keys())
    if silent:
        raise NotMade(
            f"{', '.join(silent)}: no answer, and {name} may still be there, or have had a higher restore epoch. Start "
            f"them; where they are lost for good, so that nothing of theirs ever runs again: --gone "
            f"{','.join(sorted({*silent, *gone}))}"
        )
    back = sorted(reports.keys() & {*gone})
    if back:
        raise NotMade(f"{', '.join(back)}: said to be gone, and answers")


def ask_for_directories(name: str, client_of: Callable[[str], Client]) -> list[wire.Directory]:
    """Who is there, as the logs say. A node that the broker does not reach serves on: with the database lost, nothing
    else says so. Empty where no node answers."""
    found = []
    for cluster in dict.fromkeys((name, access.DEFAULT_CLUSTER)):
        try:
            found.append(client_of(cluster).directory())
        except errors.Unavailable:
            continue
    return found


def check_nobody_answers(name: str, directories: Iterable[wire.Directory]) -> None:
    """Raises NotMade where a cluster of this name is served."""
    for entry in [entry for there in directories for entry in there.clusters]:
        if entry.name == name:
            raise NotMade(f"there is a cluster {name} ({entry.cluster:x}): {', '.join(entry.nodes)} serve it")


def _choose(replicas: int, reports: dict[str, NodeReport]) -> tuple[str, ...]:
    zones = dict(Node.objects.values_list("name", "zone"))
    views = [NodeView(name, zone=zones.get(name, ""), replicas=len(r.replicas)) for name, r in reports.items()]
    chosen = choose(replicas, None, views)
    if len(chosen) < replicas:
        raise NotMade(
            f"{replicas} replicas take as many nodes, and {len(chosen)} answer: {', '.join(chosen) or 'none'}"
        )
    return chosen


def _epoch(
    name: str, reports: dict[str, NodeReport], given: int | None, gone: Collection[str], but: Birth | None
) -> int:
    """Above every epoch that a cluster of this name ever had, so that its fencing tokens only grow (rule 6)."""
    had_epochs = [report.epochs[name] for report in reports.values() if name in report.epochs]
    had_epochs += begun_epochs(name, but)
    highest = max(had_epochs, default=-1)
    if highest >= EPOCH_MAX:
        raise NotMade(f"{name} had restore epoch {highest}, and {EPOCH_MAX} is the last: take another name")
    if given is not None:
        if given <= highest:
            raise NotMade(f"expected --epoch above {highest}, which a cluster {name} had, got {given}")
        return given
    if gone:
        least = f"{highest} is the highest that is known" if highest >= 0 else "1 where there never was one"
        raise NotMade(
            f"{', '.join(sorted(gone))}: may have had {name}, and can not say any more in which restore epochs: give "
            f"--epoch, above every one that it ever had; {least}"
        )
    for cluster in Cluster.objects.filter(name=name):
        if why := _epochs_problem(cluster, reports):
            raise NotMade(f"{why}: give --epoch, above every one that it ever had")
    return highest + 1


def _epochs_problem(cluster: Cluster, reports: dict[str, NodeReport]) -> str:
    """Why the nodes cannot say in which restore epochs this cluster was, which is over; "" where they can."""
    had = {*Node.objects.filter(replicas__cluster=cluster).values_list("name", flat=True)}
    for nodes_of_birth in Birth.objects.filter(cluster_id=cluster.cluster_id).values_list("nodes", flat=True):
        had.update(nodes_of_birth)
    there_was = f"there was a cluster {cluster.name} ({cluster.cluster_id})"
    if not had:
        return f"{there_was}, and the record does not say on which nodes, which would know its restore epoch"
    told = {node for node in had if node in reports and cluster.name in reports[node].epochs}
    if len(told) < majority(len(had)):
        names = ", ".join(sorted(had))
        return f"{there_was}, and a majority of its nodes ({names}) cannot say (any more) what its restore epoch was"
    return ""


def begun_epochs(name: str, but: Birth | None = None) -> list[int]:
    """Of every cluster of this name that may ever have begun, as far as the record knows. `but`: a try that is under
    way, and is to become another or to be given up.

    A try without a document told no node its epoch, and once it is over it gets no document any more: nothing was begun
    in that epoch. Nor in one beyond the maximum, which no state takes.
    """
    rows = Birth.objects.filter(name=name, epoch__lte=EPOCH_MAX)
    own = but.pk if but is not None else None
    return [row.epoch or 0 for row in rows if row.members or (row.finished_at is None and row.pk != own)]


# --- a try that is to become another, or is over --------------------------------------------------


def _locked(birth: Birth) -> Birth:
    """Its row, for one that is to change it. Raises NotMade where somebody else has changed it since it was read."""
    kept = Birth.objects.select_for_update().get(pk=birth.pk)
    seen = (birth.nodes, birth.epoch, birth.members, birth.finished_at)
    if (kept.nodes, kept.epoch, kept.members, kept.finished_at) != seen:
        raise NotMade(f"somebody else is making {birth.name}, too; give the command again to go on with what is there")
    return kept


def _change(birth: Birth, chosen: Sequence[str], epoch: int) -> Birth:
    """Other nodes, or another epoch, for a cluster that has no document yet: so none of its replicas can have begun.
    What the nodes drew that are left out is nobody for ever, and deleted in the end (`finish`), even where one of them
    is down until then."""
    with transaction.atomic():
        kept = _locked(birth)
        assert not kept.members, kept
        kept.left_out = sorted({*kept.left_out, *kept.nodes} - {*chosen})
        kept.nodes, kept.epoch = list(chosen), epoch
        kept.save(update_fields=["nodes", "left_out", "epoch"])
    return kept


def check_is_over(birth: Birth, reports: dict[str, NodeReport]) -> None:
    """A try is over only where all of its nodes say that they host no replica for it: then its document names nobody
    any more who could begin. Raises NotMade where that is not so."""
    left = [node for node in birth.nodes if node not in reports or reports[node].hosted(birth.cluster_id) is not None]
    if left:
        raise NotMade(already_made(birth, left))


def already_made(birth: Birth, left: Sequence[str]) -> str:
    """What to do about a try of something else. `left`: nodes that may have a replica of it."""
    return (
        f"{birth.name} is being made already, as {birth.cluster_id} on {', '.join(birth.nodes)} in restore epoch "
        f"{birth.epoch}, of something else. Go on with that; or give it up: manage.py cluster remove-replica "
        f"{birth.name} NODE --force for {', '.join(left) or 'each of them'}"
    )


def give_up(birth: Birth) -> None:
    """It stays in the record, for its epoch. Raises NotMade where somebody else goes on with it."""
    with transaction.atomic():
        kept = _locked(birth)
        kept.finished_at = timezone.now()
        kept.save(update_fields=["finished_at"])


# --- the rounds -----------------------------------------------------------------------------------


def request_of(birth: Birth, round_name: str) -> str:
    return f"birth-{birth.cluster_id}-{round_name}"


def write_document(birth: Birth, client_of: Callable[[str], Client]) -> None:
    """Have the nodes draw identities, and write the document down, once. Raises NotMade where there is a log of this
    cluster that the record knows nothing of."""
    request = request_of(birth, "host")
    order = {"cluster": birth.cluster_id, "cluster_name": birth.name}
    drawn = nodes.ask_all(birth.nodes, "host_replica", request, NODES_S_MAX, **order)
    all_done(birth, drawn, birth.nodes, needed=len(birth.nodes))
    fingerprints = {outcome.fingerprint for outcome in drawn.values()}
    if len(fingerprints) != 1:
        raise NotMade("the nodes would begin different logs: they have different keys, or run different versions")
    for node, outcome in drawn.items():
        if outcome.epoch >= (birth.epoch or 0) and outcome.epoch >= 0:
            raise NotMade(
                f"expected an epoch above {outcome.epoch}, which {birth.name} had on {node}, got {birth.epoch}"
            )
    reports = look_for(birth.nodes)
    begun_on = _begun_on(birth, reports, ask_for_directories(birth.name, client_of))
    members = [[drawn[node].replica, node, reports[node].address, 0] for node in birth.nodes if node in reports]
    if len(members) != len(birth.nodes):
        raise NotMade(f"not all of {', '.join(birth.nodes)} answer. Give the command again to go on with {birth.name}")
    with transaction.atomic():
        kept = Birth.objects.select_for_update().get(pk=birth.pk)
        if (kept.nodes, kept.epoch, kept.finished_at) != (birth.nodes, birth.epoch, None):
            raise NotMade(f"somebody else has changed what {birth.name} is to be, or gave it up; look again")
        if begun_on and not kept.members:
            raise NotMade(
                f"{birth.name} ({birth.cluster_id}) has a log already, on {', '.join(begun_on)}, and the database "
                f"knows of none: it was put back. Nothing is made; to look at that cluster: manage.py cluster status "
                f"{birth.name}, to take its word: manage.py cluster rebuild {birth.name}"
            )
        if not kept.members:
            kept.members, kept.fingerprint = members, kept.fingerprint or fingerprints.pop()
            kept.save(update_fields=["members", "fingerprint"])
    birth.refresh_from_db()


def _begun_on(birth: Birth, reports: dict[str, NodeReport], directories: Iterable[wire.Directory]) -> list[str]:
    """Nodes that have more of this cluster than an empty replica. Who has none is in no directory."""
    hosted = {node: report.hosted(birth.cluster_id) for node, report in reports.items()}
    begun = {node for node, replica in hosted.items() if replica is not None and replica.state != EMPTY}
    for entry in [entry for there in directories for entry in there.clusters]:
        if record.identity(entry.cluster) == birth.cluster_id:
            begun.update(entry.nodes)
    return sorted(begun)


def _form(birth: Birth, say: Callable[[str], None]) -> None:
    """Give every node the document. A majority that has it is a cluster; the rest gets the log from there."""
    request = request_of(birth, "form")
    formed = nodes.ask_all(
        birth.nodes,
        "form_cluster",
        request,
        NODES_S_MAX,
        cluster=birth.cluster_id,
        cluster_name=birth.name,
        epoch=birth.epoch,
        members=birth.members,
        fingerprint=birth.fingerprint,
    )
    late = all_done(birth, formed, birth.nodes, needed=majority(len(birth.nodes)))
    if late:
        say(f"not yet on {', '.join(late)}")


def all_done(birth: Birth, outcomes: dict[str, TaskOutcome], asked: Iterable[str], needed: int) -> list[str]:
    """Nodes that have not done it. Raises NotMade where fewer than `needed` have."""
    done = {node for node, outcome in outcomes.items() if outcome.state == nodes.DONE}
    late = [node for node in asked if node not in done]
    if len(done) < needed:
        why = "; ".join(f"{node}: {outcomes[node].message if node in outcomes else 'no answer'}" for node in late)
        other = "" if birth.members or is_restore(birth) else ", or with other nodes (--on, --replicas)"
        raise NotMade(f"{why}. Give the command again to go on with {birth.name}{other}")
    return late


def finish(birth: Birth, client: Client, say: Callable[[str], None], leader_s_max: float = LEADER_S_MAX) -> Cluster:
    """Wait for its first leader, and tell its log what is wanted of it, where nobody has said anything to it since."""
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
    cluster = record.record_birth(birth.name, birth.cluster_id, birth.nodes)
    said = edits.compare(cluster, client.query(commands.GetWantedMembership()))
    if said.agreement is edits.Agreement.NOTHING:
        wanted = _wanted(birth)
        with contextlib.suppress(edits.NotInTheLogYet, edits.DatabaseBehind):  # Another who makes it may be quicker.
            edits.say(client, cluster, lambda _: wanted)
    birth.finished_at = timezone.now()
    birth.save(update_fields=["finished_at"])
    say(f"{leader} leads {birth.name}")
    return cluster


def _wanted(birth: Birth) -> Wanted:
    """Its nodes as they were said, and without whatever replicas of it others have."""
    hosting = {node for node, report in nodes.look().items() if report.hosted(birth.cluster_id)}
    leaving = sorted({*birth.left_out, *hosting} - {*birth.nodes})
    return Wanted(tuple(Place(node) for node in birth.nodes), tuple(leaving))
