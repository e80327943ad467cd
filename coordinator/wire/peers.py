"""Between nodes: batches of the engines' messages, and what nodes say to each other beside those."""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import msgspec

from coordinator.consensus.raft import messages
from coordinator.wire.encoding import WireError, encode

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


_KINDS: Final = (*messages.KINDS, StateDigest, Whereabouts, SleepBeat, SleepAnswer)
PeerWord = messages.Message | StateDigest | Whereabouts | SleepBeat | SleepAnswer
_routed = msgspec.msgpack.Decoder(list[Routed])
_message_decoders: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_message_kinds: Final = {kind: number for number, kind in enumerate(_KINDS)}


class PeerMessage(NamedTuple):
    cluster: int
    sender: int
    receiver: int
    message: PeerWord


def encode_peer(batch: list[PeerMessage]) -> bytes:
    return encode([(m.cluster, m.sender, m.receiver, _message_kinds[type(m.message)], m.message) for m in batch])


def decode_peer(body: bytes) -> list[PeerMessage]:
    """Raises WireError("malformed")."""
    try:
        return [
            PeerMessage(
                cluster,
                sender,
                receiver,
                cast("PeerWord", _message_decoders[kind].decode(raw)),
            )
            for cluster, sender, receiver, kind, raw in _routed.decode(body)
        ]
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None
