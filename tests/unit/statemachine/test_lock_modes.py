"""Locks in all their modes: shared, counting, re-entrant, several names; changed, handed over, broken, delayed."""

from __future__ import annotations

import pytest

from coordinator.statemachine import commands, locking
from coordinator.statemachine.commands import (
    AcquireLock,
    AwaitGrant,
    CancelAcquire,
    CloseSession,
    Done,
    ExpireSessions,
    GetLock,
    Granted,
    Held,
    NotHeld,
    Queued,
    RaiseLevel,
    ReleaseLock,
    RemovePrincipal,
)
from coordinator.statemachine.events import GrantMade, LockBroken, LockDelayed, LockDelayEnded
from coordinator.statemachine.lock_commands import (
    BREAKS_MAX,
    Acquire,
    Broken,
    ChangeMode,
    CheckSequencer,
    Deadlock,
    EndLockDelays,
    ForceRelease,
    HandOver,
    ListBreaks,
    LockWait,
    RaiseEpoch,
    sequencer,
)
from coordinator.statemachine.locks import INDEX_BITS
from tests.unit.statemachine.derived import restored
from tests.unit.statemachine.taking import Locking


def shared(locks, *who):
    return [locks.take(one, mode="shared") for one in who]


# --- modes ----------------------------------------------------------------------------------------


def test_shared_holders_hold_it_together_and_an_exclusive_one_alone():
    locks = Locking()
    tokens = [result.token for result in shared(locks, 0, 1)]
    assert tokens == sorted({*tokens})
    assert locks.take(2) == Queued(1)
    assert locks.take(3, wait=False, mode="shared") == Held(locks.state().holders[0].holder, tokens[1])
    locks.drop(0)
    assert locks.holding() == [1]
    locks.drop(1)
    assert locks.holding() == [2]


def test_the_line_is_first_come_first_served_and_readers_go_in_together_by_one_token():
    locks = Locking(6)
    locks.take(0)
    assert [
        locks.take(who, mode=mode) for who, mode in ((1, "shared"), (2, "shared"), (3, "exclusive"), (4, "shared"))
    ] == [Queued(place) for place in (1, 2, 3, 4)]
    locks.drop(0)
    assert (locks.holding(), locks.waiting()) == ([1, 2], [3, 4])
    assert {grant.token for grant in locks.state().holders} == {locks.state().token}
    assert locks.take(5, mode="shared") == Queued(3), "nobody overtakes"
    locks.drop(1)
    locks.drop(2)
    assert locks.holding() == [3]
    locks.drop(3)
    assert locks.holding() == [4, 5]


@pytest.mark.parametrize("waits", [False, True])
def test_who_joins_some_of_several_names_is_told_a_token_above_all_that_were_granted_before(waits):
    """By the earlier token of the name that its session held already, a write to what guards the other is refused."""
    locks = Locking()
    first = locks.take(0, "b").token
    other = locks.take(1, "a").token
    assert other > first
    if not waits:
        locks.drop(1, "a")
    locks.machine.events.clear()
    result = locks.take(0, "a", "b", acquisition=2, reentrant=True)
    if waits:
        assert result == Queued(1)
        locks.drop(1, "a")
        told = [event for event in locks.machine.events if isinstance(event, GrantMade)]
        assert [event.name for event in told] == ["a", "b"]
        (token,) = {event.token for event in told}
    else:
        token = result.token
    assert token > other
    assert [grant.token for grant in locks.state("b").holders] == [first, first]
    assert locks.take(0, "a", "b", acquisition=2, reentrant=True) == Granted(token)
    assert {locks.query(AwaitGrant(name, 2, locks.sessions[0])) for name in "ab"} == {Granted(token)}


def test_who_leaves_the_line_lets_in_those_behind_that_it_kept_out():
    locks = Locking()
    locks.take(0, mode="shared")
    locks.take(1)
    locks.take(2, mode="shared")
    locks.machine.events.clear()
    locks.drop(1)
    assert locks.holding() == [0, 2]
    assert [event.session for event in locks.machine.events] == [locks.sessions[2]]


