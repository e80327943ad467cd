"""Large snapshots, beside the loop: written, sent and loaded over many turns, while the replica goes on."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from coordinator.consensus.engine import Role, Snapshot
from coordinator.consensus.parts import Parts
from coordinator.replica.log_bytes import LogBytes
from coordinator.replica.ports import Head
from coordinator.replica.states import STAGE_AGAIN_US, Compaction, _Staged
from coordinator.statemachine import snapshot
from coordinator.statemachine.commands import PutKey
from coordinator.statemachine.items import Item
from coordinator.statemachine.machine import Machine
from tests.unit.replica.stage import Node, Stage, Staging
from tests.unit.replica.test_turn import command, opened

LARGE = Compaction(snapshot_entries=20, trailing_entries=5, staged_bytes_min=1, load_bytes=300)


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    for node in stage.nodes.values():
        node.replica.states.compaction = LARGE
    stage.elect("node1")
    stage.pass_time(100_000)
    return stage


def put(stage: Stage, session: int, numbers: range, leader: str = "node1") -> None:
    for number in numbers:
        stage.ask(leader, command(number, session, number, PutKey(f"k{number}", b"1" * 50)))
        stage.settle()
    stage.pass_time(200_000)


def heads(node: Node) -> list[Head]:
    return [write.head for writes in node.journal.commits for write in writes if write.head]


def behind(stage: Stage) -> tuple[int, Node]:
    """node3 lacks what the others' logs no longer hold; its disk is slow. It has all of a snapshot by the time."""
    session = opened(stage)
    stage.cut = {"node3"}
    put(stage, session, range(1, 60))
    assert stage.nodes["node1"].raft.first_index > stage.nodes["node3"].raft.last_index + 1
    node = stage.nodes["node3"]
    node.journal.slow = True
    node.journal.staged.clear()
    stage.cut = set()
    stage.pass_time(1_000_000)
    assert node.raft.arrived is not None
    return session, node


