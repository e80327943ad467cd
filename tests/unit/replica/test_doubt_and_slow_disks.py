"""Histories of states in doubt and of disks that stall, each of which broke an easier version."""

from __future__ import annotations

from random import Random

import pytest

from coordinator import wire
from coordinator.consensus.engine import Ready, Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.replica.replica import Replica
from coordinator.replica.states import SLICE_EVERY_US, Compaction
from coordinator.statemachine import snapshot
from coordinator.statemachine.commands import GetKey, KeyValue, MarkState
from coordinator.statemachine.items import Item
from coordinator.statemachine.machine import Machine, encode_node_entry
from tests.unit.replica.stage import CLUSTER, Node
from tests.unit.replica.test_comparison import Opened, corrupt, pass_to_mark, put


def small(stage: Opened) -> Opened:
    for node in stage.nodes.values():
        node.replica.states.compaction = Compaction(5, 1)
    return stage


def puts(stage: Opened, name: str, count: int) -> None:
    for number in range(count):
        put(stage, name, f"key{number}")
        stage.settle()


def test_a_state_in_doubt_is_given_to_nobody():
    """Two states, and nobody knows which is right; the third lacks what the log no longer holds."""
    stage = small(Opened())
    stage.cut.add("node3")
    right = stage.nodes["node2"]
    corrupt(stage.nodes["node1"])
    puts(stage, "node1", 20)
    pass_to_mark(stage)
    assert all("serves nothing meanwhile" in stage.nodes[name].replica.waits_for for name in ("node1", "node2"))
    stage.cut.clear()
    stage.pass_time(3_000_000)
    served = []
    for _ in range(45):
        stage.pass_time(2_000_000)
        for name in stage.nodes:
            asked = stage.ask(name, wire.QueryRequest(50, CLUSTER, "", GetKey("flipped")))
            stage.pass_time(40_000)
            served += [reply.result.value for reply in stage.replies(asked) if isinstance(reply, wire.Answer)]
    assert right.replica.stopped == ""
    assert b"?" not in served


def restarted(stage: Opened, node: Node) -> None:
    """As a journal would have it: the state of the last snapshot, and the log behind it."""
    old = node.raft
    machine = Machine()
    snapshot.load(machine, old.snapshot.data)
    node.raft = Raft(
        old.replica,
        old.on_disk,
        Log([*old.log.terms], [*old.log.entries], old.on_disk.commit, old.log.offset, old.log.offset_term),
        options=Options(),
        random=Random(7),
        now_us=stage.clock.us,
        snapshot=old.snapshot,
    )
    head = next(write.head for commit in reversed(node.journal.commits) for write in commit if write.head is not None)
    node.replica = Replica(
        CLUSTER,
        "default",
        old.replica,
        node.raft,
        machine,
        stage.clock.us,
        compaction=Compaction(5, 1),
        agreed_index=head.snapshot.last_index if head.agreed else 0,
    )
    node.turn.replicas[CLUSTER] = node.replica


def test_a_restart_ends_no_doubt():
    """No snapshot is taken behind a mark that nobody confirmed, so the mark is applied again, and the doubt is back."""
    stage = small(Opened())
    stage.cut.add("node3")
    leader = stage.nodes["node1"]
    puts(stage, "node1", 20)
    corrupt(leader)
    while leader.replica.engine.applied_index + 1 - leader.replica.states._snapshot_index < 5:
        puts(stage, "node1", 1)
    pass_to_mark(stage)
    assert "serves nothing meanwhile" in leader.replica.waits_for
    mark = max(leader.replica.states.comparison._own)
    assert leader.raft.snapshot.last_index < mark
    restarted(stage, leader)
    corrupt(leader)  # What was in its snapshot, is in its state.
    stage.elect("node1")
    stage.pass_time(500_000)
    asked = stage.ask("node1", wire.QueryRequest(50, CLUSTER, "", GetKey("flipped")))
    stage.pass_time(200_000)
    assert all(isinstance(reply, wire.NotLeader) for reply in stage.replies(asked))


def test_a_snapshot_of_its_own_is_no_stall():
    """Writing a state of 40 MB takes longer than a stall does; all replicas write theirs at the same index."""
    stage = small(Opened())
    for node in stage.nodes.values():
        commit = node.journal.commit

        def slow(writes, commit=commit, node=node):
            commit(writes)  # The stage has one clock: let the leader's commit alone take its time.
            if node.raft.role is Role.LEADER and any(write.head is not None for write in writes):
                stage.clock.us += 400_000

        node.journal.commit = slow  # type: ignore[method-assign]
    leaders = []
    for number in range(30):
        leader = next(n for n in stage.nodes.values() if n.raft.role is Role.LEADER)
        put(stage, leader.name, f"k{number}")
        for _ in range(10):
            stage.clock.us += 1_000
            for node in stage.nodes.values():
                node.run()
            stage.carry()
        leaders.append(leader.name)
        stage.pass_time(100_000)
    assert len(set(leaders)) == 1


