"""Clusters of which nobody wants anything: seldom heartbeats, all of a node at the same moments."""

from __future__ import annotations

from coordinator.consensus.engine import Role
from coordinator.consensus.raft.options import Options, quiet_beat_us
from tests.unit.consensus.play import OPTIONS, Play


def quiet() -> Play:
    """A leader of whom nobody has wanted anything for a while."""
    play = Play()
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    play.pass_time(OPTIONS.quiet_us + 500_000)
    return play


def beats(play: Play, us: int) -> list[int]:
    """When the leader sent something to replica 2, over the time that passes."""
    moments = []
    for _ in range(us // 10_000):
        play.now_us += 10_000
        play.turn(1)
        if any(letter.sender == 1 and letter.receiver == 2 for letter in play.post):
            moments.append(play.now_us)
        play.settle()
    return moments


def test_a_quiet_leader_beats_seldom_and_at_the_moments_of_all_others():
    play = quiet()
    moments = beats(play, 2_400_000)
    assert len(moments) == 10
    assert all(moment % OPTIONS.quiet_heartbeat_us < 10_000 for moment in moments)
    assert (play.leader.term, play.leader.role) == (2, Role.LEADER)


def test_whoever_wants_something_of_it_wakes_it():
    play = quiet()
    assert play.replicas[1].deadline_us - play.now_us > OPTIONS.heartbeat_us
    play.propose(1, "b")
    play.pass_time(2 * OPTIONS.heartbeat_us)
    assert play.words(2) == ["a", "b"]
    assert len(beats(play, 600_000)) == 10
    assert len(beats(play, OPTIONS.quiet_us)) > 20


def test_one_that_lacks_something_keeps_it_awake_and_one_that_is_gone_does_not():
    play = quiet()
    play.crash(3)
    play.propose(1, "b")
    play.settle()
    play.pass_time(2 * OPTIONS.quiet_us)
    assert len(beats(play, 1_200_000)) == 5
    play.start(3)
    play.pass_time(500_000)
    assert play.words(3)[-1:] == ["b"]


def test_a_quiet_beat_is_never_too_seldom_for_the_election_time_out():
    assert quiet_beat_us(Options(quiet_heartbeat_us=10_000_000)) == 240_000
    assert quiet_beat_us(Options(quiet_heartbeat_us=1)) == Options().heartbeat_us


def test_a_quiet_leader_that_nobody_answers_leads_no_longer_than_a_busy_one():
    """It beats at 240 ms and looked at no other moment: 600 ms of silence were 720."""
    play = quiet()
    play.lost = lambda letter: True
    leader = play.replicas[1]
    for _ in range(1_000):
        play.now_us = leader.deadline_us
        play.turn(1)
        play.settle()
        if leader.role is not Role.LEADER:
            break
    assert leader.role is Role.FOLLOWER
    assert play.now_us == leader.rounds.confirmed_at_us + OPTIONS.election_timeout_us_min + 1
