"""What the log knows of caching: whose client may keep what it reads."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import Done, Failure, PutKey
from coordinator.statemachine.files import BeginCaching
from coordinator.statemachine.snapshot import SnapshotDamaged
from coordinator.statemachine.snapshot_items import CachingItem
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.test_snapshot import loaded, restored


def test_a_session_is_marked_until_it_ends():
    asking = Asking()
    first, second, third = asking.open(), asking.open(), asking.open()
    assert [asking.ask(first, BeginCaching()).existed for _ in range(2)] == [False, True]
    asking.ask(second, BeginCaching())
    asking.ask(third, BeginCaching())
    assert asking.machine.state.caching == {first, second, third}
    asking.ask(first, commands.CloseSession())
    asking.node(commands.ExpireSessions((second,)))
    assert asking.machine.state.caching == {third}
    assert restored(asking.machine).state.caching == {third}


@pytest.mark.parametrize("level", [1, 2, 3])
def test_below_its_level_it_is_refused_and_nothing_of_it_is_kept(level):
    """A replica of that level can not even read it."""
    asking = Asking(level)
    session = asking.open()
    before = snapshot.dump(asking.machine)
    refused = asking.send(session, 1, BeginCaching(), acked=1)
    assert isinstance(refused, Failure)
    assert refused.code == commands.INVALID
    asking.machine.state.applied -= 1
    assert snapshot.dump(asking.machine) == before
    asking.machine.state.applied += 1
    assert isinstance(asking.send(session, 1, PutKey("a", b"")), Done)


def test_a_snapshot_that_marks_a_session_that_is_not_there_is_damaged(monkeypatch):
    asking = Asking()
    session = asking.open()
    asking.ask(session, BeginCaching())
    monkeypatch.setattr("coordinator.statemachine.snapshot_items.CachingItem", lambda number: CachingItem(number + 1))
    with pytest.raises(SnapshotDamaged, match="not there"):
        loaded(snapshot.dump(asking.machine))
