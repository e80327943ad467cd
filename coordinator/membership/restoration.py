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

from coordinator.client import Client
from coordinator.membership import creation, known, nodes
from coordinator.membership.creation import NotMade
from coordinator.membership.nodes import NodeReport
from coordinator.membership.wanted import VOTERS_MAX
from coordinator.models import Birth, Cluster
from coordinator.statemachine.restoration import epoch_max

READ_S_MAX: Final = 300.0
RESTORE_S_MAX: Final = 300.0
"""How long the first node may take to read the backup and to begin with it."""
FIRST_ROUND_S_MAX: Final = 15.0
"""So long after a try has begun its nodes may still be about to host what it asks for."""
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
    _check(name, on, gone, epoch)
    backup = look_into(path)
    if backup.cluster_name != name:
        raise NotMade(f"expected a backup of {name}, got one of {backup.cluster_name}")
    reports = _ask_all(name, on, backup, gone)
    birth = creation.under_way(name)
    other = None if birth is None or _is_of(birth, backup, on, epoch) else birth
    if other is not None:
        _check_is_over(other, reports)
        birth = None
    _check_no_other(name, reports, but=birth)
    if birth is None:
        creation.check_nobody_answers(name, creation.ask_for_directories(name, client_of))
        silent = {*gone, *creation.retired_that_had(name, reports, backup.nodes)}
        chosen = _epoch(name, backup, reports, epoch, silent, other)
        if other is not None:
            _check_nobody_is_at_it(other)
            creation.give_up(other)
        birth = creation.begin(name, on, chosen, creation.RESTORED + backup.digest)
        say(f"{name} is {birth.cluster_id}, on {', '.join(on)}, in restore epoch {chosen}")
    else:
        say(f"going on with {name}, {birth.cluster_id}, on {', '.join(birth.nodes)}, in restore epoch {birth.epoch}")
    if not birth.members:
        creation.write_document(birth, client_of)
    _begin(birth, path, backup, say)
    return creation.finish(birth, client_of(name), say, LEADER_S_MAX)


def _check(name: str, on: Sequence[str], gone: Collection[str], epoch: int | None) -> None:
    creation.check_said(name, on, gone, epoch)
    if not on:
        raise NotMade(f"expected 1 to {VOTERS_MAX} nodes, each once, got none")


def _ask_all(name: str, on: Sequence[str], backup: Backup, gone: Collection[str]) -> dict[str, NodeReport]:
    """What every node says, those that may have had the cluster among them. Raises NotMade for any that does not."""
    had = _had(name, backup) | creation.nodes_of_births(name)
    asked = {*on, *(had - known.retired_nodes())} - {*gone}
    reports = creation.look_for(asked)
    creation.check_nodes(on, reports, had)
    creation.check_all_answer(name, asked, gone, reports)
    return reports


def _had(name: str, backup: Backup) -> set[str]:
    """Nodes that had a replica of a cluster of this name, as far as the record and the backup know."""
    return creation.nodes_that_had(name).union(backup.nodes)


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


def _epoch(
    name: str,
    backup: Backup,
    reports: dict[str, NodeReport],
    given: int | None,
    gone: Collection[str],
    but: Birth | None,
) -> int:
    """Above every one that anybody knows of: the nodes' journals, the backup, and the record of what was begun. `but`:
    a try of something else, which is to be given up."""
    known = [report.epochs[name] for report in reports.values() if name in report.epochs]
    highest = max([backup.epoch, *known, *creation.begun_epochs(name, but)])
    most = epoch_max(backup.epoch, backup.last_index)
    if highest >= most or (given is not None and given > most):
        last = f"{most} is the last restore epoch for a backup of epoch {backup.epoch} and index {backup.last_index}"
        if highest >= most:
            raise NotMade(f"nothing can be restored from this: {last}, and a cluster {name} had {highest}")
        raise NotMade(f"expected --epoch from {highest + 1} to {most}, got {given}: {last}")
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
    if others := _began_without(name, backup):
        raise NotMade(
            f"the record knows {name} as {', '.join(others)} alone, and nothing of {backup.cluster}, which this is a "
            "backup of: its nodes may have begun anew since, and can not say then in which restore epochs it was: give "
            f"--epoch, above every one that it ever had; {highest} is the highest that is known"
        )
    return highest + 1


def _began_without(name: str, backup: Backup) -> list[str]:
    """The clusters of this name that the record knows, where none is the one that was backed up: as of an installation
    that was begun anew under the keys of one that was lost, and made a cluster of that name at once."""
    others = sorted(Cluster.objects.filter(name=name).values_list("cluster_id", flat=True))
    return [] if backup.cluster in others else others


def _is_of(birth: Birth, backup: Backup, on: Sequence[str], epoch: int | None) -> bool:
    same = birth.fingerprint == creation.RESTORED + backup.digest and birth.nodes == [*on]
    return same and not creation.is_other_epoch(birth, epoch)


def _check_is_over(birth: Birth, reports: dict[str, NodeReport]) -> None:
    """Another try is under way that wants something else."""
    if not creation.is_restore(birth):
        raise NotMade(creation.already_made(birth, ()))
    creation.check_is_over(birth, reports)


def _check_nobody_is_at_it(birth: Birth) -> None:
    """What nodes come to host for a try that was given up a moment before would stand in the way of the other one. A
    clock that was put back holds up nobody."""
    age_s = (timezone.now() - birth.begun_at).total_seconds()
    if not birth.members and 0 <= age_s < FIRST_ROUND_S_MAX:
        raise NotMade(
            f"{birth.name} began to be restored {age_s:.0f} s ago, as {birth.cluster_id} on {', '.join(birth.nodes)} "
            f"in restore epoch {birth.epoch}, from another file or with other nodes or epoch, maybe by somebody else: "
            f"give the command again in {FIRST_ROUND_S_MAX:.0f} s, when its nodes can say what became of that"
        )


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
