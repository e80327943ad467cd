"""Whoever asks for locks, and holds what is answered against a model (`holds.py`): taken over by another acquisition,
handed over to another session, taken by force, and kept back for a while where a holder died."""

from __future__ import annotations

import dataclasses
from unittest import mock

from msgspec.structs import replace

from coordinator.statemachine import commands, lock_changes, locking
from coordinator.statemachine.commands import (
    ANY_ACQUISITION,
    AcquireLock,
    AwaitGrant,
    CancelAcquire,
    CloseSession,
    Done,
    ExpireSessions,
    Failure,
    Granted,
    Held,
    NotHeld,
    Queued,
    ReleaseLock,
)
from coordinator.statemachine.lock_commands import (
    Acquire,
    Break,
    Broken,
    ChangeMode,
    Deadlock,
    EndLockDelays,
    ForceRelease,
    GetLockState,
    HandOver,
    Holder,
    ListBreaks,
    Release,
)
from tests.unit.statemachine.holds import Hold, Holds, Wish
from tests.unit.statemachine.twins import Twins

NAMES = ("a", "b", "build/c")
SESSIONS = 5
NARROW = 4
"""The session that may lock what is below `build/` alone."""
BREAKS = 4
"""Forced releases that are remembered here."""
PLACES = 5
"""Holds and places in line that a session may have here."""


