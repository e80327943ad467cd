"""Linearizable reads without a log entry: ReadIndex (thesis, section 6.4), batched over one round for all readers.

A read may be answered once (1) an entry of the leader's own term is committed, (2) a majority confirmed the leader in
a round sent after the read came, and (3) the state machine has applied what was committed when both held. Tickets are
local numbers; what goes over the wire is the round.
"""

from __future__ import annotations

from collections import deque

from coordinator.consensus.engine import ConfirmedRead


class Reads:
    def __init__(self) -> None:
        self._last_ticket = 0
        self._waiting: deque[tuple[int, int]] = deque()  # (ticket, the round that must be confirmed), rounds ascend

    def add(self, current_round: int) -> int:
        """A read came after round `current_round` was sent: only a later one can confirm it."""
        self._last_ticket += 1
        self._waiting.append((self._last_ticket, current_round + 1))
        return self._last_ticket

    def needs_round(self, current_round: int) -> bool:
        """Does a read wait for a round that was not sent yet?"""
        return bool(self._waiting) and self._waiting[-1][1] > current_round

    def take(self, confirmed_round: int, commit: int) -> list[ConfirmedRead]:
        """Reads that round `confirmed_round` confirms, each at the commit index of now (no earlier one than
        the index at which it came)."""
        taken = []
        while self._waiting and self._waiting[0][1] <= confirmed_round:
            taken.append(ConfirmedRead(self._waiting.popleft()[0], commit))
        return taken

    def drop(self) -> None:
        """Leadership is lost: nobody answers these."""
        self._waiting.clear()
