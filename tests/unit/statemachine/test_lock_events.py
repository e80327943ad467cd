"""Events of locks: who came to hold a name, and who asks for what is held; by revision, each once, for whoever reads.

What they are is in Chubby's paper, section 2.5: "lock acquired" and "conflicting request".
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.statemachine import commands, lock_events, snapshot
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, Failure, Queued, RaiseLevel, ReleaseLock
from coordinator.statemachine.files import Compacted
from coordinator.statemachine.lock_commands import (
    Acquire,
    ChangeMode,
    Deadlock,
    EndLockDelays,
    ForceRelease,
    HandOver,
    ListBreaks,
    LockEvent,
    LockEventPage,
    ReadLockEvents,
    ReadLockLives,
    Release,
)
from coordinator.statemachine.machine import Machine
from tests.unit.statemachine.asking import Asking
from tests.unit.statemachine.derived import restored

Brief = tuple[int, str, str, str, bool]


@pytest.fixture
def asking() -> Asking:
    return Asking()


def read(asking: Asking, query: ReadLockEvents, principal: str = "ci") -> LockEventPage:
    page = asking.machine.query(query, principal, lambda session: 0)
    assert isinstance(page, LockEventPage), page
    return page


def told(asking: Asking, since: int = 1, name: str = "a") -> list[Brief]:
    """Who, what, the name, the mode, and whether it waits."""
    return brief(read(asking, ReadLockEvents(name, since=since)).events)


def brief(events: Sequence[LockEvent]) -> list[Brief]:
    return [(event.holder.session, event.kind, event.name, event.mode, event.waits) for event in events]


def take(name: str = "a", mode: str = "exclusive", acquisition: int = 0, **options: object) -> Acquire:
    return Acquire((name,), acquisition, mode, **options)  # type: ignore[arg-type]


def test_a_grant_is_told_with_its_token_and_mode(asking: Asking):
    session = asking.open()
    asking.ask(session, AcquireLock("a", 0, wait=True))
    (event,) = read(asking, ReadLockEvents("a", since=1)).events
    assert (event.revision, event.kind, event.mode) == (asking.index, "acquired", "exclusive")
    assert (event.holder.session, event.holder.principal, event.waits) == (session, "ci", False)
    assert event.token == asking.machine.locks["a"].token


@pytest.mark.parametrize("waits", [True, False])
def test_whoever_holds_it_can_learn_who_asks_and_how(asking: Asking, waits: bool):
    holder, other = asking.open(), asking.open()
    asking.ask(holder, take())
    asking.ask(other, take(mode="shared", wait=waits))
    (event,) = read(asking, ReadLockEvents("a", since=1, acquired=False)).events
    assert (event.kind, event.holder.session, event.mode, event.waits) == ("conflict", other, "shared", waits)
    assert event.token == asking.machine.locks["a"].token, "the grant that is in its way"


def test_a_request_that_is_asked_again_is_told_once(asking: Asking):
    holder, other = asking.open(), asking.open()
    asking.ask(holder, take())
    for _ in range(3):
        assert isinstance(asking.ask(other, take()), Queued)
    assert told(asking)[1:] == [(other, "conflict", "a", "exclusive", True)]


def test_those_that_can_hold_it_together_are_in_nobodys_way(asking: Asking):
    one, two, three, four = (asking.open() for _ in range(4))
    asking.ask(one, take(mode="shared"))
    asking.ask(two, take(mode="shared"))
    asking.ask(three, take())
    asking.ask(four, take(mode="shared"))
    assert told(asking) == [
        (one, "acquired", "a", "shared", False),
        (two, "acquired", "a", "shared", False),
        (three, "conflict", "a", "exclusive", True),
    ], "the fourth stands behind the third, and is in the way of nobody that holds it"


def test_a_counting_lock_is_in_the_way_when_it_is_full(asking: Asking):
    sessions = [asking.open() for _ in range(3)]
    for session in sessions:
        asking.ask(session, take(mode="counting", limit=2))
    assert [(each[0], each[1]) for each in told(asking)] == [
        (sessions[0], "acquired"),
        (sessions[1], "acquired"),
        (sessions[2], "conflict"),
    ]


def test_a_reentrant_hold_is_in_nobodys_way(asking: Asking):
    session = asking.open()
    asking.ask(session, take())
    asking.ask(session, take(acquisition=1, reentrant=True))
    assert [each[1] for each in told(asking)] == ["acquired", "acquired"]


def test_the_next_holder_is_told_who_is_first_in_line_behind_it(asking: Asking):
    one, two, three, four = (asking.open() for _ in range(4))
    for session in (one, two, three, four):
        asking.ask(session, take())
    asking.ask(one, ReleaseLock("a", 0))
    assert told(asking, asking.index) == [
        (two, "acquired", "a", "exclusive", False),
        (three, "conflict", "a", "exclusive", True),
    ]
    asking.ask(three, CancelAcquire("a", 0, 99))
    assert told(asking, asking.index) == [], "the name was not passed on"


def test_an_upgrade_is_told_to_those_that_share(asking: Asking):
    one, two, three = (asking.open() for _ in range(3))
    asking.ask(one, take(mode="shared"))
    asking.ask(two, take(mode="shared"))
    asking.ask(one, ChangeMode("a", 0, "exclusive", wait=False))
    assert told(asking, asking.index) == [(one, "conflict", "a", "exclusive", False)]
    asking.ask(one, ChangeMode("a", 0, "exclusive"))
    assert told(asking, asking.index) == [(one, "conflict", "a", "exclusive", True)]
    assert isinstance(asking.ask(two, ChangeMode("a", 0, "exclusive")), Deadlock)
    assert told(asking, asking.index) == []
    asking.ask(three, take())
    asking.ask(two, Release(("a",), 0))
    assert told(asking, asking.index) == [
        (one, "acquired", "a", "exclusive", False),
        (three, "conflict", "a", "exclusive", True),
    ]


def test_an_upgrade_of_the_only_holder_is_told_the_line_too(asking: Asking):
    one, two = asking.open(), asking.open()
    asking.ask(one, take(mode="shared"))
    asking.ask(two, take())
    asking.ask(one, ChangeMode("a", 0, "exclusive"))
    assert [each[:2] for each in told(asking, asking.index)] == [(one, "acquired"), (two, "conflict")]


def test_a_hand_over_is_told(asking: Asking):
    one, two, three = (asking.open() for _ in range(3))
    for session in (one, two, three):
        asking.ask(session, take())
    asking.ask(one, HandOver("a", 0, three, 0))
    assert [each[:2] for each in told(asking, asking.index)] == [(three, "acquired"), (two, "conflict")]


Ends = list[tuple[str, str, int]]


def ends(asking: Asking, since: int = 1) -> Ends:
    """How which holds ended, and of whom."""
    query = ReadLockLives("", prefix=True, since=since, acquired=False, conflicts=False)
    return [(event.kind, event.name, event.holder.session) for event in read(asking, query).events]


def test_each_hold_that_ends_is_told_of_and_how(asking: Asking):
    web, one, two, three, four = asking.open("web"), *(asking.open() for _ in range(4))
    for session, name in ((one, "a"), (one, "b"), (two, "c"), (three, "d"), (four, "e"), (four, "f")):
        asking.ask(session, take(name))
    since = asking.index + 1
    token = asking.machine.locks["a"].token
    asking.ask(one, ReleaseLock("a", 0))
    query = ReadLockLives("a", since=since)
    (event,) = read(asking, query).events
    assert (event.revision, event.kind, event.holder.session) == (since, "released", one)
    assert (event.mode, event.token, event.waits) == ("exclusive", token, False)
    asking.ask(one, CancelAcquire("b", 0, 99))
    asking.ask(two, commands.CloseSession())
    asking.ask(web, ForceRelease("d", "it hangs"), "web")
    asking.node(commands.ExpireSessions((four,)))
    assert ends(asking, since) == [
        ("released", "a", one),
        ("released", "b", one),
        ("released", "c", two),
        ("forced", "d", three),
        ("expired", "e", four),
        ("expired", "f", four),
    ]
    (broken,) = asking.query(ListBreaks(), "web").breaks
    assert broken.index == since + 3, "who did it, and why, is found by the revision"


def test_a_name_that_passes_on_is_told_of_twice_in_one_revision(asking: Asking):
    one, two = asking.open(), asking.open()
    for session in (one, two):
        asking.ask(session, take())
    asking.ask(one, Release(("a",), 0))
    events = read(asking, ReadLockLives("a", since=asking.index)).events
    assert [each[:2] for each in brief(events)] == [(one, "released"), (two, "acquired")]
    asking.ask(two, HandOver("a", 0, one, 7))
    events = read(asking, ReadLockLives("a", since=asking.index)).events
    assert [each[:2] for each in brief(events)] == [(two, "handed-over"), (one, "acquired")]


def test_what_ends_no_hold_is_not_told_as_an_end(asking: Asking):
    one, two = asking.open(), asking.open()
    asking.ask(one, take(mode="shared"))
    asking.ask(two, take())
    asking.ask(two, CancelAcquire("a", 0, 99))
    asking.ask(one, ChangeMode("a", 0, "exclusive"))
    asking.ask(one, ChangeMode("a", 0, "shared"))
    asking.ask(one, AcquireLock("b", 0, wait=True))
    asking.ask(one, AcquireLock("b", 1, wait=True, take_over=True))
    assert ends(asking) == []
    asking.ask(one, ReleaseLock("b", 0))
    assert ends(asking) == []
    asking.ask(one, ReleaseLock("b", 1))
    assert ends(asking) == [("released", "b", one)]


def test_whoever_asks_as_before_is_told_what_there_was_before(asking: Asking):
    one = asking.open()
    asking.ask(one, take())
    asking.ask(one, ReleaseLock("a", 0))
    assert [each[1] for each in told(asking)] == ["acquired"]
    kinds = ReadLockLives("a", since=1, released=False)
    assert [each[1] for each in brief(read(asking, kinds).events)] == ["acquired"]


def test_below_level_5_no_end_is_told_and_the_bytes_are_those_of_before():
    asking = Asking(level=4)
    session = asking.open()
    asking.ask(session, take())
    asking.ask(session, ReleaseLock("a", 0))
    assert len(asking.machine.state.lock_events.rows) == 1
    refused = asking.query(ReadLockLives("a", since=1))
    assert (refused.code, refused.message) == (
        commands.REFUSED,
        "how holds end is told from level 5 on, the cluster has 4",
    )
    assert len(read(asking, ReadLockLives("a", since=1, released=False)).events) == 1
    assert snapshot.dump(asking.machine)[4:6] == b"\0\4"
    asking.node(RaiseLevel(5))
    raised = asking.index
    assert snapshot.dump(asking.machine)[4:6] == b"\0\5"
    asking.ask(session, take("b", acquisition=1))
    asking.ask(session, ReleaseLock("b", 1))
    for machine in (asking.machine, restored(asking.machine)):
        asking.machine = machine
        assert asking.query(ReadLockLives("a", since=raised)) == Compacted(raised), "ends of before were not kept"
        assert [each[1] for each in told(asking)] == ["acquired"], "and all else of before is still told"
        assert ends(asking, raised + 1) == [("released", "b", session)]


def test_several_names_are_told_each(asking: Asking):
    one, two = asking.open(), asking.open()
    asking.ask(one, take("a"))
    asking.ask(one, take("c", acquisition=1))
    asking.ask(two, Acquire(("a", "b", "c"), 0))
    query = ReadLockEvents("", prefix=True, since=asking.index)
    assert [each[1:3] for each in brief(read(asking, query).events)] == [("conflict", "a"), ("conflict", "c")]


def test_a_lock_delay_has_no_holder_that_could_let_go(asking: Asking):
    one, two = asking.open(), asking.open()
    asking.ask(one, take(delay_ms=1_000))
    asking.node(commands.ExpireSessions((one,)))
    since = asking.index
    asking.ask(two, take())
    assert told(asking, asking.index) == []
    asking.node(EndLockDelays((("a", since),)))
    assert told(asking, asking.index) == [(two, "acquired", "a", "exclusive", False)]


@pytest.mark.interpreted
def test_who_is_refused_for_want_of_room_is_not_told_of(asking: Asking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coordinator.statemachine.locking.WAITERS_MAX", 0)
    one, two = asking.open(), asking.open()
    asking.ask(one, take())
    assert isinstance(asking.ask(two, take()), Failure)
    assert [each[1] for each in told(asking)] == ["acquired"]


def test_pages_go_on_where_the_one_before_ended_within_a_revision_too(asking: Asking):
    holder = asking.open()
    asking.ask(holder, Acquire(("a", "b", "c"), 0))
    since, skip, names = 1, 0, []
    for _ in range(4):
        page = read(asking, ReadLockEvents("", prefix=True, since=since, skip=skip, limit=1))
        names += [event.name for event in page.events]
        since, skip = page.since, page.skip
    assert names == ["a", "b", "c"]
    assert (since, skip) == (asking.index + 1, 0)


@pytest.mark.interpreted
def test_a_page_goes_over_a_bounded_number_of_events(asking: Asking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_events, "SCANNED_MAX", 2)
    holder = asking.open()
    asking.ask(holder, Acquire(("a", "b", "c"), 0))
    page = read(asking, ReadLockEvents("c", since=1))
    assert (page.events, page.since, page.skip) == ((), asking.index, 2)
    assert [event.name for event in read(asking, ReadLockEvents("c", since=page.since, skip=page.skip)).events] == ["c"]


@pytest.mark.interpreted
def test_what_is_not_kept_any_more_is_said(asking: Asking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 3)
    session = asking.open()
    for number in range(5):
        asking.ask(session, take(f"lock{number}"))
    oldest = asking.index - 3
    assert asking.machine.query(ReadLockEvents("a", since=oldest), "ci", lambda _: 0) == Compacted(oldest)
    page = read(asking, ReadLockEvents("", prefix=True, since=oldest + 1))
    assert [event.name for event in page.events] == ["lock2", "lock3", "lock4"]


@pytest.mark.interpreted
def test_a_snapshot_holds_them(asking: Asking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 4)
    sessions = [asking.open() for _ in range(4)]
    for session in sessions:
        asking.ask(session, take())
    asking.ask(sessions[0], ReleaseLock("a", 0))
    loaded = Machine()
    snapshot.load(loaded, snapshot.dump(asking.machine))
    ours, theirs = asking.machine.state.lock_events, loaded.state.lock_events
    assert theirs.compacted == ours.compacted > 0
    assert [*theirs.since(0)] == [*ours.since(0)]
    assert loaded.digest() == asking.machine.digest()
    for machine in (asking.machine, loaded):
        entry = asking.log[-1]
        machine.apply(asking.index + 1, entry)
    assert loaded.digest() == asking.machine.digest()


@pytest.mark.interpreted
def test_a_snapshot_under_way_shows_those_of_when_it_began(asking: Asking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_events, "LOCK_EVENTS_MAX", 5)
    session = asking.open()
    for number in range(5):
        asking.ask(session, take(f"lock{number}"))
    at_once = snapshot.dump(asking.machine)
    under_way = snapshot.begin(asking.machine)
    for number in range(5, 9):
        asking.ask(session, take(f"lock{number}"))
    parts = []
    while not under_way.done:
        parts.append(under_way.slice(1))
    assert b"".join(parts) == at_once


def test_below_level_4_none_is_kept_and_the_bytes_are_those_of_before():
    asking = Asking(level=3)
    session = asking.open()
    asking.ask(session, take())
    refused = asking.machine.query(ReadLockEvents("a", since=1), "ci", lambda _: 0)
    assert isinstance(refused, Failure)
    assert (refused.code, refused.message) == (
        commands.REFUSED,
        "events of locks are kept from level 4 on, the cluster has 3",
    )
    assert snapshot.dump(asking.machine)[4:6] == b"\0\3"
    asking.node(RaiseLevel(4))
    raised = asking.index
    assert snapshot.dump(asking.machine)[4:6] == b"\0\4"
    assert asking.machine.query(ReadLockEvents("a", since=raised), "ci", lambda _: 0) == Compacted(raised)
    asking.ask(session, take("b"))
    page = read(asking, ReadLockEvents("", prefix=True, since=raised + 1))
    assert [event.name for event in page.events] == ["b"]


def test_rights_and_bad_input(asking: Asking):
    def refusal(query: ReadLockEvents, principal: str = "ci") -> str:
        result = asking.machine.query(query, principal, lambda _: 0)
        assert isinstance(result, Failure), result
        return result.code

    assert refusal(ReadLockEvents("a", since=1), "narrow") == commands.FORBIDDEN
    assert read(asking, ReadLockEvents("build/", prefix=True), "narrow").events == ()
    assert refusal(ReadLockEvents("a", since=-1)) == commands.INVALID
    assert refusal(ReadLockEvents("a", since=1, skip=-1)) == commands.INVALID
    assert read(asking, ReadLockEvents("a")) == LockEventPage((), asking.index + 1, 0)
