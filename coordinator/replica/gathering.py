"""A leader has callers share its commits, as PostgreSQL does with `commit_delay`.

Left alone, callers that ask again as soon as they are answered fall into groups that take turns. On a slow disk each
group waits for the other: while the entries of one are written, those of the other queue; they go as soon as the disk
is free, a moment before the first are acknowledged by a majority and their callers are back. So every caller waits for
two commits, and each commit has half of them. On a quick disk it is the processors that each group uses for itself: the
turns of a leader and its followers, and the packets between them, cost nearly as much for one entry as for ten. A
leader that has its commands wait until what is in flight is applied, and then until those that were just answered are
back, has one round for all of them.

To wait for them must cost less than not to. Once half are back, the rest have as long as these took. Who is not back in
time is not waited for until many rounds have passed, and where most are not, nobody is. Nothing of Raft hangs on any of
this: a command that waits is one that came later.
"""

from __future__ import annotations

from typing import Final

SLOW_US: Final = 500
"""A disk is slow where the quickest commit takes this long."""
LATELY: Final = 16
"""Of so many commits the quickest says what one takes: where processors are short, others take longer on any disk. Of
as many rounds the middle one does, since processors that are short are what a round less is worth."""
ROUNDS: Final = (5, 2)
"""So many rounds are what all that take part in one more pay for it, beside the disk."""
ROUNDS_US_MAX: Final = 2_500
"""And no more than this: what takes longer is a network, in which rounds do not wait for each other."""
GATHER_SHARE: Final = (3, 4)
"""Who was answered is waited for as long as that share of what not to wait costs."""
GATHER_US_MAX: Final = 10_000
"""And no longer than this."""
REST_SHARE: Final = (1, 4)
"""Once half are back, the rest have that share of it at least."""
IN_FLIGHT_COSTS: Final = 2
"""What is in flight is waited for as long as so many times what not to wait costs; then a majority is slower than it
was."""
IN_FLIGHT_US_MAX: Final = 20_000
QUICK_MIN: Final = 4
"""On a quick disk nobody waits for fewer, so that few who ask at a pace of their own need not keep step: they would
save less than they wait."""
QUICK_MAX: Final = 24
"""Nor for as many as this, and so many do not wait: they use a round well enough, and two groups of them keep more
processors busy than one."""
QUICK_EACH_MAX: Final = 12
"""Nor for whoever asks for so many at once."""
PAUSE_COSTS: Final = 4
"""Who did not come back is not waited for as long as so many times what not to wait costs; twice as long the next
time."""
PAUSE_COSTS_MAX: Final = 4_096
WAITING_MAX: Final = 1_024
"""Commands; with so many of them the commit of a slow disk is shared well enough."""
ABSENT_MAX: Final = 1_024
"""Callers that are known not to come back."""


class Lately:
    """What something takes: of the last sixteen, the one of this rank."""

    def __init__(self, rank: int) -> None:
        self.us = 0
        self._rank = rank
        self._took_us: list[int] = []

    def took(self, took_us: int) -> None:
        self._took_us.append(took_us)
        if len(self._took_us) == LATELY:
            self.us = sorted(self._took_us)[self._rank]
            self._took_us = []


