"""The one kind of struct that commands, queries and results are: frozen, encoded as an array, its tag first."""

from __future__ import annotations

import msgspec


class WireStruct(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Fields may be added at the end, with a default: who does not know them yet leaves them out."""
