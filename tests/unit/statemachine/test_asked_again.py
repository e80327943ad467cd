"""An acquisition asks again, for names that it had asked for one by one, or that were taken from it meanwhile."""

from __future__ import annotations

from coordinator.statemachine import commands
from coordinator.statemachine.commands import Granted, Queued
from coordinator.statemachine.lock_commands import ForceRelease
from tests.unit.statemachine.taking import Locking


def test_names_that_an_acquisition_asked_for_one_by_one_are_granted_only_when_it_has_all():
    """Its number is the caller's to choose, over HTTP too; somebody else holds what it waits for."""
    locks = Locking()
    locks.take(1, "b")
    assert isinstance(locks.take(0, "a"), Granted)
    assert locks.take(0, "b") == Queued(1)
    assert locks.take(0, "a", "b") == Queued(1)
    held = locks.take(0, "a", "b", wait=False)
    assert held.holder.session == locks.sessions[1]
    locks.drop(1, "b")
    assert locks.take(0, "a", "b") == Granted(locks.state("b").token)


def test_who_stands_in_line_is_told_its_place_however_the_name_is_held_meanwhile():
    """Else it is told that it may not ask, and is let in later with nobody knowing."""
    locks = Locking()
    locks.take(1)
    locks.take(2, mode="counting", limit=2)
    locks.take(0, mode="counting", limit=3)
    locks.take(0, mode="shared", acquisition=2)
    locks.take(0, reentrant=True, acquisition=3)
    locks.drop(1)
    assert locks.take(3, mode="counting", limit=3).code == commands.INVALID, "it has no place in line"
    assert locks.take(0, mode="counting", limit=3) == Queued(1)
    locks.drop(2)
    locks.drop(0)
    assert locks.holding() == [0]
    assert locks.take(0, reentrant=True, acquisition=3) == Queued(1)
    assert locks.take(0, reentrant=True, acquisition=4).code == commands.INVALID, "neither has that one"


def test_who_asks_again_for_several_names_is_told_the_place_that_is_furthest_back():
    locks = Locking()
    locks.take(1, "a")
    locks.take(1, "b")
    locks.take(2, "b")
    assert locks.take(0, "a", "b") == locks.take(0, "a", "b") == Queued(2)


def test_of_a_name_that_it_has_again_nobody_is_told_that_it_was_taken_by_force():
    """What it lacks is another, which it let go of itself."""
    locks = Locking()
    locks.take(0, "a", "b")
    locks.ask(locks.open("web"), ForceRelease("a", "stuck"), "web")
    locks.drop(0, "b")
    assert isinstance(locks.take(0, "a", "b"), Granted)
    locks.drop(0, "b")
    assert locks.take(0, "a", "b").code == commands.INVALID


def test_what_one_of_several_names_refuses_is_told_in_whichever_order_they_come():
    locks = Locking()
    locks.take(1, "b")
    for held, waited_for, acquisition in (("a", "b", 1), ("c", "b", 2)):
        assert isinstance(locks.take(0, held, mode="shared", acquisition=acquisition), Granted)
        assert isinstance(locks.take(0, waited_for, acquisition=acquisition), Queued)
        assert locks.take(0, held, waited_for, acquisition=acquisition).code == commands.INVALID
