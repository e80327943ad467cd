"""Transactions: comparisons, a branch for each outcome, all or nothing (etcd's, and nested as its are).

The operations are done one after the other on the state itself; where one is refused, what was done before it is taken
back (`namespace.take_back`). Rights and bounds of both branches are checked before anything is done, so that a
refusal for them does not hang on the state.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from coordinator.statemachine import commands, files, namespace
from coordinator.statemachine.commands import Aborted, Failure, Result, Transact, Transacted
from coordinator.statemachine.files import Compacted, Compare, FileContent, Mismatch, RangeView
from coordinator.statemachine.results import size_of
from coordinator.statemachine.rights import refuse
from coordinator.statemachine.work import TooManyRows

if TYPE_CHECKING:
    from coordinator.statemachine.items import Item
    from coordinator.statemachine.lock_commands import Grant
    from coordinator.statemachine.locks import Key
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.state import State

_RELATIONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_REFUSALS: Final = (Failure, Mismatch, Compacted)
_READ: Final = (FileContent, RangeView)


class _Refused(Exception):
    def __init__(self, place: tuple[int, ...], refusal: Failure | Mismatch | Compacted) -> None:
        super().__init__(place, refusal)
        self.place = place
        self.refusal = refusal


def transact(state: State, op: Transact, asker: Access, perform: Callable[[Any], Result]) -> Result:
    """`perform` does one operation that is no transaction."""
    refused = _refuse(op, asker)
    if refused is not None:
        return refused
    state.undo = []
    state.sequenced = 0
    if state.level >= commands.LEVEL_OF_BOUNDS:
        state.work.begin(files.TRANSACTION_ROWS_MAX)
    try:
        return _Transaction(state, perform).run(op, ())
    except _Refused as aborted:
        namespace.take_back(state)
        # Before its first operation nothing has a place.
        return Aborted(aborted.place, aborted.refusal) if aborted.place else aborted.refusal
    finally:
        state.undo = None
        state.work.end()


class _Transaction:
    def __init__(self, state: State, perform: Callable[[Any], Result]) -> None:
        self._state = state
        self._perform = perform
        self._read_bytes = 0

    def run(self, op: Transact, place: tuple[int, ...]) -> Transacted:
        try:
            succeeded = all(_holds(self._state, compare) for compare in op.compares)
        except TooManyRows:
            raise _Refused(place, _too_many_rows()) from None
        results = []
        for number, inner in enumerate(op.then if succeeded else op.otherwise):
            here = (*place, number)
            results.append(self.run(inner, here) if isinstance(inner, Transact) else self._do(inner, here))
        return Transacted(self._state.applied, succeeded, tuple(results))

    def _do(self, op: Any, place: tuple[int, ...]) -> Result:
        try:
            result = self._perform(op)
        except namespace.ChangedTwice as twice:
            refusal = Failure(
                commands.INVALID, f"a transaction changes a key once, {twice.args[0]!r} was changed before"
            )
            raise _Refused(place, refusal) from None
        except TooManyRows:
            raise _Refused(place, _too_many_rows()) from None
        if isinstance(result, _REFUSALS):
            raise _Refused(place, result)
        if isinstance(result, _READ):
            self._read_bytes += size_of(result)
        if self._read_bytes > files.TRANSACTION_READ_BYTES_MAX:
            message = f"a transaction reads at most {files.TRANSACTION_READ_BYTES_MAX} bytes"
            raise _Refused(place, Failure(commands.TOO_MANY, message))
        return result


def _too_many_rows() -> Failure:
    message = f"a transaction goes over at most {files.TRANSACTION_ROWS_MAX} keys, changes and holders"
    return Failure(commands.TOO_MANY, message)


def _holds(state: State, compare: Compare) -> bool:
    """See `files.Compare`."""
    relation = _RELATIONS[compare.relation]
    return any(relation(found, compare.operand) for found in _found(state, compare))


def _found(state: State, compare: Compare) -> tuple[bytes | int, ...]:
    key = compare.key
    match compare.target:
        case "lease":
            return state.ephemerals.rows.get(key) or (0,)
        case "lock":
            return tuple(grant.token for grant in _holders(state, key).values()) or (0,)
        case "lock-holder":
            return tuple(session for session, _ in _holders(state, key)) or (0,)
    item = state.keys.rows.get(key)
    if compare.target == "value":
        return () if item is None or item.value is None else (item.value,)
    return (0 if item is None else _number(state, compare.target, key, item),)


def _holders(state: State, name: str) -> dict[Key, Grant]:
    lock = state.locks.rows.get(name)
    if lock is None:
        return {}
    state.work.goes_over(len(lock.holders))
    return lock.holders


def _number(state: State, target: files.Target, key: str, item: Item) -> int:
    """Of a file or a directory that is there, as its stat shows it."""
    match target:
        case "version":
            return item.version
        case "instance":
            return item.instance
        case "revision":
            return item.revision
        case "lock-generation":
            return state.lock_generations.rows.get(key, 0)
    assert target == "acl-generation"
    return state.rights_index


def late_target(op: Transact) -> str:
    """The first target of its comparisons, or of those within, that is of level 4; "": there is none."""
    pending = [op]
    while pending:
        transaction = pending.pop()
        for compare in transaction.compares:
            if compare.target in files.LEVEL_4_TARGETS:
                return compare.target
        pending += [one for one in (*transaction.then, *transaction.otherwise) if isinstance(one, Transact)]
    return ""


def is_too_deep(op: Any) -> bool:
    """Is it a transaction that is nested deeper than replicas read?"""
    here = [op] if isinstance(op, Transact) else []
    for _ in range(files.READ_NESTING_MAX):
        here = [one for each in here for one in (*each.then, *each.otherwise) if isinstance(one, Transact)]
        if not here:
            return False
    return True


def _refuse(op: Transact, asker: Access) -> Failure | None:
    """Rights, and the bounds of all transactions that are in this one."""
    compares = operations = 0
    pending = [(op, 1)]
    while pending:
        transaction, depth = pending.pop()
        inner = (*transaction.then, *transaction.otherwise)
        compares += len(transaction.compares)
        operations += len(inner)
        if depth > files.NESTING_MAX:
            return Failure(commands.TOO_MANY, f"transactions are nested at most {files.NESTING_MAX} deep")
        if compares > files.COMPARES_MAX or operations > files.OPERATIONS_MAX:
            return Failure(
                commands.TOO_MANY,
                f"a transaction has at most {files.COMPARES_MAX} comparisons and {files.OPERATIONS_MAX} operations",
            )
        for one in (*transaction.compares, *inner):
            refused = refuse(asker, one) or _unfit(one)
            if refused is not None:
                return refused
        pending += [(one, depth + 1) for one in inner if isinstance(one, Transact)]
    return None


def _unfit(one: Any) -> Failure | None:
    if isinstance(one, Compare) and isinstance(one.operand, bytes) != (one.target == "value"):
        return Failure(commands.INVALID, "a value is compared with bytes, everything else with a number")
    return None
