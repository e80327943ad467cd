"""Histories of witnesses and of leaders that may not serve, each of which broke an easier version."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import ChangeRefused
from coordinator.consensus.raft.options import Options
from tests.unit.consensus.play import Play
from tests.unit.consensus.test_witness import FULL_1, FULL_2, WITNESS, site, write

FULL_4 = Member(4, "node4")


def entries_to(*receivers: int):
    return lambda letter: letter.receiver in receivers and bool(getattr(letter.message, "entries", ()))


def test_a_removal_that_is_never_committed_settles_nothing():
    """The leader settles by a configuration that only it has. It dies; the configuration before is in force again."""
    play = site()
    play.isolate(2)
    words = write(play, 1, 20)
    committed = play.replicas[1].commit_index
    play.lost = lambda letter: 2 in (letter.sender, letter.receiver) or entries_to(3)(letter)
    play.replicas[1].change(Change((FULL_1, WITNESS)), play.now_us)
    play.pass_time(200_000)
    assert play.replicas[1].commit_index == committed, "the removal is not committed"
    if play.replicas[3].settled > play.replicas[3].log.offset:
        play.snapshot(3)
    play.crash(1)
    play.heal()
    play.pass_time(10_000_000)
    assert play.words(2) == words  # A majority, 2 and 3, lives; the words were committed.


def test_a_full_voter_is_promoted_into_a_cluster_whose_witness_learner_was_told():
    """The witness is told and made a learner, while the learner that is to vote lags; then both are made voters."""
    play = site()
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (FULL_4,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    play.lost = entries_to(4)
    words = write(play, 1, 10)
    play.pass_time(200_000)
    play.snapshot(3)  # All full voters have it.
    leader = play.replicas[1]
    leader.change(Change((FULL_1, FULL_2), (FULL_4, WITNESS)), play.now_us)
    play.pass_time(200_000)
    try:
        leader.change(Change((FULL_1, WITNESS, FULL_4)), play.now_us)
    except ChangeRefused:
        return
    play.pass_time(200_000)
    assert not leader.configuration.is_joint
    assert {m.replica for m in leader.configuration.voters} == {1, 3, 4}
    play.crash(1)
    play.crash(2)
    play.heal()
    play.pass_time(10_000_000)
    assert play.words(4) == words  # 3 and 4 are a majority of the three voters.


def test_a_leader_settles_nothing_before_its_own_term_is_committed():
    """Another leader's promotion, not seen by it, may still come into force."""
    w3, w4 = Member(3, "node3", witness=True), Member(4, "node4", witness=True)
    learner = Member(5, "node5")
    play = Play(size=4, witnesses=(3, 4))
    play.elect(1)
    play.pass_time(200_000)
    play.replicas[1].change(Change((FULL_1, FULL_2, w3, w4), (learner,)), play.now_us)
    play.join(5)
    play.pass_time(300_000)
    # 2 has them all but does not say so; so nothing is settled. 5 lacks them.
    play.lost = lambda letter: entries_to(5)(letter) or letter.sender == 2
    words = write(play, 1, 10)
    k = play.replicas[1].commit_index
    assert play.replicas[2].last_index == k
    # The promotion of 5: nobody but the leader has it.
    play.lost = lambda letter: 2 in (letter.sender, letter.receiver) or entries_to(3, 4, 5)(letter)
    play.pass_time(60_000)
    play.replicas[1].change(Change((FULL_1, FULL_2, w3, w4, learner)), play.now_us)
    play.settle()
    c1 = play.replicas[1].last_index
    assert play.replicas[1].commit_index == k == c1 - 1
    # 2 is elected by 3 and 4 in the configuration before; its first entry reaches nobody.
    play.lost = lambda letter: letter.receiver == 5 or bool(getattr(letter.message, "entries", ()))
    for other in play.replicas.values():
        other.heard_at_us = None
        other.election_due_us = play.now_us + 10_000_000
    play.replicas[2].election_due_us = play.now_us
    for _ in range(10):
        play.deliver()
    assert play.replicas[2].role is Role.LEADER
    play.pass_time(300_000)
    for witness in (3, 4):
        if play.replicas[witness].settled > play.replicas[witness].log.offset:
            play.snapshot(witness)
    # 2 is lost for good. 1, with its promotion, is elected by 3, 4 and 5, and commits it.
    play.crash(2)
    play.lost = entries_to(5)
    play.elect(1)
    play.pass_time(200_000)
    assert play.replicas[1].commit_index > c1
    assert learner in play.replicas[1].configuration.voters
    # Two of five are lost: a minority.
    play.crash(1)
    play.heal()
    play.pass_time(10_000_000)
    assert play.words(5) == words


