"""Linearizable reads by ReadIndex: thesis, section 6.4; histories 1 and 5 of the design."""

from __future__ import annotations

from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.raft.messages import AppendResponse, ReadRequest, ReadResponse, TimeoutNow, VoteResponse
from coordinator.consensus.raft.options import Options
from coordinator.consensus.raft.reads import ASKED_MAX, Reads, holds_lease
from tests.unit.consensus.play import Play


def test_a_read_waits_for_a_round_that_was_sent_after_it_came():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.now_us = leader.deadline_us
    play.turn(1)
    sent = leader.rounds.current
    ticket = leader.read()
    for follower in (2, 3):
        answer = AppendResponse(leader.term, sent, success=True, match=leader.last_index, hint_index=0, hint_term=0)
        leader.step(follower, answer, play.now_us)
    play.turn(1)
    assert leader.rounds.confirmed == sent, "everybody takes it for the leader, as of before the read came"
    assert play.reads[1] == []
    play.settle()
    assert play.reads[1] == [ticket]


def test_an_acknowledgement_of_an_earlier_round_confirms_nothing():
    """History 5."""
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    old = leader.rounds.current
    leader.read()
    play.lost = lambda letter: letter.receiver == 1
    play.settle()
    for follower in (2, 3):
        answer = AppendResponse(leader.term, old, success=True, match=leader.last_index, hint_index=0, hint_term=0)
        leader.step(follower, answer, play.now_us)
    play.turn(1)
    assert play.reads[1] == []


def test_a_deposed_leader_answers_no_read():
    play = Play()
    old = play.elect(1)
    play.isolate(1)
    play.elect(2)
    play.propose(2, "new")
    play.settle()
    assert old.role is Role.LEADER
    old.read()
    play.settle()
    assert play.reads[1] == []
    play.pass_time(2_000_000)
    play.heal()
    play.pass_time(1_000_000)
    assert play.reads[1] == []


def test_a_new_leader_answers_no_read_before_its_first_entry_is_committed():
    """Raft, section 8."""
    play = Play()
    play.lost = lambda letter: isinstance(letter.message, AppendResponse) and letter.message.match >= 2
    leader = play.elect(1)
    leader.read()
    play.pass_time(200_000)
    assert leader.role is Role.LEADER
    assert play.reads[1] == []
    play.heal()
    play.pass_time(200_000)
    assert len(play.reads[1]) == 1


def test_one_round_serves_all_readers_of_a_turn():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    before = leader.rounds.current
    tickets = [leader.read() for _ in range(10)]
    play.settle()
    assert play.reads[1] == tickets
    assert leader.rounds.current == before + 1


def test_a_follower_reads_at_the_leaders_index():
    play = Play()
    play.elect(1)
    play.pass_time(100_000)
    play.propose(1, "a")
    play.settle()
    follower = play.replicas[2]
    ticket = follower.read()
    play.settle()
    assert play.reads[2] == [ticket]
    assert play.indices[2] == [play.replicas[1].commit_index]


def test_a_follower_of_a_deposed_leader_reads_nothing():
    play = Play(size=5)
    old = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1, 2)
    play.elect(3)
    play.propose(3, "new")
    play.settle()
    assert old.role is Role.LEADER
    play.replicas[2].read()
    play.settle()
    assert play.reads[2] == []


def test_an_answer_from_before_a_restart_confirms_nothing():
    """History 5: contexts never repeat, not even over a restart."""
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    follower = play.replicas[2]
    ticket = follower.read()
    assert ticket is not None
    old = ReadResponse(leader.term, follower.reads.boot, ticket, leader.commit_index)
    play.crash(2)
    play.post = []
    follower = play.start(2, seed=77)
    play.pass_time(100_000)
    assert follower.read() == ticket, "local tickets do repeat"
    follower.step(1, old, play.now_us)
    assert follower.take_reads() == []


def test_an_answer_counts_once():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    follower = play.replicas[2]
    ticket = follower.read()
    assert ticket is not None
    answer = ReadResponse(leader.term, follower.reads.boot, ticket, leader.commit_index)
    follower.step(1, answer, play.now_us)
    follower.step(1, answer, play.now_us)
    assert len(follower.take_reads()) == 1


def test_questions_that_are_never_answered_are_forgotten():
    play = Play()
    play.elect(1)
    follower = play.replicas[2]
    for _ in range(2 * ASKED_MAX):
        follower.read()
    assert len(follower.reads._asked) == ASKED_MAX


def test_without_a_leader_nobody_reads():
    play = Play()
    assert play.replicas[2].read() is None


def test_a_question_is_taken_by_the_leader_of_its_term_alone():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    for term in (leader.term - 1, leader.term + 1):
        leader.step(2, ReadRequest(term, 5, 1), play.now_us)
    play.replicas[3].step(2, ReadRequest(leader.term, 5, 1), play.now_us)
    play.settle()
    assert not [letter for letter in play.post if isinstance(letter.message, ReadResponse)]
    assert not leader.reads.needs_round(0)
    leader.step(2, ReadRequest(leader.term, 5, 1), play.now_us)
    assert leader.reads.needs_round(leader.rounds.current)


def test_questions_that_are_open_are_bounded_and_the_oldest_are_forgotten_first():
    reads = Reads(5)
    for ticket in range(1, ASKED_MAX + 2):
        reads.asked(ticket)
    assert not reads.take_answer(ReadResponse(1, 5, 1, 9)), "the oldest is forgotten"
    assert reads.take_answer(ReadResponse(1, 5, 2, 9))
    assert reads.take_answer(ReadResponse(1, 5, ASKED_MAX + 1, 9))