def test_a_counting_lock_has_so_many_holders_and_no_more():
    locks = Locking()
    for who in (0, 1):
        assert isinstance(locks.take(who, mode="counting", limit=2), Granted)
    assert locks.take(2, mode="counting", limit=2) == Queued(1)
    refused = locks.take(3, mode="counting", limit=3)
    assert "counted to 2, not to 3" in refused.message
    assert locks.take(3, mode="shared") == Queued(2)
    locks.drop(0)
    assert (locks.holding(), locks.waiting()) == ([1, 2], [3])
    locks.drop(1)
    locks.drop(2)
    assert locks.holding() == [3]


def test_a_session_takes_several_units_by_several_acquisitions():
    locks = Locking()
    for acquisition in (1, 2):
        locks.take(0, mode="counting", limit=3, acquisition=acquisition)
    locks.take(1, mode="counting", limit=3)
    assert isinstance(locks.take(1, mode="counting", limit=3, acquisition=2, wait=False), Held)
    locks.drop(0, acquisition=2)
    assert isinstance(locks.take(1, mode="counting", limit=3, acquisition=2, wait=False), Granted)


def test_an_acquisition_that_is_asked_again_in_another_mode_is_refused():
    locks = Locking()
    locks.take(0, mode="shared")
    assert locks.take(0).code == commands.INVALID
    assert locks.ask(locks.sessions[0], AcquireLock("l", 1, wait=True)).code == commands.INVALID
    locks.take(1)
    assert locks.take(1, mode="shared").code == commands.INVALID
    assert locks.take(1) == Queued(1)
    assert isinstance(locks.take(1, wait=False), Held)


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"mode": "counting", "limit": 0}, "1 to 1000000"),
        ({"delay_ms": 60_001}, "60000"),
        ({"acquisition": -1}, "from 0 on"),
        ({"names": tuple("abcdefghijklmnopq")}, "1 to 16"),
        ({"names": ()}, "1 to 16"),
    ],
)
def test_what_is_no_acquisition_is_refused_with_its_bound(fields, number):
    locks = Locking()
    assert number in locks.ask(locks.sessions[0], Acquire(**{"names": ("l",), "acquisition": 1, **fields})).message


# --- re-entrant -----------------------------------------------------------------------------------


def test_a_session_enters_again_where_it_asks_for_that():
    locks = Locking()
    token = locks.take(0).token
    locks.take(1)
    assert locks.take(0, acquisition=2, wait=False) == Held(locks.state().holders[0].holder, token)
    assert locks.take(0, acquisition=3, reentrant=True) == Granted(token), "past whoever waits for it"
    assert locks.take(0, acquisition=4, reentrant=True, mode="shared") == Granted(token)
    for acquisition in (1, 4):
        locks.drop(0, acquisition=acquisition)
        assert locks.holding()[0] == 0
    locks.drop(0, acquisition=3)
    assert locks.holding() == [1]


def test_entering_a_shared_lock_again_exclusively_is_no_way_round_an_upgrade():
    locks = Locking()
    shared(locks, 0, 1)
    assert "ChangeMode" in locks.take(0, acquisition=2, reentrant=True).message
    assert isinstance(locks.take(0, acquisition=2, reentrant=True, mode="shared"), Granted)


# --- several names --------------------------------------------------------------------------------


def test_several_names_are_taken_all_or_none():
    locks = Locking()
    locks.take(0, "b")
    assert isinstance(locks.take(1, "a", "b", "c", wait=False), Held)
    assert locks.holding("a") == []
    assert locks.take(1, "c", "b", "a") == Queued(1)
    assert (locks.holding("a"), locks.waiting("a")) == ([], [1])
    assert locks.take(2, "a") == Queued(2), "it stands in line for what is free"
    locks.drop(0, "b")
    assert [locks.holding(name) for name in "abc"] == [[1]] * 3
    tokens = {locks.state(name).token for name in "abc"}
    assert tokens == {locks.query(AwaitGrant("a", 1, locks.sessions[1])).token}
    assert locks.machine.waiting == 1
    assert locks.drop(1, "a", "b", "c") == Done(locks.index, existed=True)
    assert (locks.holding("a"), locks.holding("b")) == ([2], [])


