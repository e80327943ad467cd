"""Locks of all modes: shared, counting, several names at once; upgraded, downgraded, handed over, broken, given up."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from coordinator.client.calls import Call
from coordinator.client.errors import ConclaveError
from coordinator.client.flows import Grant
from coordinator.client.session import Session
from coordinator.statemachine.commands import Granted, Queued
from coordinator.statemachine.lock_commands import (
    COUNTING,
    EXCLUSIVE,
    SHARED,
    Acquire,
    ChangeMode,
    ForceRelease,
    GetLockState,
    HandOver,
    LockState,
    Mode,
    Release,
)
from tests.simulation.clients import Client, HeldLease, Script, Sleep
from tests.simulation.mixed.asking import Act
from tests.simulation.mixed.mix import LIMIT
from tests.simulation.workload import HOLD_CHECKS, Impatience, impatient

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

COUNTED: Final = "y"
"""The name that is counted, mostly; all others are exclusive or shared, mostly."""
TIDY_US: Final = 200_000


class Attempt:
    """An acquisition that was granted, with a lease for each of its names."""

    def __init__(self, session: Session, acquisition: int, number: int, token: int, leases: list[HeldLease]) -> None:
        self.session = session
        self.acquisition = acquisition
        self.number = number
        self.token = token
        self.leases = leases

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(lease.name for lease in self.leases)

    @property
    def mode(self) -> Mode:
        return self.leases[0].mode


Taking = Generator[Call | Sleep, Any, Attempt | None]


def work(mixed: Mixed, client: Client) -> Act:
    random = client.random
    if random.random() < 0.05:
        name = random.choice((*_names(mixed), COUNTED))
        yield from mixed.command(client, ForceRelease(name, "an operator wants it"))
        return
    names, mode = _wanted(mixed, client)
    wait_us = random.choice((0, 300_000, 1_000_000, 3_000_000))
    attempt = yield from take(mixed, client, names, mode, wait_us=wait_us)
    if attempt is None:
        return
    yield from hold(mixed, client, attempt)
    if random.random() < 0.7:
        yield from _use(mixed, client, attempt)
    yield from let_go(mixed, client, attempt)


def _names(mixed: Mixed) -> list[str]:
    return [f"x{number}" for number in range(mixed.mix.lock_names)]


def _wanted(mixed: Mixed, client: Client) -> tuple[tuple[str, ...], Mode]:
    random = client.random
    choice = random.random()
    names = _names(mixed)
    if choice < 0.15:
        return (COUNTED,), COUNTING
    if choice < 0.2:
        return (random.choice((COUNTED, *names)),), random.choice((COUNTING, SHARED))
    if choice < 0.35 and len(names) > 1:
        return tuple(random.sample(names, random.randrange(2, len(names) + 1))), random.choice((EXCLUSIVE, SHARED))
    return (random.choice(names),), random.choice((EXCLUSIVE, SHARED, SHARED, SHARED))


# --- taking and letting go ------------------------------------------------------------------------


def take(
    mixed: Mixed,
    client: Client,
    names: tuple[str, ...],
    mode: Mode,
    *,
    wait_us: int,
    own: Session | None = None,
    reentrant: bool = False,
) -> Taking:
    """Take all of `names`, waiting in line for so long; None: not had."""
    random = client.random
    if own is None:
        own = yield from mixed.session(client)
    if own is None:
        return None
    acquisition = own.next_acquisition()
    mixed.attempts.add((client.name, own.session, acquisition))
    op = Acquire(
        names,
        acquisition,
        mode,
        wait_us > 0,
        LIMIT if mode == COUNTING else 1,
        reentrant=reentrant,
        delay_ms=random.choice(mixed.mix.delays_ms),
        refuse_deadlocks=random.random() < 0.8,
    )
    flow = _taken(mixed, client, own, op, wait_us)
    if random.random() < mixed.impatience:
        flow = impatient(client, flow, int(200 * 4_000 ** random.random()))
    try:
        result, number = yield from flow
    except Impatience:
        return None
    if not isinstance(result, Granted):
        return None
    mixed.world.workload.locks_taken += 1
    leases = [client.took(Grant(own, name, acquisition, result.token), mode, op.limit) for name in sorted({*op.names})]
    return Attempt(own, acquisition, number, result.token, leases)


def _taken(
    mixed: Mixed, client: Client, own: Session, op: Acquire, wait_us: int
) -> Generator[Any, Any, tuple[object, int]]:
    """The grant, or whatever else came of it; whoever leaves before that gives up what may have come of it."""
    core, now = client.core, client.clock.now_us
    asked = core.command(own, op, now(), now() + mixed.timeout_us)
    granted: object = None
    try:
        question = yield from mixed.answer(client, op, asked)
        granted = question.result
        if isinstance(granted, Queued):
            name = min(op.names)
            granted = yield core.grant(own.session, name, op.acquisition, now(), now() + wait_us)
        return granted, asked.number
    except ConclaveError:
        return None, asked.number
    finally:
        if granted is None or isinstance(granted, Queued):
            core.abandon(asked)
            core.withdraw(own, min(op.names), op.acquisition, asked.number, now())
        if not isinstance(granted, Granted):
            mixed.attempts.discard((client.name, own.session, op.acquisition))


def hold(mixed: Mixed, client: Client, attempt: Attempt) -> Script:
    """Use it for a while, as long as it can be proven held."""
    hold_us = client.random.randrange(1_000, mixed.hold_us_max)
    for _ in range(HOLD_CHECKS):
        yield Sleep(hold_us // HOLD_CHECKS + 1)
        if not all(lease.held for lease in attempt.leases):
            return


def let_go(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    for lease in attempt.leases:
        client.let_go(lease)
    if not attempt.session.gone:
        names = attempt.names
        released = yield from mixed.command(client, Release(names, attempt.acquisition), attempt.session)
        if released.error is not None and not attempt.session.gone:
            _give_up(client, attempt)
    mixed.attempts.discard((client.name, attempt.session.session, attempt.acquisition))


def _give_up(client: Client, attempt: Attempt) -> None:
    """In the background, until the cluster says so."""
    for name in attempt.names:
        now_us = client.clock.now_us()
        client.core.withdraw(attempt.session, name, attempt.acquisition, attempt.number, now_us)


# --- what one does with it ------------------------------------------------------------------------


def _use(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    random = client.random
    choice = random.random()
    if attempt.mode == SHARED and len(attempt.leases) == 1 and choice < 0.7:
        yield from _upgrade(mixed, client, attempt)
    elif attempt.mode == EXCLUSIVE and len(attempt.leases) == 1 and choice < 0.6:
        if choice < 0.3:
            yield from _hand_over(mixed, client, attempt)
        else:
            yield from _downgrade(mixed, client, attempt)
    elif len(attempt.leases) == 1 and choice > (0.9 if attempt.mode == SHARED else 0.6):
        yield from _hand_over(mixed, client, attempt)
    else:
        yield from _take_another(mixed, client, attempt)


def _upgrade(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    random = client.random
    core, now = client.core, client.clock.now_us
    lease, own = attempt.leases[0], attempt.session
    question = yield from mixed.command(
        client, ChangeMode(lease.name, attempt.acquisition, EXCLUSIVE, random.random() < 0.8), own
    )
    result = question.result
    if isinstance(result, Queued):
        until_us = now() + random.choice((100_000, 500_000, 1_500_000))
        try:
            # A push may be an old one, of the shared grant: it asks.
            result = yield core.grant(own.session, lease.name, attempt.acquisition, now(), until_us, ask=True)
        except ConclaveError:
            return
    if isinstance(result, Granted) and lease in client.leases and lease.held:
        client.changed(lease, EXCLUSIVE, result.token)
        attempt.token = result.token
        yield from hold(mixed, client, attempt)
        if random.random() < 0.5:
            yield from _downgrade(mixed, client, attempt)


def _downgrade(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    """From the sending on others may share it."""
    lease = attempt.leases[0]
    client.changed(lease, SHARED, lease.token)
    yield from mixed.command(client, ChangeMode(lease.name, attempt.acquisition, SHARED), attempt.session)
    yield from hold(mixed, client, attempt)


def _hand_over(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    """Give it to somebody in line who is not the next."""
    lease = attempt.leases[0]
    question = yield from mixed.query(client, GetLockState(lease.name))
    state = question.result
    if not isinstance(state, LockState):
        return
    heirs = [
        waiter.holder
        for waiter in state.waiters
        if waiter.holder.session != attempt.session.session and attempt.mode in (EXCLUSIVE, waiter.mode)
    ]
    if heirs and lease.held:
        heir = client.random.choice(heirs)
        client.let_go(lease)
        op = HandOver(lease.name, attempt.acquisition, heir.session, heir.acquisition)
        yield from mixed.command(client, op, attempt.session)


def _take_another(mixed: Mixed, client: Client, attempt: Attempt) -> Act:
    """Take a second lock while holding the first: the same again, re-entrant, or another, which may close a cycle."""
    random = client.random
    names: tuple[str, ...]
    mode: Mode
    if random.random() < 0.3 and attempt.mode != COUNTING:
        names, mode, reentrant = attempt.names[:1], attempt.mode, True
        if random.random() < 0.8:
            names = tuple(dict.fromkeys((*names, random.choice(_names(mixed)))))
    else:
        (names, mode), reentrant = _wanted(mixed, client), False
    wait_us = random.choice((300_000, 1_000_000))
    another = yield from take(mixed, client, names, mode, wait_us=wait_us, own=attempt.session, reentrant=reentrant)
    if another is not None:
        yield from hold(mixed, client, another)
        yield from let_go(mixed, client, another)


# --- tidying up -----------------------------------------------------------------------------------


def tidy_up(mixed: Mixed, client: Client) -> Script:
    """At the end: let go of what was handed to one of this client's sessions after it had left the line."""
    while True:
        yield Sleep(TIDY_US)
        for name in (*_names(mixed), COUNTED) if mixed.ending else ():
            question = yield from mixed.query(client, GetLockState(name))
            if isinstance(question.result, LockState):
                yield from _return_gifts(mixed, client, question.result)


def _return_gifts(mixed: Mixed, client: Client, state: LockState) -> Act:
    for grant in state.holders:
        for own in [*client.core.sessions.values()]:
            known = (client.name, own.session, grant.holder.acquisition) in mixed.attempts
            if own.session == grant.holder.session and not own.gone and not known:
                release = Release((state.name,), grant.holder.acquisition)
                yield from mixed.command(client, release, own)
