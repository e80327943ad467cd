"""Witnesses: voters without a state machine. And leaders that may not serve: they bring others up, and hand over."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.entries import COMMAND
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import (
    ChangeRefused,
    Configuration,
    encode_configuration,
    next_configuration,
)
from coordinator.consensus.raft import snapshots
from coordinator.consensus.raft.messages import AppendEntries, InstallSnapshot, SnapshotResponse, TimeoutNow
from tests.unit.consensus.play import Play

FULL_1, FULL_2, WITNESS = Member(1, "node1"), Member(2, "node2"), Member(3, "node3", witness=True)


def site() -> Play:
    """Two full voters and a witness; 1 leads."""
    play = Play(witnesses=(3,))
    play.elect(1)
    play.pass_time(200_000)
    return play


def write(play: Play, leader: int, count: int, name: str = "word") -> list[str]:
    words = [f"{name}{number}" for number in range(count)]
    for word in words:
        assert play.propose(leader, word) is not None
        play.settle()
    return words


def test_a_witness_makes_the_majority_where_a_full_voter_is_away():
    play = site()
    play.crash(2)
    assert write(play, 1, 5) == play.words(1)


def test_what_a_witness_alone_still_has_is_brought_to_the_full_voter_that_lacks_it():
    """The leader and the witness have it on disk, so it is committed. Then the leader is gone for good."""
    play = site()
    play.isolate(2)
    words = write(play, 1, 20)
    play.crash(1)
    play.heal()
    play.pass_time(6_000_000)
    assert play.leader is play.replicas[2]
    assert play.words(2) == words
    assert write(play, 2, 1, "more") == ["more0"]


def test_a_witness_takes_no_proposal_and_answers_no_read_and_hands_over():
    play = site()
    play.isolate(2)
    write(play, 1, 3)
    play.crash(1)
    play.heal()
    terms = set()
    for _ in range(600):
        play.now_us += 10_000
        for replica in [*play.replicas]:
            play.turn(replica)
        while play.post:
            play.deliver()
            if play.replicas[3].role is Role.LEADER:
                terms.add(play.replicas[3].term)
                assert play.propose(3, "no") is None
                assert play.replicas[3].read() is None
        if play.leader is play.replicas[2]:
            break
    assert terms, "the witness never led, and nobody else could"
    assert play.leader is play.replicas[2]


def test_a_witness_that_gives_up_one_hand_over_begins_the_next_at_once():
    """Seed 5601784: a node with many replicas had nothing due for it before the next heartbeat."""
    play = site()
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    play.elect(3)
    play.settle()
    witness = play.replicas[3]
    first = witness.transferring
    assert first is not None
    assert first.told
    witness.rounds.confirmed_at_us = first.until_us
    for progress in witness.progress.values():
        progress.heard_at_us = first.until_us
    witness.tick(first.until_us - 1)
    assert witness.transferring == first
    witness.tick(first.until_us)
    assert witness.transferring is not None
    assert {first.target, witness.transferring.target} == {1, 2}


def test_a_full_voter_that_can_lead_does_so_before_a_witness_tries():
    for seed in range(1, 30):
        play = Play(witnesses=(1,))
        play.elect(2)
        play.pass_time(200_000)
        for replica in (1, 3):
            play.replicas[replica].random.seed(seed)
            play.crash(replica)
            play.start(replica, seed=seed)
        play.pass_time(100_000)
        play.crash(2)
        play.pass_time(2_500_000)
        assert play.leader is play.replicas[3]


def test_a_witness_keeps_what_a_full_voter_lacks_and_no_longer():
    play = site()
    play.isolate(2)
    write(play, 1, 30)
    play.pass_time(200_000)
    assert play.replicas[3].settled < 5
    play.heal()
    play.pass_time(300_000)
    assert play.replicas[3].settled == play.replicas[1].commit_index
    play.snapshot(3)
    assert play.disks[3].entries == []
    assert play.disks[3].snapshot is not None
    assert play.disks[3].snapshot.data == b""
    assert play.disks[3].snapshot.configuration == Configuration((FULL_1, FULL_2, WITNESS))


def test_a_full_voter_that_is_removed_counts_until_its_removal_is_committed():
    """Until then it may turn out to be a voter still, that lacks what the witnesses have cut off."""
    play = Play(size=5, witnesses=(4, 5))
    play.elect(1)
    play.isolate(2)
    write(play, 1, 10)
    play.pass_time(200_000)
    leader = play.replicas[1]
    members = leader.configuration.voters
    rest = tuple(member for member in members if member.replica != 2)
    at = leader.change(Change(rest, tuple(member for member in members if member.replica == 2)), play.now_us)
    told = [message for _, message in leader.ready(play.now_us).early if isinstance(message, AppendEntries)]
    assert told
    assert {message.settled for message in told} == {leader.settled}
    assert leader.settled < at - 5
    play.pass_time(900_000)  # It is a learner now, and waited for while it was heard of late.
    assert leader.commit_index >= at
    assert play.replicas[4].settled >= at


def test_a_witness_that_has_cut_its_log_still_leads_and_hands_over():
    play = site()
    words = write(play, 1, 10)
    play.pass_time(300_000)
    play.snapshot(3)
    play.isolate(2)
    words += write(play, 1, 10, "more")
    play.crash(3)
    play.crash(1)
    play.heal()
    play.start(3)
    play.pass_time(6_000_000)
    assert play.words(2) == words
    assert play.leader is play.replicas[2]


def sent_to_a_witness_that_is_behind(settled: bool) -> list[InstallSnapshot]:
    """Five voters, two of them witnesses; 4 was away while the leader cut its log; 3 too, unless `settled`."""
    play = Play(size=5, witnesses=(4, 5))
    play.elect(1)
    play.pass_time(200_000)
    away = (4,) if settled else (3, 4)
    play.isolate(*away)
    write(play, 1, 30)
    play.pass_time(200_000)
    play.snapshot(1)
    play.isolate(*(replica for replica in away if replica != 4))
    sent = []
    for _ in range(40):
        play.now_us += 10_000
        told = [letter.message for letter in play.deliver() if letter.receiver == 4]
        sent += [message for message in told if isinstance(message, InstallSnapshot)]
    assert play.replicas[4].commit_index == play.replicas[1].commit_index
    return sent


def test_a_witness_that_is_behind_is_told_where_to_go_on_and_gets_no_state():
    assert {part.size for part in sent_to_a_witness_that_is_behind(settled=True)} == {0}


def test_a_witness_is_given_the_state_to_keep_while_a_full_voter_lacks_it():
    assert all(part.size > 0 for part in sent_to_a_witness_that_is_behind(settled=False))


def test_a_witness_gives_nobody_a_state_that_it_does_not_have():
    """A new learner asks a leader that is a witness for what was cut off."""
    play = site()
    write(play, 1, 10)
    play.pass_time(300_000)
    play.snapshot(3)
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (Member(4, "node4"),)), play.now_us)
    play.settle()
    play.crash(1)
    play.replicas[2].doubt(True)  # It takes no leadership, so the witness leads on.
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    play.join(4)
    learned = []
    play.elect_by_force(3)
    for _ in range(30):
        play.now_us += 10_000
        learned += [letter.message for letter in play.deliver() if letter.receiver == 4]
    assert any(isinstance(message, AppendEntries) for message in learned)
    assert not any(isinstance(message, InstallSnapshot) for message in learned)
    assert play.replicas[4].commit_index == 0


def test_an_answer_about_a_snapshot_with_the_state_does_not_speak_for_the_one_without():
    """It may be late: the leader began to send the state, and found meanwhile that every full voter has it."""
    play = site()
    play.crash(3)
    write(play, 1, 10)
    play.pass_time(200_000)
    play.snapshot(1)
    leader = play.replicas[1]
    progress = leader.progress[3]
    snapshots.send(leader, 3, progress, 1, heartbeat=True)
    assert progress.snapshot.source.data == b""
    leader.step(3, SnapshotResponse(leader.term, 1, leader.snapshot.last_index, 0, 500), play.now_us)
    assert progress.match < leader.snapshot.last_index
    leader.step(3, SnapshotResponse(leader.term, 1, leader.snapshot.last_index, 0, 0), play.now_us)
    assert progress.match == leader.snapshot.last_index


def test_a_new_witness_behind_a_snapshot_knows_what_it_is_before_it_is_told():
    """The snapshot may end before the entry that made it a member."""
    play = site()
    write(play, 1, 3)
    play.pass_time(200_000)
    play.snapshot(1)
    new = Member(4, "node4", witness=True)
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (new,)), play.now_us)
    play.join(4)
    play.lost = lambda letter: letter.receiver == 4 and bool(getattr(letter.message, "entries", ()))
    play.pass_time(500_000)
    assert play.replicas[4].configuration.member(4) is None
    assert play.replicas[4].snapshot.data == b""
    assert play.replicas[4].is_witness
    play.crash(4)
    assert play.start(4).is_witness


def test_a_witness_that_is_removed_does_not_take_to_applying():
    play = site()
    write(play, 1, 3)
    play.replicas[1].change(Change((FULL_1, FULL_2), (WITNESS,)), play.now_us)
    play.pass_time(200_000)
    play.replicas[1].change(Change((FULL_1, FULL_2)), play.now_us)
    play.lost = lambda letter: False
    play.pass_time(200_000)
    assert play.replicas[3].is_witness
    play.crash(3)
    assert play.start(3).is_witness


def test_a_witness_stays_a_witness():
    now = Configuration((FULL_1, FULL_2, WITNESS))
    with pytest.raises(ChangeRefused, match="node3 can not cease to be a witness: remove it"):
        next_configuration(now, Change((FULL_1, FULL_2, WITNESS._replace(witness=False))))
    with pytest.raises(ChangeRefused, match="node2 can not become a witness"):
        next_configuration(now, Change((FULL_1, FULL_2._replace(witness=True), WITNESS)))


@pytest.mark.parametrize(("full", "witnesses"), [(0, 2), (1, 2), (2, 3), (3, 4)])
def test_more_witnesses_than_half_of_the_voters_are_refused(full, witnesses):
    members = tuple(Member(number, f"node{number}", witness=number > full) for number in range(1, full + witnesses + 1))
    with pytest.raises(ChangeRefused, match=f"expected at most {len(members) // 2} witnesses among {len(members)}"):
        next_configuration(Configuration((Member(9, "node9"),)), Change(members))


@pytest.mark.parametrize(("full", "witnesses"), [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2)])
def test_up_to_half_of_the_voters_may_be_witnesses(full, witnesses):
    members = tuple(Member(number, f"node{number}", witness=number > full) for number in range(1, full + witnesses + 1))
    assert next_configuration(Configuration((FULL_1,)), Change(members)).voters == members


def test_a_learner_becomes_a_full_voter_only_once_it_has_what_witnesses_may_have_dropped():
    play = site()
    learner = Member(4, "node4")
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (learner,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    play.isolate(4)
    write(play, 1, 3)
    play.pass_time(700_000)  # While it answers, the witnesses are told no more than it has.
    play.replicas[1].progress[4].heard_at_us = play.now_us
    with pytest.raises(ChangeRefused, match="witnesses may no longer have those up to"):
        play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS, learner)), play.now_us)
    play.heal()
    play.pass_time(100_000)
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS, learner)), play.now_us)


def test_a_new_leader_knows_that_witnesses_were_told_by_the_one_before():
    """It was told nothing itself; all that was committed before its term may have been dropped."""
    play = site()
    learner = Member(4, "node4")
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (learner,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    play.lost = lambda letter: 4 in (letter.sender, letter.receiver)
    play.elect(2)
    play.replicas[2].settled = 0
    play.replicas[2].progress[4].heard_at_us = play.now_us
    play.replicas[2].progress[4].match = play.replicas[2].term_start_index - 1
    with pytest.raises(ChangeRefused, match="witnesses may no longer have those up to"):
        play.replicas[2].change(Change((FULL_1, FULL_2, WITNESS, learner)), play.now_us)


def test_a_learner_that_lags_a_little_becomes_a_witness():
    """A witness makes no state of its log, so it may lack what the others have dropped."""
    play = site()
    learner = Member(4, "node4", witness=True)
    leader = play.replicas[1]
    leader.change(Change((FULL_1, FULL_2, WITNESS), (learner,)), play.now_us)
    play.join(4)
    play.pass_time(300_000)
    write(play, 1, 3)
    play.pass_time(300_000)
    assert leader.settled == leader.commit_index
    leader.progress[4].match = leader.settled - 1
    leader.change(Change((FULL_1, FULL_2, WITNESS, learner)), play.now_us)


def test_leadership_is_never_handed_to_a_witness():
    play = site()
    assert not play.replicas[1].transfer(3, play.now_us)
    play.crash(2)
    play.replicas[1].step_down(play.now_us)
    sent = []
    for _ in range(10):
        sent += play.deliver()
    assert not any(isinstance(letter.message, TimeoutNow) for letter in sent)


def test_a_witness_does_not_hear_a_call_to_campaign():
    play = site()
    play.replicas[3].step(1, TimeoutNow(play.replicas[1].term), play.now_us)
    play.replicas[3].campaign_now(play.now_us)
    assert play.replicas[3].role is Role.FOLLOWER


def test_the_membership_is_not_changed_while_a_witness_leads():
    play = site()
    play.crash(1)
    play.elect_by_force(3)
    with pytest.raises(ChangeRefused, match="the leader is a witness"):
        play.replicas[3].change(Change((FULL_1, WITNESS)), play.now_us)


# --- a leader that doubts its state, or whose disk stalls ----------------------------------------------


def test_a_leader_in_doubt_takes_nothing_and_hands_over():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    play.replicas[1].doubt(True)
    assert play.propose(1, "no") is None
    assert play.replicas[1].read() is None
    play.pass_time(200_000)
    assert play.leader is play.replicas[1], "most doubts end with the next word of another replica"
    play.pass_time(300_000)
    assert play.leader in (play.replicas[2], play.replicas[3])


def test_who_is_in_doubt_does_not_take_over_and_the_next_is_asked():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    for replica in (1, 3):
        play.replicas[replica].doubt(True)
    write_to_2 = play.replicas[2].log.last_index
    play.pass_time(3_000_000)
    assert play.leader is play.replicas[2]
    assert play.replicas[2].log.last_index > write_to_2


def test_where_all_are_in_doubt_somebody_still_leads_and_nothing_is_served():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    for raft in play.replicas.values():
        raft.doubt(True)
    play.pass_time(3_000_000)
    assert play.leader is not None
    assert play.propose(play.leader.replica, "no") is None


def test_a_leader_in_doubt_takes_what_says_nothing_of_its_state_and_a_witness_not_even_that():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    leader = play.replicas[1]
    mark = [bytes([COMMAND]) + b"mark"]
    leader.doubt(True)
    assert leader.propose(mark) is None
    assert leader.propose(mark, in_doubt=True) == leader.last_index
    leader.is_witness = True
    assert leader.propose(mark, in_doubt=True) is None
    play.replicas[2].doubt(True)
    assert play.replicas[2].propose(mark, in_doubt=True) is None, "it does not lead"


def test_a_leader_whose_disk_stalls_gives_way():
    """etcd#15247: there the leader stayed, and everyone's leases were revoked."""
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    play.replicas[1].led_since_us -= play.options.stall_pause_us
    play.replicas[1].disk_took(play.options.disk_stall_us - 1, play.now_us)
    play.pass_time(100_000)
    assert play.leader is play.replicas[1]
    play.replicas[1].disk_took(play.options.disk_stall_us, play.now_us)
    play.pass_time(100_000)
    assert play.leader in (play.replicas[2], play.replicas[3])


