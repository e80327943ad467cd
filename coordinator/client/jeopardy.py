"""A session as its holder follows it: safe, in jeopardy, expired (Chubby, section 2.8).

A client counts its lease from the sending of what a leader answered. Once that has run out and no leader has confirmed
it, the session is in *jeopardy*: the cluster may have ended it, or may be without a leader. What is asked for under it
waits meanwhile. For the *grace period* the client goes on trying: if a leader confirms the session it is *safe* again,
and nothing was lost; if the cluster says that it is gone, or the grace period ends, it has *expired*, for good.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from coordinator.client import flows, options
from coordinator.client.asking import Ask, Asking, S, Stream, asked
from coordinator.client.core import Core
from coordinator.client.errors import Closed, ConclaveError, Unavailable, says_that_the_session_is_gone
from coordinator.client.flows import Clock, Flow
from coordinator.client.session import Session
from coordinator.statemachine import commands

DEFAULT_GRACE_S: Final = 45.0
"""As in the Chubby paper."""
GRACE_S_MAX: Final = 86_400.0


class Standing(Enum):
    SAFE = "safe"
    JEOPARDY = "jeopardy"
    EXPIRED = "expired"


def standing(session: Session, now_us: int, grace_us: int) -> Standing:
    if session.valid(now_us):
        return Standing.SAFE
    if session.gone or now_us >= session.valid_until_us + grace_us:
        return Standing.EXPIRED
    return Standing.JEOPARDY


def until_it_changes(
    core: Core, clock: Clock, session: Session, grace_us: int, known: Standing, until_us: int | None = None
) -> Flow:
    """Wait until the standing is another than `known`; the new one, or `known` at `until_us`. A session whose grace
    period is over is gone from here on, whatever a leader says later."""
    while True:
        now_us = clock()
        found = standing(session, now_us, grace_us)
        if found is Standing.EXPIRED and not session.gone:
            core.lose_session(session)
        if found is not known or (until_us is not None and now_us >= until_us):
            return found
        changes_us = session.valid_until_us if found is Standing.SAFE else session.valid_until_us + grace_us
        try:
            yield core.revived(session, changes_us if until_us is None else min(changes_us, until_us))
        except Closed:
            raise
        except Unavailable:
            continue  # The time has come.


class SessionHandle(Stream[S, Standing]):
    """`client.session(ttl)`: the session under which all locks and ephemeral files of this client with the same `ttl`
    live. Iterate over it for what becomes of it: each change of its standing, the last one EXPIRED."""

    def __init__(self, shell: S, session: Session, grace_us: int) -> None:
        super().__init__(shell)
        self._session = session
        self._grace_us = grace_us
        self._known = Standing.SAFE
        self.session = session.session
        self.ttl = session.ttl_ms / 1_000

    @property
    def standing(self) -> Standing:
        """As it is now. Costs no round trip."""
        return standing(self._session, self._shell.clock(), self._grace_us)

    @property
    def expires_in(self) -> float:
        """Seconds for which it can be proven alive if no leader confirms it again; 0.0 in jeopardy and after."""
        if self._session.gone:
            return 0.0
        return max(0, self._session.valid_until_us - self._shell.clock()) / 1e6

    def _next(self, until_us: int | None) -> Ask[Standing | None]:
        clock = self._shell.clock

        def flow(core: Core) -> Asking[Standing | None]:
            if self._known is Standing.EXPIRED:
                return None
            found = yield from until_it_changes(core, clock, self._session, self._grace_us, self._known, until_us)
            if found is self._known:
                return None
            self._known = found
            return self._known

        return Ask(flow)

    @asked
    def close(self, *, timeout: float | None = None) -> Ask[None]:
        """End it: its locks are let go, and its ephemeral files go with it."""
        clock, deadline_us = self._shell.clock, self._shell.deadline_us(timeout)

        def flow(core: Core) -> Asking[None]:
            if not self._session.gone:
                closing = core.command(self._session, commands.CloseSession(), clock(), deadline_us)
                core.lose_session(self._session)  # From here on nobody may take a lease of it for good.
                try:
                    yield closing
                except ConclaveError as error:
                    if not says_that_the_session_is_gone(error):
                        raise

        return Ask(flow)

    def __repr__(self) -> str:
        return f"<SessionHandle {self.session} {self.standing.value}>"


def open_handle(shell: S, ttl: float, grace: float, timeout: float | None) -> Ask[SessionHandle[S]]:
    ttl_ms, grace_us = options.ttl_ms(ttl), options.seconds("grace", grace, 0, GRACE_S_MAX)
    clock, deadline_us = shell.clock, shell.deadline_us(timeout)

    def flow(core: Core) -> Asking[SessionHandle[S]]:
        session = yield from flows.session(core, clock, ttl_ms, deadline_us)
        core.guard(session, grace_us)
        return SessionHandle(shell, session, grace_us)

    return Ask(flow)
