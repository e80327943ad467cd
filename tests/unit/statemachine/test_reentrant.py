"""A re-entrant acquisition that waits passes the line of what its session holds, whenever it comes to hold it."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, Done, ExpireSessions, Granted, Queued
from coordinator.statemachine.events import GrantMade
from coordinator.statemachine.lock_commands import Broken, ChangeMode, Deadlock, ForceRelease, HandOver
from tests.unit.statemachine.derived import restored
from tests.unit.statemachine.taking import Locking

S, T, U, V = range(4)


def behind_one_that_waits_for_it(mode: str = "exclusive") -> Locking:
    """S holds a, U holds b, T waits for a; S wants both."""
    locks = Locking()
    locks.take(S, "a", mode=mode)
    locks.take(U, "b")
    assert locks.take(T, "a") == Queued(1)
    assert locks.take(S, "a", "b", acquisition=2, mode=mode, reentrant=True) == Queued(2)
    return locks


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_of_several_names_it_is_first_in_line_of_those_alone_that_its_session_does_not_hold(mode):
    locks = behind_one_that_waits_for_it(mode)
    locks.machine = restored(locks.machine)
    locks.drop(U, "b")
    assert (locks.holding("a"), locks.waiting("a")) == ([S, S], [T])
    assert (locks.holding("b"), locks.waiting("b")) == ([S], [])
    assert isinstance(locks.take(S, "a", "b", acquisition=2, mode=mode, reentrant=True), Granted)
    locks.drop(S, "a")
    assert locks.holding("a") == [S]
    locks.drop(S, "a", "b", acquisition=2)
    assert (locks.holding("a"), locks.holding("b")) == ([T], [])


def test_it_does_not_pass_the_line_of_what_its_session_does_not_hold():
    locks = behind_one_that_waits_for_it()
    locks.take(V, "b")
    locks.drop(S, "a")
    locks.drop(U, "b")
    assert (locks.holding("a"), locks.waiting("a")) == ([T], [S])
    assert (locks.holding("b"), locks.waiting("b")) == ([], [S, V])


def test_it_passes_the_line_when_its_session_is_let_in_before_it():
    locks = Locking()
    locks.take(U, "a")
    locks.take(S, "a")
    locks.take(T, "a")
    locks.take(S, "a", acquisition=2, reentrant=True, refuse_deadlocks=False)
    locks.drop(U, "a")
    assert (locks.holding("a"), locks.waiting("a")) == ([S, S], [T])


def test_and_when_the_name_is_handed_over_to_its_session():
    locks = Locking()
    locks.take(U, "a")
    locks.take(T, "a")
    locks.take(S, "a", acquisition=2, reentrant=True)
    assert isinstance(locks.ask(locks.sessions[U], HandOver("a", 1, locks.sessions[S], 7)), Done)
    assert (locks.holding("a"), locks.waiting("a")) == ([S, S], [T])
    grants = [event for event in locks.machine.events if isinstance(event, GrantMade)]
    assert [(event.session, event.acquisition) for event in grants] == [(locks.sessions[S], 7), (locks.sessions[S], 2)]


@pytest.mark.parametrize("alone", [True, False])
def test_and_when_its_session_holds_alone_what_it_shared(alone):
    """Exclusive and shared do not go together; S's upgrade makes it so, at once or when V has let go."""
    locks = Locking()
    locks.take(S, "a")
    locks.take(U, "b")
    locks.take(T, "a")
    assert isinstance(locks.take(S, "a", "b", acquisition=2, reentrant=True), Queued)
    locks.ask(locks.sessions[S], ChangeMode("a", 1, "shared"))
    if not alone:
        locks.ask(locks.sessions[T], CancelAcquire("a", 1, 1))
        assert isinstance(locks.ask(locks.sessions[S], ChangeMode("a", 1, "exclusive")), Granted)
        locks.ask(locks.sessions[S], ChangeMode("a", 1, "shared"))
    locks.drop(U, "b")
    assert locks.holding("b") == []
    assert isinstance(locks.ask(locks.sessions[S], ChangeMode("a", 1, "exclusive")), Granted)
    assert locks.holding("a") == locks.holding("b") * 2 == [S, S]


def test_a_place_that_is_taken_over_stays_re_entrant():
    locks = Locking()
    locks.take(U, "a")
    locks.take(T, "a")
    locks.take(S, "a", acquisition=2, reentrant=True)
    assert locks.ask(locks.sessions[S], AcquireLock("a", 3, wait=True, take_over=True)) == Queued(2)
    locks.ask(locks.sessions[U], HandOver("a", 1, locks.sessions[S], 7))
    assert [grant.holder.acquisition for grant in locks.state("a").holders] == [7, 3]
    assert not locks.machine.sessions[locks.sessions[S]].reentrant


def test_who_waits_for_its_session_is_not_waited_for():
    """T waits for S, and S for U alone: T may wait for something else that S holds."""
    locks = behind_one_that_waits_for_it()
    locks.take(S, "c", acquisition=3)
    assert isinstance(locks.take(T, "c", acquisition=2), Queued)
    assert isinstance(locks.take(U, "a", acquisition=2), Deadlock), "U holds b, for which S waits"


def test_many_that_wait_for_their_own_session_are_let_in_by_one_entry():
    locks = Locking()
    locks.take(U, "a")
    locks.take(S, "a")
    locks.take(T, "a")
    for number in range(2, 2_002):
        locks.take(S, "a", acquisition=number, reentrant=True, refuse_deadlocks=False)
    locks.node(ExpireSessions((locks.sessions[U],)))
    assert (locks.state("a").holding, locks.waiting("a")) == (2_001, [T])


# --- broken by force ------------------------------------------------------------------------------


def test_who_lost_one_of_several_names_by_force_is_told_so_when_it_asks_again():
    """It was told that its acquisition is one of other names."""
    locks = Locking()
    locks.take(S, "a", "b")
    locks.ask(locks.open("web"), ForceRelease("a", "it hangs"), "web")
    again = locks.take(S, "a", "b")
    assert isinstance(again, Broken)
    assert (again.broken.name, again.broken.reason) == ("a", "it hangs")
    assert locks.holding("b") == [S], "what it has still, it lets go by itself"
    assert isinstance(locks.take(S, "b", "c"), commands.Failure)
    assert locks.drop(S, "a", "b") == Done(locks.index, existed=True)
    assert isinstance(locks.drop(S, "a", "b"), Broken)
    assert isinstance(locks.take(S, "a", "b"), Granted), "as of one name"
