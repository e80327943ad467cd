"""Elections: candidates queue for a name, the one that has it leads and proclaims a value.

Guarantees. At most one candidate holds the name at any index of the log, and candidates lead in the order in which they
came. `token` grows with every leadership: whoever acts as the leader sends it along, and what it acts on refuses lower
ones. A proclamation is a transaction that holds only under the leader's own token, so none comes from a leader that has
lost the name. A leader that dies gives way when its session's time to live has run out.

Source: Burrows, "The Chubby lock service" (2006), section 2.8 and the primary election of section 4; the elections of
etcd's concurrency API.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Asking, Part, S, asked
from coordinator.client.core import Core
from coordinator.client.errors import LeaseLost, NotFound, Unavailable, refuse
from coordinator.client.flows import Flow, Grant
from coordinator.client.holding import Had, give_back
from coordinator.client.transactions import Transaction, key, put
from coordinator.client.watches import Follow, Mapped, Snapshot
from coordinator.statemachine import files, lock_commands
from coordinator.statemachine.locks import INDEX_BITS

LOOKS_MAX: Final = 10
"""Leaders that may change while it is looked who leads."""


class Leader(NamedTuple):
    """Who leads: the session and principal that hold the name, the fencing token, and the value proclaimed under it
    (None: nothing yet)."""

    session: int
    principal: str
    token: int
    value: bytes | None


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
        may_refuse = refuse_deadlocks and hands.are_full()
        place = hands.place()

        def flow(core: Core) -> Asking[Leadership[S]]:
            with place:
                grant = yield from flows.acquire(
                    core, clock, self.name, self._ttl_ms, wait_us, timeout_us, refuse_deadlocks=may_refuse
                )
                try:
                    yield from _proclaim(core, clock, grant, value, clock() + timeout_us)
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

        def flow(core: Core) -> Asking[Leader | None]:
            state: lock_commands.LockState | None = None
            value: bytes | None = None
            for _ in range(LOOKS_MAX):
                query = lock_commands.GetLockState(self.name)
                now: lock_commands.LockState = refuse((yield core.query(query, clock(), deadline_us)))
                if not now.holders:
                    return None
                grant = now.holders[0]
                if state is not None and state.holders and state.holders[0] == grant:
                    return Leader(grant.holder.session, grant.holder.principal, grant.token, value)
                # What was read between two looks at the same grant was written under it, or before it.
                state = now
                value = yield from self._proclaimed(core, grant.token, deadline_us)
            raise Unavailable(f"election {self.name!r} changes its leader faster than one can look")

        return Ask(flow)

    def _proclaimed(self, core: Core, token: int, deadline_us: int) -> Flow:
        try:
            query = files.ReadFile(self.name)
            found: files.FileContent = refuse((yield core.query(query, self._shell.clock(), deadline_us)))
        except NotFound:
            return None
        return found.value if is_of(found.stat, token) else None

    def observe(self) -> Mapped[S, Proclaimed]:
        """Every value that is proclaimed, in order, at first the last one before. Where an observer comes so late that
        some are not kept any more, it goes on with the last one."""
        return Mapped(Follow(self._shell, self.name, "", prefix=False), _proclaimed)


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
