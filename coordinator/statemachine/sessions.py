"""Sessions as the log sees them, and the results that make a retry harmless (exactly once).

A session is named by the restore epoch and the index of the entry that opened it, as a fencing token is, so that a name
is never used again, not even by a cluster that was restored, or made again under the same name: a copy of old traffic
speaks to sessions that are gone. Time is not here: whose lease ran out is the leader's to count
(`coordinator/replica/leases.py`) and comes back as an entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from coordinator.statemachine import commands, files, handing, lock_commands, locking, namespace, quotas
from coordinator.statemachine.commands import Done, Failure, Result, SessionOpened
from coordinator.statemachine.events import CheckpointReset, SessionBegan, SessionEnded
from coordinator.statemachine.locks import fencing_token
from coordinator.statemachine.results import (
    ALL_RESULT_BYTES_END,
    ALL_RESULT_BYTES_MAX,
    RESULT_BYTES_MAX,
    RESULT_COST,
    SMALL,
    Kept,
    Share,
    kept,
    size_of,
)

if TYPE_CHECKING:
    from coordinator.statemachine.principals import Access
    from coordinator.statemachine.state import State

SESSIONS_MAX: Final = 200_000
NONCE_BYTES_MAX: Final = 32
RESULTS_MAX: Final = 4_096
"""Unacknowledged results that one session may have; at the bound new requests are refused, results never dropped."""
_LETS_GO: Final = (
    commands.CloseSession,
    commands.ReleaseLock,
    commands.CancelAcquire,
    lock_commands.Release,
    files.DetachFile,
)
"""Never refused for the bytes of results: nobody is kept waiting for a client that is slow to acknowledge."""


class Session:
    __slots__ = (
        "acked",
        "caches",
        "files",
        "locks",
        "nonce",
        "places",
        "principal",
        "reentrant",
        "remaining_ms",
        "result_bytes",
        "results",
        "session",
        "share",
        "sizes",
        "ttl_ms",
        "waiting",
    )

    def __init__(self, session: int, principal: str, ttl_ms: int, nonce: bytes, share: Share) -> None:
        self.session = session
        self.principal = principal
        self.ttl_ms = ttl_ms
        self.nonce = nonce
        self.remaining_ms: int | None = None
        """What was left of its lease at its last checkpoint; None: it was kept alive since, or there was none."""
        self.caches = False
        """May its client keep what it reads?"""
        self.acked = 1
        """Every number below is answered as far as the client is concerned."""
        self.results: dict[int, Result] = {}
        """Results by request number, from `acked` on; numbers come out of order and with gaps (history 12)."""
        self.sizes: dict[int, int] = {}
        """Bytes of those results that are not `results.SMALL`, by request number."""
        self.result_bytes = 0
        """Of all of these."""
        self.share = share
        """Of its principal, in what all results take."""
        self.locks: dict[str, dict[int, None]] = {}
        """Names that this session holds, and for each the acquisitions in the order of their grants. Whoever goes over
        the names sorts them: a replica that began with a snapshot came by them in another order."""
        self.waiting: dict[str, dict[int, None]] = {}
        """Names that it waits for, and for each the acquisitions in their order in line. Sorted, too."""
        self.reentrant: dict[str, dict[int, None]] = {}
        """Those of `waiting` that are re-entrant: they may be let in when the session comes to hold the name."""
        self.places = 0
        """How many these are: acquisitions that hold or wait, one for each of their names."""
        self.files: set[str] = set()
        """Ephemeral files that live with it. Sorted, too."""

    @property
    def lease_ms(self) -> int:
        """What a new leader gives it."""
        return self.ttl_ms if self.remaining_ms is None else self.remaining_ms

    def holds(self, name: str, acquisition: int) -> None:
        self.places += 1
        held = self.locks.get(name)
        if held is None:
            self.locks[name] = {acquisition: None}
        else:
            held[acquisition] = None

    def holds_no_more(self, name: str, acquisition: int) -> None:
        self.places -= 1
        held = self.locks[name]
        del held[acquisition]
        if not held:
            del self.locks[name]

    def holding(self, name: str) -> int | None:
        """The first acquisition of this session that holds `name`."""
        return next(iter(self.locks.get(name, ())), None)

    def waits(self, name: str, acquisition: int, *, reentrant: bool) -> None:
        self.places += 1
        self.waiting.setdefault(name, {})[acquisition] = None
        if reentrant:
            self.reentrant.setdefault(name, {})[acquisition] = None

    def waits_no_more(self, name: str, acquisition: int) -> None:
        self.places -= 1
        for names in (self.waiting, self.reentrant):
            waiting = names.get(name)
            if waiting is not None and acquisition in waiting:
                del waiting[acquisition]
                if not waiting:
                    del names[name]

    @staticmethod
    def renumber(names: dict[str, dict[int, None]], name: str, before: int, after: int) -> None:
        """In `locks`, `waiting` or `reentrant`: what was acquisition `before` is `after`, in the same place."""
        if before in names.get(name, ()):
            names[name] = {after if number == before else number: None for number in names[name]}

    def waiting_for(self, name: str) -> int | None:
        """The first acquisition of this session that waits for `name`."""
        return next(iter(self.waiting.get(name, ())), None)

    def keep(self, number: int, result: Result) -> Result:
        """Keep the result of `number`, which has none yet, and give back what is kept of it."""
        cost = RESULT_COST
        if type(result) not in SMALL:
            result = kept(result)
            size = self.sizes[number] = size_of(result)
            self.result_bytes += size
            cost += size
        self.results[number] = result
        self.share.add(cost)
        return result

    @property
    def kept_bytes(self) -> int:
        """What its results count for in `share`."""
        return len(self.results) * RESULT_COST + self.result_bytes

    def refuse(self, number: int, op: commands.Op, level: int) -> Failure | None:
        """Why this new request is not taken: there are too many results that are not acknowledged, or too many bytes
        of them. The lowest number, whose answer lets the client acknowledge those above it, is always taken as far as
        this session is concerned."""
        if number >= self.acked + RESULTS_MAX:  # A window, not a count.
            return Failure(commands.BUSY, f"session {self.session} has not acknowledged from {self.acked} on")
        if self.result_bytes < RESULT_BYTES_MAX or number == self.acked or isinstance(op, _LETS_GO):
            return self._refuse_for_all(number, op) if level >= commands.LEVEL_OF_ALL_RESULTS else None
        there = f"{self.result_bytes} bytes of results, at most {RESULT_BYTES_MAX}"
        return Failure(commands.BUSY, f"session {self.session} has not acknowledged from {self.acked} on: {there}")

    def _refuse_for_all(self, number: int, op: commands.Op) -> Failure | None:
        """Why this new request is not taken, where the results of all sessions are too many: those of one principal,
        in however many sessions, neither fill every replica's memory nor keep others from asking."""
        share = self.share
        if share.has_its_part_of(ALL_RESULT_BYTES_END):
            if isinstance(op, commands.CloseSession):
                return None
            most = ALL_RESULT_BYTES_END
        elif share.has_its_part_of(ALL_RESULT_BYTES_MAX):
            if number == self.acked or isinstance(op, _LETS_GO):
                return None
            most = ALL_RESULT_BYTES_MAX
        else:
            return None
        has = f"principal {self.principal!r} has not acknowledged {share.bytes} bytes of results"
        whole = f"of all {len(share.kept.shares)} principals with sessions there are {share.kept.bytes}"
        return Failure(commands.BUSY, f"{has}: {whole}, at most {most}, in equal parts")

    def acknowledge(self, acked: int) -> None:
        """Forget the results below `acked`."""
        passed = acked - self.acked
        if passed <= 0:
            return
        done: Iterable[int]
        if passed == 1:  # As a client does that has one request in flight.
            done = (self.acked,)
        elif passed <= len(self.results):
            done = range(self.acked, acked)
        else:  # A client may leap: never count over more numbers than there are results.
            done = [number for number in self.results if number < acked]
        self.acked = acked
        freed = 0
        for number in done:
            if self.results.pop(number, None) is not None:
                freed += RESULT_COST
        if self.sizes:
            for number in done:
                size = self.sizes.pop(number, 0)
                self.result_bytes -= size
                freed += size
        self.share.add(-freed)


