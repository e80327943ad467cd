"""What a client keeps of what it read, and until when it may answer from it. Pure.

The leader tells the client to drop what is about to change, and waits until it has, or its lease has run out (Chubby,
section 2.7). The lease counts from the *sending* of the question, less a margin for clocks that drift, on a clock that
runs on while the machine is suspended. All that is kept is by one leadership and one number of it: as soon as another
is heard of, all of it is dropped.

A thread may look something up while another takes in what came: it sees one lease with what is kept under it, and what
it finds was true at the moment when it found it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator import wire
from coordinator.client.calls import NEVER_US, Call
from coordinator.client.session import DRIFT_SHARE, DRIFT_US, Session
from coordinator.statemachine.commands import GetKey, KeyValue, Result
from coordinator.statemachine.files import FileContent, GetStat, ReadFile

RENEWALS: Final = 3
"""A lease is renewed so many times within its length, as long as something of it is of use."""
RENEW_AGAIN_SHARE: Final = 10
"""Where no answer comes it is asked again after one part in this many of its length."""
RENEW_US: Final = 2_000_000
"""The length of a lease, where none was granted yet."""
KEPT_MAX: Final = 10_000
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond either the oldest goes."""
RESULT_BYTES: Final = 500
"""Of one result, but for its value and its path."""
TRY_AGAIN_US: Final = 5_000_000
"""After a cluster would not let this client cache."""


