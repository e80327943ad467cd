"""Callers that are answered together: who wakes whom, and how long they are waited for when they ask again.

Woken all at once, they would fight for the interpreter; so each wakes the next as it falls asleep with its next
question. Part of `work.py`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from coordinator.client.jobs import Job

CROWD_US: Final = 10_000
"""For so long after two callers asked at the same time, the loop's own thread does the work for all."""
RETURN_US: Final = 1_000
"""Callers that were answered together mostly ask again together: the loop's own thread waits so long for the next of
them, sends what they ask as one packet, and lets each wake the next."""
RETURN_US_MAX: Final = 4_000
"""And no longer, whatever else comes meanwhile."""
ABSENT_US: Final = 20_000
"""Where they did not all come back in time, nobody is waited for until this has passed."""


class Crowd:
    def __init__(self) -> None:
        self.ended: deque[Job] = deque()
        """Jobs that are over, and whose callers are woken at the end of the turn."""
        self.until_us = 0
        """Before this, callers are many."""
        self.expected = 0
        """How many callers were woken together and have not asked again: who does the work need not be woken before."""
        self.expected_until_us = 0
        self.is_late = False
        """Did nobody come back for RETURN_US, though more are expected?"""
        self.to_wake: deque[Job] = deque()
        """Of those that ended, the ones whose callers are woken by the caller before, or by whoever does the work as it
        goes to sleep."""
        self._wakes_next = False
        """Is whoever does the work to wake the next of them as it goes to sleep?"""
        self._absent_until_us = 0
        """Before this nobody is expected to come back at once."""

    def note(self, now_us: int) -> None:
        """Several ask at the same time."""
        self.until_us = now_us + CROWD_US

    def wake_all(self) -> None:
        """All that were answered, at once."""
        ended = self.ended
        while ended:
            ended[0].parker.unpark()
            ended.popleft()

    def wake_together(self, now_us: int) -> None:
        """After the sending: they run while whoever does the work sleeps, and what they ask next leaves as one packet.
        Of several each wakes the next when it asks: woken all at once, they would all sleep again, for the
        interpreter."""
        count = len(self.ended)
        if count + self.expected < 2:
            count = 0
        elif now_us < self._absent_until_us:
            self.wake_all()
            return
        if not self.expected:
            self.expected_until_us = now_us + RETURN_US_MAX
        self.expected += count
        self.to_wake.extend(self.ended)
        self.ended.clear()
        self._wakes_next = True

    def note_returned(self, count: int, now_us: int) -> None:
        """So many ask, of those who were woken or of others. Where the rest is late, nobody is waited for."""
        self.expected = max(0, self.expected - count)
        if self.expected and (self.is_late or now_us >= self.expected_until_us):
            self._absent_until_us = now_us + ABSENT_US
            self.expect_nobody()
        elif not self.expected:
            self.expect_nobody()  # Others may have come in their place, who wake nobody.
        elif count:
            self.expected_until_us = now_us + RETURN_US_MAX
        self.is_late = False

    def next_to_wake(self) -> Any:
        """The parker of the next of those who were answered together, to be woken by the one before as it goes to
        sleep; None where there is none. From any thread."""
        try:
            return self.to_wake.popleft().parker if self.to_wake else None
        except IndexError:  # Another took the last.
            return None

    def first_to_wake(self) -> Any:
        """The parker of the first of those who were answered, to be woken by whoever does the work as it goes to sleep;
        None where there is none."""
        wakes, self._wakes_next = self._wakes_next, False
        return self.next_to_wake() if wakes else None

    def expect_nobody(self) -> None:
        """Wake those, too, that were to be woken by others."""
        self.expected = 0
        while self.to_wake:
            next_one = self.next_to_wake()
            if next_one is not None:
                next_one.unpark()
