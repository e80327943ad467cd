"""Snapshots and compaction: Raft, section 7; thesis, chapter 5."""

from __future__ import annotations

import pytest

from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import encode_configuration
from coordinator.consensus.raft.messages import AppendEntries, InstallSnapshot, SnapshotResponse
from coordinator.consensus.raft.options import Options
from tests.unit.consensus.play import OPTIONS, Play

SMALL = Options(snapshot_chunk_bytes=50, snapshot_window_bytes=150)


def behind(options: Options = SMALL, keep: int = 0) -> Play:
    """Leader 1 has cut its log past what replica 3 has."""
    play = Play(options=options)
    play.elect(1)
    play.pass_time(100_000)
    play.crash(3)
    for number in range(40):
        play.propose(1, f"word{number}")
        play.settle()
    play.pass_time(100_000)
    play.snapshot(1, keep)
    return play


ALL = [f"word{number}" for number in range(40)]


def test_a_replica_that_lacks_what_was_cut_is_sent_a_snapshot_and_goes_on_from_there():
    play = behind()
    play.start(3)
    play.pass_time(1_000_000)
    play.propose(1, "more")
    play.pass_time(300_000)
    assert play.words(3) == [*ALL, "more"]
    assert play.replicas[3].first_index > 1


def test_a_replica_that_is_a_little_behind_needs_none():
    play = behind(keep=100)
    parts = 0
    play.start(3)
    for _ in range(60):
        play.now_us += 20_000
        parts += sum(isinstance(letter.message, InstallSnapshot) for letter in play.deliver())
    assert parts == 0
    assert play.words(3) == ALL


def test_parts_that_are_lost_are_sent_again():
    play = behind()
    count = 0

    def lose(letter):
        nonlocal count
        if not isinstance(letter.message, (InstallSnapshot, SnapshotResponse)):
            return False
        count += 1
        return count % 3 == 0

    play.lost = lose
    play.start(3)
    play.pass_time(8_000_000)
    assert play.words(3) == ALL


def test_no_more_than_the_window_is_under_way():
    play = behind()
    play.lost = lambda letter: isinstance(letter.message, SnapshotResponse)
    play.start(3)
    widest = 0
    for _ in range(100):
        play.now_us += 10_000
        delivered = [letter.message for letter in play.deliver() if isinstance(letter.message, InstallSnapshot)]
        widest = max(widest, sum(len(part.data) for part in delivered))
    assert 0 < widest <= SMALL.snapshot_window_bytes + SMALL.snapshot_chunk_bytes


def test_a_follower_that_is_sent_a_snapshot_hears_its_leader():
    play = behind(SMALL._replace(snapshot_chunk_bytes=4, snapshot_window_bytes=4))
    play.start(3)
    play.pass_time(3_000_000)
    assert play.replicas[1].role is Role.LEADER
    assert play.replicas[1].term == 2, "nobody had reason to campaign"


def test_a_leader_in_doubt_stops_sending_and_only_beats():
    """A beat stands in for the snapshot: it leaves no window open, which would make every turn send another one."""
    play = behind(SMALL._replace(snapshot_chunk_bytes=4, snapshot_window_bytes=8))
    leader = play.replicas[1]
    play.lost = lambda letter: isinstance(letter.message, SnapshotResponse)
    play.start(3)
    play.pass_time(100_000)
    progress = leader.progress[3]
    assert progress.snapshot is not None
    at = progress.snapshot
    leader.step(3, SnapshotResponse(leader.term, 0, at.source.last_index, at.sent, len(at.source.data)), play.now_us)
    leader.doubt(True)
    play.now_us += OPTIONS.heartbeat_us
    sent = [[letter.message for letter in leader.ready(play.now_us).early if letter.receiver == 3] for _ in range(3)]
    assert [len(messages) for messages in sent] == [1, 0, 0]
    assert isinstance(sent[0][0], AppendEntries)
    assert not progress.inflight


