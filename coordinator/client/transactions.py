"""Transactions, written so that they can be read:

    from coordinator.client.transactions import Transaction, delete, key, put

    move = (
        Transaction()
        .when(key("from").value == b"x", key("to").version == 0)
        .then(put("to", b"x"), delete("from"))
        .otherwise(read("from"))
    )
    done = client.transact(move)
    done.succeeded, done.revision, done.results

Where all comparisons hold, `then` is done, else `otherwise`: in one revision, all of it or nothing. What each operation
does and how it is refused is in `docs/semantics.md`, "Transactions".
"""

from __future__ import annotations

from typing import TypeAlias

from coordinator.client import options
from coordinator.client.errors import InvalidRequest
from coordinator.client.watches import range_of
from coordinator.statemachine import commands, files
from coordinator.statemachine.commands import Transact
from coordinator.statemachine.files import Compare, Relation, Target

Operation: TypeAlias = "commands.TransactionOp | Transaction"


class Transaction:
    """What is to be done under which conditions. Never changed: each step gives another one."""

    __slots__ = ("_compares", "_otherwise", "_then")

    def __init__(
        self,
        compares: tuple[Compare, ...] = (),
        then: tuple[commands.TransactionOp, ...] = (),
        otherwise: tuple[commands.TransactionOp, ...] = (),
    ) -> None:
        self._compares = compares
        self._then = then
        self._otherwise = otherwise

    def when(self, *compares: Compare) -> Transaction:
        """Only where these hold too. Raises InvalidRequest for what is no comparison, such as a plain True."""
        for each in compares:
            if not isinstance(each, Compare):
                raise InvalidRequest(f'expected comparisons such as key("a").version == 3, got {each!r}')
        return Transaction((*self._compares, *compares), self._then, self._otherwise)

    def then(self, *operations: Operation) -> Transaction:
        """What is done where all comparisons hold: `put`, `read` and so on of this module, or a transaction within."""
        return Transaction(self._compares, (*self._then, *map(_built, operations)), self._otherwise)

    def otherwise(self, *operations: Operation) -> Transaction:
        """What is done where one does not."""
        return Transaction(self._compares, self._then, (*self._otherwise, *map(_built, operations)))

    def build(self) -> Transact:
        """The command that it is."""
        return Transact(self._compares, self._then, self._otherwise)

    def __repr__(self) -> str:
        return f"Transaction({self._compares!r}, {self._then!r}, {self._otherwise!r})"


def _built(operation: Operation) -> commands.TransactionOp:
    if isinstance(operation, Transaction):
        return operation.build()
    if not isinstance(operation, commands.TransactionOp):
        raise InvalidRequest(f"expected operations such as put(...) or read(...), got {operation!r}")
    return operation


# --- comparisons ----------------------------------------------------------------------------------


class Subject:
    """Something of a key that is compared: with `==`, `!=`, `<`, `>`."""

    __slots__ = ("_key", "_target")
    __hash__ = None  # type: ignore[assignment]  # Comparing it says something; it is no member of sets.

    def __init__(self, key: str, target: Target) -> None:
        self._key = key
        self._target: Target = target

    def _compare(self, relation: Relation, operand: object) -> Compare:
        kind = bytes if self._target == "value" else int
        if isinstance(operand, bool) or not isinstance(operand, kind):
            raise InvalidRequest(
                f"the {self._target} of {self._key!r} is compared with {kind.__name__}, got {operand!r}"
            )
        return Compare(self._key, self._target, relation, operand)

    def __eq__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare("=", operand)

    def __ne__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare("!=", operand)

    def __lt__(self, operand: bytes | int) -> Compare:
        return self._compare("<", operand)

    def __gt__(self, operand: bytes | int) -> Compare:
        return self._compare(">", operand)


