"""The wanted membership in the log: its generation grows by one, and whoever is behind is told so."""

from __future__ import annotations

import msgspec

from coordinator.statemachine import commands, snapshot, snapshot_v1
from coordinator.statemachine.commands import Done, Failure, GetWantedMembership, SetWantedMembership
from coordinator.statemachine.machine import Machine
from tests.unit.statemachine.asking import Asking


def say(asking: Asking, session: int, generation: int, wanted: bytes = b"{}", principal: str = "web"):
    return asking.ask(session, SetWantedMembership(generation, wanted), principal)


def test_generations_follow_one_another_and_a_database_that_is_behind_is_refused():
    asking = Asking()
    session = asking.open("web")
    assert asking.query(GetWantedMembership(), "web") == commands.WantedMembershipView(0, b"")
    assert say(asking, session, 1, b"a") == Done(asking.index)
    assert say(asking, session, 1, b"a").existed, "said again"
    assert say(asking, session, 2, b"b") == Done(asking.index)
    for generation, wanted in ((1, b"a"), (2, b"other"), (4, b"c"), (0, b"")):
        refused = say(asking, session, generation, wanted)
        assert isinstance(refused, Failure)
        assert refused.code == commands.REFUSED
        assert "the log holds generation 2" in refused.message
    assert asking.query(GetWantedMembership(), "web") == commands.WantedMembershipView(2, b"b")


def test_it_takes_the_right_to_administer():
    asking = Asking()
    session = asking.open()
    assert say(asking, session, 1, principal="ci").code == commands.FORBIDDEN
    assert asking.query(GetWantedMembership(), "ci").code == commands.FORBIDDEN


def test_a_snapshot_carries_it_and_an_older_snapshot_has_none():
    asking = Asking()
    say(asking, asking.open("web"), 1, b"a")
    restored = Machine()
    data = snapshot.dump(asking.machine)
    snapshot.load(restored, data)
    assert restored.wanted == (1, b"a")
    assert restored.digest() == asking.machine.digest()
    older = snapshot_v1.State(1, 7, "default", 1, 5, [], [], [], [], (1, b"a"))
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(older))
    snapshot.load(restored, msgspec.msgpack.encode(fields))
    assert restored.wanted == (1, b"a")
    snapshot.load(restored, msgspec.msgpack.encode(fields[:9]))
    assert restored.wanted == (0, b"")


def test_it_has_a_bound():
    asking = Asking()
    too_long = b"x" * (commands.WANTED_BYTES_MAX + 1)
    assert say(asking, asking.open("web"), 1, too_long).code == commands.INVALID
