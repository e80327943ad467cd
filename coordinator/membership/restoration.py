"""A cluster begun anew from a backup, under its old name, on running nodes: as one is made (`creation.py`), but for its
first log, which the first of its nodes makes of the backup.

Nothing is begun before every node that may know something of the old cluster was asked: what restore epoch it had
there, so that the new one is above, and whether it is still there, so that two never serve under one name. A node that
does not answer is one that might; only an operator's own word says that it is gone (docs/design.md, rules 4 and 6).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec
from django.utils import timezone

from coordinator import wire
from coordinator.client import Client
from coordinator.membership import creation, nodes
from coordinator.membership.creation import NotMade
from coordinator.membership.nodes import NodeReport
from coordinator.membership.wanted import VOTERS_MAX
from coordinator.models import Birth, Cluster, Node

READ_S_MAX: Final = 300.0
RESTORE_S_MAX: Final = 300.0
"""How long the first node may take to read the backup and to begin with it."""
LEADER_S_MAX: Final = 120.0
"""A majority has the state before there is a leader that can do anything."""


class Backup(msgspec.Struct, frozen=True):
    """What a backup is of: `nodes` had the cluster when it was made. `digest`: of the whole file."""

    cluster: str
    cluster_name: str
    epoch: int
    last_index: int
    nodes: tuple[str, ...]
    digest: str


def look_into(path: Path) -> Backup:
    """Read and check all of a backup, in a process of its own: it may be large. Raises NotMade."""
    command = [sys.executable, "-m", "coordinator.replica.backup", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=READ_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise NotMade(f"{path} could not be read within {READ_S_MAX:.0f} s") from None
    if done.returncode:
        raise NotMade(f"nothing can be restored from this: {done.stderr.decode(errors='replace').strip()}")
    return msgspec.json.decode(done.stdout, type=Backup)


def restore(
    name: str,
    path: Path,
    on: Sequence[str],
    *,
    client_of: Callable[[str], Client],
    epoch: int | None = None,
    gone: Collection[str] = (),
    say: Callable[[str], None],
) -> Cluster:
    """Begin the cluster `name` anew from the backup at `path`, on the nodes `on`, or go on where an earlier try was cut
    off. The first of the nodes reads the backup, under the same path.

    `gone`: nodes that do not answer and never will. `epoch`: above every one that a cluster of this name ever had;
    needed where some are gone, or lost what they knew. Raises NotMade, BrokerUnavailable, DatabaseError.
    """
    _check(name, on, gone)
    backup = look_into(path)
    if backup.cluster_name != name:
        raise NotMade(f"expected a backup of {name}, got one of {backup.cluster_name}")
    reports = _ask_all(name, on, backup, gone)
    birth = Birth.objects.filter(name=name, finished_at=None).first()
    if birth is not None and not _is_of(birth, backup, on):
        _give_up(birth, reports)
        birth = None
    _check_no_other(name, reports, but=birth)
    if birth is None:
        creation.check_nobody_answers(name, client_of(name))
        chosen = _epoch(name, backup, reports, epoch, gone)
        birth = creation.begin(name, on, chosen, creation.RESTORED + backup.digest)
        say(f"{name} is {birth.cluster_id}, on {', '.join(on)}, in restore epoch {chosen}")
    else:
        say(f"going on with {name}, {birth.cluster_id}, on {', '.join(birth.nodes)}, in restore epoch {birth.epoch}")
    if not birth.members:
        creation.write_document(birth)
    _begin(birth, path, backup, say)
    return creation.finish(birth, client_of(name), say, LEADER_S_MAX)


def _check(name: str, on: Sequence[str], gone: Collection[str]) -> None:
    if not wire.NODE_NAME.fullmatch(name):
        raise NotMade(f"a cluster's name matches {wire.NODE_NAME.pattern}, got {name!r}")
    if not 1 <= len(on) <= VOTERS_MAX or len({*on}) != len(on):
        raise NotMade(f"expected 1 to {VOTERS_MAX} nodes, each once, got {', '.join(on) or 'none'}")
    both = [node for node in on if node in gone]
    if both:
        raise NotMade(f"{', '.join(both)}: a node that is gone gets no replica")


def _ask_all(name: str, on: Sequence[str], backup: Backup, gone: Collection[str]) -> dict[str, NodeReport]:
    """What every node says, those that may have had the cluster among them. Raises NotMade for any that does not."""
    had = _had(name, backup)
    for nodes_of_birth in Birth.objects.filter(name=name).values_list("nodes", flat=True):
        had.update(nodes_of_birth)
    asked = {*on, *had} - {*gone}
    reports = nodes.look() if gone else nodes.look(sorted(asked))
    reports |= {} if reports.keys() >= asked else nodes.look(sorted(asked))
    silent = [node for node in on if node not in reports]
    if silent:
        raise NotMade(f"{', '.join(silent)}: no answer, and a replica is wanted there")
    silent = sorted(asked - reports.keys())
    if silent:
        raise NotMade(
            f"{', '.join(silent)}: no answer, and {name} may still be there, or have had a higher restore epoch. Start "
            f"them; where they are lost for good, so that nothing of theirs ever runs again: --gone {','.join(silent)}"
        )
    back = sorted(reports.keys() & {*gone})
    if back:
        raise NotMade(f"{', '.join(back)}: said to be gone, and answers")
    return reports


def _had(name: str, backup: Backup) -> set[str]:
    """Nodes that had a replica of a cluster of this name, as far as the record and the backup know."""
    return {*Node.objects.filter(replicas__cluster__name=name).values_list("name", flat=True), *backup.nodes}


def _check_no_other(name: str, reports: dict[str, NodeReport], but: Birth | None) -> None:
    """Two clusters of one name must never both serve."""
    own = but.cluster_id if but is not None else ""
    there = [
        (report.node, hosted.cluster)
        for report in reports.values()
        for hosted in report.replicas
        if hosted.cluster_name == name and hosted.cluster != own
    ]
    if there:
        where = ", ".join(f"{node} ({cluster})" for node, cluster in there)
        raise NotMade(
            f"there is a cluster {name} still, hosted by {where}: a restore begins another one. To give up the old one "
            f"for good: manage.py cluster remove-replica {name} NODE --force for each of them"
        )


def _epoch(name: str, backup: Backup, reports: dict[str, NodeReport], given: int | None, gone: Collection[str]) -> int:
    """Above every one that anybody knows of: the nodes' journals, the backup, and the record of what was begun."""
    known = [report.epochs[name] for report in reports.values() if name in report.epochs]
    begun = [epoch for epoch in creation.begun_epochs(name) if epoch is not None]
    highest = max([backup.epoch, *known, *begun])
    if given is not None:
        if given <= highest:
            raise NotMade(f"expected --epoch above {highest}, which a cluster {name} had, got {given}")
        return given
    wiped = sorted(node for node in _had(name, backup) & reports.keys() if name not in reports[node].epochs)
    if gone or wiped:
        raise NotMade(
            f"{', '.join([*sorted(gone), *wiped])}: had {name}, and can not say (any more) in which restore epochs: "
            f"give --epoch, above every one that it ever had; {highest} is the highest that is known"
        )
    return highest + 1


