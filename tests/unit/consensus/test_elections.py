"""Raft, sections 5.1, 5.2 and 5.4.1; thesis, sections 4.2.3, 6.2 and 9.6; the crash hint."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft.elections import become_follower
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse, VoteRequest, VoteResponse
from tests.unit.consensus.play import OPTIONS, Letter, Play


def test_a_majority_elects_one_leader_and_everyone_follows_it():
    play = Play()
    leader = play.elect(2)
    assert [raft.leader for raft in play.replicas.values()] == [2, 2, 2]
    assert {raft.term for raft in play.replicas.values()} == {leader.term} == {2}


def test_a_lone_voter_elects_itself():
    play = Play(size=1)
    play.pass_time(1_100_000)
    assert play.replicas[1].role is Role.LEADER
    play.propose(1, "a")
    play.settle()
    assert play.words(1) == ["a"]


def test_silence_ends_in_an_election_within_the_time_out():
    play = Play()
    play.elect(1)
    play.crash(1)
    play.pass_time(OPTIONS.election_timeout_us_max + 2 * OPTIONS.campaign_us_max)
    assert play.leader is not None
    assert play.leader.replica in {2, 3}


def test_who_stood_still_itself_waits_so_much_longer_for_its_leader():
    """Its loyalty ends as before: that is a voter's, and this a candidate's."""
    play = Play()
    play.elect(1)
    follower = play.replicas[2]
    due_us, heard_at_us = follower.election_due_us, follower.heard_at_us
    follower.stood_still(5_000_000)
    follower.tick(due_us + 4_999_999)
    assert (follower.role, follower.heard_at_us) == (Role.FOLLOWER, heard_at_us)
    follower.tick(due_us + 5_000_000)
    assert follower.role is Role.PRE_CANDIDATE


def test_a_candidate_that_stood_still_waits_so_much_longer_for_votes():
    play = Play()
    candidate = play.start(1, seed=7)
    candidate.tick(candidate.election_due_us)
    due_us = candidate.election_due_us
    candidate.stood_still(5_000_000)
    assert candidate.election_due_us == due_us + 5_000_000


def test_who_saw_its_leader_fall_silent_does_not_wait_longer_because_it_stood_still():
    play = Play()
    play.elect(1)
    follower = play.replicas[3]
    follower.suspect(1, play.now_us)
    due_us = follower.election_due_us
    follower.stood_still(5_000_000)
    assert follower.election_due_us == due_us


def test_a_leader_that_stood_still_and_is_answered_by_nobody_steps_down_as_soon_as_ever():
    """Check-quorum counts by the clock: whoever stood still may have been replaced."""
    play = Play()
    leader = play.elect(1)
    due_us = leader.rounds.confirmed_at_us + OPTIONS.election_timeout_us_min + 1
    leader.stood_still(5_000_000)
    leader.tick(due_us)
    assert leader.role is Role.FOLLOWER


def test_a_vote_is_given_once_a_term_and_survives_a_restart():
    play = Play()
    voter = play.replicas[3]
    voter.step(1, VoteRequest(5, 1, 1, pre=False, campaign=1), 0)
    play.turn(3)
    play.crash(3)
    voter = play.start(3)
    assert (voter.term, voter.vote) == (5, 1)
    voter.step(2, VoteRequest(5, 1, 1, pre=False, campaign=1), 0)
    play.turn(3)
    assert play.post[-1] == Letter(3, 2, VoteResponse(5, granted=False, pre=False, campaign=1))


def test_a_vote_holds_whose_turn_ended_in_a_later_term():
    """The disk has no word of it, and needs none: in the later term nobody else is voted for in the one before."""
    play = Play()
    voter = play.replicas[3]
    voter.step(1, VoteRequest(5, 1, 1, pre=False, campaign=1), 0)
    voter.step(2, VoteRequest(6, 1, 1, pre=False, campaign=1), 0)
    play.turn(3)
    assert play.post[-2:] == [
        Letter(3, 1, VoteResponse(5, granted=True, pre=False, campaign=1)),
        Letter(3, 2, VoteResponse(6, granted=True, pre=False, campaign=1)),
    ]
    play.crash(3)
    voter = play.start(3)
    assert (voter.term, voter.vote) == (6, 2)
    voter.step(2, VoteRequest(5, 1, 1, pre=False, campaign=1), 0)
    play.turn(3)
    assert play.post[-1] == Letter(3, 2, VoteResponse(6, granted=False, pre=False, campaign=1))


def test_a_vote_leaves_only_after_the_journal():
    play = Play()
    play.replicas[3].step(1, VoteRequest(5, 1, 1, pre=False, campaign=1), 0)
    play.turn(3, write=False)
    assert play.post == []
    assert play.disks[3].hard_state.term == 1


def test_a_candidate_with_an_older_log_gets_no_vote():
    """Raft, section 5.4.1."""
    play = Play()
    play.elect(1)
    play.isolate(3)
    play.propose(1, "a")
    play.settle()
    play.heal()
    play.crash(1)
    play.replicas[2].heard_at_us = None
    play.replicas[2].election_due_us = 1 << 60
    stale = play.replicas[3]
    stale.election_due_us = play.now_us
    play.settle()
    assert stale.role is not Role.LEADER
    assert stale.term == play.replicas[2].term, "a pre-vote that fails raises no term"


def test_a_pre_vote_changes_nothing_at_the_voter():
    """Thesis, section 9.6."""
    play = Play()
    voter = play.replicas[3]
    voter.step(1, VoteRequest(9, 1, 1, pre=True, campaign=1), 0)
    play.turn(3)
    assert (voter.term, voter.vote) == (1, 0)
    assert play.post[-1].message == VoteResponse(9, granted=True, pre=True, campaign=1)


def test_a_voter_that_hears_its_leader_helps_nobody_depose_it():
    """Thesis, section 4.2.3."""
    play = Play()
    play.elect(1)
    play.replicas[2].step(3, VoteRequest(7, 99, 9, pre=False, campaign=1), play.now_us)
    play.turn(2)
    assert play.replicas[2].term == 2
    assert not [letter for letter in play.post if isinstance(letter.message, VoteResponse)]


def test_a_replica_that_was_cut_off_comes_back_without_deposing_the_leader():
    play = Play()
    leader = play.elect(1)
    play.isolate(3)
    play.pass_time(5_000_000)
    play.heal()
    play.pass_time(1_000_000)
    assert leader.role is Role.LEADER
    assert {raft.term for raft in play.replicas.values()} == {leader.term}


def test_a_pre_candidate_that_fell_behind_learns_the_higher_term():
    """etcd#8501 and etcd#8243: with pre-vote a replica with a higher term and an older log must not block for ever."""
    play = Play()
    play.elect(1)
    play.isolate(3)
    play.propose(1, "a")
    play.settle()
    play.heal()
    high = play.replicas[3]
    high.term, high.vote, high.role, high.leader = 9, 3, Role.CANDIDATE, 0  # As after elections that it lost.
    play.crash(1)
    play.pass_time(6_000_000)
    assert play.leader is not None
    assert play.leader.replica == 2
    assert play.leader.term > 9


