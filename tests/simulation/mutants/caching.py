"""Caching broken: `coordinator/replica/caching.py`, `touched.py`, `coordinator/client/cache.py`."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_CACHING: Final = "coordinator.replica.caching"
_TOUCHED: Final = "coordinator.replica.touched"
_REPLICA: Final = "coordinator.replica.replica"
_CACHE: Final = "coordinator.client.cache"
_CORE: Final = "coordinator.client.core"

MUTANTS: Final = (
    Mutant(
        "change-proposed-before-it-is-dropped",
        "Chubby, section 2.7: a change proceeds when each client has invalidated, or its lease has run out",
        (Edit(f"{_CACHING}:Caching.take", "if not waits and not (", "if not ("),),
    ),
    Mutant(
        "cache-served-past-its-lease",
        "a client that hears nothing serves what it keeps for the length of its lease and no longer",
        (Edit(f"{_CACHE}:Cache.look", "or clock() >= lease.until_us", ""),),
    ),
    Mutant(
        "cache-lease-counted-from-the-answer",
        "history 1: a lease counts from the sending of the question, whenever the answer is looked at",
        (
            Edit(
                f"{_CORE}:Core._hear_of_cache",
                "self.cache.take(reply)",
                "if request_id in self._calls:\n"
                "                self._calls[request_id].first_sent_us = now_us\n"
                "            self.cache.take(reply)",
            ),
            Edit(
                f"{_CORE}:Core._hear_of_cache",
                "self.cache.renewed(node, self.routing.cluster, reply)",
                "self.cache._renewals[reply.id] = now_us\n"
                "            self.cache.renewed(node, self.routing.cluster, reply)",
            ),
        ),
    ),
    Mutant(
        "a-new-leader-waits-for-no-cache",
        "a new leader does not know what the one before it allowed to be kept",
        (Edit(f"{_CACHING}:Caching.__init__", "now_us + self._lease_us if self._unheard else 0", "0"),),
    ),
    Mutant(
        "a-new-leader-waits-for-caches-too-late",
        "what is proposed before the leader has applied all that it inherited waits too",
        (
            Edit(
                f"{_REPLICA}:Replica._holds_back",
                "return bool(self.machine.state.caching) or engine.applied_index + 1 < self._inherited[1]",
                "return False",
            ),
        ),
    ),
    Mutant(
        "kept-while-it-is-about-to-change",
        "Chubby, section 2.7: while an invalidation is under way the file is uncachable",
        (
            Edit(
                f"{_CACHING}:Caching.allow",
                "if any(one.holds(path) or session in one.ended for one in self._about_to_change()):",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "kept-while-its-change-is-on-its-way",
        "what is proposed and not applied changes what is read too",
        (Edit(f"{_CACHING}:Caching._about_to_change", "yield from self._in_flight()", ""),),
    ),
    Mutant(
        "kept-before-all-is-known-that-changes-it",
        "what was proposed while nobody cached was not looked at",
        (Edit(f"{_CACHING}:Caching.allow", "if self._applied < self._known_up_to:", "if False:"),),
    ),
    Mutant(
        "cache-renewed-by-a-leader-that-is-one-no-more",
        "history 1: a renewal is answered after a majority confirmed the leader",
        (
            Edit(
                f"{_REPLICA}:Replica.ask",
                "if not isinstance(request, wire.CommandRequest):\n",
                "if isinstance(request, wire.RenewCacheRequest) and self._tenure is not None:\n"
                "        asker = cached_reads.Asker(caller, stamp, self.engine.term)\n"
                "        return cached_reads.answer(asker, request, self._tenure, self.machine, answers)\n"
                "    if not isinstance(request, wire.CommandRequest):\n",
            ),
        ),
    ),
    Mutant(
        "dropped-in-word-alone",
        "Chubby, section 2.7: a client drops what it is told of, and says so afterwards",
        (Edit(f"{_CACHE}:Cache.invalidate", "lease.kept.pop(query, None)", "pass"),),
    ),
    Mutant(
        "a-late-answer-is-kept",
        "an answer from before an invalidation that was heard first is not kept",
        (Edit(f"{_CACHE}:Cache.take", "or answer.ticket < self._ticket", ""),),
    ),
    Mutant(
        "one-number-for-all-leases",
        "a lease that ran out is another one when it is granted again, and nothing of before holds",
        (Edit(f"{_CACHING}:Caching.allow", "self.take_number()", "1"),),
    ),
    Mutant(
        "a-transaction-waits-for-its-other-branch-alone",
        "all that a command may do is dropped before it",
        (Edit(f"{_TOUCHED}:touched_by", "(*then, *otherwise)", "otherwise"),),
    ),
    Mutant(
        "what-ends-with-a-session-is-kept",
        "an ephemeral file goes with its last session, and whoever keeps it is told before",
        (Edit(f"{_TOUCHED}:_of_ends", "paths |= _with_parents(path)", "pass"),),
    ),
    Mutant(
        "directories-are-kept",
        "what comes or goes is seen in the stats of the directories above",
        (
            Edit(
                f"{_TOUCHED}:_with_parents",
                "return frozenset((path, *(",
                "return frozenset((path,)) or frozenset((path, *(",
            ),
        ),
    ),
    Mutant(
        "the-stat-of-a-lock-is-kept",
        "a stat shows under which token its name was last locked",
        (
            Edit(
                f"{_TOUCHED}:_by_lock",
                "case commands.AcquireLock(name):\n            return Touched(frozenset((name,)))",
                "case commands.AcquireLock() | lock_commands.Acquire():\n            return NOTHING",
            ),
        ),
    ),
)
