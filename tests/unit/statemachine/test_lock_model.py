"""Locks of all modes against a model: one list of all waiters in order of arrival, gone over until nothing moves."""

from __future__ import annotations

from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.statemachine import commands, locking
from coordinator.statemachine.commands import CancelAcquire, ExpireSessions, Granted, Held, NotHeld, Queued
from coordinator.statemachine.events import GrantMade
from coordinator.statemachine.lock_commands import Acquire, ChangeMode, Deadlock, GetLockState, LockWait, Release
from coordinator.statemachine.views import LISTED_MAX
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

NAMES = "abc"
NAME_SETS = st.sampled_from([("a",), ("a",), ("b",), ("a", "b"), ("b", "c"), ("a", "b", "c")])
MODES = st.sampled_from(["shared", "shared", "exclusive", "counting"])
"""Few names and much sharing, so that holders meet."""
SESSIONS = 4
WHO = st.integers(0, SESSIONS - 1)
WHOEVER = st.permutations(range(SESSIONS))
LIMIT = 2
PLACES = 5
"""Holds and places in line that a session may have here."""


class Wish(NamedTuple):
    session: int
    acquisition: int
    names: tuple[str, ...]
    mode: str
    reentrant: bool = False

    @property
    def key(self):
        return self.session, self.acquisition


