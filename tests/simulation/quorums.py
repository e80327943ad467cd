"""Majorities, counted apart from the product's own code, so that a checker does not share a mistake with it."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration


def is_quorum(configuration: Configuration, replicas: Collection[int]) -> bool:
    """Do `replicas` make a majority of the voters, of both sides where it is joint (Raft, section 6)?"""
    return all(_more_than_half(side, replicas) for side in (configuration.voters, configuration.outgoing) if side)


def is_full_quorum(configuration: Configuration, replicas: Collection[int]) -> bool:
    """Do `replicas` make a majority of those voters that have a state?"""
    sides = (tuple(m for m in side if not m.witness) for side in (configuration.voters, configuration.outgoing))
    return all(_more_than_half(side, replicas) for side in sides if side)


def _more_than_half(side: tuple[Member, ...], replicas: Collection[int]) -> bool:
    return 2 * sum(1 for member in side if member.replica in replicas) > len(side)
