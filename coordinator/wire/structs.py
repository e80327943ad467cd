"""The one kind of struct that requests, answers and the feed are: frozen, encoded as an array, its tag first; and the
envelope, which is one. Structs are in modules without functions of a hot path: those can be compiled, these can not."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    pass


class Envelope(Struct, frozen=True):
    """`sender` and `receiver`: node names for PEER; token id and node name (or "*") for REQUEST; node name
    and reply channel for REPLY and REFUSAL; node name and "" for FEED."""

    version: int
    kind: int
    sender: str
    receiver: str
    mac: bytes
    body: bytes
