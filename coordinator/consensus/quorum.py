"""Majorities: how far a majority of voters has come, and whether it has said yes.

A quorum that no voter makes up (an empty set) is never reached here: nothing commits in a cluster without voters.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum


class Tally(Enum):
    """Where an election stands (as etcd names it)."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(size: int) -> int:
    """How many of `size` voters make a majority."""
    return size // 2 + 1


def witnesses_max(size: int) -> int:
    """How many of `size` voters may be witnesses: with more, too few would have the state."""
    return size // 2


def reached_by_majority(values: list[int]) -> int:
    """The largest value that at least a majority of the voters has reached, given the value of each; -1 without voters.
    Sorts the list."""
    if not values:
        return -1
    values.sort()
    return values[len(values) - majority(len(values))]


def tally(voters: Collection[int], votes: dict[int, bool]) -> Tally:
    """Count `votes` (voter to granted); votes of others than `voters` count for nothing."""
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if voters and granted >= needed:
        return Tally.WON
    if not voters or refused > len(voters) - needed:
        return Tally.LOST
    return Tally.PENDING