def test_a_waiter_for_several_names_is_let_in_after_a_snapshot_too():
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "a", "b")
    locks.machine = restored(locks.machine)
    locks.drop(0, "a")
    assert (locks.holding("a"), locks.holding("b")) == ([1], [1])


def test_a_waiter_for_several_names_that_leaves_lets_in_those_behind_it_everywhere():
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "a", "b", "c")
    locks.take(2, "b")
    locks.take(3, "c", mode="shared")
    locks.ask(locks.sessions[1], CancelAcquire("a", 1, number=999))
    assert (locks.holding("b"), locks.holding("c")) == ([2], [3])
    assert locks.machine.waiting == 0


def test_a_cancel_gives_back_all_that_was_granted_together():
    locks = Locking()
    locks.take(0, "a", "b")
    locks.take(1, "a")
    locks.take(1, "b", acquisition=2)
    locks.ask(locks.sessions[0], CancelAcquire("b", 1, number=999))
    assert (locks.holding("a"), locks.holding("b")) == ([1], [1])


def test_two_that_want_the_same_names_do_not_wait_for_each_other():
    locks = Locking()
    locks.take(0, "a")
    locks.take(3, "b")
    assert locks.take(1, "a", "b") == Queued(1)
    assert locks.take(2, "b", "a") == Queued(2)
    locks.drop(0, "a")
    locks.drop(3, "b")
    assert (locks.holding("a"), locks.holding("b")) == ([1], [1])
    locks.drop(1, "a", "b")
    assert (locks.holding("a"), locks.holding("b")) == ([2], [2])


def test_a_grant_of_several_lets_in_sharers_behind_it_in_the_other_lines():
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "a", "b", mode="shared")
    locks.take(2, "b", mode="shared")
    assert locks.waiting("b") == [1, 2]
    locks.drop(0, "a")
    assert (locks.holding("a"), locks.holding("b")) == ([1], [1, 2])


def test_an_acquisition_of_some_names_is_no_acquisition_of_others():
    locks = Locking()
    locks.take(0, "a", "b")
    assert locks.take(0, "a", "c").code == commands.INVALID
    assert locks.take(0, "b", "a") == Granted(locks.state("a").token)


# --- changed --------------------------------------------------------------------------------------


def change(locks, who, mode, **fields):
    return locks.ask(locks.sessions[who], ChangeMode("l", 1, mode, **fields))


def test_a_downgrade_keeps_the_token_and_lets_in_readers():
    locks = Locking()
    token = locks.take(0).token
    locks.take(1, mode="shared")
    locks.take(2)
    assert change(locks, 0, "shared") == Granted(token)
    assert (locks.holding(), locks.waiting()) == ([0, 1], [2])
    assert locks.state().holders[1].token > token


def test_an_upgrade_is_granted_by_a_higher_token_ahead_of_the_line():
    locks = Locking()
    first = shared(locks, 0, 1)[1].token
    locks.take(2)
    assert isinstance(change(locks, 0, "exclusive", wait=False), Held)
    assert change(locks, 0, "exclusive") == Queued(1)
    assert locks.query(AwaitGrant("l", 1, locks.sessions[0])) == Queued(1)
    assert locks.take(3, mode="shared") == Queued(2)
    locks.machine.events.clear()
    locks.drop(1)
    assert (locks.holding(), locks.state().mode) == ([0], "exclusive")
    (event,) = locks.machine.events
    assert event == GrantMade(locks.sessions[0], "l", 1, locks.state().token)
    assert event.token > first
    locks.drop(0)
    assert locks.holding() == [2]


def test_an_upgrade_that_would_deadlock_is_refused():
    locks = Locking()
    shared(locks, 0, 1)
    change(locks, 0, "exclusive")
    assert change(locks, 1, "exclusive") == Deadlock(
        (LockWait(locks.sessions[1], "l"), LockWait(locks.sessions[0], "l"))
    )
    locks.drop(1)
    assert locks.state().mode == "exclusive"