class Passing:
    def __init__(self):
        super().__init__()
        self.few = [mock.patch.object(lock_changes, "BREAKS_MAX", BREAKS)]
        self.few.append(mock.patch.object(locking, "PLACES_OF_SESSION_MAX", PLACES))
        for patch in self.few:
            patch.start()
        self.asking = Twins()
        self.web = self.asking.open("web")
        self.desks = {principal: self.asking.open(principal) for principal in ("ci", "narrow")}
        """Sessions that only speak for others."""
        self.sessions = [self.asking.open(self.principal(who)) for who in range(SESSIONS)]
        self.principals = {session: self.principal(who) for who, session in enumerate(self.sessions)}
        """Of all sessions that there ever were."""
        self.acquisitions = 0
        self.model = Holds(NAMES)
        self.tokens = dict.fromkeys(NAMES, 0)
        self.breaks: list[Break] = []
        self.lost: dict[tuple[int, int], dict[str, tuple[Wish, Break]]] = {}
        """By holder and name, what it lost by force: it is told so whenever it has nothing of the name, also where it
        has had it anew since."""

    # --- asking -----------------------------------------------------------------------------------

    @staticmethod
    def principal(who):
        return "narrow" if who == NARROW else "ci"

    def holder(self, key):
        who = self.sessions.index(key[0])
        return Holder(key[0], key[1], self.principal(who))

    def stands(self, name, wish):
        """What whoever waits for its grant is told."""
        who = self.principal(self.sessions.index(wish.session))
        return self.asking.query(AwaitGrant(name, wish.acquisition, wish.session), who)

    def ask(self, session, op):
        """Of every three requests one comes in another session of the same principal, and names this one."""
        principal = self.principal(self.sessions.index(session))
        if self.asking.index % 3 == 0:
            return self.asking.ask(self.desks[principal], replace(op, owner=session), principal)
        return self.asking.ask(session, op, principal)

    @property
    def token(self):
        """Of what the last entry granted."""
        return (1 << 40) | self.asking.index

    def another(self):
        self.acquisitions += 1
        return self.acquisitions

    def done(self):
        return Done(self.asking.index, existed=True)

    def places(self, session):
        held = sum(len(self.model.of_session(session, name)) for name in NAMES)
        return held + sum(len(wish.names) for wish in self.model.waiters if wish.session == session)

    def in_the_way(self, name):
        """Of whom a try is told: who holds it first, or held it and died, or is first in line."""
        if self.model.held[name]:
            return self.model.held[name][0].wish.key
        if name in self.model.delays:
            return self.model.delays[name].holder
        return next((wish.key for wish in self.model.line(name)), None)

    def refused_try(self, result, wish):
        """Of one of its names; one that waits already may hear of one that it would join."""
        assert isinstance(result, Held), result
        is_new = wish not in self.model.waiters
        ways = [self.in_the_way(name) for name in wish.names if not (is_new and self.model.joins(name, wish))]
        assert (result.holder.session, result.holder.acquisition) in ways

    # --- asked for, let go ------------------------------------------------------------------------

    def asks(self, wish, *, wait):
        op = Acquire(
            wish.names,
            wish.acquisition,
            wish.mode,
            wait,
            reentrant=wish.reentrant,
            delay_ms=wish.delay_ms,
            refuse_deadlocks=False,
        )
        self.answered(wish, self.ask(wish.session, op), wait=wait)

    def answered(self, wish, result, *, wait):
        """What nobody had of yet is asked for."""
        if self.principal(self.sessions.index(wish.session)) == "narrow" and wish.names != ("build/c",):
            assert result.code == commands.FORBIDDEN
            return
        shares = [
            hold for name in wish.names for hold in self.model.of_session(wish.session, name) if hold.mode == "shared"
        ]
        if wish.reentrant and wish.mode == "exclusive" and shares:
            assert result.code == commands.INVALID
            return
        is_free = self.model.free(wish)
        if self.places(wish.session) + len(wish.names) > PLACES and (wait or is_free):
            assert result.code == commands.FULL
            return
        if is_free:
            assert result == Granted(self.model.take(wish, self.token))
        elif wait:
            assert isinstance(result, Queued)
            self.model.waiters.append(wish)
        else:
            self.refused_try(result, wish)

    def everything(self):
        holds = [hold.wish for name in NAMES for hold in self.model.held[name]]
        return [*holds, *self.model.waiters]

    def asks_again(self, wish, *, wait):
        lost = self.lacks(wish)
        holds = [self.model.hold(wish.key, name) for name in wish.names]
        if wish in self.model.waiters:
            op = Acquire(wish.names, wish.acquisition, wish.mode, wait, reentrant=wish.reentrant)
            result = self.ask(wish.session, op)
            if wait:
                assert isinstance(result, Queued)
            else:
                self.refused_try(result, wish)
        elif not any(holds):
            self.asks(wish, wait=wait)
        elif lost:
            result = self.ask(wish.session, Acquire(wish.names, wish.acquisition, wish.mode, wait))
            assert result.broken in [broken for _, broken in lost.values()]
        elif all(holds) and {hold.mode for hold in holds} == {wish.mode}:
            result = self.ask(wish.session, Acquire(wish.names, wish.acquisition, wish.mode, wait))
            assert result == Granted(max(hold.token for hold in holds))

    def lacks(self, wish):
        """What of its names was taken from it by force, and it does not hold now."""
        lost = self.lost.get(wish.key, {})
        return {name: lost[name] for name in wish.names if name in lost and not self.model.hold(wish.key, name)}

    def lets_go_of(self, wish, names):
        self.lets_go(wish.key, names, self.ask(wish.session, Release(names, wish.acquisition)))

    def lets_go(self, key, names, result):
        waits = [wish for wish in self.model.waiters if wish.key == key and {*wish.names} & {*names}]
        gone = [hold for name in names for hold in self.model.lose(name, lambda hold: hold.wish.key == key)]
        lost = [broken for name, (_, broken) in self.lost.get(key, {}).items() if name in names]
        if waits or gone:
            assert result == self.done()
        elif lost:
            assert result.broken in lost
        else:
            assert result == NotHeld()
        self.model.waiters = [wish for wish in self.model.waiters if wish not in waits]
        self.model.settle(self.token)

    def lets_go_of_the_first(self, who, name):
        session = self.sessions[who]
        result = self.ask(session, ReleaseLock(name, ANY_ACQUISITION))
        first = self.first_of(session, name)
        if first is None:
            assert result == NotHeld()
        else:
            self.lets_go(first.key, (name,), result)

    def first_of(self, session, name):
        holds = [hold.wish for hold in self.model.of_session(session, name)]
        return next(iter([*holds, *(wish for wish in self.model.line(name) if wish.session == session)]), None)

    def cancels(self, key):
        wishes = [wish for wish in self.everything() if wish.key == key]
        names = wishes[0].names if wishes else ("a",)
        result = self.ask(key[0], CancelAcquire(names[0], key[1], 9_999))
        self.lets_go(key, names, result)

    # --- taken over -------------------------------------------------------------------------------

    def takes_over(self, who, name, *, wait):
        """What the session has of the name becomes the new acquisition's."""
        session, acquisition = self.sessions[who], self.another()
        model = self.model
        result = self.ask(session, AcquireLock(name, acquisition, wait, take_over=True))
        first = self.first_of(session, name)
        if who == NARROW and name != "build/c":
            assert result.code == commands.FORBIDDEN
            return
        hold = model.hold(first.key, name) if first else None
        if first and (hold or first).mode != "exclusive":
            assert result.code == commands.INVALID
            return
        if first is None or first.names != (name,):
            # What was taken together with other names stays whose it is.
            self.answered(Wish(session, acquisition, (name,)), result, wait=wait)
            return
        renamed = dataclasses.replace(first, acquisition=acquisition)
        if hold:
            hold.wish = renamed
            assert result == Granted(hold.token)
        else:
            model.waiters[model.waiters.index(first)] = renamed
            if wait:
                assert result == Queued(model.line(name).index(renamed) + 1)
            else:
                self.refused_try(result, renamed)

    # --- changed ----------------------------------------------------------------------------------

    def changes(self, name, hold, *, up):
        model, key = self.model, hold.wish.key
        others = [other for other in model.held[name] if other is not hold]
        result = self.ask(key[0], ChangeMode(name, key[1], "exclusive" if up else "shared"))
        if self.principal(self.sessions.index(key[0])) == "narrow" and name != "build/c":
            assert result.code == commands.FORBIDDEN
        elif isinstance(result, Failure):
            assert result.code == commands.INVALID
            assert len(model.of_session(key[0], name)) > 1
        elif not up:
            assert result == Granted(hold.token)
            hold.mode = "shared"
            if model.upgrading.get(name) == key:
                del model.upgrading[name]
            model.settle(self.token)
        elif hold.mode == "exclusive":
            assert result == Granted(hold.token)
        elif model.upgrading.get(name) == key:
            assert isinstance(result, Queued)
        elif not others and name not in model.delays:
            hold.mode, hold.token = "exclusive", self.token
            assert result == Granted(hold.token)
        else:
            was = model.upgrading.get(name)
            model.upgrading[name] = key
            closes = any(key[0] in model.reaches(other.wish.session) for other in others)
            if was or closes:
                assert isinstance(result, Deadlock), result
                del model.upgrading[name]
                if was:
                    model.upgrading[name] = was
            else:
                assert isinstance(result, Queued), result

    # --- handed over ------------------------------------------------------------------------------

    def hands_over(self, name, giver, heir):
        model = self.model
        result = self.ask(giver[0], HandOver(name, giver[1], *heir))
        if self.principal(self.sessions.index(giver[0])) == "narrow" and name != "build/c":
            assert result.code == commands.FORBIDDEN
            return
        hold, place = model.hold(giver, name), model.waiter(heir, name)
        expected = self.refusals(name, giver, heir, hold, place)
        if expected:
            assert getattr(result, "code", type(result)) in expected, (result, expected)
            return
        line = {
            wish.session
            for wish in model.line(name)
            if wish != place and wish.session != heir[0] and (wish.mode, hold.mode) != ("shared", "shared")
        }
        before, held = [*model.waiters], model.held[name]
        if place:
            model.waiters.remove(place)
        wish = Wish(heir[0], heir[1], (name,), hold.mode, delay_ms=hold.wish.delay_ms)
        model.held[name] = [*(other for other in held if other is not hold), Hold(wish, hold.mode, self.token)]
        if giver[0] != heir[0] and line & model.reaches(heir[0]):
            assert isinstance(result, Deadlock), result
            assert (result.cycle[0].session, result.cycle[-1].name) == (heir[0], name)
            model.waiters, model.held[name] = before, held
            return
        assert result == self.done()
        model.settle(self.token)

    def refusals(self, name, giver, heir, hold, place):
        """Where several stand in the way, any of them may be told."""
        model, found = self.model, []
        if hold is None:
            return [NotHeld]
        if hold.wish.names != (name,) or (hold.mode == "exclusive" and len(model.of_session(giver[0], name)) > 1):
            found.append(commands.INVALID)
        if hold.mode == "shared" and not (place and place.mode == "shared"):
            found.append(commands.INVALID)
        if hold.mode == "shared" and (name in model.upgrading or name in model.delays):
            found.append(commands.REFUSED)
        if giver == heir or heir[1] < 0 or (place and place.names != (name,)):
            found.append(commands.INVALID)
        if heir[0] not in self.sessions:
            return [*found, commands.NOT_FOUND]
        if self.principal(self.sessions.index(heir[0])) == "narrow" and name != "build/c":
            found.append(commands.FORBIDDEN)
        if self.places(heir[0]) >= PLACES and not place and giver[0] != heir[0]:
            found.append(commands.FULL)
        return found

    # --- taken by force ---------------------------------------------------------------------------

    def forced(self, name, one, reason="stuck"):
        session = 0 if one is None else self.sessions[one]
        op = ForceRelease(name, reason, session)
        assert self.asking.ask(self.sessions[1], op).code == commands.FORBIDDEN
        result = self.asking.ask(self.web, op, "web")
        if reason not in ("stuck", "late"):
            assert result.code == commands.INVALID
            return
        gone = self.model.lose(name, lambda hold: session in (0, hold.wish.session))
        delay = self.model.delays.get(name)
        if delay and session not in (0, delay.holder[0]):
            delay = None
        assert result == (self.done() if gone or delay else NotHeld())
        for hold in gone:
            broken = self.breaks_off(name, self.holder(hold.wish.key), hold.token, reason)
            self.lost.setdefault(hold.wish.key, {})[name] = (hold.wish, broken)
        if delay:
            self.breaks_off(name, Holder(*delay.holder, self.principals[delay.holder[0]]), delay.token, reason)
            del self.model.delays[name]
        self.breaks = self.breaks[-BREAKS:]
        for key, lost in [*self.lost.items()]:
            self.lost[key] = {name: one for name, one in lost.items() if one[1] in self.breaks}
            if not self.lost[key]:
                del self.lost[key]
        self.model.settle(self.token)

    def breaks_off(self, name, holder, token, reason):
        number = self.breaks[-1].number + 1 if self.breaks else 1
        self.breaks.append(Break(number, self.asking.index, name, holder, token, "web", reason))
        return self.breaks[-1]

    # --- died -------------------------------------------------------------------------------------

    def expire(self, which):
        self.ended([self.sessions[who] for who in which], died=True)

    def ended(self, ended, *, died):
        if died:
            self.asking.node(ExpireSessions((*ended,)))
        for session in () if died else ended:
            self.ask(session, CloseSession())
            self.gone([session], died=False)
        if died:
            self.gone(ended, died=True)
        for session in ended:
            who = self.sessions.index(session)
            self.sessions[who] = self.asking.open(self.principal(who))
            self.principals[self.sessions[who]] = self.principal(who)

    def gone(self, ended, *, died):
        self.model.end(ended, self.asking.index, self.token, died=died)
        self.lost = {key: lost for key, lost in self.lost.items() if key[0] not in ended}

    def delays_end(self, names, off=0):
        self.asking.node(EndLockDelays((*((name, self.model.delays[name].since + off) for name in names), ("x", 1))))
        if not off:
            for name in names:
                del self.model.delays[name]
            self.model.settle(self.token)

    def anew(self, *wishes):
        """Nobody has anything; then these sessions ask, one after the other: (who, names, mode, delay, re-entrant)."""
        busy = {wish.session for wish in self.everything()}
        self.ended([session for session in self.sessions if session in busy], died=False)
        if self.model.delays:
            self.delays_end([*self.model.delays])
        found = []
        for who, names, mode, *more in wishes:
            found.append(Wish(self.sessions[who], self.another(), names, mode, *reversed(more)))
            self.asks(found[-1], wait=True)
        return found

    # --- what must hold ---------------------------------------------------------------------------

    def holds_true(self):
        self.all_is_as_in_the_model()
        self.whoever_asks_is_told_where_it_stands()
        self.forced_releases_are_remembered()

    def all_is_as_in_the_model(self):
        model = self.model
        for name in NAMES:
            state = self.asking.query(GetLockState(name), "web")
            assert [(grant.holder, grant.token, grant.delay_ms) for grant in state.holders] == [
                (self.holder(hold.wish.key), hold.token, hold.wish.delay_ms) for hold in model.held[name]
            ]
            assert [(waiter.holder, waiter.names) for waiter in state.waiters] == [
                (self.holder(wish.key), wish.names) for wish in model.line(name)
            ]
            delay = model.delays.get(name)
            assert state.delay_ms == (delay.delay_ms if delay else 0)
            upgrading = model.upgrading.get(name)
            assert state.upgrading == (None if upgrading is None else self.holder(upgrading))
            if model.held[name]:
                assert {state.mode} == model.modes(name)
                assert state.token >= max(self.tokens[name], *(hold.token for hold in model.held[name]))
                self.tokens[name] = state.token
        delays = [(name, delay.since, delay.delay_ms) for name, delay in model.delays.items()]
        assert sorted(self.asking.machine.delays()) == sorted(delays)
        assert self.asking.machine.waiting == sum(len(wish.names) for wish in model.waiters)

    def whoever_asks_is_told_where_it_stands(self):
        for name in NAMES:
            for hold in self.model.held[name]:
                answer = self.stands(name, hold.wish)
                if self.model.upgrading.get(name) == hold.wish.key:
                    assert isinstance(answer, Queued)
                elif not self.lacks(hold.wish):
                    holds = [self.model.hold(hold.wish.key, one) for one in hold.wish.names]
                    assert answer == Granted(max(one.token for one in holds if one))
            for place, wish in enumerate(self.model.line(name), 1):
                answer = self.stands(name, wish)
                assert answer == Queued(place) if len(wish.names) == 1 else isinstance(answer, Queued)
        for key, lost in self.lost.items():
            waited_for = {name for wish in self.model.waiters if wish.key == key for name in wish.names}
            for name, (wish, broken) in lost.items():
                if name not in waited_for and not self.model.hold(key, name):
                    assert self.stands(name, wish) == Broken(broken)

    def forced_releases_are_remembered(self):
        assert [*self.asking.query(ListBreaks(), "web").breaks] == self.breaks

    def ends(self):
        self.asking.agree()
        for patch in self.few:
            patch.stop()