# --- lease reads, where they are switched on ------------------------------------------------------

LEASED = Options(lease_reads=True)


def leased(size: int = 3) -> Play:
    play = Play(size=size, options=LEASED)
    play.pass_time(LEASED.election_timeout_us_min)  # Who starts keeps still for an election time-out.
    play.elect(1)
    play.pass_time(100_000)
    return play


def test_within_its_lease_a_leader_reads_without_asking_anyone():
    play = leased()
    leader = play.replicas[1]
    play.isolate(1)
    ticket = leader.read(lease_ok=True)
    play.turn(1)
    assert play.reads[1] == [ticket]


def test_a_read_that_asks_for_a_majority_gets_one_though_the_lease_holds():
    play = leased()
    play.isolate(1)
    play.replicas[1].read()
    play.settle()
    assert play.reads[1] == []


def test_past_its_lease_a_leader_asks():
    """A lease read after a pause."""
    play = leased()
    leader = play.replicas[1]
    play.isolate(1)
    play.now_us += LEASED.election_timeout_us_min * 99 // 100
    leader.read(lease_ok=True)
    ready = leader.ready(play.now_us)
    leader.persisted(ready)
    assert leader.take_reads() == []


def test_nobody_is_elected_while_the_lease_holds():
    play = leased()
    leader = play.replicas[1]
    play.isolate(1)
    for replica in (2, 3):
        play.replicas[replica].suspect(1, play.now_us)
    while (
        leader.role is Role.LEADER
        and leader.rounds.confirmed_at_us + LEASED.election_timeout_us_min * 99 // 100 > play.now_us
    ):
        assert play.leader is leader, "the crash hint does not override a lease (history 2)"
        play.now_us += 5_000
        play.settle()
    play.pass_time(1_000_000)
    assert play.leader is not leader


def test_a_voter_that_restarts_keeps_still_for_an_election_time_out():
    play = leased()
    play.isolate(1)
    for replica in (2, 3):
        play.crash(replica)
        play.start(replica).campaign_now(play.now_us)
    play.settle()
    assert play.leader is play.replicas[1]
    assert [(play.replicas[replica].role, play.replicas[replica].term) for replica in (2, 3)] == [
        (Role.FOLLOWER, 2)
    ] * 2


def test_who_told_another_to_campaign_reads_by_lease_no_more_in_that_term():
    play = leased()
    leader = play.replicas[1]
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    leader.transfer(2, play.now_us)
    play.pass_time(LEASED.election_timeout_us_min + 100_000)
    assert leader.role is Role.LEADER
    assert leader.transferring is None, "the transfer was given up, and its word may still arrive"
    play.isolate(1)
    leader.read(lease_ok=True)
    play.turn(1)
    assert play.reads[1] == []


def test_an_election_is_no_lease():
    play = Play(options=LEASED)
    play.pass_time(LEASED.election_timeout_us_min)
    play.lost = lambda letter: isinstance(letter.message, AppendResponse)
    leader = play.elect(1)
    leader.read(lease_ok=True)
    play.settle()
    assert play.reads[1] == []


def test_switched_off_no_clock_is_trusted():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    leader.read(lease_ok=True)
    play.turn(1)
    assert play.reads[1] == []


def test_whose_loyalty_is_part_of_a_lease_does_not_campaign_on_request():
    play = leased()
    leader = play.replicas[1]
    play.isolate(1)
    play.replicas[3].heard_at_us = None  # It has not heard the leader for long; 2 has, and the lease rests on it.
    play.replicas[2].campaign_now(play.now_us)
    play.settle()
    assert play.leader is leader


def test_a_higher_term_that_it_hears_of_does_not_end_a_followers_loyalty():
    """A late answer to a question of its own tells 2 of the term of a failed candidate. The lease of 1 rests on 2."""
    play = leased()
    leader = play.replicas[1]
    play.isolate(3)
    play.crash(3)
    play.disks[3].hard_state = HardState(leader.term + 1, 3, 1)
    candidate = play.start(3)
    play.pass_time(LEASED.election_timeout_us_min + 10_000)
    play.isolate(1)
    play.replicas[2].step(3, VoteResponse(candidate.term, granted=False, pre=True, campaign=0), play.now_us)
    candidate.campaign_now(play.now_us)
    play.settle()
    ticket = leader.read(lease_ok=True)
    play.turn(1)
    assert play.reads[1] == [ticket], "the lease holds"
    assert play.leader is leader


def test_a_restart_counts_as_word_of_a_leader_where_leases_may_rest_on_it():
    play = Play(options=LEASED)
    play.now_us = 5_000
    assert play.start(2).heard_at_us == 5_000
    play = Play()
    play.now_us = 5_000
    assert play.start(2).heard_at_us is None


def test_a_lease_holds_less_than_an_election_time_out_by_the_drift_that_is_assumed():
    play = leased()
    leader = play.replicas[1]
    end_us = leader.confirmed_at_us + 594_000
    assert holds_lease(leader, end_us - 1)
    assert not holds_lease(leader, end_us)
    leader.rounds.confirmed = 0
    assert not holds_lease(leader, leader.confirmed_at_us), "an election is no lease"


def test_a_lease_that_was_given_up_comes_again_with_the_next_term():
    play = leased()
    leader = play.replicas[1]
    leader.step_down(play.now_us)
    assert not holds_lease(leader, play.now_us)
    play.settle()
    new = play.leader
    assert new is not None
    new.step_down(play.now_us)
    play.settle()
    assert play.leader is not None
    play.pass_time(100_000)
    assert holds_lease(play.leader, play.now_us)
