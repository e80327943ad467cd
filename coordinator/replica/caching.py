"""What clients keep of what they read, as the leader sees it: who keeps what, for how long, and which changes wait
until they serve it no more (Chubby, section 2.7). Pure; of one leadership, in memory alone.

A read whose answer the client may keep is noted here before it is answered. A command that may change it is held back:
whoever keeps it is told, and the command is proposed when all have said that they dropped it, or their lease has run
out. Until it is applied nobody may keep what it touches. A leader counts a lease from its answer, a client from the
sending of its question, less a margin for drift (`client/cache.py`).

All that a client keeps has one lease, and a number. As long as the number is the same, everything that was allowed
under it and not told to be dropped is noted here; a lease that ran out ends it, and the next one has another. So a copy
of an old message renews or drops nothing of a later one.

Who may keep anything is in the log (`files.BeginCaching`). A new leader does not know what the one before it allowed:
it holds back everything that changes a file, until all sessions that are so marked have said that they keep nothing of
before its term, or for the length of a lease. Where no session is marked nothing of this costs anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from coordinator import wire
from coordinator.replica.callers import Caller
from coordinator.replica.in_flight import InFlight, Marks
from coordinator.replica.proposals import Asked
from coordinator.replica.touched import Touched, touched_by
from coordinator.statemachine import commands
from coordinator.statemachine.lock_commands import EndLockDelays
from coordinator.statemachine.machine import Machine

LEASE_MS: Final = 2_000
"""How long a client that has died may hold up a change of what it keeps."""
TELL_AGAIN_US: Final = 100_000
PATHS_MAX: Final = 10_000
"""Of one client. What is read beyond that may not be kept."""
ALL_PATHS_MAX: Final = 200_000
"""Of all clients."""
TOLD_PATHS_MAX: Final = 64
"""Paths that an invalidation names; of more it says that everything is to be dropped."""
HELD_MAX: Final = 4_096
HELD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Commands that are held back; another one is refused, to be asked again."""
SWEEP_US: Final = 500_000
WANTED_US: Final = 500_000
"""A proposal of the leader's own that was held back comes again sooner than this."""

_Wait = tuple[int, int]
"""The number of a holder, and the ticket of what it was told."""


class Holder:
    """A client, and what it may keep."""

    __slots__ = ("caller", "count", "number", "paths", "session", "ticket", "told", "until_us")

    def __init__(self, session: int, caller: Caller, number: int) -> None:
        self.session = session
        self.caller = caller
        self.number = number
        self.until_us = 0
        self.count = 0
        self.ticket = 0
        """Of the last invalidation."""
        self.paths: dict[str, int] = {}
        """What it may keep: 0, or the ticket of the invalidation that it has yet to confirm."""
        self.told: dict[int, tuple[str, ...]] = {}
        """What it has yet to confirm, by ticket. Who lives and does not say so holds a change up no longer than who is
        dead: it is not renewed."""


class _Held(NamedTuple):
    asked: Asked
    entry: bytes
    touched: Touched
    waits: frozenset[_Wait]


class _Wanted(NamedTuple):
    """What the leader itself would change, and waits to propose."""

    touched: Touched
    until_us: int
    waits: frozenset[_Wait]


class Taken(NamedTuple):
    """Of what was asked and what was held: what is to be proposed now, and what is refused."""

    asked: list[Asked]
    entries: list[bytes]
    refused: list[Asked]


