"""Ends of sessions, and what was under way before them: judged rightly, at a cost that grows with what they name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.replica import in_flight
from coordinator.replica.caching import LEASE_MS, Caching
from coordinator.replica.callers import Caller
from coordinator.replica.proposals import Asked
from coordinator.replica.touched import Touched
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.files import BeginCaching, CreateFile, ReadFile
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import WEB, Stage
from tests.unit.replica.test_caching import Reader, caching_of, keeps
from tests.unit.statemachine.asking import Asking

READER = Caller("reader", WEB.token_id, WEB.key)
LEASE_US = LEASE_MS * 1_000


class Leader:
    """A leadership's caching over a real state machine; what is let go becomes an entry, applied when the test says."""

    def __init__(self) -> None:
        self.log = Asking()
        self.waiting: list[Callable[[], Any]] = []
        self.caching = Caching(self.log.machine, 0, self.log.index, LEASE_MS, 1)
        self.caching.applied(self.log.index)
        self.now_us = 0
        self.numbers = 0

    @property
    def machine(self) -> Machine:
        return self.log.machine

    @property
    def last_index(self) -> int:
        return self.log.index + len(self.waiting)

    def turn(self, *asked: tuple[int, commands.ClientOp]) -> int:
        """A turn that proposes these; how many were let go."""
        self.now_us += 1_000
        caching = self.caching
        caching.pass_time(self.now_us, self.last_index)
        ops = list(asked)
        if not caching.is_idle:
            self.numbers += 1
            all_asked = [
                Asked(READER, 1_000 * self.numbers + place, op, session, 0) for place, (session, op) in enumerate(asked)
            ]
            ops = [(one.session, one.op) for one in caching.take(all_asked, [b"x"] * len(all_asked)).asked]
        for session, op in ops:
            self.waiting.append(lambda session=session, op=op: self.log.ask(session, op))  # type: ignore[misc]
        caching.proposed(self.last_index)
        return len(ops)

    def expire(self, *sessions: int) -> list[int]:
        """A turn in which their leases have run out; those that may be proposed."""
        self.now_us += 1_000
        self.caching.pass_time(self.now_us, self.last_index)
        ended = self.caching.lets_end(sessions)
        if ended:
            self.waiting.append(lambda: self.log.node(commands.ExpireSessions(tuple(ended))))
        self.caching.proposed(self.last_index)
        return ended

    def apply(self, count: int = 1) -> None:
        for _ in range(count):
            before = {*self.machine.sessions}
            self.waiting.pop(0)()
            for session in before - {*self.machine.sessions}:
                self.caching.ended(session)
        self.caching.applied(self.log.index)

    def allows(self, session: int, path: str) -> bool:
        return self.caching.allow(session, READER, path) is not None

    def caches(self) -> int:
        """A session whose client may keep what it reads."""
        session = self.log.open()
        self.log.ask(session, BeginCaching())
        self.caching.applied(self.log.index)
        self.caching.pass_time(self.now_us, self.log.index)
        return session


@pytest.fixture
def leader() -> Leader:
    return Leader()


def everything_of(caching: Caching) -> list[Touched]:
    flight = caching._in_flight
    return [*flight._fresh, *(touched for _, touched in (*flight._pending, *flight._behind))]


CREATE = CreateFile("e", b"", ephemeral=True)
CLOSE = commands.CloseSession()


def test_what_was_proposed_unseen_may_be_what_goes_with_a_session(leader):
    """The first client begins to cache while a create is in flight, and the creator ends before that is applied."""
    reader, maker = leader.log.open(), leader.log.open()
    leader.turn((reader, BeginCaching()), (maker, CREATE))
    leader.apply()
    assert leader.turn((maker, CLOSE)) == 1
    leader.apply()
    assert "e" in leader.machine.keys
    assert not leader.allows(reader, "e"), "it is about to go, and the end did not name it"
    leader.apply()
    assert "e" not in leader.machine.keys
    assert leader.allows(reader, "e")


