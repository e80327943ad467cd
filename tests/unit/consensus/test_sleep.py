"""Heartbeats that hosts speak: which leader has nothing else to say, who would answer, and what is proved by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.consensus.engine import Heard, Heartbeat, Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.raft.messages import AppendEntries, InstallSnapshot, VoteRequest
from coordinator.consensus.raft.options import Options
from tests.unit.consensus.play import OPTIONS, Play

TIMEOUT_US = OPTIONS.election_timeout_us_min


def quiet(size: int = 3, options: Options = OPTIONS) -> Play:
    """A leader, 1, of whom nobody has wanted anything for a while, just before its next heartbeat."""
    play = Play(size, options=options)
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    play.pass_time(OPTIONS.quiet_us + 500_000)
    return play


def said(play: Play) -> Heartbeat:
    heartbeat = play.replicas[1].heartbeat(play.now_us)
    assert heartbeat is not None
    return heartbeat


def test_a_quiet_leader_says_its_term_and_its_whole_log():
    play = quiet()
    assert said(play) == Heartbeat(1, play.leader.term, play.leader.last_index)
    assert play.leader.heartbeat_us == OPTIONS.quiet_heartbeat_us
    assert all(play.replicas[follower].would_answer(said(play)) for follower in (2, 3))


def test_who_is_no_leader_or_not_quiet_says_nothing():
    play = Play()
    play.elect(1)
    play.settle()
    assert play.replicas[1].heartbeat(play.now_us) is None
    play = quiet()
    assert play.replicas[2].heartbeat(play.now_us) is None
    play.propose(1, "b")
    assert play.replicas[1].heartbeat(play.now_us) is None


def unanswered(play: Play) -> None:
    play.lost = lambda letter: letter.sender == 3
    play.replicas[1].read()
    play.settle()


def one_is_gone(play: Play) -> None:
    play.crash(3)
    play.pass_time(2 * TIMEOUT_US)


def reads(play: Play) -> None:
    play.replicas[1].read()


def hands_over(play: Play) -> None:
    play.replicas[1].transfer(2, play.now_us)


def is_in_doubt(play: Play) -> None:
    play.replicas[1].doubt(True)


@pytest.mark.parametrize("befalls", [unanswered, one_is_gone, reads, hands_over, is_in_doubt])
def test_who_has_more_to_do_says_nothing(befalls: Callable[[Play], None]):
    play = quiet()
    befalls(play)
    assert play.replicas[1].role is Role.LEADER
    assert play.replicas[1].heartbeat(play.now_us) is None


def test_a_leader_that_is_to_give_way_to_a_preferred_one_says_nothing():
    play = quiet()
    voters = tuple(Member(number, f"node{number}", priority=int(number == 2)) for number in (1, 2, 3))
    play.replicas[1].change(Change(voters), play.now_us)
    play.settle()
    play.replicas[1].led_since_us = play.now_us
    play.pass_time(OPTIONS.quiet_us + 500_000)
    assert play.replicas[1].rounds.is_quiet
    assert play.replicas[1].transferring is None
    assert play.replicas[1].heartbeat(play.now_us) is None


def lacks_an_entry(play: Play) -> None:
    play.lost = lambda letter: letter.receiver == 2
    play.propose(1, "b")
    play.settle()


def has_more_than_is_committed(play: Play) -> None:
    raft = play.replicas[2]
    raft.append(raft.last_index + 1, [raft.term], [b"\x01b"])


def suspects_its_leader(play: Play) -> None:
    play.replicas[2].suspect(1, play.now_us)


def follows_nobody(play: Play) -> None:
    play.crash(2)
    play.start(2)


def voted_in_a_later_term(play: Play) -> None:
    raft = play.replicas[2]
    raft.heard_at_us = None
    raft.step(3, VoteRequest(raft.term + 1, 99, raft.term, pre=False, campaign=1), play.now_us)


def its_disk_lacks_the_term(play: Play) -> None:
    """It took in the leader's first word of a term, and its journal has not."""
    raft = play.replicas[2]
    raft.step(3, AppendEntries(raft.term + 1, raft.last_index, raft.log.last_term, raft.log.commit, 1, [], []), 0)


