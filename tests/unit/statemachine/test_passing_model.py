"""How holds pass on, against a model: what is asked for here, `passing.py` asks and judges."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.statemachine.commands import SESSION_GONE, AcquireLock, CloseSession, ReleaseLock
from coordinator.statemachine.lock_commands import Release
from tests.unit.statemachine.holds import Wish
from tests.unit.statemachine.passing import NAMES, NARROW, PLACES, SESSIONS, Passing

NAME = st.sampled_from([*NAMES, "a"])
NAME_SETS = st.sampled_from([("a",), ("a",), ("a",), ("b",), ("build/c",), ("a", "b"), ("a", "build/c")])
MODES = st.sampled_from(["exclusive", "exclusive", "shared"])
DELAYS = st.sampled_from([0, 0, 1_000, 5_000])
WHO = st.integers(0, SESSIONS - 1)
WHOEVER = st.permutations(range(NARROW))
OFTEN = st.sampled_from([True, True, True, False])
PLACES_OF_HEIRS = [
    "none",
    "plain",
    "some",
    "twice",
    "joins",
    "joins both",
    "full",
    "full but for it",
    "itself",
    "held twice",
]


class HoldsPassOn(Passing, RuleBasedStateMachine):
    # --- asked for, let go ------------------------------------------------------------------------

    @rule(who=WHO, names=NAME_SETS, mode=MODES, wait=OFTEN, reentrant=st.booleans(), delay_ms=DELAYS)
    def acquire(self, who, names, mode, wait, reentrant, delay_ms):
        wish = Wish(self.sessions[who], self.another(), names, mode, reentrant, delay_ms)
        self.asks(wish, wait=wait)

    def anybody(self, data):
        """The holder of something, or one that waits, or one that lost something, or nobody."""
        keys = [*(wish.key for wish in self.everything()), *self.lost]
        return data.draw(st.sampled_from(keys or [(self.sessions[1], 0)]))

    @rule(data=st.data(), wait=st.booleans())
    def somebody_asks_again(self, data, wait):
        wishes = [*self.everything(), *(wish for lost in self.lost.values() for wish, _ in lost.values())]
        if wishes:
            self.asks_again(data.draw(st.sampled_from(wishes)), wait=wait)

    @rule(data=st.data(), names=NAME_SETS, plain=st.booleans())
    def release(self, data, names, plain):
        key = self.anybody(data)
        names = names[:1] if plain else names
        op = ReleaseLock(names[0], key[1]) if plain else Release(names, key[1])
        self.lets_go(key, names, self.ask(key[0], op))

    @rule(who=WHO, name=NAME)
    def release_the_first(self, who, name):
        self.lets_go_of_the_first(who, name)

    @rule(data=st.data())
    def cancel(self, data):
        self.cancels(self.anybody(data))

    @rule(data=st.data())
    def another_principal_asks_for_it(self, data):
        """Nothing comes of it."""
        session, acquisition = self.anybody(data)
        principal = "ci" if session == self.sessions[NARROW] else "narrow"
        op = data.draw(
            st.sampled_from(
                [
                    Release(("build/c",), acquisition, session),
                    AcquireLock("build/c", acquisition, wait=True, owner=session, take_over=True),
                    CloseSession(session),
                ]
            )
        )
        result = self.asking.ask(self.desks[principal], op, principal)
        assert result.code == SESSION_GONE

    # --- taken over -------------------------------------------------------------------------------

    @rule(who=WHO, name=NAME, wait=st.booleans())
    def take_over(self, who, name, wait):
        self.takes_over(who, name, wait=wait)

    # --- changed ----------------------------------------------------------------------------------

    @rule(data=st.data(), name=NAME, up=st.booleans())
    def change_mode(self, data, name, up):
        if not self.model.held[name]:
            return
        hold = data.draw(st.sampled_from(self.model.held[name]))
        if hold.wish.names == (name,):
            self.changes(name, hold, up=up)

    # --- handed over ------------------------------------------------------------------------------

    @rule(data=st.data(), name=NAME, to=WHO, in_line=OFTEN)
    def hand_over(self, data, name, to, in_line):
        """To one that stands in line for it, or to any acquisition."""
        holds = [hold.wish.key for hold in self.model.held[name]]
        giver = data.draw(st.sampled_from(holds)) if holds else self.anybody(data)
        line = [wish.key for wish in self.model.line(name)]
        heir = data.draw(st.sampled_from(line)) if in_line and line else (self.sessions[to], self.another())
        self.hands_over(name, giver, heir)

    @rule(data=st.data(), name=NAME, how=st.sampled_from(["itself", "nobody", "negative", "gone"]))
    def hand_over_to_nobody(self, data, name, how):
        giver = self.anybody(data)
        to = {"itself": giver, "nobody": (999, 1), "negative": (self.sessions[1], -1), "gone": (self.asking.index, 1)}
        self.hands_over(name, giver, to[how])

    # --- taken by force ---------------------------------------------------------------------------

    @rule(name=NAME, one=st.one_of(st.none(), WHO), reason=st.sampled_from(["stuck", "stuck", "late", "", "x" * 513]))
    def force(self, name, one, reason):
        self.forced(name, one, reason)

    # --- died -------------------------------------------------------------------------------------

    @rule(which=st.sets(WHO, min_size=1, max_size=2), closed=st.sampled_from([False, False, True]))
    def somebody_ends(self, which, closed):
        if closed:
            self.ended([self.sessions[who] for who in sorted(which)], died=False)
        else:
            self.expire(sorted(which))

    @precondition(lambda self: self.model.delays)
    @rule(off=st.sampled_from([0, 0, 0, -1, 1]), data=st.data())
    def a_delay_ends(self, off, data):
        names = st.lists(st.sampled_from(sorted(self.model.delays)), min_size=1, unique=True)
        self.delays_end(data.draw(names), off)

    # --- histories that chance would seldom make --------------------------------------------------

    @rule(
        who=WHOEVER,
        delays=st.sampled_from([(5_000, 1_000), (1_000, 5_000), (1_000, 0)]),
        up=OFTEN,
        then=st.sampled_from(["die", "go", "force", "one"]),
        stays=OFTEN,
    )
    def one_that_shares_dies_and_then_another(self, who, delays, up, then, stays):
        first, second, third = who[:3]
        self.anew(
            (first, ("a",), "shared", delays[0], False),
            (second, ("a",), "shared", delays[1], False),
            (third, ("a",), "shared"),
        )
        holds = [*self.model.held["a"]]
        if up:
            self.changes("a", holds[2], up=True)
        self.asks(Wish(self.sessions[who[3]], self.another(), ("a",), "shared" if up else "exclusive"), wait=True)
        self.expire([first])
        if then == "die":
            self.expire([second])
        elif then == "go":
            self.lets_go_of(holds[1].wish, ("a",))
        else:
            self.forced("a", who[1] if then == "one" else None)
        self.all_is_as_in_the_model()
        if not up:
            self.asks(Wish(self.sessions[first], self.another(), ("a",), "shared"), wait=False)
        if not up and stays and self.model.hold(holds[2].wish.key, "a"):
            self.changes("a", holds[2], up=True)
        if not stays and self.model.hold(holds[2].wish.key, "a"):
            self.lets_go_of(holds[2].wish, ("a",))
        if "a" in self.model.delays:  # Unless it was ended by force.
            self.delays_end(["a"], off=-1)
            self.delays_end(["a"])

    @rule(
        who=WHOEVER,
        place=st.sampled_from(PLACES_OF_HEIRS),
        waits=OFTEN.map(lambda often: not often),
    )
    def one_gives_it_to_one_that_waits(self, who, place, waits):
        """`waits`: the heir waits for another name, that one in line holds."""
        giver, heir, third, fourth = who
        (gives, *_) = self.anew(
            (giver, ("a",), "exclusive", 1_000, False),
            (third, ("b",), "exclusive"),
            (fourth, ("build/c",), "exclusive"),
        )
        if waits:
            self.asks(Wish(self.sessions[heir], self.another(), ("b",)), wait=True)
        self.asks(Wish(self.sessions[fourth if place == "plain" else third], self.another(), ("a",)), wait=True)
        to = Wish(self.sessions[heir], self.another(), ("a", "b") if place == "some" else ("a",))
        if place == "held twice":
            self.asks(Wish(self.sessions[giver], self.another(), ("a",), reentrant=True), wait=True)
        if place not in ("none", "full", "itself"):
            self.asks(to, wait=True)
        for _ in range(PLACES if "full" in place else 0):
            self.asks(Wish(self.sessions[heir], self.another(), ("build/c",)), wait=True)
        if place == "twice":
            self.asks(Wish(self.sessions[heir], self.another(), ("a",)), wait=True)
        elif place == "joins":
            self.asks(Wish(self.sessions[heir], self.another(), ("a",), "shared", reentrant=True), wait=True)
        elif place == "joins both":
            self.asks(Wish(self.sessions[heir], self.another(), ("a", "build/c"), reentrant=True), wait=True)
        self.hands_over("a", gives.key, gives.key if place == "itself" else to.key)

    @rule(who=WHOEVER)
    def one_loses_it_twice(self, who):
        """The first time is forgotten, and the second is not."""
        (one, *_) = self.anew((who[0], ("a",), "exclusive"))
        self.forced("a", None)
        self.asks_again(one, wait=True)
        self.forced("a", who[0])
        for other in who[1:]:
            self.asks(Wish(self.sessions[other], self.another(), ("a",)), wait=True)
            self.forced("a", None)

    @rule(who=WHOEVER, again=st.booleans(), lets_go=st.booleans(), both=st.booleans())
    def one_loses_some_of_its_names(self, who, again, lets_go, both):
        (one, *_) = self.anew(
            (who[0], ("a", "b"), "exclusive"), (who[1], ("a",), "exclusive"), (who[2], ("b",), "shared")
        )
        self.forced("a", who[0])
        if both:
            self.forced("b", None)
        if again:
            self.asks_again(one, wait=True)
        if lets_go:
            self.lets_go_of(one, ("a", "b"))
        self.whoever_asks_is_told_where_it_stands()
        self.asks_again(one, wait=False)

    @rule(
        who=WHOEVER,
        what=st.sampled_from(["hold", "place", "shared place", "both", "shared", "several", "joined"]),
        wait=st.booleans(),
    )
    def one_takes_over_what_it_has(self, who, what, wait):
        self.anew(*[(who[1], ("a",), "exclusive")] * ("place" in what))
        mode = "shared" if "shared" in what else "exclusive"
        names = ("a", "b") if what == "several" else ("a",)
        old = Wish(self.sessions[who[0]], self.another(), names, mode, delay_ms=1_000)
        self.asks(old, wait=True)
        if what in ("both", "joined"):
            self.asks(replace(old, acquisition=self.another(), reentrant=what == "joined"), wait=True)
        self.asks(Wish(self.sessions[who[2]], self.another(), ("a",)), wait=True)
        self.takes_over(who[0], "a", wait=wait)
        self.all_is_as_in_the_model()
        if wait:
            self.lets_go_of(old, ("a",))
        else:
            self.expire([who[0]])

    @invariant()
    def the_model_is_right(self):
        self.holds_true()

    def teardown(self):
        self.ends()


TestHoldsPassOn = pytest.mark.interpreted(HoldsPassOn.TestCase)
TestHoldsPassOn.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=[*HealthCheck]
)


@pytest.mark.interpreted
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("place", PLACES_OF_HEIRS)
def test_a_hold_is_handed_over_as_in_the_model_wherever_the_heir_stands(place, waits):
    """Chance finds some of them late."""
    holds = HoldsPassOn()
    try:
        holds.one_gives_it_to_one_that_waits([0, 1, 2, 3], place, waits)
        holds.the_model_is_right()
    finally:
        holds.teardown()