def test_a_snapshot_carries_the_configuration():
    """A mutant of the proof: a snapshot that drops it."""
    play = Play(options=SMALL)
    leader = play.elect(1)
    play.pass_time(100_000)
    members = tuple(Member(replica, f"node{replica}") for replica in (1, 2, 3))
    leader.change(Change(members, (Member(9, "node9"),)), play.now_us)
    play.crash(3)
    play.pass_time(200_000)
    play.propose(1, *ALL)
    play.settle()
    play.snapshot(1)
    play.start(3)
    play.pass_time(1_000_000)
    assert [member.replica for member in play.replicas[3].configuration.learners] == [9]
    play.crash(3)
    assert [member.replica for member in play.start(3).configuration.learners] == [9]


def test_a_restart_begins_with_the_snapshot():
    play = behind()
    play.crash(1)
    play.start(1)
    assert play.words(1) == ALL
    play.elect(1)
    play.start(3)
    play.pass_time(1_000_000)
    assert play.words(3) == ALL


def test_a_new_member_with_an_empty_journal_is_brought_up_by_snapshot():
    play = behind()
    play.start(3)
    play.join(4)
    members = tuple(Member(replica, f"node{replica}") for replica in (1, 2, 3))
    play.pass_time(500_000)
    play.replicas[1].change(Change(members, (Member(4, "node4"),)), play.now_us)
    play.pass_time(1_000_000)
    assert play.words(4) == ALL


def test_an_old_part_does_not_take_a_replica_back():
    play = behind()
    play.start(3)
    play.pass_time(1_000_000)
    play.propose(1, "more")
    play.pass_time(200_000)
    leader, follower = play.replicas[1], play.replicas[3]
    snapshot = leader.snapshot
    assert snapshot is not None
    part = InstallSnapshot(
        leader.term, 1, snapshot.last_index, snapshot.term, encode_configuration(snapshot.configuration), 3, 0, b"old"
    )
    follower.step(1, part, play.now_us)
    play.settle()
    assert play.words(3) == [*ALL, "more"]


def test_parts_of_different_snapshots_do_not_mix():
    play = behind()
    follower = play.start(3)
    entry = encode_configuration(play.replicas[1].configuration)
    follower.step(1, InstallSnapshot(2, 1, 30, 2, entry, 8, 0, b"aaaa"), play.now_us)
    follower.step(1, InstallSnapshot(2, 2, 31, 2, entry, 8, 4, b"bbbb"), play.now_us)
    assert follower.installed is None
    follower.step(1, InstallSnapshot(2, 3, 31, 2, entry, 8, 0, b"cccc"), play.now_us)
    follower.step(1, InstallSnapshot(2, 4, 31, 2, entry, 8, 4, b"dddd"), play.now_us)
    follower.install()
    assert follower.installed is not None
    assert follower.installed.data == b"ccccdddd"


def test_entries_below_the_logs_beginning_are_known_to_match():
    play = behind()
    play.start(3)
    play.pass_time(1_000_000)
    follower = play.replicas[3]
    late = AppendEntries(2, 1, 1, 5, 1, [2, 2], [b"\x01x", b"\x01y"])
    follower.step(1, late, play.now_us)
    play.settle()
    assert play.words(3) == ALL


def test_nothing_is_cut_that_is_not_applied_committed_and_on_disk():
    play = Play()
    leader = play.elect(1)
    play.isolate(1)
    play.propose(1, "a")
    play.settle()
    log, last_index = leader.log, leader.last_index
    with pytest.raises(AssertionError, match="which is not committed"):
        log.compact(last_index)
    log.commit = log.unwritten = last_index
    with pytest.raises(AssertionError, match="which is not on disk"):
        log.compact(last_index)
    log.unwritten = last_index + 1
    log.compact(last_index)
    assert leader.first_index == last_index + 1


def test_a_tail_on_disk_that_memory_has_cut_off_does_not_come_back():
    """A conflicting tail is cut off, and in the same turn a snapshot covers what took its place."""
    play = Play()
    follower, disk = play.replicas[3], play.disks[3]
    follower.step(1, AppendEntries(2, 1, 1, 1, 1, [2] * 19, [b"\x01old%d" % i for i in range(2, 21)]), 0)
    play.turn(3)
    assert len(disk.entries) == 20
    new = [b"\x01new%d" % i for i in range(10, 13)]
    follower.step(2, AppendEntries(3, 9, 2, 1, 1, [3] * 3, new), 0)
    entry = encode_configuration(follower.configuration)
    follower.step(2, InstallSnapshot(3, 2, 12, 3, entry, 4, 0, b"\x01xy"[:3] + b"z"), 0)
    play.turn(3)
    assert disk.offset == 12
    assert (disk.terms, disk.entries) == ([], [])


