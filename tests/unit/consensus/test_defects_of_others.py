"""Defects that were reported of other implementations of Raft, as histories that this one must survive. Each test is
named after its report; the first sentence says what went wrong there.

Those of locks, leases and state machines are in the files of the same name under `tests/unit/replica/`,
`tests/unit/statemachine/` and `tests/unit/client/`.
"""

from __future__ import annotations

from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse, VoteRequest, VoteResponse
from tests.unit.consensus.play import OPTIONS, Disk, Letter, Play

CAMPAIGN_US = OPTIONS.election_timeout_us_max + 4 * OPTIONS.campaign_us_max
"""A silence, and a few campaigns."""


def granted(letters: list[Letter]) -> list[tuple[int, int]]:
    """Voter and candidate of each vote."""
    return [
        (letter.sender, letter.receiver)
        for letter in letters
        if isinstance(letter.message, VoteResponse) and letter.message.granted and not letter.message.pre
    ]


def begun_with(play: Play, replica: int, term: int, terms: list[int], words: str = "") -> Raft:
    """Start `replica` anew with a log of these terms behind the configuration."""
    entries = [play.disks[replica].entries[0]] + [b"\x01%c" % ord(word) for word in words]
    play.disks[replica] = Disk(HardState(term, 0, 1), [1, *terms], entries)
    return play.start(replica)


def test_pysyncobj_84_a_vote_outlives_a_crash_so_that_nobody_votes_twice_in_a_term():
    """There, the vote was not on disk before it was given: a voter that crashed and came back voted again in the same
    term, and a minority could elect a second leader."""
    play = Play(size=5)
    for voter in (3, 4, 5):
        play.replicas[voter].step(1, VoteRequest(2, 1, 1, pre=False, campaign=1), 0)
        play.turn(voter)
    assert granted(play.post) == [(3, 1), (4, 1), (5, 1)]
    for voter in (3, 4, 5):
        play.crash(voter)
        play.start(voter)
    play.post = []
    for voter in (3, 4, 5):
        play.replicas[voter].step(2, VoteRequest(2, 1, 1, pre=False, campaign=1), 0)
        play.turn(voter)
    assert granted(play.post) == []
    assert len(play.post) == 3, "they answer, and refuse"


def test_pysyncobj_84_what_was_acknowledged_outlives_a_crash_of_everybody():
    """There, the log was not on disk before it was acknowledged: committed entries were lost when several crashed."""
    play = Play()
    play.elect(1)
    play.propose(1, "a", "b")
    play.turn(1)
    play.deliver(only=lambda letter: letter.receiver == 2)
    acknowledged = [letter.message for letter in play.post if isinstance(letter.message, AppendResponse)]
    assert [answer.match for answer in acknowledged] == [4]
    for replica in (1, 2, 3):
        play.crash(replica)
    play.post = []
    for replica in (2, 3):
        play.start(replica)
    play.pass_time(2 * CAMPAIGN_US)
    assert play.leader is play.replicas[2], "3 lacks what 2 has acknowledged"
    assert play.words(2) == play.words(3) == ["a", "b"]


def test_pysyncobj_202_terms_go_on_where_they_were_when_everybody_restarts():
    """There, all began again in term 0 after a restart of the whole cluster, under a log of higher terms: a member that
    was slow to start won with its old log against new entries that were committed already, and overwrote them."""
    play = Play()
    for replica in (1, 2, 3):
        begun_with(play, replica, 5, [5, 5], "ab")
    play.elect(1)
    for replica in (1, 2, 3):
        play.crash(replica)
    for replica in (1, 2, 3):
        play.start(replica)
    assert [raft.term for raft in play.replicas.values()] == [6, 6, 6]
    play.isolate(2)
    first = play.elect(1)
    assert first.term == 7
    assert first.log.last_term == 7, "its entries are newer than all that were there before"
    play.propose(1, "new")
    play.settle()
    play.pass_time(100_000)
    assert play.words(1) == play.words(3) == ["a", "b", "new"]
    play.heal()
    for raft in play.replicas.values():
        raft.heard_at_us = None  # Nobody's loyalty protects the leader: the logs alone decide.
        raft.election_due_us = play.now_us + 10_000_000
    play.replicas[2].election_due_us = play.now_us
    play.turn(2)
    letters = [letter for _ in range(4) for letter in play.deliver()]
    assert granted(letters) == []
    play.pass_time(CAMPAIGN_US)
    assert [play.words(replica) for replica in (1, 2, 3)] == [["a", "b", "new"]] * 3