def test_a_leader_whose_disk_stalls_soon_after_its_election_leads_on():
    """Where all disks are slow, giving way helps nobody."""
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    play.replicas[1].disk_took(play.options.disk_stall_us, play.now_us)
    assert play.replicas[1].transferring is None


def test_a_leader_whose_disk_stalls_leads_on_where_nobody_answers():
    play = Play()
    play.elect(1)
    play.pass_time(200_000)
    play.crash(2)
    play.crash(3)
    play.replicas[1].led_since_us -= play.options.stall_pause_us
    play.now_us += 610_000
    play.replicas[1].disk_took(play.options.disk_stall_us, play.now_us)
    assert play.replicas[1].transferring is None


def test_who_became_a_witness_in_a_part_of_the_log_that_is_cut_off_stays_one():
    """It has skipped what it did not apply."""
    play = Play()
    follower = play.join(4)
    now_a_witness = Configuration((FULL_1, FULL_2), (), (Member(4, "node4", witness=True),))
    follower.append(1, [1], [encode_configuration(now_a_witness)])
    follower.truncate(1)
    assert follower.is_witness
    assert not follower.is_fit


def test_whom_a_witness_can_not_bring_up_is_sent_heartbeats_and_nothing_in_between():
    play = site()
    write(play, 1, 10)
    play.pass_time(300_000)
    play.snapshot(3)
    play.replicas[1].change(Change((FULL_1, FULL_2, WITNESS), (Member(4, "node4"),)), play.now_us)
    play.settle()
    play.crash(1)
    play.replicas[2].doubt(True)
    play.lost = lambda letter: isinstance(letter.message, TimeoutNow)
    play.join(4)
    leader = play.elect_by_force(3)
    beats = 0
    for _ in range(30):
        play.now_us += 10_000
        for _ in range(3):
            beats += sum(letter.receiver == 4 for letter in play.deliver())
    assert leader.role is Role.LEADER
    assert leader.progress[4].probe_sent
    assert 4 <= beats <= 7, "one in 60 ms"
