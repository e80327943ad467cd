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


class Proposal(NamedTuple):
    """One that waits for its entry to be applied; `term`: that of the entry."""

    caller: Caller
    request_id: int
    op: commands.ClientOp
    session: int
    term: int
    since_us: int
