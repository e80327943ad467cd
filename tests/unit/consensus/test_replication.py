"""Raft, sections 5.3 and 5.4.2; thesis, section 10.2.1."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.consensus.engine import HardState, Role
from coordinator.consensus.raft.messages import AppendEntries, AppendResponse
from coordinator.consensus.raft.options import Options
from coordinator.consensus.raft.replication import ROUND_MESSAGES_MAX
from tests.unit.consensus.play import Disk, Letter, Play


def is_append(letter: Letter) -> bool:
    return isinstance(letter.message, AppendEntries)


def test_what_a_majority_has_on_disk_is_committed_and_applied_everywhere():
    play = Play()
    play.elect(1)
    play.propose(1, "a", "b")
    play.settle()
    play.pass_time(100_000)
    assert [play.words(replica) for replica in (1, 2, 3)] == [["a", "b"]] * 3


def test_the_leader_sends_before_its_own_disk_and_counts_itself_after():
    play = Play()
    leader = play.elect(1)
    committed = leader.commit_index
    play.propose(1, "a")
    ready = leader.ready(play.now_us)
    assert any(isinstance(message, AppendEntries) and message.entries for _, message in ready.early)
    for follower in (2, 3):
        append = next(message for receiver, message in ready.early if receiver == follower)
        play.replicas[follower].step(1, append, play.now_us)
        play.turn(follower)
    one = next(letter for letter in play.post if letter.receiver == 1)
    leader.step(one.sender, one.message, play.now_us)
    assert leader.commit_index == committed, "one follower and a leader whose disk still writes are no majority"
    leader.persisted(ready)
    assert leader.commit_index == committed + 1


def test_two_followers_commit_without_the_leaders_disk():
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a")
    ready = leader.ready(play.now_us)
    for receiver, message in ready.early:
        play.replicas[receiver].step(1, message, play.now_us)
        play.turn(receiver)
    for letter in play.post:
        leader.step(letter.sender, letter.message, play.now_us)
    assert leader.commit_index == leader.last_index


def test_nothing_of_a_new_term_leaves_before_the_term_is_on_disk():
    play = Play(size=1)
    lone = play.replicas[1]
    lone.election_due_us = 0
    lone.tick(0)
    ready = lone.ready(0)
    assert lone.role is Role.LEADER
    assert ready.early == []
    assert ready.hard_state == HardState(2, 1, 1)


def test_an_acknowledgement_leaves_only_after_the_journal():
    play = Play()
    play.elect(1)
    play.propose(1, "a")
    play.turn(1)
    append = next(letter for letter in play.post if letter.receiver == 2)
    play.post = []
    play.replicas[2].step(1, append.message, play.now_us)
    play.turn(2, write=False)
    assert play.post == []
    assert len(play.disks[2].entries) == 2, "the configuration and the leader's first entry"


def test_a_conflicting_tail_is_replaced():
    play = Play()
    play.elect(1)
    play.isolate(1)
    play.propose(1, "lost")
    play.settle()
    play.elect(2)
    play.propose(2, "kept")
    play.settle()
    play.heal()
    play.pass_time(300_000)
    assert [play.words(replica) for replica in (1, 2, 3)] == [["kept"]] * 3
    assert play.disks[1].entries == play.disks[2].entries


def test_an_old_message_does_not_undo_a_newer_one():
    """Raft, section 5.3: a tail is cut off only where it conflicts."""
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a", "b")
    play.settle()
    follower = play.replicas[2]
    old = AppendEntries(leader.term, 1, 1, 2, 1, [leader.term], [leader.log.entries[1]])
    follower.step(1, old, play.now_us)
    play.turn(2)
    assert follower.last_index == leader.last_index
    assert play.disks[2].entries == play.disks[1].entries


def test_the_commit_index_never_passes_what_the_message_showed_to_match():
    play = Play()
    leader = play.elect(1)
    play.propose(1, "a", "b")
    play.settle()
    follower = play.replicas[2]
    tail = AppendEntries(leader.term, 1, 1, 99, 1, [], [])
    before = follower.commit_index
    follower.step(1, tail, play.now_us)
    assert follower.commit_index == before


def figure_8() -> Play:
    """Raft, figure 8 (c): the leader of term 4 has brought an entry of term 2 to a majority."""
    play = Play(size=5)
    config = play.disks[1].entries[0]
    for replica, tail in {1: [(2, b"\x01x")], 2: [(2, b"\x01x")], 3: [], 4: [], 5: [(3, b"\x01y")]}.items():
        terms = [1] + [term for term, _ in tail]
        play.disks[replica] = Disk(HardState(3, 0, 1), terms, [config] + [entry for _, entry in tail])
        play.start(replica)
    return play


def test_an_entry_of_an_older_term_is_not_committed_by_counting():
    """Raft, section 5.4.2, figure 8; PySyncObj#110 and PySyncObj#169."""
    play = figure_8()
    play.isolate(1, 2, 3)
    leader = play.replicas[1]
    for other in play.replicas.values():
        other.election_due_us = 1 << 60
    leader.election_due_us = 0
    play.turn(1)
    while leader.role is not Role.LEADER:
        play.deliver()
    own = leader.term_start_index
    # Only the old entry reaches the others: the new term's own is lost on the way.
    play.post = []
    for replica in (2, 3):
        leader.step(replica, AppendResponse(leader.term, 1, success=True, match=own - 1, hint_index=0, hint_term=0), 0)
    play.turn(1)
    assert leader.commit_index == 1
    for replica in (2, 3):
        leader.step(replica, AppendResponse(leader.term, 1, success=True, match=own, hint_index=0, hint_term=0), 0)
    assert leader.commit_index == own


