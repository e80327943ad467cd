"""What an operator asks of a replica: who may; what a copy of it does (nothing), and what is said when it cannot be."""

from __future__ import annotations

import msgspec
import pytest

from coordinator import wire
from coordinator.consensus.engine import Role
from coordinator.consensus.members import Member
from coordinator.replica.operations import ADDRESS_BYTES_MAX, MEMBERS_MAX
from coordinator.replica.states import COMPARE_US
from coordinator.statemachine import commands
from coordinator.statemachine.commands import AddToken, Command, Done, Failure, OpenSession, PutKey, SetPrincipal
from coordinator.wire import PRIORITY_MAX, Token
from tests.unit.replica.stage import CLUSTER, WEB, Stage

FOURTH = Member(14, "node4")


def ask(stage: Stage, request: wire.Request, node: str = "node1", token: Token = WEB) -> wire.Reply:
    channel = stage.ask(node, request, token=token)
    stage.settle()
    (reply,) = stage.replies(channel, token)
    return reply


def progress(stage: Stage, node: str = "node1") -> wire.Progress:
    reply = ask(stage, wire.ProgressRequest(1, CLUSTER, ""), node)
    assert isinstance(reply, wire.Progress)
    return reply


def change(seen: wire.Progress, voters, learners=()) -> wire.ChangeRequest:
    return wire.ChangeRequest(2, CLUSTER, "", seen.term, seen.commit_index, tuple(voters), tuple(learners))


def command(stage: Stage, session: int, number: int, op: commands.ClientOp) -> commands.Result:
    raw = msgspec.Raw(wire.encode(Command(session, number, 0, op)))
    return ask(stage, wire.CommandRequest(5, CLUSTER, "", raw)).result


def lesser_token(stage: Stage, rights: tuple[str, ...]) -> Token:
    session = command(stage, 0, 0, OpenSession(60_000, b"")).session
    token = Token.new("0123abcd")
    command(stage, session, 1, SetPrincipal("ci", rights))
    command(stage, session, 2, AddToken(token.token_id, "ci", token.key))
    return token


def test_the_leader_says_how_each_member_stands(stage):
    seen = progress(stage)
    assert (seen.node, seen.replica, [member.node for member in seen.voters]) == (
        "node1",
        11,
        ["node1", "node2", "node3"],
    )
    assert {member.replica: member.state for member in seen.members} == {
        11: "leader",
        12: "replicate",
        13: "replicate",
    }
    assert all(member.match == seen.last_index and 0 <= member.heard_ms < 200 for member in seen.members)
    assert seen.configuration_index <= seen.commit_index


def test_a_follower_names_the_leader(stage):
    assert ask(stage, wire.ProgressRequest(1, CLUSTER, ""), "node2") == wire.NotLeader(1, "node1")


def test_a_replica_is_added_as_a_learner_and_then_votes(stage):
    fourth = stage.join(FOURTH)
    seen = progress(stage)
    assert isinstance(ask(stage, change(seen, seen.voters, [FOURTH])).result, Done)
    stage.pass_time(200_000)
    seen = progress(stage)
    assert (seen.learners, fourth.replica.engine.applied_index) == ((FOURTH,), seen.commit_index)
    assert isinstance(ask(stage, change(seen, (*seen.voters, FOURTH))).result, Done)
    stage.pass_time(200_000)
    assert progress(stage).voters[-1] == FOURTH
    assert fourth.raft.is_voter


def test_a_voter_that_was_no_learner_is_refused_with_the_reason(stage):
    seen = progress(stage)
    result = ask(stage, change(seen, (*seen.voters, FOURTH))).result
    assert isinstance(result, Failure)
    assert (result.code, result.message) == (commands.REFUSED, "node4 must be a learner before it can vote")


def test_a_change_that_is_so_already_is_done(stage):
    seen = progress(stage)
    result = ask(stage, change(seen, seen.voters)).result
    assert result == Done(seen.configuration_index, existed=True)
    assert progress(stage).last_index == seen.last_index


def test_a_copy_of_a_change_undoes_no_later_one(stage):
    """Remove node3's replica, add it back as a learner, and have the first request come once more."""
    stage.join(FOURTH)
    first = progress(stage)
    removal = change(first, first.voters[:2])
    ask(stage, removal)
    stage.pass_time(200_000)
    second = progress(stage)
    ask(stage, change(second, second.voters, [FOURTH]))
    stage.pass_time(200_000)
    before = progress(stage)
    result = ask(stage, removal).result
    assert isinstance(result, Failure)
    assert result.code == commands.REFUSED
    assert "look again" in result.message
    assert progress(stage).learners == before.learners