@pytest.mark.parametrize("commit_us", [140_000, 180_000, 250_000])
def test_a_leader_is_elected_where_a_commit_of_the_journal_takes_as_long(commit_us):
    """A vote is two commits of a journal: the candidate's own and the voter's."""
    took = []
    for seed in range(10):
        slow = Slow(commit_us, options=Options(disk_stall_us=1 << 60))
        play = slow.play
        for raft in play.replicas.values():
            raft.random.seed(seed * 10 + raft.replica)
        del play.replicas[1]
        began_us = play.now_us
        while play.leader is None and play.now_us < began_us + 30_000_000:
            slow.run(play.now_us + 10_000)
        took.append((play.now_us - began_us) // 1_000)
    assert max(took) < 5_000, sorted(took)


class Slow:
    """Replicas whose every commit of the journal takes as long; each is deaf meanwhile."""

    def __init__(self, commit_us: int, *, options: Options) -> None:
        from tests.unit.consensus.play import Play

        self.commit_us = commit_us
        self.play = Play(options=options)
        self.play.elect(1)
        self.play.pass_time(200_000)
        self.busy: dict[int, tuple[int, Ready] | None] = dict.fromkeys(self.play.replicas)
        self.inbox: dict[int, list] = {replica: [] for replica in self.play.replicas}
        self.committed = 0
        self.leaders: list[int] = []
        self.refused = 0

    def send(self, sender: int, outgoing: list) -> None:
        for receiver, message in outgoing:
            self.inbox[receiver].append((sender, message))

    def run(self, until_us: int) -> None:
        play = self.play
        while play.now_us < until_us:
            play.now_us += 10_000
            for replica, raft in play.replicas.items():
                at = self.busy[replica]
                if at is not None:
                    if play.now_us < at[0]:
                        continue
                    ready = at[1]
                    self.busy[replica] = None
                    raft.persisted(ready)
                    raft.disk_took(self.commit_us, play.now_us)
                    entries = raft.take_committed(1 << 30).entries
                    if raft.role is Role.LEADER:
                        self.committed += sum(entry[0] == 1 for entry in entries)
                    self.send(replica, ready.late)
                    continue
                inbox, self.inbox[replica] = self.inbox[replica], []
                for sender, message in inbox:
                    raft.step(sender, message, play.now_us)
                raft.tick(play.now_us)
                if raft.role is Role.LEADER:
                    if not self.leaders or self.leaders[-1] != replica:
                        self.leaders.append(replica)
                    if raft.propose([b"\1word"]) is None:
                        self.refused += 1
                ready = raft.ready(play.now_us)
                self.send(replica, ready.early)
                if ready.hard_state is not None:
                    self.busy[replica] = (play.now_us + self.commit_us, ready)
                else:
                    raft.persisted(ready)
                    raft.take_committed(1 << 30)
                    self.send(replica, ready.late)


@pytest.mark.parametrize("commit_us", [320_000, 400_000])
def test_where_all_disks_are_slow_somebody_still_leads_on(commit_us):
    """Giving way helps nobody there, and no election is won: each attempt is given up before its votes are written."""
    slow = Slow(commit_us, options=Options(disk_stall_us=1 << 60))
    slow.run(60_000_000)
    assert slow.committed > 100
    slow = Slow(commit_us, options=Options())
    slow.run(60_000_000)
    assert slow.committed > 50


def test_the_digest_of_a_large_state_is_taken_in_slices_while_the_node_goes_on():
    """A digest of a million keys takes 640 ms: in one turn it would end a leadership."""
    stage = Opened()
    for node in stage.nodes.values():
        for number in range(5_000):
            node.replica.machine.state.keys.add(f"key-{number:05}", Item(b"value", 1, 1, 1))
    put(stage, "node1", "a")
    stage.settle()
    leader = stage.nodes["node1"]
    leader.replica.states.compare_due_us = stage.clock.us
    turns = 0
    asked = []
    while not leader.replica.states.comparison.own(leader.replica.states.marked_index):
        asked.append(put(stage, "node1", f"b{turns}"))
        stage.clock.us += SLICE_EVERY_US
        leader.run()
        stage.carry()
        stage.nodes["node2"].run()
        stage.carry()
        turns += 1
        assert turns < 200
    assert turns > 3
    assert any(stage.replies(channel) for channel in asked), "writes were answered meanwhile"
    stage.pass_time(500_000)
    assert {node.replica.states.comparison.agreed for node in stage.nodes.values()} == {
        leader.replica.states.marked_index
    }


def mark(stage: Opened, busy: Node) -> None:
    """A change, and a mark that all apply; `busy` passes over it, as one does that is busy with an earlier one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(busy.replica.states, "marked", lambda _: None)
        put(stage, "node1", f"k{stage.number}")
        stage.settle()
        assert stage.nodes["node1"].raft.propose([COMMAND_PREFIX + encode_node_entry(MarkState())]) is not None
        stage.pass_time(200_000)


@pytest.mark.interpreted
@pytest.mark.parametrize("bad", ["node1", "node2", "node3"])
def test_where_no_two_took_the_same_mark_another_one_tells_who_is_right(bad):
    """A leader in doubt put no mark into the log, so that nobody was served any more, ever."""
    stage = Opened()
    wrong = stage.nodes[bad]
    right = [node for node in stage.nodes.values() if node is not wrong]
    corrupt(wrong)
    with pytest.MonkeyPatch.context() as patch:
        for node in stage.nodes.values():
            patch.setattr(node.replica, "take_peer_words", lambda _: [])  # What is said of the first is late.
        for busy in right:
            mark(stage, busy)
    stage.pass_time(100_000)
    assert stage.nodes["node1"].replica.states.comparison.is_in_doubt
    one, other = ({*node.replica.states.comparison._own} for node in right)
    assert not one & other
    stage.pass_time(5_000_000)
    assert "it stopped for good" in wrong.replica.stopped
    assert [node.replica.waits_for for node in right] == ["", ""]
    (leader,) = (node for node in right if node.raft.role is Role.LEADER)
    asked = stage.ask(leader.name, wire.QueryRequest(50, CLUSTER, "", GetKey("k1")))
    stage.pass_time(200_000)
    (answer,) = stage.replies(asked)
    assert isinstance(answer.result, KeyValue)


def test_where_two_differ_and_the_third_is_gone_marks_are_made_ever_more_seldom():
    stage = Opened()
    stage.cut.add("node3")
    corrupt(stage.nodes["node1"])
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    last = max(node.raft.last_index for node in stage.nodes.values())
    stage.pass_time(120_000_000)
    grown = max(node.raft.last_index for node in stage.nodes.values()) - last
    elections = max(node.raft.term for node in stage.nodes.values())
    assert 4 <= grown <= 12 + elections
    assert all("serves nothing meanwhile" in stage.nodes[name].replica.waits_for for name in ("node1", "node2"))


def test_who_is_in_doubt_after_a_restart_still_gives_what_a_majority_had():
    """The one who could tell needs a snapshot, and whoever differed is gone for good: that its own snapshot had been
    right was forgotten with the restart, so that nobody was served any more, ever."""
    stage = small(Opened())
    stage.cut.add("node3")
    puts(stage, "node1", 20)
    leader = stage.nodes["node1"]
    assert leader.raft.snapshot.last_index > stage.nodes["node3"].raft.last_index
    corrupt(stage.nodes["node2"])
    restarted(stage, leader)
    stage.elect("node1")
    put(stage, "node1", "last")
    stage.pass_time(500_000)
    assert leader.replica.states.comparison.is_in_doubt
    stage.cut = {"node2"}
    stage.pass_time(10_000_000)
    assert [stage.nodes[name].replica.waits_for for name in ("node1", "node3")] == ["", ""]
    assert stage.nodes["node3"].replica.machine.keys.keys() == leader.replica.machine.keys.keys()


@pytest.mark.interpreted
def test_whoever_comes_back_need_not_wait_for_the_next_mark():
    """Marks have become seldom by then."""
    stage = Opened()
    stage.cut.add("node3")
    corrupt(stage.nodes["node1"])
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    stage.pass_time(20_000_000)
    returning = stage.nodes["node3"].replica
    passed_over = {*range(max(node.raft.last_index for node in stage.nodes.values()) + 1)}
    take = returning.states.marked
    returning.states.marked = lambda at: None if at in passed_over else take(at)  # type: ignore[assignment,method-assign]
    returning.states.comparison.marked(1, b"of old", stage.clock.us)
    stage.cut.clear()
    stage.pass_time(5_000_000)
    assert "it stopped for good" in stage.nodes["node1"].replica.stopped
    assert [stage.nodes[name].replica.waits_for for name in ("node2", "node3")] == ["", ""]


def test_a_state_that_changed_since_it_was_compared_becomes_no_snapshot():
    """An operator asks for a snapshot at the last mark: the state goes into bytes a second time."""
    stage = Opened()
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    wrong = stage.nodes["node2"]
    states = wrong.replica.states
    assert states.comparison.agreed == states.marked_index == wrong.replica.machine.applied
    corrupt(wrong)
    states.snapshot_wanted = states.marked_index
    stage.pass_time(1_000_000)
    assert "it stopped for good" in wrong.replica.stopped
    assert not [write.head for commit in wrong.journal.commits for write in commit if write.head is not None]
