"""A journal of before, put back: a follower that lacks what it has acknowledged in its leader's term finds that out."""

from __future__ import annotations

from copy import deepcopy

from coordinator.consensus.raft.messages import AppendEntries, AppendResponse
from coordinator.consensus.raft.replication import REMINDER
from tests.unit.consensus.play import Letter, Play


def _with_an_older_journal(play: Play, replica: int) -> None:
    older = deepcopy(play.disks[replica])
    play.propose(1, "b", "c")
    play.settle()
    play.crash(replica)
    play.disks[replica] = older
    play.start(replica)


def test_a_follower_finds_out_that_its_journal_is_one_of_before():
    play = Play()
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    _with_an_older_journal(play, 3)
    play.pass_time(500_000)
    assert [raft.forgot for raft in play.replicas.values()] == [0, 0, play.replicas[1].last_index]


def test_so_does_one_whose_journal_knows_nothing_of_its_leaders_term():
    play = Play()
    older = deepcopy(play.disks[3])
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    play.crash(3)
    play.disks[3] = older
    play.start(3)
    play.pass_time(500_000)
    assert play.replicas[3].forgot == play.replicas[1].last_index


def test_whoever_crashes_and_goes_on_with_its_own_journal_has_forgotten_nothing():
    play = Play()
    play.elect(1)
    for word in ("a", "b", "c"):
        play.propose(1, word)
        play.settle()
        play.crash(3)
        play.propose(1, word * 2)
        play.settle()
        play.start(3)
        play.pass_time(500_000)
    assert play.words(3) == play.words(1)
    assert play.replicas[3].forgot == 0


def test_a_refusal_that_comes_late_makes_nobody_forgetful():
    """It lacked the entry as it refused, and has acknowledged it since: it is reminded, and has it."""
    play = Play()
    late: list[AppendResponse] = []
    reminders: list[AppendEntries] = []

    def is_lost(letter: Letter) -> bool:
        if isinstance(letter.message, AppendResponse) and not letter.message.success:
            late.append(letter.message)
        if isinstance(letter.message, AppendEntries) and letter.message.round == REMINDER:
            reminders.append(letter.message)
        return False

    play.elect(1)
    play.isolate(3)
    play.propose(1, "a", "b")
    play.settle()
    play.crash(1)
    play.lost = is_lost
    leader = play.elect(2)
    assert late, "it lacked what its new leader supposed it to have"
    for refusal in late:
        leader.step(3, refusal, play.now_us)
    play.settle()
    assert reminders
    for reminder in reminders:  # A copy of it, as old as may be.
        play.replicas[3].step(2, reminder, play.now_us)
    play.settle()
    assert [raft.forgot for raft in play.replicas.values()] == [0, 0]


def test_an_answer_to_a_reminder_is_not_followed_by_another():
    """A follower of an earlier version takes it for a heartbeat, and refuses it."""
    play = Play()
    leader = play.elect(1)
    play.settle()
    refusal = AppendResponse(leader.term, REMINDER, success=False, match=1, hint_index=0, hint_term=0)
    leader.step(3, refusal, play.now_us)
    assert not [sent for sent in leader.early if sent.receiver == 3]
    leader.step(3, refusal._replace(round=1), play.now_us)
    assert [sent.message.round for sent in leader.early if sent.receiver == 3] == [REMINDER]


def test_who_is_behind_what_the_leaders_log_still_has_is_not_reminded():
    """The leader knows the term of that entry no more; a snapshot is what such a one needs."""
    play = Play()
    leader = play.elect(1)
    play.settle()
    play.isolate(3)
    play.propose(1, "a", "b")
    play.settle()
    play.snapshot(1)
    refusal = AppendResponse(leader.term, 1, success=False, match=1, hint_index=0, hint_term=0)
    leader.step(3, refusal, play.now_us)
    assert not [sent for sent in leader.early if sent.receiver == 3 and isinstance(sent.message, AppendEntries)]