def _is_of(birth: Birth, backup: Backup, on: Sequence[str]) -> bool:
    return birth.fingerprint == creation.RESTORED + backup.digest and birth.nodes == [*on]


def _give_up(birth: Birth, reports: dict[str, NodeReport]) -> None:
    """Another try is under way that wants something else. It is over only where all of its nodes say that they host no
    replica for it: then its document names nobody any more who could begin."""
    left = [node for node in birth.nodes if node not in reports or reports[node].hosted(birth.cluster_id) is not None]
    if left or not birth.fingerprint.startswith(creation.RESTORED):
        raise NotMade(
            f"{birth.name} is being made already, as {birth.cluster_id} on {', '.join(birth.nodes)}, of something "
            f"else. Go on with that; or give it up: manage.py cluster remove-replica {birth.name} NODE --force for "
            f"{', '.join(left) or 'each of them'}"
        )
    birth.finished_at = timezone.now()  # It stays in the record, for its epoch.
    birth.save(update_fields=["finished_at"])


def _begin(birth: Birth, path: Path, backup: Backup, say: Callable[[str], None]) -> None:
    first = birth.nodes[0]
    asked = nodes.ask_and_wait(
        first,
        "restore_replica",
        creation.request_of(birth, "restore"),
        RESTORE_S_MAX,
        cluster=birth.cluster_id,
        cluster_name=birth.name,
        epoch=birth.epoch,
        members=birth.members,
        path=str(path),
        digest=backup.digest,
    )
    outcome = asked.outcome
    if outcome is None or outcome.state != nodes.DONE:
        why = outcome.message if outcome is not None else "no answer"
        raise NotMade(f"{first}: {why}. Give the command again to go on with {birth.name}")
    say(f"{first}: {outcome.message}")
