"""What a packet carries, to bytes and back: messages of peers, and requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import msgspec

from coordinator.statemachine.commands import Command
from coordinator.wire.encoding import WireError, decode, encode
from coordinator.wire.peers import KINDS, PeerMessage, PeerWord, Routed
from coordinator.wire.requests import CommandRequest, Request, RequestBatch

_routed = msgspec.msgpack.Decoder(list[Routed])
_message_decoders: Final = tuple(msgspec.msgpack.Decoder(kind) for kind in KINDS)
_message_kinds: Final = {kind: number for number, kind in enumerate(KINDS)}
_requests = msgspec.msgpack.Decoder(RequestBatch)
_request = msgspec.msgpack.Decoder(Request)
_commands = msgspec.msgpack.Decoder(Command)


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
    except (msgspec.MsgspecError, IndexError, OverflowError, UnicodeDecodeError, RecursionError):
        # A kind beyond 64 bits of C is an IndexError in the interpreter, and an OverflowError compiled.
        raise WireError("malformed") from None


def encode_requests(reply: str, requests: Sequence[Request | msgspec.Raw]) -> bytes:
    """A `RequestBatch` of requests, some of which are encoded already."""
    return encode((reply, requests))


def decode_requests(body: bytes) -> RequestBatch:
    """Raises WireError("malformed")."""
    return decode(_requests, body)


def check_request(encoded: bytes) -> None:
    """Would a node take it? One that it would not costs the whole packet. Raises ValueError, saying what was expected,
    what came, and at which place."""
    request = _request.decode(encoded)
    if type(request) is CommandRequest:
        _commands.decode(request.command)


def decode_command(raw: bytes | msgspec.Raw) -> Command:
    """Raises WireError("malformed")."""
    return decode(_commands, raw)