def test_pysyncobj_110_and_169_figure_8_ends_without_a_committed_entry_overwritten():
    """There, a leader counted copies of an entry of an older term and called it committed; a later leader without the
    entry overwrote it, after it had been applied (Raft, figure 8)."""
    play = Play(size=5)
    # (b) S1 and S2 have the entry of term 2, S5 has one of term 3; S1 is elected in term 4 by S2 and S3.
    for replica, term, word in [(1, 2, "x"), (2, 2, "x"), (5, 3, "y")]:
        begun_with(play, replica, 3, [term], word)
    for replica in (3, 4):
        begun_with(play, replica, 3, [], "")
    play.isolate(1, 2, 3)
    first = play.replicas[1]
    for other in play.replicas.values():
        other.election_due_us = 1 << 60
    first.election_due_us = 0
    play.turn(1)
    # (c) The entry of term 2 gets as far as S3, a majority; nothing of term 4 gets anywhere.
    play.lost = lambda letter: bool(
        {letter.sender, letter.receiver} & {4, 5}
        or (isinstance(letter.message, AppendEntries) and 4 in letter.message.terms and letter.message.prev_index > 1)
    )
    for _ in range(6):
        play.deliver()
    for replica in (2, 3):
        answer = AppendResponse(4, first.rounds.current, success=True, match=2, hint_index=0, hint_term=0)
        first.step(replica, answer, play.now_us)
    for _ in range(6):
        play.deliver()
    assert first.role is Role.LEADER
    assert first.progress[2].match == first.progress[3].match == 2
    assert first.commit_index == 1, "on a majority, and yet not committed"
    assert play.words(1) == []
    # (d) S1 crashes; S5 is elected by those without an entry of term 4, and its entry of term 3 takes the place.
    play.crash(1)
    play.post = []
    for replica in (2, 3):
        play.crash(replica)
        begun_with(play, replica, 4, [2], "x")
    play.heal()
    last = play.elect(5)
    play.propose(5, "z")
    play.settle()
    play.pass_time(200_000)
    assert last.role is Role.LEADER
    assert [play.words(replica) for replica in (2, 3, 4, 5)] == [["y", "z"]] * 4
    # (e) Had an entry of term 4 been on a majority, S5 could not have won, and the one of term 2 stood with it.
    play.start(1)
    play.pass_time(200_000)
    assert play.words(1) == ["y", "z"]


def test_etcd_8243_a_node_of_a_smaller_term_and_one_of_a_larger_elect_a_leader_between_them():
    """There, a node that was cut off came back with a small term just as the leader died: its pre-votes were ignored
    for their term, those that it got raised no term at it, and the two that lived never elected anybody."""
    play = Play()
    play.isolate(3)
    play.elect(1)
    for leader, target in [(1, 2), (2, 1), (1, 2)]:
        play.replicas[leader].transfer(target, play.now_us)
        play.pass_time(100_000)
        assert play.leader is play.replicas[target]
    assert (play.replicas[1].term, play.replicas[2].term, play.replicas[3].term) == (5, 5, 1)
    play.crash(2)
    play.post = []
    play.heal()
    play.pass_time(2 * CAMPAIGN_US)
    assert play.leader is play.replicas[1], "the other lacks entries"
    assert play.replicas[3].leader == 1
    assert play.replicas[3].term == play.replicas[1].term > 5


def test_etcd_8501_a_high_term_with_a_short_log_and_a_low_term_with_a_long_one_do_not_block_each_other():
    """There, of two that were left one had the higher term and the shorter log: it dropped the other's pre-votes for
    their term without a word, was itself refused for its log, and neither ever led again."""
    play = Play()
    play.crash(3)
    high = begun_with(play, 1, 9, [2], "a")
    long = begun_with(play, 2, 4, [2, 4, 4], "abc")
    play.pass_time(2 * CAMPAIGN_US)
    assert play.leader is long
    assert long.term > 9
    assert high.leader == 2
    assert play.words(1) == play.words(2) == ["a", "b", "c"]


def test_hashicorp_raft_606_who_lost_its_leadership_is_elected_again_by_those_who_still_take_it_for_the_leader():
    """There, a voter rejected every pre-vote while it knew of a leader, even when the leader of before asked: with one
    of three down, a leader that had stepped down stayed down, and so did the cluster."""
    play = Play()
    first = play.elect(1)
    play.pass_time(100_000)
    play.crash(3)
    # 2 goes on hearing its leader, which gets no answers and has an entry that 2 lacks: nobody but 1 can be elected.
    play.lost = lambda letter: letter.receiver == 1 or bool(getattr(letter.message, "entries", ()))
    play.propose(1, "a")
    while first.role is Role.LEADER:
        play.now_us += 10_000
        play.turn(1)
        play.deliver(only=lambda letter: letter.receiver == 2)
    play.heal()
    assert play.replicas[2].leader == 1, "it still takes it for the leader"
    heard_us = play.replicas[2].heard_at_us
    assert heard_us is not None
    assert play.now_us - heard_us <= OPTIONS.heartbeat_us
    play.pass_time(CAMPAIGN_US)
    assert play.leader is first
    assert play.words(1) == play.words(2) == ["a"]


