"""Checkpoints of sessions: what the log is told of leases, so that no chain of leaders keeps the dead alive. Pure; a
leader's memory alone.

A new leader would give every session its full lease, and leaders that change often enough would keep a dead session
alive for ever. So the log is told what is left of a lease that was not renewed for a while (`CheckpointSessions`), and
a new leader begins with that. But a checkpoint must not outlive a keep-alive (history 10): from its proposal on,
applied or not, a keep-alive of that session is held, and answered only when a reset that lies behind the checkpoint in
the log (`ResetCheckpoints`) has been applied.

When: half of a time to live after the last keep-alive (clients send three in each), so that none is ever due for a
session that renews. A session that was not heard in this leadership may have been dead for long, and its leader may
be deposed as soon as the one before: its first is due after UNHEARD_US, the next each time after as long again. So
any leadership of twice that length takes at least half of its own length from the leases of the dead.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import Final

from coordinator.replica.callers import Caller
from coordinator.replica.leases import CHANNELS_MAX, Leases
from coordinator.statemachine.sessions import Session

UNHEARD_US: Final = 6_000_000
"""More than a third of the usual time to live, so that a change of leader alone brings none of those."""
BATCH_US: Final = 500_000
"""Checkpoints are due at multiples of it (of less, for sessions that live for less than 8 of these), together."""
SESSIONS_MAX: Final = 4_096
"""Sessions of one checkpoint or reset, and sessions that are looked at in one turn; the rest follows in the next."""
_AGAIN_US: Final = 10_000
"""How soon to propose again what was not taken."""

HeldAnswer = tuple[Caller, int]
"""Who waits, and the number of its request."""


class Checkpoints:
    def __init__(self) -> None:
        self._heard_us: dict[int, int] = {}
        """When, in lease time, each session was last heard, or this leadership began."""
        self._due_us: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        """At least one for each of `_due_us`, perhaps earlier: a keep-alive does not touch it."""
        self._shorter: set[int] = set()
        """Sessions of which the log holds less than the whole lease, or will: no reset behind that is applied yet."""
        self._wanted: dict[int, None] = {}
        """Resets to propose."""
        self._resetting: set[int] = set()
        self._held: dict[int, dict[str, HeldAnswer]] = {}
        """Session to its keep-alives that wait for a reset, the last of each channel."""
        self._refused = False

    def begin(self, session: int, ttl_ms: int, lease_us: int) -> None:
        """It was opened now."""
        self._heard_us[session] = lease_us
        self._schedule(session, _rounded_up(lease_us + ttl_ms * 500, ttl_ms))

    def inherit(self, sessions: Collection[Session]) -> None:
        """These were there when this leadership began."""
        first_us = {
            ttl_ms: _rounded_up(min(ttl_ms * 500, UNHEARD_US), ttl_ms) for ttl_ms in {each.ttl_ms for each in sessions}
        }
        self._due_us = {session.session: first_us[session.ttl_ms] for session in sessions}
        self._heard_us = dict.fromkeys(self._due_us, 0)
        self._heap = [(due_us, session) for session, due_us in self._due_us.items()]
        heapq.heapify(self._heap)
        self._shorter = {session.session for session in sessions if session.remaining_ms is not None}

    def heard(self, session: int, ttl_ms: int, lease_us: int) -> None:
        """It was kept alive, answered or not yet."""
        self._heard_us[session] = lease_us
        self._due_us[session] = _rounded_up(lease_us + ttl_ms * 500, ttl_ms)

    def forget(self, session: int) -> None:
        """It has ended."""
        self._heard_us.pop(session, None)
        self._due_us.pop(session, None)
        self._shorter.discard(session)
        self._wanted.pop(session, None)
        self._resetting.discard(session)
        self._held.pop(session, None)

    def _schedule(self, session: int, due_us: int) -> None:
        self._due_us[session] = due_us
        heapq.heappush(self._heap, (due_us, session))
        if len(self._heap) > 64 + 4 * len(self._due_us):
            self._heap = [(due_us, session) for session, due_us in self._due_us.items()]
            heapq.heapify(self._heap)

    # --- to the log -------------------------------------------------------------------------------

    def take_due(self, leases: Leases) -> tuple[tuple[int, int], ...]:
        """Sessions to propose a checkpoint of, and how many milliseconds are left of each; rounded up, so that none is
        ever ended early. From here on their keep-alives are held."""
        lease_us = leases.lease_us
        taken: list[tuple[int, int]] = []
        for _ in range(SESSIONS_MAX):
            if not self._heap or self._heap[0][0] > lease_us:
                break
            session = heapq.heappop(self._heap)[1]
            due_us = self._due_us.get(session)
            if due_us is None:
                continue
            if due_us > lease_us:
                heapq.heappush(self._heap, (due_us, session))
                continue
            silent_us = max(BATCH_US, lease_us - self._heard_us[session])
            self._schedule(session, lease_us + silent_us)
            left_us = leases.left_us(session)
            if left_us and session not in self._wanted and session not in self._resetting:
                taken.append((session, -(-left_us // 1_000)))
                self._shorter.add(session)
        return tuple(taken)

    def checkpoint_refused(self, taken: Iterable[tuple[int, int]], lease_us: int) -> None:
        """The proposal was not taken; try again. Their next keep-alives bring a reset, needed or not."""
        for session, _ in taken:
            self._schedule(session, lease_us + BATCH_US)

    def take_resets(self) -> tuple[int, ...]:
        """Sessions to propose a reset of."""
        if not self._wanted:
            return ()
        taken = tuple([*self._wanted][:SESSIONS_MAX])
        for session in taken:
            del self._wanted[session]
            self._resetting.add(session)
        self._refused = False
        return taken

    def reset_refused(self, taken: Iterable[int]) -> None:
        """The proposal was not taken; try again, for those that are still there."""
        for session in taken:
            self._resetting.discard(session)
            self._wanted[session] = None
        self._refused = True

    # --- keep-alives ------------------------------------------------------------------------------

    def may_answer(self, session: int) -> bool:
        """Does the log hold the whole lease of `session`, and will it? Else `hold` its keep-alives (history 10)."""
        return session not in self._shorter

    def hold(self, session: int, caller: Caller, request_id: int) -> None:
        """Answer this keep-alive when the session's checkpoint is reset."""
        held = self._held.setdefault(session, {})
        held.pop(caller.channel, None)
        held[caller.channel] = (caller, request_id)
        while len(held) > CHANNELS_MAX:
            del held[next(iter(held))]
        if session not in self._resetting:
            self._wanted[session] = None

    def is_held(self, session: int) -> bool:
        """Does a keep-alive of it wait for a reset?"""
        return session in self._held

    def was_reset(self, session: int) -> list[HeldAnswer]:
        """A reset of it was applied: the answers that waited for that."""
        self._shorter.discard(session)
        self._resetting.discard(session)
        return [*self._held.pop(session, {}).values()]

    def take_held(self) -> list[HeldAnswer]:
        """This leadership is over: all who wait."""
        held, self._held = self._held, {}
        return [answer for answers in held.values() for answer in answers.values()]

    def due_in_us(self, lease_us: int) -> int | None:
        """How long until there is something to propose, in lease time; None where there is nothing."""
        if self._wanted:
            return _AGAIN_US if self._refused else 0
        return max(0, self._heap[0][0] - lease_us) if self._heap else None


def _rounded_up(due_us: int, ttl_ms: int) -> int:
    step_us = min(BATCH_US, ttl_ms * 125)
    return -(-due_us // step_us) * step_us