def test_what_was_proposed_unseen_may_have_taken_several_names(leader):
    """Letting go of one of them may let in who waits for both."""
    reader, holder, waiter = leader.log.open(), leader.log.open(), leader.log.open()
    leader.log.ask(holder, lock_commands.Acquire(("a",), 1))
    leader.log.ask(holder, commands.PutKey("b", b""))
    leader.turn((reader, BeginCaching()), (waiter, lock_commands.Acquire(("a", "b"), 1)))
    leader.apply()
    leader.turn((holder, lock_commands.Release(("a",), 1)))
    leader.apply()
    assert not leader.allows(reader, "b"), "its stat is about to show another lock generation"


def test_what_an_end_could_not_name_is_in_flight_until_the_end_is_applied(leader):
    """The create is applied and the end is not: what was created is still about to go."""
    reader, maker = leader.caches(), leader.log.open()
    leader.turn((maker, CREATE))
    leader.turn((maker, CLOSE))
    assert not leader.allows(reader, "e")
    leader.apply()
    assert "e" in leader.machine.keys
    assert not leader.allows(reader, "e")
    leader.apply()
    assert leader.allows(reader, "e")
    assert not everything_of(leader.caching)


def test_so_it_is_for_an_expiry_and_for_what_is_made_under_a_name_with_digits(leader):
    reader, maker = leader.caches(), leader.log.open()
    leader.turn((maker, CreateFile("s", b"", ephemeral=True, sequential=True)))
    assert leader.expire(maker) == [maker]
    leader.apply()
    (path,) = leader.machine.keys
    assert not leader.allows(reader, path)
    leader.apply()
    assert leader.allows(reader, path)


def test_what_was_applied_before_an_end_was_proposed_does_not_stay_in_flight(leader):
    """Else ends that follow one another would keep all of it for ever."""
    leader.caches()
    sessions = [leader.log.open() for _ in range(20)]
    for session in sessions:
        leader.turn((session, commands.PutKey(f"k{session}", b"")))
        leader.expire(session)
        while len(leader.waiting) > 1:
            leader.apply()
        assert len(everything_of(leader.caching)) <= 4


def test_ends_behind_a_command_with_a_prefix_do_not_double_it(leader):
    """A host with 40 clients dies, and a sequential create is in flight."""
    reader, maker = leader.caches(), leader.log.open()
    sessions = [leader.log.open() for _ in range(40)]
    leader.turn((maker, CreateFile("s", b"", sequential=True)), *((session, CLOSE) for session in sessions[:20]))
    assert leader.expire(*sessions[20:]) == sessions[20:]
    assert not leader.allows(reader, "s0000000000000000001")
    assert len(everything_of(leader.caching)) == 41
    assert all(len(touched.prefixes) <= 1 for touched in everything_of(leader.caching))


def test_a_transaction_names_a_prefix_once(leader):
    leader.caches()
    maker = leader.log.open()
    leader.turn((maker, commands.Transact((), tuple(CreateFile("s", b"", sequential=True) for _ in range(8)))))
    (touched,) = everything_of(leader.caching)
    assert touched.prefixes == ("s",)


def test_so_a_leader_outlives_the_end_of_many(stage_of_one_that_caches):
    """The whole of it: one that caches, 40 that have died, a sequential create under way."""
    stage, reader = stage_of_one_that_caches
    dying = [Reader(stage, begins=False) for _ in range(40)]
    stage.cut = {"node2", "node3"}
    assert reader.does(CreateFile("s", b"", sequential=True)) is None
    for one in dying:
        assert one.does(CLOSE) is None
    found = everything_of(caching_of(stage.nodes["node1"]))
    assert len(found) == 41
    assert max(len(touched.prefixes) for touched in found) == 1
    stage.cut = set()
    stage.pass_time(200_000)
    assert not {one.session for one in dying} & {*stage.nodes["node1"].replica.machine.sessions}


@pytest.fixture
def stage_of_one_that_caches() -> tuple[Stage, Reader]:
    stage = Stage()
    stage.elect("node1")
    stage.pass_time(100_000)
    reader = Reader(stage)
    keeps(reader, ReadFile("elsewhere"))
    return stage, reader