class Lease:
    """By which leader, under which number, until when, and for what."""

    __slots__ = ("bytes", "kept", "length_us", "number", "term", "until_us")

    def __init__(self, term: int, number: int) -> None:
        self.term = term
        self.number = number
        self.until_us = 0
        self.length_us = 0
        """As the leader grants it."""
        self.kept: dict[wire.CachedQuery, Result] = {}
        """The oldest first."""
        self.bytes = 0
        """Of all that is kept, about."""

    def keep(self, query: wire.CachedQuery, result: Result) -> None:
        self.drop(query)
        self.kept[query] = result
        self.bytes += _bytes_of(query, result)
        while len(self.kept) > KEPT_MAX or self.bytes > KEPT_BYTES_MAX:
            self.drop(next(iter(self.kept)))

    def drop(self, query: wire.CachedQuery) -> None:
        result = self.kept.pop(query, None)
        if result is not None:
            self.bytes -= _bytes_of(query, result)

    def clear(self) -> None:
        self.kept.clear()
        self.bytes = 0

    def sent(self, sent_us: int, lease_ms: int) -> None:
        """The leader answered what was sent then, and allowed all of it for a whole lease then or later."""
        self.length_us = length_us = lease_ms * 1_000
        self.until_us = max(self.until_us, sent_us + length_us - length_us // DRIFT_SHARE - DRIFT_US)


def _bytes_of(query: wire.CachedQuery, result: Result) -> int:
    path = query.key if isinstance(query, GetKey) else query.path
    value = result.value if isinstance(result, (KeyValue, FileContent)) else None
    return RESULT_BYTES + len(path) + len(value or b"")


class Cache:
    def __init__(self) -> None:
        self.session: Session | None = None
        """Under which the log says that this client caches."""
        self._asked: dict[int, tuple[Call, wire.CachedQuery]] = {}
        """What was asked, by number of the request."""
        self.try_us = 0
        """Before this the cluster is not asked again whether it lets this client cache."""
        self._lease = Lease(0, 0)
        self._ticket = 0
        """Of the last invalidation under this lease."""
        self._is_used = False
        self._renew_us = NEVER_US
        self._renewals: dict[int, int] = {}
        """When each was sent that is not answered, by number of the request."""
        self._count = 0
        self._words: list[tuple[str, wire.DroppedRequest]] = []
        """Node, and what it is to be told."""
        self._next_word = 0

    # --- what is asked ----------------------------------------------------------------------------

    def look(self, query: wire.CachedQuery, clock: Callable[[], int]) -> Result | None:
        """What is kept of it, where that may be served at this moment. From any thread."""
        lease = self._lease
        found = lease.kept.get(query)
        if found is None or clock() >= lease.until_us:  # In this order: what was found was true when it was found.
            return None
        self._is_used = True
        return found

    def holds(self, now_us: int) -> bool:
        """Is anything kept that may be served? Then the leader may have something to say at any moment."""
        return bool(self._lease.kept) and now_us < self._lease.until_us

    @property
    def kept(self) -> int:
        """How much is kept, served or not."""
        return len(self._lease.kept)

    def asks(self, call: Call, query: wire.CachedQuery) -> None:
        """What comes of this call may be kept."""
        self._asked[call.request_id] = (call, query)
        call.when_done(self._is_answered)

    def _is_answered(self, call: Call) -> None:
        self._asked.pop(call.request_id, None)

    @property
    def kept_bytes(self) -> int:
        return self._lease.bytes

    def take(self, node: str, cluster: int, answer: wire.CachedAnswer) -> None:
        """Keep an answer, for as long as its question's first sending allows, unless it is of before what was heard
        since."""
        call, query = self._asked.get(answer.id, (None, None))
        if call is None or query is None or call.first_sent_us is None:
            return
        sent_us = call.first_sent_us
        lease = self._lease_of(answer.term, answer.number)
        if lease is None:
            self._say_again(node, cluster, answer.term)
            return
        if answer.ticket < self._ticket:
            return
        lease.keep(query, answer.result)
        lease.sent(sent_us, answer.lease_ms)
        self._renew_us = sent_us + lease.length_us // RENEWALS

    def _lease_of(self, term: int, number: int) -> Lease | None:
        """The lease of this name, where no later one was heard of."""
        known = (self._lease.term, self._lease.number)
        if (term, number) > known:
            self._begin(term, number)
        return self._lease if (term, number) >= known else None

    def _begin(self, term: int, number: int) -> None:
        """Nothing of before is served. Emptied in place: another thread may have it in its hand."""
        self._lease.clear()
        self._lease = Lease(term, number)
        self._ticket = 0

    # --- what the leader says ---------------------------------------------------------------------

    def invalidate(self, node: str, word: wire.Invalidation) -> None:
        """Drop first, say so afterwards."""
        lease = self._lease_of(word.term, word.number)
        if lease is not None:
            self._ticket = max(self._ticket, word.ticket)
            if word.everything:
                lease.clear()
            for path in word.paths:
                for query in (ReadFile(path), GetStat(path), GetKey(path)):
                    lease.drop(query)
        self._say(node, word.cluster, word.session, word.term, word.number, word.ticket)

    def renewed(self, node: str, cluster: int, answer: wire.CacheRenewed) -> None:
        sent_us = self._renewals.pop(answer.id, None)
        known = (self._lease.term, self._lease.number)
        if (answer.term, answer.number) == known and sent_us is not None:
            self._lease.sent(sent_us, answer.lease_ms)
            self._renew_us = sent_us + self._lease.length_us // RENEWALS
            self._is_used = False
        elif (answer.term, answer.number) > known:
            self._begin(answer.term, answer.number)
            self._renew_us = NEVER_US
            self._say_again(node, cluster, answer.term)
        elif (answer.term, answer.number) < known:
            self._say_again(node, cluster, answer.term)

    def _say_again(self, node: str, cluster: int, term: int) -> None:
        """Nothing of before this lease is kept. Said whenever its leader is heard to think so: the word may be lost."""
        lease = self._lease
        if self.session is not None and term == lease.term:
            self._say(node, cluster, self.session.session, lease.term, lease.number, 0)

    def _say(self, node: str, cluster: int, session: int, term: int, number: int, ticket: int) -> None:
        self._next_word += 1
        self._words.append((node, wire.DroppedRequest(self._next_word, cluster, session, term, number, ticket)))

    # --- what goes out ----------------------------------------------------------------------------

    def pass_time(self, now_us: int) -> None:
        """What may be served no more is given up."""
        if self._lease.kept and now_us >= self._lease.until_us:
            self._lease.clear()

    def another_leader(self, now_us: int) -> None:
        """Ask the new one at once: it waits to hear what is kept of before."""
        if self.session is not None and not self.session.gone:
            self._is_used = True
            self._renew_us = now_us

    def due_us(self) -> int:
        if self._words:
            return 0
        ends_us = self._lease.until_us if self._lease.kept else NEVER_US
        return min(ends_us, self._renew_us) if self._is_used else ends_us

    def take_words(self) -> list[tuple[str, wire.DroppedRequest]]:
        words, self._words = self._words, []
        return words

    def renewal(self, request_id: int, cluster: int, now_us: int) -> wire.RenewCacheRequest | None:
        """The renewal that is to be sent now. Each is a question of its own: the lease counts from the very sending
        that was answered."""
        if not self._is_used or now_us < self._renew_us or self.session is None or self.session.gone:
            return None
        lease = self._lease
        length_us = lease.length_us or RENEW_US
        self._renewals = {number: at_us for number, at_us in self._renewals.items() if now_us - at_us < length_us}
        self._renewals[request_id] = now_us
        self._renew_us = now_us + length_us // RENEW_AGAIN_SHARE
        self._count += 1
        return wire.RenewCacheRequest(request_id, cluster, self.session.session, lease.term, lease.number, self._count)

    def clear(self) -> None:
        """Nothing is served any more."""
        self._lease.clear()
        self.session = None
        self._renew_us = NEVER_US
