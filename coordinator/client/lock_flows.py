"""What becomes of a hold: upgrades, downgrades, hand-over. `flows.py` has the taking and the letting go.

An upgrade is waited for by asking: a push for its acquisition may be an old one, of the shared grant (history 8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator.client.calls import Call
from coordinator.client.core import WITHDRAW_US_MAX, Core
from coordinator.client.errors import (
    Closed,
    ConclaveError,
    LeaseLost,
    LockNotAcquired,
    OutcomeUnknown,
    SessionGone,
    Unavailable,
    caused,
    refuse,
)
from coordinator.client.flows import HOLDER_US, Clock, Flow, Grant, release
from coordinator.client.session import Session
from coordinator.statemachine import commands
from coordinator.statemachine.commands import CancelAcquire, Granted, Held, Holder, NotHeld, Queued
from coordinator.statemachine.lock_commands import EXCLUSIVE, SHARED, ChangeMode, HandOver, Mode, Release

HEIR_ASKS_US: Final = 100_000
"""How often an heir asks whether the name was handed over."""

Settle = Callable[[int, Mode], None]
"""Told the token and the mode that a hold has come to."""


def give_back(core: Core, clock: Clock, grant: Grant) -> None:
    """Nobody wants it any more: it is let go in the background."""
    if not grant.session.gone:
        op = Release(grant.names or (grant.name,), grant.acquisition)
        core.in_background(grant.session, op, clock())


def let_go(core: Core, clock: Clock, grant: Grant) -> Flow:
    """Nobody waits for it, and it is tried for as long as the client tries anything in the background."""
    return (yield from release(core, clock, grant, clock() + WITHDRAW_US_MAX))


def leave(core: Core, clock: Clock, grant: Grant, deadline_us: int) -> Flow:
    """Let go at the end of a `with` that raised nothing. Raises LeaseLost where it was not held any more."""
    if not (yield from release(core, clock, grant, deadline_us)):
        yield from say_lost(core, clock, grant)


def downgrade(core: Core, clock: Clock, grant: Grant, deadline_us: int) -> Flow:
    """Share it; the token. Said twice it does no harm, so that an unknown outcome may be asked for again."""
    result = yield from of_hold(core, clock, grant, core.command(grant.session, _shared(grant), clock(), deadline_us))
    return result.token


def upgrade(core: Core, clock: Clock, grant: Grant, wait_us: int | None, timeout_us: int, settle: Settle) -> Flow:
    """Hold it alone; the new token. Whoever leaves meanwhile shares it still: `settle` is told so, once it is known."""
    until_us = None if wait_us is None else clock() + wait_us
    op = ChangeMode(grant.name, grant.acquisition, EXCLUSIVE, wait_us != 0)
    asked = core.command(grant.session, op, clock(), max(clock() + timeout_us, until_us or 0))
    try:
        result = yield from of_hold(core, clock, grant, asked)
        if isinstance(result, Queued):
            result = yield core.grant(grant.session.session, grant.name, grant.acquisition, clock(), until_us, ask=True)
            if isinstance(result, NotHeld):
                yield from say_lost(core, clock, grant)
            if result is None:
                shared = yield from of_hold(
                    core, clock, grant, core.command(grant.session, _shared(grant), clock(), clock() + timeout_us)
                )
                settle(shared.token, SHARED)
                raise LockNotAcquired(grant.name, None)
            refuse(result)
    except (LeaseLost, LockNotAcquired):
        raise
    except ConclaveError as error:
        if isinstance(error, OutcomeUnknown):
            _give_up(core, clock, grant, asked, settle)
        raise
    except BaseException:
        _give_up(core, clock, grant, asked, settle)
        raise
    if isinstance(result, Held):
        raise LockNotAcquired(grant.name, result.holder)
    assert isinstance(result, Granted), result
    return result.token


def hand_over(core: Core, clock: Clock, grant: Grant, op: HandOver, deadline_us: int) -> Flow:
    """Give it to the session that `op` names."""
    return (yield from of_hold(core, clock, grant, core.command(grant.session, op, clock(), deadline_us)))


def inherit(core: Core, clock: Clock, own: Session, name: str, holder: Holder, wait_us: int | None) -> Flow:
    """Wait until `name` is handed over to `holder`, which stands in no line; the Grant."""
    until_us = None if wait_us is None else clock() + wait_us
    core.room.check()
    while True:
        if own.gone:
            raise LeaseLost(f"lock {name!r}: the session that was to have it is gone")
        result = yield core.grant(own.session, name, holder.acquisition, clock(), until_us, ask=True)
        grant = Grant(own, name, holder.acquisition, result.token if isinstance(result, Granted) else 0)
        if grant.token and own.valid(clock()):
            return grant
        if result is None or (until_us is not None and clock() >= until_us):
            if grant.token:
                give_back(core, clock, grant)
            raise LockNotAcquired(name, None)
        refuse(result)
        yield core.pause(clock() + HEIR_ASKS_US)


def was_not_done(error: ConclaveError) -> bool:
    """Does this say of a command on a hold that it was not applied, and will not be?"""
    return not isinstance(error, (OutcomeUnknown, LeaseLost, Closed))


def _shared(grant: Grant) -> ChangeMode:
    return ChangeMode(grant.name, grant.acquisition, SHARED)


def of_hold(core: Core, clock: Clock, grant: Grant, asked: Call) -> Flow:
    """The answer to a command on a hold. Raises LeaseLost where it is none any more, and what refusals say. An
    Unavailable says that it was never sent."""
    try:
        result = yield asked
    except (SessionGone, OutcomeUnknown) as error:
        if isinstance(error, OutcomeUnknown) and not error.session_gone:
            raise
        core.lose_session(grant.session)
        raise caused(_without_session(grant), error) from error
    except Closed:
        raise
    except Unavailable as unavailable:
        if asked.first_sent_us is None:
            raise
        unknown = OutcomeUnknown(f"sent, and given up before an answer came: {unavailable}")
        raise caused(unknown, unavailable) from unavailable
    if isinstance(result, NotHeld):
        yield from say_lost(core, clock, grant)
    return refuse(result)


def say_lost(core: Core, clock: Clock, grant: Grant) -> Flow:
    """Raises LeaseLost, as Broken where the lock was taken away by force."""
    if grant.session.gone:
        raise _without_session(grant)
    lost = LeaseLost(f"lock {grant.name!r} is not held any more")
    query = commands.AwaitGrant(grant.name, grant.acquisition, grant.session.session)
    try:
        refuse((yield core.query(query, clock(), clock() + HOLDER_US)))
    except LeaseLost:
        raise
    except ConclaveError:
        raise caused(lost, None) from None
    raise lost


def _without_session(grant: Grant) -> LeaseLost:
    return LeaseLost(f"lock {grant.name!r}: the session is gone, and another may hold it now")


def _give_up(core: Core, clock: Clock, grant: Grant, asked: Call, settle: Settle) -> None:
    """Its asker left: share it again, in the background. First the request itself is ruled out by a mark, whatever is
    still on its way (history 12), and only then what it may have done is undone."""
    core.abandon(asked)
    own = grant.session
    if own.gone:
        return
    mark = CancelAcquire(grant.name, own.next_acquisition(), asked.number)

    def undo(_: Call) -> None:
        if not own.gone:
            core.in_background(own, _shared(grant), clock()).when_done(settled)

    def settled(shared: Call) -> None:
        if isinstance(shared.outcome, commands.Granted):
            settle(shared.outcome.token, SHARED)

    core.in_background(own, mark, clock()).when_done(undo)
