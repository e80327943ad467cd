"""Who holds what, and who is next: one list of all waiters in order of arrival, gone over until nobody moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import ANY_ACQUISITION, Done, Failure, Granted, Held, Holder, NotHeld, Queued
from coordinator.statemachine.commands import Result as AnyResult
from coordinator.statemachine.lock_commands import COUNTING, EXCLUSIVE, SHARED, Break, Broken, Deadlock, Mode

INDEX_BITS: Final = 40
Key = tuple[int, int]
"""Session and acquisition."""
PLACES_OF_SESSION_MAX: Final = 10_000
"""What a session holds and waits for, name by name."""
NOBODY: Final = Holder(0, 0, "")
"""Where a refusal names somebody: who, is not said here."""


class Wish(NamedTuple):
    """What an acquisition wants."""

    key: Key
    names: tuple[str, ...]
    mode: Mode
    limit: int
    reentrant: bool
    delay_ms: int

    @property
    def session(self) -> int:
        return self.key[0]


class Hold(NamedTuple):
    token: int
    names: tuple[str, ...]
    delay_ms: int


class Grant(NamedTuple):
    """A name went to somebody who had waited for it, or had to hold it otherwise."""

    session: int
    name: str
    acquisition: int
    token: int


ENDS: Final = ("released", "handed-over", "expired", "forced")


class Event(NamedTuple):
    """Somebody came to hold a name ("acquired", by the token), asks for what others hold ("conflict", by the token),
    or holds it no more (`ENDS`)."""

    revision: int
    name: str
    kind: str
    session: int
    acquisition: int
    mode: Mode
    token: int
    waits: bool


class Name:
    """How a name is held."""

    def __init__(self) -> None:
        self.mode: Mode = EXCLUSIVE
        self.limit = 1
        self.holds: dict[Key, Hold] = {}
        self.token = 0
        """Of whoever came to hold it last."""
        self.upgrading: Key | None = None
        self.delay: tuple[int, int, int] | None = None
        """Since which index it is unavailable, for how many milliseconds, and whose session died last."""

    def is_of(self, session: int) -> bool:
        return self.mode != COUNTING and any(key[0] == session for key in self.holds)

    def admits(self, wish: Wish) -> bool:
        """Could it be held so, too?"""
        if wish.reentrant and self.is_of(wish.session):
            return self.mode in (EXCLUSIVE, wish.mode)
        if self.delay is not None or self.upgrading is not None:
            return False
        if not self.holds:
            return True
        if wish.mode == SHARED:
            return self.mode == SHARED
        return wish.mode == self.mode == COUNTING and wish.limit == self.limit and len(self.holds) < self.limit

    def is_joined_by(self, wish: Wish) -> bool:
        """May it come in past the line, since its session holds it?"""
        return wish.reentrant and self.is_of(wish.session) and self.admits(wish)

    def conflicts(self, wish: Wish) -> bool:
        """Must one that holds it let go before it could be held so, too?"""
        if not self.holds or (wish.reentrant and self.is_of(wish.session)):
            return False
        if wish.mode == self.mode == COUNTING and wish.limit == self.limit:
            return len(self.holds) == self.limit
        return (wish.mode, self.mode) != (SHARED, SHARED)


def excludes(one: Mode, other: Mode) -> bool:
    """Can the two not hold a name together? (Counting locks have no part in deadlocks.)"""
    return COUNTING not in (one, other) and EXCLUSIVE in (one, other)


class Locks:
    def __init__(self) -> None:
        self.epoch = 0
        self.names: dict[str, Name] = {}
        self.line: list[Wish] = []
        """All that wait, in order of arrival."""
        self.grants: list[Grant] = []
        """What the entry gave to others than who asked."""
        self.events: list[Event] = []
        """All there ever were."""
        self.broken: set[tuple[str, Key]] = set()
        self._index = 0

    @property
    def token(self) -> int:
        """Of what this entry grants."""
        return self.epoch << INDEX_BITS | self._index

    def tokens(self, name: str) -> list[int]:
        return [hold.token for hold in self.names[name].holds.values()] if name in self.names else []

    def holders(self, name: str) -> list[int]:
        return [session for session, _ in self.names[name].holds] if name in self.names else []

    def begin(self, index: int) -> None:
        self._index = index
        self.grants = []

    # --- taking -----------------------------------------------------------------------------------

    def acquire(self, wish: Wish, *, wait: bool, refuse_deadlocks: bool) -> AnyResult:
        """The position in a line is not said here."""
        known = self._known(wish, wait=wait)
        if known is not None:
            return known
        blocked = [name for name in wish.names if not self._is_free(name, wish)]
        is_full = self._places(wish.session) + len(wish.names) > PLACES_OF_SESSION_MAX
        if not blocked and is_full:
            return Failure(commands.FULL, "")
        if not blocked:
            return Granted(max([self._take(name, wish) for name in wish.names]))
        if wait and refuse_deadlocks and self._would_lock(wish, blocked):
            return Deadlock(())
        if wait and is_full:
            return Failure(commands.FULL, "")
        for name in wish.names:
            self._tell_conflict(name, wish, waits=wait)
        if not wait:
            return Held(NOBODY, 0)
        self.line.append(wish)
        return Queued(0)

    def _places(self, session: int) -> int:
        """What it holds and waits for."""
        holds = sum(key[0] == session for held in self.names.values() for key in held.holds)
        return holds + sum(len(wish.names) for wish in self.line if wish.session == session)

    def _tell_conflict(self, name: str, wish: Wish, *, waits: bool) -> None:
        held = self._name(name)
        if held.conflicts(wish):
            self.events.append(Event(self._index, name, "conflict", *wish.key, wish.mode, held.token, waits))

    def _tell_first_in_line(self, name: str) -> None:
        first = next((wish for wish in self.line if name in wish.names), None)
        if first is not None:
            self._tell_conflict(name, first, waits=True)

    def _tell_grant(self, name: str, key: Key, token: int) -> None:
        held = self.names[name]
        held.token = token
        self.events.append(Event(self._index, name, "acquired", *key, held.mode, token, False))

    def _known(self, wish: Wish, *, wait: bool) -> AnyResult | None:
        """What comes of it apart from the question whether it is free."""
        waits = next((other for other in self.line if other.key == wish.key), None)
        for name in wish.names:
            held = self.names.get(name)
            if held is None or not held.holds or (waits is not None and name in waits.names):
                continue
            if held.mode == COUNTING == wish.mode and held.limit != wish.limit:
                return Failure(commands.INVALID, "")
            if wish.reentrant and wish.mode == EXCLUSIVE and held.mode == SHARED and held.is_of(wish.session):
                return Failure(commands.INVALID, "")
        holds = [self.names[name] for name in wish.names if wish.key in self._name(name).holds]
        if not holds and waits is None:
            return None
        if any(held.mode not in (EXCLUSIVE, wish.mode) for held in holds) or (waits and waits.mode != wish.mode):
            return Failure(commands.INVALID, "")
        if len(holds) == len(wish.names):
            return Granted(max(held.holds[wish.key].token for held in holds))
        stood = () if waits is None else waits.names
        lacks = [name for name in wish.names if name not in stood and wish.key not in self._name(name).holds]
        if not lacks:
            return Queued(0) if wait else Held(NOBODY, 0)
        if any((name, wish.key) in self.broken for name in lacks):
            return Broken(Break(0, 0, "", NOBODY, 0, "", ""))
        return Failure(commands.INVALID, "")

    def _name(self, name: str) -> Name:
        return self.names.get(name) or Name()

    def _is_free(self, name: str, wish: Wish) -> bool:
        held = self._name(name)
        joins = wish.reentrant and held.is_of(wish.session)
        return held.admits(wish) and (joins or not any(name in other.names for other in self.line))

    def _take(self, name: str, wish: Wish) -> int:
        held = self.names.setdefault(name, Name())
        token = self.token
        if not held.holds:
            held.mode, held.limit = wish.mode, wish.limit
        elif held.mode == EXCLUSIVE:
            token = next(iter(held.holds.values())).token
        held.holds[wish.key] = Hold(token, wish.names, wish.delay_ms)
        self._tell_grant(name, wish.key, token)
        return token

    def _settle(self, *passed: str) -> None:
        """Let in whoever can be, the first first, until nobody moves. `passed`: names that went to somebody before."""
        before = len(self.grants)
        while self._finish_upgrades() or self._let_in_the_first():
            pass
        for name in {**dict.fromkeys(passed), **{grant.name: None for grant in self.grants[before:]}}:
            self._tell_first_in_line(name)

    def _finish_upgrades(self) -> bool:
        for name, held in sorted(self.names.items()):
            key = held.upgrading
            if key is not None and len(held.holds) == 1 and held.delay is None:
                self._make_exclusive(name, held, key)
                self.grants.append(Grant(key[0], name, key[1], self.token))
                return True
        return False

    def _make_exclusive(self, name: str, held: Name, key: Key) -> None:
        held.mode, held.upgrading = EXCLUSIVE, None
        held.holds[key] = held.holds[key]._replace(token=self.token)
        self._tell_grant(name, key, self.token)

    def _let_in_the_first(self) -> bool:
        spoken_for: set[str] = set()
        for place, wish in enumerate(self.line):
            if all(
                self._name(name).is_joined_by(wish) or (name not in spoken_for and self._name(name).admits(wish))
                for name in wish.names
            ):
                del self.line[place]
                token = max([self._take(name, wish) for name in wish.names])
                self.grants += [Grant(wish.session, name, wish.key[1], token) for name in wish.names]
                return True
            spoken_for.update(wish.names)
        return False

    # --- letting go -------------------------------------------------------------------------------

    def release(self, key: Key, names: Iterable[str]) -> AnyResult:
        names = sorted({*names})
        had = False
        for name in names:
            if key in self._name(name).holds:
                self._let_go(name, key, "released")
                had = True
            elif any(wish.key == key and name in wish.names for wish in self.line):
                self.line = [wish for wish in self.line if wish.key != key]
                had = True
        if not had:
            broken = any((name, key) in self.broken for name in names)
            return Broken(Break(0, 0, "", NOBODY, 0, "", "")) if broken else NotHeld()
        self._settle()
        return Done(self._index, existed=True)

    def release_any(self, session: int, name: str, acquisition: int) -> AnyResult:
        if acquisition == ANY_ACQUISITION:
            has = [key[1] for key in self._name(name).holds if key[0] == session]
            has += [wish.key[1] for wish in self.line if wish.session == session and name in wish.names]
            acquisition = has[0] if has else 0
        return self.release((session, acquisition), (name,))

    def cancel(self, key: Key, name: str) -> AnyResult:
        """All that the acquisition has, whatever it was for."""
        names: tuple[str, ...] = (name,)
        if key in self._name(name).holds:
            names = self.names[name].holds[key].names
        else:
            names += tuple(n for n, held in self.names.items() if key in held.holds and name in held.holds[key].names)
        for wish in self.line:
            if wish.key == key and name in wish.names:
                names = wish.names
        return self.release(key, names)

    def _let_go(self, name: str, key: Key, how: str) -> Hold:
        held = self.names[name]
        self.events.append(Event(self._index, name, how, *key, held.mode, held.holds[key].token, False))
        if held.upgrading == key:
            held.upgrading = None
        return held.holds.pop(key)

    def end(self, sessions: Iterable[int], *, died: bool) -> None:
        """All of them have ended before anything is given to anybody."""
        ended = [*sessions]
        self.line = [wish for wish in self.line if wish.session not in ended]
        for session in ended:
            for name, held in sorted(self.names.items()):
                for key in [key for key in held.holds if key[0] == session]:
                    delay_ms = self._let_go(name, key, "expired" if died else "released").delay_ms
                    if died and delay_ms:
                        longest_ms = max(delay_ms, held.delay[1] if held.delay is not None else 0)
                        held.delay = (self._index, longest_ms, session)
        self._settle()

    def end_delays(self, delays: Iterable[tuple[str, int]]) -> AnyResult:
        ended = False
        for name, since in delays:
            held = self._name(name)
            if held.delay is not None and held.delay[0] == since:
                held.delay = None
                ended = True
        self._settle()
        return Done(self._index, existed=ended)

    # --- changing ---------------------------------------------------------------------------------

    def change_mode(self, key: Key, op: lock_commands.ChangeMode) -> AnyResult:
        held = self._name(op.name)
        hold = held.holds.get(key)
        if hold is None:
            return NotHeld()
        if len(hold.names) > 1 or COUNTING in (op.mode, held.mode):
            return Failure(commands.INVALID, "")
        if op.mode == SHARED:
            return self._downgrade(held, key, hold)
        return self._upgrade(held, key, hold, op)

    def _downgrade(self, held: Name, key: Key, hold: Hold) -> AnyResult:
        if held.mode == SHARED and held.upgrading != key:
            return Granted(hold.token)
        if held.mode == EXCLUSIVE and len(held.holds) > 1:
            return Failure(commands.INVALID, "")
        held.mode, held.upgrading = SHARED, None
        self._settle()
        return Granted(hold.token)

    def _upgrade(self, held: Name, key: Key, hold: Hold, op: lock_commands.ChangeMode) -> AnyResult:
        if held.mode == EXCLUSIVE:
            return Granted(hold.token)
        if held.upgrading == key:
            return Queued(0)
        if sum(other[0] == key[0] for other in held.holds) > 1:
            return Failure(commands.INVALID, "")
        if len(held.holds) == 1 and held.delay is None:
            self._make_exclusive(op.name, held, key)
            self._settle(op.name)
            return Granted(self.token)
        if held.upgrading is not None:
            return Deadlock(())
        if op.wait and self._leads_back([other for other, _ in held.holds if other != key[0]], key[0]):
            return Deadlock(())
        if len(held.holds) > 1:
            self.events.append(Event(self._index, op.name, "conflict", *key, EXCLUSIVE, held.token, op.wait))
        if not op.wait:
            return Held(NOBODY, 0)
        held.upgrading = key
        return Queued(0)

    def hand_over(self, key: Key, op: lock_commands.HandOver, alive: Iterable[int]) -> AnyResult:
        held = self._name(op.name)
        if key not in held.holds:
            return NotHeld()
        if len(held.holds[key].names) > 1 or (held.mode == EXCLUSIVE and len(held.holds) > 1):
            return Failure(commands.INVALID, "")
        heir = (op.to_session, op.to_acquisition)
        if op.to_session not in alive:
            return Failure(commands.NOT_FOUND, "")
        waits = next((wish for wish in self.line if wish.key == heir and op.name in wish.names), None)
        if heir == key or (waits is not None and len(waits.names) > 1):
            return Failure(commands.INVALID, "")
        if held.mode != EXCLUSIVE:
            if waits is None or waits.mode != held.mode or (held.mode == COUNTING and waits.limit != held.limit):
                return Failure(commands.INVALID, "")
            if held.upgrading is not None or held.delay is not None:
                return Failure(commands.REFUSED, "")
        if waits is None and heir[0] != key[0] and self._places(heir[0]) >= PLACES_OF_SESSION_MAX:
            return Failure(commands.FULL, "")
        line, holds = self.line, dict(held.holds)
        hold = held.holds.pop(key)
        self.line = [wish for wish in line if wish is not waits]
        held.holds[heir] = hold._replace(token=self.token, names=(op.name,))
        if heir[0] != key[0] and any(
            self._leads_back(self._waited_for(heir[0]), one) for one in self._kept_out(op.name, heir[0])
        ):
            self.line, held.holds = line, holds
            return Deadlock(())
        self.events.append(Event(self._index, op.name, "handed-over", *key, held.mode, hold.token, False))
        self.grants.append(Grant(heir[0], op.name, heir[1], self.token))
        self._tell_grant(op.name, heir, self.token)
        self._settle(op.name)
        return Done(self._index, existed=True)

    def force_release(self, op: lock_commands.ForceRelease) -> AnyResult:
        held = self._name(op.name)
        broken = [key for key in held.holds if op.session in (0, key[0])]
        ends_delay = held.delay is not None and op.session in (0, held.delay[2])
        if not broken and not ends_delay:
            return NotHeld()
        if ends_delay:
            held.delay = None
        for key in broken:
            self._let_go(op.name, key, "forced")
            self.broken.add((op.name, key))
        self._settle()
        return Done(self._index, existed=True)

    # --- deadlocks --------------------------------------------------------------------------------

    def _would_lock(self, wish: Wish, blocked: list[str]) -> bool:
        """Would waiting close a cycle?"""
        if wish.mode == COUNTING:
            return False
        first = [
            *(session for name in blocked for session in self._in_the_way(name, wish)),
            *(session for name in blocked for session in self._before(name, wish, self.line)),
        ]
        return self._leads_back(first, wish.session)

    def _leads_back(self, first: Iterable[int], session: int) -> bool:
        """Does one of `first`, or whoever it waits for, wait for `session`?"""
        pending = [*first]
        found: set[int] = set()
        while pending:
            one = pending.pop()
            if one == session:
                return True
            if one not in found:
                found.add(one)
                pending += self._waited_for(one)
        return False

    def _waited_for(self, session: int) -> Iterator[int]:
        """Sessions that must let go of something, or be let in, before this one is."""
        for place, wish in enumerate(self.line):
            if wish.session == session:
                for name in wish.names:
                    if self._name(name).is_joined_by(wish):
                        continue
                    yield from self._in_the_way(name, wish)
                    yield from self._before(name, wish, self.line[:place])
        for held in self.names.values():
            if held.upgrading is not None and held.upgrading[0] == session:
                yield from (other for other, _ in held.holds if other != session)

    def _kept_out(self, name: str, heir: int) -> list[int]:
        """Those in line for it that wait for the heir, which holds it now."""
        mode = self._name(name).mode
        return [
            wish.session
            for wish in self.line
            if name in wish.names and wish.session != heir and excludes(mode, wish.mode)
        ]

    def _in_the_way(self, name: str, wish: Wish) -> Iterator[int]:
        """Those that hold it, and another way than the two could together."""
        held = self._name(name)
        for key in held.holds:
            mode = EXCLUSIVE if held.upgrading == key else held.mode
            if key[0] != wish.session and excludes(mode, wish.mode):
                yield key[0]

    @staticmethod
    def _before(name: str, wish: Wish, line: list[Wish]) -> Iterator[int]:
        for other in line:
            if name in other.names and other.session != wish.session and excludes(other.mode, wish.mode):
                yield other.session
