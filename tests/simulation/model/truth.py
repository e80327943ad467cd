"""The truth of a run: every entry that any replica applied, in order, done here too."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from coordinator.statemachine import commands, files, lock_commands
from coordinator.statemachine.commands import Aborted, Done, Entry, Failure, NodeCommand, Result, Transacted
from coordinator.statemachine.lock_commands import COUNTING, EXCLUSIVE
from tests.simulation.model.locks import Grant, Locks, Wish
from tests.simulation.model.namespace import Change, Namespace
from tests.simulation.model.requests import Requests

_decode: Final = msgspec.msgpack.Decoder(Entry).decode
LOCKS: Final = (
    commands.AcquireLock,
    commands.ReleaseLock,
    commands.CancelAcquire,
    lock_commands.Acquire,
    lock_commands.Release,
    lock_commands.ChangeMode,
    lock_commands.HandOver,
    lock_commands.ForceRelease,
)
COMMANDS: Final = (
    commands.PutKey,
    commands.DeleteKey,
    files.AddToKey,
    files.CreateFile,
    files.MakeDirectory,
    files.WriteFile,
    files.DeletePath,
    files.DeleteRange,
    files.AttachFile,
    files.DetachFile,
    files.Compact,
)
"""Those of the namespace, one by one."""
_TYPE_ALONE: Final = (commands.Queued, commands.Held, lock_commands.Deadlock, lock_commands.Broken)
"""Of these the truth is that it is one: what it says besides is for reading."""


class Expected(NamedTuple):
    """What an entry must bring about. `is_new`: it takes effect; else it is refused or a repetition."""

    at: int
    """The index of the entry."""
    command: NodeCommand
    is_new: bool
    result: Result
    changes: tuple[Change, ...]
    grants: tuple[Grant, ...]
    ended: tuple[int, ...]


class Truth:
    def __init__(self) -> None:
        self.requests = Requests()
        self.namespace = Namespace()
        self.locks = Locks()
        self.caching: dict[int, None] = {}
        """Sessions whose clients may keep what they read."""
        self.namespace.tokens = self.locks.tokens
        self.namespace.holders = self.locks.holders
        self.expected: Expected
        """Of the entry that was applied last."""

    def apply(self, index: int, entry: bytes) -> None:
        command = _decode(entry).command
        changes = len(self.namespace.changes)
        self.locks.begin(index)
        known = self.requests.judge(command) if command.session else None
        ended: tuple[int, ...] = ()
        if known is not None:
            result = known
        else:
            ended = self._ends(command)
            result = self._perform(index, command, ended)
            self.requests.answered(command, result)
        self.expected = Expected(
            index,
            command,
            known is None,
            result,
            (*self.namespace.changes[changes:],),
            (*self.locks.grants,),
            ended,
        )

    def _ends(self, command: NodeCommand) -> tuple[int, ...]:
        """Sessions that live, and that it ends."""
        op = command.op
        if isinstance(op, commands.CloseSession):
            return tuple(one for one in (op.owner or command.session,) if one in self.requests.sessions)
        if isinstance(op, commands.ExpireSessions):
            return tuple(one for one in dict.fromkeys(op.sessions) if one in self.requests.sessions)
        return ()

    def _perform(self, index: int, command: NodeCommand, ended: tuple[int, ...]) -> Result:
        op = command.op
        if isinstance(op, commands.OpenSession):
            return self.requests.open(index, op)
        if isinstance(op, (commands.CloseSession, commands.ExpireSessions)):
            return self._end(index, command, ended)
        if isinstance(op, LOCKS):
            return self._lock(index, command)
        match op:
            case lock_commands.EndLockDelays():
                return self.locks.end_delays(op.delays)
            case commands.Genesis():
                self.namespace.epoch = self.locks.epoch = op.epoch
                return Done(index)
            case files.BeginCaching():
                caches, self.caching[command.session] = command.session in self.caching, None
                return Done(index, existed=caches)
            case commands.ResetCheckpoints() | commands.CheckpointSessions() | commands.MarkState():
                return Done(index)
        return self.namespace.perform(index, command.session, op)

    def _end(self, index: int, command: NodeCommand, ended: tuple[int, ...]) -> Result:
        died = isinstance(command.op, commands.ExpireSessions)
        if not died and not ended:
            return Failure(commands.SESSION_GONE, "")
        for session in ended:
            del self.requests.sessions[session]
            self.namespace.end(index, session)
        self.locks.end(ended, died=died)
        return Done(index, existed=not died)

    def _lock(self, index: int, command: NodeCommand) -> Result:
        op: Any = command.op
        if isinstance(op, lock_commands.ForceRelease):
            return self.locks.force_release(op)
        session = op.owner or command.session
        if session not in self.requests.sessions:
            return Failure(commands.SESSION_GONE, "")
        key = (session, op.acquisition)
        match op:
            case commands.AcquireLock():
                wish = Wish(key, (op.name,), EXCLUSIVE, 1, False, 0)
                return self.locks.acquire(wish, wait=op.wait, refuse_deadlocks=False)
            case lock_commands.Acquire():
                limit = op.limit if op.mode == COUNTING else 1
                wish = Wish(key, tuple(sorted({*op.names})), op.mode, limit, op.reentrant, op.delay_ms)
                return self.locks.acquire(wish, wait=op.wait, refuse_deadlocks=op.refuse_deadlocks)
            case commands.ReleaseLock():
                return self.locks.release_any(session, op.name, op.acquisition)
            case lock_commands.Release():
                return self.locks.release(key, op.names)
            case commands.CancelAcquire():
                return self.locks.cancel(key, op.name)
            case lock_commands.ChangeMode():
                return self.locks.change_mode(key, op)
        return self.locks.hand_over(key, op, self.requests.sessions)


def agree(expected: Result, result: Result) -> bool:
    """Does `result` say what it must?"""
    if type(expected) is not type(result):
        return False
    if isinstance(expected, Failure):
        return expected.code == result.code
    if isinstance(expected, _TYPE_ALONE):
        return True
    if isinstance(expected, files.FileContent):
        assert isinstance(result, files.FileContent)
        return (expected.value, *_numbers(expected.stat)) == (result.value, *_numbers(result.stat))
    if isinstance(expected, Aborted):
        assert isinstance(result, Aborted)
        return expected.place == result.place and agree(expected.refusal, result.refusal)
    if isinstance(expected, Transacted):
        assert isinstance(result, Transacted)
        return (
            (expected.revision, expected.succeeded, len(expected.results))
            == (result.revision, result.succeeded, len(result.results))
        ) and all(agree(one, other) for one, other in zip(expected.results, result.results, strict=True))
    return expected == result


def _numbers(stat: files.Stat) -> tuple[str, int, int, int, int]:
    return stat.path, stat.size, stat.revision, stat.version, stat.instance
