"""What nodes answer clients, and what they tell them unasked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from coordinator.consensus.members import Member
from coordinator.statemachine.commands import Result
from coordinator.statemachine.lock_commands import Break
from coordinator.wire.encoding import decode
from coordinator.wire.structs import Struct


class Answer(Struct, tag=1, frozen=True):
    """The result of a command or a query."""

    id: int
    result: Result


class Overloaded(Struct, tag=50, frozen=True):
    """There was no room for this copy of a request, and it is not applied: ask again after `retry_ms`. In a packet of
    its own: a client of before this drops that packet alone, and asks again when it is due."""

    id: int
    message: str
    retry_ms: int


class Told(Struct, tag=31, frozen=True):
    """The answer to an `EventsRequest`, by the leader of `term`."""

    id: int
    result: Result
    term: int


class KeptAlive(Struct, tag=2, frozen=True):
    id: int
    session: int
    ttl_ms: int


class OtherTerm(Struct, tag=8, frozen=True):
    """A keep-alive named another leadership than this one of `term`: nothing was renewed, ask again."""

    id: int
    term: int


class CachedAnswer(Struct, tag=40, frozen=True):
    """The result of a `CachedQueryRequest`. The client may answer from it for the length of the cache lease, counted
    from the sending of the question, and longer by renewals of (`term`, `number`): all that it may keep has the same,
    and of two numbers the greater is the later. `ticket`: of the last invalidation that was told before; an answer from
    before one that the client has taken in is not kept."""

    id: int
    result: Result
    term: int
    number: int
    ticket: int
    lease_ms: int


class CacheRenewed(Struct, tag=41, frozen=True):
    """(`term`, `number`) holds on. Where that is another than the client's, what it keeps is not by this leader, or not
    any more, and nothing of it may be served."""

    id: int
    term: int
    number: int
    lease_ms: int


class Invalidation(Struct, tag=42, frozen=True):
    """Not an answer: what is kept of `paths` (`everything`: of any) is about to change. Told until the client says that
    it serves it no more, or its lease has run out."""

    cluster: int
    session: int
    term: int
    number: int
    ticket: int
    paths: tuple[str, ...]
    everything: bool


class NotLeader(Struct, tag=3, frozen=True):
    """Ask `leader` instead ("" where this node knows of none)."""

    id: int
    leader: str


class ClusterEntry(Struct, frozen=True):
    name: str
    cluster: int
    leader: str
    term: int
    nodes: tuple[str, ...]


class Directory(Struct, tag=4, frozen=True):
    """`nodes`: each node's name and the address of its mailbox ("": the Redis on which this was asked)."""

    id: int
    node: str
    nodes: tuple[tuple[str, str], ...]
    clusters: tuple[ClusterEntry, ...]


class ReplicaReport(Struct, frozen=True):
    """One replica as its node sees it. `role`: leader, follower, candidate, pre-candidate, learner, witness, waiting.
    `waiting_for` says, in words, what a replica in role waiting waits for."""

    node: str
    cluster: int
    cluster_name: str
    replica: int
    pid: int
    role: str
    leader: str
    term: int
    vote: str
    last_index: int
    commit_index: int
    applied_index: int
    digest: str
    waiting_for: str
    voters: tuple[str, ...]
    drops: dict[str, int]
    faults_allowed: bool


class StatusAnswer(Struct, tag=5, frozen=True):
    id: int
    report: ReplicaReport


class Confirmed(Struct, tag=6, frozen=True):
    id: int
    term: int


class GrantPushed(Struct, tag=7, frozen=True):
    """Not an answer: a queued acquisition was granted. May be lost, so the waiter also asks (history 8)."""

    cluster: int
    session: int
    name: str
    acquisition: int
    token: int


class HoldBroken(Struct, tag=9, frozen=True):
    """Not an answer: a hold of this client's was taken away by force. May be lost, and is told more than once. In a
    packet of its own: a client of before this drops that packet alone."""

    cluster: int
    broken: Break


class MemberProgress(Struct, frozen=True):
    """How far one member has come, as the leader counts it. `state`: "leader", or as etcd names a follower's: probe,
    replicate, snapshot. `heard_ms`: since it last answered; -1: not in this leadership. The last two: of the snapshot
    that it is being sent, how much has arrived, and its size in bytes."""

    replica: int
    match: int
    state: str
    heard_ms: int
    snapshot_acked: int
    snapshot_size: int


class Progress(Struct, tag=20, frozen=True):
    """The membership and how each member is doing, as the leader of `term` on `node` sees it.

    `configuration_index`: where the configuration in force is in the log; `outgoing`: the voters of before, while it is
    joint. `promote_lag_max`: a learner that lacks more entries than this is not made a voter. `quorum_ms`: a member not
    heard for so long does not count as answering.
    """

    id: int
    node: str
    replica: int
    term: int
    last_index: int
    commit_index: int
    first_index: int
    configuration_index: int
    voters: tuple[Member, ...]
    outgoing: tuple[Member, ...]
    learners: tuple[Member, ...]
    members: tuple[MemberProgress, ...]
    promote_lag_max: int
    quorum_ms: int


Reply = (
    Answer
    | Told
    | KeptAlive
    | OtherTerm
    | NotLeader
    | Directory
    | StatusAnswer
    | Confirmed
    | GrantPushed
    | HoldBroken
    | Progress
    | CachedAnswer
    | CacheRenewed
    | Invalidation
    | Overloaded
)

_replies = msgspec.msgpack.Decoder(list[Reply])


decode_replies: Callable[[bytes], list[Reply]] = partial(decode, _replies)
"""Raises WireError("malformed"). (No function: this module is not compiled, and a client calls it for each packet.)"""
