"""A session as its client sees it: its numbers, and until when it can be proven alive.

A lease counts from the *sending* of what was answered, on a monotonic clock, less a margin for clocks that drift
(history 1). Past that the session is in jeopardy: the cluster may still keep it, and a later answer restores it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from coordinator.statemachine.lock_commands import BREAKS_MAX, Break

DRIFT_SHARE: Final = 100
"""Margin: one part in this many of the time to live. Clocks of one make drift by less than a thousandth."""
DRIFT_US: Final = 5_000
RENEWALS: Final = 3
"""Keep-alives are sent so many times within a time to live."""


_forks = 0
"""How many forks this process is away from the first. To look costs less than to ask for the number of a process."""


def _forked() -> None:
    global _forks  # noqa: PLW0603 - a count of this process
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def process() -> tuple[int, int]:
    """Which process this is. Its number alone does not say so: where it is the first of a PID namespace, so may be a
    fork of it, and a number comes again."""
    return os.getpid(), _forks


class Session:
    def __init__(self, session: int, ttl_ms: int, sent_us: int) -> None:
        self.session = session
        self.ttl_ms = ttl_ms
        self.valid_until_us = 0
        self._forks = _forks
        self._gone = False
        self.renew_due_us = 0
        self._next_number = 1
        self._open: dict[int, None] = {}
        """Numbers not answered yet, ascending (a dict for its order)."""
        self._next_acquisition = 1
        self._broken: dict[tuple[str, int], Break] = {}
        self.confirmed(sent_us)

    @property
    def gone(self) -> bool:
        """The cluster said so; final. Nor has a fork of this process a part in it."""
        return self._gone or self._forks != _forks

    @gone.setter
    def gone(self, gone: bool) -> None:
        self._gone = gone

    def confirmed(self, sent_us: int) -> None:
        """A leader answered what was sent at `sent_us`, and it gave a full lease then or later."""
        ttl_us = self.ttl_ms * 1_000
        until_us = sent_us + ttl_us - ttl_us // DRIFT_SHARE - DRIFT_US
        if until_us > self.valid_until_us:
            self.valid_until_us = until_us
            self.renew_due_us = sent_us + ttl_us // RENEWALS

    def valid(self, now_us: int) -> bool:
        """Can it be proven alive?"""
        return now_us < self.valid_until_us and not self.gone

    def hold_broken(self, broken: Break) -> None:
        """The cluster says that a hold was taken away by force. Of one place the last of these counts, and of all of
        them the last BREAKS_MAX are known, as many as the cluster remembers."""
        place = (broken.name, broken.holder.acquisition)
        known = self._broken.pop(place, None)
        self._broken[place] = broken if known is None or broken.token > known.token else known
        if len(self._broken) > BREAKS_MAX:
            del self._broken[next(iter(self._broken))]

    def broken(self, name: str, acquisition: int, token: int) -> Break | None:
        """By which the hold of that token was taken away by force, as far as it is known. From any thread."""
        broken = self._broken.get((name, acquisition))
        return broken if broken is not None and broken.token >= token else None

    def next_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        self._open[number] = None
        return number

    def answered(self, number: int) -> None:
        """The request is over for this client, answered or given up: the cluster may forget its result."""
        self._open.pop(number, None)

    def nothing_is_open(self, but: Iterable[int] = ()) -> None:
        """Every request is over, also those whose end was missed, `but` those of these numbers (ascending)."""
        self._open = dict.fromkeys(but)

    @property
    def acked(self) -> int:
        """Every number below is over."""
        return next(iter(self._open), self._next_number)

    def next_acquisition(self) -> int:
        acquisition = self._next_acquisition
        self._next_acquisition += 1
        return acquisition