def test_a_long_divergence_is_found_in_few_messages():
    """Conflict hints by term (Raft, section 5.3, at its end)."""
    play = Play()
    play.elect(1)
    play.isolate(1)
    play.propose(1, *[f"lost{i}" for i in range(500)])
    play.settle()
    play.elect(2)
    play.propose(2, *[f"kept{i}" for i in range(500)])
    play.settle()
    play.heal()
    refusals = 0
    for _ in range(60):
        play.now_us += 10_000
        for letter in play.deliver():
            refusals += int(isinstance(letter.message, AppendResponse) and not letter.message.success)
    assert play.words(1) == [f"kept{i}" for i in range(500)]
    assert refusals <= 4


def test_a_lost_message_is_made_up_for():
    play = Play()
    play.elect(1)
    play.pass_time(100_000)
    play.lost = lambda letter: is_append(letter) and letter.receiver == 3
    play.propose(1, "a")
    play.settle()
    play.heal()
    play.propose(1, "b")
    play.settle()
    play.pass_time(200_000)
    assert play.words(3) == ["a", "b"]


def test_a_follower_that_catches_up_does_not_starve_the_other_of_heartbeats():
    play = Play(options=Options(message_bytes_max=64, inflight_messages_max=1))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.lost = lambda letter: letter.receiver == 3
    play.propose(1, *["x" * 40] * 50)
    play.settle()
    play.heal()
    heard = []
    for _ in range(40):
        play.now_us += 10_000
        heard += [letter.receiver for letter in play.deliver() if is_append(letter)]
    assert heard.count(2) >= 5
    assert leader.role is Role.LEADER


def test_the_window_bounds_what_is_under_way():
    play = Play(options=Options(message_bytes_max=100, inflight_messages_max=3))
    play.elect(1)
    play.pass_time(100_000)
    play.post = []
    play.lost = lambda letter: letter.receiver == 1
    for number in range(50):
        play.propose(1, f"{number:090}")
    under_way = []
    for _ in range(3):
        play.turn(1)
        with_entries = [letter for letter in play.post if getattr(letter.message, "entries", None)]
        under_way.append(sum(letter.receiver == 2 for letter in with_entries))
    assert under_way == [ROUND_MESSAGES_MAX, 3, 3]


def test_a_follower_that_lacks_much_is_sent_a_bounded_number_of_entries_in_a_turn():
    """A learner that joined under load held up its leader's turn by 150 ms: it was sent 10,000 entries."""
    options = Options(message_entries_max=20)
    play = Play(options=options)
    leader = play.elect(1)
    play.isolate(3)
    for number in range(500):
        play.propose(1, f"{number}")
    play.pass_time(100_000)
    play.heal()
    most = 0
    for _ in range(2_000):
        play.now_us += 1_000
        sent = [letter.message for letter in play.deliver() if letter.receiver == 3]
        entries = [len(message.entries) for message in sent if isinstance(message, AppendEntries)]
        assert all(count <= options.message_entries_max for count in entries)
        most = max(most, sum(entries))
        if play.replicas[3].last_index == leader.last_index:
            break
    assert play.replicas[3].last_index == leader.last_index
    assert most == ROUND_MESSAGES_MAX * options.message_entries_max


