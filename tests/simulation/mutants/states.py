"""The comparison of states broken (docs/design.md, rule 5): `coordinator/replica/comparison.py`."""

from __future__ import annotations

from typing import Final

from tests.simulation.mutants.edits import Edit, Mutant

_COMPARISON: Final = "coordinator.replica.comparison:Comparison"
_REPLICA: Final = "coordinator.replica.replica:Replica"
_STATES: Final = "coordinator.replica.states:States"

MUTANTS: Final = (
    Mutant(
        "states-never-compared",
        ("liveness",),
        "docs/design.md, rule 5: a digest of the state is compared between replicas as they run",
        (Edit(f"{_STATES}.mark", "if self._machine.applied > self.marked_index:", "if False:"),),
    ),
    Mutant(
        "digests-not-told",
        ("liveness",),
        "each replica tells its digest, and asks again those that it has not heard",
        (Edit(f"{_COMPARISON}.due", "return Due(missing", "return None and Due(missing"),),
    ),
    Mutant(
        "whoever-is-contradicted-stops",
        ("state-comparison",),
        "only who differs from most full voters stops",
        (
            Edit(
                f"{_COMPARISON}.judge",
                "any(count >= needed for digest, count in counts.items() if digest != own)",
                "any(digest != own for digest in counts)",
            ),
        ),
    ),
    Mutant(
        "in-doubt-and-serving",
        ("state-comparison",),
        "who is in doubt of its state serves nothing",
        (Edit(f"{_STATES}.judge", "verdict is Verdict.IN_DOUBT", "False"),),
    ),
    Mutant(
        "stopped-only-until-it-restarts",
        ("liveness",),
        "who differs stops for good, over any restart",
        (
            Edit(
                f"{_REPLICA}.write",
                "ready.entries, head, self._stopping)",
                "ready.entries, head)",
            ),
        ),
    ),
    Mutant(
        "differs-and-goes-on",
        ("state-comparison",),
        "who differs from most full voters takes no part any more",
        (Edit(f"{_REPLICA}.finish", "if self._stopping:", "if False:"),),
    ),
)
