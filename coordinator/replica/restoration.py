"""The log that a restored cluster begins with, made of a backup: a snapshot of its state, in the higher restore epoch.

The entry that raises the epoch is the new log's first, and is in the snapshot already: whoever has anything of that log
knows its epoch, though it be killed at any moment. One replica of the new cluster begins it, the first of its members;
the others are empty, and get the snapshot from there. So nothing is decided before a majority has it: until then the
first can not be elected, or can not commit. What is changed in the state is in `statemachine/restoration.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final, NamedTuple

from coordinator.consensus.engine import HardState, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.membership import Configuration, decode_configuration
from coordinator.replica import backup
from coordinator.replica.births import FIRST_TERM, WEB_PRINCIPAL, WebToken
from coordinator.replica.intents import RestoreReplica
from coordinator.replica.stored import StoredLog
from coordinator.statemachine import restoration, snapshot
from coordinator.statemachine.commands import Done
from coordinator.statemachine.commands.levels import why_unreadable
from coordinator.statemachine.lock_commands import RaiseEpoch
from coordinator.statemachine.machine import Machine, encode_node_entry, level_from
from coordinator.statemachine.restoration import NotRestorable

PREFIX: Final = "restore:"


class Begun(NamedTuple):
    """What a replica begins with. `machine`: the state of the log's snapshot, so that nobody loads it again."""

    log: StoredLog
    machine: Machine


def fingerprint(digest: str) -> str:
    """What stands in the document of a cluster that is restored, where a cluster that is born has `births.fingerprint`:
    no node takes the one for the other."""
    return PREFIX + digest


def state_of(contents: backup.Contents) -> Machine:
    """The state machine after the backup's last entry, which takes as long as the state is large. Raises NotRestorable,
    SnapshotDamaged."""
    machine = Machine()
    if contents.snapshot:
        snapshot.load(machine, contents.snapshot)
    if machine.applied > contents.header.snapshot_index or contents.header.first_index != (
        contents.header.snapshot_index + 1
    ):
        raise NotRestorable(
            f"expected entries from {machine.applied + 1} on, got {contents.header.first_index} "
            f"behind a snapshot at {contents.header.snapshot_index}"
        )
    for index, entry in enumerate(contents.entries, contents.header.first_index):
        if entry[:1] == COMMAND_PREFIX:
            if why := why_unreadable(level_from(entry, 1)):
                raise NotRestorable(why)
            machine.apply(index, memoryview(entry)[1:])
            machine.events = []
    if (machine.state.cluster_name, machine.cluster_id) != (contents.header.cluster_name, contents.header.cluster):
        raise NotRestorable("it does not hold the state of the cluster that its header names")
    return machine


def begin(intent: RestoreReplica, web_token: WebToken) -> Begun:
    """Read the backup, and make the first log of it. It takes as long as the state is large: not for the loop.

    Raises OSError, BackupDamaged, SnapshotDamaged, NotRestorable.
    """
    contents = backup.read(Path(intent.path))
    if contents.digest != intent.digest:
        raise NotRestorable(f"{intent.path}: expected the file with digest {intent.digest}, got {contents.digest}")
    check_name(contents.header, intent.cluster_name)
    machine = state_of(contents)
    if machine.key_of(web_token.token_id) != (WEB_PRINCIPAL, web_token.key):
        raise NotRestorable(
            f"{intent.path}: expected a backup of this installation, and its state does not know this one's web token: "
            "put back the keys of the installation that it is of"
        )
    index = restoration.first_index(machine.state, contents.header.last_index, intent.epoch)
    restoration.begin_anew(machine.state, intent.cluster, index - 1)
    raised = machine.apply(index, encode_node_entry(RaiseEpoch(intent.epoch)))
    assert raised == Done(index, existed=True), raised
    first = Snapshot(index, FIRST_TERM, Configuration(intent.members), snapshot.dump(machine))
    return Begun(StoredLog(HardState(FIRST_TERM, 0, index), [], [], index, FIRST_TERM, first), machine)


def check_name(header: backup.Header, cluster_name: str) -> None:
    """Raises NotRestorable for a backup of a cluster of another name: its tokens are for other resources."""
    if header.cluster_name != cluster_name:
        raise NotRestorable(f"expected a backup of {cluster_name}, got one of {header.cluster_name}")


def main() -> int:
    """What is refused here is refused before a cluster is begun anew, which takes a restore epoch for good."""
    parser = argparse.ArgumentParser(description="Read a backup, check all of it, and say in JSON what it is of.")
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    try:
        contents = backup.read(path)
        state_of(contents)
    except backup.BackupDamaged as error:
        print(error, file=sys.stderr)
        return 1
    except (snapshot.SnapshotDamaged, NotRestorable) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
        return 1
    header = contents.header
    said = {
        "cluster": f"{header.cluster:x}",
        "cluster_name": header.cluster_name,
        "epoch": header.epoch,
        "last_index": header.last_index,
        "nodes": [member.node for member in decode_configuration(header.configuration).members],
        "digest": contents.digest,
    }
    print(json.dumps(said))
    return 0
