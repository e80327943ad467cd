"""Linearizable reads by ReadIndex: thesis, section 6.4; histories 1 and 5 of the design."""

from __future__ import annotations

from coordinator.consensus.engine import Role
from coordinator.consensus.raft.messages import AppendResponse
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


def test_a_follower_takes_no_reads():
    play = Play()
    play.elect(1)
    assert play.replicas[2].read() is None
