"""Slow deciders to hold the checker against in tests. They know nothing of traits, lenses, layers or turns.

`by_permutation` tries every order of every choice of the operations without an answer: beyond doubt, and for a dozen
operations at most. `by_textbook` is the algorithm as published (Wing and Gong 1993, with Lowe's memory): a list of
invocations and returns in which an operation is lifted out when it takes effect and put back when that leads nowhere.
It manages some dozens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Final

from tests.linearizability.history import Operation, split_by_key
from tests.linearizability.models import Model, State

PERMUTED_MAX: Final = 8


def by_permutation(model: Model, operations: Sequence[Operation]) -> bool:
    """Whether some order of the operations explains them all. At most PERMUTED_MAX of them for each key."""
    return all(_some_order(model, of_key) for of_key in split_by_key(operations).values())


def _some_order(model: Model, operations: list[Operation]) -> bool:
    assert len(operations) <= PERMUTED_MAX, "too many to try every order"
    answered = [operation for operation in operations if not operation.outcome_is_unknown]
    lost = [operation for operation in operations if operation.outcome_is_unknown]
    return any(
        _explains(model, order)
        for count in range(len(lost) + 1)
        for chosen in combinations(lost, count)
        for order in permutations([*answered, *chosen])
    )


def _explains(model: Model, order: Sequence[Operation]) -> bool:
    state = model.initial
    for at, operation in enumerate(order):
        if any(later.returned is not None and later.returned < operation.invoked for later in order[at + 1 :]):
            return False
        is_legal, state = model.step(state, operation)
        if not is_legal:
            return False
    return True


class _Entry:
    """An invocation or a return in a list linked both ways."""

    __slots__ = ("after", "before", "operation", "return_entry")

    def __init__(self, operation: Operation | None) -> None:
        self.operation = operation
        self.return_entry: _Entry | None = None
        """The return that belongs to this invocation; None if this is a return, or there is none."""
        self.before: _Entry | None = None
        self.after: _Entry | None = None


def by_textbook(model: Model, operations: Sequence[Operation]) -> bool:
    """Whether the history is linearizable."""
    return all(_search(model, of_key) for of_key in split_by_key(operations).values())


def _search(model: Model, operations: list[Operation]) -> bool:
    head = _linked(operations)
    returns_left = sum(1 for operation in operations if not operation.outcome_is_unknown)
    state: State = model.initial
    taken = 0
    seen: set[tuple[int, State]] = set()
    calls: list[tuple[_Entry, State]] = []
    entry = head.after
    while returns_left:
        if entry is not None and entry.operation is not None:
            is_legal, after = model.step(state, entry.operation)
            bit = 1 << entry.operation.number
            if is_legal and (taken | bit, after) not in seen:
                seen.add((taken | bit, after))
                calls.append((entry, state))
                state, taken = after, taken | bit
                returns_left -= not entry.operation.outcome_is_unknown
                _lift(entry)
                entry = head.after
            else:
                entry = entry.after
            continue
        # A return whose operation has not taken effect, or the end: what was done last was wrong.
        if not calls:
            return False
        entry, state = calls.pop()
        assert entry.operation is not None
        taken &= ~(1 << entry.operation.number)
        returns_left += not entry.operation.outcome_is_unknown
        _put_back(entry)
        entry = entry.after
    return True


def _linked(operations: list[Operation]) -> _Entry:
    events: list[tuple[int, _Entry]] = []
    for operation in operations:
        invocation = _Entry(operation)
        events.append((operation.invoked, invocation))
        if operation.returned is not None:
            invocation.return_entry = _Entry(None)
            events.append((operation.returned, invocation.return_entry))
    events.sort(key=lambda event: event[0])
    head = last = _Entry(None)
    for _, entry in events:
        last.after, entry.before = entry, last
        last = entry
    return head


def _lift(entry: _Entry) -> None:
    for lifted in (entry, entry.return_entry):
        if lifted is not None:
            assert lifted.before is not None
            lifted.before.after = lifted.after
            if lifted.after is not None:
                lifted.after.before = lifted.before


def _put_back(entry: _Entry) -> None:
    for lifted in (entry.return_entry, entry):
        if lifted is not None:
            assert lifted.before is not None
            lifted.before.after = lifted
            if lifted.after is not None:
                lifted.after.before = lifted
