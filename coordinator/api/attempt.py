"""One HTTP call's attempt at a lock: open a session if need be, ask, wait in line, and leave no trace when it fails.

The attempt runs as a task of its own, so that no command is ever cut off half-way: when its caller goes away it is
told to stop, and then itself takes back what it asked for, in order (histories 9 and 12). What it takes back: the whole
session where this call opened it, since nobody else knows it; otherwise the place in line, or the grant that came of
it, unless a later call of the same session has taken them over. A lock that a named session got, or already had,
without waiting stays: the caller knows the session and can ask again. So it is with a place in line when not the caller
but this process ends, and always where the caller named the acquisition: another call of it may be under way, whose
grant a late take-back of this one would undo.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Final, NamedTuple

from coordinator import access
from coordinator.api.errors import RETRY_AFTER_S, Refused
from coordinator.api.schemas import TTL_MS_DEFAULT, Acquired, AcquireIn, HolderOut, session_name
from coordinator.client import AsyncClient, clock, errors
from coordinator.client.session import DRIFT_SHARE, DRIFT_US
from coordinator.statemachine import commands, lock_commands

log = logging.getLogger(__name__)

KEEP_ALIVES_PER_TTL: Final = 3
RETRY_S: Final = 0.2
"""Between two tries of something that a cluster without a leader cannot answer, while the caller still waits."""
HOLDER_TIMEOUT_S: Final = 1.0
TAKE_BACK_TIMEOUT_S: Final = 30.0
TAKE_BACK_BEFORE_ANSWER_S: Final = 1.0
"""A caller that waited in vain is answered after this, though taking back goes on."""
WAITING_MAX: Final = 2_000
"""Calls of this process that may wait in line at once; the next one is refused."""

_waiting = 0
"""Calls of this process that wait in line."""
_live: set[Attempt] = set()


def lease_left_ms(ttl_ms: int, until_us: int) -> int:
    """What can be proven of a lease that ends at `until_us` on the clock of leases, which runs on while the machine is
    suspended (`coordinator.client.clock`): less a margin for clocks that drift."""
    margin_us = ttl_ms * 1000 // DRIFT_SHARE + DRIFT_US
    return max(0, (until_us - clock.now_us() - margin_us) // 1000)


def end_all() -> None:
    """This process ends: answer every caller that waits."""
    for attempt in list(_live):
        attempt.end()


async def all_finished() -> None:
    """Until no attempt runs any more."""
    await asyncio.gather(*(attempt.finished.wait() for attempt in list(_live)))


class Wanted(NamedTuple):
    """How names are to be held, where it is not the plain exclusive lock."""

    mode: lock_commands.Mode
    limit: int
    reentrant: bool
    delay_ms: int
    refuse_deadlocks: bool
    acquisition: int | None
    """The caller's own number of it; None: one that no other attempt has."""

    @classmethod
    def of(cls, payload: AcquireIn) -> Wanted:
        return cls(
            payload.mode,
            payload.limit or 1,
            payload.reentrant,
            payload.lock_delay_ms,
            payload.refuse_deadlocks,
            payload.acquisition,
        )

    def op(self, names: tuple[str, ...], acquisition: int, session: int, *, wait: bool) -> lock_commands.Acquire:
        return lock_commands.Acquire(
            names,
            acquisition,
            self.mode,
            wait,
            self.limit,
            session,
            reentrant=self.reentrant,
            delay_ms=self.delay_ms,
            refuse_deadlocks=self.refuse_deadlocks,
        )


