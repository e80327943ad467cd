"""What a node says of its replicas: for status, for the directory, and for the feed that dashboards read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from coordinator import wire
from coordinator.channel import without_credentials
from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND, CONFIGURATION
from coordinator.replica.replica import Replica
from coordinator.statemachine.commands import Entry, ExpireSessions

WAITING: Final = "waiting"
WAITING_FOR_LOG: Final = "its replica is new, and waits for a leader to add it and to send it the log"
DIGEST_BYTES_MAX: Final = 256 * 1024
"""How much state a status hashes at the most, old versions and events of locks too: some milliseconds' work. It must
not hold the turn, and whoever asks for it may be anybody."""

_entries = msgspec.msgpack.Decoder(Entry)


class Identity(NamedTuple):
    """What is the same in every report of a node's process."""

    node: str
    pid: int
    boot: int
    faults_allowed: bool
    waiting_for: str
    address: str = ""
    """Where others reach the Redis of its mailbox; "" where all share one. No secret is in it."""
    shared_redis: str = ""
    """The Redis of dashboards, and of nodes without one of their own; "" where that is this node's own."""


def replica_report(
    identity: Identity, replica: Replica, drops: Mapping[str, int], *, digest: bool
) -> wire.ReplicaReport:
    engine = replica.engine
    return wire.ReplicaReport(
        node=identity.node,
        cluster=replica.cluster,
        cluster_name=replica.cluster_name,
        replica=replica.replica,
        pid=identity.pid,
        role=_role(replica),
        leader=replica.leader_node,
        term=engine.term,
        vote=replica.configuration.node_of(engine.vote),
        last_index=engine.last_index,
        commit_index=engine.commit_index,
        applied_index=engine.applied_index,
        digest=_digest(replica) if digest else "",
        waiting_for=replica.waits_for or ("" if replica.configuration.members else WAITING_FOR_LOG),
        voters=tuple(member.node for member in replica.configuration.voters),
        drops=dict(drops),
        faults_allowed=identity.faults_allowed,
    )


def _digest(replica: Replica) -> str:
    """Of all that is applied, taken once for it, however often it is asked for. "": there is too much."""
    machine = replica.machine
    if replica.digested[0] != machine.applied:
        replica.digested = machine.applied, machine.digest(DIGEST_BYTES_MAX)
    return replica.digested[1]


def _role(replica: Replica) -> str:
    engine = replica.engine
    role: Role = engine.role
    if replica.stopped or not replica.configuration.members:
        return WAITING
    if role is Role.FOLLOWER and engine.is_witness:
        return "witness"
    if role is Role.FOLLOWER and not engine.is_voter:
        return "learner"
    return str(role.value)


def waiting_report(
    identity: Identity, cluster_name: str, drops: Mapping[str, int], waiting_for: str
) -> wire.ReplicaReport:
    """Of a node that hosts no replica of the cluster."""
    return wire.ReplicaReport(
        node=identity.node,
        cluster=0,
        cluster_name=cluster_name,
        replica=0,
        pid=identity.pid,
        role=WAITING,
        leader="",
        term=0,
        vote="",
        last_index=0,
        commit_index=0,
        applied_index=0,
        digest="",
        waiting_for=waiting_for,
        voters=(),
        drops=dict(drops),
        faults_allowed=identity.faults_allowed,
    )


def directory(node: str, replicas: Iterable[Replica], address_of: Callable[[str, str], str]) -> wire.Directory:
    """Who is there, as this node's logs say; answered without asking anyone, so it may be old. It names no request.
    `address_of`: of a node, and what the log says of it."""
    addresses = {node: ""}
    clusters = []
    for replica in replicas:
        members = replica.configuration.members
        if not members:
            continue  # It is nobody yet, and knows of no cluster but the name that it is to be of.
        addresses.update(
            (member.node, without_credentials(address_of(member.node, member.address))) for member in members
        )
        clusters.append(
            wire.ClusterEntry(
                replica.cluster_name,
                replica.cluster,
                replica.leader_node,
                replica.engine.term,
                tuple(member.node for member in members),
            )
        )
    return wire.Directory(0, node, tuple(addresses.items()), tuple(clusters))


def log_cells(replica: Replica) -> tuple[int, tuple[wire.LogCell, ...]]:
    """The first index of the log, and its last few entries in words."""
    engine = replica.engine
    first_index, terms, entries = engine.tail(wire.FEED_LOG_CELLS)
    cells = [
        wire.LogCell(index, term, _describe(entry))
        for index, (term, entry) in enumerate(zip(terms, entries, strict=True), first_index)
    ]
    return engine.first_index, tuple(cells)


def _describe(entry: bytes) -> str:
    """An entry in a few words; names only, never values."""
    if entry[0] == CONFIGURATION:
        return "configuration"
    if entry[0] != COMMAND:
        return "new term"
    try:
        op = _entries.decode(memoryview(entry)[1:]).command.op
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "unreadable"
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(op).__name__).strip()
    if isinstance(op, ExpireSessions):
        return f"{words} ({len(op.sessions)})"
    name = getattr(op, "name", None) or getattr(op, "key", None)
    return f"{words} {name}" if isinstance(name, str) else words
