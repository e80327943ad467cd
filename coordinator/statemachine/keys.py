"""Keys with their values, revisions and versions."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """`revision` is the index of the entry that wrote it last; `version` counts its writes since it was created."""

    value: bytes
    revision: int
    version: int
