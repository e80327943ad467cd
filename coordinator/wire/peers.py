"""Between nodes: the engines' messages, and what nodes say to each other beside those. `batches.py` encodes them."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from coordinator.consensus.raft import messages
from coordinator.wire.requests import QueryRequest

Routed = tuple[int, int, int, int, msgspec.Raw]
"""Cluster, sending replica, receiving replica, the message's kind (`messages.KINDS`), the message."""


class StateDigest(NamedTuple):
    """A digest of the sender's state machine after the entry `at`, over a snapshot of `version`. `wanted`: it asks for
    the receiver's.

    Between replicas, beside the engine's messages: `coordinator/replica/comparison.py`.
    """

    version: int
    at: int
    digest: bytes
    wanted: bool


class Whereabouts(NamedTuple):
    """The sender's mailbox is on the Redis at this address. Of no replica: it is for the node."""

    address: str


class Sleeper(NamedTuple):
    """A quiet cluster: who leads it in `term`, whom this is for, and where the log ends, all of it committed."""

    cluster: int
    leader: int
    follower: int
    term: int
    last_index: int


class SleepBeat(NamedTuple):
    """One heartbeat for all these. Of no replica: from node to node, in a packet of its own, since who does not know it
    drops the packet. `boot` and `number` name it and never repeat (`coordinator/replica/sleep.py`)."""

    boot: int
    number: int
    sleepers: list[Sleeper]


class SleepAnswer(NamedTuple):
    """The followers of all those clusters would have answered that, but for those of the clusters `awake`."""

    boot: int
    number: int
    awake: list[int]


class Questions(NamedTuple):
    """Of one client, as its leader took them: the reply channel, the token that they were signed with, the requests."""

    channel: str
    token_id: str
    requests: list[QueryRequest]


class LeftReads(NamedTuple):
    """A leader leaves these to its delegate (`consensus/raft/reads.py`). In a packet of its own, since who does not
    know it drops the packet. `number` goes up within `term`; `read_index` is the leader's commit index."""

    term: int
    number: int
    read_index: int
    reads: list[Questions]


class ReadsTaken(NamedTuple):
    """Numbers of what was left to the sender in `term`: `taken`, which it has answered or sees to, and `declined`,
    which the leader is to answer."""

    term: int
    taken: list[int]
    declined: list[int]


KINDS: Final = (*messages.KINDS, StateDigest, Whereabouts, SleepBeat, SleepAnswer, LeftReads, ReadsTaken)
"""Their places are their numbers on the wire."""
PeerWord = messages.Message | StateDigest | Whereabouts | SleepBeat | SleepAnswer | LeftReads | ReadsTaken


class PeerMessage(NamedTuple):
    cluster: int
    sender: int
    receiver: int
    message: PeerWord