def test_a_leader_that_nobody_answers_steps_down():
    """Check-quorum; history 13."""
    play = Play()
    leader = play.elect(1)
    play.lost = lambda letter: letter.receiver == 1  # Deaf: it still speaks, and keeps the others quiet.
    play.pass_time(OPTIONS.election_timeout_us_min + 100_000)
    assert leader.role is not Role.LEADER
    play.pass_time(3_000_000)
    assert play.leader is not None
    assert play.leader.replica != 1


def test_check_quorum_counts_from_the_sending_of_the_round():
    """And not from its answer, which may come much later."""
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.now_us = leader.deadline_us
    play.turn(1)
    sent_us, number = play.now_us, leader.rounds.current
    assert leader.rounds.all_sent_us == sent_us
    for follower in (2, 3):
        answer = AppendResponse(leader.term, number, success=True, match=leader.last_index, hint_index=0, hint_term=0)
        leader.step(follower, answer, sent_us + 200_000)
    assert leader.confirmed_at_us == sent_us
    roles = []
    for late_us in (0, 1):
        leader.tick(sent_us + OPTIONS.election_timeout_us_min + late_us)
        roles.append(leader.role)
    assert roles == [Role.LEADER, Role.FOLLOWER]


def test_the_hint_starts_an_election_at_once():
    play = Play()
    play.elect(3)
    play.crash(3)
    for replica in (1, 2):
        play.replicas[replica].suspect(3, play.now_us)
    play.pass_time(50_000, step_us=1_000)
    assert play.leader is not None
    assert play.leader.replica == 1, "the first in rank starts first"
    assert play.leader.campaign_reason == "channel fell silent"


