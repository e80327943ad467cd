"""The leases of sessions, as the leader counts them. Pure; a leader's memory alone, never in the log.

A lease runs on lease time, which stands still in a stall: while the node is deaf, and for what a turn came too late (a
paused process, a suspended machine, a stalled disk). So keep-alives that waited unread are drained before anything is
counted against them (history 3). A new leader begins with full leases (Chubby, section 2.8), or with what the log's
last checkpoint of a session says (`checkpoints.py`).

An expiry is proposed only by a leader that a majority has confirmed since the lease ran out, and from the proposal on
the session's keep-alives are not answered (history 11).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final

STEP_US_MAX: Final = 100_000
"""A turn that comes later than this after the last one was a stall. Turns are 20 ms apart at the most."""
ANOTHER_TRY_US: Final = 200_000
CHANNELS_MAX: Final = 64
"""Callers of one session that are told apart: its client, or the few web processes that serve its owner."""
LOOKS_MAX: Final = 8_192
"""Leases that are looked at in one turn, most of them renewed since; the rest follows in the next. A hundred thousand
that began with one leadership are due in the same moment."""
_OVERDUE_US: Final = 10_000
"""How soon to look again at a lease that ran out and waits for a majority to confirm its leader."""


class Leases:
    def __init__(self, now_us: int) -> None:
        self._seen_us = now_us
        self._lease_us = 0
        self._deadlines: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._overdue: dict[int, int] = {}
        """Session to when, on the real clock, its lease was first seen to have run out."""
        self._wants_round = False
        self._expiring: set[int] = set()
        self._counts: dict[int, dict[str, int]] = {}
        self._allowed: set[int] = set()

    @property
    def count(self) -> int:
        """Sessions whose lease is counted."""
        return len(self._deadlines)

    def advance(self, now_us: int, *, connected: bool) -> None:
        """Let lease time pass, once a turn, after the mailboxes were drained."""
        step = now_us - self._seen_us
        self._seen_us = now_us
        if connected:
            self._lease_us += min(step, STEP_US_MAX)

    @property
    def lease_us(self) -> int:
        """Lease time since this leadership began."""
        return self._lease_us

    @property
    def seen_us(self) -> int:
        """The real clock at the last turn."""
        return self._seen_us

    def is_new(self, session: int, channel: str, count: int) -> bool:
        """Is this keep-alive later than every one that came on `channel` for `session`? A copy is not (history 7)."""
        counts = self._counts.setdefault(session, {})
        if count <= counts.get(channel, 0):
            return False
        counts.pop(channel, None)
        counts[channel] = count
        while len(counts) > CHANNELS_MAX:
            del counts[next(iter(counts))]
        return True

    def allow_another_try(self, session: int) -> None:
        """A keep-alive came that named another leadership, as the first one after a change of leader may. It renews
        nothing, since it may be a copy; but once in this leadership its sender has the time to ask again."""
        deadline = self._deadlines.get(session)
        if deadline is None or session in self._expiring or session in self._allowed:
            return
        self._allowed.add(session)
        if deadline < self._lease_us + ANOTHER_TRY_US:
            self._set_deadline(session, self._lease_us + ANOTHER_TRY_US)

    def begin(self, leases_ms: Mapping[int, int]) -> None:
        """This leadership begins: what is left of each session's lease."""
        self._deadlines = {session: self._lease_us + left_ms * 1_000 for session, left_ms in leases_ms.items()}
        self._heap = [(deadline, session) for session, deadline in self._deadlines.items()]
        heapq.heapify(self._heap)

    def renew(self, session: int, ttl_ms: int) -> bool:
        """Give `session` its full lease. False, and nothing done, where its expiry is already proposed."""
        if session in self._expiring:
            return False
        self._set_deadline(session, self._lease_us + ttl_ms * 1_000)
        return True

    def _set_deadline(self, session: int, deadline: int) -> None:
        self._deadlines[session] = deadline
        self._overdue.pop(session, None)
        heapq.heappush(self._heap, (deadline, session))
        if len(self._heap) > 64 + 4 * len(self._deadlines):
            self._heap = [(deadline, session) for session, deadline in self._deadlines.items()]
            heapq.heapify(self._heap)

    def forget(self, session: int) -> None:
        """The session has ended."""
        self._deadlines.pop(session, None)
        self._overdue.pop(session, None)
        self._expiring.discard(session)
        self._allowed.discard(session)
        self._counts.pop(session, None)

    def remaining_ms(self, session: int) -> int:
        """What is left of the lease, 0 where it ran out or there is none."""
        deadline = self._deadlines.get(session, 0)
        return max(0, (deadline - self._lease_us) // 1_000)

    def left_us(self, session: int) -> int:
        """What is left of a lease that may still be renewed; 0 where it ran out, or its expiry is proposed."""
        if session in self._expiring:
            return 0
        return max(0, self._deadlines.get(session, 0) - self._lease_us)

    def take_expired(self, confirmed_at_us: int) -> list[int]:
        """Sessions to propose the expiry of. From here on their keep-alives are not answered."""
        for _ in range(LOOKS_MAX):
            if not self._heap or self._heap[0][0] > self._lease_us:
                break
            deadline, session = heapq.heappop(self._heap)
            if self._deadlines.get(session) == deadline and session not in self._expiring:
                self._overdue.setdefault(session, self._seen_us)
                self._wants_round = True
        if not self._overdue:
            return []
        expired = sorted(session for session, since_us in self._overdue.items() if confirmed_at_us >= since_us)
        for session in expired:
            del self._overdue[session]
            self._expiring.add(session)
        return expired

    def take_wants_round(self) -> bool:
        """Has a lease run out since this was asked last? The leader is to be confirmed by a round that is sent now: of
        a quiet cluster the next heartbeat may be 240 ms away."""
        wants, self._wants_round = self._wants_round, False
        return wants

    def proposal_refused(self, sessions: Iterable[int]) -> None:
        """The proposal of these expiries was not taken; try again."""
        for session in sessions:
            self._expiring.discard(session)
            self._overdue[session] = self._seen_us

    @property
    def deadline_in_us(self) -> int | None:
        """How long until the next lease runs out, in lease time; None where none does."""
        if self._overdue:
            return _OVERDUE_US
        return max(0, self._heap[0][0] - self._lease_us) if self._heap else None
