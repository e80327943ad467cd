"""A cancel undoes an acquire of several names whatever became of it: also where one of them is gone already."""

from __future__ import annotations

import pytest

from coordinator.statemachine.commands import CancelAcquire, Done
from coordinator.statemachine.lock_commands import ForceRelease
from tests.unit.statemachine.taking import Locking


@pytest.mark.parametrize("named", ["a", "b"])
@pytest.mark.parametrize("how", ["by force", "by itself"])
def test_a_cancel_gives_back_the_names_that_are_left_whichever_of_them_it_names(named, how):
    """It looked under the one name that it says, found nothing there, and left the other held: whoever waited for that
    waited for as long as a session lives that believes to hold nothing."""
    locks = Locking()
    web = locks.open("web")
    locks.take(0, "a", "b")
    if how == "by force":
        locks.ask(web, ForceRelease("a", "stuck"), "web")
    else:
        locks.drop(0, "a")
    locks.take(1, "b")
    result = locks.ask(locks.sessions[0], CancelAcquire(named, 1, number=999))
    assert result == Done(locks.index, existed=True)
    assert locks.holding("b") == [1]
