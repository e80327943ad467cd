"""Handing leadership over: thesis, section 3.10; priorities; campaign and step-down on request."""

from __future__ import annotations

from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.membership import Configuration, Member, encode_configuration
from coordinator.consensus.raft.messages import TimeoutNow, VoteRequest
from tests.unit.consensus.play import OPTIONS, Disk, Play


def led() -> Play:
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    return play


def test_leadership_is_handed_to_the_one_that_was_named():
    play = led()
    assert play.replicas[1].transfer(3, play.now_us)
    play.settle()
    assert play.replicas[3].role is Role.LEADER
    assert play.replicas[1].role is Role.FOLLOWER
    assert play.replicas[3].campaign_reason == "leadership handed over"


def test_the_target_is_brought_up_to_date_first_and_nothing_new_is_taken():
    play = led()
    play.lost = lambda letter: letter.receiver == 3
    play.propose(1, "a")
    play.settle()
    leader = play.replicas[1]
    leader.transfer(3, play.now_us)
    assert play.propose(1, "b") is None
    play.settle()
    assert not [letter for letter in play.post if isinstance(letter.message, TimeoutNow)]
    play.heal()
    play.pass_time(200_000)
    assert play.replicas[3].role is Role.LEADER
    assert play.words(3) == ["a"]


def test_a_transfer_that_comes_to_nothing_is_given_up():
    play = led()
    play.crash(3)
    leader = play.replicas[1]
    leader.transfer(3, play.now_us)
    play.pass_time(OPTIONS.election_timeout_us_min + 50_000)
    assert leader.role is Role.LEADER
    assert play.propose(1, "a") is not None


def test_no_transfer_to_oneself_to_a_stranger_or_from_a_follower():
    play = led()
    assert not play.replicas[1].transfer(1, play.now_us)
    assert not play.replicas[1].transfer(9, play.now_us)
    assert not play.replicas[2].transfer(3, play.now_us)


def test_an_old_word_to_campaign_means_nothing_in_a_later_term():
    play = led()
    play.elect(2)
    play.replicas[3].step(1, TimeoutNow(2), play.now_us)
    assert play.replicas[3].role is Role.FOLLOWER


def test_a_leader_that_steps_down_is_followed_at_once():
    play = led()
    play.replicas[1].step_down(play.now_us)
    play.settle()
    assert play.leader is not None
    assert play.leader.replica in {2, 3}


def test_a_campaign_on_request_does_not_depose_a_leader_that_is_heard():
    play = led()
    play.replicas[3].campaign_now(play.now_us)
    play.settle()
    assert play.leader is play.replicas[1]
    play.crash(1)
    play.replicas[2].heard_at_us = None
    play.replicas[3].campaign_now(play.now_us)
    play.settle()
    assert play.leader is play.replicas[3]


def test_a_preferred_leader_takes_over_when_it_is_caught_up():
    play = Play()
    members = (Member(1, "node1"), Member(2, "node2", "", 5), Member(3, "node3", "", 1))
    entry = encode_configuration(Configuration(members))
    for replica in (1, 2, 3):
        play.disks[replica] = Disk(HardState(1, 0, 1), [1], [entry])
        play.start(replica)
    play.elect(1)
    play.crash(2)
    play.pass_time(OPTIONS.priority_pause_us + 300_000)
    assert play.leader is play.replicas[3], "of those that answer, the highest"
    play.start(2)
    play.pass_time(OPTIONS.priority_pause_us + 500_000)
    assert play.leader is play.replicas[2]
    term = play.replicas[2].term
    play.pass_time(3 * OPTIONS.priority_pause_us)
    assert play.replicas[2].term == term, "and there it stays"


def test_a_transfer_that_failed_gives_no_licence_to_depose():
    play = led()
    target = play.replicas[2]
    play.replicas[1].transfer(2, play.now_us)
    play.turn(1)
    play.deliver(only=lambda letter: letter.receiver == 2)
    assert target.role is Role.CANDIDATE
    play.post = []
    play.isolate(2)
    asked = []
    for _ in range(100):
        play.now_us += 10_000
        target.tick(play.now_us)
        ready = target.ready(play.now_us)
        target.persisted(ready)
        asked += [message.transfer for _, message in ready.late if isinstance(message, VoteRequest)]
    assert asked
    assert not any(asked)