def test_the_hint_of_one_does_not_free_another_from_its_loyalty():
    """History 2: a voter lets stickiness go only on what it saw itself."""
    play = Play()
    play.elect(3)
    play.replicas[1].suspect(3, play.now_us)
    play.replicas[1].tick(play.now_us)
    play.settle()
    assert play.leader is play.replicas[3]
    assert play.replicas[2].role is Role.FOLLOWER
    assert play.replicas[2].leader == 3


def test_a_false_hint_is_forgotten_when_the_leader_speaks():
    play = Play()
    leader = play.elect(1)
    follower = play.replicas[3]
    follower.suspect(1, play.now_us)
    assert follower.heard_at_us is None
    beat = AppendEntries(leader.term, leader.last_index, leader.term, leader.commit_index, 99, [], [])
    follower.step(1, beat, play.now_us)
    assert follower.heard_at_us == play.now_us
    assert follower.campaign_reason == ""
    assert follower.election_due_us > play.now_us + OPTIONS.election_timeout_us_min - 1


def test_a_hint_about_somebody_else_means_nothing():
    play = Play()
    play.elect(1)
    follower = play.replicas[3]
    due_us = follower.election_due_us
    follower.suspect(2, play.now_us)
    assert (follower.election_due_us, follower.leader) == (due_us, 1)


def test_a_vote_that_is_refused_does_not_postpone_the_voters_own_election():
    play = Play()
    play.elect(1)
    play.isolate(3)
    play.propose(1, "a")
    play.settle()
    play.crash(1)
    play.heal()
    voter = play.replicas[2]
    voter.heard_at_us = None
    voter.election_due_us = play.now_us + 5_000
    voter.step(3, VoteRequest(8, 1, 1, pre=False, campaign=4), play.now_us)
    assert voter.term == 8
    assert voter.election_due_us == play.now_us + 5_000


def test_answers_to_an_earlier_campaign_do_not_count():
    play = Play(size=5)
    candidate = play.replicas[1]
    candidate.election_due_us = 0
    candidate.tick(0)
    candidate.step(2, VoteResponse(2, granted=True, pre=True, campaign=candidate.campaign - 1), 0)
    candidate.step(3, VoteResponse(2, granted=True, pre=True, campaign=candidate.campaign - 1), 0)
    assert candidate.role is Role.PRE_CANDIDATE


def role(play: Play, replica: int) -> Role:
    return play.replicas[replica].role


def campaigning(play: Play, replica: int) -> None:
    for other in play.replicas.values():
        other.heard_at_us = None
        other.election_due_us = play.now_us + 10_000_000
    play.replicas[replica].election_due_us = play.now_us
    play.turn(replica)


def test_a_vote_of_an_older_term_does_not_count_in_a_later_one():
    """A voter that was stopped answers the candidate's next life: two leaders in one term, were it to count."""
    play = Play()
    campaigning(play, 1)
    for _ in range(3):
        play.deliver()
    late = [x for x in play.post if isinstance(x.message, VoteResponse) and not x.message.pre]
    assert [(x.message.term, x.message.granted) for x in late] == [(2, True)] * 2
    play.crash(1)
    candidate = play.start(1)
    play.now_us += 2_000_000
    campaigning(play, 1)
    play.deliver()
    play.deliver()
    assert (candidate.role, candidate.term) == (Role.CANDIDATE, 3)
    for letter in late:
        assert isinstance(letter.message, VoteResponse)
        for campaign in (letter.message.campaign, candidate.campaign):
            candidate.step(letter.sender, letter.message._replace(campaign=campaign), play.now_us)
    assert candidate.role is Role.CANDIDATE


def test_the_number_of_a_campaign_does_not_repeat_over_a_restart():
    play = Play()
    first = play.replicas[1].campaign
    play.crash(1)
    assert play.start(1, seed=77).campaign != first


def test_two_leaders_of_one_term_are_a_defect_that_stops_the_replica():
    """Election safety (Raft, figure 3): this can not be, and nothing may go on as if it were nothing."""
    play = Play()
    leader = play.elect(1)
    with pytest.raises(AssertionError, match="two leaders in term 2"):
        leader.step(2, AppendEntries(2, 1, 1, 1, 1, [], []), play.now_us)
    assert leader.role is Role.LEADER


def test_a_term_never_falls():
    play = Play()
    leader = play.elect(1)
    with pytest.raises(AssertionError, match="may not fall from 2 to 1"):
        become_follower(leader, 1, 2, play.now_us)


