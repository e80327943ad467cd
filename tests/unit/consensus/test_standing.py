"""How each member stands, for operators to look at, and what a leader keeps for a backup."""

from __future__ import annotations

from coordinator.consensus.engine import Standing
from coordinator.consensus.members import Change, Member
from tests.unit.consensus.play import OPTIONS, Play


def led() -> Play:
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    return play


def test_a_leader_says_how_far_each_member_is_and_others_say_nothing():
    play = led()
    play.propose(1, "a")
    play.settle()
    found = {one.replica: one for one in play.replicas[1].standing(play.now_us)}
    assert found[1] == Standing(1, play.replicas[1].last_index, "leader", play.now_us, 0, 0)
    assert found[2] == Standing(2, play.replicas[1].last_index, "replicate", play.now_us, 0, 0)
    assert play.replicas[2].standing(play.now_us) == []


def test_who_is_sent_a_snapshot_stands_at_what_it_acknowledged():
    play = Play(options=OPTIONS._replace(snapshot_chunk_bytes=10, snapshot_window_bytes=10))
    play.elect(1)
    play.crash(3)
    for number in range(5):
        play.propose(1, f"word{number}")
        play.settle()
    play.pass_time(100_000)
    taken = play.snapshot(1)
    play.start(3)
    for _ in range(60):
        play.now_us += 10_000
        play.deliver()
        (third,) = (one for one in play.replicas[1].standing(play.now_us) if one.replica == 3)
        if third.state == "snapshot" and third.snapshot_acked:
            break
    assert third.snapshot_size == len(taken.data)
    assert 0 < third.snapshot_acked < third.snapshot_size


def test_the_best_successor_answers_votes_and_has_a_state():
    play = Play(size=4, witnesses=(4,))
    play.elect(1)
    play.pass_time(200_000)
    leader = play.replicas[1]
    assert leader.best_successor(play.now_us) in (2, 3)
    assert leader.best_successor(play.now_us, but=2) == 3
    assert play.replicas[2].best_successor(play.now_us) is None
    assert leader.best_successor(play.now_us + 10_000_000) is None, "nobody has answered of late"


def test_what_is_captured_is_the_state():
    play = led()
    for word in ("a", "b"):
        play.propose(1, word)
        play.settle()
    snapshot, behind = play.replicas[1].captured()
    assert snapshot is None
    assert behind.first_index == 1
    assert behind.entries == play.applied[1]
    taken = play.snapshot(1)
    play.propose(1, "c")
    play.settle()
    snapshot, behind = play.replicas[1].captured()
    assert snapshot is taken
    assert behind.first_index == taken.last_index + 1
    assert [entry[1:] for entry in behind.entries] == [b"c"]


def test_what_an_operator_may_ask_of_the_configuration():
    play = led()
    leader = play.replicas[1]
    assert leader.configuration_index == 1
    members = leader.configuration.voters
    at = leader.change(Change(members, (Member(4, "node4"),)), play.now_us)
    assert leader.configuration_index == at
    assert leader.promote_lag_max == OPTIONS.promote_lag_entries_max
    assert leader.quorum_us == OPTIONS.election_timeout_us_min
