"""The vocabulary of locks beyond the exclusive lock of one name: commands, queries and results. A part of
`commands.py`, which names them all.

Words: a *mode* is how a name is held: exclusively; shared with others that share it; counted, by at most `limit`
holders. An *upgrade* goes from shared to exclusive, a *downgrade* back. A *lock-delay* is a time for which a name stays
unavailable after its holder died (Chubby, section 2.4). A *sequencer* says by which grant a name is held, for anyone
to check.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from coordinator.statemachine.structs import WireStruct

NAMES_MAX: Final = 16
"""Of one acquisition."""
LIMIT_MAX: Final = 1_000_000
"""Of a counting lock."""
LOCK_DELAY_MS_MAX: Final = 60_000
REASON_BYTES_MAX: Final = 512
BREAKS_MAX: Final = 1_000
"""Forced releases that are remembered."""
CYCLE_STEPS_MAX: Final = 2_000
"""Steps of a search for a deadlock, from both ends together: one for each holder or waiter that it goes over. A cycle
that lies behind half of them from either end is not found."""

Mode = Literal["exclusive", "shared", "counting"]
EXCLUSIVE: Final = "exclusive"
SHARED: Final = "shared"
COUNTING: Final = "counting"


class Holder(WireStruct, frozen=True):
    session: int
    acquisition: int
    principal: str


# --- commands -------------------------------------------------------------------------------------


class Acquire(WireStruct, tag=32, frozen=True):
    """Take all of `names` for the holder (`owner`, `acquisition`), all or none, or queue for them where `wait` is set.

    `limit`: of a counting lock. `reentrant`: what the session holds of the name already is no hindrance. `delay_ms`:
    the lock-delay if its session expires. `refuse_deadlocks`: where waiting would close a cycle of sessions that wait
    for one another, refuse it and tell the cycle.
    """

    names: tuple[str, ...]
    acquisition: int
    mode: Mode = "exclusive"
    wait: bool = True
    limit: int = 1
    owner: int = 0
    reentrant: bool = False
    delay_ms: int = 0
    refuse_deadlocks: bool = True


class Release(WireStruct, tag=33, frozen=True):
    """Let go of those of `names` that the acquisition holds, and leave the queues that it waits in."""

    names: tuple[str, ...]
    acquisition: int
    owner: int = 0


class ChangeMode(WireStruct, tag=34, frozen=True):
    """Make a shared hold exclusive (an upgrade, by a higher token; ahead of everybody in line), or an exclusive one
    shared (a downgrade, by the same token). To "shared" while an upgrade waits: give it up."""

    name: str
    acquisition: int
    mode: Mode
    wait: bool = True
    owner: int = 0


class HandOver(WireStruct, tag=35, frozen=True):
    """Give a hold to another session, by a higher token, whoever else is in line; but not where the heir waits, by way
    of whomever, for one of those. A shared or counting one only to one that stands in line for it in the same way."""

    name: str
    acquisition: int
    to_session: int
    to_acquisition: int
    owner: int = 0


class ForceRelease(WireStruct, tag=36, frozen=True):
    """Take `name` from all that hold it (`session` 0) or from one session, and end the lock-delay that they, or that
    one, left behind. Who did it and why is kept. It is free at once: only fencing tokens keep a former holder out."""

    name: str
    reason: str
    session: int = 0


class EndLockDelays(WireStruct, tag=107, frozen=True):
    """Lock-delays that have passed, proposed by the leader alone: each is a name and the index that its delay is
    since."""

    delays: tuple[tuple[str, int], ...]


class RaiseEpoch(WireStruct, tag=103, frozen=True):
    """The first command after a restore: tokens are above all that were granted before it."""

    epoch: int


# --- queries --------------------------------------------------------------------------------------


class GetLockState(WireStruct, tag=45, frozen=True):
    """Who holds a name, how, and who waits for it."""

    name: str


class CheckSequencer(WireStruct, tag=46, frozen=True):
    """Is the name held by the grant that this sequencer says?"""

    sequencer: str


class ListBreaks(WireStruct, tag=47, frozen=True):
    """Forced releases, the oldest that is remembered first, from the first behind the number `after`."""

    after: int = 0
    limit: int = 100


EventKind = Literal["acquired", "conflict", "released", "handed-over", "expired", "forced"]
ACQUIRED: Final = "acquired"
CONFLICT: Final = "conflict"
RELEASED: Final = "released"
HANDED_OVER: Final = "handed-over"
EXPIRED: Final = "expired"
FORCED: Final = "forced"


class LockEvent(WireStruct, frozen=True):
    """Entry `revision` let `holder` have `name`, in `mode` and by `token` ("acquired"); or `holder` asked for it in a
    mode that it can not have beside those that hold it, the last of whom have it by `token` ("conflict"). `waits`: it
    is in line, or waits for its upgrade; else it was refused. Or the hold of `holder`, which was in `mode` and by
    `token`, ended: it let go itself ("released"), or gave it to another ("handed-over"), its session ran out
    ("expired"), or it was taken from it ("forced")."""

    revision: int
    name: str
    kind: EventKind
    holder: Holder
    mode: Mode
    token: int
    waits: bool = False


class ReadLockEvents(WireStruct, tag=48, frozen=True):
    """Events of the locks of a range of names, in their order, from the revision `since` on (0: from now on), less the
    first `skip` events of that revision, whatever names they are of. `acquired`, `conflicts`: which kinds."""

    start: str
    end: str = ""
    prefix: bool = False
    since: int = 0
    skip: int = 0
    limit: int = 0
    acquired: bool = True
    conflicts: bool = True

    def wants(self, event: LockEvent) -> bool:
        """Is it of a kind that was asked for?"""
        return self.acquired if event.kind == ACQUIRED else self.conflicts and event.kind == CONFLICT


class ReadLockLives(ReadLockEvents, tag=72, frozen=True):
    """The same, and with `released` each hold that ends, in whatever way. Whoever asks with `ReadLockEvents` is not
    told of kinds that it may not know."""

    released: bool = True

    def wants(self, event: LockEvent) -> bool:
        if event.kind == ACQUIRED:
            return self.acquired
        return self.conflicts if event.kind == CONFLICT else self.released


def events_of(
    span: tuple[str, str, bool],
    since: int,
    skip: int,
    limit: int = 0,
    *,
    acquired: bool,
    conflicts: bool,
    released: bool,
) -> ReadLockEvents:
    """The question for these kinds: where it does without `released`, one that nodes of level 4 know, too."""
    if released:
        return ReadLockLives(*span, since, skip, limit, acquired, conflicts)
    return ReadLockEvents(*span, since, skip, limit, acquired, conflicts)


# --- results --------------------------------------------------------------------------------------


class LockEventPage(WireStruct, tag=37, frozen=True):
    """As a `ChangePage`: go on from (`since`, `skip`)."""

    events: tuple[LockEvent, ...]
    since: int
    skip: int


class LockWait(WireStruct, frozen=True):
    """`session` waits for `name`."""

    session: int
    name: str


class Deadlock(WireStruct, tag=32, frozen=True):
    """Refused: each of these waits for what the next one holds, or is before it in line for; the last one waits for the
    first, who is the caller, or the heir of a hand-over."""

    cycle: tuple[LockWait, ...]


class Grant(WireStruct, frozen=True):
    """`names` are all that were taken together."""

    holder: Holder
    token: int
    names: tuple[str, ...]
    delay_ms: int = 0


class Waiter(WireStruct, frozen=True):
    holder: Holder
    mode: Mode
    limit: int
    names: tuple[str, ...]
    reentrant: bool = False
    delay_ms: int = 0


class LockState(WireStruct, tag=33, frozen=True):
    """`holders` and `waiters` are the first few, `holding` and `waiting` how many there are. `delay_ms`: a lock-delay
    of so much is under way. `upgrading`: the holder that waits to hold it alone."""

    name: str
    mode: Mode
    limit: int
    token: int
    holders: tuple[Grant, ...]
    holding: int
    waiters: tuple[Waiter, ...]
    waiting: int
    delay_ms: int
    upgrading: Holder | None


class SequencerState(WireStruct, tag=34, frozen=True):
    valid: bool


class Break(WireStruct, frozen=True):
    """Entry `index`: `principal` took `name` from `holder`, who had it by `token`, or ended the lock-delay that this
    hold had left behind. `number` counts them."""

    number: int
    index: int
    name: str
    holder: Holder
    token: int
    principal: str
    reason: str


class BreakList(WireStruct, tag=35, frozen=True):
    breaks: tuple[Break, ...]


class Broken(WireStruct, tag=36, frozen=True):
    """Not held any more: it was taken away by force."""

    broken: Break


class Delay(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of a name whose holder died: whose grant that was, for how long it stays unavailable, and since which entry."""

    holder: Holder
    token: int
    delay_ms: int
    since: int


def sequencer(name: str, mode: Mode, token: int) -> str:
    """`name:mode:generation`: the generation is the fencing token of the grant."""
    return f"{name}:{mode}:{token}"
