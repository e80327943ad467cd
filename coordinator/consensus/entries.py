"""What a log entry is: opaque bytes, the first of which says for whom they are.

The core reads that first byte and, of configurations alone, the rest. Everything else stays bytes from the client that
encoded it to the state machine that applies it.
"""

from __future__ import annotations

from typing import Final

NOOP: Final = 0
COMMAND: Final = 1
CONFIGURATION: Final = 2

NOOP_ENTRY: Final = bytes([NOOP])
"""What a new leader commits first, so that entries of older terms commit with it (Raft, section 5.4.2 and 8)."""

COMMAND_PREFIX: Final = bytes([COMMAND])
CONFIGURATION_PREFIX: Final = bytes([CONFIGURATION])


def bytes_in(entries: list[bytes]) -> int:
    """How much is in these. A loop and no `sum(map(len, entries))`: compiled it calls nothing, and it runs several
    times a turn."""
    size = 0
    for entry in entries:
        size += len(entry)
    return size


def payload_bytes(entries: list[bytes]) -> int:
    """How much is in these, without the first bytes, which say for whom they are."""
    return bytes_in(entries) - len(entries)