def test_an_upgrade_is_given_up_or_ends_with_its_session():
    locks = Locking()
    shared(locks, 0, 1)
    change(locks, 0, "exclusive")
    locks.take(2, mode="shared")
    assert isinstance(change(locks, 0, "shared"), Granted)
    assert locks.holding() == [0, 1, 2]
    change(locks, 0, "exclusive")
    locks.take(3, mode="shared")
    locks.node(ExpireSessions((locks.sessions[0],)))
    assert locks.holding() == [1, 2, 3]


def test_an_exclusive_hold_is_handed_over_by_a_higher_token():
    locks = Locking()
    token = locks.take(0).token
    locks.take(1)
    locks.take(2)
    locks.machine.events.clear()
    heir = HandOver("l", 1, locks.sessions[2], 1)
    assert locks.ask(locks.sessions[0], heir) == Done(locks.index, existed=True)
    assert (locks.holding(), locks.waiting()) == ([2], [1])
    assert locks.state().token > token
    assert locks.machine.events == [GrantMade(locks.sessions[2], "l", 1, locks.state().token)]
    assert locks.ask(locks.sessions[0], heir) == NotHeld()
    gone = locks.ask(locks.sessions[2], HandOver("l", 1, 999, 1))
    assert gone.code == commands.NOT_FOUND
    narrow = locks.open("narrow")
    assert locks.ask(locks.sessions[2], HandOver("l", 1, narrow, 1)).code == commands.FORBIDDEN
    locks.node(ExpireSessions((locks.sessions[2],)))
    assert locks.holding() == [1]


def give(locks, giver, heir, acquisition=1, name="l"):
    return locks.ask(locks.sessions[giver], HandOver(name, 1, locks.sessions[heir], acquisition))


def test_a_unit_of_a_counting_lock_is_handed_over_to_one_that_waits_for_it():
    locks = Locking()
    first, _ = (locks.take(who, mode="counting", limit=2).token for who in (0, 1))
    locks.take(2, mode="counting", limit=2)
    locks.take(3, mode="counting", limit=2)
    locks.machine.events.clear()
    assert give(locks, 0, 3) == Done(locks.index, existed=True)
    assert (locks.holding(), locks.waiting()) == ([1, 3], [2]), (
        "past the line, and whoever was before it keeps its place"
    )
    state = locks.state()
    assert (state.mode, state.limit, state.holding) == ("counting", 2, 2)
    assert state.token == state.holders[1].token > first
    assert locks.machine.events == [GrantMade(locks.sessions[3], "l", 1, state.token)]
    assert give(locks, 0, 2) == NotHeld()
    locks.drop(3)
    assert locks.holding() == [1, 2]
    restored(locks.machine)


def test_a_shared_hold_is_handed_over_past_whoever_waits_to_have_it_alone():
    locks = Locking()
    shared(locks, 0, 1)
    locks.take(2)
    locks.take(3, mode="shared")
    assert give(locks, 0, 3) == Done(locks.index, existed=True)
    assert (locks.holding(), locks.waiting()) == ([1, 3], [2])
    assert locks.state().mode == "shared"
    locks.drop(1)
    locks.drop(3)
    assert locks.holding() == [2]


@pytest.mark.parametrize(
    ("held", "asked", "like"),
    [
        ({"mode": "shared"}, {}, "shared"),
        ({"mode": "shared"}, None, "shared"),
        ({"mode": "counting", "limit": 1}, {"mode": "shared"}, "counting to 1"),
        ({"mode": "counting", "limit": 1}, {}, "counting to 1"),
        ({"mode": "counting", "limit": 1}, None, "counting to 1"),
    ],
)
def test_who_did_not_ask_for_it_so_is_given_no_hold_of_several(held, asked, like):
    """It is told of a token alone: what it shares it would take for its own."""
    locks = Locking()
    locks.take(0, **held)
    locks.take(1)
    if asked is not None:
        locks.take(2, **asked)
    refused = give(locks, 0, 2)
    message = f"a {like} hold is handed over to one that stands in line for the same"
    assert (refused.code, refused.message) == (commands.INVALID, message)
    assert locks.holding() == [0]


