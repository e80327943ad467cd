"""The messages of Raft. Sender, receiver and cluster are the envelope's business.

`round` numbers what a leader sends within its term, one number a turn. A follower echoes it, and so says "I took you
for the leader after you sent that": one mechanism confirms reads, keep-alives and the leader's own right to lead. A
pair (term, round) never repeats, not even over a restart, because a replica leads a term at most once (history 5).
Round 0 is none: an append of it reminds a follower of what it acknowledged (`replication.py`), and confirms nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class AppendEntries(NamedTuple):
    """Raft, figure 2, "AppendEntries RPC"; without entries it is the heartbeat. `terms` and `entries` run parallel.

    `settled`: every full voter has the log up to there on disk, so a witness need not keep it; 0 without witnesses.
    """

    term: int
    prev_index: int
    prev_term: int
    commit: int
    round: int
    terms: list[int]
    entries: list[bytes]
    settled: int = 0


class AppendResponse(NamedTuple):
    """`success`: everything up to `match` equals the leader's log and is on this replica's disk.

    Else `match` is the `prev_index` that was refused, and the largest index at which the leader may still agree is
    `hint_index`, of term `hint_term` (Raft, section 5.3, the optimisation at its end).
    """

    term: int
    round: int
    success: bool
    match: int
    hint_index: int
    hint_term: int


class VoteRequest(NamedTuple):
    """Raft, figure 2, "RequestVote RPC". `pre`: only asking (thesis, section 9.6); `term` is then the term to come.

    `campaign` tells the answers to one attempt from those to an earlier one.
    """

    term: int
    last_index: int
    last_term: int
    pre: bool
    campaign: int
    transfer: bool = False
    """The leader itself asked for this campaign (thesis, section 3.10): loyalty to it does not stand in the way."""


class VoteResponse(NamedTuple):
    """`term`: the term that was asked for where `granted`, else the voter's own."""

    term: int
    granted: bool
    pre: bool
    campaign: int


class TimeoutNow(NamedTuple):
    """The leader of `term` hands its leadership to the receiver (thesis, section 3.10)."""

    term: int


class InstallSnapshot(NamedTuple):
    """Raft, figure 13: a part of the snapshot that ends at `last_index`, from `offset` on, of `size` bytes in all.

    Also the heartbeat of a follower that is being sent one. `configuration` is the entry of the configuration there.
    """

    term: int
    round: int
    last_index: int
    last_term: int
    configuration: bytes
    size: int
    offset: int
    data: bytes


class SnapshotResponse(NamedTuple):
    """Everything of the snapshot of `size` bytes that ends at `last_index` is here up to `offset`; where that is its
    size, on disk. A snapshot without a state is whole at 0; -1: refused, from a leader of the past."""

    term: int
    round: int
    last_index: int
    offset: int
    size: int


class ReadRequest(NamedTuple):
    """A follower asks the leader for an index at which its reads are linearizable (thesis, section 6.4).

    `boot` and `ticket` name the question; `boot` is drawn anew at each start, so that they never repeat (history 5).
    """

    term: int
    boot: int
    ticket: int


class ReadResponse(NamedTuple):
    """A majority confirmed the leader after the question came; it may be answered once `read_index` is applied."""

    term: int
    boot: int
    ticket: int
    read_index: int


Message = (
    AppendEntries
    | AppendResponse
    | VoteRequest
    | VoteResponse
    | TimeoutNow
    | InstallSnapshot
    | SnapshotResponse
    | ReadRequest
    | ReadResponse
)

KINDS: Final = (
    AppendEntries,
    AppendResponse,
    VoteRequest,
    VoteResponse,
    TimeoutNow,
    InstallSnapshot,
    SnapshotResponse,
    ReadRequest,
    ReadResponse,
)
"""Their order is the wire's: only ever add at the end."""