def own(state: State, asker: Access, owner: int) -> Session | None:
    """The session `owner`, where it is this principal's."""
    session = state.sessions.rows.get(owner)
    return session if session is not None and session.principal == asker.name else None


def session_gone(session: int) -> Failure:
    return Failure(commands.SESSION_GONE, f"session {session} is gone, or another's")


def open_session(state: State, index: int, asker: Access, op: commands.OpenSession) -> Result:
    if not commands.TTL_MS_MIN <= op.ttl_ms <= commands.TTL_MS_MAX:
        return Failure(commands.INVALID, f"ttl_ms is {commands.TTL_MS_MIN} to {commands.TTL_MS_MAX}, got {op.ttl_ms}")
    if len(op.nonce) > NONCE_BYTES_MAX:
        return Failure(commands.INVALID, f"a nonce has at most {NONCE_BYTES_MAX} bytes, got {len(op.nonce)}")
    known = state.sessions.rows.get(state.nonces.get((asker.name, op.nonce), 0))
    if known is not None:
        return SessionOpened(known.session, known.ttl_ms)
    if len(state.sessions.rows) >= SESSIONS_MAX:
        return Failure(commands.FULL, f"the cluster has its {SESSIONS_MAX} sessions")
    refused = quotas.refuse_session(state, asker.name)
    if refused is not None:
        return refused
    number = fencing_token(state.epoch, index) if state.level >= commands.LEVEL_OF_SESSION_EPOCHS else index
    state.sessions.add(number, Session(number, asker.name, op.ttl_ms, op.nonce, state.kept.begin(asker.name)))
    quotas.count_session(state.uses, asker.name, 1)
    if op.nonce:
        state.nonces[asker.name, op.nonce] = number
    state.events.append(SessionBegan(number, op.ttl_ms))
    return SessionOpened(number, op.ttl_ms)