def test_nobody_is_given_a_shared_hold_while_an_upgrade_or_a_lock_delay_lasts():
    locks = Locking()
    shared(locks, 0, 1)
    locks.take(3, mode="shared", delay_ms=1_000)
    message = "an upgrade or a lock-delay of the name is waited for, nobody is let in"
    change(locks, 1, "exclusive")
    locks.take(2, mode="shared")
    for giver in (0, 1):
        refused = give(locks, giver, 2)
        assert (refused.code, refused.message) == (commands.REFUSED, message)
    change(locks, 1, "shared")
    assert locks.holding() == [0, 1, 3, 2]
    locks.node(ExpireSessions((locks.sessions[3],)))
    locks.drop(2)
    locks.take(2, mode="shared")
    assert (give(locks, 0, 2).code, locks.waiting()) == (commands.REFUSED, [2])


def test_a_hold_of_several_names_or_acquisitions_is_not_handed_over():
    locks = Locking()
    locks.take(0, "l", "m", mode="shared")
    locks.take(1, "x")
    locks.take(1, "x", acquisition=2, reentrant=True)
    for refused in (give(locks, 0, 2), give(locks, 1, 2, name="x")):
        message = "only a hold of one name is handed over, an exclusive one by one acquisition"
        assert (refused.code, refused.message) == (commands.INVALID, message)


def test_below_level_5_only_exclusive_holds_are_handed_over():
    locks = Locking(level=4)
    locks.take(0, mode="counting", limit=1)
    locks.take(1, mode="counting", limit=1)
    refused = give(locks, 0, 1)
    message = "only an exclusive hold of one name, by one acquisition, is handed over"
    assert (refused.code, refused.message) == (commands.INVALID, message)
    locks.node(RaiseLevel(5))
    assert give(locks, 0, 1) == Done(locks.index, existed=True)
    assert locks.holding() == [1]


def test_a_forced_release_leaves_who_and_why():
    locks = Locking()
    web = locks.open("web")
    token = locks.take(0).token
    locks.take(1)
    assert locks.ask(locks.sessions[1], ForceRelease("l", "stuck")).code == commands.FORBIDDEN
    locks.machine.events.clear()
    assert locks.ask(web, ForceRelease("l", "stuck"), "web") == Done(locks.index, existed=True)
    assert locks.holding() == [1]
    assert locks.machine.events[0] == LockBroken(locks.sessions[0], "l", 1)
    (broken,) = locks.query(ListBreaks(), "web").breaks
    assert (broken.index, broken.principal, broken.reason, broken.token) == (locks.index, "web", "stuck", token)
    assert locks.query(AwaitGrant("l", 1, locks.sessions[0])) == Broken(broken)
    assert locks.drop(0) == Broken(broken)
    assert locks.ask(web, ForceRelease("l", ""), "web").code == commands.INVALID
    assert locks.ask(web, ForceRelease("none", "x"), "web") == NotHeld()
    again = restored(locks.machine)
    assert again.query(ListBreaks(), "web", lambda _: 1).breaks == (broken,)


def test_forced_releases_are_remembered_up_to_a_bound():
    locks = Locking()
    web = locks.open("web")
    for step in range(BREAKS_MAX + 5):
        locks.ask(web, Acquire(("l",), step), "web")
        locks.ask(web, ForceRelease("l", "r", web), "web")
        locks.machine.sessions[web].results.clear()
        locks.machine.sessions[web].acked = locks.numbers[web]
    assert len(locks.machine.state.breaks.rows) == len(locks.machine.state.broken) == BREAKS_MAX
    assert locks.query(ListBreaks(limit=1), "web").breaks[0].number == 6


# --- lock-delay -----------------------------------------------------------------------------------


def test_a_lock_stays_unavailable_for_its_delay_after_its_holder_died():
    locks = Locking()
    token = locks.take(0, delay_ms=5_000).token
    locks.take(1)
    locks.machine.events.clear()
    locks.node(ExpireSessions((locks.sessions[0],)))
    since = locks.index
    assert LockDelayed("l", since, 5_000) in locks.machine.events
    assert (locks.holding(), locks.waiting()) == ([], [1])
    refused = locks.take(2, wait=False)
    assert (refused.holder.session, refused.token) == (locks.sessions[0], token)
    assert locks.query(GetLock("l")).holder is None
    assert locks.state().delay_ms == 5_000
    assert locks.machine.delays() == [("l", since, 5_000)]
    assert restored(locks.machine).delays() == locks.machine.delays()
    locks.node(EndLockDelays((("l", since - 1),)))
    assert locks.holding() == [], "that is another delay"
    locks.node(EndLockDelays((("l", since), ("none", 1))))
    assert locks.holding() == [1]
    assert locks.machine.delays() == []


