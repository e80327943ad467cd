"""What one leadership counts and owes to the log in time: leases, lock-delays, checkpoints, the cluster's level; and
who waits for changes.

It begins when the leader has applied the first entry of its own term, since only then does it know all that those
before it have proposed, and ends with the leadership. `due` says what is to be proposed now; what the engine did not
take comes back by `refused`. What was taken is not proposed again: a leader's own entry is not lost while it leads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from coordinator.replica.broken_holds import BrokenHolds
from coordinator.replica.caching import Caching
from coordinator.replica.callers import Caller
from coordinator.replica.checkpoints import Checkpoints, HeldAnswer
from coordinator.replica.delays import Delays
from coordinator.replica.leases import Leases
from coordinator.replica.levels import Levels
from coordinator.replica.watches import Watches
from coordinator.statemachine import commands
from coordinator.statemachine.events import LockDelayed, LockDelayEnded
from coordinator.statemachine.lock_commands import EndLockDelays
from coordinator.statemachine.locks import PLACES_OF_SESSION_MAX
from coordinator.statemachine.machine import Machine

CHECKPOINTS_LEVEL: Final = 2
"""Of the commands that speak of checkpoints."""

Proposal = commands.ExpireSessions | EndLockDelays | commands.CheckpointSessions | commands.ResetCheckpoints
Proposals = list[Proposal | commands.RaiseLevel]


class Tenure:
    def __init__(self, machine: Machine, levels: Levels, caching: Caching, now_us: int) -> None:
        self._machine = machine
        self._levels = levels
        self._raised = 0
        """The level that this leader has proposed."""
        self.leases = Leases(now_us)
        self.delays = Delays()
        self.checkpoints = Checkpoints()
        self.watches = Watches()
        self.caching = caching
        self.broken_holds = BrokenHolds(machine)
        self.leases.begin({number: session.lease_ms for number, session in machine.sessions.items()})
        self.checkpoints.inherit(machine.sessions.values())
        for name, since, delay_ms in machine.delays():
            self.delays.begin(name, since, delay_ms, 0)

    # --- what the log says ------------------------------------------------------------------------

    def began(self, session: int, ttl_ms: int) -> None:
        self.leases.renew(session, ttl_ms)
        self.checkpoints.begin(session, ttl_ms, self.leases.lease_us)

    def ended(self, session: int) -> None:
        self.leases.forget(session)
        self.checkpoints.forget(session)
        self.caching.ended(session)
        self.broken_holds.ended(session)

    def delayed(self, event: LockDelayed | LockDelayEnded) -> None:
        if isinstance(event, LockDelayed):
            self.delays.begin(event.name, event.since, event.delay_ms, self.leases.lease_us)
        else:
            self.delays.end(event.name, event.since)

    def was_reset(self, session: int) -> list[HeldAnswer]:
        """A checkpoint was reset: who may be answered now. Nobody, where the session's expiry is proposed (history 11):
        then whoever waits asks again."""
        held = self.checkpoints.was_reset(session)
        return held if held and self._renew(session) else []

    # --- keep-alives ------------------------------------------------------------------------------

    def keep_alive(self, session: int, caller: Caller, request_id: int) -> bool:
        """A keep-alive of a session that is there, from the leader that a majority has confirmed since it came. May it
        be answered now? Else it is held until its checkpoint is reset, or its sender asks in vain, and again."""
        if not self._renew(session):
            return False
        if self.checkpoints.may_answer(session):
            return True
        self.checkpoints.hold(session, caller, request_id)
        return False

    def _renew(self, session: int) -> bool:
        ttl_ms = self._machine.sessions[session].ttl_ms
        if not self.leases.renew(session, ttl_ms):
            return False  # Its expiry is proposed and not yet applied (history 11).
        self.checkpoints.heard(session, ttl_ms, self.leases.lease_us)
        return True

    # --- to the log -------------------------------------------------------------------------------

    def due(self, confirmed_at_us: int, others: Callable[[], Collection[int]]) -> Proposals:
        """What is to be proposed now, by a leader that a majority confirmed at `confirmed_at_us`. `others` tells the
        other members that have a state machine."""
        leases = self.leases
        found: Proposals = []
        expired = silent = leases.take_expired(confirmed_at_us)
        if silent:
            # Whose keep-alive is in hand, and waits for a slow reset, is not silent.
            leases.proposal_refused([session for session in silent if self.checkpoints.is_held(session)])
            expired = [session for session in silent if not self.checkpoints.is_held(session)]
        if expired and not self.caching.is_idle:
            expired = self._dropped(expired)
        if expired:
            found += [commands.ExpireSessions(part) for part in self._in_parts(expired)]
        delays = self.delays.take_passed(leases.lease_us, leases.seen_us, confirmed_at_us)
        if delays and not self.caching.is_idle and not self.caching.lets_pass(EndLockDelays(delays)):
            self.delays.proposal_refused(delays, leases.seen_us)
        elif delays:
            found.append(EndLockDelays(delays))
        level = self._machine.state.level
        if level >= CHECKPOINTS_LEVEL:
            remaining = self.checkpoints.take_due(leases)
            if remaining:
                found.append(commands.CheckpointSessions(remaining))
            resets = self.checkpoints.take_resets()
            if resets:
                found.append(commands.ResetCheckpoints(resets))
        if level < self._levels.own:
            agreed = self._levels.agreed(others())
            if agreed > max(level, self._raised):
                self._raised = agreed
                found.append(commands.RaiseLevel(agreed))
        return found

    def _in_parts(self, expired: list[int]) -> Iterator[tuple[int, ...]]:
        """What one entry ends is short work: as much as one session may have, or one session more. One that has nothing
        is work, too: a hundred thousand of them, of a host that died, ran out in one entry. Whoever waits goes
        first, so that as few as can be are granted what they do not live to hold."""
        part: list[int] = []
        places = 0
        sessions = self._machine.sessions
        for number in sorted(expired, key=lambda one: one not in sessions or not sessions[one].waiting):
            session = sessions.get(number)
            part.append(number)
            places += 1 if session is None else 1 + session.places + len(session.files)
            if places >= PLACES_OF_SESSION_MAX:
                yield tuple(part)
                part, places = [], 0
        if part:
            yield tuple(part)

    def _dropped(self, expired: list[int]) -> list[int]:
        """Those of which nobody keeps anything that goes with them. The others are tried again."""
        ended = self.caching.lets_end(expired)
        gone = {*ended}
        self.leases.proposal_refused([session for session in expired if session not in gone])
        return ended

    def refused(self, op: Proposal | commands.RaiseLevel) -> None:
        """The engine did not take it; try again."""
        match op:
            case commands.ExpireSessions(sessions):
                self.leases.proposal_refused(sessions)
            case EndLockDelays(delays):
                self.delays.proposal_refused(delays, self.leases.seen_us)
            case commands.CheckpointSessions(remaining):
                self.checkpoints.checkpoint_refused(remaining, self.leases.lease_us)
            case commands.ResetCheckpoints(sessions):
                self.checkpoints.reset_refused(sessions)
            case commands.RaiseLevel():
                self._raised = 0

    @property
    def due_in_us(self) -> int | None:
        """How long until there may be something to propose, in lease time; None where there is nothing."""
        lease_us = self.leases.lease_us
        due_us = self.leases.deadline_in_us
        delay_us = self.delays.due_in_us(lease_us)
        if delay_us is not None and (due_us is None or delay_us < due_us):
            due_us = delay_us
        if self._machine.state.level >= CHECKPOINTS_LEVEL:
            other_us = self.checkpoints.due_in_us(lease_us)
            if other_us is not None and (due_us is None or other_us < due_us):
                due_us = other_us
        return due_us
