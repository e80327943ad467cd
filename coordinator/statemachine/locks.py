"""Exclusive locks with a first-in-first-out queue, and their fencing tokens.

A token is (restore epoch, log index) in one integer below 2**53, so that it is exact in every language: the index of
the entry that granted, and above it an epoch that a restore raises. It only ever grows for a name, because indices
do; a lock that was deleted and comes again is granted at a higher index.

One entry grants a name at most once: grants are made only when the whole entry has been taken in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator.statemachine.commands import Holder

INDEX_BITS: Final = 40
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
        """Place in the queue, 1 the next in line; None where it does not wait."""
        for place, key in enumerate(self.queue, 1):
            if key == (session, acquisition):
                return place
        return None

    def waiters(self) -> Iterator[Holder]:
        return iter(self.queue.values())