def test_an_operator_ends_a_delay_and_leaves_who_and_why():
    locks = Locking()
    web = locks.open("web")
    token = locks.take(0, delay_ms=5_000).token
    dead = locks.sessions[0]
    locks.node(ExpireSessions((dead,)))
    since = locks.index
    locks.take(1)
    assert locks.ask(locks.sessions[1], ForceRelease("l", "mine")).code == commands.FORBIDDEN
    assert locks.ask(web, ForceRelease("l", "another's", locks.sessions[2]), "web") == NotHeld()
    assert locks.holding() == []
    locks.machine.events.clear()
    assert locks.ask(web, ForceRelease("l", "the host is gone", dead), "web") == Done(locks.index, existed=True)
    assert locks.holding() == [1]
    assert (locks.machine.delays(), locks.state().delay_ms) == ([], 0)
    assert locks.machine.events[0] == LockDelayEnded("l", since), "the leader counts it no more"
    (broken,) = locks.query(ListBreaks(), "web").breaks
    assert (broken.holder.session, broken.token, broken.index) == (dead, token, locks.index)
    assert (broken.principal, broken.reason) == ("web", "the host is gone")
    assert restored(locks.machine).query(ListBreaks(), "web", lambda _: 1).breaks == (broken,)
    assert locks.state().token > token
    assert locks.node(EndLockDelays((("l", since),))) == Done(locks.index, existed=False), "a late word of the leader"
    assert locks.holding() == [1]


def test_a_forced_release_takes_from_who_is_left_and_ends_the_delay_of_who_died():
    locks = Locking()
    web = locks.open("web")
    for who in (0, 1):
        locks.take(who, mode="shared", delay_ms=5_000)
    locks.take(2)
    locks.node(ExpireSessions((locks.sessions[0],)))
    assert locks.ask(web, ForceRelease("l", "only one", locks.sessions[1]), "web") == Done(locks.index, existed=True)
    assert locks.holding() == [], "the delay stays"
    assert locks.ask(web, ForceRelease("l", "all of it"), "web") == Done(locks.index, existed=True)
    assert locks.holding() == [2]
    assert [one.reason for one in locks.query(ListBreaks(), "web").breaks] == ["only one", "all of it"]


def test_with_nobody_in_line_a_delay_that_is_ended_leaves_nothing():
    locks = Locking()
    web = locks.open("web")
    locks.take(0, delay_ms=5_000)
    locks.node(ExpireSessions((locks.sessions[0],)))
    locks.ask(web, ForceRelease("l", "why"), "web")
    assert "l" not in locks.machine.locks


def test_below_level_5_a_forced_release_leaves_delays_alone():
    locks = Locking(level=4)
    web = locks.open("web")
    locks.take(0, delay_ms=5_000)
    locks.node(ExpireSessions((locks.sessions[0],)))
    assert locks.ask(web, ForceRelease("l", "why"), "web") == NotHeld()
    assert len(locks.machine.delays()) == 1
    locks.node(RaiseLevel(5))
    assert isinstance(locks.ask(web, ForceRelease("l", "why"), "web"), Done)
    assert locks.machine.delays() == []


def test_there_is_no_delay_where_the_holder_lets_go():
    locks = Locking()
    locks.take(0, delay_ms=5_000)
    locks.take(1, delay_ms=5_000)
    locks.drop(0)
    assert locks.holding() == [1]
    locks.ask(locks.sessions[1], CloseSession())
    assert locks.state().holders == ()
    assert locks.machine.delays() == []


def test_a_delay_with_nobody_in_line_ends_with_nothing_left():
    locks = Locking()
    locks.take(0, delay_ms=5_000)
    locks.node(ExpireSessions((locks.sessions[0],)))
    since = locks.index
    assert locks.take(1) == Queued(1)
    locks.drop(1)
    locks.node(EndLockDelays((("l", since),)))
    assert locks.machine.locks == {}