def test_hashicorp_raft_696_a_hand_over_that_was_cut_off_binds_no_later_leadership_of_the_same_replica():
    """There, a leader that fell while it brought its heir up to date, and was elected again, went on refusing every
    proposal for the sake of that hand-over, until it was restarted."""
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.lost = lambda letter: letter.receiver == 3
    play.propose(1, "a")
    play.settle()
    assert leader.transfer(3, play.now_us)
    assert play.propose(1, "b") is None
    leader.step(2, AppendResponse(leader.term + 1, 0, success=False, match=0, hint_index=0, hint_term=0), play.now_us)
    assert leader.role is Role.FOLLOWER, "2 is in a later term"
    play.heal()
    assert play.elect(1) is leader
    assert not leader.is_handing_over
    assert play.propose(1, "c") is not None
    play.pass_time(100_000)
    assert [play.words(replica) for replica in (1, 2, 3)] == [["a", "c"]] * 3


def test_camunda_62842_a_leader_leaves_no_joint_configuration_that_it_found_in_its_log_before_both_sides_have_it():
    """There, whoever began to lead with a joint configuration in its log left it at once, and the new side alone
    committed both: those that the change removed had acknowledged nothing of it."""
    play = Play()
    first = play.elect(1)
    play.pass_time(100_000)
    for replica in (4, 5):
        play.join(replica)
    five = tuple(Member(replica, f"node{replica}") for replica in range(1, 6))
    first.change(Change(five[:3], five[3:]), play.now_us)
    play.pass_time(200_000)
    first.change(Change((five[0], five[3], five[4])), play.now_us)
    index = first.log.last_index
    play.turn(1)
    play.crash(1)
    play.post = []
    again = play.start(1)
    assert again.configuration.is_joint
    play.lost = lambda letter: letter.receiver in {2, 3} and bool(getattr(letter.message, "entries", ()))
    play.elect(1)
    play.pass_time(400_000)
    assert again.role is Role.LEADER
    assert again.progress[4].match == again.progress[5].match == again.log.last_index > index
    assert again.configuration.is_joint
    assert again.log.commit < index
    play.heal()
    play.pass_time(400_000)
    assert [voter.replica for voter in again.configuration.voters] == [1, 4, 5]


def test_hashicorp_raft_609_a_pre_vote_does_not_hold_back_the_voters_own_election():
    """There, a granted pre-vote counted as word of a leader: whoever asked again and again without winning kept all
    others from ever asking themselves."""
    play = Play()
    play.elect(1)
    play.crash(1)
    voter = play.replicas[2]
    due_us = voter.election_due_us
    campaign = 0
    while voter.role is Role.FOLLOWER and play.now_us < due_us + 100_000:
        play.now_us += 20_000
        campaign += 1
        voter.step(3, VoteRequest(voter.term + 1, 1 << 40, 9, pre=True, campaign=campaign), play.now_us)
        play.turn(2)
        play.post = []
    assert voter.role is Role.PRE_CANDIDATE


def test_etcd_15247_a_leader_that_is_stuck_at_its_disk_gives_way():
    """There, a leader whose disk stalled still took itself for the leader when its followers had long elected another,
    and then revoked everybody's leases (for those, see `tests/unit/replica/`)."""
    play = Play()
    stuck = play.elect(1)
    play.pass_time(100_000)
    play.propose(1, "a")
    ready = stuck.ready(play.now_us)  # Here it stands, in the middle of its turn.
    play.crash(1)
    play.pass_time(CAMPAIGN_US)
    second = play.leader
    assert second is not None
    assert second.replica in {2, 3}
    play.propose(second.replica, "b")
    play.settle()
    play.replicas[1] = stuck
    stuck.persisted(ready)
    stuck.tick(play.now_us)
    assert stuck.role is Role.FOLLOWER, "before it has said or proposed anything"
    assert stuck.propose([b"\x01expiry"]) is None
    play.pass_time(200_000)
    assert play.leader is second
    assert [play.words(replica) for replica in (1, 2, 3)] == [["b"]] * 3
