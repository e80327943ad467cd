"""The sessions of one client: opened when they are first asked for, kept alive, and ended once they are known to be
gone, or were in jeopardy for too long.

Keep-alives are questions of the core itself, which nobody waits for. Part of `core.py`; what can be proven of a session
is in `session.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from coordinator import wire
from coordinator.client.cache import Cache
from coordinator.client.calls import Call, resolved
from coordinator.client.outstanding import Outstanding
from coordinator.client.routing import Routing
from coordinator.client.session import Session
from coordinator.client.waiting import Waiting
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command
from coordinator.statemachine.lock_commands import Break

KEEP_ALIVE_RESEND_US: Final = 200_000
SHORT_TTL_MS: Final = 3_000
"""Below that, the nodes are asked who leads as soon as one keep-alive is not answered."""
FORGOTTEN_US: Final = 60_000_000
"""After so long a keep-alive that was never answered is not waited for."""
SESSIONS_MANY: Final = 64
"""Of one client, at which it is warned: each is kept alive, since nobody but its user knows what lives under it."""

logger = logging.getLogger(__name__)


class SessionKeeper:
    def __init__(
        self,
        routing: Routing,
        outstanding: Outstanding,
        cache: Cache,
        random: Random,
        *,
        submit: Callable[[Call, int], Call],
    ) -> None:
        self.sessions: dict[int, Session] = {}
        """By time to live in milliseconds: one each, opened once."""
        self.asked_us = 0
        """When a keep-alive was last sent."""
        self._routing = routing
        self._outstanding = outstanding
        self._cache = cache
        self._random = random
        self._submit = submit
        self._opening: dict[int, Waiting] = {}
        """By time to live: who waits for the session that is being opened."""
        self._revivals: dict[int, Waiting] = {}
        """By session: who waits for a leader to confirm it."""
        self._guards: dict[int, tuple[Session, int]] = {}
        """By session: for how long it may be in jeopardy before it has expired, in microseconds."""
        self._keep_alives: dict[int, tuple[Session, int]] = {}
        """By number of the request: what was sent and is not answered, and when."""
        self._unanswered: dict[int, int] = {}
        """By session: when the first keep-alive was sent that nothing has been said to, nor to one behind it."""
        self.asks_in_vain = False
        """Is one that `keep_alives` last asked for asked for again, since nothing is said to it?"""
        self._leadership = 0
        """The term of the leader that keep-alives are for; 0 until one has told it."""
        self._keep_alive_count = 0

    # --- opened, and found again ------------------------------------------------------------------

    def session(self, ttl_ms: int, now_us: int, deadline_us: int, *, persists: bool = False) -> Call:
        """See `Core.session`."""
        session = self.sessions.get(ttl_ms)
        if session is not None and session.valid(now_us):
            return resolved(session)
        if not persists:
            self._outstanding.room.check()
        if session is not None and not session.gone:
            return self._revival(session, deadline_us)
        opening = self._opening.get(ttl_ms)
        if opening is None:
            opening = self._opening[ttl_ms] = Waiting(self._outstanding.finish)
            self._open(ttl_ms, now_us)
        return opening.add(self._outstanding.wait(deadline_us, self._outstanding.timed_out))

    def _open(self, ttl_ms: int, now_us: int) -> None:
        nonce = self._random.randbytes(16)

        def build(request_id: int) -> wire.Request:
            command = Command(0, 0, 0, commands.OpenSession(ttl_ms, nonce))
            return wire.CommandRequest(request_id, self._routing.cluster, "", msgspec.Raw(wire.encode(command)))

        question = Call(build, deadline_us=None, timed_out=self._outstanding.timed_out, persists=True, counts=False)

        def done(answered: Call) -> None:
            outcome = answered.outcome
            if isinstance(outcome, commands.SessionOpened):
                assert answered.first_sent_us is not None
                outcome = self.sessions[ttl_ms] = Session(outcome.session, ttl_ms, answered.first_sent_us)
                self._warn_of_many()
            opening = self._opening.pop(ttl_ms, None)
            if opening is not None:
                opening.end(outcome)

        question.when_done(done)
        self._submit(question, now_us)

    def _warn_of_many(self) -> None:
        if len(self.sessions) == SESSIONS_MANY:
            logger.warning(
                "this client keeps %d sessions alive, one for each time to live that it was asked for, until it is"
                " closed: take the ttl from a few fixed values",
                SESSIONS_MANY,
            )

    def revived(self, session: Session, deadline_us: int) -> Call:
        """See `Core.revived`."""
        return resolved(None) if session.gone else self._revival(session, deadline_us)

    def _revival(self, session: Session, deadline_us: int) -> Call:
        waiting = self._revivals.setdefault(session.session, Waiting(self._outstanding.finish))
        return waiting.add(self._outstanding.wait(deadline_us, self._outstanding.timed_out))

    def _end_revivals(self, session: int, outcome: Session | None) -> None:
        waiting = self._revivals.pop(session, None)
        if waiting is not None:
            waiting.end(outcome)

    def nobody_waits(self) -> None:
        """All calls are over: where one was lost, as what was cut off may have left it, whoever comes asks anew."""
        self._opening.clear()
        self._revivals.clear()

    # --- kept alive -------------------------------------------------------------------------------

    def keep_alives(self, now_us: int) -> list[wire.Request]:
        """Those that are to be sent to the leader now."""
        requests: list[wire.Request] = []
        self.asks_in_vain = False
        if not (self._routing.leader and self._routing.cluster):
            return requests
        for session in self.sessions.values():
            if now_us < session.renew_due_us or session.gone:
                continue
            since_us = self._unanswered.setdefault(session.session, now_us)
            # Where there is time, a leader that may merely be slow is asked once more before.
            patience_us = KEEP_ALIVE_RESEND_US * (1 if session.ttl_ms < SHORT_TTL_MS else 2)
            if now_us - since_us >= patience_us:
                self.asks_in_vain = True
            request_id = self._outstanding.next_id()
            # Each send is a question of its own: a lease counts from the very send that was answered.
            self._keep_alives[request_id] = (session, now_us)
            requests.append(self.keep_alive(request_id, "", session.session))
            session.renew_due_us = now_us + KEEP_ALIVE_RESEND_US
            self.asked_us = now_us
        return requests

    def keep_alive(self, request_id: int, act_for: str, session: int) -> wire.Request:
        """Each has a number of its own, within the leadership that it is for: a copy renews nothing (history 7)."""
        self._keep_alive_count += 1
        term = max(self._leadership, self._routing.term)
        return wire.KeepAliveRequest(request_id, self._routing.cluster, act_for, session, term, self._keep_alive_count)

    @property
    def awaits(self) -> bool:
        """Is a keep-alive not answered?"""
        return bool(self._keep_alives)

    def kept_alive(self, request_id: int, session: int, reply: wire.KeptAlive) -> None:
        kept = self._take(request_id)
        if kept is None:
            self._outstanding.resolve(request_id, reply)
            return
        own, sent_us = kept
        if own.session == session and not own.gone:
            own.confirmed(sent_us)
            self._end_revivals(session, own)

    def other_term(self, request_id: int, term: int, now_us: int) -> None:
        self._leadership = max(self._leadership, term)
        self.renew_by(request_id, now_us)
        call = self._outstanding.calls.get(request_id)
        if call is not None:
            self._outstanding.send_again(call, min(call.due_us, now_us))

    def renew_by(self, request_id: int, due_us: int) -> None:
        """If this was a keep-alive it came to nothing: the next is due then, if not before."""
        session = self.forget(request_id)
        if session is not None:
            session.renew_due_us = min(session.renew_due_us, due_us)

    def renew(self, due_us: int, *, only_unanswered: bool = False) -> None:
        """There is another connection, or another leader to ask: the next keep-alive of each session, or of those whose
        last ones are not answered, is due then, if not before."""
        for session in self.sessions.values():
            if session.session in self._unanswered or not only_unanswered:
                session.renew_due_us = min(session.renew_due_us, due_us)
        self._unanswered.clear()

    def forget(self, request_id: int) -> Session | None:
        """If this was a keep-alive it is not waited for any more: the session that it was for."""
        kept = self._take(request_id)
        return kept[0] if kept is not None else None

    def _take(self, request_id: int) -> tuple[Session, int] | None:
        """Something was said to this, if it was a keep-alive: its session, and when it was sent."""
        kept = self._keep_alives.pop(request_id, None)
        if kept is not None:
            self._unanswered.pop(kept[0].session, None)
        return kept

    def hold_broken(self, broken: Break) -> None:
        """A leader says that a hold was taken away by force."""
        for session in self.sessions.values():
            if session.session == broken.holder.session:
                session.hold_broken(broken)

    # --- ended ------------------------------------------------------------------------------------

    def guard(self, session: Session, grace_us: int) -> None:
        """See `Core.guard`."""
        _, known_us = self._guards.get(session.session, (session, grace_us))
        self._guards[session.session] = (session, min(known_us, grace_us))
        self._outstanding.look_by(session.valid_until_us + grace_us)

    def pass_time(self, now_us: int) -> None:
        """End the sessions that were in jeopardy for as long as they may be."""
        for number, (session, grace_us) in [*self._guards.items()]:
            ends_us = session.valid_until_us + grace_us
            if not session.gone and now_us < ends_us:
                self._outstanding.look_by(ends_us)
                continue
            del self._guards[number]
            if not session.gone:
                self.lose(session)
        for request_id, (_, sent_us) in [*self._keep_alives.items()]:
            if now_us - sent_us > FORGOTTEN_US:
                del self._keep_alives[request_id]

    def lose(self, session: Session) -> None:
        """See `Core.lose_session`."""
        session.gone = True
        self._unanswered.pop(session.session, None)
        if session is self._cache.session:
            self._cache.clear()
        self._end_revivals(session.session, None)
