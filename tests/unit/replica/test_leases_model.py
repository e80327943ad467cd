"""Leases against a model without heaps: when each session runs out, looked through from end to end every time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.replica.leases import ANOTHER_TRY_US, CHANNELS_MAX, STEP_US_MAX, Leases

SESSIONS = st.integers(1, 4)
BEGIN_US = 1_000_000
STEP_US = 50_000
"""Times are multiples of it, so that they often meet."""


class LeasesAgainstAModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(BEGIN_US)
        self.now_us = BEGIN_US
        self.lease_us = 0
        self.runs_out: dict[int, int] = {}
        self.ran_out_at: dict[int, int] = {}
        """When, on the real clock, it was first seen to have run out."""
        self.expiring: set[int] = set()
        self.tried_again: set[int] = set()
        self.counts: dict[tuple[int, str], int] = {}

    @rule(steps=st.integers(0, 6), connected=st.booleans())
    def time_passes(self, steps, connected):
        self.now_us += steps * STEP_US
        if connected:
            self.lease_us += min(steps * STEP_US, STEP_US_MAX)
        self.leases.advance(self.now_us, connected=connected)

    @rule(session=SESSIONS, steps=st.integers(1, 8))
    def renew(self, session, steps):
        done = self.leases.renew(session, steps * STEP_US // 1_000)
        assert done == (session not in self.expiring)
        if done:
            self.gives(session, steps * STEP_US)

    @rule(session=SESSIONS)
    def allow_another_try(self, session):
        self.leases.allow_another_try(session)
        if session in self.runs_out and session not in self.expiring and session not in self.tried_again:
            self.tried_again.add(session)
            if self.runs_out[session] < self.lease_us + ANOTHER_TRY_US:
                self.gives(session, ANOTHER_TRY_US)

    def gives(self, session: int, us: int) -> None:
        self.runs_out[session] = self.lease_us + us
        self.ran_out_at.pop(session, None)

    @rule(session=SESSIONS)
    def forget(self, session):
        self.leases.forget(session)
        self.runs_out.pop(session, None)
        self.ran_out_at.pop(session, None)
        self.expiring.discard(session)
        self.tried_again.discard(session)
        self.counts = {key: count for key, count in self.counts.items() if key[0] != session}

    @rule(steps_ago=st.integers(0, 6), refused=st.booleans())
    def take_expired(self, steps_ago, refused):
        confirmed_at_us = self.now_us - steps_ago * STEP_US
        for session, end_us in self.runs_out.items():
            if end_us <= self.lease_us and session not in self.expiring:
                self.ran_out_at.setdefault(session, self.now_us)
        expected = sorted(session for session, since_us in self.ran_out_at.items() if since_us <= confirmed_at_us)
        assert self.leases.take_expired(confirmed_at_us) == expected
        for session in expected:
            del self.ran_out_at[session]
            self.expiring.add(session)
        if refused:
            self.leases.proposal_refused(expected)
            for session in expected:
                self.expiring.discard(session)
                self.ran_out_at[session] = self.now_us

    @rule(session=SESSIONS, channel=st.sampled_from("ab"), count=st.integers(0, 5))
    def keep_alive(self, session, channel, count):
        expected = count > self.counts.get((session, channel), 0)
        assert self.leases.is_new(session, channel, count) is expected
        if expected:
            self.counts[session, channel] = count

    @invariant()
    def what_is_left_is_told(self):
        for session in range(1, 6):
            left_us = max(0, self.runs_out.get(session, 0) - self.lease_us)
            assert self.leases.remaining_ms(session) == left_us // 1_000

    @invariant()
    def nobody_sleeps_past_the_next_end(self):
        due_us = self.leases.deadline_in_us
        open_ = [end_us for session, end_us in self.runs_out.items() if session not in self.expiring]
        if self.ran_out_at:
            assert due_us == 10_000
        elif open_:
            assert due_us is not None
            assert 0 <= due_us <= max(0, min(open_) - self.lease_us)

    def teardown(self):
        """Whoever is not kept alive is expired, once each, by a leader that is confirmed."""
        missing = {session for session in self.runs_out if session not in self.expiring}
        seen: list[int] = []
        for _ in range(40):
            self.now_us += STEP_US_MAX
            self.leases.advance(self.now_us, connected=True)
            seen += self.leases.take_expired(self.now_us)
        assert sorted(seen) == sorted(missing)


TestLeasesAgainstAModel = LeasesAgainstAModel.TestCase
TestLeasesAgainstAModel.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_session_has_so_many_channels_and_of_more_the_one_that_was_silent_for_longest_is_forgotten():
    leases = Leases(0)
    for number in range(CHANNELS_MAX):
        assert leases.is_new(1, f"c{number}", 5)
    assert leases.is_new(1, "c0", 6), "it speaks again, and is now the last that spoke"
    assert leases.is_new(1, "one more", 1)
    assert not leases.is_new(1, "c0", 6)
    assert not leases.is_new(1, "c2", 5)
    assert leases.is_new(1, "c1", 5), "this one is not known any more"


def test_a_lease_that_nothing_holds_has_no_deadline():
    leases = Leases(0)
    assert leases.deadline_in_us is None
    leases.renew(1, 500)
    leases.advance(100_000, connected=True)
    assert leases.deadline_in_us == 400_000
    for number in range(2, 13):
        leases.advance(number * 100_000, connected=True)
    assert leases.deadline_in_us == 0
    assert leases.take_expired(0) == []
    assert leases.deadline_in_us == 10_000
