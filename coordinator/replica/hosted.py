"""What a node says of each replica that it hosts (`celery -A coordinator inspect replicas`)."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.replica.replica import Replica
from coordinator.statemachine.commands.levels import LATER_WROTE_IT


class Hosted(NamedTuple):
    """One replica, for reports. `state`: running, stopped, empty, differs (it takes no part any more, since its state
    differs or its journal is one of before), or damaged (nor does it: the journal can not give it back, or its log is
    of a later version)."""

    cluster: int
    cluster_name: str
    replica: int
    state: str
    role: str = ""
    leader: str = ""
    term: int = 0
    first_index: int = 0
    last_index: int = 0
    commit_index: int = 0
    applied_index: int = 0
    epoch: int = 0
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()


def as_hosted(replica: Replica) -> Hosted:
    engine, configuration = replica.engine, replica.configuration
    return Hosted(
        replica.cluster,
        replica.cluster_name,
        replica.replica,
        _state_of(replica),
        engine.role.value,
        replica.leader_node,
        engine.term,
        engine.first_index,
        engine.last_index,
        engine.commit_index,
        engine.applied_index,
        replica.machine.epoch,
        tuple(member.node for member in configuration.voters),
        tuple(member.node for member in configuration.learners),
    )


def _state_of(replica: Replica) -> str:
    if replica.stopped:
        return "damaged" if replica.stopped.endswith(LATER_WROTE_IT) else "differs"
    return "running" if replica.engine.last_index else "empty"
