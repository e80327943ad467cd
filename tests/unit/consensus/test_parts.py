"""Quorums, the log, progress and rounds: each against its own rule, and against a simple model."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.consensus.engine import Snapshot
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration, decode_configuration, encode_configuration
from coordinator.consensus.quorum import Tally, majority, reached_by_majority, tally
from coordinator.consensus.raft import log as log_module
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import LEAST, Options, check
from coordinator.consensus.raft.progress import Progress, ProgressState
from coordinator.consensus.raft.rounds import Rounds


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 50), min_size=1, max_size=9))
def test_what_a_majority_reached_is_the_largest_value_that_a_majority_reached(values):
    reached = reached_by_majority(list(values.values()))
    assert sum(value >= reached for value in values.values()) >= majority(len(values))
    assert sum(value > reached for value in values.values()) < majority(len(values))


def test_a_cluster_without_voters_decides_nothing():
    assert reached_by_majority([]) == -1
    assert tally((), {1: True}) is Tally.LOST


@given(st.integers(1, 9), st.dictionaries(st.integers(1, 12), st.booleans()))
def test_an_election_is_won_lost_or_pending(size, votes):
    voters = tuple(range(1, size + 1))
    yes = sum(votes.get(voter) is True for voter in voters)
    no = sum(votes.get(voter) is False for voter in voters)
    outcome = tally(voters, votes)
    assert (outcome is Tally.WON) == (yes >= majority(size))
    assert (outcome is Tally.LOST) == (no > size - majority(size))


def test_a_configuration_survives_its_entry():
    configuration = Configuration((Member(7, "node1"), Member(2**62, "node2", "redis://10.0.0.2")))
    assert decode_configuration(encode_configuration(configuration)) == configuration
    assert configuration.node_of(7) == "node1"
    assert configuration.node_of(8) == ""
    with pytest.raises(ValueError, match="kind"):
        decode_configuration(b"\x01x")


def log(*terms: int, commit: int = 0) -> Log:
    return Log([*terms], [bytes([1, term]) for term in terms], commit)


def test_configurations_are_the_same_whose_members_are_and_say_who_these_are():
    one, other = (Configuration((Member(1, "node1"),), (), (Member(2, "node2"),)) for _ in range(2))
    assert {one: "found"}[other] == "found"
    assert one != Configuration(one.voters, one.learners, ())
    assert one != one.voters
    assert repr(one) == f"Configuration({one.voters!r}, (), {one.learners!r})"


def test_a_log_finds_terms_and_matches():
    held = log(1, 1, 2)
    assert [held.term_at(index) for index in range(5)] == [0, 1, 1, 2, None]
    assert held.matches(3, 2)
    assert not held.matches(3, 1)
    assert not held.matches(4, 2)


def test_committed_entries_are_never_cut_off():
    held = log(1, 1, 2, commit=2)
    with pytest.raises(AssertionError, match="committed"):
        held.truncate(2)
    held.truncate(3)
    assert held.last_index == 2
    assert held.unwritten == 3


def test_a_log_whose_commit_index_lies_behind_its_end_is_refused():
    with pytest.raises(ValueError, match="outside"):
        log(1, 1, 2, commit=4)


def test_a_log_has_as_many_terms_as_entries():
    with pytest.raises(ValueError, match="1 terms for 2 entries"):
        Log([1], [b"\x01", b"\x01"], 0)


@given(st.lists(st.integers(1, 9), max_size=20).map(sorted), st.integers(0, 25), st.integers(0, 10))
def test_a_hint_is_the_last_place_where_logs_may_agree(terms, index, term):
    held = log(*terms)
    hint, hint_term = held.conflict_hint(index, term)
    places = [i for i in range(min(index, len(terms)) + 1) if (held.term_at(i) or 0) <= term]
    assert hint == max(places)
    assert hint_term == (held.term_at(hint) or 0)


@pytest.mark.interpreted
@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=20), st.integers(0, 200), st.data())
def test_a_slice_holds_its_bytes_and_at_least_one_entry(log_entries, bytes_max, data):
    held = Log([1] * len(log_entries), log_entries, 0)
    entries = log_entries[: data.draw(st.integers(1, len(log_entries)))]
    with mock.patch.object(log_module, "_SLICE_STEP", 4):
        terms, taken = held.slice(1, len(entries), bytes_max)
    assert len(terms) == len(taken) >= 1
    assert taken == entries[: len(taken)]
    assert len(taken) == 1 or sum(map(len, taken)) <= bytes_max
    assert len(taken) == len(entries) or sum(map(len, entries[: len(taken) + 1])) > bytes_max


def test_a_slice_of_what_was_cut_off_is_refused():
    held = log(1, 1, 2)
    held.commit, held.unwritten = 3, 4
    held.compact(2)
    assert held.slice(3, 3, 100)[0] == [2]
    with pytest.raises(AssertionError, match=r"entry 2, the log begins behind 2"):
        held.slice(2, 3, 100)


@given(st.lists(st.tuples(st.sampled_from(["send", "ack", "refuse", "beat"]), st.integers(0, 30)), max_size=60))
def test_progress_keeps_match_below_next_and_never_takes_match_back(steps):
    progress = Progress(1)
    last, match = 0, 0
    for step, number in steps:
        if step == "send" and progress.may_send(4, 1_000):
            last = max(last, progress.next + number % 3)
            progress.sent(progress.next + number % 3, 10)
        elif step == "ack":
            progress.acknowledged(min(number, last))
        elif step == "refuse":
            progress.refused(number, max(0, number - 3))
        assert progress.match < progress.next
        assert progress.match >= match
        assert progress.inflight_bytes == sum(size for _, size in progress.inflight)
        match = progress.match


def test_probing_sends_one_message_and_waits():
    progress = Progress(5)
    assert progress.may_send(4, 1_000)
    progress.sent(9, 100)
    assert not progress.may_send(4, 1_000)
    progress.acknowledged(9)
    assert progress.state is ProgressState.REPLICATE
    assert progress.next == 10


def test_a_refusal_takes_nothing_back_that_was_acknowledged():
    progress = Progress(9)
    progress.acknowledged(5)
    assert (progress.state, progress.next) == (ProgressState.REPLICATE, 6)
    progress.sent(8, 10)
    progress.refused(5, 4)
    assert (progress.state, progress.next) == (ProgressState.REPLICATE, 9), "older than the acknowledgement"
    progress.refused(8, 2)
    assert (progress.state, progress.next, progress.match) == (ProgressState.PROBE, 6, 5)
    progress.acknowledged(5)
    progress.sent(11, 10)
    progress.refused(11, 30)
    assert progress.next == 11, "what was refused is not there, whatever the hint says"


def test_a_prober_listens_to_the_answer_to_its_last_probe_alone():
    progress = Progress(9)
    progress.sent(12, 10)
    for prev in (3, 7, 9):
        progress.refused(prev, 2)
        assert (progress.next, progress.probe_sent) == (9, True)
    progress.refused(8, 2)
    assert (progress.next, progress.probe_sent) == (3, False)
    progress.refused(2, 5)
    assert progress.next == 2, "one step back at the least"


def test_an_old_acknowledgement_is_no_news_and_takes_nothing_back():
    progress = Progress(1)
    progress.acknowledged(0)
    for last, size in [(2, 10), (4, 20), (6, 30)]:
        progress.sent(last, size)
    assert progress.acknowledged(4)
    assert (progress.match, progress.next, list(progress.inflight), progress.inflight_bytes) == (4, 7, [(6, 30)], 30)
    assert not progress.acknowledged(4)
    assert not progress.acknowledged(3)
    assert (progress.match, progress.next, progress.inflight_bytes) == (4, 7, 30)
    assert progress.acknowledged(8)
    assert (progress.match, progress.next, progress.inflight_bytes) == (8, 9, 0)


def test_the_window_is_bounded_by_messages_and_by_bytes():
    progress = Progress(1)
    progress.acknowledged(0)
    progress.sent(1, 40)
    assert progress.may_send(2, 41)
    assert not progress.may_send(1, 41)
    assert not progress.may_send(2, 40)


def test_while_a_snapshot_is_sent_no_entries_are():
    progress = Progress(5)
    progress.send_snapshot(Snapshot(9, 1, Configuration(()), b"data"))
    assert progress.state is ProgressState.SNAPSHOT
    assert not progress.may_send(4, 1_000)
    progress.refused(4, 2)
    assert progress.state is ProgressState.SNAPSHOT, "an old refusal takes nothing back"
    progress.acknowledged(9)
    assert (progress.state, progress.snapshot, progress.next) == (ProgressState.REPLICATE, None, 10)


def test_rounds_tell_when_the_confirmed_one_was_sent():
    rounds = Rounds(100)
    numbers = [rounds.begin(200 + 10 * i, to_all=True) for i in range(3)]
    rounds.confirm(numbers[1])
    assert rounds.confirmed_at_us == 210
    rounds.confirm(numbers[0])
    assert rounds.confirmed_at_us == 210


@pytest.mark.parametrize(
    "options",
    [
        Options(heartbeat_us=400_000),
        Options(heartbeat_us=0),
        Options(election_timeout_us_min=1_000_000),
        Options(campaign_us_min=400_000),
    ],
)
def test_times_that_break_the_algorithm_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        check(options)


def test_nothing_is_forgotten_that_is_not_on_disk_and_committed():
    held = log(1, 1, 2, 2, commit=4)
    held.unwritten = 3
    for offset in (3, 4):
        with pytest.raises(AssertionError, match="not on disk"):
            held.compact(offset)
    held.compact(2)
    assert (held.offset, held.offset_term, held.entries) == (2, 1, [b"\x01\x02", b"\x01\x02"])
    held.compact(1)
    held.compact(2)
    assert held.offset == 2, "what is forgotten stays so"
    held.unwritten, held.commit = 5, 3
    with pytest.raises(AssertionError, match="not committed"):
        held.compact(4)
    with pytest.raises(AssertionError, match="the log ends at 4"):
        held.compact(5)


def test_rounds_are_confirmed_each_once_and_a_later_answer_confirms_the_earlier_ones():
    rounds = Rounds(100)
    assert (rounds.current, rounds.confirmed, rounds.confirmed_at_us, rounds.all_sent_us) == (0, 0, 100, 100)
    assert rounds.begin(200, to_all=True) == 1
    assert rounds.begin(300, to_all=False) == 2
    assert rounds.all_sent_us == 200
    assert rounds.begin(400, to_all=True) == 3
    rounds.confirm(0)
    assert (rounds.confirmed, rounds.confirmed_at_us) == (0, 100)
    rounds.confirm(2)
    assert (rounds.confirmed, rounds.confirmed_at_us) == (2, 300)
    rounds.confirm(3)
    assert (rounds.confirmed, rounds.confirmed_at_us) == (3, 400)
    rounds.confirm(1)
    assert (rounds.confirmed, rounds.confirmed_at_us) == (3, 400)
    rounds.confirm(9)
    assert (rounds.confirmed, rounds.confirmed_at_us) == (9, 400)


def test_options_at_their_bounds_are_good():
    for good in (
        Options(heartbeat_us=300_000),
        Options(heartbeat_us=1),
        Options(election_timeout_us_max=600_001),
        Options(campaign_us_min=1, campaign_us_max=2),
    ):
        check(good)
    for bad in (
        Options(heartbeat_us=300_001),
        Options(election_timeout_us_max=600_000),
        Options(campaign_us_min=0),
        Options(campaign_us_max=150_000),
    ):
        with pytest.raises(ValueError, match="must be"):
            check(bad)


def changed(values: dict[str, Any]) -> Options:
    return Options()._replace(**values)


@pytest.mark.parametrize(("name", "least"), sorted(LEAST.items()))
def test_an_option_below_its_least_is_refused_and_at_it_is_not(name, least):
    with pytest.raises(ValueError, match=rf"^{name} must be at least {least}, got {least - 1}$"):
        check(changed({name: least - 1}))
    with pytest.raises(ValueError, match=rf"^{name} must be at least {least}, got -5$"):
        check(changed({name: -5}))
    others: dict[str, dict[str, Any]] = {
        "election_timeout_us_min": {"heartbeat_us": 1, "lease_drift_share": 2, "election_timeout_us_min": 2},
        "election_timeout_us_max": {
            "heartbeat_us": 1,
            "lease_drift_share": 2,
            "election_timeout_us_min": 2,
            "election_timeout_us_max": 3,
        },
        "campaign_us_max": {"campaign_us_min": 1},
    }
    check(changed({name: least} | others.get(name, {})))


def test_every_option_has_a_least_but_the_one_that_is_no_number():
    assert set(LEAST) == set(Options._fields) - {"lease_reads"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(heartbeat_us=300_001), "at most half of election_timeout_us_min, 600000, got 300001"),
        (Options(election_timeout_us_max=600_000), "above election_timeout_us_min, 600000, got 600000"),
        (Options(campaign_us_max=150_000), "above campaign_us_min, 150000, got 150000"),
        (Options(lease_drift_share=600_001), "at most election_timeout_us_min, 600000, got 600001"),
        (Options(lease_drift_share=1), "at least 2, got 1"),
        (Options(lease_drift_share=0), "at least 2, got 0"),
    ],
)
def test_a_refusal_of_options_says_what_was_expected_and_what_came(options, words):
    with pytest.raises(ValueError, match=f" must be {words}$"):
        check(options)


def test_bounds_that_are_small_or_beside_one_another_are_good():
    check(Options(message_bytes_max=1, inflight_messages_max=1, inflight_bytes_max=1, uncommitted_bytes_max=1))
    check(Options(snapshot_chunk_bytes=1_000, snapshot_window_bytes=64))
    check(Options(lease_drift_share=600_000))
