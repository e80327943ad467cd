"""Linearizable reads by ReadIndex: thesis, section 6.4; histories 1 and 5 of the design."""

from __future__ import annotations

from coordinator.consensus.engine import Role
from coordinator.consensus.raft.messages import AppendResponse, ReadResponse
from coordinator.consensus.raft.reads import ASKED_MAX
from tests.unit.consensus.play import Play


def test_a_read_waits_for_a_round_that_was_sent_after_it_came():
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    ticket = leader.read()
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