def test_a_second_death_lengthens_the_delay():
    locks = Locking()
    locks.take(0, mode="shared", delay_ms=9_000)
    locks.take(1, mode="shared", delay_ms=1_000)
    locks.take(2, mode="shared")
    locks.node(ExpireSessions((locks.sessions[0],)))
    first = locks.index
    locks.node(ExpireSessions((locks.sessions[1],)))
    assert locks.machine.delays() == [("l", locks.index, 9_000)]
    assert change(locks, 2, "exclusive") == Queued(1)
    locks.node(EndLockDelays((("l", first),)))
    assert locks.state().mode == "shared"
    locks.node(EndLockDelays((("l", locks.index - 2),)))
    assert locks.state().mode == "exclusive"


# --- tokens and sequencers ------------------------------------------------------------------------


def test_a_sequencer_is_checked_by_anyone():
    locks = Locking()
    token = locks.take(0, "a:b").token
    text = sequencer("a:b", "exclusive", token)

    def valid(one):
        return locks.query(CheckSequencer(one), "narrow").valid

    assert valid(text)
    for other in (f"a:b:shared:{token}", f"a:b:exclusive:{token + 1}", "b:exclusive:1", "", ":", "a:b:exclusive:x"):
        assert not valid(other)
    locks.drop(0, "a:b")
    assert not valid(text)


def test_tokens_grow_through_restores_of_one_backup_again_and_again():
    """Back up, grant, restore, grant, restore the same backup again, grant; delete, create again, grant."""
    locks = Locking()
    locks.take(0)
    locks.drop(0)
    backup, index = restored(locks.machine), locks.index
    tokens = [locks.take(0).token]
    for epoch in (2, 3):
        locks.machine, locks.index = restored(backup), index
        assert locks.node(RaiseEpoch(epoch)) == Done(locks.index, existed=True)
        tokens.append(locks.take(1).token)
        locks.drop(1)
        tokens.append(locks.take(1).token)
    assert tokens == sorted({*tokens})
    assert tokens[-1] >> INDEX_BITS == 3
    assert tokens[-1] < 2**53
    assert locks.node(RaiseEpoch(3)).code == commands.INVALID
    assert locks.node(RaiseEpoch(2**13)).code == commands.INVALID


# --- deadlocks ------------------------------------------------------------------------------------


def test_a_wait_that_would_close_a_cycle_is_refused_with_the_cycle():
    locks = Locking()
    for who, name in enumerate("abc"):
        locks.take(who, name)
    assert locks.take(0, "b", acquisition=2) == Queued(1)
    assert locks.take(1, "c", acquisition=2) == Queued(1)
    assert locks.take(2, "a", acquisition=2) == Deadlock(
        (LockWait(locks.sessions[2], "a"), LockWait(locks.sessions[0], "b"), LockWait(locks.sessions[1], "c"))
    )
    assert locks.waiting("a") == []
    assert isinstance(locks.take(2, "a", acquisition=2, wait=False), Held), "who does not wait closes no cycle"
    assert locks.take(2, "a", acquisition=2, refuse_deadlocks=False) == Queued(1)


def test_who_is_before_it_in_line_is_waited_for_too():
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "b")
    locks.take(2, "a")
    assert locks.take(2, "b", acquisition=2) == Queued(1)
    assert isinstance(locks.take(1, "a", acquisition=2), Deadlock), "2 would get a before 1, and waits for b"


def test_one_that_only_counts_does_not_hide_that_its_session_is_before_another_in_line():
    locks = Locking()
    locks.take(0, "x")
    locks.take(1, "x", mode="counting")
    locks.take(1, "x", acquisition=2, mode="shared")
    assert locks.take(2, "x") == Queued(3)
    assert locks.take(1, "x", acquisition=3, mode="shared") == Deadlock(
        (LockWait(locks.sessions[1], "x"), LockWait(locks.sessions[2], "x"))
    ), "2 waits for what 1 asked for before it"