def is_sent_a_snapshot(play: Play) -> None:
    raft = play.replicas[2]
    configuration = play.replicas[1].log.entries[0]
    message = InstallSnapshot(raft.term, 9, raft.last_index + 1, raft.term, configuration, 10, 0, b"12345")
    raft.step(1, message, play.now_us)
    assert raft.incoming is not None


@pytest.mark.parametrize(
    "befalls",
    [
        lacks_an_entry,
        has_more_than_is_committed,
        suspects_its_leader,
        follows_nobody,
        voted_in_a_later_term,
        its_disk_lacks_the_term,
        is_sent_a_snapshot,
    ],
)
def test_who_would_not_say_yes_or_would_do_more_does_not_answer(befalls: Callable[[Play], None]):
    play = quiet()
    befalls(play)
    leader, follower = play.replicas[1], play.replicas[2]
    assert not follower.would_answer(Heartbeat(1, leader.term, leader.last_index))
    assert not follower.would_answer(Heartbeat(follower.leader, follower.term, leader.last_index))


def test_a_follower_counts_its_loyalty_and_its_time_out_from_the_last_that_it_heard():
    play = quiet()
    follower = play.replicas[2]
    at_us = play.now_us + 400_000
    follower.heard(at_us)
    assert follower.heard_at_us == at_us
    assert TIMEOUT_US <= follower.election_due_us - at_us < OPTIONS.election_timeout_us_max
    due_us = follower.election_due_us
    follower.heard(at_us - 100_000)
    assert (follower.heard_at_us, follower.election_due_us) == (at_us, due_us)
    request = VoteRequest(follower.term + 1, 99, follower.term, pre=True, campaign=1)
    follower.step(3, request, at_us + TIMEOUT_US - 1)
    assert not follower.ready(at_us + TIMEOUT_US - 1).late


def test_a_leader_is_confirmed_as_of_the_sending_of_what_a_majority_answered():
    play = quiet(5)
    leader = play.replicas[1]
    before_us = leader.confirmed_at_us
    now_us = play.now_us
    leader.answered({2: Heard(now_us + 300, now_us + 400)})
    assert leader.confirmed_at_us == before_us, "two of five are no majority"
    leader.answered({2: Heard(now_us + 300, now_us + 400), 3: Heard(now_us + 100, now_us + 200)})
    assert leader.confirmed_at_us == now_us + 100
    assert leader.progress[2].heard_at_us == now_us + 400
    leader.answered({2: Heard(before_us - 2, before_us - 1), 3: Heard(before_us - 2, before_us - 1)})
    assert leader.confirmed_at_us == now_us + 100
    assert leader.progress[2].heard_at_us == now_us + 400


def test_an_older_round_that_is_confirmed_later_takes_nothing_back():
    play = quiet()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.sender != 1
    leader.read()
    play.settle()
    sent_us = play.now_us
    leader.answered({2: Heard(sent_us + 100, sent_us + 200)})
    play.heal()
    play.now_us += 1_000
    number = leader.rounds.current
    for follower in (2, 3):
        leader.note_contact(leader.progress[follower], number, play.now_us)
    assert leader.confirmed_at_us == sent_us + 100


def test_a_leader_that_wakes_unanswered_steps_down_as_early_as_one_that_was_awake():
    play = quiet()
    leader = play.replicas[1]
    play.isolate(1)
    sent_us = play.now_us
    leader.answered({2: Heard(sent_us, sent_us + 100)})
    play.now_us = sent_us + TIMEOUT_US
    leader.tick(play.now_us)
    assert leader.role is Role.LEADER
    play.now_us += 1
    leader.tick(play.now_us)
    assert play.replicas[1].role is Role.FOLLOWER