class Caching:
    def __init__(self, machine: Machine, now_us: int, last_index: int, lease_ms: int, first_number: int) -> None:
        """`last_index`: of the log, as this leadership has it. `first_number`: above all that its term has given."""
        self.lease_ms = lease_ms
        self._lease_us = lease_ms * 1_000
        self._machine = machine
        self._now_us = now_us
        self._is_on = False
        self._known_up_to = 0
        """Of what was proposed behind this index it is known what it touches."""
        self._unheard = {*machine.state.caching}
        self._quiet_until_us = now_us + self._lease_us if self._unheard else 0
        """Until then a leader of before may have allowed what this one does not know of."""
        self._first_number = first_number
        self.next_number = first_number
        self._holders: dict[int, Holder] = {}
        self._of_paths: dict[str, dict[int, None]] = {}
        """Path to the sessions of those that keep it."""
        self._owing: dict[int, Holder] = {}
        """Those that have yet to confirm something, by their number."""
        self._tell_us: dict[int, int] = {}
        """When each of them is to be told (again)."""
        self._next_tell_us = 0
        """The first of these, or earlier."""
        self._held: dict[tuple[str, int], _Held] = {}
        """Commands that are held back, by their caller's channel and request."""
        self._held_bytes = 0
        self._wanted: dict[int, _Wanted] = {}
        """By session that is to end, 0: lock-delays."""
        self._waiting = Marks()
        """Of all that is held back and wanted."""
        self._in_flight = InFlight()
        self._sweep_us = now_us
        self._count = 0
        self._applied = 0
        self.notice(last_index)

    # --- a turn -----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Nobody may keep anything, and nothing is held back."""
        return not (self._is_on or self._held or self._machine.state.caching)

    @property
    def held(self) -> int:
        """Commands that are held back."""
        return len(self._held)

    @property
    def paths(self) -> int:
        """What clients may keep, all in all."""
        return self._count

    def notice(self, last_index: int) -> None:
        """Before anything is proposed: is there anybody who caches? What was proposed up to `last_index` without a look
        at it must be applied before anything may be kept."""
        is_on = bool(self._machine.state.caching)
        if is_on and not self._is_on:
            self._known_up_to = last_index
        if self._is_on and not is_on:
            self._in_flight = InFlight()
        self._is_on = is_on

    def pass_time(self, now_us: int, last_index: int) -> None:
        """Once a turn, before anything is proposed."""
        self._now_us = now_us
        self.notice(last_index)
        if now_us >= self._sweep_us:
            self._sweep_us = now_us + SWEEP_US
            for holder in [*self._holders.values()]:
                self._is_over(holder)
            for key in [key for key, wanted in self._wanted.items() if wanted.until_us <= now_us]:
                self._wants_no_more(key)

    def take(self, asked: Iterable[Asked], entries: Iterable[bytes]) -> Taken:
        """Which of these commands, and of those held back, may be proposed now."""
        taken = Taken([], [], [])
        ready = [(held.asked, held.entry) for held in [*self._held.values()] if self._is_ready(held)]
        for one, _ in ready:
            self._holds_no_more((one.caller.channel, one.request_id))
        for one, entry in (*ready, *zip(asked, entries, strict=True)):
            touched = touched_by(one.op, one.session, self._machine.state, wide=self._is_wide)
            waits = self._tell(touched)
            if not waits and not (self._is_quiet and not touched.is_nothing):
                self._proposes(touched)
                taken.asked.append(one)
                taken.entries.append(entry)
            elif len(self._held) >= HELD_MAX or self._held_bytes + len(entry) > HELD_BYTES_MAX:
                taken.refused.append(one)
            else:
                self._hold(_Held(one, entry, touched, waits))
        return taken

    def _hold(self, held: _Held) -> None:
        key = (held.asked.caller.channel, held.asked.request_id)
        if key in self._held:  # Sent again meanwhile.
            self._holds_no_more(key)
        self._held[key] = held
        self._held_bytes += len(held.entry)
        self._waiting.add(held.touched)

    def _holds_no_more(self, key: tuple[str, int]) -> None:
        held = self._held.pop(key)
        self._held_bytes -= len(held.entry)
        self._waiting.remove(held.touched)

    def lets_end(self, sessions: Iterable[int]) -> list[int]:
        """Those of these sessions whose expiry the leader may propose now. It tries the others again, soon."""
        ended: list[int] = []
        for session in sessions:
            if self._still_waits(session):
                continue
            op = commands.ExpireSessions((session,))
            if self._lets(session, touched_by(op, 0, self._machine.state, wide=self._is_wide)):
                ended.append(session)
        return ended

    def lets_pass(self, op: EndLockDelays) -> bool:
        """May the leader propose that these lock-delays are over now? Else it tries again, soon."""
        return self._lets(0, touched_by(op, 0, self._machine.state, wide=self._is_wide))

    def _still_waits(self, key: int) -> bool:
        """Is it clear without another look that it may not be proposed yet? So many that wait cost little."""
        wanted = self._wanted.get(key)
        if wanted is None or not (self._is_quiet or any(map(self._is_open, wanted.waits))):
            return False
        self._wanted[key] = wanted._replace(until_us=self._now_us + WANTED_US)
        return True

    def _lets(self, key: int, touched: Touched) -> bool:
        self._wants_no_more(key)
        waits = self._tell(touched)
        if waits or (self._is_quiet and not touched.is_nothing):
            self._wanted[key] = _Wanted(touched, self._now_us + WANTED_US, waits)
            self._waiting.add(touched)
            return False
        self._proposes(touched)
        return True

    def _wants_no_more(self, key: int) -> None:
        wanted = self._wanted.pop(key, None)
        if wanted is not None:
            self._waiting.remove(wanted.touched)

    def _proposes(self, touched: Touched) -> None:
        if self._is_on and not touched.is_nothing:
            self._in_flight.add(touched)

    def proposed(self, last_index: int) -> None:
        """All that was let go in this turn lies up to this index, where the engine took it."""
        self._in_flight.proposed(last_index)

    def applied(self, index: int) -> None:
        self._applied = index
        self._in_flight.applied(index)

    def take_held(self) -> list[Asked]:
        """Everything that is held back: this leadership is over."""
        asked = [held.asked for held in self._held.values()]
        for key in [*self._held]:
            self._holds_no_more(key)
        return asked

    @property
    def _is_wide(self) -> bool:
        """May what is under way do more than it names? Of what was proposed unseen, nobody knows."""
        return self._in_flight.is_wide or self._applied < self._known_up_to

    @property
    def _is_quiet(self) -> bool:
        return bool(self._unheard) and self._now_us < self._quiet_until_us

    def _is_ready(self, held: _Held) -> bool:
        return not self._is_quiet and not any(self._is_open(wait) for wait in held.waits)

    def _is_open(self, wait: _Wait) -> bool:
        number, ticket = wait
        holder = self._owing.get(number)
        return holder is not None and ticket in holder.told and not self._is_over(holder)

    def due_us(self) -> int | None:
        """When there is something to do if nothing comes; None where there is nothing."""
        quiet_us = self._quiet_until_us if self._held and self._is_quiet else None
        if not self._owing:
            return quiet_us
        return self._next_tell_us if quiet_us is None else min(quiet_us, self._next_tell_us)

    # --- who is told ------------------------------------------------------------------------------

    def _tell(self, touched: Touched) -> frozenset[_Wait]:
        """Tell all that keep something of it; what is to be waited for."""
        waits: set[_Wait] = set()
        if touched.everything:
            for holder in [*self._holders.values()]:
                if not self._is_over(holder):
                    waits |= self._tell_all(holder)
            return frozenset(waits)
        for session, paths in self._keeping(touched).items():
            holder = self._holders[session]
            if not self._is_over(holder):
                waits |= self._tell_holder(holder, paths)
        return frozenset(waits)

    def _tell_all(self, holder: Holder) -> set[_Wait]:
        """Of everything that it keeps. Where it was told all of it already, nothing of it is looked at again."""
        told = sum(map(len, holder.told.values()))
        waits = {(holder.number, ticket) for ticket in holder.told}
        return waits if told == len(holder.paths) else waits | self._tell_holder(holder, [*holder.paths])

    def _keeping(self, touched: Touched) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for session in touched.ended:
            if session in self._holders:
                found[session] = [*self._holders[session].paths]
        paths: list[str] = [path for path in touched.paths if path in self._of_paths]
        if touched.prefixes:
            paths += [path for path in self._of_paths if path.startswith(touched.prefixes)]
        for path in sorted(paths):
            for session in self._of_paths[path]:
                found.setdefault(session, []).append(path)
        return found

    def _tell_holder(self, holder: Holder, paths: list[str]) -> set[_Wait]:
        waits = {(holder.number, holder.paths[path]) for path in paths if holder.paths[path]}
        news = tuple(dict.fromkeys(path for path in paths if not holder.paths[path]))
        if news:
            holder.ticket += 1
            for path in news:
                holder.paths[path] = holder.ticket
            holder.told[holder.ticket] = news
            self._owing[holder.number] = holder
            self._tell_us[holder.number] = self._next_tell_us = self._now_us
            waits.add((holder.number, holder.ticket))
        return waits

    def take_words(self, cluster: int, term: int) -> list[tuple[Caller, wire.Invalidation]]:
        """What is to be told now, and what is to be told again."""
        words: list[tuple[Caller, wire.Invalidation]] = []
        if not self._owing or self._now_us < self._next_tell_us:
            return words
        for holder in [*self._owing.values()]:
            if self._is_over(holder) or self._now_us < self._tell_us[holder.number]:
                continue
            self._tell_us[holder.number] = min(self._now_us + TELL_AGAIN_US, holder.until_us)
            for ticket, paths in holder.told.items():
                everything = len(paths) > TOLD_PATHS_MAX
                named = () if everything else paths
                word = wire.Invalidation(cluster, holder.session, term, holder.number, ticket, named, everything)
                words.append((holder.caller, word))
        self._next_tell_us = min(self._tell_us.values(), default=0)
        return words

    def dropped(self, session: int, caller: Caller, number: int, ticket: int) -> None:
        """The client serves no more what it was told of."""
        holder = self._holders.get(session)
        if holder is None or holder.number != number or holder.caller != caller:
            return
        for path in holder.told.pop(ticket, ()):
            if holder.paths.get(path) == ticket:
                self._keeps_no_more(holder, path)
        if not holder.told:
            self._owes_nothing(holder)

    def hear(self, session: int, number: int) -> None:
        """The client of a session names a lease of this term: it keeps nothing by an earlier one."""
        if number >= self._first_number:
            self._unheard.discard(session)
        holder = self._holders.get(session)
        if holder is not None and number > holder.number:
            self._forget(holder)

    def ended(self, session: int) -> None:
        """The session has ended, after all that its client kept was dropped."""
        self._unheard.discard(session)
        holder = self._holders.get(session)
        if holder is not None:
            self._forget(holder)

    # --- who keeps what ---------------------------------------------------------------------------

    def allow(self, session: int, caller: Caller, path: str) -> tuple[int, int] | None:
        """May the client keep what is answered to it of `path` now? The number and the ticket by which it may; None: it
        may not."""
        if not self._is_on or session not in self._machine.state.caching:
            return None
        if self._applied < self._known_up_to:
            return None
        if self._in_flight.hold(session, path) or self._waiting.hold(session, path):
            return None
        holder = self._holders.get(session)
        if holder is None or self._is_over(holder):
            holder = self._holders[session] = Holder(session, caller, self.take_number())
        if holder.caller != caller or holder.told:
            return None
        if path not in holder.paths:
            if len(holder.paths) >= PATHS_MAX or self._count >= ALL_PATHS_MAX:
                return None
            holder.paths[path] = 0
            self._of_paths.setdefault(path, {})[session] = None
            self._count += 1
        holder.until_us = self._now_us + self._lease_us
        return holder.number, holder.ticket

    def take_number(self) -> int:
        """Greater than all before."""
        self.next_number += 1
        return self.next_number - 1

    def renew(self, session: int, caller: Caller, number: int, count: int) -> int | None:
        """The number under which the client may go on: another one, where it is to begin anew. None: nothing is to be
        answered."""
        holder = self._holders.get(session)
        if holder is None or self._is_over(holder):
            return self.take_number()
        if holder.number != number or holder.caller != caller or count <= holder.count or holder.told:
            return None
        holder.count = count
        holder.until_us = self._now_us + self._lease_us
        return number

    def _is_over(self, holder: Holder) -> bool:
        """Has its lease run out? Then it is forgotten."""
        if self._now_us < holder.until_us:
            return False
        self._forget(holder)
        return True

    def _forget(self, holder: Holder) -> None:
        if self._holders.get(holder.session) is holder:
            del self._holders[holder.session]
            for path in [*holder.paths]:
                self._keeps_no_more(holder, path)
            self._owes_nothing(holder)

    def _owes_nothing(self, holder: Holder) -> None:
        self._owing.pop(holder.number, None)
        self._tell_us.pop(holder.number, None)

    def _keeps_no_more(self, holder: Holder, path: str) -> None:
        del holder.paths[path]
        keeping = self._of_paths[path]
        del keeping[holder.session]
        if not keeping:
            del self._of_paths[path]
        self._count -= 1