class Key:
    """Of a key that is not there every number is 0, and no comparison of its value holds."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = options.name(name)

    @property
    def value(self) -> Subject:
        return Subject(self._name, "value")

    @property
    def version(self) -> Subject:
        """The content generation: how often it was written since it is there; 0: it is not."""
        return Subject(self._name, "version")

    @property
    def instance(self) -> Subject:
        """The revision that created it."""
        return Subject(self._name, "instance")

    @property
    def revision(self) -> Subject:
        """The revision that wrote it last."""
        return Subject(self._name, "revision")

    @property
    def session(self) -> Subject:
        """A session that it is ephemeral with."""
        return Subject(self._name, "lease")

    @property
    def token(self) -> Subject:
        """A fencing token under which the lock of this name is held; 0: it is free."""
        return Subject(self._name, "lock")

    @property
    def holder(self) -> Subject:
        """A session that holds the lock of this name; 0: nobody."""
        return Subject(self._name, "lock-holder")

    @property
    def lock_generation(self) -> Subject:
        """The fencing token under which its name last went from free to held since the file is there; else 0."""
        return Subject(self._name, "lock-generation")

    @property
    def acl_generation(self) -> Subject:
        """Of a key that is there: the index that last changed what somebody may do, anywhere."""
        return Subject(self._name, "acl-generation")

    @property
    def is_there(self) -> Compare:
        return self.version > 0

    @property
    def is_missing(self) -> Compare:
        return self.version == 0


def key(name: str) -> Key:
    """What `when` compares: `key("a").version == 3`. Raises InvalidRequest."""
    return Key(name)


# --- operations -----------------------------------------------------------------------------------


def put(name: str, value: bytes) -> commands.PutKey:
    """Write a key, whether it is there or not."""
    return commands.PutKey(options.name(name), options.key_value(value))


def delete(name: str) -> commands.DeleteKey:
    """Delete a key, if it is there."""
    return commands.DeleteKey(options.name(name))


def add(name: str, amount: int) -> files.AddToKey:
    """Add to a counter."""
    return files.AddToKey(options.name(name), options.amount(amount))


def create(
    path: str, value: bytes = b"", *, ephemeral: bool = False, sequential: bool = False, parents: bool = False
) -> files.CreateFile:
    """Create a file; refused where it is there. See `Files.create`."""
    return files.CreateFile(options.name(path), options.key_value(value), ephemeral, sequential, parents)


def make_directory(path: str, *, parents: bool = False) -> files.MakeDirectory:
    """Make a directory; refused where it is there."""
    return files.MakeDirectory(options.directory(path), parents)


def write(path: str, value: bytes, *, generation: int | None = None, instance: int | None = None) -> files.WriteFile:
    """Replace the content of a file; refused where there is none, or where its generation (the stat's `version`) or its
    instance is another."""
    return files.WriteFile(
        options.name(path), options.key_value(value), options.generation(generation), options.generation(instance)
    )


def remove(
    path: str, *, recursive: bool = False, generation: int | None = None, instance: int | None = None
) -> files.DeletePath:
    """Delete a file or a directory; refused where there is none. `generation` and `instance` as in `write`."""
    return files.DeletePath(options.name(path), recursive, options.generation(generation), options.generation(instance))


def delete_range(start: str, end: str = "", *, prefix: bool = False) -> files.DeleteRange:
    """Delete all keys of a range."""
    return files.DeleteRange(*range_of(start, end, prefix=prefix))


def read(path: str, *, revision: int = 0) -> files.ReadFile:
    """The content and stat of a file, at `revision` (0: as what came before has made it); refused where there is
    none."""
    return files.ReadFile(options.name(path), options.revision(revision))


def read_range(
    start: str, end: str = "", *, prefix: bool = False, limit: int = 0, revision: int = 0
) -> files.ReadRange:
    """A page of a range, at `revision` (0: as what came before has made it)."""
    bounds = range_of(start, end, prefix=prefix)
    return files.ReadRange(*bounds, options.revision(revision), options.limit_or_all(limit))