class Attempt:
    """Use: `run()` once, as a task. `abandon()` at any time, also after `run` has answered."""

    def __init__(
        self,
        client: AsyncClient,
        cluster: str,
        principal: str,
        name: str,
        also: tuple[str, ...] = (),
        wanted: Wanted | None = None,
        act_for: str = "",
        *,
        refuse_deadlocks: bool = False,
    ) -> None:
        """`also`: other names to take with it. `wanted`: how to hold them; None: the exclusive lock of the one name, of
        which a session has one. `act_for`: how the client says whom it acts for; "": by the principal's name.
        `refuse_deadlocks`: of the plain one; do not wait where that would close a cycle of sessions."""
        self._client = client
        self._cluster = cluster
        self._principal = principal
        self._act_for = act_for or principal
        self._names = tuple(sorted({name, *also}))
        self._name = self._names[0]
        self._asked_for = name
        self._wanted = wanted
        self._refuse_deadlocks = refuse_deadlocks
        self._session = 0
        named = None if wanted is None else wanted.acquisition
        self._acquisition = secrets.randbits(48) if named is None else named
        """Over HTTP a session has one plain acquisition a name: each attempt takes over what its session already has,
        and an older one that still waits is told so. The number is this attempt's alone, so that whatever it takes
        back, however late, is never what a later one was granted. A caller's own number is of several attempts, which
        take nothing back."""
        self._ttl_ms = 0
        self._opened_here = False
        self._was_queued = False
        self._lease_until_us = 0
        """When the lease ends as the log counts, on the clock of leases: from the sending of the last renewal."""
        self._stop: errors.ConclaveError | None = None
        self._stopped = asyncio.Event()
        self._keeps_place = named is not None
        self.finished = asyncio.Event()
        """Set when `run` is over and, where it failed or was stopped, everything has been taken back."""

    def abandon(self) -> None:
        """Nobody wants the lock any more. Returns at once; what was asked for is taken back in the background."""
        if self._stop is not None:
            return
        self._stop = errors.RequestCancelled("the caller went away")
        self._stopped.set()
        if self.finished.is_set():
            access.spawn(self._take_back(), f"take back lock {self._name!r}")

    def end(self) -> None:
        """This process ends. A caller that named its session keeps its place in line, and asks again elsewhere."""
        if self._stop is None and not self.finished.is_set():
            self._stop = errors.Unavailable("this web process ends; ask again, with the same session if you named one")
            self._keeps_place = True
            self._stopped.set()

    @property
    def name(self) -> str:
        """What was asked for."""
        return self._asked_for

    async def run(self, session: int | None, ttl_ms: int | None, wait_ms: int) -> Acquired:
        """The grant. Raises Refused (409 and others) and what the client raises; nothing is left behind then."""
        _live.add(self)
        try:
            acquired = await self._run(session, ttl_ms, wait_ms)
            if isinstance(self._stop, errors.RequestCancelled):
                await self._take_back()
            return acquired
        except BaseException:
            await self._take_back_soon()
            raise
        finally:
            self.finished.set()
            _live.discard(self)

    async def _run(self, session: int | None, ttl_ms: int | None, wait_ms: int) -> Acquired:
        deadline = time.monotonic() + wait_ms / 1000
        if session is None:
            await self._open_session(TTL_MS_DEFAULT if ttl_ms is None else ttl_ms)
        else:
            await self._use_session(session, ttl_ms)
        self._raise_if_stopped()
        wants_to_wait = wait_ms > 0
        if wants_to_wait and _waiting >= WAITING_MAX:
            raise errors.Busy(
                f"this server has its {WAITING_MAX} waiting calls; ask again later, or with wait_ms 0",
                retry_after=float(RETRY_AFTER_S),
            )
        answer = await self._ask(wants_to_wait)
        match answer:
            case commands.Granted():
                return await self._acquired(answer.token)
            case commands.Queued() if wants_to_wait:
                return await self._wait_in_line(deadline)
        if not wants_to_wait:
            self._was_queued = await self._has_taken_over_a_place()
        raise await self._not_acquired(answer if isinstance(answer, commands.Held) else None)

    async def _has_taken_over_a_place(self) -> bool:
        """Of an older call of its session, which waits no more then: nobody would hear of the grant."""
        if self._wanted is not None or self._opened_here:
            return False
        query = commands.AwaitGrant(self._name, self._acquisition, self._session)
        try:
            place = await self._client.query(query, act_for=self._act_for, timeout=HOLDER_TIMEOUT_S)
        except errors.ConclaveError:
            return True  # To take back what is not there changes nothing.
        return not isinstance(place, commands.NotHeld)

    async def _ask(self, wants_to_wait: bool) -> commands.Result:
        if self._wanted is not None:
            return await self._command(
                self._wanted.op(self._names, self._acquisition, self._session, wait=wants_to_wait)
            )
        # A session that was opened here holds nothing, and closes no cycle.
        looks = wants_to_wait and self._refuse_deadlocks and not self._opened_here
        answer = await self._command(
            commands.AcquireLock(
                self._name, self._acquisition, wants_to_wait and not looks, self._session, take_over=True
            )
        )
        if looks and isinstance(answer, commands.Held):
            # What it had of the name already is this acquisition's by now, its place in line too.
            op = lock_commands.Acquire((self._name,), self._acquisition, owner=self._session)
            answer = await self._command(op)
        return answer

    async def _command(self, op: commands.ClientOp) -> commands.Result:
        try:
            result: commands.Result = errors.refuse(await self._client.command(op, act_for=self._act_for))
        except errors.OutcomeUnknown as error:
            if not self._opened_here:
                raise
            raise errors.Unavailable(
                f"nothing was acquired, and a grant that comes late is given back: {error}"
            ) from None
        return result

    # --- the session ------------------------------------------------------------------------------

    async def _open_session(self, ttl_ms: int) -> None:
        sent_us = clock.now_us()
        try:
            opened = await self._client.command(
                commands.OpenSession(ttl_ms, secrets.token_bytes(16)), act_for=self._act_for
            )
        except errors.OutcomeUnknown as error:
            # A session that may have been opened holds nothing and ends by itself: for the caller nothing happened.
            raise errors.Unavailable(f"nothing was acquired: {error}") from None
        assert isinstance(opened, commands.SessionOpened), opened
        self._session, self._ttl_ms, self._opened_here = opened.session, opened.ttl_ms, True
        self._lease_until_us = sent_us + opened.ttl_ms * 1000

    async def _use_session(self, session: int, ttl_ms: int | None) -> None:
        sent_us = clock.now_us()
        view = await self._client.query(commands.GetSession(session), act_for=self._act_for)
        assert isinstance(view, commands.SessionView), view
        if ttl_ms is not None and ttl_ms != view.ttl_ms:
            raise Refused(
                422,
                "ttl-mismatch",
                f"ttl_ms: session {session_name(session)} lives {view.ttl_ms} ms; leave ttl_ms out, or open another "
                f"session; came {ttl_ms}",
                {"ttl_ms": view.ttl_ms},
            )
        self._session, self._ttl_ms = session, view.ttl_ms
        self._lease_until_us = sent_us + view.expires_in_ms * 1000

    async def _keep_alive(self) -> None:
        sent_us = clock.now_us()
        kept = await self._client.keep_alive(self._session, act_for=self._act_for)
        self._lease_until_us = sent_us + kept.ttl_ms * 1000

    async def _keep_alive_while_waiting(self) -> None:
        """Ends only with SessionGone (or a refusal): without a leader it tries on, since leases do not run out then."""
        while True:
            due_us = self._lease_until_us - self._ttl_ms * 1000 * (1 - 1 / KEEP_ALIVES_PER_TTL)
            await asyncio.sleep(max(0.0, (due_us - clock.now_us()) / 1_000_000))
            try:
                await self._keep_alive()
            except (errors.Unavailable, errors.Busy):
                await asyncio.sleep(RETRY_S)

    # --- the line ---------------------------------------------------------------------------------

    async def _wait_in_line(self, deadline: float) -> Acquired:
        global _waiting  # noqa: PLW0603 - a count of this process
        self._was_queued = True
        _waiting += 1
        parts = [
            asyncio.ensure_future(self._granted(deadline)),
            asyncio.ensure_future(self._keep_alive_while_waiting()),
            asyncio.ensure_future(self._stopped.wait()),
        ]
        grant, keep_alive, _ = parts
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            self._raise_if_stopped()
            if grant.done() and (token := grant.result()) is not None:
                return await self._acquired(int(token))
            if keep_alive.done():
                keep_alive.result()
            raise await self._not_acquired()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            _waiting -= 1

    async def _granted(self, deadline: float) -> int | None:
        """The token once the lock is ours; None when the time is over. Raises what ends the wait early."""
        trouble: errors.Unavailable | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                granted = await self._client.wait_for_grant(
                    self._name, self._session, self._acquisition, wait=left, act_for=self._act_for
                )
            except errors.NotFound:
                return None  # A later call of our own session has it now, or let go of it.
            except errors.Unavailable as error:
                trouble = error
                await asyncio.sleep(min(RETRY_S, max(0.0, deadline - time.monotonic())))
                continue
            return None if granted is None else granted.token
        if trouble is not None:
            raise trouble
        return None

    def _raise_if_stopped(self) -> None:
        if self._stop is not None:
            raise self._stop

    # --- how it ends ------------------------------------------------------------------------------

    async def _acquired(self, token: int) -> Acquired:
        if self._was_queued and self._left_ms() < self._ttl_ms / KEEP_ALIVES_PER_TTL:
            try:
                await self._keep_alive()
            except (errors.Unavailable, errors.Busy):
                if not self._left_ms():
                    raise
        mode = lock_commands.EXCLUSIVE if self._wanted is None else self._wanted.mode
        return Acquired(
            session=session_name(self._session),
            token=token,
            name=self._asked_for,
            ttl_ms=self._ttl_ms,
            expires_in_ms=self._left_ms(),
            principal=self._principal,
            acquisition=self._acquisition,
            mode=mode,
            names=list(self._names),
            sequencer=lock_commands.sequencer(self._asked_for, mode, token),
        )

    def _left_ms(self) -> int:
        return lease_left_ms(self._ttl_ms, self._lease_until_us)

    async def _not_acquired(self, held: commands.Held | None = None) -> Refused:
        """Names the holder. Whoever is refused a lock is told who has it, whether or not they may read others."""
        holder = held.holder if held else None
        token = held.token if held else None
        expires_in_ms: int | None = None
        view = await self._in_the_way(held)
        if view is not None:
            holder = view.holder
            token, expires_in_ms = (view.token, view.expires_in_ms) if holder else (None, None)
        return Refused(
            409,
            "not-acquired",
            f"lock {self._name!r} was not acquired in time; {_who_has(holder, view)}{self._still_waits()}",
            {
                "name": self._name,
                "holder": HolderOut.of(holder).dict() if holder is not None else None,
                "token": token,
                "expires_in_ms": expires_in_ms,
            },
        )

    def _still_waits(self) -> str:
        waits = self._was_queued and self._keeps_place
        return f"; acquisition {self._acquisition} waits on in line, until it is released" if waits else ""

    async def _in_the_way(self, held: commands.Held | None) -> commands.LockView | None:
        """The one of its names that is in the way, as it is now: the one that `held` is of, else one that is held, else
        one that is kept back. None where nobody can be asked."""
        try:
            answers = await asyncio.gather(
                *(self._client.query(commands.GetLock(name), timeout=HOLDER_TIMEOUT_S) for name in self._names)
            )
        except (errors.Unavailable, errors.Busy):
            return None
        views = [view for view in answers if isinstance(view, commands.LockView)]
        token = held.token if held else 0
        return min(views, key=lambda view: (view.token != token, view.holder is None, not view.token), default=None)

    async def _take_back_soon(self) -> None:
        """Before a refusal is answered, the place in line is gone; but no caller waits long for that."""
        work = access.spawn(self._take_back(), f"take back lock {self._name!r}")
        await asyncio.wait([work], timeout=TAKE_BACK_BEFORE_ANSWER_S)

    async def _take_back(self) -> None:
        try:
            if self._opened_here:
                await self._client.command(
                    commands.CloseSession(self._session), act_for=self._act_for, timeout=TAKE_BACK_TIMEOUT_S
                )
            elif self._was_queued and not self._keeps_place:
                await self._client.command(self._undoing(), act_for=self._act_for, timeout=TAKE_BACK_TIMEOUT_S)
        except errors.SessionGone:
            pass
        except errors.ConclaveError as error:
            log.warning("lock %r of session %d stays until its lease ends: %s", self._name, self._session, error)

    def _undoing(self) -> commands.ClientOp:
        """What takes back a place in line, or the grant that came of it."""
        if self._wanted is not None:
            return lock_commands.Release(self._names, self._acquisition, self._session)
        return commands.ReleaseLock(self._name, self._acquisition, self._session)


def _who_has(holder: commands.Holder | None, view: commands.LockView | None) -> str:
    """Who is in the way; `view`: the name as it is now, where that is known."""
    if holder is not None:
        return f"held by {holder.principal} (session {session_name(holder.session)})"
    if view is None:
        return "its holder is not known"
    if view.token:  # Whoever is first in line could not be let in: a name without holders is in its lock-delay.
        return "its last holder died, and it is kept back for its lock-delay"
    return "it was let go just now"
