"""Changes of membership: Raft, section 6; thesis, chapter 4."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.membership import Change, ChangeRefused, Member
from coordinator.consensus.raft.messages import AppendEntries
from coordinator.consensus.raft.options import Options
from tests.unit.consensus.play import Play


def members(*replicas: int) -> tuple[Member, ...]:
    return tuple(Member(replica, f"node{replica}") for replica in replicas)


def voters(play: Play, replica: int) -> list[int]:
    return sorted(member.replica for member in play.replicas[replica].configuration.voters)


def led(size: int = 3, options: Options | None = None) -> Play:
    play = Play(size=size) if options is None else Play(size=size, options=options)
    play.elect(1)
    play.pass_time(200_000)
    return play


def test_a_learner_gets_the_log_and_counts_for_nothing():
    play = led()
    play.join(4)
    play.replicas[1].change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(200_000)
    play.propose(1, "a")
    play.pass_time(200_000)
    assert play.words(4) == ["a"]
    play.isolate(1, 4)
    before = play.replicas[1].commit_index
    play.propose(1, "b")
    play.pass_time(300_000)
    assert play.replicas[1].commit_index == before
    assert play.words(4) == ["a"]


def test_a_learner_does_not_campaign():
    play = led()
    play.join(4)
    play.replicas[1].change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(200_000)
    for replica in (1, 2, 3):
        play.crash(replica)
    play.pass_time(5_000_000)
    assert play.replicas[4].role is Role.FOLLOWER
    assert play.replicas[4].term == 2


def test_a_learner_that_is_caught_up_is_made_a_voter():
    play = led()
    play.join(4)
    leader = play.replicas[1]
    leader.change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(200_000)
    leader.change(Change(members(1, 2, 3, 4)), play.now_us)
    play.pass_time(200_000)
    assert [voters(play, replica) for replica in (1, 2, 3, 4)] == [[1, 2, 3, 4]] * 4
    play.crash(2)
    play.propose(1, "a")
    play.pass_time(200_000)
    assert play.words(4) == ["a"]


def test_a_learner_that_is_behind_is_not():
    play = led(options=Options(promote_lag_entries_max=3))
    play.join(4)
    leader = play.replicas[1]
    leader.change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(100_000)
    play.lost = lambda letter: letter.receiver == 4
    play.propose(1, *"abcdefg")
    play.pass_time(100_000)
    with pytest.raises(ChangeRefused, match="not caught up"):
        leader.change(Change(members(1, 2, 3, 4)), play.now_us)


def test_a_learner_that_never_answered_is_not():
    play = led()
    leader = play.replicas[1]
    leader.change(Change(members(1, 2, 3), members(4)), play.now_us)  # Which was never started.
    play.settle()
    with pytest.raises(ChangeRefused, match="has not answered"):
        leader.change(Change(members(1, 2, 3, 4)), play.now_us)


def test_whoever_is_no_learner_is_not_made_a_voter():
    play = led()
    with pytest.raises(ChangeRefused, match="learner before"):
        play.replicas[1].change(Change(members(1, 2, 3, 4)), play.now_us)


def test_several_voters_change_at_once_through_a_joint_configuration():
    """Raft, section 6: from {1,2,3} to {1,4,5}."""
    play = led()
    leader = play.replicas[1]
    for replica in (4, 5):
        play.join(replica)
    leader.change(Change(members(1, 2, 3), members(4, 5)), play.now_us)
    play.pass_time(200_000)
    leader.change(Change(members(1, 4, 5)), play.now_us)
    assert leader.configuration.is_joint
    play.pass_time(300_000)
    assert not leader.configuration.is_joint, "the leader leaves the joint configuration by itself"
    assert voters(play, 1) == voters(play, 4) == voters(play, 5) == [1, 4, 5]
    play.crash(2)
    play.crash(3)
    play.propose(1, "a")
    play.pass_time(200_000)
    assert play.words(5) == ["a"]


def joint(play: Play) -> None:
    """Leader 1 is in the joint configuration of {1,2,3} and {1,4,5}."""
    leader = play.replicas[1]
    for replica in (4, 5):
        play.join(replica)
    leader.change(Change(members(1, 2, 3), members(4, 5)), play.now_us)
    play.pass_time(200_000)


def test_in_a_joint_configuration_both_majorities_must_agree():
    play = led()
    joint(play)
    leader = play.replicas[1]
    play.isolate(1, 2, 3)
    leader.change(Change(members(1, 4, 5)), play.now_us)
    play.propose(1, "a")
    play.pass_time(400_000)
    assert leader.configuration.is_joint
    assert play.words(1) == [], "a majority of the old side alone commits nothing"
    play.isolate(1, 4, 5)
    play.pass_time(150_000)
    play.heal()
    play.pass_time(400_000)
    assert play.words(5)[-1:] == ["a"]


def test_an_election_in_a_joint_configuration_needs_both_majorities():
    play = led()
    joint(play)
    leader = play.replicas[1]
    leader.change(Change(members(1, 4, 5)), play.now_us)
    for replica in (1, 2, 3, 4, 5):
        play.turn(replica)
    for _ in range(3):
        play.deliver(only=lambda letter: isinstance(letter.message, AppendEntries))
    assert play.replicas[4].configuration.is_joint
    play.post = []
    play.crash(1)
    play.isolate(2, 3)
    play.pass_time(3_000_000)
    assert play.leader is None, "neither side alone elects a leader"
    play.heal()
    play.pass_time(3_000_000)
    assert play.leader is not None
    assert voters(play, play.leader.replica) == [1, 4, 5], "the new leader ends the change"


def test_a_leader_that_is_removed_leads_until_it_is_committed_and_then_steps_down():
    """Thesis, section 4.2.2."""
    play = led()
    leader = play.replicas[1]
    leader.change(Change(members(2, 3)), play.now_us)
    play.propose(1, "a")
    play.pass_time(100_000)
    assert leader.role is Role.FOLLOWER
    assert play.leader is not None
    assert play.leader.replica in {2, 3}
    play.propose(play.leader.replica, "b")
    play.pass_time(200_000)
    assert play.words(2) == play.words(3) == ["a", "b"]
    play.pass_time(5_000_000)
    assert leader.role is Role.FOLLOWER, "who is no member does not campaign"


def test_a_removed_replica_does_not_disturb_the_others():
    play = led()
    leader = play.replicas[1]
    play.lost = lambda letter: letter.receiver == 3  # It never learns of its removal.
    leader.change(Change(members(1, 2)), play.now_us)
    play.pass_time(300_000)
    play.heal()
    play.pass_time(5_000_000)
    assert leader.role is Role.LEADER
    assert leader.term == 2
    assert sorted(leader.progress) == [2]


def test_one_change_at_a_time():
    play = led()
    play.join(4)
    leader = play.replicas[1]
    leader.change(Change(members(1, 2, 3), members(4)), play.now_us)
    with pytest.raises(ChangeRefused, match="not committed yet"):
        leader.change(Change(members(1, 2)), play.now_us)


def test_a_leader_changes_nothing_before_its_own_term_is_committed():
    """The defect of single-server changes that Ongaro reported to raft-dev in 2015."""
    play = Play()
    play.lost = lambda letter: isinstance(letter.message, AppendEntries)
    leader = play.elect(1)
    with pytest.raises(ChangeRefused, match="own term"):
        leader.change(Change(members(1, 2)), play.now_us)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (Change(()), "at least one voter"),
        (Change(members(1, 2, 3), members(3)), "each replica once"),
        (Change((*members(1, 2), Member(0, "x"))), "positive"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(change, complaint):
    play = led()
    with pytest.raises(ChangeRefused, match=complaint):
        play.replicas[1].change(change, play.now_us)


def test_a_change_that_would_leave_no_quorum_is_refused():
    play = led(size=5)
    play.crash(2)
    play.crash(3)
    play.pass_time(700_000)
    leader = play.replicas[1]
    assert leader.role is Role.LEADER
    with pytest.raises(ChangeRefused, match="no quorum"):
        leader.change(Change(members(1, 2, 3)), play.now_us)
    leader.change(Change(members(1, 4, 5)), play.now_us)


def test_only_the_leader_changes_the_membership():
    play = led()
    with pytest.raises(ChangeRefused, match="leader"):
        play.replicas[2].change(Change(members(1, 2)), play.now_us)


def test_a_configuration_that_is_cut_off_is_forgotten():
    play = led()
    play.join(4)
    play.isolate(1)
    play.replicas[1].change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.settle()
    assert play.replicas[1].configuration.learners
    play.elect(2)
    play.propose(2, "a")
    play.settle()
    play.heal()
    play.pass_time(400_000)
    assert play.replicas[1].configuration.learners == ()


def test_a_configuration_survives_a_restart():
    play = led()
    play.join(4)
    play.replicas[1].change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(200_000)
    play.crash(2)
    assert [member.replica for member in play.start(2).configuration.learners] == [4]


def test_who_is_removed_by_a_configuration_not_yet_committed_still_campaigns():
    """Thesis, section 4.2.2: its log may be the one that is needed, and nobody else can win."""
    play = led(size=2)
    leader = play.replicas[1]
    play.isolate(1)
    leader.change(Change(members(2)), play.now_us)
    play.pass_time(1_000_000)
    assert leader.role is not Role.LEADER, "no majority answered it"
    play.heal()
    play.pass_time(4_000_000)
    assert play.leader is not None
    assert play.leader.replica == 2
    assert voters(play, 2) == [2]
