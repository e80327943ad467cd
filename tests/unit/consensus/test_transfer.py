"""Handing leadership over: thesis, section 3.10; priorities; campaign and step-down on request."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.consensus.raft.messages import TimeoutNow, VoteRequest
from coordinator.consensus.raft.transfer import best_successor, give_way
from tests.unit.consensus.play import OPTIONS, Disk, Play


def led() -> Play:
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    return play


def led_with_learners() -> tuple[Play, tuple[Member, ...]]:
    """Replica 1 leads 2 and 3; 4 and 5 learn. All five, as voters."""
    play = led()
    for replica in (4, 5):
        play.join(replica)
    five = tuple(Member(replica, f"node{replica}") for replica in range(1, 6))
    play.replicas[1].change(Change(five[:3], five[3:]), play.now_us)
    play.pass_time(200_000)
    return play, five


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


@pytest.mark.parametrize(
    "change",
    [
        Change((Member(1, "node1"), Member(2, "node2"))),
        Change((Member(1, "node1"), Member(2, "node2")), (Member(3, "node3"),)),
    ],
    ids=["removed", "made a learner"],
)
def test_a_transfer_whose_target_loses_its_vote_is_aborted_at_once(change: Change):
    play = led()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.receiver == 3
    assert leader.transfer(3, play.now_us)
    assert play.propose(1, "a") is None
    assert leader.is_handing_over
    leader.change(change, play.now_us)
    assert not leader.is_handing_over
    assert play.propose(1, "b") is not None
    play.settle()
    assert play.words(1) == ["b"]
    assert not leader.transfer(3, play.now_us), "and nobody hands over to it again"


def test_a_transfer_whose_target_stays_outlives_a_change_of_others():
    play = led()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.receiver == 3
    leader.transfer(3, play.now_us)
    leader.change(Change((Member(1, "node1"), Member(3, "node3"))), play.now_us)
    play.settle()
    assert leader.transferring is not None
    play.heal()
    play.pass_time(200_000)
    assert play.leader is play.replicas[3]


def test_a_change_to_several_voters_aborts_a_transfer_to_one_that_goes():
    """While the configuration is joint the target still votes, of the old side; it will not when that is left."""
    play, five = led_with_learners()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.receiver == 3
    leader.transfer(3, play.now_us)
    leader.change(Change((five[0], five[1], five[3], five[4])), play.now_us)
    assert leader.configuration.is_joint
    assert leader.transferring is None


def test_a_joint_configuration_is_not_left_while_an_heir_that_was_told_may_campaign():
    """Seed 802518: the heir had every entry; then the joint configuration was committed, and the leader left it. Who
    had that entry would have refused the heir its vote."""
    play, five = led_with_learners()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.sender in (2, 4, 5) or isinstance(letter.message, TimeoutNow)
    joint_index = leader.change(Change(five), play.now_us)
    leader.transfer(3, play.now_us)
    play.settle()
    assert leader.transferring is not None
    assert leader.transferring.told
    assert leader.log.commit < leader.log.last_index == joint_index
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    play.pass_time(4 * OPTIONS.heartbeat_us)
    assert leader.transferring is not None
    assert leader.log.commit == leader.log.last_index == joint_index
    assert leader.configuration.is_joint
    assert play.replicas[3].log.last_index == joint_index

    play.pass_time(OPTIONS.election_timeout_us_min + 50_000)
    assert leader.role is Role.LEADER
    assert leader.transferring is None
    assert not leader.configuration.is_joint, "and where that comes to nothing it is left at once"
    assert leader.log.commit == joint_index + 1


def test_the_heir_leaves_the_joint_configuration_that_the_leader_left_to_it():
    play, five = led_with_learners()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.sender in (2, 4, 5) or isinstance(letter.message, TimeoutNow)
    leader.change(Change(five), play.now_us)
    leader.transfer(3, play.now_us)
    play.settle()
    assert leader.transferring is not None
    assert leader.transferring.told
    play.heal()
    play.replicas[3].step(1, TimeoutNow(leader.term), play.now_us)
    play.pass_time(200_000)
    assert play.replicas[3].role is Role.LEADER
    assert [play.replicas[replica].configuration for replica in range(1, 6)] == [Configuration(five)] * 5


def test_a_transfer_can_be_aborted_by_naming_the_leader_itself():
    play = with_priorities(0, 5, 0)
    leader = play.replicas[1]
    play.lost = lambda letter: letter.receiver == 3
    leader.transfer(3, play.now_us)
    assert play.propose(1, "a") is None
    play.now_us += 5_000
    assert leader.transfer(1, play.now_us)
    assert leader.transferring is None
    assert leader.led_since_us == play.now_us, "and it does not try at once to give way to the preferred one"
    assert play.propose(1, "b") is not None
    assert not leader.transfer(1, play.now_us), "nothing is under way any more"


def test_the_lease_stays_given_up_where_a_transfer_is_aborted_after_the_word():
    """History 2: the word to campaign may still arrive."""
    play = led()
    leader = play.replicas[1]
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    leader.transfer(3, play.now_us)
    play.settle()
    assert leader.transfer(1, play.now_us)
    assert leader.lease_given_up


def test_no_transfer_to_oneself_to_a_stranger_or_from_a_follower():
    play = led()
    assert not play.replicas[1].transfer(1, play.now_us)
    assert not play.replicas[1].transfer(9, play.now_us)
    assert not play.replicas[2].transfer(3, play.now_us)
    assert not play.replicas[2].transfer(2, play.now_us)


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


def with_priorities(*priorities: int) -> Play:
    play = Play(size=len(priorities))
    members = tuple(Member(at, f"node{at}", "", priority) for at, priority in enumerate(priorities, 1))
    entry = encode_configuration(Configuration(members))
    for replica in play.disks:
        play.disks[replica] = Disk(HardState(1, 0, 1), [1], [entry])
        play.start(replica)
    play.elect(1)
    return play


def test_of_several_preferred_leaders_the_highest_is_chosen_and_of_equals_the_first():
    play = with_priorities(0, 1, 5, 5, 2)
    play.pass_time(OPTIONS.priority_pause_us + 200_000)
    assert play.leader is play.replicas[3]


def test_nobody_is_preferred_who_is_not_above_the_leader_or_lacks_what_is_committed_or_does_not_answer():
    play = with_priorities(2, 2, 1)
    play.pass_time(2 * OPTIONS.priority_pause_us)
    assert play.leader is play.replicas[1]
    play = with_priorities(0, 5, 0)
    play.lost = lambda letter: letter.receiver == 2 and bool(getattr(letter.message, "entries", ()))
    play.propose(1, "a")
    play.pass_time(2 * OPTIONS.priority_pause_us)
    assert play.leader is play.replicas[1]
    assert play.replicas[1].transferring is None
    play.heal()
    play.pass_time(300_000)
    assert play.leader is play.replicas[2]


def test_a_leader_gives_way_to_a_preferred_one_after_a_pause_and_tries_again_after_another():
    play = with_priorities(0, 5, 0)
    leader = play.replicas[1]
    since_us = leader.led_since_us
    play.pass_time(200_000)
    play.now_us = since_us + OPTIONS.priority_pause_us
    leader.rounds.confirmed_at_us = play.now_us
    leader.tick(play.now_us - 1)
    assert leader.transferring is None
    leader.tick(play.now_us)
    assert leader.transferring == (2, play.now_us + OPTIONS.election_timeout_us_min, False)
    assert leader.led_since_us == play.now_us


def test_a_transfer_is_given_up_at_its_end_and_not_before():
    play = led()
    play.crash(3)
    leader = play.replicas[1]
    leader.transfer(3, play.now_us)
    assert leader.transferring is not None
    until_us = leader.transferring.until_us
    assert until_us == play.now_us + OPTIONS.election_timeout_us_min
    leader.rounds.confirmed_at_us = until_us
    leader.tick(until_us - 1)
    assert leader.transferring is not None
    leader.tick(until_us)
    assert leader.transferring is None
    assert leader.led_since_us == until_us, "and it does not try at once to give way"


def test_the_target_is_told_once_it_has_everything_and_only_once():
    play = led()
    leader = play.replicas[1]
    leader.transfer(2, play.now_us)
    told = []
    for _ in range(5):
        ready = leader.ready(play.now_us)
        leader.persisted(ready)
        told += [receiver for receiver, message in ready.early if isinstance(message, TimeoutNow)]
    assert told == [2]
    assert leader.lease_given_up


def test_a_leader_that_steps_down_tells_whoever_is_furthest_and_of_equals_the_preferred():
    play = with_priorities(0, 1, 3, 0)
    leader = play.replicas[1]
    assert best_successor(leader) == 3
    play.lost = lambda letter: letter.receiver != 4 and letter.sender != 4
    play.propose(1, "a")
    play.settle()
    assert best_successor(leader) == 4, "it has more"
    leader.step_down(play.now_us)
    assert leader.early == [(4, TimeoutNow(2))]
    assert (leader.role, leader.term) == (Role.FOLLOWER, 2)


def test_a_word_to_campaign_counts_from_the_own_leader_in_the_own_term_alone():
    play = led()
    follower = play.replicas[3]
    for sender, term in [(2, 2), (1, 1), (1, 3)]:
        follower.step(sender, TimeoutNow(term), play.now_us)
        assert follower.role is Role.FOLLOWER
    follower.step(1, TimeoutNow(2), play.now_us)
    assert (follower.role, follower.term) == (Role.CANDIDATE, 3)


def test_a_leader_that_is_asked_to_campaign_leads_on():
    play = led()
    leader = play.replicas[1]
    leader.campaign_now(play.now_us)
    assert (leader.role, leader.term) == (Role.LEADER, 2)


def test_a_leader_that_may_not_serve_asks_one_after_the_other_and_then_anew():
    play = Play(size=4)
    leader = play.elect(1)
    play.pass_time(100_000)
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    leader.doubt(True)
    asked: list[int] = []
    for _ in range(300):
        play.now_us += 10_000
        play.settle()
        if leader.transferring is not None and (not asked or asked[-1] != leader.transferring.target):
            asked.append(leader.transferring.target)
    assert asked[:4] == [2, 3, 4, 2]


def test_a_leader_that_may_not_serve_does_not_look_for_a_preferred_one():
    """It waits for its doubt to end first, and then chooses by who is furthest."""
    play = with_priorities(0, 0, 5)
    leader = play.replicas[1]
    play.pass_time(200_000)
    leader.led_since_us = play.now_us - OPTIONS.priority_pause_us
    leader.doubt(True)
    leader.tick(play.now_us)
    assert leader.transferring is None
    leader.doubt(False)
    leader.tick(play.now_us)
    assert leader.transferring is not None
    assert leader.transferring.target == 3


def test_who_gave_way_to_nobody_gives_way_to_no_second_one_meanwhile():
    play = led()
    leader = play.replicas[1]
    assert leader.transfer(3, play.now_us)
    before = leader.transferring
    give_way(leader, play.now_us)
    assert leader.transferring is before
    assert leader.passed_over == set()
    give_way(play.replicas[2], play.now_us)
    assert play.replicas[2].transferring is None


def test_a_campaign_on_request_asks_first_and_raises_no_term_by_itself():
    play = led()
    play.isolate(3)
    asker = play.replicas[3]
    asker.campaign_now(play.now_us)
    assert (asker.role, asker.term, asker.campaign_reason) == (Role.PRE_CANDIDATE, 2, "campaign on request")
    assert (asker.leader, asker.heard_at_us) == (0, None), "who campaigns owes loyalty to nobody"
