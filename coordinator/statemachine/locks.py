"""Locks, who holds them and who waits, and their fencing tokens.

A token is (restore epoch, log index) in one integer below 2**53, so that it is exact in every language: the index of
the entry that granted, and above it an epoch that a restore raises. It only ever grows for a name, because indices
do; a lock that was deleted and comes again is granted at a higher index. One entry grants a name to at most one
exclusive holder; holders that it lets in together share its token.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final

from coordinator.statemachine.commands import Holder
from coordinator.statemachine.lock_commands import COUNTING, EXCLUSIVE, SHARED, Delay, Grant, Mode, Waiter

if TYPE_CHECKING:
    from coordinator.statemachine.sessions import Session

LOCKS_MAX: Final = 1_000_000
WAITERS_MAX: Final = 200_000
"""Places in line, all names together."""
PLACES_OF_SESSION_MAX: Final = 10_000
"""Holds and places in line of one session. One entry ends them all, in 40 ms; and the names of what it holds, of
NAME_BYTES_MAX each, are 5 MiB, which is below a packet."""

INDEX_BITS: Final = 40
CLIENTS_INDEX_MAX: Final = (1 << INDEX_BITS) - (1 << 30)
"""Behind it a leader takes no command of a client any more: an entry beyond all indices would end every node that
applies it. What is left is for what nodes say themselves, who let in whoever waits when a session runs out."""
PLACES_MAX: Final = 256
EPOCH_MAX: Final = 2 ** (53 - INDEX_BITS) - 1

Key = tuple[int, int]
"""Session and acquisition."""


def fencing_token(epoch: int, index: int) -> int:
    """The token of a grant by entry `index` in restore epoch `epoch`."""
    assert 0 <= epoch <= EPOCH_MAX, f"restore epoch {epoch} is above {EPOCH_MAX}"
    assert 0 < index < 1 << INDEX_BITS, f"log index {index} does not fit a fencing token"
    return epoch << INDEX_BITS | index


class Lock:
    """A name that is held, or waited for.

    Invariants between entries: it has holders, a delay or a queue; whoever is first in line could not be granted now.
    Several exclusive holders are acquisitions of one session, re-entrant ones.
    """

    __slots__ = ("delay", "holders", "limit", "mode", "name", "queue", "token", "upgrading")

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode: Mode = EXCLUSIVE
        """How it is held, or was last."""
        self.limit = 1
        self.token = 0
        """Of the last grant."""
        self.holders: dict[Key, Grant] = {}
        """In the order of their grants. Where there may be many, an OrderedDict: the first of a plain dict is looked
        for behind all that went before it."""
        self.queue: dict[Key, Waiter] = {}
        """In the order of arrival; an OrderedDict where somebody waits, for the same reason."""
        self.upgrading: Key | None = None
        """The shared holder that waits to hold it alone; nobody else is let in."""
        self.delay: Delay | None = None
        """A holder died, and the name stays unavailable."""

    @property
    def holder(self) -> Holder | None:
        """The first of its holders."""
        for grant in self.holders.values():
            return grant.holder
        return None

    @property
    def is_free(self) -> bool:
        """Has nobody anything of it, any more or yet?"""
        return not self.holders and not self.queue and self.delay is None

    def admits(self, waiter: Waiter, session: Session) -> bool:
        """Could `waiter`, which is one of `session`, be let in, were it first in line?"""
        if waiter.reentrant and self.is_of(session):
            return self.is_joined_by(waiter, session)
        if self.delay is not None or self.upgrading is not None:
            return False
        if not self.holders:
            return True
        if waiter.mode == SHARED:
            return self.mode == SHARED
        return waiter.mode == COUNTING == self.mode and waiter.limit == self.limit and len(self.holders) < self.limit

    def is_joined_by(self, waiter: Waiter, session: Session) -> bool:
        """Does its own session hold it, so that it may come in wherever it stands in line?"""
        return waiter.reentrant and self.mode in (EXCLUSIVE, waiter.mode) and self.is_of(session)

    def conflicts(self, waiter: Waiter, session: Session) -> bool:
        """Must somebody let go of it before `waiter` can have it, whoever is in line?"""
        if not self.holders or (waiter.reentrant and self.is_of(session)):
            return False
        if waiter.mode == COUNTING == self.mode and waiter.limit == self.limit:
            return len(self.holders) >= self.limit
        return not waiter.mode == SHARED == self.mode

    def is_of(self, session: Session) -> bool:
        """Does this session hold it, so that another acquisition of it may join?"""
        return self.mode != COUNTING and self.name in session.locks

    def grant(self, waiter: Waiter, token: int) -> Grant:
        holder = waiter.holder
        if not self.holders:
            assert token > self.token, f"token {token} of {self.name!r} does not grow from {self.token}"
            self.hold_as(waiter.mode, waiter.limit)
            self.token = token
        elif self.mode == EXCLUSIVE:  # Another acquisition of the same session: by the token that it has.
            of = next(reversed(self.holders))[0]  # As all are; not gone over, since many may join by one entry.
            assert of == holder.session, f"lock {self.name!r} is held by session {of}"
            token = self.token
        else:
            assert token >= self.token, f"token {token} of {self.name!r} falls behind {self.token}"
            self.token = token
        grant = Grant(holder, token, waiter.names, waiter.delay_ms)
        self.holders[holder.session, holder.acquisition] = grant
        return grant

    def hold_as(self, mode: Mode, limit: int) -> None:
        """From here on it is held so."""
        self.mode, self.limit = mode, limit
        if mode != EXCLUSIVE:
            self.holders = OrderedDict(self.holders)

    def line_up(self, waiter: Waiter) -> None:
        """It is the last in line."""
        if not self.queue:
            self.queue = OrderedDict()
        self.queue[waiter.holder.session, waiter.holder.acquisition] = waiter

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
