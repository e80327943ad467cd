"""Histories of counters are linearizable (Herlihy and Wing 1990), judged by `tests/linearizability` from what clients
saw alone: whoever adds is told a sum that nobody else is told without another addition between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.client.errors import OutcomeUnknown
from coordinator.statemachine.commands import GetKey, KeyValue
from coordinator.statemachine.files import AddToKey, Counted
from tests.linearizability import checker
from tests.linearizability import history as recorded
from tests.linearizability.models import CounterModel
from tests.simulation.checkers.linearizability import SEARCH_STEPS_MAX
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.history import Question

COUNTERS: Final = "n"
"""Keys that are added to by plain commands alone begin so."""


class Counters(Checker):
    name = "counters"

    def finished(self) -> None:
        by_key: dict[str, list[recorded.Operation]] = {}
        for number, question in enumerate(self.world.workload.history.questions):
            operation = _recorded(number, question)
            if operation is not None:
                by_key.setdefault(operation.key, []).append(operation)
        for key, operations in by_key.items():
            self.checks += len(operations)
            outcome = checker.check(CounterModel(), operations, steps_max=SEARCH_STEPS_MAX)
            if outcome.verdict is not checker.Verdict.LINEARIZABLE:
                self.violated(f"the history of {key!r} is {outcome.verdict.value}")


def _recorded(number: int, question: Question) -> recorded.Operation | None:
    """None: it is no question of a counter, or surely had no effect."""
    what, result, returned = question.what, question.result, question.returned
    if isinstance(what, AddToKey) and what.key.startswith(COUNTERS):
        if question.error is not None and not isinstance(question.error, OutcomeUnknown):
            return None
        total = result.value if isinstance(result, Counted) else None
        return recorded.Operation(
            number, question.client, "add", what.key, what.amount, total, question.invoked, returned
        )
    if isinstance(what, GetKey) and what.key.startswith(COUNTERS) and isinstance(result, KeyValue):
        value = int(result.value or b"0")
        return recorded.Operation(number, question.client, "value", what.key, None, value, question.invoked, returned)
    return None
