"""Log entries as commands, for the checkers. Not a checker."""

from __future__ import annotations

import msgspec

from coordinator.statemachine.commands import Entry

decode = msgspec.msgpack.Decoder(Entry).decode
"""The command of an entry, without the byte that says what kind of entry it is."""
