"""Copies of old messages, again and again: what a dead replica said once is no sign of life, and undoes nothing.

Redis delivers once, and whoever has a copy of the traffic may send it again at any time (histories 5 and 7).
"""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change
from coordinator.consensus.membership import ChangeRefused, encode_configuration
from coordinator.consensus.raft.messages import AppendResponse, InstallSnapshot, VoteRequest
from tests.unit.consensus.play import Letter, Play


def test_the_question_of_a_dead_candidate_holds_up_no_election():
    """It has every vote, and dies before anybody hears that it leads."""
    play, asked = Play(), []

    def is_lost(letter: Letter) -> bool:
        if letter.sender == 3 and isinstance(letter.message, VoteRequest) and not letter.message.pre:
            asked.append(letter)
        return False

    for replica, raft in play.replicas.items():
        raft.election_due_us = 0 if replica == 3 else 900_000
    play.lost = is_lost
    play.turn(3)
    while not asked:
        play.deliver()
    play.crash(3)
    play.deliver()
    assert [play.replicas[replica].vote for replica in (1, 2)] == [3, 3]
    for _ in range(10):
        play.pass_time(500_000)
        for letter in asked:
            play.replicas[letter.receiver].step(3, letter.message, play.now_us)
    assert play.leader is not None


def test_the_answer_of_a_dead_follower_is_no_sign_of_life():
    """Else a change would be taken that leaves nobody to agree to anything."""
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a")
    play.turn(1)
    play.deliver()
    answer = next(letter for letter in play.post if letter.sender == 3 and isinstance(letter.message, AppendResponse))
    play.settle()
    play.crash(3)
    play.pass_time(2_000_000)
    leader.step(3, answer.message, play.now_us)
    first, _, dead = leader.configuration.voters
    with pytest.raises(ChangeRefused):
        leader.change(Change((first, dead)), play.now_us)
    assert leader.role is Role.LEADER


def test_a_part_of_an_earlier_snapshot_undoes_nothing_of_the_latest():
    """Its host takes half a second to load that, and a copy comes each 400 ms."""
    play, parts = Play(), []

    def lags_behind(word: str) -> None:
        play.isolate(3)
        play.propose(1, *[f"{word}{number}" for number in range(20)])
        play.settle()
        play.snapshot(1)
        play.heal()

    def is_lost(letter: Letter) -> bool:
        if isinstance(letter.message, InstallSnapshot):
            parts.append(letter.message)
        return False

    play.elect(1)
    lags_behind("a")
    play.lost = is_lost
    play.pass_time(300_000)
    assert play.words(3) == play.words(1)
    earlier = parts[0]
    lags_behind("b")
    play.hosts_take_long = {3}
    loading, since_us = None, 0
    for _ in range(300):
        play.pass_time(10_000)
        if play.now_us % 400_000 == 0:
            play.replicas[3].step(1, earlier, play.now_us)
        if play.replicas[3].arrived is not loading:
            loading, since_us = play.replicas[3].arrived, play.now_us
        if loading is not None and play.now_us - since_us >= 500_000:
            play.hosts_take_long.clear()
    assert play.words(3) == play.words(1)


def test_a_part_of_a_snapshot_that_never_came_whole_does_not_begin_it_anew():
    play = Play()
    play.elect(1)
    follower = play.replicas[3]
    entry = encode_configuration(follower.configuration)
    _, heard = follower.heard_round
    earlier = InstallSnapshot(2, heard + 1, 10, 2, entry, 8, 0, b"abcd")
    follower.step(1, earlier, play.now_us)
    follower.step(1, InstallSnapshot(2, heard + 2, 20, 2, entry, 6, 0, b"ab"), play.now_us)
    latest = follower.incoming
    assert latest is not None
    assert latest.key == (20, 2, 6)
    follower.late.clear()
    follower.step(1, earlier, play.now_us)
    assert follower.incoming is latest
    assert bytes(latest.data) == b"ab"
    assert follower.late == []