def work_of(count: int, *, held: bool) -> tuple[int, int]:
    """Calls, and strings in sets, that it takes to let so many sessions end that have a file each; where it is `held`,
    to look again at those that wait."""
    leader = Leader()
    reader = leader.caches()
    sessions = [leader.log.open() for _ in range(count)]
    for session in sessions:
        leader.log.ask(session, CreateFile(f"d/{session}", b"", ephemeral=True, parents=True))
    leader.caching.applied(leader.log.index)
    if held:
        assert leader.allows(reader, "d")
        assert leader.expire(*sessions) == []
    calls = 0

    def count_calls(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count_calls)
    try:
        leader.expire(*sessions)
    finally:
        sys.setprofile(None)
    return calls, sum(len(touched.paths) for touched in everything_of(leader.caching))


@pytest.mark.parametrize("held", [False, True])
def test_a_thousand_ends_cost_a_thousand_times_one(held):
    few_calls, few_strings = work_of(200, held=held)
    many_calls, many_strings = work_of(2_000, held=held)
    assert many_calls < 12 * few_calls
    assert many_strings == 10 * few_strings == (0 if held else 4_000)


@pytest.mark.interpreted
def test_ends_that_touch_everything_look_once_at_what_is_kept(leader, monkeypatch):
    """Behind something of several names, each of them does."""
    reader = leader.caches()
    for number in range(300):
        assert leader.allows(reader, f"k{number}")
    sessions = [leader.log.open() for _ in range(50)]
    leader.caching.applied(leader.log.index)
    leader.turn((leader.log.open(), lock_commands.Acquire(("a", "b"), 1)))
    looked = 0
    tell_holder = Caching._tell_holder

    def counted(self: Caching, holder: Any, paths: list[str]) -> Any:
        nonlocal looked
        looked += len(paths)
        return tell_holder(self, holder, paths)

    monkeypatch.setattr(Caching, "_tell_holder", counted)
    assert leader.expire(*sessions) == []
    assert looked == 300


def test_an_end_that_waits_goes_when_its_file_is_dropped(leader):
    reader, maker, other = leader.caches(), leader.log.open(), leader.log.open()
    leader.log.ask(maker, CREATE)
    leader.caching.applied(leader.log.index)
    kept = leader.caching.allow(reader, READER, "e")
    assert kept is not None
    assert leader.expire(maker, other) == [other]
    assert leader.expire(maker) == []
    assert not leader.allows(leader.caches(), "e"), "it is about to go"
    leader.caching.dropped(reader, READER, kept[0], kept[1] + 1)
    assert leader.expire(maker) == [maker]


def test_what_waits_and_comes_no_more_is_about_to_change_no_longer(leader):
    """A session that was thought silent is heard again."""
    reader, maker = leader.caches(), leader.log.open()
    leader.log.ask(maker, CREATE)
    leader.caching.applied(leader.log.index)
    kept = leader.caching.allow(reader, READER, "e")
    assert kept is not None
    assert leader.expire(maker) == []
    leader.caching.dropped(reader, READER, kept[0], kept[1] + 1)
    assert not leader.allows(reader, "e")
    for _ in range(1_200):
        leader.turn()
    assert leader.allows(reader, "e")


def test_marks_count():
    marks = in_flight.Marks()
    one = Touched(frozenset("a"), ("p",), ended=(3,))
    for _ in range(3):
        marks.add(one)
    for _ in range(2):
        marks.remove(one)
        assert marks.hold(0, "a")
        assert marks.hold(0, "pq")
        assert marks.hold(3, "z")
        assert not marks.hold(0, "z")
    marks.remove(one)
    assert not any(marks.hold(session, path) for session, path in ((0, "a"), (0, "pq"), (3, "z")))


def test_what_may_take_several_names_is_wide_until_it_is_applied():
    flight = in_flight.InFlight()
    for last_index in (5, 7):
        flight.add(Touched(of_several=True))
        flight.proposed(last_index)
    flight.applied(6)
    assert flight.is_wide
    flight.applied(7)
    assert not flight.is_wide
