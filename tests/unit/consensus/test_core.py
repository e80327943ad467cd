"""What a host sees of a replica: its state at the start, its deadlines, the order of turn and disk, what it refuses."""

from __future__ import annotations

from random import Random

import pytest

from coordinator.consensus.engine import HardState, Role, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX, NOOP_ENTRY, payload_bytes
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse, VoteRequest
from coordinator.consensus.raft.options import Options
from coordinator.consensus.raft.reads import Reads
from tests.unit.consensus.play import OPTIONS, Play

MEMBERS = tuple(Member(replica, f"node{replica}") for replica in (1, 2, 3))
FIRST = encode_configuration(Configuration(MEMBERS))


def started(replica: int = 1, now_us: int = 5_000, **given: object) -> Raft:
    wanted: dict = {
        "hard_state": HardState(4, 2, 1),
        "log": Log([1, 4], [FIRST, b"\x01a"], 1),
        "options": OPTIONS,
        "random": Random(1),
        **given,
    }
    return Raft(replica, wanted.pop("hard_state"), wanted.pop("log"), now_us=now_us, **wanted)


def snapshot_of(index: int) -> Snapshot:
    return Snapshot(index, 3, Configuration(MEMBERS), b"")


def test_a_replica_starts_as_a_follower_that_remembers_its_journal_and_owes_nobody_anything():
    """Raft, figure 2: what is persistent is as it was, what is volatile is at its beginning."""
    raft = started()
    assert (raft.term, raft.vote, raft.commit_index, raft.last_index) == (4, 2, 1, 2)
    assert (raft.role, raft.leader, raft.heard_at_us, raft.campaign_reason) == (Role.FOLLOWER, 0, None, "")
    assert (raft.votes, raft.votes_granted, raft.progress) == ({}, 0, {})
    assert (raft.rounds.current, raft.rounds.confirmed, raft.rounds.confirmed_at_us) == (0, 0, 5_000)
    assert (raft.term_start_index, raft.led_since_us, raft.uncommitted_bytes) == (0, 0, 0)
    assert (raft.transferring, raft.lease_given_up) == (None, False)
    assert (raft.snapshot, raft.incoming, raft.installed, raft.keep_tail) == (None, None, None, False)
    assert (raft.applied_index, raft.applied_own_term, raft.may_answer) == (0, False, False)
    assert raft.configuration == Configuration(MEMBERS)
    assert raft.is_voter
    assert raft.ready(5_000) == ([], [], None, 3, [], [], None, False)


def test_a_replica_starts_from_its_snapshot_which_may_be_ahead_of_what_the_journal_says_of_the_commit_index():
    snapshot = snapshot_of(7)
    raft = started(log=Log([3, 4], [b"\x01x", b"\x01y"], 7, 6, 3), snapshot=snapshot)
    assert (raft.applied_index, raft.commit_index, raft.first_index, raft.last_index) == (7, 7, 7, 8)
    assert raft.configuration_at(7) == raft.configuration == Configuration(MEMBERS)
    raft.log.commit = 8
    assert raft.take_committed(1 << 20) == (8, [4], [b"\x01y"])
    behind = started(log=Log([3, 4], [b"\x01x", b"\x01y"], 6, 6, 3), snapshot=snapshot)
    assert behind.commit_index == 7, "what a snapshot holds is committed"


@pytest.mark.parametrize("replica", [0, -1])
def test_an_identity_is_a_positive_number(replica):
    with pytest.raises(ValueError, match="positive integer"):
        started(replica)


def test_options_that_break_the_algorithm_are_refused_at_the_start():
    with pytest.raises(ValueError, match="heartbeat_us"):
        started(options=Options(heartbeat_us=500_000))


def test_what_a_start_draws_lies_in_its_bounds():
    """Raft, section 5.2: time-outs are drawn anew, so that no two replicas always collide."""
    dues = {started(random=Random(seed)).election_due_us - 5_000 for seed in range(200)}
    assert OPTIONS.election_timeout_us_min <= min(dues)
    assert max(dues) < OPTIONS.election_timeout_us_max
    assert len(dues) > 150