def test_a_tail_that_is_on_disk_and_matches_is_kept():
    play = Play()
    follower, disk = play.replicas[3], play.disks[3]
    follower.step(1, AppendEntries(2, 1, 1, 1, 1, [2] * 5, [b"\x01w%d" % i for i in range(2, 7)]), 0)
    play.turn(3)
    entry = encode_configuration(follower.configuration)
    follower.step(1, InstallSnapshot(2, 2, 4, 2, entry, 4, 0, b"abcd"), 0)
    play.turn(3)
    assert (disk.offset, follower.last_index, follower.log.entries) == (4, 6, [b"\x01w5", b"\x01w6"])


def test_a_snapshot_is_sent_to_its_end_though_newer_ones_are_made():
    play = behind(SMALL._replace(snapshot_chunk_bytes=20, snapshot_window_bytes=20))
    play.start(3)
    for number in range(100):
        play.now_us += 10_000
        play.propose(1, f"more{number}")
        play.deliver()
        play.snapshot(1)
    play.pass_time(500_000)
    assert play.words(3) == play.words(1)
    assert len(play.words(3)) > 100


def test_answers_about_a_snapshot_of_a_higher_term_depose_and_older_ones_mean_nothing():
    play = behind()
    leader = play.replicas[1]
    play.start(3)
    play.lost = lambda letter: isinstance(letter.message, InstallSnapshot)
    play.pass_time(200_000)
    at = leader.progress[3].snapshot
    assert at is not None
    before = (at.acked, leader.progress[3].match, leader.progress[3].acked_round)
    size = len(at.source.data)
    whole = SnapshotResponse(leader.term, 0, at.source.last_index, size, size)
    leader.step(3, whole._replace(term=leader.term - 1, round=99), play.now_us)
    leader.step(9, whole._replace(round=99), play.now_us)
    leader.step(3, whole._replace(last_index=whole.last_index - 1), play.now_us)
    leader.step(3, whole._replace(size=size + 1, offset=size + 1), play.now_us)
    assert leader.progress[3].snapshot is at
    assert (at.acked, leader.progress[3].match, leader.progress[3].acked_round) == before
    play.replicas[2].step(3, whole, play.now_us)
    assert play.replicas[2].role is Role.FOLLOWER
    leader.step(3, whole._replace(term=leader.term + 1, offset=-1), play.now_us)
    assert (leader.role, leader.term, leader.leader) == (Role.FOLLOWER, 3, 0)


def test_a_part_of_an_older_term_is_answered_with_the_newer_one_and_taken_by_nobody():
    play = Play()
    follower = play.replicas[3]
    follower.term = 5
    entry = encode_configuration(follower.configuration)
    follower.step(1, InstallSnapshot(4, 8, 9, 3, entry, 4, 0, b"abcd"), 0)
    assert (follower.installed, follower.incoming, follower.leader) == (None, None, 0)
    assert follower.late == [(1, SnapshotResponse(5, 0, 9, -1, 4))]


def test_a_snapshot_that_is_already_here_is_acknowledged_to_its_end():
    play = behind()
    play.start(3)
    play.pass_time(1_000_000)
    follower = play.replicas[3]
    entry = encode_configuration(follower.configuration)
    index = follower.commit_index
    _, heard = follower.heard_round
    follower.step(1, InstallSnapshot(2, heard + 1, index + 5, 2, entry, 8, 0, b"da"), play.now_us)
    assert follower.incoming is not None
    follower.late.clear()
    follower.step(1, InstallSnapshot(2, heard + 2, index, 2, entry, 8, 0, b"data"), play.now_us)
    assert follower.late == [(1, SnapshotResponse(2, heard + 2, index, 8, 8))]
    assert follower.installed is None
    assert follower.incoming is None