def test_a_change_for_an_earlier_leadership_is_refused(stage):
    seen = progress(stage)
    stage.elect("node2")
    result = ask(stage, change(seen, seen.voters[:2]), "node2").result
    assert isinstance(result, Failure)
    assert result.code == commands.REFUSED


@pytest.mark.parametrize(
    "request_for",
    [
        lambda seen: wire.ProgressRequest(1, CLUSTER, ""),
        lambda seen: change(seen, seen.voters[:2]),
        lambda seen: wire.TransferRequest(3, CLUSTER, "", seen.term, 12),
        lambda seen: wire.StepDownRequest(3, CLUSTER, "", seen.term),
        lambda seen: wire.CompactRequest(3, CLUSTER, "", 1),
    ],
)
def test_all_of_it_takes_the_right_to_administer(stage, request_for):
    token = lesser_token(stage, ("read", "write", "lock"))
    seen = progress(stage)
    reply = ask(stage, request_for(seen), token=token)
    assert isinstance(reply, wire.Answer)
    assert reply.result.code == commands.FORBIDDEN
    after = progress(stage)
    assert (after.term, after.voters, after.last_index) == (seen.term, seen.voters, seen.last_index)


def test_who_may_not_act_for_others_does_not_borrow_their_right(stage):
    token = lesser_token(stage, ("read",))
    reply = ask(stage, wire.ProgressRequest(1, CLUSTER, "web"), token=token)
    assert reply.result.code == commands.FORBIDDEN


@pytest.mark.parametrize("act_for", ["token:zz", "token zz"], ids=["unknown", "no name of anybody"])
def test_what_is_asked_for_a_token_that_nobody_knows_is_refused(stage, act_for):
    reply = ask(stage, wire.ProgressRequest(1, CLUSTER, act_for))
    assert reply.result.code == commands.FORBIDDEN


def test_leadership_is_handed_to_whom_an_operator_names(stage):
    seen = progress(stage)
    assert isinstance(ask(stage, wire.TransferRequest(3, CLUSTER, "", seen.term, 13)).result, Done)
    stage.pass_time(100_000)
    assert stage.nodes["node3"].raft.role is Role.LEADER


def test_a_transfer_is_aborted_by_naming_the_leader_itself(stage):
    seen = progress(stage)
    leader = stage.nodes["node1"].raft
    stage.cut = {"node3"}
    assert ask(stage, wire.TransferRequest(3, CLUSTER, "", seen.term, 13)).result == Done(leader.applied_index)
    assert leader.transferring is not None
    assert ask(stage, wire.TransferRequest(4, CLUSTER, "", seen.term - 1, leader.replica)).result.existed
    assert leader.transferring is not None, "that was said of another leadership"
    abort = wire.TransferRequest(5, CLUSTER, "", seen.term, leader.replica)
    assert not ask(stage, abort).result.existed
    assert leader.transferring is None
    assert ask(stage, abort).result.existed, "there is none any more"


def test_a_transfer_to_a_member_that_does_not_answer_is_refused(stage):
    stage.cut = {"node3"}
    stage.pass_time(900_000)
    seen = progress(stage)
    result = ask(stage, wire.TransferRequest(3, CLUSTER, "", seen.term, 13)).result
    assert isinstance(result, Failure)
    assert result.code == commands.REFUSED


def test_a_transfer_to_a_witness_says_that_it_is_one(stage):
    fourth = stage.join(Member(14, "node4", witness=True))
    seen = progress(stage)
    ask(stage, change(seen, seen.voters, (fourth.member,)))
    stage.pass_time(300_000)
    seen = progress(stage)
    ask(stage, change(seen, (*seen.voters, fourth.member)))
    stage.pass_time(300_000)
    result = ask(stage, wire.TransferRequest(3, CLUSTER, "", seen.term, 14)).result
    assert result == Failure(commands.REFUSED, "replica e is a witness: it has no state, so it can not lead")


def test_a_witness_asked_for_a_snapshot_says_that_it_is_one(stage):
    """It said that it takes one."""
    node = stage.nodes["node1"]
    node.replica.engine.is_witness = True
    result = ask(stage, wire.CompactRequest(3, CLUSTER, "", 1)).result
    assert isinstance(result, Failure)
    assert "it has no state to take a snapshot of" in result.message


