"""The envelope that every packet is: version, kind, sender, receiver, body, and a keyed BLAKE2b over all of them."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

import msgspec

from coordinator.wire.encoding import WireError, encode
from coordinator.wire.structs import Envelope

VERSION: Final = 1
PACKET_BYTES_MAX: Final = 8 * 1024 * 1024
"""Packets above this are dropped unread. The largest honest one carries a few entries of 1 MiB."""
PACKET_BYTES_TARGET: Final = 2 * 1024 * 1024
"""Whoever sends closes a packet above this: far below what a reader takes."""

PEER: Final = 1
REQUEST: Final = 2
REPLY: Final = 3
FEED: Final = 4
REFUSAL: Final = 5
"""Unsigned: a node tells a caller whose token it does not know why it will not answer. Never decides anything."""

_MAC_BYTES: Final = 16


_envelopes = msgspec.msgpack.Decoder(Envelope)

HEADS_MAX: Final = 1_024
HEAD_BYTES_MAX: Final = 256
_heads: Final[dict[tuple[bytes, int, str, str], hashlib.blake2b]] = {}
"""What a hash begins with, for the keys and names that this process speaks with."""


def _mac(key: bytes, kind: int, sender: str, receiver: str, body: bytes) -> bytes:
    head = _heads.get((key, kind, sender, receiver))
    if head is None:
        names = f"{VERSION}\n{kind}\n{sender}\n{receiver}\n".encode()
        head = hashlib.blake2b(names, digest_size=_MAC_BYTES, key=key)
        if len(names) <= HEAD_BYTES_MAX:  # Longer ones are nobody's.
            if len(_heads) >= HEADS_MAX:
                _heads.clear()
            _heads[key, kind, sender, receiver] = head
    digest = head.copy()
    digest.update(body)
    return digest.digest()


def seal(key: bytes, kind: int, sender: str, receiver: str, body: Any) -> bytes:
    """Encode `body` and sign it. Names hold no newline (their patterns say so), so the head is unambiguous."""
    payload = body if isinstance(body, bytes) else encode(body)
    return encode(Envelope(VERSION, kind, sender, receiver, _mac(key, kind, sender, receiver, payload), payload))


def open_envelope(packet: bytes, kind: int) -> Envelope:
    """Parse a packet, not yet verified. Raises WireError: oversize, malformed, version, kind."""
    if len(packet) > PACKET_BYTES_MAX:
        raise WireError("oversize")
    try:
        envelope = _envelopes.decode(packet)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None
    if envelope.version != VERSION:
        raise WireError("version")
    if envelope.kind != kind:
        raise WireError("kind")
    return envelope


def verify(envelope: Envelope, key: bytes) -> None:
    """Raises WireError("signature") unless the envelope was signed with `key`."""
    try:
        mac = _mac(key, envelope.kind, envelope.sender, envelope.receiver, envelope.body)
    except ValueError:
        raise WireError("signature") from None  # A key that BLAKE2 does not take signs nothing.
    if not hmac.compare_digest(mac, envelope.mac):
        raise WireError("signature")