def test_an_empty_snapshot_is_one_part_a_heartbeat_until_it_is_acknowledged():
    """A witness is told where the log begins, and gets no state."""
    play = Play(options=SMALL, witnesses=(3,))
    leader = play.elect(1)
    play.pass_time(100_000)
    play.crash(3)
    play.propose(1, *ALL)
    play.settle()
    play.pass_time(100_000)
    play.snapshot(1)
    play.start(3)
    play.lost = lambda letter: isinstance(letter.message, SnapshotResponse)
    play.now_us = leader.deadline_us
    play.settle()
    assert play.replicas[3].commit_index == leader.commit_index, "it is told at once, and not with the next heartbeat"
    sizes = []
    for _ in range(30):
        play.now_us += 10_000
        sizes += [x.message.size for x in play.deliver() if isinstance(x.message, InstallSnapshot)]
    assert 3 <= len(sizes) <= 6
    assert set(sizes) == {0}
    play.heal()
    play.propose(1, "more")
    play.pass_time(300_000)
    assert play.replicas[3].last_index == leader.last_index
    assert play.replicas[3].commit_index == leader.commit_index


def test_where_the_window_is_full_a_part_that_was_sent_before_is_the_heartbeat():
    play = behind(SMALL._replace(snapshot_chunk_bytes=50, snapshot_window_bytes=1))
    play.lost = lambda letter: isinstance(letter.message, SnapshotResponse)
    play.start(3)
    sent = []
    for _ in range(30):
        play.now_us += 10_000
        parts = [letter.message for letter in play.deliver() if isinstance(letter.message, InstallSnapshot)]
        sent += [(part.offset, len(part.data)) for part in parts]
    assert len(sent) >= 3
    assert set(sent) == {(0, 50)}
    assert play.replicas[3].leader == 1


def test_after_a_heartbeat_a_snapshot_goes_on_from_what_was_acknowledged():
    play = behind()
    play.start(3)
    count = 0

    def lose_the_second(letter):
        nonlocal count
        count += isinstance(letter.message, InstallSnapshot)
        return isinstance(letter.message, InstallSnapshot) and count == 2

    play.lost = lose_the_second
    offsets = []
    for _ in range(60):
        play.now_us += 10_000
        offsets += [x.message.offset for x in play.deliver() if isinstance(x.message, InstallSnapshot)]
        at = play.replicas[1].progress[3].snapshot
        if at is not None:
            assert at.acked <= at.sent
    assert offsets.count(50) == 1, "what was lost is sent again, once"
    assert play.words(3) == ALL


def test_a_snapshot_is_written_though_nothing_else_is():
    """The commit of the journal that takes it says of the commit index, too."""
    play = Play()
    follower = play.replicas[3]
    follower.step(1, AppendEntries(1, 1, 1, 1, 1, [], []), 0)
    play.turn(3)
    entry = encode_configuration(follower.configuration)
    follower.step(1, InstallSnapshot(1, 2, 9, 1, entry, 4, 0, b"data"), 0)
    follower.install()
    ready = follower.ready(0)
    assert ready.install is not None
    assert not ready.keep_tail
    assert ready.hard_state == (1, 0, 9)
    assert (ready.first_index, ready.entries) == (10, [])


def arrived() -> Play:
    """Replica 3 has all of its leader's snapshot, and its host has not put it in place yet."""
    play = behind()
    play.hosts_take_long.add(3)
    play.start(3)
    play.pass_time(500_000)
    assert play.replicas[3].arrived is not None
    return play


def test_a_snapshot_that_has_come_whole_waits_for_the_host_and_the_leader_goes_on_being_heard():
    play = arrived()
    follower, leader = play.replicas[3], play.replicas[1]
    taken = follower.arrived
    play.pass_time(3_000_000)
    assert follower.arrived is taken, "what comes again is not taken for another one"
    assert (leader.role, leader.term, follower.commit_index) == (Role.LEADER, 2, 1)
    assert leader.progress[3].snapshot is not None, "nobody believes that it is in place"
    play.hosts_take_long.clear()
    play.pass_time(20_000)
    assert play.words(3) == ALL
    assert leader.progress[3].match == leader.last_index, "the leader is told at once"