def test_proposals_past_the_bound_are_refused_and_an_empty_log_never_refuses():
    play = Play(options=Options(uncommitted_bytes_max=1_000))
    play.elect(1)
    play.isolate(1)
    assert play.propose(1, "x" * 5_000) is not None
    assert play.propose(1, "y") is None
    play.heal()
    play.pass_time(200_000)
    assert play.propose(1, "z") is not None


def test_a_follower_takes_no_proposals():
    play = Play()
    play.elect(1)
    assert play.propose(2, "a") is None


def test_entries_of_former_terms_commit_with_the_leaders_first():
    play = Play()
    play.elect(1)
    play.lost = lambda letter: isinstance(letter.message, AppendResponse)
    play.propose(1, "a")
    play.settle()
    assert play.words(1) == []
    play.heal()
    play.crash(1)
    play.elect(2)
    assert play.words(2) == ["a"]


def test_a_restart_goes_on_with_what_the_journal_has():
    """PySyncObj#84 and PySyncObj#202: term, vote and log outlive the process."""
    play = Play()
    play.elect(1)
    play.propose(1, "a")
    play.settle()
    play.pass_time(100_000)
    for replica in (1, 2, 3):
        play.crash(replica)
    for replica in (1, 2, 3):
        play.start(replica)
    play.elect(3)
    play.pass_time(100_000)
    assert play.replicas[3].term == 3
    assert [play.words(replica) for replica in (1, 2, 3)] == [["a"]] * 3


def test_an_answer_of_a_higher_term_deposes_a_leader_and_one_of_an_older_term_means_nothing():
    """Raft, section 5.1."""
    play = Play()
    leader = play.elect(1)
    play.pass_time(100_000)
    play.isolate(1)
    play.propose(1, "a")
    play.settle()
    answer = AppendResponse(leader.term - 1, 99, success=True, match=leader.last_index, hint_index=0, hint_term=0)
    before = leader.rounds.confirmed
    leader.step(2, answer, play.now_us)
    assert leader.commit_index < leader.last_index
    assert leader.rounds.confirmed == before
    leader.step(2, answer._replace(term=leader.term + 3, success=False), play.now_us)
    assert (leader.role, leader.term, leader.vote, leader.leader) == (Role.FOLLOWER, 5, 0, 0)


def test_an_answer_to_who_leads_no_more_or_of_who_is_no_member_means_nothing():
    play = Play()
    leader = play.elect(1)
    answer = AppendResponse(leader.term, 1, success=True, match=9, hint_index=0, hint_term=0)
    leader.step(9, answer, play.now_us)
    assert sorted(leader.progress) == [2, 3]
    follower = play.replicas[2]
    follower.step(3, answer, play.now_us)
    assert (follower.role, follower.progress) == (Role.FOLLOWER, {})


def cut() -> Play:
    """Follower 2 has cut its log behind a snapshot of index 4, and has 5 and 6."""
    play = Play()
    play.elect(1)
    play.propose(1, "c", "d")
    play.settle()
    play.pass_time(100_000)
    play.snapshot(2)
    play.propose(1, "e", "f")
    play.settle()
    assert (play.replicas[2].first_index, play.replicas[2].last_index) == (5, 6)
    return play


def test_what_lies_before_the_logs_beginning_is_acknowledged_up_to_there_and_no_further():
    play = cut()
    follower, log = play.replicas[2], play.replicas[1].log
    for prev, count, match in [(1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 5), (2, 4, 6), (4, 2, 6), (5, 1, 6), (6, 0, 6)]:
        terms, entries = log.terms[prev : prev + count], log.entries[prev : prev + count]
        follower.step(1, AppendEntries(2, prev, log.terms[prev - 1], 4, 7, terms, entries), play.now_us)
        answer = AppendResponse(2, 7, success=True, match=match, hint_index=0, hint_term=0)
        assert follower.late.pop() == (1, answer), (prev, count)
    assert follower.last_index == 6


