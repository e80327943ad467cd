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
        operations = [
            recorded.Operation(
                number,
                operation.client,
                operation.action,
                operation.key,
                operation.argument,
                operation.result if operation.outcome == Operation.DONE else None,  # type: ignore[arg-type]
                operation.invoked,
                operation.returned if operation.outcome == Operation.DONE else None,
            )
            for number, operation in enumerate(self.world.workload.history.operations)
            if operation.outcome != Operation.NOTHING
            and not (operation.action == "get" and operation.outcome != Operation.DONE)
        ]
        self.checks += len(operations)
        outcome = checker.check(KeyModel(), operations, time_limit_s=SEARCH_S_MAX)
        if outcome.verdict is checker.Verdict.LINEARIZABLE:
            return
        if outcome.window is None:
            self.violated(f"no verdict within {SEARCH_S_MAX:g} s")
            return
        window = outcome.window
        self.violated(f"{window.key}: {window.stuck} can not be ordered among {window.open}")