def test_a_candidate_that_follows_counts_no_votes_any_more():
    play = Play(size=5)
    campaigning(play, 1)
    candidate = play.replicas[1]
    assert candidate.votes_granted == 1
    candidate.step(2, AppendEntries(3, 1, 1, 1, 1, [], []), play.now_us)
    assert (candidate.role, candidate.leader, candidate.votes_granted) == (Role.FOLLOWER, 2, 0)


def test_time_runs_out_at_its_end_and_not_before():
    play = Play()
    follower = play.replicas[1]
    follower.tick(follower.election_due_us - 1)
    assert follower.role is Role.FOLLOWER
    follower.tick(follower.election_due_us)
    assert role(play, 1) is Role.PRE_CANDIDATE


def test_a_leader_gives_way_when_more_than_an_election_time_out_has_passed_and_not_before():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    limit_us = leader.confirmed_at_us + OPTIONS.election_timeout_us_min
    leader.tick(limit_us)
    assert leader.role is Role.LEADER
    leader.tick(limit_us + 1)
    assert (leader.role, leader.term, leader.leader) == (Role.FOLLOWER, 2, 0)


def test_loyalty_lasts_an_election_time_out_and_no_longer():
    play = Play()
    play.elect(1)
    play.pass_time(100_000)
    voter = play.replicas[2]
    heard_us = voter.heard_at_us
    assert heard_us is not None
    until_us = heard_us + OPTIONS.election_timeout_us_min
    ask = VoteRequest(3, 99, 9, pre=True, campaign=1)
    voter.step(3, ask, until_us - 1)
    assert voter.late == []
    voter.step(3, ask, until_us)
    assert voter.late == [(3, VoteResponse(3, granted=True, pre=True, campaign=1))]


def test_a_leader_is_loyal_to_itself():
    play = Play()
    leader = play.elect(1)
    leader.step(3, VoteRequest(7, 99, 9, pre=False, campaign=1), play.now_us)
    assert (leader.role, leader.term, leader.late) == (Role.LEADER, 2, [])


def test_a_campaign_waits_for_its_votes_as_long_as_the_options_say():
    """Raft, section 5.2: drawn anew each time, so that split votes are rare."""
    waits = set()
    for seed in range(60):
        play = Play()
        candidate = play.start(1, seed=seed + 1)
        now_us = candidate.election_due_us
        candidate.tick(now_us)
        waits.add(candidate.election_due_us - now_us)
    assert OPTIONS.campaign_us_min <= min(waits)
    assert max(waits) < OPTIONS.campaign_us_max
    assert len(waits) > 40


def test_a_campaign_that_always_comes_to_nothing_waits_for_an_election_time_out_and_its_own_wait():
    """Each waits twice as long as the one before, and what is drawn still parts those that campaign together."""
    play = Play()
    candidate = play.start(1, seed=7)
    waits = []
    for _ in range(40):
        now_us = candidate.election_due_us
        candidate.tick(now_us)
        waits.append(candidate.election_due_us - now_us)
    longest = OPTIONS.election_timeout_us_max
    late = waits[20:]
    assert longest + OPTIONS.campaign_us_min <= min(late)
    assert max(late) < longest + OPTIONS.campaign_us_max
    assert len(set(late)) > 10


def test_a_pre_vote_is_granted_for_the_own_term_only_where_its_vote_is_free():
    """The pre-vote asks what a vote would be answered."""
    play = Play()
    voter = play.replicas[3]
    for vote, asker, granted in [(0, 1, True), (1, 1, True), (2, 1, False)]:
        voter.vote = vote
        voter.step(asker, VoteRequest(1, 1, 1, pre=True, campaign=1), 0)
        assert voter.late.pop().message.granted is granted
    voter.vote = 2
    voter.step(1, VoteRequest(2, 1, 1, pre=True, campaign=1), 0)
    assert voter.late.pop().message == VoteResponse(2, granted=True, pre=True, campaign=1)
    voter.step(1, VoteRequest(2, 0, 1, pre=True, campaign=1), 0)
    assert voter.late.pop().message == VoteResponse(1, granted=False, pre=True, campaign=1), "its log is behind"


def test_a_vote_for_another_in_the_same_term_is_refused_and_the_same_one_repeated():
    play = Play()
    voter = play.replicas[3]
    for asker, granted in [(1, True), (2, False), (1, True)]:
        voter.step(asker, VoteRequest(2, 1, 1, pre=False, campaign=1), 0)
        assert voter.late.pop().message.granted is granted
    assert (voter.term, voter.vote) == (2, 1)


