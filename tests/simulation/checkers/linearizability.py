"""Linearizability of every client's history (Herlihy and Wing 1990), judged by `tests/linearizability`, key by key.

A key is a register: `put` writes a value that nobody else writes, `delete` writes None, `get` reads. (Whether there was
something to change or delete, which both also say, is compared by `exactly_once`.)
"""

from __future__ import annotations

from typing import Final

from tests.linearizability import checker
from tests.linearizability import history as recorded
from tests.linearizability.models import RegisterModel
from tests.simulation.history import Operation
from tests.simulation.watch import Checker

SEARCH_STEPS_MAX: Final = 2_000_000
"""Of one key: about 20 s of a usual machine, and the same verdict on a slow one."""


class Linearizability(Checker):
    name = "linearizability"

    def finished(self) -> None:
        by_key: dict[str, list[recorded.Operation]] = {}
        for number, operation in enumerate(self.world.workload.history.operations):
            done = operation.outcome == Operation.DONE
            if operation.outcome != Operation.NOTHING and (done or operation.action != "get"):
                by_key.setdefault(operation.key, []).append(_recorded(number, operation, done=done))
        for key, operations in by_key.items():
            self.checks += len(operations)
            verdict = checker.check(RegisterModel(), operations, steps_max=SEARCH_STEPS_MAX).verdict
            if verdict is checker.Verdict.NOT_LINEARIZABLE:
                self.violated(f"what clients saw of {key} in {len(operations)} operations is no order of them")
            elif verdict is not checker.Verdict.LINEARIZABLE:
                self.violated(f"no verdict on {key} within {SEARCH_STEPS_MAX} steps")


def _recorded(number: int, operation: Operation, *, done: bool) -> recorded.Operation:
    is_read = operation.action == "get"
    result = operation.result if done and is_read else None
    assert result is None or isinstance(result, bytes), f"{result!r} is no value"
    return recorded.Operation(
        number,
        operation.client,
        "read" if is_read else "write",
        operation.key,
        operation.argument,
        result,
        operation.invoked,
        operation.returned if done else None,
    )
