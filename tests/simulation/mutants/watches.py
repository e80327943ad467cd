"""Watches that wait at the leader broken: `coordinator/replica/watches.py`."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_WATCHES: Final = "coordinator.replica.watches"
_LISTENERS: Final = "coordinator.replica.listeners"

MUTANTS: Final = (
    Mutant(
        "watch-sent-past-what-it-was-told",
        ("lock-events-complete", "watch-completeness"),
        "etcd, watch guarantees, reliable: a subsequence of events is never lost",
        (Edit(f"{_WATCHES}:Woken.page", "self.seen + 1", "self.seen + 2"),),
    ),
    Mutant(
        "watch-that-left-something-out-sent-to-the-end",
        ("lock-events-complete", "watch-completeness"),
        "etcd, watch guarantees, reliable: what a page had no room for follows with the next",
        (Edit(f"{_WATCHES}:Woken.page", "len(told(found)) < self.matches", "not told(found)"),),
    ),
    Mutant(
        "watch-marked-past-what-is-applied",
        ("watch-completeness",),
        "etcd, progress notifications: all up to that revision was told",
        (Edit(f"{_WATCHES}:Watches.pass_time", "applied + 1", "applied + 2"),),
    ),
    Mutant(
        "watches-not-woken",
        ("lock-events-complete", "watch-completeness"),
        "a watch is answered when what it asks for has changed",
        (Edit(f"{_LISTENERS}:Listeners.look", "if wants(self._queries[number], row):", "if False:"),),
    ),
)
