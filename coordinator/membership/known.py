"""Which nodes there are, as far as anybody knows: those that answer, and those that the record has.

A name that nobody knows is a slip as a rule, and what is wanted on such a node is waited for without end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from coordinator.membership import nodes
from coordinator.membership.wanted import name_problem
from coordinator.models import Node

LOOKS_MAX: Final = 4
"""A busy node may take longer than one look lasts."""


def problem(asked: Iterable[str], answering: Collection[str]) -> str:
    """Why one of these is no node that is known, with those that are; "" where all are."""
    asked = sorted(asked)
    for node in asked:
        if why := name_problem(node):
            return why
    recorded = {*Node.objects.filter(retired_at=None).values_list("name", flat=True)}
    unknown = [node for node in asked if node not in answering and node not in recorded]
    if not unknown:
        return ""
    retired = sorted(retired_nodes() & {*unknown})
    if retired:
        return f"{', '.join(retired)}: retired, and does not answer"
    silent = {node: " (does not answer)" for node in recorded if node not in answering}
    there = ", ".join(f"{node}{silent.get(node, '')}" for node in sorted({*recorded, *answering}))
    return f"{', '.join(unknown)}: no such node is known; these are: {there or 'none'}"


def retired_nodes() -> set[str]:
    """Those of which nothing ever runs again, as an operator said (`retiring.py`)."""
    return {*Node.objects.exclude(retired_at=None).values_list("name", flat=True)}


def check(node: str) -> None:
    """Raises ValueError where nobody knows this node, BrokerUnavailable where nobody can be asked, DatabaseError."""
    answering: set[str] = set()
    why = problem([node], answering)
    for _ in range(0 if name_problem(node) else LOOKS_MAX):
        if not why:
            break
        answering |= nodes.look().keys()
        why = problem([node], answering)
    if why:
        raise ValueError(why)