class LocksOfAllModes(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.asking = Asking()
        self.sessions = [self.asking.open() for _ in range(SESSIONS)]
        self.waiters: list[Wish] = []
        self.held: dict[str, list[Wish]] = {name: [] for name in NAMES}
        self.upgrading: dict[str, Wish] = {}
        self.tokens = dict.fromkeys(NAMES, 0)

    # --- the model --------------------------------------------------------------------------------

    def admits(self, name, wish):
        held = self.held[name]
        if name in self.upgrading:
            return False
        if not held:
            return True
        modes = {one.mode for one in held} | {wish.mode}
        return modes == {"shared"} or (modes == {"counting"} and len(held) < LIMIT)

    def joins(self, name, wish):
        """Its own session holds the name: its place in that line does not count."""
        modes = {one.mode for one in self.held[name]}
        own = wish.reentrant and any(one.session == wish.session for one in self.held[name])
        return own and "counting" not in modes and modes <= {"exclusive", wish.mode}

    def takes(self, name, wish):
        held = self.held[name]
        held.append(wish._replace(mode="exclusive") if held and held[0].mode == "exclusive" else wish)

    def free(self, wish):
        ahead = {name for waiter in self.waiters if waiter != wish for name in waiter.names}
        if wish in self.waiters:
            ahead = {name for waiter in self.waiters[: self.waiters.index(wish)] for name in waiter.names}
        return all(self.joins(name, wish) or (name not in ahead and self.admits(name, wish)) for name in wish.names)

    def settle(self):
        moved = True
        while moved:
            moved = False
            for name, wish in [*self.upgrading.items()]:
                if len(self.held[name]) == 1:
                    self.held[name] = [wish._replace(mode="exclusive")]
                    del self.upgrading[name]
                    moved = True
            for wish in self.waiters:
                if self.free(wish):
                    self.waiters.remove(wish)
                    for name in wish.names:
                        self.takes(name, wish)
                    moved = True
                    break

    def drop(self, goes):
        self.waiters = [wish for wish in self.waiters if not goes(wish, None)]
        for name in NAMES:
            self.held[name] = [wish for wish in self.held[name] if not goes(wish, name)]
            if name in self.upgrading and goes(self.upgrading[name], name):
                del self.upgrading[name]
        self.settle()

    def has(self, key):
        everything = [*self.waiters, *(wish for held in self.held.values() for wish in held)]
        return next((wish for wish in everything if wish.key == key), None)

    # --- rules ------------------------------------------------------------------------------------

    @rule(
        who=WHO,
        acquisition=st.integers(0, 1),
        names=NAME_SETS,
        mode=MODES,
        wait=st.sampled_from([True, True, False]),
        reentrant=st.booleans(),
    )
    def acquire(self, who, acquisition, names, mode, wait, *, reentrant=False):
        session = self.sessions[who]
        while self.has((session, acquisition)) is not None:
            acquisition += 1
        wish = Wish(session, acquisition, names, mode, reentrant)
        op = Acquire(names, acquisition, mode, wait, LIMIT, reentrant=reentrant, refuse_deadlocks=False)
        with mock.patch.object(locking, "PLACES_OF_SESSION_MAX", PLACES):
            result = self.asking.ask(session, op)
        is_full = self.places(session) + len(names) > PLACES
        if reentrant and mode == "exclusive" and any(self.shares(session, name) for name in names):
            assert result.code == commands.INVALID
        elif is_full and (wait or self.free(wish)):
            assert (result.code, f"{PLACES} holds" in result.message) == (commands.FULL, True)
        elif self.free(wish):
            assert isinstance(result, Granted)
            for name in names:
                self.takes(name, wish)
        elif wait:
            assert isinstance(result, Queued)
            self.waiters.append(wish)
        else:
            assert isinstance(result, Held)

    def places(self, session):
        held = sum(one.session == session for name in NAMES for one in self.held[name])
        return held + sum(len(one.names) for one in self.waiters if one.session == session)

    def shares(self, session, name):
        return any(one.session == session and one.mode == "shared" for one in self.held[name])

    @rule(who=WHO, mode=MODES)
    def stand_in_one_line(self, who, mode):
        self.acquire(who, 0, ("a",), mode, wait=True)

    @rule(who=WHO, mode=MODES, names=NAME_SETS)
    def stand_in_lines(self, who, mode, names):
        self.acquire(who, 0, names, mode, wait=True)

    def anybody(self, data):
        """One that has something, or nobody."""
        everything = [*self.waiters[:1], *(wish for name in NAMES for wish in self.held[name])]
        return data.draw(st.sampled_from([wish.key for wish in everything] or [(self.sessions[0], 77)]))

    @rule(data=st.data(), how=st.sampled_from(["release", "release", "release", "cancel", "expire"]))
    def somebody_goes(self, data, how):
        if how == "release":
            self.release(self.anybody(data), data.draw(NAME_SETS))
        elif how == "cancel":
            self.cancel(self.anybody(data))
        else:
            self.expire(data.draw(st.sets(WHO, min_size=1, max_size=2)))

    def release(self, key, names):
        acquisition = key[1]
        has = self.has(key)
        touched = has is not None and any(name in names for name in has.names)
        waits = has in self.waiters
        touched = touched and (waits or any(wish.key == key for name in names for wish in self.held[name]))
        result = self.asking.ask(key[0], Release(names, acquisition))
        assert isinstance(result, NotHeld) != touched
        if touched:
            self.drop(lambda wish, name: wish.key == key and (name is None or name in names))

    def cancel(self, key):
        acquisition = key[1]
        has = self.has(key)
        name = next((n for n in NAMES if has and any(wish.key == key for wish in self.held[n])), None)
        name = name or (has.names[0] if has else "a")
        result = self.asking.ask(key[0], CancelAcquire(name, acquisition, 9_999))
        assert isinstance(result, NotHeld) == (has is None)
        self.drop(lambda wish, _: wish.key == key)

    def changeable(self):
        return [
            (name, wish)
            for name in NAMES
            for wish in self.held[name]
            if len(wish.names) == 1 and wish.mode != "counting"
        ]

    @precondition(lambda self: self.changeable())
    @rule(data=st.data(), up=st.booleans())
    def change_mode(self, data, up):
        name, wish = data.draw(st.sampled_from(self.changeable()))
        self.changes(name, wish, up=up)

    def changes(self, name, wish, *, up):
        key = wish.key
        acquisition = key[1]
        mine = [one for one in self.held[name] if one.session == key[0]]
        result = self.asking.ask(key[0], ChangeMode(name, acquisition, "exclusive" if up else "shared"))
        if not up and isinstance(result, commands.Failure):
            assert wish.mode == "exclusive"
            assert len(mine) > 1
        elif not up:
            assert isinstance(result, Granted)
            self.held[name] = [one._replace(mode="shared") if one.key == key else one for one in self.held[name]]
            if self.upgrading.get(name) == wish:
                del self.upgrading[name]
            self.settle()
        elif wish.mode == "exclusive":
            assert isinstance(result, Granted)
        elif isinstance(result, commands.Failure):
            assert len(mine) > 1
        elif isinstance(result, Granted):
            assert self.held[name] == [wish]
            self.held[name] = [wish._replace(mode="exclusive")]
            self.settle()
        elif isinstance(result, Queued):
            assert len(self.held[name]) > 1
            assert self.upgrading.get(name, wish) == wish
            self.upgrading[name] = wish
        else:
            assert isinstance(result, Deadlock)
            assert result.cycle[0] == LockWait(wish.session, name)
            assert len(self.held[name]) > 1

    def expire(self, which):
        ended = {self.sessions[one] for one in which}
        self.asking.node(ExpireSessions(tuple(sorted(ended, reverse=True))))
        self.drop(lambda wish, _: wish.session in ended)
        for one in which:
            self.sessions[one] = self.asking.open()

    @rule()
    def restore(self):
        events = self.asking.machine.events
        self.asking.machine = restored(self.asking.machine)
        self.asking.machine.events = events

    # --- histories that chance would seldom make --------------------------------------------------

    def anew(self, who, *wishes):
        """Nobody has anything; then these sessions ask, one after the other."""
        self.expire({*range(SESSIONS)})
        for one, (names, mode) in zip(who, wishes, strict=False):
            self.acquire(one, 0, names, mode, wait=True, reentrant=False)
        self.holders_and_lines_are_those_of_the_model()

    @rule(who=WHOEVER, expires=st.booleans())
    def one_that_waits_to_hold_it_alone_goes(self, who, expires):
        self.anew(who, (("a",), "shared"), (("a",), "shared"))
        upgrades = self.held["a"][0]
        self.changes("a", upgrades, up=True)
        if expires:
            self.expire({who[0]})
        else:
            self.release(upgrades.key, ("a",))
        self.acquire(who[2], 0, ("a",), "shared", wait=True)

    @rule(who=WHOEVER)
    def one_holds_it_alone_at_last(self, who):
        self.anew(who, (("a",), "shared"), (("a",), "shared"))
        upgrades, other = self.held["a"]
        self.changes("a", upgrades, up=True)
        self.acquire(who[2], 0, ("a",), "shared", wait=True)
        self.restore()
        self.release(other.key, ("a",))

    @rule(who=WHOEVER)
    def those_that_share_go_in_together(self, who):
        self.anew(who, (("a",), "exclusive"), (("a",), "shared"), (("a",), "shared"))
        self.release(self.held["a"][0].key, ("a",))

    @rule(who=WHOEVER)
    def one_that_leaves_the_line_lets_in_who_is_behind_it(self, who):
        self.anew(who, (("a",), "shared"), (("a",), "exclusive"), (("a",), "shared"))
        self.release(self.waiters[0].key, ("a",))

    @rule(who=WHOEVER)
    def one_takes_back_all_that_it_took(self, who):
        self.anew(who, (("a", "b"), "exclusive"))
        self.cancel(self.held["a"][0].key)

    @rule(who=WHOEVER)
    def one_of_two_names_is_free(self, who):
        self.anew(who, (("a",), "exclusive"), (("b",), "exclusive"), (("a", "b"), "exclusive"))
        self.release(self.held["a"][0].key, ("a",))

    @rule(who=WHOEVER)
    def one_more_than_are_counted(self, who):
        self.anew(who, *[(("a",), "counting")] * (LIMIT + 1))

    @rule(who=WHOEVER)
    def one_that_lets_go_moves_two_lines(self, who):
        self.anew(who, (("a",), "exclusive"), (("a", "b"), "shared"), (("b",), "shared"))
        self.release(self.held["a"][0].key, ("a",))

    @rule(who=WHOEVER, mode=st.sampled_from(["exclusive", "shared"]))
    def one_that_holds_one_of_two_passes_its_line(self, who, mode):
        self.anew(who, (("a",), mode), (("b",), "exclusive"), (("a",), "exclusive"))
        self.acquire(who[0], 1, ("a", "b"), mode, wait=True, reentrant=True)
        self.acquire(who[3], 0, ("b",), "shared", wait=True)
        self.restore()
        self.release(self.held["b"][0].key, ("b",))
        assert len(self.held["a"]) == 2

    @rule(who=WHOEVER, mode=st.sampled_from(["exclusive", "shared"]))
    def one_that_comes_to_hold_a_name_lets_in_what_it_waits_for_itself(self, who, mode):
        self.anew(who, (("a",), "exclusive"), (("a",), mode), (("a",), "exclusive"))
        self.acquire(who[1], 1, ("a", "b"), mode, wait=True, reentrant=True)
        self.restore()
        self.release(self.held["a"][0].key, ("a",))
        assert len(self.held["a"]) == 2

    @rule(who=WHOEVER)
    def one_that_comes_to_share_lets_in_who_waits(self, who):
        self.anew(who, (("a",), "exclusive"), (("a",), "shared"))
        self.changes("a", self.held["a"][0], up=False)

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def holders_and_lines_are_those_of_the_model(self):
        for name in NAMES:
            state = self.asking.query(GetLockState(name))
            held = [(grant.holder.session, grant.holder.acquisition) for grant in state.holders]
            assert sorted(held) == sorted(wish.key for wish in self.held[name])
            line = [(waiter.holder.session, waiter.holder.acquisition) for waiter in state.waiters]
            assert line == [wish.key for wish in self.waiters if name in wish.names][:LISTED_MAX]
            if held:
                assert {wish.mode for wish in self.held[name]} == {state.mode}
                # A session that is re-entrant holds it several times.
                assert state.mode != "exclusive" or len({session for session, _ in held}) == 1
                assert state.mode != "counting" or len(held) <= LIMIT
                assert state.token >= max(grant.token for grant in state.holders)
                assert state.token >= self.tokens[name]
                self.tokens[name] = state.token
        assert self.asking.machine.waiting == sum(len(wish.names) for wish in self.waiters)

    @invariant()
    def each_grant_is_told_by_a_token_that_only_grows(self):
        told: dict[str, int] = {}
        for event in self.asking.machine.events:
            if isinstance(event, GrantMade):
                assert event.token >= told.get(event.name, 0)
                told[event.name] = event.token


TestLocksOfAllModes = pytest.mark.interpreted(LocksOfAllModes.TestCase)
TestLocksOfAllModes.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