def test_an_entry_behind_the_logs_beginning_is_taken_though_its_message_began_before():
    play = cut()
    follower = play.replicas[2]
    follower.step(1, AppendEntries(2, 2, 2, 4, 7, [2, 2, 2, 2, 2], [b"\x01%c" % c for c in b"cdefg"]), play.now_us)
    assert follower.last_index == 7
    assert follower.log.entries == [b"\x01e", b"\x01f", b"\x01g"]


def test_a_follower_commits_what_the_message_shows_and_the_leader_has_and_never_goes_back():
    play = Play()
    leader = play.elect(1)
    play.propose(1, "c", "d", "e")
    play.settle()
    follower = play.replicas[2]
    assert (follower.commit_index, follower.last_index) == (2, 5)
    for prev, commit, expected in [(3, 2, 2), (3, 5, 3), (2, 5, 3), (4, 1, 3), (5, 5, 5)]:
        follower.step(1, AppendEntries(leader.term, prev, leader.term, commit, 9, [], []), play.now_us)
        assert follower.commit_index == expected, (prev, commit)


def test_a_message_of_an_older_term_is_answered_with_the_newer_one_and_confirms_no_round():
    play = Play()
    play.elect(1)
    play.isolate(1)
    play.elect(2)
    follower = play.replicas[3]
    before = (follower.leader, follower.heard_at_us, follower.last_index)
    follower.step(1, AppendEntries(2, 2, 2, 2, 77, [2], [b"\x01a"]), play.now_us + 5)
    refusal = AppendResponse(3, 0, success=False, match=2, hint_index=0, hint_term=0)
    assert follower.late == [(1, refusal)]
    assert (follower.leader, follower.heard_at_us, follower.last_index) == before


@given(
    shared=st.lists(st.integers(1, 3), max_size=3).map(sorted),
    mine=st.lists(st.sampled_from([4, 6]), max_size=4).map(sorted),
    theirs=st.lists(st.sampled_from([5, 7]), max_size=4).map(sorted),
    data=st.data(),
)
@settings(deadline=None)
def test_a_follower_takes_entries_as_the_paper_says(shared, mine, theirs, data):
    """Raft, figure 2, "AppendEntries RPC", steps 1 to 5, done by a list."""
    play = Play()
    config = play.disks[2].entries[0]
    common = [(1, config)] + [(term, b"\x01s%d" % at) for at, term in enumerate(shared)]
    log = common + [(term, b"\x01m%d" % at) for at, term in enumerate(mine)]
    leader = common + [(term, b"\x01t%d" % at) for at, term in enumerate(theirs)]
    committed = data.draw(st.integers(1, len(common)))
    play.disks[2] = Disk(HardState(8, 0, committed), [term for term, _ in log], [entry for _, entry in log])
    follower = play.start(2)
    prev = data.draw(st.integers(0, len(leader)))
    sent = leader[prev : data.draw(st.integers(prev, len(leader)))]
    commit = data.draw(st.integers(1, len(leader) + 2))
    prev_term = leader[prev - 1][0] if prev else 0

    message = AppendEntries(8, prev, prev_term, commit, 5, [term for term, _ in sent], [entry for _, entry in sent])
    follower.step(1, message, 0)

    if prev <= len(log) and (prev == 0 or log[prev - 1][0] == prev_term):
        for at, entry in enumerate(sent, prev):
            if at < len(log) and log[at][0] != entry[0]:
                del log[at:]
            if at == len(log):
                log.append(entry)
        match = prev + len(sent)
        committed = max(committed, min(commit, match))
        answer = AppendResponse(8, 5, success=True, match=match, hint_index=0, hint_term=0)
    else:
        hint = max((at for at in range(1, min(prev, len(log)) + 1) if log[at - 1][0] <= prev_term), default=0)
        hint_term = log[hint - 1][0] if hint else 0
        answer = AppendResponse(8, 5, success=False, match=prev, hint_index=hint, hint_term=hint_term)
    assert list(zip(follower.log.terms, follower.log.entries, strict=True)) == log
    assert follower.commit_index == committed
    assert follower.late == [(1, answer)]
    assert (follower.leader, follower.term) == (1, 8)