class Gathering:
    """Of one replica. A caller is known by its client's channel, which threads of one process share."""

    def __init__(self) -> None:
        self._commit = Lately(0)
        self._round = Lately(LATELY // 2)
        self._timed = (0, 0)
        """The entry by which a round is timed, and when it was proposed."""
        self.until_us = 0
        """When whoever waits goes on at the latest; 0: nobody is waited for."""
        self._in_flight = False
        """Is it for what is in flight, and not for callers that were answered?"""
        self._awaited: dict[str, int] = {}
        """Callers, and how many of their commands may come."""
        self._answered = self._back = 0
        """How many commands were answered, and how many came since."""
        self._began_us = 0
        """When they were answered; 0 once half are back."""
        self._pause_costs = PAUSE_COSTS
        self._pauses_until_us = 0
        self._absent: dict[str, tuple[int, int]] = {}
        """Who is not waited for: for how many costs, and until when."""

    @property
    def commit_us(self) -> int:
        """What a commit of the journal takes; 0 while that is not known."""
        return self._commit.us

    @property
    def cost_us(self) -> int:
        """What not to wait costs; 0 while that is not known."""
        rounds_us = min(self._round.us * ROUNDS[0] // ROUNDS[1], ROUNDS_US_MAX)
        return max(self.commit_us, rounds_us) if self._is_slow else rounds_us

    @property
    def _is_slow(self) -> bool:
        return self.commit_us >= SLOW_US

    def took(self, took_us: int) -> None:
        """A commit took so long."""
        self._commit.took(took_us)

    def proposed(self, callers: list[str], index: int, now_us: int) -> None:
        """Their commands leave for the disks, up to that index: what comes now waits for them."""
        if not self._timed[0]:
            self._timed = index, now_us
        self.end()
        if self._is_worth_it(self._expected(callers, now_us)):
            self.until_us = now_us + min(self.cost_us * IN_FLIGHT_COSTS, IN_FLIGHT_US_MAX)
            self._in_flight = True

    def applied(self, callers: list[str], index: int, now_us: int, took_us: int = 0) -> None:
        """All is applied up to that index, and these are answered, once for each of their commands: behind the commit
        of this turn, which took so long."""
        timed_index, since_us = self._timed
        if timed_index and index >= timed_index:
            self._round.took(now_us - since_us)
            self._timed = 0, 0
        answered_us = now_us + took_us
        expected = self._expected(callers, answered_us)
        if self.until_us and not self._in_flight:
            # The rest of what was committed together: nobody is to wait until all of it is applied.
            self._await(expected)
        elif self._is_worth_it(expected):
            self.until_us = answered_us + min(self.cost_us * GATHER_SHARE[0] // GATHER_SHARE[1], GATHER_US_MAX)
            self._in_flight = False
            self._answered = self._back = 0
            self._began_us = answered_us
            self._await(expected)
        elif self._in_flight:
            self.until_us = answered_us

    def arrived(self, caller: str, now_us: int) -> None:
        """A command came."""
        count = self._awaited.get(caller, 0)
        if not count:
            return
        if count == 1:
            del self._awaited[caller]
        else:
            self._awaited[caller] = count - 1
        self._absent.pop(caller, None)
        self._back += 1
        if self._began_us and 2 * self._back >= self._answered:
            rest_us = max(now_us - self._began_us, self.cost_us * REST_SHARE[0] // REST_SHARE[1])
            self.until_us = min(self.until_us, now_us + rest_us)
            self._began_us = 0

    def holds(self, waiting: int, now_us: int) -> bool:
        """Are so many commands to wait?"""
        if not self.until_us:
            return False
        most = WAITING_MAX if self._is_slow else QUICK_MAX
        if now_us < self.until_us and waiting < most and (self._in_flight or self._awaited):
            return True
        if self._awaited and now_us >= self.until_us:
            self._stayed_away(now_us)
        elif not self._in_flight:
            self._pause_costs = PAUSE_COSTS
        self.end()
        return False

    def end(self) -> None:
        """Nobody is waited for any more."""
        self.until_us = 0
        self._in_flight = False
        if self._awaited:
            self._awaited = {}

    def _await(self, expected: dict[str, int]) -> None:
        for caller, count in expected.items():
            self._awaited[caller] = self._awaited.get(caller, 0) + count
            self._answered += count

    def _stayed_away(self, now_us: int) -> None:
        if 2 * self._back < self._answered:
            self._pauses_until_us = now_us + self.cost_us * self._pause_costs
            self._pause_costs = min(2 * self._pause_costs, PAUSE_COSTS_MAX)
            return
        if len(self._absent) + len(self._awaited) > ABSENT_MAX:
            self._absent.clear()
        for caller in self._awaited:
            before = self._absent.get(caller)
            costs = PAUSE_COSTS if before is None else min(2 * before[0], PAUSE_COSTS_MAX)
            self._absent[caller] = costs, now_us + self.cost_us * costs

    def _expected(self, callers: list[str], now_us: int) -> dict[str, int]:
        """Who of them may come back and is worth waiting for, and how many of their commands."""
        counts: dict[str, int] = {}
        is_slow = self._is_slow
        is_right_many = is_slow or QUICK_MIN <= len(callers) < QUICK_MAX
        if not (self.cost_us and is_right_many) or now_us < self._pauses_until_us:
            return counts
        for caller in callers:
            counts[caller] = counts.get(caller, 0) + 1
        for caller in [*counts]:
            is_absent = self._absent and self._absent.get(caller, (0, 0))[1] > now_us
            if is_absent or (counts[caller] >= QUICK_EACH_MAX and not is_slow):
                del counts[caller]
        return counts

    def _is_worth_it(self, expected: dict[str, int]) -> bool:
        return sum(expected.values()) >= (1 if self._is_slow else QUICK_MIN)
