"""Exclusive locks: mutual exclusion, first come first served, tokens, and the histories that break the easy version."""

from __future__ import annotations

import itertools

import pytest

from coordinator.statemachine.commands import (
    ANY_ACQUISITION,
    INVALID,
    AcquireLock,
    AwaitGrant,
    CancelAcquire,
    CloseSession,
    Done,
    ExpireSessions,
    Failure,
    GetLock,
    Granted,
    Held,
    ListLocks,
    NotHeld,
    Queued,
    ReleaseLock,
)
from coordinator.statemachine.lock_commands import Acquire, Mode, Release
from coordinator.statemachine.locks import INDEX_BITS, PLACES_MAX, fencing_token
from coordinator.statemachine.machine import GrantMade
from tests.unit.statemachine.asking import Asking


def test_a_free_lock_is_granted_with_a_token_made_of_epoch_and_index():
    asking = Asking()
    granted = asking.acquire(asking.open())
    assert granted == Granted(1 << INDEX_BITS | asking.index)
    assert granted.token < 2**53


def test_a_held_lock_is_refused_with_its_holder_or_queued_for():
    asking = Asking()
    one, two = asking.open(), asking.open()
    token = asking.acquire(one).token
    refused = asking.acquire(two, wait=False)
    assert isinstance(refused, Held)
    assert (refused.holder.session, refused.holder.principal, refused.token) == (one, "ci", token)
    assert asking.acquire(two) == Queued(1)


def test_waiters_are_granted_in_the_order_they_came_each_with_a_higher_token():
    asking = Asking()
    sessions = [asking.open() for _ in range(5)]
    tokens = [asking.acquire(sessions[0]).token]
    assert [asking.acquire(session) for session in sessions[1:]] == [Queued(i) for i in range(1, 5)]
    for here, then in itertools.pairwise(sessions):
        asking.machine.events.clear()
        asking.release(here)
        (grant,) = asking.machine.events
        assert isinstance(grant, GrantMade)
        assert (grant.session, grant.name, grant.acquisition) == (then, "deploy", 1)
        tokens.append(grant.token)
        assert asking.query(AwaitGrant("deploy", 1, then)) == Granted(grant.token)
    assert tokens == sorted(set(tokens))


def test_two_acquisitions_of_one_session_exclude_each_other():
    asking = Asking()
    session = asking.open()
    assert isinstance(asking.acquire(session, acquisition=1), Granted)
    assert asking.acquire(session, acquisition=2) == Queued(1)
    asking.release(session, acquisition=1)
    assert asking.holder() == (session, 2)


def test_the_same_acquisition_is_answered_with_what_it_has():
    asking = Asking()
    one, two = asking.open(), asking.open()
    token = asking.acquire(one).token
    assert asking.acquire(one, wait=False) == Granted(token)
    assert asking.acquire(two) == asking.acquire(two) == Queued(1)
    assert len(asking.query(GetLock("deploy")).waiters) == 1


def test_a_lock_that_comes_again_goes_on_with_higher_tokens():
    """History 6."""
    asking = Asking()
    session = asking.open()
    first = asking.acquire(session).token
    asking.release(session)
    assert asking.query(GetLock("deploy")).holder is None
    assert asking.acquire(session).token > first


def test_whoever_does_not_hold_it_does_not_release_it():
    asking = Asking()
    one, two = asking.open(), asking.open()
    asking.acquire(one)
    assert asking.release(two) == NotHeld()
    assert asking.release(one, acquisition=9) == NotHeld()
    assert asking.release(one, name="other") == NotHeld()
    assert asking.holder() == (one, 1)


def test_an_expiry_of_several_removes_all_of_them_before_it_grants():
    """Rule 6: what one frees must not go to another that ends too."""
    asking = Asking()
    one, two, three = asking.open(), asking.open(), asking.open()
    for session in (one, two, three):
        asking.acquire(session)
    asking.machine.events.clear()
    asking.node(ExpireSessions((one, two)))
    assert asking.holder() == (three, 1)
    grants = [event for event in asking.machine.events if isinstance(event, GrantMade)]
    assert [grant.session for grant in grants] == [three]
    assert asking.machine.waiting == 0


def test_a_session_that_closes_lets_go_of_everything():
    asking = Asking()
    one, two = asking.open(), asking.open()
    for name in ("a", "b"):
        asking.acquire(one, name)
        asking.acquire(two, name)
    asking.acquire(two, "c")
    asking.acquire(one, "c")
    asking.ask(one, CloseSession())
    assert [asking.holder(name) for name in "abc"] == [(two, 1)] * 3
    assert asking.query(GetLock("c")).waiters == ()


def test_a_waiter_that_leaves_is_not_granted():
    asking = Asking()
    one, two, three = asking.open(), asking.open(), asking.open()
    for session in (one, two, three):
        asking.acquire(session)
    assert isinstance(asking.release(two), Done)
    asking.release(one)
    assert asking.holder() == (three, 1)


def test_a_cancel_that_comes_first_leaves_a_mark_and_the_request_is_refused():
    """History 12."""
    asking = Asking()
    session = asking.open()
    asking.send(session, 2, CancelAcquire("deploy", 1, number=1))
    late = asking.send(session, 1, AcquireLock("deploy", 1, wait=True))
    assert isinstance(late, Failure)
    assert late.code == "cancelled"
    assert asking.holder() is None


def test_a_cancel_gives_back_a_grant_and_the_next_in_line_has_it_at_once():
    """History 9."""
    asking = Asking()
    one, two, three = asking.open(), asking.open(), asking.open()
    asking.acquire(one)
    asking.send(two, 1, AcquireLock("deploy", 1, wait=True))
    asking.acquire(three)
    asking.release(one)
    assert asking.holder() == (two, 1)
    asking.send(two, 2, CancelAcquire("deploy", 1, number=1))
    assert asking.holder() == (three, 1)