def test_a_leader_steps_down_when_asked_and_a_copy_does_not_depose_the_next(stage):
    seen = progress(stage)
    asked = wire.StepDownRequest(3, CLUSTER, "", seen.term)
    ask(stage, asked)
    stage.pass_time(100_000)
    leader = next(node for node in stage.nodes.values() if node.raft.role is Role.LEADER)
    assert leader.name != "node1"
    term = leader.raft.term
    ask(stage, asked, leader.name)
    stage.pass_time(100_000)
    assert (leader.raft.role, leader.raft.term) == (Role.LEADER, term)


def test_a_snapshot_is_taken_when_the_leader_is_asked_and_once(stage):
    session = command(stage, 0, 0, OpenSession(60_000, b"")).session
    command(stage, session, 1, PutKey("a", b"1"))
    stage.pass_time(100_000)
    leader = stage.nodes["node1"]
    applied = leader.replica.engine.applied_index
    asked = wire.CompactRequest(3, CLUSTER, "", applied)
    assert isinstance(ask(stage, asked).result, Done)
    stage.pass_time(100_000)
    taken = leader.raft.snapshot.last_index
    assert taken > applied, "the state at a mark, which the leader made for it"
    command(stage, session, 2, PutKey("a", b"2"))
    stage.pass_time(100_000)
    for up_to in (applied, taken):
        assert ask(stage, wire.CompactRequest(3, CLUSTER, "", up_to)).result == Done(taken, existed=True)
    stage.pass_time(100_000)
    assert leader.raft.snapshot.last_index == taken


def test_a_follower_that_is_asked_takes_its_snapshot_at_the_next_mark_and_not_behind_what_nobody_compared(stage):
    session = command(stage, 0, 0, OpenSession(600_000, b"")).session
    command(stage, session, 1, PutKey("a", b"1"))
    follower = stage.nodes["node2"]
    stage.pass_time(100_000)
    asked = wire.CompactRequest(3, CLUSTER, "", follower.replica.engine.applied_index)
    assert isinstance(ask(stage, asked, "node2").result, Done)
    stage.pass_time(1_000_000)
    assert follower.raft.snapshot is None
    stage.pass_time(COMPARE_US)
    assert follower.replica.states.snapshot_index == follower.replica.states.comparison.agreed > 0


def test_a_mark_that_this_replica_did_not_look_at_is_no_reason_to_keep_its_state(stage):
    session = command(stage, 0, 0, OpenSession(600_000, b"")).session
    command(stage, session, 1, PutKey("a", b"1"))
    follower = stage.nodes["node2"]
    stage.pass_time(100_000)
    states = follower.replica.states
    states.marked_index = follower.replica.machine.applied  # It was busy then, or another entry took the mark's place.
    asked = wire.CompactRequest(3, CLUSTER, "", follower.replica.engine.applied_index)
    assert isinstance(ask(stage, asked, "node2").result, Done)
    stage.pass_time(1_000_000)
    assert follower.raft.snapshot is None


@pytest.mark.parametrize("member", [Member(0, "node4"), Member(14, "Node 4"), Member(14, "node4", "redis://a\nb")])
def test_members_that_are_none_are_refused(stage, member):
    seen = progress(stage)
    assert ask(stage, change(seen, seen.voters, [member])).result.code == commands.INVALID


@pytest.mark.parametrize(
    ("member", "is_one"),
    [
        (Member(1, "node4"), True),
        (Member((1 << 63) - 1, "node4"), True),
        (Member(1 << 63, "node4"), False),
        (Member(14, "node4", "x" * ADDRESS_BYTES_MAX), True),
        (Member(14, "node4", "x" * (ADDRESS_BYTES_MAX + 1)), False),
        (Member(14, "node4", "", PRIORITY_MAX), True),
        (Member(14, "node4", "", -PRIORITY_MAX), True),
        (Member(14, "node4", "", PRIORITY_MAX + 1), False),
        (Member(14, "node4", "", -PRIORITY_MAX - 1), False),
    ],
)
def test_bounds_of_a_member_are_those_that_are_said(stage, member, is_one):
    seen = progress(stage)
    result = ask(stage, change(seen, seen.voters, [member])).result
    assert isinstance(result, Done) if is_one else result.code == commands.INVALID


def test_a_cluster_has_so_many_members_and_no_more(stage):
    seen = progress(stage)
    learners = [Member(100 + number, f"other{number}") for number in range(MEMBERS_MAX - 2)]
    assert ask(stage, change(seen, seen.voters, learners)).result.code == commands.INVALID
    assert isinstance(ask(stage, change(seen, seen.voters, learners[1:])).result, Done)