def test_a_vote_that_is_granted_buys_the_candidate_time():
    play = Play()
    voter = play.replicas[3]
    voter.election_due_us = 10
    voter.step(1, VoteRequest(2, 1, 1, pre=False, campaign=1), 1_000)
    assert voter.election_due_us >= 1_000 + OPTIONS.election_timeout_us_min


def test_who_gives_its_vote_away_no_longer_suspects():
    play = Play()
    play.elect(1)
    voter = play.replicas[3]
    for candidate, last_index, reason in [(9, 0, "channel fell silent"), (2, voter.last_index, "")]:
        voter.suspect(1, play.now_us)
        voter.step(candidate, VoteRequest(9, last_index, 2, pre=False, campaign=1, transfer=True), play.now_us)
        assert voter.campaign_reason == reason, "a refusal says nothing of the leader"
        assert voter.vote == (2 if not reason else 0)


def test_a_time_out_that_a_higher_term_finds_already_over_stays_so():
    play = Play()
    voter = play.replicas[3]
    voter.log.append([5], [b"\x01"])
    voter.election_due_us = 10
    voter.step(1, VoteRequest(6, 1, 1, pre=False, campaign=1), 1_000)
    assert (voter.term, voter.vote, voter.election_due_us) == (6, 0, 1_000)


def test_the_hint_counts_for_a_follower_of_that_leader_alone_and_never_later_than_its_time_out():
    play = Play(size=5)
    play.elect(3)
    play.pass_time(50_000)
    follower = play.replicas[5]
    follower.election_due_us = play.now_us + 70_000
    follower.suspect(3, play.now_us)
    assert follower.election_due_us == play.now_us + 70_000, "its rank, the fourth, would be 75 ms"
    assert (follower.heard_at_us, follower.campaign_reason) == (None, "channel fell silent")
    follower.election_due_us = play.now_us + 80_000
    follower.suspect(3, play.now_us)
    assert follower.election_due_us == play.now_us + 75_000
    leader = play.replicas[3]
    leader.suspect(3, play.now_us)
    assert (leader.role, leader.campaign_reason) == (Role.LEADER, "election time-out")


def test_who_is_no_voter_comes_last_at_the_hint():
    play = Play()
    play.elect(1)
    play.pass_time(50_000)
    follower = play.replicas[3]
    follower.configurations.append((2, Configuration((Member(1, "node1"), Member(2, "node2")))))
    follower.suspect(1, play.now_us)
    assert follower.election_due_us == play.now_us + OPTIONS.suspicion_step_us


def test_an_answer_counts_once_and_only_to_the_campaign_that_asked():
    play = Play(size=5)
    campaigning(play, 1)
    candidate = play.replicas[1]
    asked = VoteResponse(2, granted=True, pre=True, campaign=candidate.campaign)
    candidate.step(2, asked, play.now_us)
    candidate.step(2, asked, play.now_us)
    assert candidate.role is Role.PRE_CANDIDATE, "one voter is one vote"
    for wrong in (asked._replace(campaign=candidate.campaign + 1), asked._replace(term=1), asked._replace(term=3)):
        candidate.step(3, wrong, play.now_us)
    candidate.step(3, asked._replace(pre=False, term=1), play.now_us)
    assert candidate.votes == {1: True, 2: True}
    candidate.step(3, asked, play.now_us)
    assert role(play, 1) is Role.CANDIDATE


def test_a_refusal_of_a_higher_term_makes_a_follower_and_a_granted_pre_vote_does_not():
    play = Play(size=5)
    campaigning(play, 1)
    candidate = play.replicas[1]
    candidate.step(2, VoteResponse(7, granted=True, pre=True, campaign=candidate.campaign), play.now_us)
    assert (candidate.role, candidate.term) == (Role.PRE_CANDIDATE, 1)
    candidate.step(3, VoteResponse(7, granted=False, pre=True, campaign=candidate.campaign), play.now_us)
    assert (candidate.role, candidate.term, candidate.vote) == (Role.FOLLOWER, 7, 0)
    candidate.step(4, VoteResponse(8, granted=True, pre=False, campaign=candidate.campaign), play.now_us)
    assert (candidate.role, candidate.term) == (Role.FOLLOWER, 8)


