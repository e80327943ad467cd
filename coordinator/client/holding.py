"""What a client has by a grant: a hold, a leadership, an item of a queue. Can it still be proven, and how it is let go.

Each of them says in its own module what else can be done with it.
"""

from __future__ import annotations

import contextlib
import logging
from types import TracebackType
from typing import Any, Self, TypeVar

from coordinator.client import flows, lock_flows
from coordinator.client.asking import Ask, Asking, Async, Part, S, Sync
from coordinator.client.core import Core
from coordinator.client.errors import Closed, ConclaveError, LeaseLost, Unavailable
from coordinator.client.flows import Clock, Grant
from coordinator.client.lease import LeaseState

InThread = TypeVar("InThread", bound="Had[Sync]")
InLoop = TypeVar("InLoop", bound="Had[Async]")

logger = logging.getLogger(__name__)


class Had(Part[S]):
    """A context manager that lets go at its end, and raises LeaseLost there where it was not held any more."""

    def __init__(self, shell: S, grant: Grant) -> None:
        super().__init__(shell)
        self._state = LeaseState(grant, shell.clock)

    @property
    def name(self) -> str:
        """Of the lock, the first of several."""
        return self._state.grant.name

    @property
    def token(self) -> int:
        """The fencing token to send along with every write that this guards."""
        return self._state.grant.token

    @property
    def held(self) -> bool:
        """Can it be proven held now?"""
        return self._state.held

    @property
    def expires_in(self) -> float:
        """Seconds for which it can be proven held if no leader confirms it again."""
        return self._state.expires_in

    def check(self) -> None:
        """Raises LeaseLost unless its session can be proven alive at this moment. Costs no round trip: that it was
        taken away by force (Broken) is known once this client has been told."""
        self._state.check()

    def _let_go(self, timeout: float | None = None) -> Ask[bool]:
        """Let go. True where it was still held. What is not answered in time goes on in the background."""
        clock, deadline_us, is_own = self._shell.clock, self._shell.deadline_us(timeout), self._state.is_own
        grant = self._state.grant

        def begins() -> None:
            # Not before it is asked: a task that is cancelled before its first step leaves that to its `with`.
            self._state.released = True

        def flow(core: Core) -> Asking[bool]:
            return is_own and bool((yield from flows.release(core, clock, grant, deadline_us)))

        return Ask(flow, begins=begins, left=self._let_go_later)

    def _leave(self) -> Ask[Any]:
        """Let go at the end of a `with` that raised nothing. Raises LeaseLost where it was not held any more: what was
        done last nothing has guarded."""
        if self._state.may_be_given or not self._state.is_own:
            return self._let_go()
        clock, deadline_us, grant = self._shell.clock, self._shell.deadline_us(None), self._state.grant
        self._state.released = True
        return Ask(lambda core: lock_flows.leave(core, clock, grant, deadline_us), left=self._let_go_later)

    def _let_go_later(self) -> None:
        """Something was thrown into the caller, perhaps before it had asked: it goes back in the background."""
        self._state.released = True
        if not self._state.is_own:
            return
        shell, grant = self._shell, self._state.grant
        with contextlib.suppress(Closed):  # Then the session ends.
            shell.spawn(Ask(lambda core: lock_flows.let_go(core, shell.clock, grant)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self: Had[Sync], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._state.released:
                self._shell.answer(self._leave() if kind is None else self._let_go())
        except LeaseLost:
            raise
        except ConclaveError as refusal:
            logger.warning("lock %r is still being released: %s", self.name, refusal)
        except BaseException:
            self._let_go_later()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self: Had[Async], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state.is_own and not self._state.released:  # No event loop runs in a fork of its process.
            try:
                await self._shell.answer(self._leave() if kind is None else self._let_go())
            except LeaseLost:
                raise
            except ConclaveError as refusal:
                logger.warning("lock %r is still being released: %s", self.name, refusal)


def give_back(core: Core, had: Had[Any] | None) -> None:
    """Its asker left before it had it: a grant that nobody has taken goes back (history 9)."""
    if had is not None:
        had._state.released = True
        lock_flows.give_back(core, had._shell.clock, had._state.grant)


def proven(core: Core, clock: Clock, grant: Grant, timeout_us: int) -> Asking[None]:
    """To be asked as the last before something is told that its grant is of use: where this process stood still since
    it had that, the session may be gone, and another may have what it held. Raises LeaseLost."""
    if grant.session.valid(clock()):
        return
    lost = LeaseLost(f"lock {grant.name!r}: it can not be proven held any more, and another may hold it now")
    try:
        if (yield core.revived(grant.session, clock() + timeout_us)) is None:
            raise lost
    except Closed:
        raise
    except Unavailable as silent:
        raise lost from silent
