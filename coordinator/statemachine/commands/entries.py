"""What the log holds: commands of clients with what a node verified of them, and what nodes say by themselves."""

from __future__ import annotations

from coordinator.statemachine import lock_commands
from coordinator.statemachine.commands.client_ops import AddToken, ClientOp, SetPrincipal
from coordinator.statemachine.structs import WireStruct


class Genesis(WireStruct, tag=100, frozen=True):
    """The first command of every log: who this cluster is, and the principal that may edit the others."""

    cluster_id: int
    name: str
    epoch: int
    principals: tuple[SetPrincipal, ...]
    tokens: tuple[AddToken, ...]
    level: int = 1


class ExpireSessions(WireStruct, tag=101, frozen=True):
    """Sessions whose lease ran out, proposed by the leader alone. All of them go before anything is granted."""

    sessions: tuple[int, ...]


class MarkState(WireStruct, tag=102, frozen=True):
    """Changes nothing: whoever applies it takes a digest of all of the state, to be compared with the others'."""


class CheckpointSessions(WireStruct, tag=104, frozen=True):
    """What is left of sessions' leases, in milliseconds, as the leader counts it: a new leader begins with that. From
    the proposal on the leader answers no keep-alive of these sessions before a later reset is applied (history 10)."""

    remaining: tuple[tuple[int, int], ...]


class ResetCheckpoints(WireStruct, tag=105, frozen=True):
    """Sessions that were kept alive since their checkpoint: a new leader begins with their full lease again."""

    sessions: tuple[int, ...]


class RaiseLevel(WireStruct, tag=106, frozen=True):
    """All replicas can apply the commands of this level: from here on the cluster takes them. Proposed by the leader,
    when every member of the configuration has said so."""

    level: int


NodeOp = (
    Genesis
    | ExpireSessions
    | MarkState
    | lock_commands.EndLockDelays
    | lock_commands.RaiseEpoch
    | CheckpointSessions
    | ResetCheckpoints
    | RaiseLevel
)
Op = ClientOp | NodeOp


class Command(WireStruct, frozen=True):
    """One request of a client: exactly once by (`session`, `number`).

    `session` is the session whose numbers these are (0 only for `OpenSession`). Every number below `acked` has been
    answered as far as the client is concerned, and its result may be forgotten.
    """

    session: int
    number: int
    acked: int
    op: ClientOp


class NodeCommand(WireStruct, frozen=True):
    session: int
    number: int
    acked: int
    op: Op


class Entry(WireStruct, frozen=True):
    """What a log entry of kind COMMAND holds: the command, and who a node verified that it came from.

    `principal` is whose rights apply; `actor` is who signed, where that is another (rule 9). `token` is the one that
    it was signed with, `for_token` the one of `principal` that the actor was given, if any; each may narrow what is
    allowed. All are stamped by the node; all are empty where the leader itself speaks. An entry of before level 3 has
    no word of tokens: None.
    """

    version: int
    principal: str
    actor: str
    command: NodeCommand
    token: str | None = None
    for_token: str = ""
