"""Digests compared while running: who agrees, who waits in doubt, and who stops for good."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.members import Change
from coordinator.replica.comparison import ASK_TIMES_MAX, ASK_US, MARKS_MAX, Comparison, Verdict
from coordinator.replica.hosted import as_hosted
from coordinator.statemachine.commands import Command, GetKey, KeyValue, OpenSession, PutKey
from coordinator.statemachine.items import Item
from tests.unit.replica.stage import CLUSTER, Node, Stage

RIGHT, WRONG, OTHER = b"right", b"wrong", b"other"


def judged(own: bytes, heard: dict[int, bytes], voters: range) -> Verdict:
    comparison = Comparison(1)
    comparison.marked(10, own, 0)
    for sender, digest in heard.items():
        comparison.hear(sender, 10, digest)
    return comparison.judge(voters)


@pytest.mark.parametrize(
    ("heard", "voters", "verdict"),
    [
        ({}, range(1, 4), Verdict.AGREES),
        ({2: RIGHT}, range(1, 4), Verdict.AGREES),
        ({2: WRONG}, range(1, 4), Verdict.IN_DOUBT),
        ({2: WRONG, 3: RIGHT}, range(1, 4), Verdict.AGREES),
        ({2: WRONG, 3: WRONG}, range(1, 4), Verdict.DIFFERS),
        ({2: WRONG, 3: OTHER}, range(1, 4), Verdict.IN_DOUBT),
        ({2: WRONG}, range(1, 3), Verdict.IN_DOUBT),
        ({2: WRONG, 3: WRONG}, range(1, 6), Verdict.IN_DOUBT),
        ({2: WRONG, 3: WRONG, 4: WRONG}, range(1, 6), Verdict.DIFFERS),
        ({2: WRONG, 3: RIGHT, 4: RIGHT}, range(1, 6), Verdict.AGREES),
        # Learners' words count for nothing, and a learner is judged by the voters alone.
        ({7: WRONG, 8: WRONG, 9: WRONG}, range(1, 4), Verdict.AGREES),
        ({2: WRONG, 3: WRONG}, range(2, 5), Verdict.DIFFERS),
        ({2: WRONG, 3: RIGHT}, range(2, 5), Verdict.IN_DOUBT),
    ],
)
def test_the_majority_of_the_full_voters_decides(heard, voters, verdict):
    assert judged(RIGHT, heard, voters) is verdict


@given(st.lists(st.sampled_from([RIGHT, WRONG, OTHER]), min_size=1, max_size=7), st.randoms())
def test_whatever_is_heard_first_at_most_one_state_is_served_and_the_majoritys_never_stops(digests, random):
    voters = range(1, len(digests) + 1)
    verdicts = {}
    for replica, own in zip(voters, digests, strict=True):
        comparison = Comparison(replica)
        comparison.marked(10, own, 0)
        others = [(other, digest) for other, digest in zip(voters, digests, strict=True) if other != replica]
        random.shuffle(others)
        for other, digest in others:
            comparison.hear(other, 10, digest)
            comparison.judge(voters)
        verdicts[replica] = comparison.judge(voters)
    agreeing = {digests[replica - 1] for replica in voters if verdicts[replica] is Verdict.AGREES}
    assert len(agreeing) <= 1
    for replica in voters:
        if digests.count(digests[replica - 1]) > len(digests) // 2:
            assert verdicts[replica] is Verdict.AGREES
        if verdicts[replica] is Verdict.DIFFERS:
            assert any(digests.count(d) > len(digests) // 2 for d in set(digests) - {digests[replica - 1]})


def test_doubt_lasts_until_a_majority_confirms_a_mark_no_earlier():
    comparison = Comparison(1)
    comparison.marked(10, RIGHT, 0)
    comparison.hear(2, 10, WRONG)
    assert comparison.judge(range(1, 4)) is Verdict.IN_DOUBT
    comparison.marked(20, RIGHT, 0)
    assert comparison.judge(range(1, 4)) is Verdict.IN_DOUBT
    comparison.hear(3, 20, RIGHT)
    assert comparison.judge(range(1, 4)) is Verdict.AGREES
    assert comparison.why == ""


def test_a_confirmation_of_an_earlier_mark_ends_no_doubt():
    comparison = Comparison(1)
    comparison.marked(10, RIGHT, 0)
    comparison.marked(20, WRONG, 0)
    comparison.hear(2, 20, RIGHT)
    assert comparison.judge(range(1, 4)) is Verdict.IN_DOUBT
    comparison.hear(3, 10, RIGHT)
    assert comparison.judge(range(1, 4)) is Verdict.IN_DOUBT


def test_what_is_heard_before_the_own_mark_counts_once_it_is_there():
    comparison = Comparison(1)
    comparison.hear(2, 10, WRONG)
    comparison.hear(3, 10, WRONG)
    assert comparison.judge(range(1, 4)) is Verdict.AGREES
    comparison.marked(10, RIGHT, 0)
    assert comparison.judge(range(1, 4)) is Verdict.DIFFERS
    assert "differed from that of most replicas after entry 10" in comparison.why


def test_everyone_is_told_at_once_and_those_that_were_not_heard_again():
    comparison = Comparison(1)
    assert comparison.due((2, 3), 0) is None
    comparison.marked(10, RIGHT, 5)
    comparison.hear(2, 10, RIGHT)
    assert comparison.due((2, 3), 5) == ((2, 3), 10, RIGHT)
    assert comparison.due((2, 3), ASK_US) is None
    assert comparison.due((2, 3), 5 + ASK_US) == ((3,), 10, RIGHT)
    comparison.hear(3, 10, RIGHT)
    assert comparison.due((2, 3), 5 + 2 * ASK_US) is None


def test_somebody_who_never_answers_is_not_asked_forever():
    comparison = Comparison(1)
    comparison.marked(10, RIGHT, 0)
    asked = [comparison.due((2,), number * ASK_US) for number in range(100)]
    assert sum(due is not None for due in asked) == ASK_TIMES_MAX


def asked_for(comparison: Comparison, seconds: int, index: int, now_us: int) -> tuple[int, int]:
    """Marks every two seconds, as a busy leader makes them, and nobody answers."""
    for second in range(seconds):
        if second % 2 == 0:
            index += 10
            comparison.marked(index, RIGHT, now_us)
        comparison.due((2,), now_us)
        comparison.judge((1, 2))
        now_us += ASK_US
    return index, now_us


def test_a_state_is_kept_when_nobody_has_answered_for_long_however_often_marks_come():
    """The other of two full voters is down, and a witness votes: else a busy leader never cuts its log."""
    comparison = Comparison(1)
    index, now_us = asked_for(comparison, ASK_TIMES_MAX - 1, 0, 0)
    assert not comparison.may_keep(index)
    index, now_us = asked_for(comparison, 3, index, now_us)
    assert comparison.may_keep(index)
    comparison.marked(index + 10, RIGHT, now_us)
    assert comparison.may_keep(index + 10)


def test_each_second_in_vain_counts_once_and_the_first_one_too():
    comparison = Comparison(1)
    index, now_us = asked_for(comparison, ASK_TIMES_MAX - 1, 0, 0)
    assert not comparison.may_keep(index)
    index, _ = asked_for(comparison, 1, index, now_us)
    assert comparison.may_keep(index)


def test_each_mark_is_asked_about_so_often_and_no_more():
    comparison = Comparison(1)
    comparison.marked(10, RIGHT, 0)
    asked = [comparison.due((2,), second * ASK_US) is not None for second in range(2 * ASK_TIMES_MAX)]
    assert asked == [True] * ASK_TIMES_MAX + [False] * ASK_TIMES_MAX


def test_once_a_majority_agrees_it_is_asked_for_long_again():
    comparison = Comparison(1)
    index, now_us = asked_for(comparison, ASK_TIMES_MAX + 1, 0, 0)
    comparison.hear(2, index, RIGHT)
    comparison.judge((1, 2))
    index, now_us = asked_for(comparison, 1, index, now_us)
    assert not comparison.may_keep(index)


def test_memory_is_bounded():
    comparison = Comparison(1)
    for index in range(1, 1_000):
        comparison.marked(index, RIGHT, 0)
        comparison.hear(2, index, RIGHT)
        comparison.hear(2, index + 100_000, RIGHT)
    assert comparison.own(999 - MARKS_MAX) is None
    assert comparison.own(1_000 - MARKS_MAX) == RIGHT
    assert len(comparison._heard) <= 64


# --- replicas -----------------------------------------------------------------------------------------


class Opened(Stage):
    """A stage with a leader, and a session that puts keys."""

    def __init__(self) -> None:
        super().__init__()
        self.elect("node1")
        self.pass_time(100_000)
        raw = msgspec.Raw(wire.encode(Command(0, 0, 0, OpenSession(600_000, b""))))
        channel = self.ask("node1", wire.CommandRequest(1, CLUSTER, "", raw))
        self.settle()
        self.session = self.replies(channel)[0].result.session
        self.number = 1


def put(stage: Opened, name: str, key: str) -> str:
    raw = msgspec.Raw(wire.encode(Command(stage.session, stage.number, 0, PutKey(key, b"value"))))
    stage.number += 1
    return stage.ask(name, wire.CommandRequest(stage.number, CLUSTER, "", raw))


@pytest.fixture
def stage() -> Opened:
    return Opened()


def corrupt(node: Node) -> None:
    node.replica.machine.state.keys.add("flipped", Item(b"?", 1, 1, 1))


def pass_to_mark(stage: Stage) -> None:
    due_us = next(node.replica.states.compare_due_us for node in stage.nodes.values() if node.raft.role is Role.LEADER)
    stage.clock.us = due_us - 100_000
    for node in stage.nodes.values():
        node.raft.rounds.confirmed_at_us = stage.clock.us
        node.raft.heard_at_us = stage.clock.us
        node.raft.election_due_us = stage.clock.us + 1_000_000
    stage.pass_time(300_000)


def test_replicas_that_are_equal_go_on_and_idle_ones_are_left_alone(stage):
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    last = stage.nodes["node1"].raft.last_index
    assert [node.replica.waits_for for node in stage.nodes.values()] == ["", "", ""]
    assert all(node.replica.states.comparison.own(last) for node in stage.nodes.values())
    pass_to_mark(stage)
    assert stage.nodes["node1"].raft.last_index == last


def test_a_follower_that_differs_stops_for_good_and_says_so(stage):
    corrupt(stage.nodes["node2"])
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    stopped = stage.nodes["node2"].replica
    assert "it stopped for good" in stopped.stopped
    written = [write for commit in stage.nodes["node2"].journal.commits for write in commit]
    assert written[-1].stopped == stopped.stopped
    assert not any(write.stopped for write in written[:-1])

    channel = stage.ask("node2", wire.StatusRequest(9, "default"))
    asked = put(stage, "node2", "b")
    stage.settle()
    report = stage.replies(channel)[0].report
    assert (report.role, report.waiting_for) == ("waiting", stopped.stopped)
    assert stage.replies(asked) == [wire.NotLeader(stage.number, "")]
    term = stopped.engine.term
    stage.pass_time(2_000_000)
    assert (stopped.engine.term, stopped.engine.last_index) == (term, written[-1].first_index - 1)
    served = put(stage, "node1", "c")
    stage.settle()
    assert len(stage.replies(served)) == 1


def test_a_replica_whose_journal_is_one_of_before_stops_for_good_and_says_so(stage):
    put(stage, "node1", "a")
    stage.settle()
    older = stage.nodes["node3"]
    stage.nodes["node3"] = Node("node3", older.member, [node.member for node in stage.nodes.values()], stage.clock)
    stage.pass_time(500_000)
    stopped, commits = stage.nodes["node3"].replica, stage.nodes["node3"].journal.commits
    assert "its journal is one of before" in stopped.stopped
    assert commits[-1][-1].stopped == stopped.stopped
    assert as_hosted(stopped).state == "differs"
    term = stopped.engine.term
    stage.pass_time(2_000_000)
    assert (stopped.engine.term, stopped.engine.last_index) == (term, commits[-1][-1].first_index - 1)
    served = put(stage, "node1", "b")
    stage.settle()
    assert len(stage.replies(served)) == 1


def test_a_leader_that_differs_hands_over_and_stops(stage):
    corrupt(stage.nodes["node1"])
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    assert "it stopped for good" in stage.nodes["node1"].replica.stopped
    leaders = [name for name, node in stage.nodes.items() if node.raft.role is Role.LEADER]
    assert leaders in (["node2"], ["node3"])


def test_a_read_is_not_answered_from_a_state_in_doubt(stage):
    """Two states, two replicas: nobody can tell which is right."""
    leader = stage.nodes["node1"]
    put(stage, "node1", "a")
    stage.settle()
    stage.cut.add("node3")
    corrupt(leader)
    pass_to_mark(stage)
    assert all("serves nothing meanwhile" in stage.nodes[name].replica.waits_for for name in ("node1", "node2"))
    for name in ("node1", "node2"):
        asked = stage.ask(name, wire.QueryRequest(50, CLUSTER, "", GetKey("flipped")))
        stage.pass_time(200_000)
        assert all(isinstance(reply, wire.NotLeader) for reply in stage.replies(asked))
    # The third comes back, and tells who is right.
    stage.cut.clear()
    stage.pass_time(5_000_000)
    assert "it stopped for good" in leader.replica.stopped
    assert stage.nodes["node2"].replica.waits_for == ""
    (now_leading,) = (name for name, node in stage.nodes.items() if node.raft.role is Role.LEADER)
    asked = stage.ask(now_leading, wire.QueryRequest(51, CLUSTER, "", GetKey("a")))
    stage.pass_time(200_000)
    (answer,) = stage.replies(asked)
    assert isinstance(answer.result, KeyValue)


def test_where_one_of_two_is_removed_the_other_serves_again(stage):
    stage.cut.add("node3")
    corrupt(stage.nodes["node1"])
    put(stage, "node1", "a")
    stage.settle()
    pass_to_mark(stage)
    stage.pass_time(1_000_000)
    (leader,) = (node for node in stage.nodes.values() if node.raft.role is Role.LEADER and node.name != "node3")
    other = next(name for name in ("node1", "node2") if name != leader.name)
    stay = leader.raft.configuration.member(leader.raft.replica)
    gone = stage.nodes[other].raft.configuration.member(stage.nodes[other].raft.replica)
    third = next(m for m in leader.raft.configuration.voters if m not in (stay, gone))
    leader.raft.change(Change((stay, gone)), stage.clock.us)
    stage.pass_time(300_000)
    leader.raft.change(Change((stay,)), stage.clock.us)
    stage.pass_time(1_000_000)
    assert third.node == "node3"
    assert leader.replica.waits_for == ""


def test_a_leader_whose_last_mark_was_cut_off_marks_again(stage):
    """It leads again, of a log that does not reach up to that mark yet; nobody compared anything until it did."""
    cut_off = stage.nodes["node1"]
    stage.cut.add("node1")
    for number in range(30):
        put(stage, "node1", f"lost{number}")
        stage.settle()
    cut_off.replica.states.mark(stage.clock.us)
    cut_off.run()
    cut_off.replica.states.marked_index = cut_off.raft.last_index  # As where its entries were applied till then.
    marked = cut_off.replica.states.marked_index
    stage.elect("node2")
    stage.pass_time(1_000_000)
    stage.cut.clear()
    stage.pass_time(1_000_000)
    stage.elect("node1")
    stage.pass_time(100_000)
    put(stage, "node1", "a")
    stage.settle()
    corrupt(stage.nodes["node3"])
    assert cut_off.raft.last_index < marked
    pass_to_mark(stage)
    assert "it stopped for good" in stage.nodes["node3"].replica.stopped
