"""Commands on their way: from the turn in which one was asked to the turn in which its entry is applied."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.replica.callers import Caller
from coordinator.statemachine import commands


class Asked(NamedTuple):
    """A command that becomes an entry in this turn."""

    caller: Caller
    request_id: int
    op: commands.ClientOp
    session: int
    since_us: int


Proposal = tuple[int, Asked]
"""One that waits for its entry to be applied, behind the term of that entry. No class of its own: there is one for each
entry, and most of the leader's time goes to what there is one of for each entry."""
