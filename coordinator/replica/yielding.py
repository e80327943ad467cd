"""Whoever a node's packets wake may run before the node goes on.

What is published wakes Redis, and through it another node or a client: often on the very processor that the node has,
where they wait until it falls asleep. Between packet and sleep there is the commit of the journal, or what is left of a
turn, and neither is as urgent as what was just sent. So the node gives the processor up for a moment; where nobody
waits for it, that takes a microsecond.

Linux has a thread that yields stand behind all others of its processor, for a time slice of theirs. Those whom a packet
wakes soon sleep again; somebody who computes without end takes the whole slice, 3 ms for each packet. Where yielding
takes long, the node does not do it for some time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

TOGETHER: Final = 16
"""So many are looked at together: among those that took long there are always some that took none."""
TOGETHER_NS_MAX: Final = 4_000_000
"""They take 1.4 ms where clients and nodes use the processors up, 10 ms where programs compute beside them."""
PAUSE_NS: Final = 100_000_000
PAUSE_NS_MAX: Final = 2_000_000_000
"""A node that starts is beside others that do: it must not have learned from that for long. Of two seconds one slice, or a
few, are less than a hundredth."""


class Yielding:
    def __init__(
        self, now_ns: Callable[[], int] = time.monotonic_ns, yields: Callable[[], object] = os.sched_yield
    ) -> None:
        self._now_ns = now_ns
        self._yields = yields
        self._count = 0
        self._took_ns = 0
        """All of these together."""
        self._pause_ns = PAUSE_NS
        """How long the next pause is: twice as long as the one before, while they follow upon each other."""
        self._pauses_until_ns = 0

    def give_way(self) -> None:
        began_ns = self._now_ns()
        if began_ns < self._pauses_until_ns:
            return
        self._yields()
        ended_ns = self._now_ns()
        self._took_ns += ended_ns - began_ns
        self._count += 1
        if self._took_ns > TOGETHER_NS_MAX:
            self._pauses_until_ns = ended_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, PAUSE_NS_MAX)
        elif self._count < TOGETHER:
            return
        else:
            self._pause_ns = max(self._pause_ns // 2, PAUSE_NS)
        self._count = self._took_ns = 0
