"""Transactions: comparisons, branches, and transactions within them; some are refused half-way."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from coordinator.statemachine.commands import DeleteKey, PutKey, Transact, TransactionOp
from coordinator.statemachine.files import (
    AddToKey,
    Compare,
    CreateFile,
    DeletePath,
    DeleteRange,
    FileContent,
    MakeDirectory,
    ReadFile,
    ReadRange,
    Relation,
    WriteFile,
)
from tests.simulation.clients import Client
from tests.simulation.mixed.asking import Act
from tests.simulation.mixed.files import DIRECTORIES, EPHEMERALS, PATHS

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

RELATIONS: tuple[Relation, ...] = ("=", "=", "!=", "<", ">")


def work(mixed: Mixed, client: Client) -> Act:
    random = client.random
    if random.random() < 0.3:
        amount = random.randrange(1, 9)
        yield from mixed.command(client, Transact((), (AddToKey("t/p", amount), AddToKey("t/q", -amount))))
        return
    read = yield from mixed.query(client, ReadFile(random.choice(PATHS)))
    known = read.result if isinstance(read.result, FileContent) else None
    yield from mixed.command(client, _transaction(mixed, client, known, depth=1))


def _transaction(mixed: Mixed, client: Client, known: FileContent | None, depth: int) -> Transact:
    random = client.random
    compares = tuple(_compare(mixed, client, known) for _ in range(random.choice((0, 1, 1, 2))))
    then = tuple(_operation(mixed, client, depth) for _ in range(random.choice((1, 2, 2, 3))))
    otherwise = tuple(_operation(mixed, client, depth) for _ in range(random.choice((0, 1, 2))))
    return Transact(compares, then, otherwise)


def _compare(mixed: Mixed, client: Client, known: FileContent | None) -> Compare:
    """Of what was read a moment ago, mostly; else of anything."""
    random = client.random
    if known is not None and random.random() < 0.6:
        stat = known.stat
        return random.choice(
            (
                Compare(stat.path, "value", "=", known.value),
                Compare(stat.path, "version", "=", stat.version),
                Compare(stat.path, "instance", "=", stat.instance),
                Compare(stat.path, "revision", "<", stat.revision + 1),
            )
        )
    if random.random() < 0.5:
        leases = client.leases
        lease = random.choice(leases) if leases else None
        target = random.choice(("lock", "lock-holder"))
        if lease is None:
            return Compare("x0", "lock", random.choice(RELATIONS), 0)
        operand = lease.token if target == "lock" else lease.session.session
        return Compare(lease.name, "lock" if target == "lock" else "lock-holder", "=", operand)
    if random.random() < 0.3:
        return Compare(random.choice(EPHEMERALS), "lease", random.choice(RELATIONS), 0)
    return Compare(random.choice(PATHS), "version", random.choice(RELATIONS), random.randrange(3))


def _operation(mixed: Mixed, client: Client, depth: int) -> TransactionOp:
    random = client.random
    path = random.choice(PATHS)
    if depth < 3 and random.random() < 0.15:
        return _transaction(mixed, client, None, depth + 1)
    return _plain(random, path, mixed.value())


def _plain(random: Random, path: str, value: bytes) -> TransactionOp:
    choice = random.random()
    if choice < 0.3:
        return PutKey(path, value)
    if choice < 0.45:
        return DeleteKey(path)
    if choice < 0.55:
        return CreateFile(path, value, ephemeral=random.random() < 0.3, parents=True)
    if choice < 0.6:
        return CreateFile("t/s", value, sequential=True, parents=True)
    if choice < 0.65:
        return MakeDirectory(random.choice(DIRECTORIES), parents=True)
    if choice < 0.72:
        return WriteFile(path, value, random.choice((-1, 1, 2)))
    if choice < 0.78:
        return DeletePath(path, recursive=random.random() < 0.5)
    if choice < 0.82:
        return DeleteRange(path, prefix=True)
    if choice < 0.88:
        return AddToKey("t/p", 1)
    if choice < 0.94:
        return ReadFile(path)
    return ReadRange("t", prefix=True, limit=4)
