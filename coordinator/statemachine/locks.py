"""Exclusive locks with a first-in-first-out queue, and their fencing tokens.

A token is (restore epoch, log index) in one integer below 2**53, so that it is exact in every language: the index of
the entry that granted, and above it an epoch that a restore raises. It only ever grows for a name, because indices
do; a lock that was deleted and comes again is granted at a higher index.

One entry grants a name at most once: grants are made only when the whole entry has been taken in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from coordinator.statemachine.commands import Holder

INDEX_BITS: Final = 40
PLACES_MAX: Final = 256
EPOCH_MAX: Final = 2 ** (53 - INDEX_BITS) - 1


def fencing_token(epoch: int, index: int) -> int:
    """The token of a grant by entry `index` in restore epoch `epoch`."""
    assert 0 <= epoch <= EPOCH_MAX, f"restore epoch {epoch} is above {EPOCH_MAX}"
    assert 0 < index < 1 << INDEX_BITS, f"log index {index} does not fit a fencing token"
    return epoch << INDEX_BITS | index


class Lock:
    """A name that somebody holds. Invariant between entries: whoever waits, waits for a holder."""

    __slots__ = ("holder", "name", "queue", "token")

    def __init__(self, name: str) -> None:
        self.name = name
        self.holder: Holder | None = None
        self.token = 0
        self.queue: dict[tuple[int, int], Holder] = {}
        """(session, acquisition) to waiter, in the order of arrival."""

    def grant(self, holder: Holder, token: int) -> None:
        assert self.holder is None, f"lock {self.name!r} is held by {self.holder}"
        assert token > self.token, f"token {token} of {self.name!r} does not grow from {self.token}"
        self.holder = holder
        self.token = token

    def position(self, session: int, acquisition: int) -> int | None:
        """Place in the queue, 1 the next in line; None where it does not wait. Exact up to PLACES_MAX; further back it
        is the length of the queue, so that asking costs no more the longer it grows."""
        wanted = (session, acquisition)
        if wanted not in self.queue:
            return None
        for place, key in enumerate(islice(self.queue, PLACES_MAX), 1):
            if key == wanted:
                return place
        return len(self.queue)

    def replace(self, session: int, acquisition: int, holder: Holder) -> None:
        """Put `holder` in the place of a waiter."""
        self.queue = {
            (session, holder.acquisition) if key == (session, acquisition) else key: holder
            if key == (session, acquisition)
            else waiter
            for key, waiter in self.queue.items()
        }

    def waiters(self) -> Iterator[Holder]:
        return iter(self.queue.values())
