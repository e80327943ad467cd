"""Elections: candidates queue for a name, the one that has it leads and proclaims a value.

Guarantees. At most one candidate holds the name at any index of the log, and candidates lead in the order in which they
came. `token` grows with every leadership: whoever acts as the leader sends it along, and what it acts on refuses lower
ones. A proclamation is a transaction that holds only under the leader's own token, so none comes from a leader that has
lost the name. A leader that dies gives way when its session's time to live has run out.

Observers are told who leads and what that one proclaimed, or that nobody leads: what was so at a moment after what they
were told before. A proclamation wakes them at once. Nothing in the log tells of a lock that is let go and has no next
holder; that a leader went without a successor, or that one leads who proclaims nothing, is seen when they look again.

Source: Burrows, "The Chubby lock service" (2006), section 2.8 and the primary election of section 4; the elections of
etcd's concurrency API.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Asking, Part, S, Stream, asked
from coordinator.client.core import Core
from coordinator.client.errors import Closed, Compacted, LeaseLost, NotFound, Unavailable, refuse
from coordinator.client.flows import Flow, Grant
from coordinator.client.holding import Had, give_back, proven
from coordinator.client.transactions import Transaction, key, put
from coordinator.client.watches import QUESTION_US, Follow, Mapped, Snapshot, at, from_now_on, next_changes
from coordinator.statemachine import files, lock_commands
from coordinator.statemachine.locks import INDEX_BITS

LOOKS_MAX: Final = 10
"""Leaders that may change while it is looked who leads."""
LOOKS_EVERY_S: Final = 5.0
"""How often an observer looks who leads, though nothing was proclaimed. It costs three reads."""


class Leader(NamedTuple):
    """Who leads: the session and principal that hold the name, the fencing token, and the value proclaimed under it
    (None: nothing yet)."""

    session: int
    principal: str
    token: int
    value: bytes | None


class Observed(NamedTuple):
    """Who leads; None: nobody does."""

    leader: Leader | None


class Proclaimed(NamedTuple):
    """A value that some leader proclaimed, at a revision."""

    value: bytes
    revision: int


class Leadership(Had[S]):
    """One has it. A context manager that resigns at its end."""

    @property
    def session(self) -> int:
        return self._state.grant.session.session

    @asked
    def proclaim(self, value: bytes, *, timeout: float | None = None) -> Ask[int]:
        """Let every observer know a value; its revision. Raises LeaseLost where this one leads no more."""
        self.check()
        value, deadline_us = options.key_value(value), self._shell.deadline_us(timeout)
        return Ask(lambda core: _proclaim(core, self._shell.clock, self._state.grant, value, deadline_us))

    @asked
    def resign(self, *, timeout: float | None = None) -> Ask[bool]:
        """Give way to the next candidate at once. True where this one still led."""
        return self._let_go(timeout)


class Election(Part[S]):
    """An election by the name of a lock and of the key that holds the value."""

    def __init__(self, client: Part[S], name: str, *, ttl: float = options.DEFAULT_TTL_S) -> None:
        """`ttl`: seconds after the death of a leader until the next one leads."""
        super().__init__(client._shell)
        self.name = options.name(name)
        self._ttl_ms = options.ttl_ms(ttl)

    @asked
    def campaign(
        self, value: bytes = b"", *, wait: float | None = None, refuse_deadlocks: bool = True
    ) -> Ask[Leadership[S]]:
        """Stand as a candidate until elected (or for `wait` seconds at the most), and proclaim `value` then.
        `refuse_deadlocks` as of a lock: where the caller holds something already.

        Raises LockNotAcquired, Deadlock, LeaseLost (elected, and gone before it was proclaimed), Unavailable,
        Forbidden."""
        value, wait_us = options.key_value(value), options.wait_us(wait)
        clock, timeout_us = self._shell.clock, self._shell.timeout_us
        may_refuse = hands.may_close_a_cycle(refuse_deadlocks)
        in_hand = hands.InHand((self.name,), self._shell.asker())
        place = hands.place(self._shell.asker())

        def flow(core: Core) -> Asking[Leadership[S]]:
            with place:
                if may_refuse and wait_us != 0:
                    in_hand.refuse_to_wait(core.sessions)
                grant = yield from flows.acquire(
                    core, clock, self.name, self._ttl_ms, wait_us, timeout_us, refuse_deadlocks=may_refuse
                )
                try:
                    yield from _proclaim(core, clock, grant, value, clock() + timeout_us)
                    yield from proven(core, clock, grant, timeout_us)
                except BaseException:
                    lock_flows.give_back(core, clock, grant)
                    raise
                leadership = Leadership(self._shell, grant)
                place.state = leadership._state
            return leadership

        return Ask(flow, give_back)

    @asked
    def leader(self, *, timeout: float | None = None) -> Ask[Leader | None]:
        """Who leads now, and what it has proclaimed; None: nobody leads."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        return Ask(lambda core: _look(core, clock, self.name, deadline_us))

    def observe(self, *, every: float = LOOKS_EVERY_S) -> Observer[S]:
        """Who leads, with value, token and session, now and each time that it is found to be otherwise: see
        `Observer`."""
        return Observer(self._shell, self.name, options.seconds("every", every, 0.01, options.TIMEOUT_S_MAX))

    def proclamations(self) -> Mapped[S, Proclaimed]:
        """Every value that is proclaimed, in order and whoever's it was, at first the last one before. Where an
        observer comes so late that some are not kept any more, it goes on with the last one."""
        return Mapped(Follow(self._shell, self.name, "", prefix=False), _proclaimed)


