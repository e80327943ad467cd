"""What an operator asks of one replica, answered at once: change its membership, hand over, compact, say how it stands.

All of it takes the right to administer, as the log has it, and all of it is harmless when it comes twice: a request
names the leadership and what the operator had seen (`wire/requests.py`). A change that can not be made says why.
"""

from __future__ import annotations

from typing import Final

from coordinator import wire
from coordinator.consensus.engine import Role, Standing
from coordinator.consensus.members import Change, Member
from coordinator.consensus.membership import ChangeRefused
from coordinator.replica.callers import Caller
from coordinator.replica.replica import Replica
from coordinator.replica.states import NONE_OF_A_WITNESS
from coordinator.statemachine.commands import ADMINISTER, FORBIDDEN, INVALID, REFUSED, Done, Failure

MEMBERS_MAX: Final = 32
"""Of one cluster, voters and learners together."""
ADDRESS_BYTES_MAX: Final = 512


def may_administer(replica: Replica, caller: Caller, act_for: str) -> bool:
    """Has the caller, or whom it may act for, the right to administer, by this replica's copy of the log?"""
    return replica.may(caller, act_for, ADMINISTER)


def answer(node: str, replica: Replica, caller: Caller, request: wire.OperatorRequest, now_us: int) -> wire.Reply:
    """Do what is asked, or say why not. What only a leader does is answered with its name by the others."""
    for_leader = not isinstance(request, wire.CompactRequest)
    if for_leader and not replica.engine.applied_own_term:
        # One that is still applying what it inherited must not judge who may do what.
        leads = replica.engine.role is Role.LEADER
        return wire.NotLeader(request.id, "" if leads else replica.leader_node)
    if not may_administer(replica, caller, request.act_for):
        return wire.Answer(request.id, Failure(FORBIDDEN, "this takes the right to administer"))
    match request:
        case wire.ProgressRequest(request_id):
            return progress(request_id, node, replica, now_us)
        case wire.ChangeRequest(request_id):
            return wire.Answer(request_id, _change(replica, request, now_us))
        case wire.TransferRequest(request_id):
            return wire.Answer(request_id, _transfer(replica, request, now_us))
        case wire.StepDownRequest(request_id, term=term):
            if term == replica.engine.term:
                replica.engine.step_down(now_us)
            return wire.Answer(request_id, Done(replica.engine.applied_index))
        case wire.CompactRequest(request_id, up_to=up_to):
            return wire.Answer(request_id, _compact(replica, up_to))


def progress(request_id: int, node: str, replica: Replica, now_us: int) -> wire.Progress:
    """The membership and how each member is doing, as the leader sees it."""
    engine = replica.engine
    configuration = engine.configuration
    return wire.Progress(
        id=request_id,
        node=node,
        replica=replica.replica,
        term=engine.term,
        last_index=engine.last_index,
        commit_index=engine.commit_index,
        first_index=engine.first_index,
        configuration_index=engine.configuration_index,
        voters=configuration.voters,
        outgoing=configuration.outgoing,
        learners=configuration.learners,
        members=tuple(_member_progress(standing, now_us) for standing in engine.standing(now_us)),
        promote_lag_max=engine.promote_lag_max,
        quorum_ms=engine.quorum_us // 1_000,
    )


def _member_progress(standing: Standing, now_us: int) -> wire.MemberProgress:
    heard_us = standing.heard_at_us
    return wire.MemberProgress(
        standing.replica,
        standing.match,
        standing.state,
        -1 if heard_us is None else (now_us - heard_us) // 1_000,
        standing.snapshot_acked,
        standing.snapshot_size,
    )


def _change(replica: Replica, request: wire.ChangeRequest, now_us: int) -> Done | Failure:
    problem = _problem(request)
    if problem:
        return Failure(INVALID, problem)
    engine = replica.engine
    now = engine.configuration
    if (now.voters, now.learners) == (request.voters, request.learners):
        return Done(engine.configuration_index, existed=True)
    if request.term != engine.term:
        return Failure(
            REFUSED, f"the leadership of term {request.term} is over, this is term {engine.term}; look again"
        )
    if engine.configuration_index > request.seen_index:
        message = (
            f"the membership was changed at index {engine.configuration_index}, and whoever asks has seen it as of "
            f"{request.seen_index}; look again"
        )
        return Failure(REFUSED, message)
    try:
        return Done(engine.change(Change(request.voters, request.learners), now_us))
    except ChangeRefused as error:
        return Failure(REFUSED, str(error))


def _problem(request: wire.ChangeRequest) -> str:
    members = request.voters + request.learners
    if len(members) > MEMBERS_MAX:
        return f"a cluster has at most {MEMBERS_MAX} members, got {len(members)}"
    return next((problem for member in members if (problem := _member_problem(member))), "")


def _member_problem(member: Member) -> str:
    if not wire.NODE_NAME.fullmatch(member.node):
        return f"a node's name matches {wire.NODE_NAME.pattern}, got {member.node!r}"
    if not 0 < member.replica < 1 << 63:
        return f"a replica's identity is a positive 63-bit number, got {member.replica}"
    if len(member.address.encode(errors="replace")) > ADDRESS_BYTES_MAX or not member.address.isprintable():
        return f"an address is a Redis URL of at most {ADDRESS_BYTES_MAX} bytes"
    if not -wire.PRIORITY_MAX <= member.priority <= wire.PRIORITY_MAX:
        return f"a priority is -{wire.PRIORITY_MAX} to {wire.PRIORITY_MAX}, got {member.priority}"
    return ""


def _transfer(replica: Replica, request: wire.TransferRequest, now_us: int) -> Done | Failure:
    engine = replica.engine
    if request.target == replica.replica:
        aborted = request.term == engine.term and engine.transfer(replica.replica, now_us)
        return Done(engine.applied_index, existed=not aborted)
    if request.term != engine.term:
        return Failure(
            REFUSED, f"the leadership of term {request.term} is over, this is term {engine.term}; look again"
        )
    if engine.configuration.is_witness(request.target):
        return Failure(REFUSED, f"replica {request.target:x} is a witness: it has no state, so it can not lead")
    heard_us = {standing.replica: standing.heard_at_us for standing in engine.standing(now_us)}.get(request.target)
    if heard_us is None or now_us - heard_us > engine.quorum_us:
        return Failure(REFUSED, f"replica {request.target:x} is no member, or does not answer")
    if not engine.transfer(request.target, now_us):
        return Failure(REFUSED, f"replica {request.target:x} does not vote, so it can not lead")
    return Done(engine.applied_index)


def _compact(replica: Replica, up_to: int) -> Done | Failure:
    if replica.engine.is_witness:
        return Failure(REFUSED, NONE_OF_A_WITNESS)
    applied = replica.engine.applied_index
    if up_to > applied:
        return Failure(REFUSED, f"applied is {applied} here, and a snapshot at {up_to} was asked for; ask again")
    if replica.states.snapshot_index >= up_to:
        return Done(replica.states.snapshot_index, existed=True)
    replica.states.snapshot_wanted = up_to
    return Done(applied)