def test_the_web_tier_takes_locks_for_the_session_of_another():
    asking = Asking()
    own = asking.open("web")
    user = asking.ask(own, opened := _open(), "ci", "web").session
    assert opened.ttl_ms == 15_000
    granted = asking.ask(own, AcquireLock("deploy", 0, wait=False, owner=user), "ci", "web")
    assert isinstance(granted, Granted)
    assert asking.holder() == (user, 0)
    again = asking.ask(own, AcquireLock("deploy", 0, wait=False, owner=user), "ci", "web")
    assert again == granted
    assert isinstance(asking.ask(own, ReleaseLock("deploy", 0, owner=user), "ci", "web"), Done)


def _open():
    from coordinator.statemachine.commands import OpenSession

    return OpenSession(15_000, b"n" * 16)


def test_nobody_acts_for_the_session_of_another_without_the_right():
    asking = Asking()
    mine, theirs = asking.open("ci"), asking.open("narrow")
    refused = asking.ask(mine, AcquireLock("deploy", 1, wait=False, owner=theirs))
    assert refused.code == "session-gone"
    refused = asking.ask(mine, AcquireLock("deploy", 1, wait=False, owner=theirs), "narrow", "ci")
    assert refused.code == "forbidden"


@pytest.mark.parametrize("name", ["", "/x", "a\nb", "a\u2028b", "a\x7fb", "x" * 513, "\ud800"])
def test_names_that_are_none_are_refused(name):
    asking = Asking()
    try:
        refused = asking.acquire(asking.open(), name)
    except UnicodeEncodeError:
        return  # Such a name can not even be encoded.
    assert refused.code == "invalid"


def test_locks_are_listed_by_name_in_pages():
    asking = Asking()
    session = asking.open()
    for name in ("d", "b", "a", "c"):
        asking.acquire(session, name)
    page = asking.query(ListLocks(limit=3))
    assert [view.name for view in page.locks] == ["a", "b", "c"]
    assert page.held == 4
    assert [view.name for view in asking.query(ListLocks(after="c")).locks] == ["d"]


def test_tokens_outgrow_every_index_when_the_epoch_rises():
    assert fencing_token(2, 1) > fencing_token(1, 2**INDEX_BITS - 1)
    assert fencing_token(2**13 - 1, 2**INDEX_BITS - 1) == 2**53 - 1
    with pytest.raises(AssertionError):
        fencing_token(2**13, 1)


def test_an_acquisition_takes_over_what_its_session_holds_and_a_late_release_of_the_old_one_undoes_nothing():
    asking = Asking()
    session, other = asking.open(), asking.open()
    token = asking.acquire(session, acquisition=1).token
    asking.acquire(other)
    again = asking.ask(session, AcquireLock("deploy", 2, wait=False, take_over=True))
    assert again == Granted(token)
    assert asking.release(session, acquisition=1) == NotHeld()
    assert asking.holder() == (session, 2)
    asking.ask(session, ReleaseLock("deploy", ANY_ACQUISITION))
    assert asking.holder() == (other, 1)


def test_an_acquisition_takes_over_its_sessions_place_in_line():
    asking = Asking()
    one, two, three = asking.open(), asking.open(), asking.open()
    asking.acquire(one)
    asking.acquire(two, acquisition=1)
    asking.acquire(three)
    assert asking.ask(two, AcquireLock("deploy", 2, wait=True, take_over=True)) == Queued(1)
    assert asking.release(two, acquisition=1) == NotHeld()
    assert [(w.session, w.acquisition) for w in asking.query(GetLock("deploy")).waiters] == [(two, 2), (three, 1)]
    asking.release(one)
    assert asking.holder() == (two, 2)


def test_a_take_over_that_is_refused_has_taken_nothing_over():
    """It renamed the shared hold, and whoever held it could not let go of it any more."""
    asking = Asking()
    one, two = asking.open(), asking.open()
    modes: tuple[tuple[Mode, bool], ...] = (("shared", False), ("counting", False), ("shared", True))
    for mode, wait in modes:
        if wait:
            asking.ask(two, Acquire(("deploy",), 1))
        asking.ask(one, Acquire(("deploy",), 7, mode, limit=2))
        refused = asking.ask(one, AcquireLock("deploy", 99, wait=wait, take_over=True))
        assert isinstance(refused, Failure)
        assert (refused.code, mode in refused.message) == (INVALID, True)
        assert isinstance(asking.ask(one, Release(("deploy",), 7)), Done)


def test_whatever_a_session_has_of_a_name_can_be_let_go():
    asking = Asking()
    one, two = asking.open(), asking.open()
    asking.acquire(one, acquisition=77)
    asking.acquire(two, acquisition=78)
    assert isinstance(asking.ask(two, ReleaseLock("deploy", ANY_ACQUISITION)), Done)
    assert asking.ask(two, ReleaseLock("deploy", ANY_ACQUISITION)) == NotHeld()
    assert isinstance(asking.ask(one, ReleaseLock("deploy", ANY_ACQUISITION)), Done)
    assert asking.holder() is None


def test_far_back_in_a_long_line_the_place_is_an_upper_bound():
    asking = Asking()
    session = asking.open()
    asking.acquire(session, acquisition=0)
    places = [asking.acquire(session, acquisition=number).position for number in range(1, PLACES_MAX + 50)]
    assert places == list(range(1, PLACES_MAX + 50))
    assert asking.query(AwaitGrant("deploy", PLACES_MAX, session)) == Queued(PLACES_MAX)
    assert asking.query(AwaitGrant("deploy", PLACES_MAX + 10, session)) == Queued(PLACES_MAX + 49)