def test_those_that_can_hold_it_together_do_not_wait_for_each_other():
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "b")
    locks.take(2, "a", mode="shared")
    locks.take(2, "b", acquisition=2)
    assert locks.take(1, "a", mode="shared", acquisition=2) == Queued(2)
    shares = Locking()
    shares.take(0, "a", mode="shared")
    shares.take(1, "a", mode="shared")
    shares.take(1, "b")
    assert shares.take(0, "b", acquisition=2) == Queued(1)
    assert isinstance(shares.take(1, "a", mode="shared", acquisition=3), Granted)


def test_whoever_shares_a_name_cannot_wait_behind_an_upgrade_that_waits_for_it():
    locks = Locking()
    locks.take(0, "l", mode="shared")
    locks.take(1, "l", mode="shared")
    assert change(locks, 0, "exclusive") == Queued(1)
    assert locks.take(1, "l", acquisition=2, mode="shared") == Deadlock(
        (LockWait(locks.sessions[1], "l"), LockWait(locks.sessions[0], "l"))
    ), "0 waits for what 1 shares, and nobody is let in before it"
    assert locks.take(2, "l", mode="shared") == Queued(1)


def test_a_cycle_goes_through_those_that_wait_behind_an_upgrade():
    locks = Locking()
    locks.take(0, "l", mode="shared")
    locks.take(1, "b")
    locks.take(2, "l", mode="shared")
    assert change(locks, 0, "exclusive") == Queued(1)
    assert locks.take(1, "l", mode="shared") == Queued(1)
    assert locks.take(2, "b", mode="shared") == Deadlock(
        (
            LockWait(locks.sessions[2], "b"),
            LockWait(locks.sessions[1], "l"),
            LockWait(locks.sessions[0], "l"),
        )
    )


def test_counting_locks_have_no_part_in_deadlocks():
    locks = Locking()
    locks.take(0, "a", mode="counting", limit=1)
    locks.take(1, "b")
    locks.take(0, "b", acquisition=2)
    assert locks.take(1, "a", mode="counting", limit=1, acquisition=2) == Queued(1)


def test_an_upgrade_may_close_a_cycle_too():
    locks = Locking()
    shared(locks, 0, 1)
    locks.take(0, "b")
    locks.take(1, "b", acquisition=2)
    assert change(locks, 0, "exclusive") == Deadlock(
        (LockWait(locks.sessions[0], "l"), LockWait(locks.sessions[1], "b"))
    )
    locks.take(2)
    assert isinstance(change(locks, 1, "exclusive"), Queued), "who waits behind it is not waited for"


def test_threads_of_one_session_do_not_wait_for_one_another():
    locks = Locking()
    locks.take(0)
    assert locks.take(0, acquisition=2) == Queued(1)


# --- others ---------------------------------------------------------------------------------------


def test_a_principal_that_is_removed_leaves_its_lines_and_lets_in_those_behind():
    locks = Locking()
    web, narrow = locks.open("web"), locks.open("narrow")
    locks.take(0, "build/x", mode="shared")
    locks.ask(narrow, Acquire(("build/x",), 1), "narrow")
    locks.take(1, "build/x", mode="shared")
    locks.ask(web, RemovePrincipal("narrow"), "web")
    assert locks.holding("build/x") == [0, 1]


def test_a_name_out_of_reach_refuses_all_of_them():
    locks = Locking()
    narrow = locks.open("narrow")
    assert locks.ask(narrow, Acquire(("build/x", "other"), 1), "narrow").code == commands.FORBIDDEN
    assert locks.state("build/x").holders == ()


@pytest.mark.interpreted
def test_full_lines_and_tables_are_refused_with_their_numbers(monkeypatch):
    monkeypatch.setattr(locking, "WAITERS_MAX", 2)
    monkeypatch.setattr(locking, "LOCKS_MAX", 3)
    locks = Locking()
    locks.take(0, "a")
    locks.take(1, "a", "b")
    assert "2 waiters" in locks.take(2, "a").message
    assert "3 locks" in locks.take(2, "c", "d").message
    assert isinstance(locks.take(2, "c"), Granted)
    assert isinstance(locks.drop(1, "a", "b"), Done)
    assert isinstance(locks.ask(locks.sessions[0], ReleaseLock("a", 1)), Done)
