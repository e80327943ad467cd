"""Mutual exclusion by mode: an exclusive holder is alone, shared holders are with such alone, and a counting lock has
no more holders than its limit (Chubby, section 2.4; Dijkstra 1965).

Who holds is what was told: the answers of acquires, the grants that are pushed, and the answers of those that let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import Done, Granted, Queued, Result
from coordinator.statemachine.events import GrantMade, LockBroken, SessionEnded
from coordinator.statemachine.lock_commands import COUNTING, EXCLUSIVE, SHARED, Mode
from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from coordinator.statemachine.machine import Event
    from tests.simulation.node import Node
    from tests.simulation.world import World

_Key = tuple[int, int]
"""Session and acquisition."""


class _How(NamedTuple):
    mode: Mode
    limit: int
    reentrant: bool


class MutualExclusion(Checker):
    name = "mutual-exclusion"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._wanted: dict[_Key, _How] = {}
        self._holders: dict[str, dict[_Key, _How]] = {}

    def applied(
        self, node: Node, index: int, entry: bytes, result: Result, events: list[Event], is_first: bool
    ) -> None:
        if not is_first:
            return
        expected = self.world.watch.truth.expected
        if expected.is_new:
            self._told(expected.command.session, expected.command.op, result)
        granted = []
        for event in events:
            if isinstance(event, (SessionEnded, LockBroken)):
                self._ended(event)
        for event in events:
            if isinstance(event, GrantMade):
                self._holds(event.name, (event.session, event.acquisition))
                granted.append(event.name)
        if expected.is_new and isinstance(result, Granted):
            granted += _names(expected.command.op)
        for name in granted:
            self._compare(index, name)

    # --- what was told ----------------------------------------------------------------------------

    def _told(self, session: int, op: Any, result: Result) -> None:
        key = (getattr(op, "owner", 0) or session, getattr(op, "acquisition", 0))
        match op:
            case commands.AcquireLock() | lock_commands.Acquire():
                self._asked(key, op, result)
            case lock_commands.ChangeMode():
                self._changed(key, op, result)
            case lock_commands.HandOver() if isinstance(result, Done):
                self._holders.get(op.name, {}).pop(key, None)
            case commands.ReleaseLock() | lock_commands.Release() if isinstance(result, Done):
                for name in _names(op):
                    self._let_go(name, key)
            case commands.CancelAcquire() if isinstance(result, Done):
                for name in self._holders:
                    self._let_go(name, key)

    def _asked(self, key: _Key, op: commands.AcquireLock | lock_commands.Acquire, result: Result) -> None:
        how = _How(EXCLUSIVE, 1, False)
        if isinstance(op, lock_commands.Acquire):
            how = _How(op.mode, op.limit, op.reentrant)
        if isinstance(result, (Granted, Queued)):
            self._wanted.setdefault(key, how)
        if isinstance(result, Granted):
            for name in _names(op):
                self._holds(name, key)

    def _changed(self, key: _Key, op: lock_commands.ChangeMode, result: Result) -> None:
        if not isinstance(result, (Granted, Queued)):
            return
        how = _How(op.mode, 1, False)
        self._wanted[key] = how
        if isinstance(result, Granted):
            self._holders.setdefault(op.name, {})[key] = how

    def _holds(self, name: str, key: _Key) -> None:
        """An heir holds it exclusively, whatever it had waited for."""
        self._holders.setdefault(name, {})[key] = self._wanted.get(key, _How(EXCLUSIVE, 1, False))

    def _let_go(self, name: str, key: _Key) -> None:
        holders = self._holders.get(name, {})
        if key[1] == commands.ANY_ACQUISITION:
            key = next((held for held in holders if held[0] == key[0]), key)
        holders.pop(key, None)

    def _ended(self, event: SessionEnded | LockBroken) -> None:
        if isinstance(event, LockBroken):
            self._let_go(event.name, (event.session, event.acquisition))
            return
        for holders in self._holders.values():
            for key in [key for key in holders if key[0] == event.session]:
                del holders[key]

    # --- what must hold ---------------------------------------------------------------------------

    def _compare(self, index: int, name: str) -> None:
        holders = self._holders.get(name, {})
        self.checks += 1
        sessions = {session for session, _ in holders}
        modes = {how.mode for how in holders.values()}
        if len(holders) < 2 or modes == {SHARED}:
            return
        if modes == {COUNTING}:
            limit = min(how.limit for how in holders.values())
            if len(holders) > limit:
                self.violated(f"entry {index} lets {len(holders)} hold {name!r}, which is counted to {limit}")
        elif len(sessions) > 1 or not all(how.reentrant for how in [*holders.values()][1:]):
            told = ", ".join(f"{key} {how.mode}" for key, how in holders.items())
            self.violated(f"entry {index} lets {name!r} be held by {told}")


def _names(op: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(op, "names", None) or (op.name,)
    return names
