"""Planted bugs: the product with one rule broken, to show that the simulator would notice.

A mutant is an edit of one function's source, in memory: the text that keeps the rule is replaced by one that does
not. Where the product's text has changed so that an edit no longer fits, that is an error and never a survivor. The
mutants are in the modules beside this one, by what they break.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.simulation.mutants import (
    caching,
    disks,
    elections,
    flow,
    leases,
    lock_events,
    locks,
    membership,
    namespace,
    reads,
    replication,
    snapshots,
    statemachine,
    states,
    watches,
    witnesses,
)
from tests.simulation.mutants.edits import Mutant, MutantDoesNotFit, planted_edits

_MODULES: Final = (
    elections,
    flow,
    replication,
    disks,
    membership,
    snapshots,
    reads,
    leases,
    statemachine,
    locks,
    lock_events,
    namespace,
    states,
    watches,
    caching,
    witnesses,
)


def by_name(mutants: Iterable[Mutant]) -> dict[str, Mutant]:
    """Two of one name would be one that nobody puts to the proof."""
    named: dict[str, Mutant] = {}
    for mutant in mutants:
        assert mutant.name not in named, f"there are two mutants {mutant.name!r}"
        named[mutant.name] = mutant
    return named


MUTANTS: Final = by_name(mutant for module in _MODULES for mutant in module.MUTANTS)


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Break one rule for as long as this lasts; "" breaks none. Raises KeyError, MutantDoesNotFit."""
    if not name:
        yield
        return
    with planted_edits(MUTANTS[name].edits):
        yield


__all__ = ["MUTANTS", "Mutant", "MutantDoesNotFit", "by_name", "planted"]
