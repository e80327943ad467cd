"""What a node says, unsigned, to a caller whose token it does not know."""

from __future__ import annotations

from typing import Final

import msgspec

from coordinator.wire.encoding import decode, encode
from coordinator.wire.envelope import REFUSAL, VERSION
from coordinator.wire.structs import Envelope, Struct


class Refusal(Struct, frozen=True):
    """`code`: REFUSED_WAITING or REFUSED_TOKEN; `message` says it in words; `pid` is the node's process."""

    code: str
    message: str
    pid: int


REFUSED_WAITING: Final = "waiting"
REFUSED_TOKEN: Final = "unknown-token"  # noqa: S105 - a word, not a secret

_refusals = msgspec.msgpack.Decoder(Refusal)


def seal_refusal(sender: str, receiver: str, refusal: Refusal) -> bytes:
    return encode(Envelope(VERSION, REFUSAL, sender, receiver, b"", encode(refusal)))


def decode_refusal(body: bytes) -> Refusal:
    """Raises WireError("malformed")."""
    return decode(_refusals, body)
