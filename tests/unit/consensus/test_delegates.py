"""Whom a leader may leave reads to, and when that one may answer them (`coordinator/consensus/raft/reads.py`)."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.options import Options
from coordinator.consensus.raft.transfer import Transfer
from tests.unit.consensus.play import Play
from tests.unit.consensus.test_spares import SPARE_US, a_play, member


@pytest.fixture
def play() -> Play:
    play = a_play()
    play.propose(1, "old")
    play.settle()
    return play


@pytest.fixture
def leader(play: Play) -> Raft:
    return play.replicas[1]


@pytest.fixture
def delegate(play: Play, leader: Raft) -> Raft:
    assert leader.delegate(play.now_us) in (2, 3)
    return play.replicas[leader.delegate(play.now_us)]


def committed_by_the_leader_alone(play: Play, leader: Raft, *words: str) -> None:
    """The delegate has these on disk, and has not been told that they are committed."""
    play.propose(1, *words)
    play.turn(1)
    play.deliver()
    play.turn(leader.delegate(play.now_us))
    play.deliver()
    play.turn(1)
    play.post.clear()
    assert leader.commit_index == leader.last_index


def test_who_is_sent_entries_at_once_may_stand_in_and_learns_what_is_committed(play, leader, delegate):
    committed_by_the_leader_alone(play, leader, "new")
    assert delegate.commit_index < leader.commit_index
    assert delegate.stands_in(1, leader.term, leader.commit_index)
    assert delegate.commit_index == leader.commit_index


@pytest.mark.parametrize(
    ("size", "options"),
    [(5, Options(spare_us=SPARE_US)), (3, Options()), (3, Options(spare_us=SPARE_US, lease_reads=True))],
    ids=["two of five", "nobody is chosen", "the lease will do"],
)
def test_a_leader_that_is_no_majority_with_one_other_or_need_ask_nobody_has_no_delegate(size, options):
    play = Play(size, (), options)
    play.elect(1)
    play.pass_time(20_000)
    play.propose(1, "word")
    play.settle()
    assert play.replicas[1].delegate(play.now_us) == 0


def test_nor_has_one_that_hands_over_or_doubts_or_has_committed_nothing_of_its_own(play, leader):
    leader.transferring = Transfer(2, 0, told=False)
    assert leader.delegate(play.now_us) == 0
    leader.transferring = None
    leader.doubt(True)
    assert leader.delegate(play.now_us) == 0
    leader.doubt(False)
    assert leader.delegate(play.now_us)
    leader.term_start_index = leader.commit_index + 1
    assert leader.delegate(play.now_us) == 0


def test_nor_any_who_does_not_lead(play, leader, delegate):
    assert delegate.delegate(play.now_us) == 0
    leader.step_down(play.now_us)
    assert leader.delegate(play.now_us) == 0


def test_who_was_chosen_by_an_earlier_configuration_is_no_delegate(play, leader):
    leader.configuration = Configuration((*leader.configuration.voters, member(4), member(5)))
    assert leader.spares.chosen
    assert leader.delegate(play.now_us) == 0


def test_nor_is_one_that_has_not_answered_for_long(play, leader, delegate):
    """Where nothing is written nobody else is chosen in its place."""
    play.isolate(delegate.replica)
    for _ in range(100):
        play.pass_time(10_000)
        if leader.delegate(play.now_us) != delegate.replica:
            break
    assert play.leader is leader
    assert leader.delegate(play.now_us) in (0, 5 - delegate.replica)


def test_while_a_change_of_members_is_under_way_nobody_is(play, leader):
    play.join(4)
    play.join(5)
    leader.change(Change(leader.configuration.voters, (member(4), member(5))), play.now_us)
    play.pass_time(100_000)
    leader.change(Change((*leader.configuration.voters, member(4), member(5))), play.now_us)
    play.turn(1)
    assert leader.configuration.is_joint
    assert leader.delegate(play.now_us) == 0


def test_who_went_on_to_a_later_term_stands_in_for_nobody(leader, delegate):
    term = leader.term
    delegate.term += 1
    assert not delegate.stands_in(1, term, 1)
    assert not delegate.stands_in(1, delegate.term - 1, 1)


def test_who_follows_the_next_leader_does_not_stand_in_for_the_last(play, leader, delegate):
    play.pass_time(300_000)  # Now everyone has everything.
    term, index = leader.term, leader.commit_index
    other = 5 - delegate.replica
    play.isolate(1)
    play.elect_by_force(other)
    assert delegate.leader == other
    assert not delegate.stands_in(1, term, index)
    assert not delegate.stands_in(1, delegate.term, index)


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
def test_who_does_not_follow_stands_in_for_nobody(leader, delegate, role):
    delegate.role = role
    assert not delegate.stands_in(1, leader.term, leader.commit_index)


def test_who_doubts_its_state_stands_in_for_nobody(leader, delegate):
    delegate.doubt(True)
    assert not delegate.stands_in(1, leader.term, leader.commit_index)


def test_who_restarted_stands_in_for_nobody_before_it_has_heard_the_leader(play, leader, delegate):
    play.crash(delegate.replica)
    again = play.start(delegate.replica)
    assert again.term == leader.term
    assert not again.stands_in(1, leader.term, leader.commit_index)
    play.pass_time(300_000)
    assert again.stands_in(1, leader.term, leader.commit_index)


def test_who_lacks_an_entry_commits_what_it_has_and_does_not_stand_in(leader, delegate):
    index = leader.last_index
    assert not delegate.stands_in(1, leader.term, index + 1)
    assert delegate.commit_index == delegate.last_index == index


def test_a_tail_that_was_not_found_to_be_the_leaders_is_not_committed(leader, delegate):
    """As that of a leader of the past, which comes off with the first append that conflicts."""
    index = delegate.last_index
    delegate.append(index + 1, [leader.term - 1], [b"\x01stale"])
    assert not delegate.stands_in(1, leader.term, delegate.last_index)
    assert delegate.commit_index == index


def test_nor_what_was_found_to_be_an_earlier_leaders(leader, delegate):
    index = delegate.commit_index
    delegate.append(delegate.last_index + 1, [leader.term], [b"\x01new"])
    delegate.agreed = (leader.term - 1, delegate.last_index)
    assert not delegate.stands_in(1, leader.term, delegate.last_index)
    assert delegate.commit_index == index


def test_the_word_is_no_sign_of_life_of_the_leader(play, leader, delegate):
    heard_us, due_us = delegate.heard_at_us, delegate.election_due_us
    play.now_us += 10_000
    assert delegate.stands_in(1, leader.term, leader.commit_index)
    assert (delegate.heard_at_us, delegate.election_due_us) == (heard_us, due_us)
