"""MessagePack. What does not decode is an error with a word for a counter."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


class WireError(Exception):
    """A packet that is not one of ours. `reason` is a short word for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    """Raises WireError("malformed")."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise WireError("malformed") from None
