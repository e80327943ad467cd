"""What a node does with its processor while others have something to do, and it waits for what comes of it.

Whoever a packet wakes may run before the node goes on. What is published wakes Redis, and through it another node or a
client: often on the very processor that the node has, where they wait until it falls asleep. Between packet and sleep
there is the commit of the journal, or what is left of a turn, and neither is as urgent as what was just sent. So the
node gives the processor up for a moment; where nobody waits for it, that takes a microsecond.

In a conversation it does not fall asleep at all: where one packet soon follows another, it looks for the next one
again and again, and gives way each time. Whoever runs on its processor meanwhile is not kept, and nobody need wake the
node, or a processor that sleeps: on a virtual machine that takes longer than a message does. Seastar's
`--idle-poll-time-us` is of the same kind, and KVM's `halt_poll_ns`. Where many ask it sleeps: what comes in the time
that it takes to wake shares a turn then.

Linux has a thread that yields stand behind all others of its processor, for a time slice of theirs. Those whom a packet
wakes soon sleep again; somebody who computes without end takes the whole slice, 3 ms each time. Where yielding takes
long, the node does neither for some time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

TOGETHER: Final = 16
"""So many are looked at together: among those that took long there are always some that took none."""
TOGETHER_NS_MAX: Final = 4_000_000
"""They take 1.4 ms where clients and nodes use the processors up, 10 ms where programs compute beside them."""
PAUSE_NS: Final = 100_000_000
PAUSE_NS_MAX: Final = 2_000_000_000
"""A node that starts is beside others that do: it must not have learned from that for long. Of two seconds one slice,
or a few, are less than a hundredth."""

SHORT_NS: Final = 400_000
"""For so long a node looks for the next packet. One that looks for much longer keeps a processor awake on which others
would begin to run side by side: with 1 ms the gain is smaller, and costs more."""
SHORT_WAITS: Final = 8
"""So many in a row make a conversation. Where somebody asks now and then there is none: every other wait is long."""
FEW_BYTES: Final = 512
"""More at once are of many who ask; of one caller 200 come."""
FEW_PACKETS: Final = 4
"""More at once are of many processes, or of many clusters: somebody always waits for the processor then, and takes it
for long. The node keeps it, and neither looks nor gives way."""
MANY_NS: Final = 20_000_000
"""For so long after that there are many."""


class Yielding:
    """Gives the processor up, where that does not take long."""

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

    def give_way(self) -> bool:
        """False where that took too long lately, and so was not done."""
        began_ns = self._now_ns()
        if began_ns < self._pauses_until_ns:
            return False
        self._yields()
        ended_ns = self._now_ns()
        self._took_ns += ended_ns - began_ns
        self._count += 1
        if self._took_ns > TOGETHER_NS_MAX:
            self._pauses_until_ns = ended_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, PAUSE_NS_MAX)
        elif self._count < TOGETHER:
            return True
        else:
            self._pause_ns = max(self._pause_ns // 2, PAUSE_NS)
        self._count = self._took_ns = 0
        return True

    def pause(self, until_ns: int) -> None:
        """Keep the processor up to then, as somebody else knows better."""
        self._pauses_until_ns = max(self._pauses_until_ns, until_ns)


class Conversation:
    """What one hears soon after another, so that it is worth listening for the next."""

    def __init__(self, yielding: Yielding, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._yielding = yielding
        self._now_ns = now_ns
        self._waits_since_ns = 0
        """For the next packet; 0: it does not."""
        self._short_waits = 0
        """In a row, up to now."""
        self._many_until_ns = 0
        """Before this there were many who asked lately."""

    def look(self, poll: Callable[[int], list[Any]], timeout_us: int) -> list[Any]:
        """What `poll` has, without sleeping; nothing where it is time to sleep. For `timeout_us` at the most."""
        now_ns = self._now_ns()
        if not self._waits_since_ns:
            self._waits_since_ns = now_ns
        if self._short_waits < SHORT_WAITS or now_ns < self._many_until_ns:
            return []
        until_ns = min(self._waits_since_ns + SHORT_NS, now_ns + timeout_us * 1_000)
        while now_ns < until_ns:
            ready = poll(0)
            if ready or not self._yielding.give_way():
                return ready
            now_ns = self._now_ns()
        return []

    def came(self, packets: int, size: int) -> None:
        """So many came, of so many bytes together."""
        now_ns = self._now_ns()
        if self._waits_since_ns:
            is_short = now_ns - self._waits_since_ns <= SHORT_NS
            self._short_waits = self._short_waits + 1 if is_short else 0
            self._waits_since_ns = 0
        if packets > FEW_PACKETS or size > FEW_BYTES:
            self._many_until_ns = now_ns + MANY_NS
        if packets > FEW_PACKETS:
            self._yielding.pause(self._many_until_ns)
