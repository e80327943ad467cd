"""The leases of sessions, as the leader counts them: histories 1, 3 and 11."""

from __future__ import annotations

from coordinator.replica.leases import LOOKS_MAX, STEP_US_MAX, Leases

STEP_US = 20_000


def passing(leases: Leases, since_us: int, us: int, *, connected: bool = True) -> int:
    """Turn after turn for `us`; the time then."""
    for now_us in range(since_us + STEP_US, since_us + us + 1, STEP_US):
        leases.advance(now_us, connected=connected)
    return since_us + us


def test_a_lease_runs_out_after_its_time_to_live_and_not_before():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 980_000)
    assert leases.take_expired(now_us) == []
    assert leases.remaining_ms(5) == 20
    now_us = passing(leases, now_us, 40_000)
    assert leases.take_expired(now_us) == [5]


def test_a_keep_alive_gives_the_full_time_again():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 900_000)
    assert leases.renew(5, 1_000)
    now_us = passing(leases, now_us, 900_000)
    assert leases.take_expired(now_us) == []
    assert leases.remaining_ms(5) == 100


def test_a_lease_that_ran_out_is_not_expired_by_a_leader_unconfirmed_since():
    leases = Leases(0)
    leases.renew(5, 1_000)
    ran_out_us = passing(leases, 0, 1_000_000)
    assert leases.take_expired(ran_out_us - 1) == []
    passing(leases, ran_out_us, 500_000)
    assert leases.take_expired(ran_out_us - 1) == []
    assert leases.take_expired(ran_out_us) == [5]


def test_a_keep_alive_that_comes_before_the_proposal_saves_the_session():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 1_100_000)
    leases.take_expired(0)
    assert leases.renew(5, 1_000)
    assert leases.take_expired(now_us) == []


def test_from_the_proposal_of_an_expiry_no_keep_alive_is_answered():
    """History 11."""
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 1_100_000)
    assert leases.take_expired(now_us) == [5]
    assert not leases.renew(5, 1_000)
    assert leases.take_expired(now_us) == [], "proposed once"
    leases.forget(5)
    assert leases.renew(5, 1_000)


def test_a_proposal_that_is_refused_is_made_again():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 1_100_000)
    leases.proposal_refused(leases.take_expired(now_us))
    assert leases.take_expired(now_us) == [5]


def test_a_stall_is_added_to_every_lease():
    """History 3: a leader that slept for a minute finds every deadline in the past, and the keep-alives unread."""
    leases = Leases(0)
    for session in range(1, 50):
        leases.renew(session, 10_000)
    leases.advance(60_000_000, connected=True)
    assert leases.take_expired(60_000_000) == []
    assert leases.remaining_ms(7) == 10_000 - STEP_US_MAX // 1_000


def test_time_stands_still_while_the_node_is_deaf():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 30_000_000, connected=False)
    assert leases.remaining_ms(5) == 1_000
    now_us = passing(leases, now_us, 1_000_000)
    assert leases.take_expired(now_us) == [5]


def test_a_thousand_keep_alives_leave_no_trace_behind():
    leases = Leases(0)
    for _ in range(10_000):
        leases.renew(5, 1_000)
    assert len(leases._heap) < 200


def test_the_next_deadline_is_told():
    leases = Leases(0)
    assert leases.deadline_in_us is None
    leases.renew(5, 1_000)
    leases.renew(6, 500)
    assert leases.deadline_in_us == 500_000
    leases.forget(6)
    passing(leases, 0, 600_000)
    leases.take_expired(0)
    assert leases.deadline_in_us == 400_000


def test_a_keep_alive_for_another_leadership_buys_the_time_to_ask_again_and_only_once():
    leases = Leases(0)
    leases.renew(5, 1_000)
    now_us = passing(leases, 0, 980_000)
    leases.allow_another_try(5)
    now_us = passing(leases, now_us, 180_000)
    assert leases.take_expired(now_us) == []
    leases.allow_another_try(5)
    now_us = passing(leases, now_us, 40_000)
    assert leases.take_expired(now_us) == [5]


def test_a_hundred_thousand_that_are_due_at_once_are_looked_at_in_several_turns():
    leases = Leases(0)
    leases.begin(dict.fromkeys(range(1, LOOKS_MAX + 3), 1_000))
    now_us = passing(leases, 0, 1_000_000)
    assert leases.take_expired(now_us) == [*range(1, LOOKS_MAX + 1)]
    assert leases.deadline_in_us == 0
    assert leases.take_expired(now_us) == [LOOKS_MAX + 1, LOOKS_MAX + 2]
    assert leases.deadline_in_us is None
