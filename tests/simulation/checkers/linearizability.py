"""Linearizability of every client's history (Herlihy and Wing 1990), judged by `tests/linearizability`, key by key."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from tests.linearizability import checker
from tests.linearizability import history as recorded
from tests.linearizability.models import Lens, SharpLens, State, Traits
from tests.simulation.history import Operation
from tests.simulation.watch import Checker

SEARCH_S_MAX: Final = 20.0


class KeyModel:
    """One key: `put` and `delete` say if there was a value before, `get` gives the value (None: there is none)."""

    initial: State = None

    def step(self, state: State, operation: recorded.Operation) -> tuple[bool, State]:
        known = not operation.outcome_is_unknown
        if operation.action == "get":
            return not known or operation.result == state, state
        if known and operation.result is not (state is not None):
            return False, state
        return True, operation.argument

    def traits(self, operation: recorded.Operation) -> Traits:
        unknown = operation.outcome_is_unknown
        kind: Hashable = (operation.action, operation.argument, operation.result, unknown)
        if operation.action == "get":
            return Traits(kind, is_read_only=True)
        return Traits(kind, is_total=unknown, is_blind=unknown)

    def lens(self, operations: Sequence[recorded.Operation]) -> Lens:
        return SharpLens()


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
            verdict = checker.check(KeyModel(), operations, time_limit_s=SEARCH_S_MAX).verdict
            if verdict is checker.Verdict.NOT_LINEARIZABLE:
                self.violated(f"what clients saw of {key} in {len(operations)} operations is no order of them")
            elif verdict is not checker.Verdict.LINEARIZABLE:
                self.violated(f"no verdict on {key} within {SEARCH_S_MAX:g} s")


def _recorded(number: int, operation: Operation, *, done: bool) -> recorded.Operation:
    result = operation.result if done else None
    assert result is None or isinstance(result, (bool, bytes)), f"{result!r} can not be compared"
    returned = operation.returned if done else None
    return recorded.Operation(
        number,
        operation.client,
        operation.action,
        operation.key,
        operation.argument,
        result,
        operation.invoked,
        returned,
    )
