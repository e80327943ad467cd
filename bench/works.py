"""What is asked of every peer, by name."""

from __future__ import annotations

from typing import Final, NamedTuple


class Work(NamedTuple):
    name: str
    unit: str
    about: str


WORKS: Final = {
    work.name: work
    for work in (
        Work("lock", "pairs/s", "acquire and release of a lock that nobody else wants; each caller its own"),
        Work("write", "writes/s", "a replicated 64-byte write; each caller a key of its own"),
        Work("read", "reads/s", "a linearizable read of a key; each caller its own"),
        Work("handover", "changes/s", "one lock among 16 callers, counted as changes of its owner"),
        Work("failover", "ms", "kill -9 of the leader, to the next acknowledged write"),
        Work("silence", "ms", "SIGSTOP of the leader, to the next acknowledged write"),
    )
}
RATES: Final = ("lock", "write", "read")
"""Run with each number of callers."""
DEATHS: Final = {"failover": "kill -9", "silence": "SIGSTOP"}
CALLERS: Final = (1, 16, 64, 256)
HANDOVER_CALLERS: Final = 16
DEATH_CALLERS: Final = 8
CLIENT_PROCESSES: Final = 2
