"""What is at a path, and what became of it."""

from __future__ import annotations

import msgspec


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file, or a directory that was made.

    `value` is the content; None: a directory. `revision` is the index of the entry that wrote it last, `version`
    counts its writes since it was created (the content generation), `instance` is the index that created it. `owner` is
    the principal that created it, by whose quota it is counted; "": it came before there were quotas.
    """

    value: bytes | None
    revision: int
    version: int
    instance: int
    ephemeral: bool = False
    owner: str = ""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What the entry `revision` made of `key`; None: not there."""

    revision: int
    key: str
    before: Item | None
    after: Item | None