def test_the_log_is_cut_once_the_snapshot_is_on_disk_and_the_loop_goes_on(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    leader.journal.slow = True
    put(stage, session, range(1, 60))
    (staging,) = leader.journal.staged
    assert (heads(leader), leader.raft.first_index) == ([], 1)
    staging.is_done = True
    stage.pass_time(40_000)
    (head,) = heads(leader)
    assert head.staged is staging
    assert leader.raft.first_index == head.offset + 1 > 1
    restored = Machine()
    snapshot.load(restored, head.snapshot.data)
    assert restored.applied == head.snapshot.last_index


def test_a_small_snapshot_goes_into_the_commit_that_takes_it(stage):
    leader = stage.nodes["node1"]
    leader.replica.states.compaction = LARGE._replace(staged_bytes_min=1 << 20)
    put(stage, opened(stage), range(1, 30))
    assert heads(leader)[-1].staged is None
    assert leader.journal.staged == []


def test_a_full_disk_is_told_costs_nothing_else_and_is_tried_again(stage):
    session = opened(stage)
    leader = stage.nodes["node1"]
    leader.journal.slow = True
    put(stage, session, range(1, 30))
    leader.journal.staged[0].failed = "no space left"
    stage.pass_time(STAGE_AGAIN_US // 2)
    assert "its disk does not take a snapshot: no space left" in leader.replica.waits_for
    put(stage, session, range(30, 35))
    assert leader.raft.role is Role.LEADER
    assert leader.replica.machine.state.keys.rows["k34"].value == b"1" * 50
    assert (len(leader.journal.staged), heads(leader)) == (1, [])
    stage.pass_time(STAGE_AGAIN_US)
    assert len(leader.journal.staged) == 2
    leader.journal.staged[1].is_done = True
    stage.pass_time(40_000)
    assert leader.replica.waits_for == ""
    assert heads(leader)[-1].staged is leader.journal.staged[1]


@pytest.mark.interpreted
def test_a_snapshot_that_comes_is_loaded_in_slices_and_its_leader_stays(stage, monkeypatch):
    slices: list[int] = []
    feed = snapshot.Loader.feed

    def slow_feed(loader: snapshot.Loader, part: bytes) -> None:
        slices.append(len(part))
        until_ns = time.perf_counter_ns() + 1_000_000
        while time.perf_counter_ns() < until_ns:
            pass
        feed(loader, part)

    monkeypatch.setattr(snapshot.Loader, "feed", slow_feed)
    _, node = behind(stage)
    term = node.raft.term
    loads = node.replica.meters.snapshot_loads
    size = len(node.raft.arrived.data)
    stage.pass_time(3_000_000)
    assert len(slices) == -(-size // LARGE.load_bytes) > 5
    assert sum(loads.counts) == 1, "it is measured whole"
    assert loads.sum_us >= 900 * len(slices)
    assert node.replica.states.due_us is None, "it waits for its disk, and does not turn for nothing"
    assert (node.raft.term, node.raft.leader) == (term, stage.nodes["node1"].replica.replica)
    assert node.replica.machine.applied < 10
    assert heads(node) == []
    (staging,) = node.journal.staged
    staging.is_done = True
    stage.pass_time(100_000)
    assert heads(node)[0].staged is staging
    assert node.replica.machine.digest() == stage.nodes["node1"].replica.machine.digest()


def test_a_state_that_a_later_one_takes_the_place_of_is_left_to_be_freed(stage):
    """At once, a state of a million keys held up the loop for 100 ms."""
    _, node = behind(stage)
    old = node.replica.machine.state
    old.keys.add("of the old one", Item(b"", 1, 1, 1))
    node.journal.slow = False
    for staging in node.journal.staged:
        staging.is_done = True
    stage.pass_time(2_000_000)
    assert node.replica.machine.state is not old
    assert "of the old one" in old.keys.rows
    assert old in node.replica.states.take_left()
    assert not node.replica.states.take_left()


def test_an_old_snapshot_is_left_to_be_freed(stage):
    leader = stage.nodes["node1"]
    session = opened(stage)
    put(stage, session, range(1, 60))
    first = leader.raft.snapshot
    put(stage, session, range(60, 120))
    assert leader.raft.snapshot is not first
    assert any(left is first.data for left in leader.replica.states.take_left())


def test_a_replica_that_loads_votes(stage):
    session, node = behind(stage)
    stage.cut = {"node1"}
    stage.pass_time(3_000_000)
    leader = stage.nodes["node2"]
    assert leader.raft.role is Role.LEADER
    put(stage, session, range(60, 62), leader="node2")
    for staging in node.journal.staged:
        staging.is_done = True
    node.journal.slow = False
    stage.pass_time(2_000_000)
    assert node.replica.machine.digest() == leader.replica.machine.digest()


def test_a_newer_snapshot_gives_up_what_was_begun_of_an_older_one(stage):
    session, node = behind(stage)
    (old,) = node.journal.staged
    leader = stage.nodes["node1"]
    first = node.raft.arrived
    put(stage, session, range(60, 100))
    leader.raft.progress[node.replica.replica].send_snapshot(leader.raft.snapshot)
    node.journal.slow = False
    stage.pass_time(2_000_000)
    assert old.given_up
    assert heads(node)[0].snapshot.last_index > first.last_index
    assert node.replica.machine.digest() == leader.replica.machine.digest()


def test_a_snapshot_that_can_not_be_used_is_told_and_comes_again(stage, monkeypatch):
    _, node = behind(stage)
    size = len(node.raft.arrived.data)
    broken = Parts([b"CLST\x00\x02\x00\x00" + b"\xff" * (size - 8)])
    node.raft.incoming.whole = node.raft.incoming.whole._replace(data=broken)
    node.journal.staged.clear()
    stage.pass_time(20_000)
    assert "can not be used" in node.replica.waits_for
    assert node.journal.staged[0].given_up
    node.journal.slow = False
    stage.pass_time(2_000_000)
    assert node.replica.waits_for == ""
    assert node.replica.machine.digest() == stage.nodes["node1"].replica.machine.digest()


def test_a_snapshot_that_the_log_has_overtaken_is_no_trouble_any_more(stage):
    """The next leader has all of its log."""
    stage.nodes["node2"].replica.states.compaction = LARGE._replace(snapshot_entries=1_000_000)
    _, node = behind(stage)
    node.journal.staged[0].failed = "no room"
    stage.pass_time(20_000)
    assert "does not take a snapshot: no room" in node.replica.waits_for
    stage.cut = {"node1"}
    stage.elect("node2")
    stage.pass_time(1_000_000)
    assert heads(node) == []
    assert node.replica.machine.digest() == stage.nodes["node2"].replica.machine.digest()
    assert node.replica.waits_for == ""


def test_what_the_own_replica_was_writing_is_given_up_when_a_snapshot_comes(stage):
    _, node = behind(stage)
    node.journal.staged[0].is_done = True
    own = Staging()
    own.is_done = False
    node.replica.states._taken = _Staged(Snapshot(2, 1, node.raft.configuration, b"own"), own, 0)
    stage.pass_time(100_000)
    assert own.given_up
    assert len(heads(node)) == 1


@pytest.mark.interpreted
def test_the_state_that_was_being_dumped_is_given_up_when_a_snapshot_takes_its_place(stage, monkeypatch):
    _, node = behind(stage)
    states = node.replica.states
    monkeypatch.setattr(states, "_go_on_dumping", lambda dumping, now_us: None)
    states._begin_dump(node.raft.applied_index, is_mark=False)
    assert states._dumping is not None
    node.journal.staged[0].is_done = True
    stage.pass_time(100_000)
    assert len(heads(node)) == 1
    assert states._dumping is None, "it would end as an older snapshot than the one on disk"


def test_a_digest_alone_keeps_no_bytes(stage):
    """A mark with no snapshot due: nothing of 300 MB is to stay in memory for it."""
    session = opened(stage)
    put(stage, session, range(1, 5))
    leader = stage.nodes["node1"]
    leader.replica.states.mark(stage.clock.us)
    leader.run()
    states = leader.replica.states
    stage.settle()
    assert states._offered is None
    assert states._dumping is None or states._dumping.parts is None
    assert states.comparison.own(states.marked_index) is not None


@pytest.mark.interpreted
def test_a_dump_is_measured_whole_and_one_for_a_digest_alone_not_at_all(stage, monkeypatch):
    session = opened(stage)
    leader = stage.nodes["node1"]
    dumps = leader.replica.meters.snapshot_dumps
    monkeypatch.setattr(snapshot.Dump.slice, "__defaults__", (64,))
    leader.replica.states.mark(stage.clock.us)
    stage.pass_time(400_000)
    assert leader.replica.states.is_settled
    assert sum(dumps.counts) == 0
    put(stage, session, range(1, 30))
    stage.pass_time(400_000)
    taken = len(heads(leader))
    assert taken == sum(dumps.counts) >= 1


def test_a_replica_that_stops_for_good_leaves_nothing_on_its_way_to_disk(stage):
    """Neither what it took itself nor what came; hundreds of megabytes stayed until a restart."""
    _, node = behind(stage)
    own = Staging()
    own.is_done = False
    node.replica.states._taken = _Staged(Snapshot(2, 1, node.raft.configuration, b"own"), own, 0)
    (came,) = node.journal.staged
    node.replica._stopping = "its state differs"
    node.run()
    assert node.replica.stopped
    assert (own.given_up, came.given_up) == (True, True)
    assert node.replica.states.snapshot_index < 10, "it is nobody's any more"


def test_what_the_journal_named_in_its_last_turn_stays(stage):
    _, node = behind(stage)
    (came,) = node.journal.staged
    came.is_done = True
    node.replica._stopping = "its state differs"
    node.run()
    assert node.replica.stopped
    assert heads(node)[-1].staged is came
    assert not came.given_up


@pytest.mark.interpreted
@pytest.mark.parametrize("under_way", ["_dumping", "_offered", "_taken", "_loading", "_answers_to_peers"])
def test_a_replica_is_settled_once_nothing_of_any_kind_is_under_way(stage, under_way):
    states = stage.nodes["node1"].replica.states
    assert states.is_settled
    anything = SimpleNamespace(snapshot=SimpleNamespace(last_index=0))
    setattr(states, under_way, [anything] if under_way == "_answers_to_peers" else anything)
    assert not states.is_settled


# --- the log in bytes -----------------------------------------------------------------------------

CROWDED = Compaction()
BYTES = Compaction(snapshot_entries=10_000, trailing_entries=5_000, snapshot_bytes=20_000, trailing_bytes=6_400)


def test_a_log_of_few_large_entries_is_cut_too(stage):
    """20,000 entries of a megabyte are 20 GB, in memory and on disk."""
    for node in stage.nodes.values():
        node.replica.states.compaction = BYTES
    session = opened(stage)
    for number in range(1, 101):
        stage.ask("node1", command(number, session, number, PutKey("a", bytes(1_000))))
        stage.settle()
        stage.pass_time(20_000)
        if number == 15:
            assert not any(heads(node) for node in stage.nodes.values()), "not before it is due"
    for node in stage.nodes.values():
        held = node.raft.log.slice(node.raft.first_index, node.raft.last_index, 1 << 62)[1]
        assert 6_400 <= sum(map(len, held)) <= 20_000 + 6_400 + 3_000
        assert 3 <= len(heads(node)) <= 6, "each 20,000 bytes one, and no more"
        assert heads(node)[-1].offset == node.raft.first_index - 1, "memory and disk hold the same"
        assert len(node.replica.states._log_bytes._places) < 40


def test_a_log_is_long_and_a_mark_is_due_with_just_so_much_and_not_before(stage):
    leader = stage.nodes["node1"]
    states = leader.replica.states
    states.compaction = BYTES
    assert [states._is_long(states.snapshot_index + entries) for entries in (9_999, 10_000)] == [False, True]
    last_index = leader.raft.last_index
    for size, marks in ((19_999, 0), (20_000, 1)):
        states._unmarked_bytes = size
        states.tick(stage.clock.us)
        assert leader.raft.last_index == last_index + marks


@pytest.mark.parametrize(
    ("entries", "size", "is_crowded", "is_much"),
    [
        (99_999, 1_000, False, False),
        (100_000, 1_000, False, True),
        (19_999, CROWDED.crowded_bytes, True, False),
        (20_000, CROWDED.crowded_bytes - 1, False, False),
        (20_000, CROWDED.crowded_bytes, False, True),
        (20_000, 1_000, True, True),
        (1, CROWDED.snapshot_bytes - 1, True, False),
        (1, CROWDED.snapshot_bytes, False, True),
    ],
)
def test_a_log_of_small_entries_grows_long_where_there_are_few(stage, entries, size, is_crowded, is_much):
    states = stage.nodes["node1"].replica.states
    states.compaction = CROWDED
    states.is_crowded = is_crowded
    assert states._is_much(entries, size) is is_much


@pytest.mark.parametrize(
    ("sharers", "of_state", "share"),
    [(1, 0, 256 << 20), (4, 0, 256 << 20), (32, 0, 32 << 20), (1_024, 0, 1 << 20), (1_024, 64 << 20, 16 << 20)],
)
def test_the_logs_of_a_node_have_a_bound_together(stage, sharers, of_state, share):
    """Twenty clusters that are each sent large values had 256 MiB of log each, and kept 64 of them behind."""
    states = stage.nodes["node1"].replica.states
    states.compaction = Compaction()
    states.sharers = sharers
    states._machine.state.key_bytes = of_state
    assert [states._is_much(1, size) for size in (share - 1, share)] == [False, True]


def test_what_is_kept_behind_a_snapshot_is_a_part_of_the_share(stage):
    leader = stage.nodes["node1"]
    states = leader.replica.states
    states.compaction = LARGE._replace(trailing_entries=1_000, trailing_bytes=64 * 1_024, node_bytes=1 << 20)
    put(stage, opened(stage), range(1, 60))
    assert heads(leader)[-1].offset == 0
    states.sharers = 1_024
    put(stage, max(leader.replica.machine.sessions), range(60, 90))
    assert heads(leader)[-1].offset > 0


def test_at_a_mark_half_of_it_is_enough_since_the_state_is_gone_over_anyway(stage):
    states = stage.nodes["node1"].replica.states
    states.compaction = CROWDED
    behind = states.snapshot_index
    assert [states._is_long(behind + entries, 2) for entries in (49_999, 50_000)] == [False, True]


def test_a_node_with_many_replicas_says_so(stage):
    node = stage.nodes["node1"]
    states = node.replica.states
    for few, is_crowded in ((1, False), (0, True)):
        node.turn.few_replicas = few
        node.turn._due_us.clear()  # As where a replica comes or goes.
        node.turn.run()
        assert states.is_crowded is is_crowded
    assert states.sharers == 1


def test_where_nothing_was_counted_nothing_is_cut():
    counted = LogBytes()
    assert counted.since(0) == counted.place_before(0, 1) == 0
    for index in range(1, 11):
        counted.applied(index, 10, 25)
    assert [counted.since(index) for index in (0, 3, 5, 6, 10)] == [100, 70, 70, 40, 10]
    assert [counted.place_before(10, size) for size in (1, 30, 31, 60, 61, 90)] == [6, 6, 3, 3, 0, 0]
    counted.forget(5)
    assert [counted.since(index) for index in (3, 6)] == [70, 40]
