"""What operators ask, over the pure core: who is there, who is a member, a hand-over that is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.client import administration, flows
from coordinator.client.administration import REPEAT_US
from coordinator.client.calls import Call
from coordinator.client.errors import NotFound, Refused, Unavailable
from coordinator.client.flows import GATHER_US, Flow
from coordinator.client.routing import FORGET_US
from coordinator.consensus.members import Member
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Done, Failure
from tests.unit.client.test_core import CLUSTER, Stage
from tests.unit.dashboard.reports import feed

MEMBERS = tuple(Member(number, f"node{number}") for number in (1, 2, 3))


class Drive:
    """Runs a flow over a stage: `until` it is done, each pause is time that passes."""

    def __init__(self, stage: Stage, flow: Flow) -> None:
        self.stage = stage
        self.flow = flow
        self.asked: list[tuple[str, wire.Request]] = []
        self.call: Call | None = flow.send(None)
        self.outcome: Any = None

    def go_on(self) -> None:
        """Hand over what is done, as long as something is."""
        while self.call is not None and self.call.done:
            try:
                if isinstance(self.call.outcome, BaseException):
                    self.call = self.flow.throw(self.call.outcome)
                else:
                    self.call = self.flow.send(self.call.outcome)
            except StopIteration as end:
                self.call, self.outcome = None, end.value

    def sent(self, kind: type, within_us: int = 1_000_000) -> Any:
        """The next request of a kind, with its node."""
        for _ in range(within_us // 5_000):
            self.go_on()
            for node, request in self.stage.requests():
                if isinstance(request, kind):
                    return node, request
            self.stage.pass_time(5_000)
        raise AssertionError(f"no {kind.__name__} was sent")

    def finish(self, within_us: int = 2_000_000) -> Any:
        for _ in range(within_us // 5_000):
            self.go_on()
            if self.call is None:
                return self.outcome
            self.stage.requests()
            self.stage.pass_time(5_000)
        raise AssertionError("the flow does not end")


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.know()
    return stage


def progress(request_id: int, leader: str = "node1", term: int = 5) -> wire.Progress:
    replica = int(leader[-1])
    return wire.Progress(request_id, leader, replica, term, 9, 9, 1, 1, MEMBERS, (), (), (), 256, 600)


def transferring(stage: Stage, node: str = "node3", timeout_us: int = 5_000_000) -> Drive:
    deadline_us = stage.now_us + timeout_us
    return Drive(stage, administration.transfer(stage.core, lambda: stage.now_us, node, deadline_us, ""))


def answer_progress(drive: Drive, leader: str = "node1", term: int = 5) -> None:
    node, request = drive.sent(wire.ProgressRequest)
    drive.stage.reply(node, progress(request.id, leader, term))


def test_a_change_names_what_was_seen(stage):
    seen = progress(1)
    drive = Drive(
        stage, administration.change(stage.core, lambda: stage.now_us, seen, MEMBERS[:2], (), stage.now_us + 10**6, "")
    )
    node, request = drive.sent(wire.ChangeRequest)
    assert (node, request.term, request.seen_index, request.voters) == ("node1", 5, 9, MEMBERS[:2])
    stage.reply(node, wire.Answer(request.id, Failure(commands.REFUSED, "node4 is not caught up")))
    with pytest.raises(Refused, match="not caught up"):
        drive.finish()


def test_a_transfer_is_waited_for(stage):
    drive = transferring(stage)
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    assert (node, request.target, request.term, request.cluster) == ("node1", 3, 5, CLUSTER)
    stage.reply(node, wire.Answer(request.id, Done(9)))
    answer_progress(drive)
    answer_progress(drive, "node3", 6)
    assert drive.finish() == 6


def test_a_transfer_to_the_leader_of_now_aborts_one_that_is_under_way(stage):
    drive = transferring(stage, "node1")
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    assert (node, request.target, request.term) == ("node1", 1, 5)
    stage.reply(node, wire.Answer(request.id, Done(9)))
    assert drive.finish() == 5


def test_a_transfer_that_came_to_nothing_is_asked_for_again(stage):
    drive = transferring(stage)
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    stage.reply(node, wire.Answer(request.id, Done(9)))
    stage.pass_time(REPEAT_US)
    answer_progress(drive)
    assert drive.sent(wire.TransferRequest)[1].id != request.id


def test_a_refusal_counts_only_while_the_leadership_lasts_that_it_was_for(stage):
    drive = transferring(stage)
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    stage.reply(node, wire.Answer(request.id, Failure(commands.REFUSED, "the leadership of term 5 is over")))
    answer_progress(drive, "node3", 6)
    answer_progress(drive, "node3", 6)
    assert drive.finish() == 6
    drive = transferring(stage)
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    stage.reply(node, wire.Answer(request.id, Failure(commands.REFUSED, "does not answer")))
    answer_progress(drive)
    with pytest.raises(Refused, match="does not answer"):
        drive.finish()


def test_a_transfer_to_somebody_without_a_vote_says_who_has_one(stage):
    drive = transferring(stage, "node9")
    answer_progress(drive)
    with pytest.raises(NotFound, match="node1, node2, node3"):
        drive.finish()


def test_a_transfer_to_a_witness_says_that_it_is_one(stage):
    drive = transferring(stage)
    node, request = drive.sent(wire.ProgressRequest)
    seen = progress(request.id)
    stage.reply(node, msgspec.structs.replace(seen, voters=(*MEMBERS[:2], MEMBERS[2]._replace(witness=True))))
    with pytest.raises(Refused, match=r"^node3 is a witness: it has no state, so it can not lead$"):
        drive.finish()


def test_a_transfer_that_never_ends_is_given_up(stage):
    drive = transferring(stage, timeout_us=200_000)
    answer_progress(drive)
    node, request = drive.sent(wire.TransferRequest)
    stage.reply(node, wire.Answer(request.id, Done(9)))

    def nobody_takes_over() -> None:
        while True:
            answer_progress(drive)

    with pytest.raises(Unavailable):
        nobody_takes_over()


def directory(node: str, *clusters: wire.ClusterEntry, request_id: int = 0) -> wire.Directory:
    return wire.Directory(request_id, node, tuple((name, "") for name in ("node1", "node2", "node3")), clusters)


def test_who_is_there_is_what_all_nodes_say(stage):
    """Each node knows only the clusters of which it hosts a replica."""
    first = wire.ClusterEntry("default", CLUSTER, "node1", 5, ("node1", "node2"))
    newer = wire.ClusterEntry("default", CLUSTER, "node2", 6, ("node1", "node2"))
    second = wire.ClusterEntry("second", 43, "node3", 2, ("node3",))
    drive = Drive(stage, flows.directory(stage.core, lambda: stage.now_us, stage.now_us + 5_000_000))
    _, request = drive.sent(wire.DirectoryRequest)
    stage.reply("node1", directory("node1", first, request_id=request.id))
    drive.go_on()
    assert drive.call is not None, "the others have not said anything yet"
    stage.reply("node2", directory("node2", newer))
    stage.reply("node3", directory("node3", second))
    found = drive.finish(100_000)
    assert {(entry.name, entry.leader) for entry in found.clusters} == {("default", "node2"), ("second", "node3")}


def test_a_node_that_is_silent_is_not_waited_for_long(stage):
    drive = Drive(stage, flows.directory(stage.core, lambda: stage.now_us, stage.now_us + 5_000_000))
    _, request = drive.sent(wire.DirectoryRequest)
    stage.reply("node1", wire.Directory(request.id, "node1", (("node1", ""), ("node2", "")), ()))
    before_us = stage.now_us
    drive.finish()
    assert stage.now_us - before_us <= GATHER_US + 50_000


# --- who is gone for good -------------------------------------------------------------------------


def who_is_there(stage: Stage, speakers: Mapping[str, tuple[str, ...]], members: tuple[str, ...]) -> set[str]:
    """Ask for the status: `speakers` answer, and name those; the nodes that it tells of."""
    drive = Drive(stage, flows.status(stage.core, lambda: stage.now_us))
    entry = wire.ClusterEntry("default", CLUSTER, "node1", 5, members)
    for _ in range(200):
        drive.go_on()
        if drive.call is None:
            return {*drive.outcome}
        for node, request in stage.requests():
            for speaker, named in speakers.items():
                if isinstance(request, wire.DirectoryRequest) and node in ("", speaker):
                    nodes = tuple((each, "") for each in named)
                    stage.reply(speaker, wire.Directory(request.id, speaker, nodes, (entry,)))
                elif isinstance(request, wire.StatusRequest) and node == speaker:
                    stage.reply(speaker, wire.StatusAnswer(request.id, feed(speaker).report))
        stage.pass_time(5_000)
    raise AssertionError("it never ends")


BOTH = ("node1", "node2")


def test_a_node_that_was_removed_for_good_is_asked_no_more_after_a_minute(stage):
    """It was asked in every status until the client ended, each of which took its full time."""
    speakers = dict.fromkeys(BOTH, BOTH)
    assert who_is_there(stage, speakers, BOTH) == {"node1", "node2", "node3"}
    stage.pass_time(FORGET_US)
    who_is_there(stage, speakers, BOTH)
    before_us = stage.now_us
    assert who_is_there(stage, speakers, BOTH) == {"node1", "node2"}
    assert stage.now_us - before_us < 100_000
    drive = Drive(stage, flows.directory(stage.core, lambda: stage.now_us, stage.now_us + 5_000_000))
    _, request = drive.sent(wire.DirectoryRequest)
    for node in BOTH:
        stage.reply(node, wire.Directory(request.id, node, tuple((each, "") for each in BOTH), ()))
    before_us = stage.now_us
    drive.finish()
    assert stage.now_us - before_us < 50_000, "nobody else is waited for"


def test_a_member_that_is_silent_and_whoever_others_name_stay_known(stage):
    named = dict.fromkeys(BOTH, ("node1", "node2", "node4"))
    for _ in range(3):
        found = who_is_there(stage, named, ("node1", "node2", "node3"))
        stage.pass_time(FORGET_US)
    assert found == {"node1", "node2", "node3", "node4"}


def test_where_nobody_answers_nobody_is_forgotten(stage):
    for _ in range(3):
        found = who_is_there(stage, {}, BOTH)
        stage.pass_time(FORGET_US)
    assert found == {"node1", "node2", "node3"}


def test_a_forgotten_node_that_comes_back_is_seen_with_the_next_status(stage):
    speakers = dict.fromkeys(BOTH, BOTH)
    for _ in range(3):
        who_is_there(stage, speakers, BOTH)
        stage.pass_time(FORGET_US)
    back = speakers | {"node3": ("node3",)}
    who_is_there(stage, back, BOTH)
    assert "node3" in who_is_there(stage, back, BOTH)
