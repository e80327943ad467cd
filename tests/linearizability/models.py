"""What the objects do: a register, a key-value store, a lock, a counter; and what the search may know about their
operations.

A model is a small interface. `initial` and `step` are the whole meaning: a state is any hashable value, and
`step(state, operation)` says whether the operation, with the result that it gave, may take effect in that state, and
which state it leaves. An operation whose outcome is unknown is asked whether it may take effect *now*: its result then
constrains nothing.

`traits` and `lens` only make the search shorter. Claiming less than what is true costs time; claiming more breaks the
verdict, so tests compare each model with a search that ignores both.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tests.linearizability.history import Operation

State = Hashable

_SCANNED_CHARACTERS_MAX: Final = 2_000_000_000
"""Text of results that is searched for lost appends, about a second; past it, such an append is taken for seen."""


class _Marker:
    """A value that equals nothing else and says in a debugger what it stands for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


INDISTINCT: Final = _Marker("a state that no later operation can tell from others")
ANY_STATE: Final = _Marker("no single state")


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds of an operation in every state."""

    kind: Hashable
    """Operations of one kind step alike in every state, so that one may stand for the other."""
    is_read_only: bool = False
    """It never changes the state where it is legal."""
    is_total: bool = False
    """It is legal in every state."""
    is_blind: bool = False
    """It is total, and leaves the same state whatever the state before."""
    guard: State = ANY_STATE
    """The only state in which it is legal, where there is a single one."""
    shunned: State = ANY_STATE
    """The only state in which it is not legal, where there is a single one and it is read-only."""


class Lens(Protocol):
    """Which states the operations of one history can tell apart, from some position on."""

    states_are_bounded: bool
    """Finitely many told-apart states can be reached, even by operations that take effect over and over again."""
    indistinct_wanted_until: float
    """Past this position, nothing is gained by an operation of unknown outcome that leaves INDISTINCT."""

    def told_apart_until(self, state: State) -> float:
        """The last position at which a return may depend on this very state; past it, it is as good as INDISTINCT.

        All states past this position must step alike, and `step` must know INDISTINCT as one of them.
        """

    def seen_until(self, operation: Operation) -> float:
        """Past this position the operation, of unknown outcome, leaves no state that is told apart."""

    def roots(self, operation: Operation) -> Collection[State] | None:
        """The guards for which this operation is a root; None if that is not known for this kind of object.

        Every way to a guard leads through a root of it, or starts from a state that `leads` to it.
        """

    def leads(self, state: State, guard: State) -> bool:
        """Whether operations that are not roots of the guard may lead from the state to the guard, in no step or more.

        If they do not lead there from some state, they lead from there to none from where they do.
        """


class Model(Protocol):
    """The sequential specification of one object."""

    @property
    def initial(self) -> State:
        """The state before the first operation."""

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        """Whether the operation may take effect in this state, and the state after it (or the same if it may not)."""

    def traits(self, operation: Operation) -> Traits:
        """What the search may rely on for this operation."""

    def lens(self, operations: Sequence[Operation]) -> Lens:
        """How the operations of one key tell states apart."""


class SharpLens:
    """Tells every state from every other, at all times: always right, never a help."""

    states_are_bounded = False
    indistinct_wanted_until = math.inf

    def told_apart_until(self, state: State) -> float:
        return math.inf

    def seen_until(self, operation: Operation) -> float:
        return math.inf

    def roots(self, operation: Operation) -> Collection[State] | None:
        return None

    def leads(self, state: State, guard: State) -> bool:
        return True


class _RegisterLens:
    """A value matters while an operation that has yet to return depends on it."""

    states_are_bounded = True

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._until: dict[State, float] = {}
        self.indistinct_wanted_until = -math.inf
        lost: dict[State, list[State]] = {}
        """For each value those from which a compare-and-set of unknown outcome may lead to it."""
        for operation in operations:
            if operation.action == "read" and operation.returned is not None:
                self._see(operation.result, operation.returned)
            elif operation.action == "cas":
                assert isinstance(operation.argument, tuple)
                old, new = operation.argument
                if operation.returned is None:
                    lost.setdefault(new, []).append(old)
                else:
                    self._see(old, operation.returned)
                    if operation.result is False:
                        self.indistinct_wanted_until = max(self.indistinct_wanted_until, operation.returned)
        # Whether such a one could take effect matters as long as the value that it leaves does.
        changed = list(self._until)
        while changed:
            new = changed.pop()
            changed += [old for old in lost.get(new, ()) if self._see(old, self._until[new])]

    def _see(self, state: State, position: float) -> bool:
        """The state matters until that position at least. Returns whether that is news."""
        is_news = position > self._until.get(state, -math.inf)
        if is_news:
            self._until[state] = position
        return is_news

    def told_apart_until(self, state: State) -> float:
        return math.inf if state is INDISTINCT else self._until.get(state, -math.inf)

    def seen_until(self, operation: Operation) -> float:
        argument = operation.argument
        return self.told_apart_until(argument[1] if isinstance(argument, tuple) else argument)

    def roots(self, operation: Operation) -> Collection[State]:
        if operation.action == "read" or operation.result is False:
            return ()
        argument = operation.argument
        return (argument[1] if isinstance(argument, tuple) else argument,)

    def leads(self, state: State, guard: State) -> bool:
        return state == guard


class RegisterModel:
    """A register, empty (None) at first: `read` gives its value, `write` sets it, `cas` with (old, new) compares and
    sets, giving True, or False where the register did not hold `old`."""

    initial: State = None

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        if operation.action == "read":
            return operation.outcome_is_unknown or state == operation.result, state
        if operation.action == "write":
            return True, operation.argument
        assert operation.action == "cas", operation
        assert isinstance(operation.argument, tuple), operation
        old, new = operation.argument
        if operation.result is False:
            return state != old, state
        return (True, new) if state == old else (False, state)

    def traits(self, operation: Operation) -> Traits:
        if operation.action == "read":
            if operation.outcome_is_unknown:
                return Traits(("look",), is_read_only=True, is_total=True)
            return Traits(("read", operation.result), is_read_only=True, guard=operation.result)
        if operation.action == "write":
            return Traits(("write", operation.argument), is_total=True, is_blind=True)
        assert isinstance(operation.argument, tuple), operation
        old, new = operation.argument
        if operation.result is False:
            return Traits(("mismatch", old), is_read_only=True, shunned=old)
        return Traits(("cas", old, new), is_read_only=old == new, guard=old)

    def lens(self, operations: Sequence[Operation]) -> Lens:
        return _RegisterLens(operations)


class _KeyValueLens:
    """A value matters while a get that has yet to return gives it, or something longer that begins with it."""

    states_are_bounded = True
    indistinct_wanted_until = -math.inf

    def __init__(self, operations: Sequence[Operation]) -> None:
        last_return: dict[str, int] = {}
        for operation in operations:
            if operation.action == "get" and operation.returned is not None:
                assert isinstance(operation.result, str)
                last_return[operation.result] = max(last_return.get(operation.result, -1), operation.returned)
        self._results = sorted(last_return)
        self._last_returns = [last_return[result] for result in self._results]
        self._longest = self._longest_results()
        self._longest_characters = sum(len(result) for result, _ in self._longest)
        self._scanned = 0

    def _longest_results(self) -> list[tuple[str, int]]:
        """The results that no other begins with, each with the last return of it and of those that it begins with."""
        longest: list[tuple[str, int]] = []
        until = -1
        for at, result in enumerate(self._results):
            until = max(until, self._last_returns[at])
            if at + 1 == len(self._results) or not self._results[at + 1].startswith(result):
                longest.append((result, until))
                until = -1
        return longest

    def told_apart_until(self, state: State) -> float:
        if state is INDISTINCT:
            return math.inf
        assert isinstance(state, str)
        first, end = self._beginning_with(state)
        return max(self._last_returns[first:end], default=-math.inf)

    def _beginning_with(self, start: str) -> tuple[int, int]:
        size = len(start)
        first = bisect_left(self._results, start)
        return first, bisect_right(self._results, start, lo=first, key=lambda result: result[:size])

    def roots(self, operation: Operation) -> Collection[State]:
        if operation.action != "put":
            return ()
        assert isinstance(operation.argument, str)
        first, end = self._beginning_with(operation.argument)
        return self._results[first:end]

    def leads(self, state: State, guard: State) -> bool:
        assert isinstance(guard, str)
        return isinstance(state, str) and guard.startswith(state)

    def seen_until(self, operation: Operation) -> float:
        assert isinstance(operation.argument, str)
        if operation.action == "put":
            return self.told_apart_until(operation.argument)
        if self._scanned > _SCANNED_CHARACTERS_MAX:
            return math.inf
        self._scanned += self._longest_characters
        return max((until for result, until in self._longest if operation.argument in result), default=-math.inf)


class KeyValueModel:
    """One key of a key-value store, the empty string at first: `get` gives the value, `put` sets it, `append` adds to
    its end."""

    initial: State = ""

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        if operation.action == "get":
            return operation.outcome_is_unknown or state == operation.result, state
        if operation.action == "put":
            return True, operation.argument
        assert operation.action == "append", operation
        assert isinstance(operation.argument, str), operation
        if state is INDISTINCT:
            return True, state
        assert isinstance(state, str)
        return True, state + operation.argument

    def traits(self, operation: Operation) -> Traits:
        if operation.action == "get":
            if operation.outcome_is_unknown:
                return Traits(("look",), is_read_only=True, is_total=True)
            return Traits(("get", operation.result), is_read_only=True, guard=operation.result)
        if operation.action == "put":
            return Traits(("put", operation.argument), is_total=True, is_blind=True)
        return Traits(("append", operation.argument), is_read_only=operation.argument == "", is_total=True)

    def lens(self, operations: Sequence[Operation]) -> Lens:
        return _KeyValueLens(operations)


@dataclass(frozen=True, slots=True)
class _LockState:
    holder: Hashable
    """The owner that holds the lock; None if it is free."""
    token: int
    """The lowest that the highest token granted so far can be."""


class LockModel:
    """An exclusive lock with fencing tokens. The argument of every operation is the owner.

    - `acquire` gives a token, an integer above every token before; or None where another owner held the lock.
    - `release` gives True if the owner held the lock and let it go, False if it did not hold it.
    - `expire` is what the cluster did by itself when a session ended: it is `release` of whoever is named.
    """

    initial: State = _LockState(None, 0)

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        assert isinstance(state, _LockState), state
        assert operation.argument is not None, "an owner has a name"
        is_free = state.holder is None
        if operation.action == "acquire":
            if operation.outcome_is_unknown:
                return (True, _LockState(operation.argument, state.token + 1)) if is_free else (False, state)
            if operation.result is None:
                return not is_free and state.holder != operation.argument, state
            assert isinstance(operation.result, int)
            if is_free and operation.result > state.token:
                return True, _LockState(operation.argument, operation.result)
            return False, state
        assert operation.action in ("release", "expire"), operation
        holds = state.holder == operation.argument
        if operation.result is False:
            return not holds, state
        return (True, _LockState(None, state.token)) if holds else (False, state)

    def traits(self, operation: Operation) -> Traits:
        kind = (operation.action, operation.argument, operation.result, operation.outcome_is_unknown)
        refused = operation.result is (None if operation.action == "acquire" else False)
        return Traits(kind, is_read_only=refused and not operation.outcome_is_unknown)

    def lens(self, operations: Sequence[Operation]) -> Lens:
        return SharpLens()


class _GrowingLens(SharpLens):
    """Of a counter that nobody takes from: a value matters while an operation that has yet to return needs that one, or
    a greater."""

    states_are_bounded = True
    indistinct_wanted_until = -math.inf

    def __init__(self, operations: Sequence[Operation]) -> None:
        until: dict[int, float] = {}
        for operation in operations:
            if operation.returned is not None:
                assert isinstance(operation.result, int), operation
                needed = operation.result - (_amount(operation) if operation.action == "add" else 0)
                until[needed] = max(until.get(needed, -math.inf), operation.returned)
        self._needed = sorted(until)
        self._until: list[float] = []
        """For each value that is needed, until when that or a greater one is."""
        for needed in reversed(self._needed):
            self._until.append(max(until[needed], self._until[-1] if self._until else -math.inf))
        self._until.reverse()

    def told_apart_until(self, state: State) -> float:
        if state is INDISTINCT:
            return math.inf
        assert isinstance(state, int)
        place = bisect_left(self._needed, state)
        return self._until[place] if place < len(self._until) else -math.inf

    def seen_until(self, operation: Operation) -> float:
        return self.told_apart_until(_amount(operation))

    def roots(self, operation: Operation) -> Collection[State]:
        return ()

    def leads(self, state: State, guard: State) -> bool:
        assert isinstance(guard, int)
        return isinstance(state, int) and state <= guard


class CounterModel:
    """A counter, 0 at first: `add` adds its argument and gives the sum, `value` gives what it is."""

    initial: State = 0

    def step(self, state: State, operation: Operation) -> tuple[bool, State]:
        if state is INDISTINCT:
            return operation.outcome_is_unknown, state  # What returns gives a sum that it has passed.
        assert isinstance(state, int), state
        if operation.action == "value":
            return operation.outcome_is_unknown or state == operation.result, state
        assert operation.action == "add", operation
        total = state + _amount(operation)
        return operation.outcome_is_unknown or total == operation.result, total

    def traits(self, operation: Operation) -> Traits:
        if operation.action == "value":
            if operation.outcome_is_unknown:
                return Traits(("look",), is_read_only=True, is_total=True)
            return Traits(("value", operation.result), is_read_only=True, guard=operation.result)
        amount = _amount(operation)
        if operation.outcome_is_unknown:
            return Traits(("lost", amount), is_read_only=amount == 0, is_total=True)
        assert isinstance(operation.result, int), operation
        return Traits(("add", amount, operation.result), is_read_only=amount == 0, guard=operation.result - amount)

    def lens(self, operations: Sequence[Operation]) -> Lens:
        grows = all(_amount(operation) >= 0 for operation in operations if operation.action == "add")
        return _GrowingLens(operations) if grows else SharpLens()


def _amount(operation: Operation) -> int:
    assert isinstance(operation.argument, int), operation
    return operation.argument
