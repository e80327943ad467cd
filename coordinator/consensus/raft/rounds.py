"""The rounds of a leader: when each was sent, and which of them a majority has answered.

"A majority took me for the leader after I sent round r" is what a linearizable read, a keep-alive and check-quorum
all need (thesis, sections 6.2 and 6.4). Times count from the *sending* (docs/design.md, "A deaf leader steps down").
"""

from __future__ import annotations

from collections import deque


class Rounds:
    def __init__(self, now_us: int) -> None:
        """Being elected is itself the word of a majority, given after the votes were asked for."""
        self.current = 0
        self.confirmed = 0
        """0: none of its own yet. An election is no lease: a voter may vote again, in a higher term."""
        self.confirmed_at_us = now_us
        self.all_sent_us = now_us
        self.quiet_index = 0
        self.quiet_since_us = now_us
        """Since when the log ends at `quiet_index` and nobody lacks anything of it, as seen at heartbeats."""
        self.is_quiet = False
        self._sent: deque[tuple[int, int]] = deque()

    def begin(self, now_us: int, *, to_all: bool) -> int:
        """Number the round that is about to be sent. Only one that goes to every follower is a heartbeat."""
        self.current += 1
        if to_all:
            self.all_sent_us = now_us
        self._sent.append((self.current, now_us))
        return self.current

    def note_quiet(self, last_index: int, now_us: int, quiet_us: int, *, is_settled: bool) -> None:
        """See whether nothing has happened for `quiet_us`. `is_settled`: nobody who answers lacks anything now."""
        if not is_settled or last_index != self.quiet_index:
            self.quiet_index, self.quiet_since_us = last_index, now_us
        self.is_quiet = now_us - self.quiet_since_us >= quiet_us

    def confirm(self, number: int) -> None:
        """A majority has answered round `number` or a later one."""
        if number <= self.confirmed:
            return
        self.confirmed = number
        while self._sent and self._sent[0][0] <= number:
            self.confirm_at(self._sent.popleft()[1])

    def confirm_at(self, sent_us: int) -> None:
        """A majority has answered something that was sent at `sent_us`, a round or what stands for one."""
        self.confirmed_at_us = max(self.confirmed_at_us, sent_us)