def test_a_deadline_is_the_next_heartbeat_of_a_leader_and_the_election_of_others():
    play = Play()
    leader = play.elect(1)
    follower = play.replicas[2]
    assert leader.deadline_us == leader.rounds.all_sent_us + OPTIONS.heartbeat_us
    assert follower.deadline_us == follower.election_due_us
    play.now_us = leader.deadline_us - 1
    sent = leader.rounds.all_sent_us
    play.settle()
    assert leader.rounds.all_sent_us == sent
    play.now_us += 1
    play.settle()
    assert leader.rounds.all_sent_us == play.now_us == sent + OPTIONS.heartbeat_us


def test_a_replica_does_not_listen_to_itself():
    raft = started()
    raft.step(1, VoteRequest(9, 9, 9, pre=False, campaign=1), 5_000)
    assert (raft.term, raft.late) == (4, [])


def test_a_message_of_no_known_kind_changes_nothing():
    """Kinds are added at the end: a newer replica may send one that this one does not know."""
    raft = started()
    raft.step(2, (), 5_000)  # type: ignore[arg-type]
    assert raft.ready(5_000) == ([], [], None, 3, [], [], None, False)


def test_the_tail_for_people_is_the_end_of_the_log_committed_or_not():
    raft = started(log=Log([3, 3, 4], [b"\x01a", b"\x01b", b"\x01c"], 5, 5, 3), snapshot=snapshot_of(5))
    assert raft.tail(2) == (7, [3, 4], [b"\x01b", b"\x01c"])
    assert raft.tail(3) == raft.tail(100) == (6, [3, 3, 4], [b"\x01a", b"\x01b", b"\x01c"])
    assert raft.tail(0) == (9, [], [])


def test_terms_are_told_of_what_the_log_holds_and_of_the_entry_before():
    raft = started(log=Log([3, 4], [b"\x01a", b"\x01b"], 5, 5, 2), snapshot=snapshot_of(5))
    assert [raft.term_at(index) for index in (5, 6, 7)] == [2, 3, 4]
    for index in (4, 8):
        with pytest.raises(AssertionError, match="no entry"):
            raft.term_at(index)


def test_committed_entries_are_handed_out_once_in_order_and_in_parts():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    applied = leader.applied_index
    leader.propose([COMMAND_PREFIX + bytes(99)] * 5)
    for follower in (2, 3):
        answer = AppendResponse(leader.term, 1, success=True, match=leader.last_index, hint_index=0, hint_term=0)
        leader.ready(play.now_us)
        leader.step(follower, answer, play.now_us)
    assert leader.commit_index == applied + 5
    first, second, third, none = (leader.take_committed(200) for _ in range(4))
    assert [len(taken.entries) for taken in (first, second, third, none)] == [2, 2, 1, 0]
    assert [taken.first_index for taken in (first, second, third)] == [applied + 1, applied + 3, applied + 5]
    assert leader.applied_index == applied + 5


def test_what_is_given_back_is_handed_out_again():
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a")
    play.settle()
    applied = leader.applied_index
    leader.propose([COMMAND_PREFIX + bytes([number]) for number in range(3)])
    for follower in (2, 3):
        answer = AppendResponse(leader.term, 1, success=True, match=leader.last_index, hint_index=0, hint_term=0)
        leader.ready(play.now_us)
        leader.step(follower, answer, play.now_us)
    taken = leader.take_committed(1 << 20)
    leader.give_back(2)
    assert leader.applied_index == applied + 1
    assert leader.take_committed(1 << 20) == (applied + 2, taken.terms[1:], taken.entries[1:])


def test_an_election_is_told_by_its_votes():
    play = Play(size=5)
    leader = play.elect(1)
    assert leader.votes_granted == 3, "the rest came too late to count"
    assert play.replicas[2].votes_granted == 0


def test_a_hard_state_is_written_where_a_promise_or_an_entry_is_and_not_for_the_commit_index_alone():
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a")
    play.settle()
    follower = play.replicas[2]
    before = play.disks[2].hard_state
    beat = AppendEntries(leader.term, leader.last_index, leader.term, leader.commit_index, 99, [], [])
    follower.step(1, beat, play.now_us)
    assert follower.commit_index > before.commit
    ready = follower.ready(play.now_us)
    assert ready.hard_state is None
    follower.persisted(ready)
    follower.step(3, VoteRequest(9, 99, 9, pre=False, campaign=1, transfer=True), play.now_us)
    ready = follower.ready(play.now_us)
    assert ready.hard_state == HardState(9, 3, leader.commit_index)
    follower.persisted(ready)
    assert follower.ready(play.now_us).hard_state is None, "once is enough"