def begin_caching(state: State, index: int, session: Session) -> Result:
    existed, session.caches = session.caches, True
    state.caching.add(session.session)
    return Done(index, existed)


def close_session(state: State, index: int, owner: Session, op: commands.CloseSession) -> Result:
    end_sessions(state, index, (owner.session,), died=False)
    return Done(index, existed=True)


def end_sessions(state: State, index: int, ended: Iterable[int], *, died: bool) -> None:
    """End sessions, all of them before anything is granted: what one frees must not go to another that ends too.
    `died`: they ran out; one that is closed lets go."""
    freed: list[str] = []
    for number in ended:
        if number not in state.sessions.rows:
            continue
        session = state.sessions.remove(number)
        state.kept.end(session.principal, session.kept_bytes)
        session.share = Share(Kept())  # What closes a session has a result, too: it counts for nobody.
        state.nonces.pop((session.principal, session.nonce), None)
        state.caching.discard(number)
        state.events.append(SessionEnded(number))
        state.work.ends(1 + session.places + len(session.files))
        freed += locking.leave_lines(state, session)
        freed += locking.let_go_of_all(state, index, session, died=died)
        for path in sorted(session.files):
            namespace.detach(state, index, number, path)
        quotas.count_session(state.uses, session.principal, -1)
    handing.hand_on(state, index, freed)


def checkpoint(state: State, index: int, op: commands.CheckpointSessions) -> Result:
    """Sessions that are gone are passed over. One that has a checkpoint is never given more by another."""
    for number, remaining_ms in op.remaining:
        session = state.sessions.rows.get(number)
        if session is not None:
            state.sessions.touch(number)
            session.remaining_ms = max(0, min(remaining_ms, session.lease_ms))
    return Done(index)


def reset_checkpoints(state: State, index: int, op: commands.ResetCheckpoints) -> Result:
    for number in op.sessions:
        session = state.sessions.rows.get(number)
        if session is not None:
            state.sessions.touch(number)
            session.remaining_ms = None
            state.events.append(CheckpointReset(number))
    return Done(index)
