"""Followers that a majority does not need are sent entries a moment later (`coordinator/consensus/raft/spares.py`)."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import NEVER_US, Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import Configuration
from coordinator.consensus.raft import spares
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.messages import AppendEntries
from coordinator.consensus.raft.options import Options, check
from coordinator.consensus.raft.spares import FEW, LATE_LONG, LATE_MAX
from coordinator.consensus.raft.transfer import Transfer
from tests.unit.consensus.play import Letter, Play

SPARE_US = 10_000
SELDOM_US = Options().quiet_heartbeat_us
MUCH = [f"word{number}" for number in range(FEW)]


@pytest.fixture
def one_is_much(monkeypatch):
    """Who lacks a single entry is sent it at the next moment."""
    monkeypatch.setattr(spares, "FEW", 1)


def a_play(size: int = 3, *, witnesses: tuple[int, ...] = (), leader: int = 1) -> Play:
    """With a leader whose first entry everyone has, a moment behind one of the moments at which spares are sent to."""
    play = Play(size, witnesses, Options(spare_us=SPARE_US))
    play.elect(leader)
    play.pass_time(20_000)
    play.now_us += 1_000
    return play


def sent_to(play: Play, *words: str, sender: int = 1) -> set[int]:
    """To whom entries go at once. All that goes is delivered, and answered."""
    play.propose(sender, *words)
    play.turn(sender)
    receivers = {letter.receiver for letter in play.post if has_entries(letter)}
    play.settle()
    return receivers


def next_moment(play: Play) -> None:
    """At which spares are sent to."""
    play.now_us = (play.now_us // SPARE_US + 1) * SPARE_US
    play.settle()


def has_entries(letter: Letter) -> bool:
    return isinstance(letter.message, AppendEntries) and bool(letter.message.entries)


def member(replica: int) -> Member:
    return Member(replica, f"node{replica}")


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_a_majority_is_sent_an_entry_at_once_and_the_others_at_the_next_moment():
    play = a_play()
    assert sent_to(play, "a") == {2}
    assert play.words(1) == ["a"], "a majority has it"
    assert sent_to(play, "b") == {2}
    assert play.leader.deadline_us == 30_000
    play.now_us = 30_000
    play.turn(1)
    (letter,) = [letter for letter in play.post if has_entries(letter)]
    assert letter.receiver == 3
    assert len(letter.message.entries) == 2, "all that it lacks, at once"
    play.settle()
    assert play.words(3) == ["a", "b"]
    assert play.leader.spares.due_us == NEVER_US, "nobody waits, so that nothing is due"


def test_who_lacks_little_that_is_committed_waits_for_the_heartbeat():
    play = a_play()
    for word in MUCH[1:]:
        assert sent_to(play, word) == {2}
        assert play.leader.spares.due_us == NEVER_US, "nothing hangs on the spare"
    next_moment(play)
    next_moment(play)
    assert play.words(3) == []
    assert play.leader.deadline_us == SELDOM_US, "as of a quiet cluster, since the other hears of it all the time"
    play.now_us = SELDOM_US
    play.settle()
    assert play.words(3) == MUCH[1:]


def test_who_lacks_much_gets_it_at_the_next_moment():
    play = a_play()
    for word in MUCH:
        sent_to(play, word)
    assert play.leader.spares.due_us == 30_000
    play.now_us = 30_000
    play.settle()
    assert play.words(3) == MUCH


def test_what_is_not_committed_is_sent_to_everyone_at_the_second_moment():
    """One of those that were to do is slow, or dead."""
    play = a_play()
    play.crash(2)
    for word, moment_us in (("a", 40_000), ("b", 60_000)):
        assert sent_to(play, word) == set(), "the other is dead"
        assert play.leader.deadline_us == moment_us
        play.now_us = moment_us
        play.settle()
        assert play.words(1)[-1] == word
    play.now_us += 1_000
    assert sent_to(play, "c") == {3}, "it is waited for no more"


def test_who_has_come_back_is_chosen_again_though_nothing_is_ever_late():
    """It campaigns first when the leader falls silent: lacking the last entries it loses, and 25 ms are lost."""
    play = a_play()
    play.crash(2)
    for _ in range(3):
        sent_to(play, "a")
        next_moment(play)
        next_moment(play)
        play.now_us += 1_000
    assert sent_to(play, "b") == {3}
    play.start(2)
    play.pass_time(2 * SELDOM_US)
    sent_to(play, "c")
    assert sent_to(play, "d") == {2}


def test_where_nobody_is_spared_or_one_is_to_be_brought_up_heartbeats_are_as_often_as_ever():
    beat_us = Options().heartbeat_us
    play = a_play()
    sent_to(play, "a")
    assert play.leader.deadline_us == SELDOM_US
    play.leader.progress[3].probe()
    assert play.leader.deadline_us == beat_us
    play.settle()
    members = [*play.leader.configuration.voters]
    play.leader.change(Change((*members[:2], members[2]._replace(priority=1))), play.now_us)
    play.settle()
    assert play.leader.spares.chosen == (2,), "the voters are the same"
    play.leader.transferring = Transfer(3, 1 << 62, told=True)
    assert play.leader.deadline_us == beat_us
    play = a_play(witnesses=(3,))
    sent_to(play, "a")
    assert play.leader.deadline_us == beat_us


def test_of_five_voters_two_are_sent_to_at_once():
    play = a_play(5)
    assert sent_to(play, "a") == {2, 3}
    assert play.words(1) == ["a"]


def test_chosen_are_those_that_campaign_first_when_the_leader_falls_silent():
    play = a_play(leader=3)
    assert sent_to(play, "a", sender=3) == {1}
    play.crash(3)
    for replica in (1, 2):
        play.replicas[replica].suspect(3, play.now_us)
    play.pass_time(20_000)
    assert play.replicas[1].role is Role.LEADER, "it has everything, and was first"
    assert play.words(1) == ["a"]


def test_a_spare_that_campaigns_first_does_not_lose_what_it_lacks():
    """What is committed is on the disk of the leader and of the chosen one alone: the spare may not be elected."""
    play = a_play()
    sent_to(play, "a")
    play.crash(1)
    spare = play.replicas[3]
    spare.heard_at_us = play.replicas[2].heard_at_us = None
    play.replicas[2].election_due_us = play.now_us + 10_000_000
    spare.election_due_us = play.now_us
    play.settle()
    assert spare.role is not Role.LEADER
    play.elect(2)
    play.pass_time(SELDOM_US + 100_000)
    assert play.words(3) == ["a"]


def test_with_what_goes_to_everyone_an_entry_goes_to_everyone():
    play = a_play()
    play.leader.read()
    assert sent_to(play, "a") == {2, 3}
    assert play.leader.spares.due_us == NEVER_US
    play = a_play()
    play.now_us += SELDOM_US + Options().heartbeat_us  # A heartbeat is due.
    assert sent_to(play, "a") == {2, 3}


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_where_the_chosen_one_is_silent_another_is_chosen():
    play = a_play()
    play.crash(2)
    sent_to(play, "a")
    assert play.words(1) == [], "one that is dead gives no majority"
    play.now_us = 30_000
    play.settle()
    assert play.words(1) == ["a"], "and so the spare gives it at the next moment"
    play.now_us += 1_000
    sent_to(play, "b")
    play.now_us = 40_000
    play.settle()
    assert play.words(1) == ["a", "b"]
    play.now_us += 1_000
    assert sent_to(play, "c") == {3}
    assert play.words(1) == ["a", "b", "c"], "it is waited for no more"


def test_after_an_election_who_died_before_it_is_not_chosen():
    """Leader 1 has died, 2 leads, and 1 would be the first to campaign: a write must not wait for it."""
    play = a_play()
    sent_to(play, "a")
    play.crash(1)
    play.elect(2)
    play.now_us += 1_000
    assert sent_to(play, "b", sender=2) == {3}
    assert play.words(2) == ["a", "b"]


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_who_has_come_back_is_chosen_again():
    """Or else it would campaign first and lack what is new."""
    play = a_play()
    play.crash(2)
    play.pass_time(100_000)
    for _ in range(3):
        sent_to(play, "a")
        next_moment(play)
    play.now_us += 1_000
    assert sent_to(play, "b") == {3}
    play.start(2)
    play.pass_time(200_000)
    for _ in range(3):
        play.now_us += 1_000
        sent_to(play, "c")
        next_moment(play)
    play.now_us += 1_000
    assert sent_to(play, "d") == {2}


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_where_too_few_answer_everyone_is_sent_everything_at_once():
    play = a_play(5)
    for replica in (3, 4, 5):
        play.crash(replica)
    for _ in range(4):
        play.propose(1, "a")
        play.turn(1)
        play.deliver()
        play.now_us = (play.now_us // SPARE_US + 1) * SPARE_US
        play.deliver()
    assert play.leader.spares.chosen == ()
    assert play.leader.spares.due_us == NEVER_US


def a_moment_at_which_one_is_late(play: Play, who: int) -> None:
    """Everyone is sent an entry, and `who` answers half the time to the next such moment later than the other."""
    play.propose(1, "b")
    play.now_us = (play.now_us // SPARE_US + 1) * SPARE_US
    play.turn(1)
    play.deliver()
    play.deliver(only=lambda letter: letter.sender != who)
    play.now_us += SPARE_US // 2
    play.settle()


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_one_that_is_late_again_and_again_is_chosen_no_more():
    play = a_play()
    for _ in range(LATE_MAX):
        assert sent_to(play, "a") == {2}
        a_moment_at_which_one_is_late(play, 2)
    for _ in range(LATE_LONG // 2):
        sent_to(play, "c")
        next_moment(play)
        play.now_us += 1_000
        assert sent_to(play, "d") == {3}
    play.pass_time(LATE_LONG * Options().quiet_heartbeat_us)
    for _ in range(2):
        play.now_us += 1_000
        sent_to(play, "e")
        next_moment(play)
    play.now_us += 1_000
    assert sent_to(play, "f") == {2}, "it was in time for long"


@pytest.mark.interpreted
@pytest.mark.usefixtures("one_is_much")
def test_one_that_is_late_no_more_often_than_the_other_stays_chosen():
    play = a_play()
    for number in range(4 * LATE_MAX):
        assert sent_to(play, "a") == {2}
        a_moment_at_which_one_is_late(play, 2 if number % 2 else 3)


def test_a_spare_that_lacks_much_is_sent_it_at_once():
    play = Play(options=Options(spare_us=SPARE_US, message_entries_max=2))
    play.elect(1)
    play.pass_time(20_000)
    play.now_us += 1_000
    assert sent_to(play, "a", "b") == {2}
    assert sent_to(play, "c") == {2, 3}


def test_a_learner_does_not_wait():
    play = a_play()
    play.join(4)
    play.leader.change(Change(voters=play.leader.configuration.voters, learners=(member(4),)), play.now_us)
    play.settle()
    play.pass_time(20_000)
    play.now_us += 1_000
    assert sent_to(play, "a") == {2, 4}


def test_a_witness_keeps_what_not_all_have_on_disk_so_that_nobody_waits():
    assert sent_to(a_play(witnesses=(3,)), "a") == {2, 3}


def test_who_is_to_lead_next_is_sent_what_it_lacks_at_once():
    play = a_play()
    assert sent_to(play, "a") == {2}
    assert play.leader.transfer(3, play.now_us)
    play.settle()
    assert play.replicas[3].role is Role.LEADER
    assert play.words(3) == ["a"]


def test_while_the_voters_change_nobody_waits():
    play = a_play()
    for replica in (4, 5):
        play.join(replica)
    members = play.leader.configuration.voters
    play.leader.change(Change(members, (member(4), member(5))), play.now_us)
    play.pass_time(100_000)
    play.now_us += 1_000
    play.leader.change(Change((*members, member(4), member(5))), play.now_us)
    play.turn(1)
    assert play.leader.configuration.is_joint
    assert {letter.receiver for letter in play.post if has_entries(letter)} == {2, 3, 4, 5}


def test_the_option_is_off_unless_asked_for():
    play = Play()
    play.elect(1)
    assert sent_to(play, "a") == {2, 3}


def test_they_wait_no_longer_than_a_heartbeat():
    longest = Options().heartbeat_us
    check(Options(spare_us=longest))
    with pytest.raises(ValueError, match=f"spare_us must be at most heartbeat_us, {longest}, got {longest + 1}"):
        check(Options(spare_us=longest + 1))


LATE_US = 1_000


def a_round_for_everyone(leader: Raft, first: int, second: int, later_us: int) -> None:
    """`first` answers it, and `second` so much later."""
    number = leader.rounds.current + 1
    leader.rounds.current = number
    leader.spares.shared(number)
    leader.spares.answered(first, number, 50_000 * number, LATE_US)
    leader.spares.answered(second, number, 50_000 * number + later_us, LATE_US)


def chosen(leader: Raft) -> tuple[int, ...]:
    leader.spares.choose(leader)
    return leader.spares.chosen


def test_who_answers_soon_behind_the_others_is_not_late():
    leader = a_play().replicas[1]
    for _ in range(4 * LATE_MAX):
        a_round_for_everyone(leader, 3, 2, LATE_US)
        assert chosen(leader) == (2,)


def test_who_was_late_so_often_is_in_time_for_long_before_it_is_chosen_again():
    leader = a_play().replicas[1]
    for _ in range(LATE_MAX):
        assert chosen(leader) == (2,)
        a_round_for_everyone(leader, 3, 2, LATE_US + 1)
    for _ in range(LATE_LONG - LATE_MAX + 1):
        assert chosen(leader) == (3,)
        a_round_for_everyone(leader, 3, 2, LATE_US)
    assert chosen(leader) == (2,)


def test_who_was_late_is_forgotten_where_the_voters_are_others():
    leader = a_play().replicas[1]
    for _ in range(LATE_MAX):
        a_round_for_everyone(leader, 3, 2, LATE_US + 1)
    leader.spares.follow(Configuration(leader.configuration.voters), leader.replica)
    assert chosen(leader) == (2,)


def test_as_many_as_are_needed_are_enough_to_choose_from():
    play = a_play(5)
    play.crash(4)
    play.crash(5)
    play.pass_time(2 * SELDOM_US)
    for _ in range(3):
        sent_to(play, *MUCH)
        next_moment(play)
    assert chosen(play.replicas[1]) == (2, 3)