def test_a_vote_in_the_term_that_is_on_disk_is_written_before_it_leaves():
    raft = started(hard_state=HardState(4, 0, 1))
    raft.step(3, VoteRequest(4, 9, 4, pre=False, campaign=1), 5_000)
    ready = raft.ready(5_000)
    assert ready.hard_state == HardState(4, 3, 1)
    assert ready.early == []
    assert [receiver for receiver, _ in ready.late] == [3]


def test_who_leads_takes_what_is_proposed_at_the_next_index():
    play = Play()
    leader = play.elect(1)
    assert leader.log.entries[leader.term_start_index - 1] == NOOP_ENTRY
    assert leader.propose([b"\x01a", b"\x01b"]) == leader.term_start_index + 1
    assert leader.propose([b"\x01c"]) == leader.last_index == leader.term_start_index + 3
    assert leader.log.terms[-3:] == [leader.term] * 3


def test_the_bound_of_uncommitted_bytes_counts_what_is_proposed_and_not_yet_committed():
    play = Play(options=Options(uncommitted_bytes_max=100))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    assert leader.propose([bytes([1]) * 31, bytes([1]) * 31]) is not None
    assert leader.uncommitted_bytes == 60, "the first byte of an entry is no payload"
    assert leader.propose([bytes([1]) * 42]) is None
    assert leader.propose([bytes([1]) * 41]) is not None
    assert leader.uncommitted_bytes == 100
    assert leader.propose([b"\x01a"]) is None
    play.heal()
    play.pass_time(200_000)
    assert leader.uncommitted_bytes == 0
    assert leader.propose([bytes([1]) * 5_000]) is not None, "what is larger than the bound still goes alone"


def test_the_bound_of_uncommitted_bytes_never_refuses_what_is_empty():
    play = Play(options=Options(uncommitted_bytes_max=100))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    leader.propose([bytes([1]) * 5_000])
    before = leader.last_index
    assert leader.propose([b"\x01a"]) is None
    assert leader.propose([b"\x01", b"\x01"]) == before + 1
    assert leader.propose([]) == before + 3
    assert leader.last_index == before + 2
    assert leader.uncommitted_bytes == 4_999


def test_what_is_committed_no_longer_counts_and_what_is_not_still_does():
    play = Play(options=Options(uncommitted_bytes_max=100))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.propose(1, "a" * 20, "b" * 30)
    play.lost = lambda letter: letter.receiver == 1 and letter.message.match > leader.term_start_index + 2
    play.turn(1)
    play.propose(1, "c" * 40)
    play.settle()
    assert len(play.words(1)) == 2
    assert leader.uncommitted_bytes == 40


def uncommitted(raft):
    """The payload behind a leader's commit index, counted anew."""
    return payload_bytes(raft.log.entries[raft.commit_index - raft.log.offset :])


def test_a_new_leader_counts_the_uncommitted_bytes_that_it_inherits():
    play = Play(options=Options(uncommitted_bytes_max=100))
    first = play.elect(1)
    play.pass_time(100_000)
    play.lost = lambda letter: isinstance(letter.message, AppendResponse)
    first.propose([bytes([1]) * 41, bytes([1]) * 51])
    play.settle()
    second = play.elect(2)
    assert first.uncommitted_bytes == 0, "who leads no more counts none"
    assert second.uncommitted_bytes == uncommitted(second) == 90
    assert second.propose([bytes([1]) * 12]) is None
    assert second.propose([b"\x01"]) is not None, "what is empty is never refused"
    assert second.propose([bytes([1]) * 11]) is not None
    assert second.uncommitted_bytes == uncommitted(second) == 100
    play.heal()
    play.pass_time(200_000)
    assert second.uncommitted_bytes == uncommitted(second) == 0
    assert second.propose([bytes([1]) * 91]) is not None


