"""What clients ask of nodes."""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.consensus.members import Member
from coordinator.statemachine.commands import GetKey, Query
from coordinator.statemachine.files import GetStat, ReadChanges, ReadFile
from coordinator.statemachine.lock_commands import ReadLockEvents, ReadLockLives
from coordinator.wire.structs import Struct

FOR_TOKEN: Final = "token:"  # noqa: S105 - what stands before an id
"""In `act_for`, before the id of a token: act for whoever has it, with no more than that token may."""
PRIORITY_MAX: Final = 1_000
"""Of a member, above and below zero."""


class CommandRequest(Struct, tag=1, frozen=True):
    """Apply `command` once. `command` stays encoded: the node checks it and appends the bytes as they are. `act_for`:
    a principal, or a token (FOR_TOKEN), that the caller asks for; "": it asks for itself."""

    id: int
    cluster: int
    act_for: str
    command: msgspec.Raw


class QueryRequest(Struct, tag=2, frozen=True):
    """A linearizable read: answered by a leader that a majority confirmed after the request came, or by the follower
    that confirms it (`consensus/raft/reads.py`)."""

    id: int
    cluster: int
    act_for: str
    query: Query


class KeepAliveRequest(Struct, tag=3, frozen=True):
    """Give `session` its full time to live again. Answered like a read (history 1).

    A copy of it renews nothing (history 7): `term` names the leadership that it is for, and within that `count` only
    grows for the caller's channel.
    """

    id: int
    cluster: int
    act_for: str
    session: int
    term: int
    count: int


class WatchRequest(Struct, tag=30, frozen=True):
    """A `ReadChanges` that waits: answered as soon as there is something of what it asks for, else after `wait_ms` with
    a page without changes, which says where to go on. Asked again under the same `id` it takes the place of the
    earlier. Whoever is turned away asks the next leader from the same position."""

    id: int
    cluster: int
    act_for: str
    query: ReadChanges
    wait_ms: int


CachedQuery = ReadFile | GetStat | GetKey
"""What a client may keep, where it is of now."""


class CachedQueryRequest(Struct, tag=40, frozen=True):
    """A linearizable read whose answer the client would like to keep, for a session of its own that has begun to cache.
    Answered by `CachedAnswer` where it may, else by `Answer`."""

    id: int
    cluster: int
    session: int
    query: CachedQuery


class RenewCacheRequest(Struct, tag=41, frozen=True):
    """What the client keeps under (`term`, `number`) is still of use to it. Answered like a read, with `CacheRenewed`,
    and not while it owes the word that it has dropped something. `count` only grows: a copy renews nothing."""

    id: int
    cluster: int
    session: int
    term: int
    number: int
    count: int


class DroppedRequest(Struct, tag=42, frozen=True):
    """What the `Invalidation` of (`term`, `number`, `ticket`) names is served no more, nor is anything under an earlier
    (`term`, `number`) (`ticket` 0: that alone). Has no answer; the leader says it again until it hears this."""

    id: int
    cluster: int
    session: int
    term: int
    number: int
    ticket: int


class EventsRequest(Struct, tag=31, frozen=True):
    """A `WatchRequest`, for changes or for events of locks, that is answered by `Told`. `term`: of the leader that
    answered before (0: nobody has). A later one answers at once, so that it is known from where on another leads. Nodes
    of programs before level 4 do not know it."""

    id: int
    cluster: int
    act_for: str
    query: ReadChanges | ReadLockEvents | ReadLockLives
    wait_ms: int
    term: int


class DirectoryRequest(Struct, tag=4, frozen=True):
    """Who is there: any node answers at once from what it knows."""

    id: int


class StatusRequest(Struct, tag=5, frozen=True):
    """What this node's replica of the named cluster looks like from inside, now."""

    id: int
    cluster_name: str


class ConfirmRequest(Struct, tag=6, frozen=True):
    """Is this node a leader that a majority confirms now? For readiness."""

    id: int
    cluster: int


class CrashRequest(Struct, tag=7, frozen=True):
    """Fault injection: end this node's process at once, as `kill -9` would. `pid` names the process that is meant, so
    that a copy does not end the next one."""

    id: int
    cluster: int
    act_for: str
    pid: int


class ProgressRequest(Struct, tag=20, frozen=True):
    """An operator asks the leader: who is a member, and how far has each come? Takes the right to administer, as all
    of an operator's requests do."""

    id: int
    cluster: int
    act_for: str


class ChangeRequest(Struct, tag=21, frozen=True):
    """Make the membership what `voters` and `learners` say. Done where it is so already.

    Whoever asks has looked first (`Progress`): `term` names the leadership, and `seen_index` its commit index then.
    A configuration behind that index is one that the asker has not seen, so the request is refused: neither a copy
    of it nor another operator's older word undoes a later change.
    """

    id: int
    cluster: int
    act_for: str
    term: int
    seen_index: int
    voters: tuple[Member, ...]
    learners: tuple[Member, ...]


class TransferRequest(Struct, tag=22, frozen=True):
    """Hand the leadership of `term` to the replica `target`. Answered when that has begun; it may come to nothing. To
    name the leader's own replica aborts a transfer that is under way."""

    id: int
    cluster: int
    act_for: str
    term: int
    target: int


class StepDownRequest(Struct, tag=23, frozen=True):
    """Give up the leadership of `term`, to whoever is furthest."""

    id: int
    cluster: int
    act_for: str
    term: int


class CompactRequest(Struct, tag=24, frozen=True):
    """Take a snapshot at the next mark, and cut the log behind it, unless there is one at `up_to` or later. For one
    node's replica; answered at once."""

    id: int
    cluster: int
    act_for: str
    up_to: int


OperatorRequest = ProgressRequest | ChangeRequest | TransferRequest | StepDownRequest | CompactRequest

Request = (
    CommandRequest
    | QueryRequest
    | KeepAliveRequest
    | DirectoryRequest
    | StatusRequest
    | ConfirmRequest
    | WatchRequest
    | CachedQueryRequest
    | RenewCacheRequest
    | DroppedRequest
    | EventsRequest
    | CrashRequest
    | OperatorRequest
)


class RequestBatch(Struct, frozen=True):
    """`reply` is the client's own channel; it must carry the clients' prefix."""

    reply: str
    requests: list[Request]
