"""What operators ask, as flows for both shells: who is a member and how each is doing, a change of that, a hand-over.

Whoever changes something has looked first (`progress`): the request names what was seen, and is refused where that is
not so any more. So each of these may be asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coordinator import wire
from coordinator.client.core import Core
from coordinator.client.errors import NotFound, Refused, Unavailable
from coordinator.client.flows import STATUS_US, Clock, Flow
from coordinator.consensus.members import Member

LOOK_US: Final = 20_000
"""How often it is looked whether another leads now."""
REPEAT_US: Final = 700_000
"""A hand-over that came to nothing within an election time-out is asked for again after this."""


def progress(core: Core, clock: Clock, deadline_us: int, act_for: str) -> Flow:
    """The membership and how far each member has come, from the leader."""
    return (
        yield core.ask_leader(lambda i: wire.ProgressRequest(i, core.routing.cluster, act_for), clock(), deadline_us)
    )


def change(
    core: Core,
    clock: Clock,
    seen: wire.Progress,
    voters: Sequence[Member],
    learners: Sequence[Member],
    deadline_us: int,
    act_for: str,
) -> Flow:
    """Begin to make the membership what is said; Done with the index of its configuration, which is not committed yet.

    Raises Refused where it can not be made, or something changed since `seen`.
    """

    def build(request_id: int) -> wire.Request:
        return wire.ChangeRequest(
            request_id, core.routing.cluster, act_for, seen.term, seen.commit_index, tuple(voters), tuple(learners)
        )

    return (yield core.ask_leader(build, clock(), deadline_us))


def transfer(core: Core, clock: Clock, node: str, deadline_us: int, act_for: str) -> Flow:
    """Hand the leadership to `node`, and wait until it leads; its term. Where it leads already, a transfer of it to
    somebody else that is under way is aborted. Raises NotFound, Refused, Unavailable."""
    asked_us = -REPEAT_US
    while True:
        seen: wire.Progress = yield from progress(core, clock, deadline_us, act_for)
        if seen.node == node:
            if asked_us < 0:
                yield from _ask_to_transfer(core, clock, seen, seen.replica, deadline_us, act_for)
            return seen.term
        if clock() >= deadline_us:
            raise Unavailable(f"{node} does not lead yet; {seen.node} does, in term {seen.term}")
        if clock() - asked_us >= REPEAT_US:
            asked_us = clock()
            target = next((member for member in seen.voters if member.node == node), None)
            if target is None:
                names = ", ".join(member.node for member in seen.voters)
                raise NotFound(f"{node} has no vote in cluster {core.cluster_name!r}; these have: {names}")
            if target.witness:
                raise Refused(f"{node} is a witness: it has no state, so it can not lead")
            yield from _ask_to_transfer(core, clock, seen, target.replica, deadline_us, act_for)
        yield core.pause(clock() + LOOK_US)


def _ask_to_transfer(
    core: Core, clock: Clock, seen: wire.Progress, target: int, deadline_us: int, act_for: str
) -> Flow:
    def build(request_id: int) -> wire.Request:
        return wire.TransferRequest(request_id, core.routing.cluster, act_for, seen.term, target)

    try:
        yield core.ask_leader(build, clock(), deadline_us)
    except Refused:
        after: wire.Progress = yield from progress(core, clock, deadline_us, act_for)
        if after.term == seen.term:
            raise  # Else the question outlived the leadership that it was for, maybe because it was done.


def step_down(core: Core, clock: Clock, deadline_us: int, act_for: str) -> Flow:
    """Have the leader of now give up its leadership; its node."""
    seen: wire.Progress = yield from progress(core, clock, deadline_us, act_for)
    yield core.ask_leader(
        lambda i: wire.StepDownRequest(i, core.routing.cluster, act_for, seen.term), clock(), deadline_us
    )
    return seen.node


def compact(core: Core, clock: Clock, node: str, deadline_us: int, act_for: str) -> Flow:
    """Have `node` take a snapshot of what it has applied, at the next mark (a leader makes one for it, the others take
    it within a minute), and cut its log behind it; Done with the index."""
    until_us = min(deadline_us, clock() + STATUS_US)
    report = yield core.ask_node(node, lambda i: wire.StatusRequest(i, core.cluster_name), clock(), until_us)
    if isinstance(report, wire.Refusal) or not report.replica:
        raise NotFound(f"{node} has no replica of cluster {core.cluster_name!r}")
    return (
        yield core.ask_node(
            node,
            lambda i: wire.CompactRequest(i, report.cluster, act_for, report.applied_index),
            clock(),
            deadline_us,
        )
    )