def test_a_new_leader_counts_what_is_behind_its_commit_index_and_nothing_before_though_its_log_was_cut():
    play = Play(options=Options(uncommitted_bytes_max=100))
    play.elect(1)
    play.pass_time(100_000)
    play.propose(1, "a" * 30)
    play.pass_time(100_000)
    play.snapshot(2)
    assert play.replicas[2].log.offset > 1
    play.propose(1, "b" * 40)
    play.pass_time(100_000)
    play.lost = lambda letter: isinstance(letter.message, AppendResponse)
    play.propose(1, "c" * 20)
    play.settle()
    second = play.elect(2)
    assert second.uncommitted_bytes == uncommitted(second) == 20


def test_a_leader_counts_the_configurations_that_it_writes_as_it_takes_them_off():
    play = Play(options=Options(uncommitted_bytes_max=1_000, message_bytes_max=1))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    leader.propose([bytes([1]) * 901])
    before = leader.uncommitted_bytes
    index = leader.change(Change(MEMBERS, (Member(9, "node9"),)), play.now_us)
    assert leader.uncommitted_bytes == uncommitted(leader) > before == 900
    assert leader.propose([bytes([1]) * 101]) is None
    play.lost = lambda letter: letter.receiver == 1 and letter.message.match >= index
    play.pass_time(100_000)
    assert leader.commit_index == index - 1
    assert leader.uncommitted_bytes == uncommitted(leader) > 0
    play.heal()
    play.pass_time(200_000)
    assert leader.uncommitted_bytes == uncommitted(leader) == 0


def test_who_does_not_lead_steps_down_from_nothing():
    play = Play()
    play.elect(1)
    follower = play.replicas[2]
    before = (follower.term, follower.leader, follower.election_due_us)
    follower.step_down(play.now_us)
    assert (follower.term, follower.leader, follower.election_due_us) == before
    assert follower.early == []


def test_who_leads_alone_steps_down_and_tells_nobody():
    play = Play(size=1)
    play.pass_time(1_100_000)
    lone = play.replicas[1]
    term = lone.term
    lone.step_down(play.now_us)
    assert (lone.role, lone.term, lone.leader, lone.early) == (Role.FOLLOWER, term, 0, [])


def test_a_snapshot_of_what_is_not_applied_is_refused():
    raft = started()
    with pytest.raises(AssertionError, match="applied is 0"):
        raft.compact(Snapshot(1, 1, Configuration(MEMBERS), b""), 1)


def test_entries_go_behind_the_last_one_and_nowhere_else():
    raft = started()
    for index in (2, 4):
        with pytest.raises(AssertionError, match="behind 2"):
            raft.append(index, [4], [b"\x01"])


def test_the_configuration_at_an_index_is_the_last_one_up_to_it():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    before = leader.configuration
    at = leader.change(Change(MEMBERS, (Member(9, "node9"),)), play.now_us)
    assert leader.configuration_at(at - 1) == before
    assert leader.configuration_at(at) == leader.configuration_at(at + 5) == leader.configuration != before


def test_a_truncation_takes_back_exactly_the_configurations_that_it_cuts_off():
    raft = started(log=Log([1, 4], [FIRST, b"\x01a"], 1))
    second = encode_configuration(Configuration(MEMBERS[:2]))
    third = encode_configuration(Configuration(MEMBERS[:1]))
    raft.append(3, [4, 4, 4], [second, b"\x01b", third])
    assert raft.configuration == Configuration(MEMBERS[:1])
    raft.truncate(5)
    assert raft.configuration == Configuration(MEMBERS[:2])
    raft.truncate(4)
    assert raft.configuration == Configuration(MEMBERS[:2])
    raft.truncate(3)
    assert raft.configuration == Configuration(MEMBERS)


def test_leadership_lost_takes_with_it_what_only_a_leader_knows():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    leader.read()
    leader.propose([b"\x01a"])
    leader.transfer(2, play.now_us)
    play.settle()
    leader.step(3, VoteRequest(9, 99, 9, pre=False, campaign=1, transfer=True), play.now_us)
    assert (leader.role, leader.progress, leader.transferring) == (Role.FOLLOWER, {}, None)
    assert leader.uncommitted_bytes == 0
    assert not leader.reads.needs_round(0)
    assert leader.take_reads() == []


def test_a_question_of_reads_is_named_by_a_number_of_this_start():
    assert Reads(7).boot == 7
    first, second = started(random=Random(1)), started(random=Random(2))
    assert first.reads.boot != second.reads.boot
    assert first.campaign != second.campaign
