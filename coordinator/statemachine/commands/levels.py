"""The form of an entry, and the levels of what it may hold: what a cluster takes that has programs of before in it."""

from __future__ import annotations

from typing import Final

ENTRY_VERSION: Final = 1
"""Of the form of an entry. What commands it may hold is the cluster's level."""
LEVEL: Final = 7
"""What this code can apply. A cluster is at a level that all its replicas have; commands of a later one are refused."""
LEVEL_OF_QUOTAS: Final = 3
"""From which on keys have owners, and entries say by which token they were asked for."""
LEVEL_OF_CACHING: Final = 4
"""From which on clients may keep what they read."""
LEVEL_OF_LOCK_EVENTS: Final = 4
"""From which on the state holds what became of locks (`lock_events.py`)."""
LEVEL_OF_BOUNDS: Final = 4
"""From it on a transaction has a bound of all its work, and a session one of what it holds and waits for."""
LEVEL_OF_SESSION_EPOCHS: Final = 4
"""From which on a session's name holds the restore epoch (`sessions.py`)."""
LEVEL_OF_LOCK_RELEASES: Final = 5
"""From which on events of locks tell of holds that end, too."""
LEVEL_OF_ENDED_DELAYS: Final = 5
"""From which on a forced release ends a lock-delay, too."""
LEVEL_OF_SHARED_HAND_OVERS: Final = 5
"""From which on a shared and a counting hold are handed over, too."""
LEVEL_OF_DIRECTORIES: Final = 6
"""From which on directories have a bound (`namespace.py`)."""
LEVEL_OF_ALL_RESULTS: Final = 7
"""From which on the results of all sessions together have a bound (`results.py`)."""


LATER_WROTE_IT: Final = "a later version of Conclave wrote it, and can read it"
"""How it ends, why something can not be read that nobody is to remove: it is as it should be."""


def why_unreadable(level: int) -> str:
    """Why this code must not go on with what is of a cluster of `level`; "" where it may."""
    return "" if level <= LEVEL else f"expected a level up to {LEVEL}, got {level}: {LATER_WROTE_IT}"