def test_where_the_full_voters_doubt_and_a_witness_leads_an_operator_can_still_remove_one():
    play = site()
    for replica in (1, 2):
        play.replicas[replica].doubt(True)
    play.elect_by_force(3)
    refused = ""
    for _ in range(60):
        play.pass_time(1_000_000)
        leader = play.leader
        try:
            leader.change(Change((FULL_1, WITNESS)), play.now_us)
            break
        except ChangeRefused as error:
            refused = str(error)
    else:
        raise AssertionError(f"for a minute: {refused}")


@pytest.mark.long
def test_how_often_a_witness_comes_to_lead_where_the_full_voters_doubt():
    led = []
    for seed in range(1, 31):
        play = site()
        for raft in play.replicas.values():
            raft.random.seed(seed * 10 + raft.replica)
        for replica in (1, 2):
            play.replicas[replica].doubt(True)
        play.pass_time(1_000_000)
        gone = play.leader.replica
        play.isolate(gone)
        play.pass_time(4_000_000)
        play.heal()
        play.pass_time(10_000_000)
        led.append(play.leader.replica)
    assert 3 not in led


def test_a_learner_that_is_a_little_farther_away_can_become_a_full_voter_under_load():
    """Its acknowledgements come three hops later than those of the full voters; writes never pause."""
    play = site()
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (FULL_4,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    late: list[list] = [[], [], []]
    refused = []
    for turn in range(3_000):
        play.now_us += 5_000
        assert play.propose(1, f"w{turn}") is not None
        held = [letter for letter in play.post if 4 in (letter.sender, letter.receiver)]
        play.post = [letter for letter in play.post if 4 not in (letter.sender, letter.receiver)] + late.pop(0)
        late.append(held)
        play.deliver()
        if turn > 20:
            try:
                play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS, FULL_4)), play.now_us)
                break
            except ChangeRefused as error:
                refused.append(str(error))
    else:
        raise AssertionError(f"{len(refused)} times in 15 s, the last: {refused[-1]}")


def test_without_a_witness_the_same_learner_can():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    three = Member(3, "node3")
    play.replicas[1].change(Change((FULL_1, FULL_2, three), (FULL_4,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    late: list[list] = [[], [], []]
    for turn in range(30):
        play.now_us += 5_000
        assert play.propose(1, f"w{turn}") is not None
        held = [letter for letter in play.post if 4 in (letter.sender, letter.receiver)]
        play.post = [letter for letter in play.post if 4 not in (letter.sender, letter.receiver)] + late.pop(0)
        late.append(held)
        play.deliver()
    play.replicas[1].change(Change((FULL_1, FULL_2, three, FULL_4)), play.now_us)


def test_a_witness_whose_membership_is_cut_off_does_not_take_to_applying():
    """It has applied nothing of what it skipped; told of its membership again, it gets what lies before first."""
    play = Play(witnesses=(3,), options=Options(message_bytes_max=64))
    play.elect(1)
    play.pass_time(200_000)
    write(play, 1, 5)
    new = Member(4, "node4", witness=True)
    play.lost = entries_to(2, 3)
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (new,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    assert play.replicas[4].is_witness
    skipped = play.replicas[4].applied_index
    assert skipped > 3
    play.crash(1)
    play.heal()
    play.elect(2)
    write(play, 2, 20, "more")
    play.replicas[2].change(Change((FULL_1, FULL_2, WITNESS), (new,)), play.now_us)
    flipped: list[int] = []
    for _ in range(100):
        play.now_us += 10_000
        play.deliver()
        if not play.replicas[4].is_witness:
            flipped.append(play.replicas[4].applied_index)
    assert play.replicas[4].is_witness
    assert not flipped, f"it applied from {skipped} on as one that has a state, up to {max(flipped)}"


def test_a_witness_that_only_learns_does_not_keep_the_log_forever():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    three = Member(3, "node3")
    play.replicas[1].change(Change((FULL_1, FULL_2, three), (Member(4, "node4", witness=True),)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    write(play, 1, 50)
    play.pass_time(300_000)
    assert play.replicas[4].settled > 40
