"""Births: the first journals of all nodes of a new cluster, put in place at once (docs/design.md, rule 4).

Only this makes a replica with an identity out of nothing, and only where there are no nodes yet. All journals are
written beside the nodes' directory, and one rename puts them there: killed at any moment there are all of them or none.
Every journal begins with the same two committed entries, the configuration and the genesis, in term 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from coordinator import wire
from coordinator.consensus.engine import HardState
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.replica.directory import sync
from coordinator.replica.journal import FILE_NAME, SqliteJournal
from coordinator.replica.ports import JournalFailed
from coordinator.replica.stored import JournalDamaged, StoredLog, StoredReplica
from coordinator.statemachine.commands import LEVEL, RIGHTS, AddToken, Genesis, SetPrincipal
from coordinator.statemachine.machine import encode_node_entry

WEB_PRINCIPAL = "web"
FIRST_TERM = 1
FIRST_EPOCH = 0
"""So that the first fencing tokens are the log indices themselves."""


class AlreadyBorn(Exception):
    """There are nodes here already; nothing forms anew beside them."""


class WebToken(NamedTuple):
    """What the log keeps of the web tier's token, which is the first of every cluster."""

    token_id: str
    key: bytes

    def __repr__(self) -> str:
        return f"WebToken({self.token_id!r})"


def first_log(
    cluster: int, cluster_name: str, epoch: int, members: list[Member], web_token: wire.Token | WebToken
) -> StoredLog:
    """What every journal of a new cluster holds."""
    genesis = Genesis(
        cluster,
        cluster_name,
        epoch,
        (SetPrincipal(WEB_PRINCIPAL, RIGHTS, act_for=True),),
        (AddToken(web_token.token_id, WEB_PRINCIPAL, web_token.key),),
        LEVEL,
    )
    entries = [encode_configuration(Configuration(tuple(members))), COMMAND_PREFIX + encode_node_entry(genesis)]
    return StoredLog(HardState(FIRST_TERM, 0, len(entries)), [FIRST_TERM] * len(entries), entries)


def fingerprint(web_token: WebToken) -> str:
    """How this node begins a log: with which web token, and in what bytes. Two nodes of the same fingerprint make the
    same first entries from the same document."""
    sample = first_log(1, "sample", 1, [Member(1, "sample", "", 1)], web_token)
    return hashlib.blake2b(wire.encode(sample.entries), digest_size=16).hexdigest()


def create(
    nodes_directory: Path,
    nodes: list[str],
    cluster_name: str,
    web_token: wire.Token,
    addresses: Mapping[str, str] | None = None,
) -> int:
    """Make the cluster's first journals; its identity. `addresses`: of nodes with a Redis of their own. Raises
    AlreadyBorn, ValueError, OSError; JournalDamaged, JournalFailed where the disk does not take them."""
    for node in nodes:
        if not wire.NODE_NAME.fullmatch(node):
            raise ValueError(f"a node's name matches {wire.NODE_NAME.pattern}, got {node!r}")
    if nodes_directory.exists():
        raise AlreadyBorn(f"{nodes_directory} exists")
    cluster = _identity()
    members = [Member(_identity(), node, (addresses or {}).get(node, "")) for node in nodes]
    log = first_log(cluster, cluster_name, FIRST_EPOCH, members, web_token)
    unborn = nodes_directory.with_name(f"{nodes_directory.name}.unborn")
    shutil.rmtree(unborn, ignore_errors=True)  # Of a birth that was killed before its rename: nobody ever saw it.
    for member in members:
        directory = unborn / member.node
        directory.mkdir(mode=0o700, parents=True)
        journal = SqliteJournal(directory, member.node)
        journal.admit(StoredReplica(member.replica, cluster, cluster_name), FIRST_EPOCH, log)
        journal.close()
        sync(directory / FILE_NAME)
        sync(directory)
    sync(unborn)
    os.rename(unborn, nodes_directory)
    sync(nodes_directory.parent)
    return cluster


def _identity() -> int:
    """A random number that nobody has had and nobody will have."""
    return secrets.randbits(63) or 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the first journals of a new cluster; the web token on stdin.")
    parser.add_argument("--nodes-directory", type=Path, required=True)
    parser.add_argument("--nodes", required=True, help="names, separated by commas")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--address", default="", help="of the Redis of all their mailboxes, where that is their own")
    arguments = parser.parse_args()
    try:
        token = wire.Token.parse(sys.stdin.read())
        nodes = arguments.nodes.split(",")
        addresses = dict.fromkeys(nodes, arguments.address)
        cluster = create(arguments.nodes_directory, nodes, arguments.cluster, token, addresses)
    except (AlreadyBorn, ValueError, OSError, JournalDamaged, JournalFailed) as error:
        print(f"no cluster was made: {error}", file=sys.stderr)
        return 1
    print(f"{cluster:x}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