class Observer(Stream[S, Observed]):
    """Who leads, at first as it is now, and then each time that it is found to be otherwise: another leader, another
    value, or nobody. Iterate over it (`for`, or `async for`). Of values that are proclaimed fast one after the other
    the last is told (`Election.proclamations` tells every one).

    `every`: how often it looks though nothing was proclaimed, so that it sees a leader that went without a successor.
    """

    def __init__(self, shell: S, name: str, every_us: int) -> None:
        super().__init__(shell)
        self._name = name
        self._every_us = every_us
        self._position: files.ReadChanges | None = None
        """Nothing that was proclaimed before it is news; None: it has yet to be fixed."""
        self._known: Observed | None = None
        """What was told last; None: nothing."""
        self._before: Observed | None = None
        self._is_due = True
        """Is it to be looked, before anything is waited for?"""

    def _next(self, until_us: int | None) -> Ask[Observed | None]:
        clock = self._shell.clock

        def flow(core: Core) -> Asking[Observed | None]:
            while True:
                try:
                    if self._is_due:
                        found = yield from self._look(core, clock)
                        if found != self._known:
                            self._before, self._known = self._known, found
                            return self._known
                    if until_us is not None and clock() >= until_us:
                        return None
                    yield from self._wait(core, clock, until_us)
                except Closed:
                    raise
                except Unavailable:
                    if until_us is not None and clock() >= until_us:
                        raise

        return Ask(flow, lambda _, told: self._untake(told))

    def _look(self, core: Core, clock: flows.Clock) -> Flow:
        if self._position is None:
            # Before the look, so that what is proclaimed behind it is news.
            changes = files.ReadChanges(self._name)
            self._position = yield from from_now_on(core, clock, changes, clock() + QUESTION_US)
        leader = yield from _look(core, clock, self._name, clock() + QUESTION_US)
        self._is_due = False
        return Observed(leader)

    def _wait(self, core: Core, clock: flows.Clock, until_us: int | None) -> Flow:
        """For the next proclamation, or until it is time to look all the same."""
        assert self._position is not None
        look_us = clock() + self._every_us
        look_us = look_us if until_us is None else min(look_us, until_us)
        self._is_due = True
        try:
            page: files.ChangePage = yield from next_changes(core, clock, self._position, look_us)
        except Compacted:
            self._position = None
        else:
            self._position = at(self._position, page.since, page.skip)

    def _untake(self, told: Observed | None) -> None:
        """Its asker left before it had this."""
        if told is not None:
            self._known, self._is_due = self._before, True


def _look(core: Core, clock: flows.Clock, name: str, deadline_us: int) -> Flow:
    """Who leads now, a Leader; None: nobody."""
    before: lock_commands.Grant | None = None
    value: bytes | None = None
    for _ in range(LOOKS_MAX):
        query = lock_commands.GetLockState(name)
        state: lock_commands.LockState = refuse((yield core.query(query, clock(), deadline_us)))
        if not state.holders:
            return None
        grant = state.holders[0]
        if grant == before:
            return Leader(grant.holder.session, grant.holder.principal, grant.token, value)
        # What is read between two looks at the same grant was written under it, or before it.
        before = grant
        try:
            found: files.FileContent = refuse((yield core.query(files.ReadFile(name), clock(), deadline_us)))
            value = found.value if is_of(found.stat, grant.token) else None
        except NotFound:
            value = None
    raise Unavailable(f"election {name!r} changes its leader faster than one can look")


def is_of(stat: files.Stat, token: int) -> bool:
    """Was the value written under the leadership of this token, which still goes on? Its index is where that began."""
    return stat.revision > token & ((1 << INDEX_BITS) - 1)


def _proclaimed(told: Snapshot | files.ChangeView) -> Proclaimed | None:
    view = (told.keys or (None,))[0] if isinstance(told, Snapshot) else told.after
    return None if view is None or view.value is None else Proclaimed(view.value, view.revision)


def _proclaim(core: Core, clock: flows.Clock, grant: Grant, value: bytes, deadline_us: int) -> Flow:
    move = Transaction().when(key(grant.name).token == grant.token).then(put(grant.name, value))
    asked = core.command(grant.session, move.build(), clock(), deadline_us)
    done = yield from lock_flows.of_hold(core, clock, grant, asked)
    if not done.succeeded:
        raise LeaseLost(f"election {grant.name!r}: this one leads no more, and nothing was proclaimed")
    return done.revision
