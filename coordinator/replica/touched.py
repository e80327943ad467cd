"""What a command may change of what files and their stats show: more than it will, never less.

The leader asks this before it proposes a command, to know whose caches hold what it touches (`caching.py`). The command
will be applied behind all that was proposed and is not applied yet, so what hangs on the state (what a session leaves
behind when it ends, who stands in a line) hangs on those too. What they touch nobody keeps, and nobody may until the
command is applied (`in_flight.py`); so it is not named again here, but for what nobody can tell (`wide`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from coordinator.statemachine import commands, files, lock_commands, locking

if TYPE_CHECKING:
    from coordinator.statemachine.state import State

LINE_MAX: Final = 64
"""Waiters of one lock that are looked at. Behind a longer line anything may follow."""


class Touched(NamedTuple):
    """`paths` as they are named; `prefixes`: all that begins so; `ended`: sessions that end; `of_several`: an
    acquisition of several names, which takes or leaves all of them when something becomes of one."""

    paths: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    everything: bool = False
    ended: tuple[int, ...] = ()
    of_several: bool = False

    @property
    def is_nothing(self) -> bool:
        return not (self.paths or self.prefixes or self.everything or self.ended)

    @property
    def is_wide(self) -> bool:
        """May it take, or leave, names that those behind it do not name?"""
        return self.everything or self.of_several


NOTHING: Final = Touched()
EVERYTHING: Final = Touched(everything=True)


def touched_by(op: Any, session: int, state: State, *, wide: bool) -> Touched:
    """By a command under the numbers of `session` (0: of the leader's own). `wide`: something that was proposed and is
    not applied yet may take, or leave, several names together, or nobody knows what it does."""
    if type(op) in _NOTHING:
        return NOTHING
    field = _ONE_PATH.get(type(op))
    if field is not None:
        return Touched(_with_parents(getattr(op, field)))
    match op:
        case files.WriteFile(path):
            return Touched(frozenset((path,)))
        case files.CreateFile(path, sequential=sequential):
            return Touched(_with_parents(path), (path,) if sequential else ())
        case files.DeletePath(path, recursive):
            return Touched(_with_parents(path), (f"{path}/",) if recursive else ())
        case files.DeleteRange(start, end, prefix):
            return _of_range(start, end, prefix)
        case commands.Transact(_, then, otherwise):
            return _all_of([touched_by(each, session, state, wide=wide) for each in (*then, *otherwise)])
        case commands.CloseSession(owner):
            return _of_ends((owner or session,), state, wide=wide)
        case commands.ExpireSessions(sessions):
            return _of_ends(sessions, state, wide=wide)
    return _by_lock(op, session, state, wide=wide)


def _by_lock(op: Any, session: int, state: State, *, wide: bool) -> Touched:
    match op:
        case commands.AcquireLock(name):
            return Touched(frozenset((name,)))
        case lock_commands.Acquire(names):
            return Touched(frozenset(names), of_several=len(names) > 1)
        case lock_commands.Release(names):
            return _of_lines(names, state, wide=wide)
        case commands.CancelAcquire(name, acquisition, owner=owner):
            return _of_lines((name, *_names_of(state, name, (owner or session, acquisition))), state, wide=wide)
        case (
            commands.ReleaseLock(name)
            | lock_commands.ChangeMode(name)
            | lock_commands.HandOver(name)
            | lock_commands.ForceRelease(name)
        ):
            return _of_lines((name,), state, wide=wide)
        case lock_commands.EndLockDelays(delays):
            return _of_lines([name for name, _ in delays], state, wide=wide)
    return EVERYTHING  # Rights, and whatever else there will be.


_NOTHING: Final = frozenset(
    (
        commands.OpenSession,
        commands.SetWantedMembership,
        commands.CheckpointSessions,
        commands.ResetCheckpoints,
        commands.RaiseLevel,
        commands.MarkState,
        files.BeginCaching,
        files.Compact,
        files.ReadFile,
        files.ReadRange,
    )
)
_ONE_PATH: Final[dict[type, str]] = {
    commands.PutKey: "key",
    commands.DeleteKey: "key",
    files.AddToKey: "key",
    files.MakeDirectory: "path",
    files.AttachFile: "path",
    files.DetachFile: "path",
}
"""What may come or go, and be seen in the directories above."""


def _with_parents(path: str) -> frozenset[str]:
    return frozenset((path, *(path[:at] for at, character in enumerate(path) if character == "/")))


def _of_range(start: str, end: str, prefix: bool) -> Touched:
    if prefix:
        return Touched(_with_parents(start), (start,))
    return EVERYTHING if end else Touched(_with_parents(start))


def _all_of(several: Iterable[Touched]) -> Touched:
    found = [*several]
    return Touched(
        frozenset().union(*(one.paths for one in found)),
        tuple(dict.fromkeys(prefix for one in found for prefix in one.prefixes)),
        any(one.everything for one in found),
        tuple(session for one in found for session in one.ended),
        any(one.of_several for one in found),
    )


def _of_lines(names: Iterable[str], state: State, *, wide: bool) -> Touched:
    """Who stands in line for these may be let in. One that waits for others too takes, or leaves, those with it."""
    names = frozenset(names)
    if wide:
        return EVERYTHING
    for name in names:
        lock = state.locks.rows.get(name)
        if lock is not None and (
            len(lock.queue) > LINE_MAX or any(len(waiter.names) > 1 for waiter in lock.queue.values())
        ):
            return EVERYTHING
    return Touched(names)


def _names_of(state: State, name: str, key: tuple[int, int]) -> tuple[str, ...]:
    lock = state.locks.rows.get(name)
    has = None if lock is None else lock.holders.get(key) or lock.queue.get(key)
    if has is not None:
        return has.names
    session = state.sessions.rows.get(key[0])
    return () if session is None else tuple(locking.taken_with(state, session, name, key[1]))


def _of_ends(sessions: Iterable[int], state: State, *, wide: bool) -> Touched:
    """A session leaves its locks, its places in line and its ephemeral files."""
    names: set[str] = set()
    paths: set[str] = set()
    ended = tuple(sessions)
    for number in ended:
        session = state.sessions.rows.get(number)
        if session is not None:
            names.update(session.locks, session.waiting)
            for path in session.files:
                paths |= _with_parents(path)
    return _all_of((_of_lines(names, state, wide=wide), Touched(frozenset(paths), ended=ended)))
