"""Files and directories: created, written by generation, deleted with all below them, and kept by sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands
from coordinator.statemachine.files import (
    ANY_GENERATION,
    AttachFile,
    Compact,
    CreateFile,
    DeletePath,
    DeleteRange,
    DetachFile,
    FileContent,
    MakeDirectory,
    ReadFile,
    WriteFile,
)
from tests.simulation.clients import Client
from tests.simulation.mixed.asking import Act

if TYPE_CHECKING:
    from tests.simulation.mixed import Mixed

PATHS: Final = ("t/a", "t/a/x", "t/a/y", "t/b", "t/b/z", "t/c")
DIRECTORIES: Final = ("t", "t/a", "t/b", "t/d")
EPHEMERALS: Final = ("t/e", "t/f")
SEQUENCE: Final = "t/s"


def work(mixed: Mixed, client: Client) -> Act:
    random = client.random
    value = mixed.value()
    path = random.choice(PATHS)
    recursive = random.random() < 0.5
    choice = random.random()
    if choice < 0.2:
        yield from mixed.command(client, CreateFile(path, value, parents=random.random() < 0.7))
    elif choice < 0.35:
        yield from _ephemeral(mixed, client)
    elif choice < 0.42:
        yield from mixed.command(client, CreateFile(SEQUENCE, value, random.random() < 0.5, True, parents=True))
    elif choice < 0.5:
        yield from mixed.command(client, MakeDirectory(random.choice(DIRECTORIES), parents=random.random() < 0.7))
    elif choice < 0.7:
        yield from _read_and_write(mixed, client, random.choice((*PATHS, *EPHEMERALS)))
    elif choice < 0.76:
        yield from mixed.command(client, commands.PutKey(path, value))
    elif choice < 0.8:
        yield from mixed.command(client, commands.DeleteKey(path))
    elif choice < 0.88:
        yield from mixed.command(client, DeletePath(random.choice((*PATHS, *DIRECTORIES)), recursive))
    elif choice < 0.91:
        yield from mixed.command(client, DeleteRange(random.choice(("t/a", "t/b", "t/s")), prefix=True))
    elif choice < 0.94 or not mixed.mix.compacts:
        yield from _keep_or_leave(mixed, client)
    else:
        yield from mixed.command(client, Compact(max(0, mixed.history.told - random.randrange(8))))


def _ephemeral(mixed: Mixed, client: Client) -> Act:
    path = client.random.choice(EPHEMERALS)
    question = yield from mixed.command(client, CreateFile(path, mixed.value(), True, parents=True))
    if question.result is None:
        yield from mixed.command(client, AttachFile(path))


def _keep_or_leave(mixed: Mixed, client: Client) -> Act:
    path = client.random.choice(EPHEMERALS)
    yield from mixed.command(client, DetachFile(path) if client.random.random() < 0.5 else AttachFile(path))


def _read_and_write(mixed: Mixed, client: Client, path: str) -> Act:
    """Write, or delete, where nobody has since it was read."""
    read = yield from mixed.query(client, ReadFile(path))
    if not isinstance(read.result, FileContent):
        return
    stat = read.result.stat
    instance = stat.instance if client.random.random() < 0.5 else ANY_GENERATION
    if client.random.random() < 0.8:
        yield from mixed.command(client, WriteFile(path, mixed.value(), stat.version, instance))
    else:
        yield from mixed.command(client, DeletePath(path, generation=stat.version, instance=instance))
