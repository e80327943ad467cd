"""What a node tells dashboards."""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.statemachine.commands import LockList
from coordinator.statemachine.lock_commands import Mode
from coordinator.wire.encoding import decode
from coordinator.wire.replies import ReplicaReport
from coordinator.wire.structs import Struct

FEED_LOCKS_MAX: Final = 200
FEED_LOG_CELLS: Final = 24


class Election(Struct, frozen=True):
    """One election this node saw end. `reason` says in words how it began; `votes` and `voters` are known to the
    winner alone (0 elsewhere). `at_ms` is wall-clock time, for people only. `waited_ms`: how long the
    cluster had no leader, as the winner counted it."""

    term: int
    leader: str
    reason: str
    votes: int
    voters: int
    at_ms: int
    waited_ms: int


class LogCell(Struct, frozen=True):
    index: int
    term: int
    what: str


class SharedLock(Struct, frozen=True, forbid_unknown_fields=False):
    """A lock that several may hold: `mode` is shared or counting, `holding` how many hold it, `limit` how many may of a
    counting one."""

    name: str
    mode: Mode
    limit: int
    holding: int


class Feed(Struct, frozen=True, forbid_unknown_fields=False):
    """One report of a node about one cluster. `boot` and `number` order them: numbers of one boot have no gap
    unless a message was lost; each report is whole, so that a loss heals with the next one.

    `locks` is there from the leader alone, at most FEED_LOCKS_MAX of them with the true counts beside them. `shared`:
    those of them that several may hold; None of a node that does not tell yet.

    Fields are added at the end, with defaults: who reads passes over those that it does not know.
    """

    boot: int
    number: int
    report: ReplicaReport
    elections: tuple[Election, ...]
    log: tuple[LogCell, ...]
    first_index: int
    locks: LockList | None
    commits_per_s: float
    commit_ms_p50: float
    commit_ms_p99: float
    fsync_ms_p50: float
    shared: tuple[SharedLock, ...] | None = None


_feeds = msgspec.msgpack.Decoder(Feed)


def decode_feed(body: bytes) -> Feed:
    """Raises WireError("malformed")."""
    return decode(_feeds, body)
