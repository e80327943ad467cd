"""Where the disk is slow, a leader has callers share its commits, as PostgreSQL does with `commit_delay`.

Left alone, callers that ask again as soon as they are answered fall into two groups, of which each waits for the other:
while the entries of one are written, those of the other queue; they go as soon as the disk is free, a moment before the
first are acknowledged by a majority and their callers are back. So every caller waits for two commits, and each commit
has half of them. A leader that has its commands wait until what is in flight is acknowledged, and then until those that
were just answered are back, writes for all of them at once.

To wait for them must cost less than not to, which is one commit. Once half are back, the rest have as long as these
took. And where fewer come back in time, nobody is waited for until many commits have passed. Nothing of Raft hangs on
any of this: a command that waits is one that came later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

COMMIT_US_MIN: Final = 500
"""Nobody waits where a commit takes less: a caller needs 200 to 300 to come back."""
GATHER_SHARE: Final = (3, 4)
"""Who was answered is waited for as long as that share of what a commit takes."""
GATHER_US_MAX: Final = 10_000
"""And no longer than this."""
IN_FLIGHT_COMMITS: Final = 2
"""What is in flight is waited for as long as so many commits take; then a majority is slower than this disk."""
IN_FLIGHT_US_MAX: Final = 20_000
REST_COMMITS: Final = 64
"""Nobody is waited for as long as so many commits take, once most of those that were answered did not come back."""
WAITING_MAX: Final = 1_024
"""Commands; with more of them a commit is shared well enough."""
COMMITS_AT_ONCE: Final = 16
"""The quickest of so many says what one takes: where processors are short, others take longer on any disk."""


class Gathering:
    """Of one replica."""

    def __init__(self) -> None:
        self.commit_us = 0
        """What a commit of the journal takes, of late."""
        self._quickest_us = self._commits = 0
        """Of those since then, and how many they are."""
        self.until_us = 0
        """When whoever waits goes on at the latest; 0: nobody is waited for."""
        self._expected = 0
        """So many commands are all that may come."""
        self._began_us = 0
        self._answered = self._before = 0
        """How many were answered, then, and how many commands waited; 0: what is in flight is waited for."""
        self._rests_until_us = 0
        self._commit_index = 0
        """Up to there those whose commands are committed are counted."""

    @property
    def is_on(self) -> bool:
        """Is the disk so slow that anybody waits?"""
        return self.commit_us >= COMMIT_US_MIN

    def took(self, took_us: int) -> None:
        """A commit took so long."""
        self._quickest_us = min(self._quickest_us, took_us) if self._commits else took_us
        self._commits += 1
        if self._commits == COMMITS_AT_ONCE:
            self.commit_us, self._commits = self._quickest_us, 0

    def committed(self, commit_index: int, asked: Iterable[int], waiting: int, now_us: int) -> None:
        """Up to `commit_index` all is committed; `asked`: the indexes that callers wait for."""
        before = self._commit_index
        if commit_index > before and self.is_on:
            self._commit_index = commit_index
            self.answers(sum(before < index <= commit_index for index in asked), waiting, now_us)

    def answers(self, count: int, waiting: int, now_us: int) -> None:
        """In this turn so many callers are answered, while so many commands wait."""
        if self._rests(now_us):
            return
        self.until_us = now_us + min(self.commit_us * GATHER_SHARE[0] // GATHER_SHARE[1], GATHER_US_MAX)
        self._expected = waiting + count
        self._began_us, self._answered, self._before = now_us, count, waiting

    def proposed(self, now_us: int) -> None:
        """Entries leave for the disks: what comes now waits for them."""
        if self._rests(now_us):
            return
        self.until_us = now_us + min(self.commit_us * IN_FLIGHT_COMMITS, IN_FLIGHT_US_MAX)
        self._expected = WAITING_MAX
        self._answered = self._before = 0

    def holds(self, waiting: int, now_us: int) -> bool:
        """Are these commands to wait?"""
        if not self.until_us:
            return False
        are_most_back = (waiting - self._before) * 2 >= self._answered
        if waiting < min(self._expected, WAITING_MAX) and now_us < self.until_us:
            if self._answered and are_most_back:
                self.until_us = min(self.until_us, 2 * now_us - self._began_us)
                self._began_us = 0  # Once.
            return True
        if not are_most_back:
            self._rests_until_us = now_us + self.commit_us * REST_COMMITS
        self.until_us = 0
        return False

    def _rests(self, now_us: int) -> bool:
        if self.is_on and now_us >= self._rests_until_us:
            return False
        self.until_us = 0
        return True