def test_a_leader_begins_with_nothing_of_a_former_term():
    play = Play()
    play.now_us = 1_000_000
    candidate = play.replicas[1]
    candidate.lease_given_up, candidate.uncommitted_bytes = True, 77
    candidate.passed_over = {2}
    campaigning(play, 1)
    for pre, term in [(True, 2), (False, 2)]:
        candidate.step(2, VoteResponse(term, granted=True, pre=pre, campaign=candidate.campaign), play.now_us)
    assert role(play, 1) is Role.LEADER
    assert (candidate.leader, candidate.heard_at_us, candidate.vote) == (1, None, 1)
    assert (candidate.term_start_index, candidate.last_index, candidate.log.last_term) == (2, 2, 2)
    assert {replica: progress.next for replica, progress in candidate.progress.items()} == {2: 2, 3: 2}
    assert (candidate.uncommitted_bytes, candidate.transferring, candidate.lease_given_up) == (0, None, False)
    assert (candidate.led_since_us, candidate.rounds.current, candidate.rounds.confirmed_at_us) == (
        1_000_000,
        0,
        1_000_000,
    )
    assert candidate.passed_over == set()


def test_who_may_not_campaign_does_not_wake_its_host_again_and_again():
    play = Play()
    learner = play.replicas[3]
    learner.configurations[-1] = (1, Configuration((Member(1, "node1"), Member(2, "node2")), (), (Member(3, "node3"),)))
    now_us = learner.election_due_us
    learner.tick(now_us)
    assert learner.role is Role.FOLLOWER
    assert learner.deadline_us >= now_us + OPTIONS.election_timeout_us_min


def test_copies_of_what_a_dead_leader_sent_keep_nobody_from_electing_another():
    play = Play()
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    follower = play.replicas[2]
    last = AppendEntries(follower.term, 3, follower.term, 3, follower.heard_round[1], [], [])
    earlier = last._replace(round=last.round - 1, commit=2)
    due_us = follower.election_due_us
    for copy in (last, earlier):
        follower.step(1, copy, 100_000)
        assert (follower.election_due_us, follower.heard_at_us) == (due_us, 0)
    follower.tick(due_us)
    assert follower.role is Role.PRE_CANDIDATE
    follower.step(1, last, due_us)
    assert (follower.role, follower.leader) == (Role.PRE_CANDIDATE, 0)
    follower.step(1, last._replace(round=last.round + 1), due_us + 1)
    assert (follower.role, follower.leader, follower.heard_at_us) == (Role.FOLLOWER, 1, due_us + 1)


def test_rounds_are_counted_anew_in_each_term():
    play = Play()
    play.elect(1)
    for _ in range(3):
        play.propose(1, "a")
        play.settle()
    follower = play.replicas[2]
    follower.step(3, AppendEntries(follower.term + 1, 2, 2, 2, 1, [], []), 5)
    assert (follower.leader, follower.heard_at_us, follower.heard_round) == (3, 5, (follower.term, 1))


def test_who_looked_first_is_answered_by_who_looks_later():
    """The other follower looks 15 ms later, is loyal up to then, and lacks an entry, so that it can not be elected."""
    play = Play()
    play.elect(1)
    play.pass_time(20_000)
    play.lost = lambda letter: letter.receiver == 3
    play.propose(1, "a")
    play.settle()
    play.heal()
    play.crash(1)
    play.replicas[2].suspect(1, play.now_us)
    play.settle()
    assert play.replicas[2].role is Role.PRE_CANDIDATE, "the other one is loyal"
    play.now_us += 15_000
    play.replicas[3].suspect(1, play.now_us)
    play.settle()
    assert play.leader.replica == 2


def test_a_late_answer_to_a_campaign_that_is_over_counts_for_nothing():
    play = Play()
    play.elect(1)
    play.pass_time(20_000)
    play.crash(1)
    play.replicas[2].suspect(1, play.now_us)
    play.settle()
    before = play.replicas[2].campaign
    play.now_us = play.replicas[2].election_due_us
    play.lost = lambda letter: letter.receiver == 3
    play.settle()
    assert play.replicas[2].campaign == before + 1, "it asked again, and that was lost"
    play.heal()
    play.replicas[3].suspect(1, play.now_us)
    play.turn(3)
    (answer,) = [letter.message for letter in play.post if isinstance(letter.message, VoteResponse)]
    assert answer.campaign == before
    play.deliver()
    assert play.replicas[2].role is Role.PRE_CANDIDATE
