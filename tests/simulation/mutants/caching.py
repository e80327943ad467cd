"""Caching broken: `coordinator/replica/caching.py`, `touched.py`, `in_flight.py`, `coordinator/client/cache.py`."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CACHING: Final = "coordinator.replica.caching"
_TOUCHED: Final = "coordinator.replica.touched"
_CACHE: Final = "coordinator.client.cache"

MUTANTS: Final = (
    Mutant(
        "change-proposed-before-it-is-dropped",
        ("caches-never-stale",),
        "Chubby, section 2.7: a change proceeds when each client has invalidated, or its lease has run out",
        (Edit(f"{_CACHING}:Caching.take", "if not waits and not (", "if not ("),),
    ),
    Mutant(
        "a-new-leader-waits-for-no-cache",
        ("caches-never-stale",),
        "a new leader does not know what the one before it allowed to be kept",
        (Edit(f"{_CACHING}:Caching.__init__", "now_us + self._lease_us if self._unheard else 0", "0"),),
    ),
    Mutant(
        "kept-while-it-is-about-to-change",
        ("caches-never-stale",),
        "Chubby, section 2.7: while an invalidation is under way the file is uncachable",
        (
            Edit(
                f"{_CACHING}:Caching.allow",
                "if self._in_flight.hold(session, path) or self._waiting.hold(session, path):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "kept-while-its-change-is-on-its-way",
        ("caches-never-stale",),
        "what is proposed and not applied changes what is read too",
        (Edit(f"{_CACHING}:Caching.allow", "self._in_flight.hold(session, path) or ", ""),),
    ),
    Mutant(
        "dropped-in-word-alone",
        ("caches-never-stale",),
        "Chubby, section 2.7: a client drops what it is told of, and says so afterwards",
        (Edit(f"{_CACHE}:Cache.invalidate", "lease.drop(query)", "pass"),),
    ),
    Mutant(
        "one-number-for-all-leases",
        ("caches-never-stale",),
        "a lease that ran out is another one when it is granted again, and nothing of before holds",
        (Edit(f"{_CACHING}:Caching.allow", "self.take_number()", "1"),),
    ),
    Mutant(
        "a-transaction-waits-for-its-other-branch-alone",
        ("caches-never-stale",),
        "all that a command may do is dropped before it",
        (Edit(f"{_TOUCHED}:touched_by", "(*then, *otherwise)", "otherwise"),),
    ),
    Mutant(
        "what-ends-with-a-session-is-kept",
        ("caches-never-stale",),
        "an ephemeral file goes with its last session, and whoever keeps it is told before",
        (Edit(f"{_TOUCHED}:_of_ends", "paths |= _with_parents(path)", "pass"),),
    ),
    Mutant(
        "directories-are-kept",
        ("caches-never-stale",),
        "what comes or goes is seen in the stats of the directories above",
        (
            Edit(
                f"{_TOUCHED}:_with_parents",
                "return frozenset((path, *(",
                "return frozenset((path,)) or frozenset((path, *(",
            ),
        ),
    ),
)
