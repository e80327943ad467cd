"""Changes of membership: Raft, section 6; thesis, chapter 4."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import (
    ChangeRefused,
    Configuration,
    decode_configuration,
    encode_configuration,
    next_configuration,
)
from coordinator.consensus.raft.changes import answers
from coordinator.consensus.raft.core import Raft
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
    with pytest.raises(ChangeRefused, match="only the leader"):
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


def test_a_change_begins_joint_where_more_than_one_voter_differs():
    """Thesis, section 4.1: one voter more or less needs no joint configuration, since the majorities overlap."""
    now = Configuration(members(1, 2, 3))
    for wanted, is_joint in [
        ((1, 2, 3), False),
        ((3, 2, 1), False),
        ((1, 2), False),
        ((1, 2, 3, 4), False),
        ((1, 2, 4), True),
        ((1,), True),
        ((1, 2, 3, 4, 5), True),
    ]:
        after = next_configuration(now, Change(members(*wanted), members(9)))
        assert after == Configuration(members(*wanted), now.voters if is_joint else (), members(9))
        assert after.left() == Configuration(members(*wanted), (), members(9))


def test_no_change_begins_in_a_joint_configuration():
    now = next_configuration(Configuration(members(1, 2, 3)), Change(members(1, 4, 5)))
    assert now.is_joint
    with pytest.raises(ChangeRefused, match="under way"):
        next_configuration(now, Change(members(1, 4, 5)))


def test_the_lowest_identity_is_one():
    now = Configuration(members(1))
    assert next_configuration(now, Change(members(1, 2))).voters == members(1, 2)
    for replica in (0, -1):
        with pytest.raises(ChangeRefused, match="positive"):
            next_configuration(now, Change((*members(1), Member(replica, "x"))))


def test_an_entry_of_a_configuration_is_always_the_same_bytes():
    """Digests and consistency checks compare bytes."""
    joint = Configuration((Member(3, "c", "redis://c", 7), Member(1, "a")), members(2), (Member(4, "d"),))
    entry = encode_configuration(joint)
    assert entry == (
        b'\x02{"learners":[[4,"d","",0]],"outgoing":[[2,"node2","",0]],"voters":[[3,"c","redis://c",7],[1,"a","",0]]}'
    )
    assert decode_configuration(entry) == joint
    for other in (b"", b"\x00", b"\x01{}"):
        with pytest.raises(ValueError, match="kind 2"):
            decode_configuration(other)


def caught_up() -> tuple[Play, Raft]:
    """Leader 1 of {1,2,3} with learner 4, which has everything."""
    play = led(options=Options(promote_lag_entries_max=3))
    play.join(4)
    leader = play.replicas[1]
    index = leader.change(Change(members(1, 2, 3), members(4)), play.now_us)
    assert index == leader.last_index, "the index of its first configuration"
    play.pass_time(200_000)
    return play, leader


def test_a_learner_may_lack_as_much_as_is_allowed_and_no_more():
    for lag, is_allowed in [(3, True), (4, False)]:
        play, leader = caught_up()
        play.lost = lambda letter: letter.receiver == 4
        play.propose(1, *"abcdefgh"[:lag])
        play.settle()
        assert leader.commit_index - leader.progress[4].match == lag
        if is_allowed:
            leader.change(Change(members(1, 2, 3, 4)), play.now_us)
        else:
            with pytest.raises(ChangeRefused, match="lacks 4 entries, at most 3"):
                leader.change(Change(members(1, 2, 3, 4)), play.now_us)


def test_a_learner_that_has_not_answered_within_an_election_time_out_is_not_promoted():
    play, leader = caught_up()
    heard_us = leader.progress[4].heard_at_us
    assert heard_us is not None
    assert answers(leader, 4, heard_us + leader.options.election_timeout_us_min)
    assert not answers(leader, 4, heard_us + leader.options.election_timeout_us_min + 1)
    play.crash(4)
    play.pass_time(leader.options.election_timeout_us_min + 100_000)
    assert leader.progress[4].match > 0
    with pytest.raises(ChangeRefused, match="not of late"):
        leader.change(Change(members(1, 2, 3, 4)), play.now_us)


def test_a_refusal_for_want_of_a_quorum_says_who_answers():
    play = led(size=5)
    play.crash(2)
    play.crash(3)
    play.pass_time(700_000)
    leader = play.replicas[1]
    with pytest.raises(ChangeRefused, match="2 must answer, and only node1 does"):
        leader.change(Change(members(1, 2, 3)), play.now_us)
    with pytest.raises(ChangeRefused, match="2 must answer, and only nobody does"):
        leader.change(Change(members(2, 3)), play.now_us)
    leader.change(Change(members(1, 2, 4)), play.now_us)


def test_a_leader_that_a_joint_change_removes_leads_until_the_joint_configuration_is_left():
    """Raft, section 6, the second issue: it manages a cluster of which it is no part, and counts itself for nothing."""
    play = led()
    leader = play.replicas[1]
    for replica in (4, 5):
        play.join(replica)
    leader.change(Change(members(1, 2, 3), members(4, 5)), play.now_us)
    play.pass_time(200_000)
    leader.change(Change(members(2, 4, 5)), play.now_us)
    assert leader.configuration.is_joint
    while leader.configuration.is_joint:
        play.deliver()
        assert leader.role is Role.LEADER
    at = leader.last_index
    assert leader.commit_index < at
    assert leader.role is Role.LEADER
    assert sorted(leader.progress) == [2, 4, 5]
    play.post = []
    play.lost = lambda letter: letter.receiver in (4, 5)
    play.pass_time(100_000)
    assert leader.progress[2].match == at
    assert leader.commit_index < at, "2 alone is no majority of 2, 4 and 5, and the leader is none of them"
    play.heal()
    play.pass_time(300_000)
    assert leader.role is Role.FOLLOWER
    assert leader.commit_index >= at
    assert play.leader.replica in {2, 4, 5}


def test_progress_is_kept_of_exactly_the_members():
    play, leader = caught_up()
    assert sorted(leader.progress) == [2, 3, 4]
    kept = leader.progress[2]
    leader.change(Change(members(1, 2)), play.now_us)
    assert sorted(leader.progress) == [2]
    assert leader.progress[2] is kept, "what is known of who stays is not forgotten"
    play.pass_time(100_000)
    leader.change(Change(members(1, 2), members(7)), play.now_us)
    assert leader.progress[7].next == leader.last_index + 1


def test_without_witnesses_a_learner_that_lags_a_little_becomes_a_voter():
    """What it lacks all others keep, so that it need not even have what this leader began its term with."""
    play = led()
    play.join(4)
    play.replicas[1].change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.pass_time(200_000)
    play.elect(2)
    leader = play.replicas[2]
    play.pass_time(200_000)
    leader.progress[4].match = leader.term_start_index - 1
    leader.change(Change(members(1, 2, 3, 4)), play.now_us)


def test_a_learner_that_has_answered_and_has_nothing_is_not_promoted():
    play = led()
    play.join(4)
    leader = play.replicas[1]
    leader.change(Change(members(1, 2, 3), members(4)), play.now_us)
    play.lost = lambda letter: letter.receiver == 4 and bool(getattr(letter.message, "entries", ()))
    play.pass_time(200_000)
    assert leader.progress[4].match == 0
    assert answers(leader, 4, play.now_us), "it refuses, again and again"
    with pytest.raises(ChangeRefused, match="not answered yet"):
        leader.change(Change(members(1, 2, 3, 4)), play.now_us)