def test_a_follower_that_gets_a_snapshot_ready_votes():
    play = arrived()
    play.crash(1)
    play.propose(2, "lost")
    play.pass_time(3_000_000)
    leader = play.replicas[2]
    assert leader.role is Role.LEADER, "of three, two are there"
    play.hosts_take_long.clear()
    play.propose(2, "more")
    play.pass_time(500_000)
    assert play.words(3) == [*ALL, "more"]


def test_a_leader_change_while_a_snapshot_is_made_ready_changes_nothing_of_it():
    """Replicas take their snapshots at the same marks, so that the next leader's is often the same one."""
    play = arrived()
    play.snapshot(2)
    play.elect(2)
    before = play.replicas[3].arrived
    assert before is not None
    play.propose(2, "more")
    play.pass_time(300_000)
    play.hosts_take_long.clear()
    play.pass_time(300_000)
    assert play.words(3) == [*ALL, "more"]


def test_a_newer_snapshot_takes_the_place_of_one_that_is_not_in_place_yet():
    play = arrived()
    follower = play.replicas[3]
    old = follower.arrived
    assert old is not None
    entry = encode_configuration(play.replicas[1].configuration)
    play.lost = lambda letter: True
    follower.step(1, InstallSnapshot(2, 99, old.last_index + 1, 2, entry, 8, 0, b"aaaa"), play.now_us)
    assert follower.arrived is None
    follower.step(1, InstallSnapshot(2, 99, old.last_index + 1, 2, entry, 8, 4, b"bbbb"), play.now_us)
    assert follower.arrived is not None
    assert bytes(follower.arrived.data) == b"aaaabbbb"
    with pytest.raises(AssertionError):
        play.replicas[2].install()


def test_what_the_host_can_not_use_comes_again_from_its_start():
    play = arrived()
    follower = play.replicas[3]
    follower.refuse()
    assert follower.arrived is None
    play.pass_time(500_000)
    assert follower.arrived is not None
    play.hosts_take_long.clear()
    play.pass_time(20_000)
    assert play.words(3) == ALL


def test_a_snapshot_that_the_log_has_overtaken_is_forgotten():
    play = arrived()
    follower = play.replicas[3]
    whole = follower.arrived
    assert whole is not None
    leader = play.replicas[2]
    terms, entries = leader.log.slice(2, leader.last_index, 1 << 30)
    follower.step(1, AppendEntries(2, 1, 1, leader.commit_index, 99, terms, entries), play.now_us)
    assert follower.commit_index >= whole.last_index
    assert follower.arrived is None
    play.turn(3)
    assert follower.incoming is None
    assert play.words(3) == ALL


def test_a_leader_has_no_use_for_a_snapshot_that_came_before():
    play = arrived()
    play.replicas[3].role = Role.LEADER
    assert play.replicas[3].arrived is None


def test_one_that_has_lost_its_leader_installs_and_tells_nobody():
    play = arrived()
    follower = play.replicas[3]
    follower.leader = 0
    follower.late.clear()
    follower.install()
    assert follower.installed is not None
    assert follower.late == []


def test_an_answer_that_comes_late_does_not_open_the_window():
    """Found by `test_models.py`: two answers of one round the other way round, and half as much again was under way."""
    play = behind()
    play.start(3)
    leader = play.replicas[1]
    play.lost = lambda letter: isinstance(letter.message, InstallSnapshot)
    play.pass_time(200_000)
    at = leader.progress[3].snapshot
    assert at is not None
    number = leader.rounds.current
    part = SnapshotResponse(leader.term, number, at.source.last_index, 100, len(at.source.data))
    leader.step(3, part, play.now_us)
    leader.step(3, part._replace(offset=50), play.now_us)
    assert at.acked == 100
    leader.step(3, part._replace(round=number - 1, offset=0), play.now_us)
    assert at.acked == 100
    play.pass_time(OPTIONS.heartbeat_us)
    assert leader.rounds.current > number
    leader.step(3, part._replace(round=leader.rounds.current, offset=0), play.now_us)
    assert at.acked == 0, "it has lost what it had, and says so of a new round"
