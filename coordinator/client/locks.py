"""Locks in all modes: exclusive, shared and counting, of one name or several; upgrades, downgrades and hand-over.

`Client.lock` is the exclusive lock of one name, and all that most need. What each mode guarantees is in
`docs/semantics.md`, "Locks".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple

from coordinator.client import flows, hands, lock_flows, options
from coordinator.client.asking import Ask, Asking, Async, Part, S, Sync, as_it_is, asked
from coordinator.client.core import Core
from coordinator.client.errors import ConclaveError, InvalidRequest, LeaseLost, Refused, SessionGone
from coordinator.client.events import EventWatch, FailOver
from coordinator.client.flows import Grant
from coordinator.client.holding import Had, give_back, proven
from coordinator.client.watches import range_of
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import Holder
from coordinator.statemachine.lock_commands import (
    COUNTING,
    EXCLUSIVE,
    SHARED,
    LockEvent,
    Mode,
    ReadLockEvents,
    events_of,
)
from coordinator.statemachine.locks import INDEX_BITS

LOCK_DELAY_S_MAX: Final = lock_commands.LOCK_DELAY_MS_MAX / 1_000


class Hold(Had[S]):
    """One name or several that this client holds, in some mode. A context manager that lets go at its end.

    `token` is the fencing token to send along with every write that the lock guards; an upgrade and a hand-over give a
    higher one.
    """

    def __init__(self, shell: S, grant: Grant, mode: Mode) -> None:
        super().__init__(shell, grant)
        self.names = grant.names or (grant.name,)
        self.mode: Mode = mode
        self._may_be_shared = False
        """Has what shares it been asked for, with no answer, so that it may be done at any time?"""

    @property
    def session(self) -> int:
        return self._state.grant.session.session

    @property
    def acquisition(self) -> int:
        return self._state.grant.acquisition

    def sequencer(self, name: str | None = None) -> str:
        """`name:mode:token`, for a third party to check (`Locks.check_sequencer`). `name`: which of several."""
        return lock_commands.sequencer(self._one_of_its_names(name, "the sequencer"), self.mode, self.token)

    def _one_of_its_names(self, name: str | None, what: str) -> str:
        if name is None and len(self.names) > 1:
            raise InvalidRequest(f"it holds several names; say for which of {', '.join(self.names)} {what} is")
        name = self.name if name is None else options.name(name)
        if name not in self.names:
            raise InvalidRequest(f"it holds {', '.join(self.names)}, not {name!r}")
        return name

    def conflicts(self, name: str | None = None) -> EventWatch[S, LockEvent]:
        """Who wants what this holds, in a mode that it can not have beside it, from the grant on: for a holder that can
        let go early. Each is told once, in order; whoever was first in line at the grant is told of too. `name`: which
        of several. Raises Compacted where it is asked for so late that events since the grant are not kept any more;
        see `Locks.watch`."""
        name = self._one_of_its_names(name, "the watch")
        mine = (self.session, self.acquisition)

        def read(event: object) -> LockEvent | None:
            if not isinstance(event, LockEvent) or (event.holder.session, event.holder.acquisition) == mine:
                return None
            return event

        since = self.token & ((1 << INDEX_BITS) - 1)
        return EventWatch(self._shell, ReadLockEvents(name, since=since, acquired=False), read)

    @asked
    def release(self, *, timeout: float | None = None) -> Ask[bool]:
        """Let go of all its names. True where they were still held. Raises OutcomeUnknown, and goes on trying in the
        background."""
        return self._let_go(timeout)

    @asked
    def downgrade(self, *, timeout: float | None = None) -> Ask[None]:
        """Share what was held exclusively, by the same token: those at the head of the line that share it come in."""
        return self._change(SHARED, None, timeout)

    @asked
    def upgrade(self, *, wait: float | None = None, timeout: float | None = None) -> Ask[None]:
        """Hold alone what was shared, by a higher token, ahead of all in line, once the others let go; meanwhile nobody
        is let in. `wait` as in `acquire`. Raises LockNotAcquired (it is still shared then), and Deadlock where another
        holder waits for the same."""
        return self._change(EXCLUSIVE, options.wait_us(wait), timeout)

    def _change(self, mode: Mode, wait_us: int | None, timeout: float | None) -> Ask[None]:
        self.check()
        if len(self.names) > 1 or self.mode == COUNTING:
            raise InvalidRequest("only a shared or exclusive hold of one name changes its mode")
        if mode == EXCLUSIVE and self._may_be_shared:
            raise Refused(f"whether {self.name!r} is shared by now is not known yet; let go of it, and acquire it anew")
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)
        timeout_us = deadline_us - clock()
        before = self.mode

        def begins() -> None:
            # Before anything is sent: from here on nobody may take it for exclusive.
            self.mode, self._may_be_shared = SHARED, True

        def settle(token: int, now: Mode) -> None:
            self._state.grant, self.mode = self._state.grant._replace(token=token), now
            self._may_be_shared = False

        def flow(core: Core) -> Asking[None]:
            grant = self._state.grant
            try:
                if mode == SHARED:
                    settle((yield from lock_flows.downgrade(core, clock, grant, deadline_us)), SHARED)
                else:
                    token = yield from lock_flows.upgrade(core, clock, grant, wait_us, timeout_us, settle)
                    settle(token, EXCLUSIVE)
            except ConclaveError as error:
                if lock_flows.was_not_done(error):
                    self.mode, self._may_be_shared = before, False
                raise
            yield from proven(core, clock, grant, timeout_us)

        return Ask(flow, begins=begins)

    @asked
    def hand_over(self, to: Holder, *, timeout: float | None = None) -> Ask[None]:
        """Give it to another session, past the line and by a higher token: `to` is one of the waiters that
        `Locks.look` names, or an `Heir`'s holder; of a shared or counting hold only a waiter for the same. Only a hold
        of one name. From the asking on it can not be proven held, unless that is refused. Raises NotFound, Forbidden,
        Refused (while an upgrade or a lock-delay lasts), Deadlock (the heir waits for one that waits for this name;
        with the cycle, from the heir on), OutcomeUnknown."""
        if not isinstance(to, Holder):
            raise InvalidRequest(f"a hold is handed over to a Holder, of a waiter or of an Heir, got {to!r}")
        self.check()
        session = options.identity("a session", to.session)
        heir = options.identity("an acquisition", to.acquisition)
        op = lock_commands.HandOver(self.name, self.acquisition, session, heir)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def begins() -> None:
            # Before anything is sent. Not `released`: at its end it is let go, should it be here.
            self._state.may_be_given = True

        def flow(core: Core) -> Asking[None]:
            try:
                yield from lock_flows.hand_over(core, clock, self._state.grant, op, deadline_us)
            except ConclaveError as error:
                if lock_flows.was_not_done(error):
                    self._state.may_be_given = False
                raise
            self._state.released = True

        return Ask(flow, begins=begins)

    def __repr__(self) -> str:
        return f"<Hold {', '.join(self.names)} {self.mode} token={self.token}{'' if self.held else ' not held'}>"


class Heir(Part[S]):
    """A place to which a holder can hand a name over, without standing in its line. `holder` is what the holder has to
    be told: it is good for as long as this client keeps its session."""

    def __init__(self, shell: S, name: str, holder: Holder, session: Any) -> None:
        super().__init__(shell)
        self.name = name
        self.holder = holder
        self._session = session

    @asked
    def wait(self, *, wait: float | None = None) -> Ask[Hold[S]]:
        """Wait until the name is handed over. Raises LockNotAcquired after `wait` seconds, and LeaseLost where the
        session that was to have it is gone."""
        clock, wait_us = self._shell.clock, options.wait_us(wait)
        place = hands.place(self._shell.asker())

        def flow(core: Core) -> Asking[Hold[S]]:
            with place:
                try:
                    grant = yield from lock_flows.inherit(core, clock, self._session, self.name, self.holder, wait_us)
                except SessionGone as gone:
                    core.lose_session(self._session)
                    raise LeaseLost(f"lock {self.name!r}: the session that was to have it is gone") from gone
                hold = Hold(self._shell, grant, EXCLUSIVE)
                place.state = hold._state
            return hold

        return Ask(flow, give_back)


class _Holding(Part[S]):
    """`Locks.hold`: acquires at the beginning of a `with`, lets go at its end."""

    def __init__(self, shell: S, ask: Callable[[], Ask[Hold[S]]]) -> None:
        super().__init__(shell)
        self._ask = ask
        self._entered: list[tuple[object, Hold[S]]] = []
        """Of each entry that is not over the thread or the task, and what it holds; the last one last."""

    def __enter__(self: _Holding[Sync]) -> Hold[Sync]:
        # In one step of the interpreter: an interrupt finds no moment at which nobody has it.
        self._entered.append(entry := (threading.get_ident(), self._shell.answer(self._ask())))
        return entry[1]

    def __exit__(
        self: _Holding[Sync], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry = self._last_of(threading.get_ident())
        try:
            entry[1].__exit__(kind, error, trace)
        finally:
            if not entry[1]._state.released:  # An interrupt struck before it began.
                entry[1]._let_go_later()
            self._entered.remove(entry)

    async def __aenter__(self: _Holding[Async]) -> Hold[Async]:
        hold = await self._shell.answer(self._ask())
        self._entered.append((self._shell.asker(), hold))
        return hold

    async def __aexit__(
        self: _Holding[Async],
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entry = self._last_of(self._shell.asker())
        try:
            await entry[1].__aexit__(kind, error, trace)
        finally:
            self._entered.remove(entry)

    def _last_of(self, asker: object) -> tuple[object, Hold[S]]:
        """Its last entry. Where it has none, a framework leaves by another thread or task than it entered by: the last
        of all."""
        entered = [*self._entered]
        for entry in reversed(entered):
            if entry[0] == asker:
                return entry
        return entered[-1]

    def __del__(self) -> None:
        """Only the `with` has these: where an interrupt struck between its block and its end, its end is here."""
        for _, hold in getattr(self, "_entered", ()):
            if isinstance(self._shell, Sync) and not hold._state.released:
                hold._let_go_later()


class Locks(Part[S]):
    """`client.locks`: what `client.lock` does not do."""

    @asked
    def acquire(
        self,
        *names: str,
        shared: bool = False,
        limit: int | None = None,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        reentrant: bool = False,
        lock_delay: float = 0,
        refuse_deadlocks: bool = True,
    ) -> Ask[Hold[S]]:
        """Take one name, or up to 16 all or none. `shared`: together with others that share it; `limit`: with up to so
        many that count it to the same limit; else alone.

        `wait` seconds in line at the most: 0 does not wait, None waits as long as it takes. `reentrant`: where the
        caller (a thread or a task) holds all of these names itself, by the same `ttl`, that is no hindrance.
        `lock_delay`: seconds for which the name stays unavailable should this process die while it holds it.
        `refuse_deadlocks`: where the caller holds something that it took itself, refuse to wait where that would close
        a cycle of sessions that wait for one another, or for itself. All threads and tasks of a client share a session:
        pass False where one of them lets go for another.

        Raises LockNotAcquired, Deadlock (with the cycle), Unavailable, Forbidden, InvalidRequest.
        """
        return self._acquire(_wish(names, shared, limit, ttl, wait, reentrant, lock_delay, refuse_deadlocks))

    def hold(
        self,
        *names: str,
        shared: bool = False,
        limit: int | None = None,
        ttl: float = options.DEFAULT_TTL_S,
        wait: float | None = None,
        reentrant: bool = False,
        lock_delay: float = 0,
        refuse_deadlocks: bool = True,
    ) -> _Holding[S]:
        """`acquire` for the length of a `with` (or an `async with`)."""
        wish = _wish(names, shared, limit, ttl, wait, reentrant, lock_delay, refuse_deadlocks)
        return _Holding(self._shell, lambda: self._acquire(wish))  # What is in hand is looked at as it is entered.

    def _acquire(self, wish: _Wish) -> Ask[Hold[S]]:
        clock, timeout_us = self._shell.clock, self._shell.timeout_us
        names, asker = wish.names, self._shell.asker()
        may_refuse = wish.refuse_deadlocks and hands.are_full()
        in_hand = hands.InHand(names, asker)
        place = hands.place(asker)

        def flow(core: Core) -> Asking[Hold[S]]:
            def joins() -> bool:
                return wish.reentrant and in_hand.covers(core.sessions.get(wish.ttl_ms))

            def build(acquisition: int) -> commands.ClientOp:
                return lock_commands.Acquire(
                    names,
                    acquisition,
                    wish.mode,
                    wish.wait_us != 0,
                    wish.limit,
                    reentrant=joins(),
                    delay_ms=wish.delay_ms,
                    refuse_deadlocks=may_refuse,
                )

            grant: flows.Grant | None = None
            try:
                with place:
                    if may_refuse and wish.mode == EXCLUSIVE and wish.wait_us != 0 and not joins():
                        in_hand.refuse_to_wait(core.sessions, joins=wish.reentrant)
                    grant = yield from flows.acquire(
                        core, clock, names[0], wish.ttl_ms, wish.wait_us, timeout_us, build
                    )
                    if len(names) > 1:
                        grant = grant._replace(names=names)
                hold = Hold(self._shell, grant, wish.mode)
                place.state = hold._state
            except BaseException:
                if grant is not None:  # For want of memory, say.
                    lock_flows.give_back(core, clock, grant)
                raise
            return hold

        return Ask(flow, give_back)

    @asked
    def heir(self, name: str, *, ttl: float = options.DEFAULT_TTL_S, timeout: float | None = None) -> Ask[Heir[S]]:
        """A place to which the holder of `name` can hand it over."""
        name, ttl_ms = options.name(name), options.ttl_ms(ttl)
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[Heir[S]]:
            own = yield from flows.session(core, clock, ttl_ms, deadline_us)
            return Heir(self._shell, name, Holder(own.session, own.next_acquisition(), ""), own)

        return Ask(flow)

    @asked
    def look(self, name: str, *, timeout: float | None = None) -> Ask[lock_commands.LockState]:
        """Who holds a name, how, and who waits for it."""
        return self._query(lock_commands.GetLockState(options.name(name)), as_it_is, timeout=timeout)

    def watch(
        self,
        start: str,
        end: str = "",
        *,
        prefix: bool = False,
        since: int = 0,
        skip: int = 0,
        acquired: bool = True,
        conflicts: bool = True,
        released: bool = True,
        failovers: bool = True,
    ) -> EventWatch[S, LockEvent | FailOver]:
        """What becomes of the locks of a range of names, from the revision `since` on (0: from now on), for ever.

        `acquired`: somebody came to hold a name (an upgrade and a hand-over too). `conflicts`: somebody asked for it
        in a mode that it can not have beside those that hold it, and was refused or waits; and who is first in line,
        each time that another holds it. `released`: a hold ended, and how ("released", "handed-over", "expired",
        "forced"; `breaks` says by whom and why). `failovers`: another leader took over. Takes the right to read or to
        lock the range. See `EventWatch`.
        """
        query = events_of(
            range_of(start, end, prefix=prefix),
            options.revision(since),
            options.revision(skip),
            acquired=acquired,
            conflicts=conflicts,
            released=released,
        )

        def read(event: object) -> LockEvent | FailOver | None:
            if isinstance(event, FailOver):
                return event if failovers else None
            assert isinstance(event, LockEvent)
            return event

        return EventWatch(self._shell, query, read)

    @asked
    def check_sequencer(self, sequencer: str, *, timeout: float | None = None) -> Ask[bool]:
        """Is the name held by the very grant that this sequencer says? Anyone may ask (Chubby, section 2.4)."""
        return self._query(
            lock_commands.CheckSequencer(options.text("a sequencer", sequencer)),
            lambda found: bool(found.valid),
            timeout=timeout,
        )

    @asked
    def force_release(self, name: str, reason: str, *, session: int = 0, timeout: float | None = None) -> Ask[bool]:
        """Take a name from all that hold it, or from one session, and end its lock-delay where one is under way: only
        fencing tokens keep a former holder out. Who did it and why is kept. False where nobody held it, nor a delay
        kept it. Takes the right to administer."""
        session = options.identity("a session", session)
        op = lock_commands.ForceRelease(options.name(name), options.text("a reason", reason), session)
        return self._command(op, lambda result: isinstance(result, commands.Done), timeout=timeout)

    @asked
    def breaks(
        self, *, after: int = 0, limit: int = 100, timeout: float | None = None
    ) -> Ask[tuple[lock_commands.Break, ...]]:
        """Forced releases that are remembered, from the first behind the number `after`. Takes the right to
        administer."""
        return self._query(lock_commands.ListBreaks(after, limit), lambda found: found.breaks, timeout=timeout)


class _Wish(NamedTuple):
    """What is to be acquired, and how."""

    names: tuple[str, ...]
    mode: Mode
    limit: int
    ttl_ms: int
    wait_us: int | None
    reentrant: bool
    delay_ms: int
    refuse_deadlocks: bool


def _wish(
    names: tuple[str, ...],
    shared: bool,
    limit: int | None,
    ttl: float,
    wait: float | None,
    reentrant: bool,
    lock_delay: float,
    refuse_deadlocks: bool,
) -> _Wish:
    return _Wish(
        names=_names(names),
        mode=_mode(shared, limit),
        limit=limit or 1,
        ttl_ms=options.ttl_ms(ttl),
        wait_us=options.wait_us(wait),
        reentrant=options.truth("reentrant", reentrant),
        delay_ms=options.seconds("lock_delay", lock_delay, 0, LOCK_DELAY_S_MAX) // 1_000,
        refuse_deadlocks=options.truth("refuse_deadlocks", refuse_deadlocks),
    )


def _mode(shared: bool, limit: int | None) -> Mode:
    if limit is None:
        return SHARED if shared else EXCLUSIVE
    if shared:
        raise InvalidRequest("a lock is shared or counted to a limit, not both")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= lock_commands.LIMIT_MAX:
        raise InvalidRequest(f"limit is a number of holders from 1 to {lock_commands.LIMIT_MAX}, got {limit!r}")
    return COUNTING


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(sorted({options.name(name) for name in names}))
    if not 1 <= len(found) <= lock_commands.NAMES_MAX:
        raise InvalidRequest(f"an acquisition is of 1 to {lock_commands.NAMES_MAX} names, got {len(found)}")
    return found
