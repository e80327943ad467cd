"""Members of a cluster, as a configuration in the log names them, and what a change of them asks for."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """`address`: the Redis of the node's mailbox; "" where it is the Redis that the whole installation shares.
    `priority`: of those who are caught up, the highest leads where it can.
    `witness`: it votes and keeps the log, and has no state machine; it stays one for as long as it is a member."""

    replica: int
    node: str
    address: str = ""
    priority: int = 0
    witness: bool = False


class Change(NamedTuple):
    """What the membership is to become. Whoever is new joins as a learner first; whoever is in neither is
    removed."""

    voters: tuple[Member, ...]
    learners: tuple[Member, ...] = ()
