"""What one operation costs in a crowd: processor time, beside that in a tenth and a hundredth of it (where that has a
hundred sessions).

`python -m bench.crowd [--sessions N] [--json]`. A crowd of 100,000 is so many sessions, a tenth as many watches (of
ten, seven of a path of their own, one of the events of a lock, one of a prefix, one of a range), and a tenth as many
waiters on one lock. The real state machine applies encoded commands, and the leader's side does what it does after
each: leases, grants that are pushed, watches that are woken, answered and asked anew. Times are microseconds, medians
of rounds; what an operation leaves behind is put back outside the time, but for the last two, which go through a whole
crowd at once and tell what each of it costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.core import reference_per_s
from coordinator.replica.caching import LEASE_MS, Caching
from coordinator.replica.callers import Caller
from coordinator.replica.grants import GrantWaiters
from coordinator.replica.levels import Levels
from coordinator.replica.tenure import Tenure
from coordinator.replica.watches import Watch
from coordinator.statemachine import commands, lock_commands
from coordinator.statemachine.commands import AcquireLock, CancelAcquire, Command, PutKey, ReleaseLock
from coordinator.statemachine.events import GrantMade, SessionBegan, SessionEnded
from coordinator.statemachine.files import ReadChanges
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

SESSIONS: Final = 100_000
SESSIONS_MIN: Final = 100
"""Of a crowd with watches of all kinds, a line, and others that stand in none."""
CROWDED: Final = "crowded"
ROUNDS: Final = 5
TIMES: Final = 400
"""How often each operation is done in a round."""
TTL_MS: Final = 60_000
_encode = msgspec.msgpack.Encoder().encode
_CALLER: Final = Caller("channel", "0" * 16, b"k" * 32)


class Crowd:
    def __init__(self, sessions: int) -> None:
        self.machine = Machine()
        self.index = 0
        right = commands.SetPrincipal("ci", commands.RIGHTS)
        self.node(commands.Genesis(1, "bench", 0, (right,), (), commands.LEVEL))
        self.now_us = 0
        caching = Caching(self.machine, self.now_us, self.index, LEASE_MS, 1)
        self.tenure = Tenure(self.machine, Levels(), caching, self.now_us)
        self.grants = GrantWaiters()
        self.pushed = 0
        self.told = 0
        self.numbers: dict[int, int] = {}
        self.sessions = [self.open() for _ in range(sessions)]
        self.crowd = sessions // 10
        for number in range(self.crowd):
            self.watch(number)
        self.line = self.sessions[: self.crowd + 1]
        """The holder, and those that wait, in their order."""
        for session in self.line:
            self.does(session, AcquireLock(CROWDED, 0, wait=True))

    # --- what the log and the leader do -----------------------------------------------------------

    def apply(self, entry: bytes) -> commands.Result:
        self.index += 1
        result = self.machine.apply(self.index, entry)
        if self.machine.events:
            events, self.machine.events = self.machine.events, []
            for event in events:
                match event:
                    case SessionBegan(session, ttl_ms):
                        self.tenure.began(session, ttl_ms)
                    case SessionEnded(session):
                        self.grants.forget(session)
                        self.tenure.ended(session)
                    case GrantMade(session, name, acquisition, _):
                        self.pushed += self.grants.take(session, name, acquisition) is not None
        return result

    def node(self, op: commands.NodeOp) -> None:
        entry = encode_node_entry(op)
        self.index += 1
        self.machine.apply(self.index, entry)

    def open(self) -> int:
        self.apply(encode_entry("ci", "", _encode(Command(0, 0, 0, commands.OpenSession(TTL_MS, b"")))))
        self.numbers[self.index] = 0
        return self.index

    def entry(self, session: int, op: commands.ClientOp) -> bytes:
        number = self.numbers[session] = self.numbers[session] + 1
        return encode_entry("ci", "", _encode(Command(session, number, number, op)))

    def does(self, session: int, op: commands.ClientOp) -> None:
        self.take_in(session, op, self.entry(session, op))

    def take_in(self, session: int, op: commands.ClientOp, entry: bytes) -> None:
        """As a turn of the leader does."""
        result = self.apply(entry)
        self.grants.follow(op, result, session, _CALLER)
        watches = self.tenure.watches
        watches.look(self.machine.state)
        while watches.has_woken:
            answered = watches.answer(self.machine, self.tenure.leases.remaining_ms)
            assert answered is not None
            _encode(answered[1])
            self.told += 1
            self.watch(answered[0].request_id)

    def watch(self, number: int) -> None:
        group = f"team{number // 10:05}/"
        span = {8: (group, "", True), 9: (f"{group}app0", f"{group}app9", False)}.get(
            number % 10, (f"{group}app{number % 10}", "", False)
        )
        query = ReadChanges(*span, since=self.index + 1)
        if number % 10 == 7:
            query = lock_commands.ReadLockEvents(f"lock{number}", since=self.index + 1)  # type: ignore[assignment]
        watch = Watch(_CALLER, number, "ci", "", query)
        refused = self.tenure.watches.begin(watch, 60_000, self.now_us, self.machine, self.tenure.leases.remaining_ms)
        assert refused is None, refused

    def drain(self) -> float:
        """Microseconds of one hand-over, of as many as wait."""
        line, self.line = self.line[:-1], self.line[-1:]
        asked = [(session, op := ReleaseLock(CROWDED, 0), self.entry(session, op)) for session in line]
        began = time.process_time_ns()
        for each in asked:
            self.take_in(*each)
        return (time.process_time_ns() - began) / len(asked) / 1_000

    def wake_all(self) -> float:
        """Microseconds of one of as many watches as there are in the crowd, that wait for the same path."""
        watches, remaining_ms = self.tenure.watches, self.tenure.leases.remaining_ms
        for number in range(self.crowd):
            watch = Watch(_CALLER, self.crowd + number, "ci", "", ReadChanges("hot", since=self.index + 1))
            assert watches.begin(watch, 60_000, self.now_us, self.machine, remaining_ms) is None
        entry = self.entry(self.sessions[-1], PutKey("hot", b"v" * 64))
        began = time.process_time_ns()
        self.apply(entry)
        watches.look(self.machine.state)
        while watches.has_woken:
            watches.answer(self.machine, remaining_ms)
        return (time.process_time_ns() - began) / self.crowd / 1_000


Operation = tuple[Callable[[], None], Callable[[], None]]
"""What is measured, and what undoes it."""


class Operations:
    """Each gives what is to be done once, ready encoded, and what puts it back."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.count = 0

    def _nothing(self) -> None:
        return

    def _asked(self, session: int, op: commands.ClientOp) -> Callable[[], None]:
        entry = self.crowd.entry(session, op)
        return lambda: self.crowd.take_in(session, op, entry)

    def put(self) -> Operation:
        self.count += 1
        return self._asked(self.crowd.sessions[-1], PutKey(f"nobody/{self.count % 100}", b"v" * 64)), self._nothing

    def put_that_wakes(self) -> Operation:
        """A path, a prefix and a range."""
        self.count += 1
        key = f"team{self.count * 7 % (self.crowd.crowd // 10):05}/app{self.count % 7}"
        return self._asked(self.crowd.sessions[-1], PutKey(key, b"v" * 64)), self._nothing

    def lock_pair(self) -> Operation:
        self.count += 1
        session, name = self.crowd.sessions[-1 - self.count % 50], f"elsewhere{self.count % 100}"
        take = self._asked(session, AcquireLock(name, self.count, wait=True))
        let_go = self._asked(session, ReleaseLock(name, self.count))

        def pair() -> None:
            take()
            let_go()

        return pair, self._nothing

    def hand_over(self) -> Operation:
        """The holder lets go, and the next has it; it joins the line again at its end."""
        line = self.crowd.line
        holder = line.pop(0)
        line.append(holder)
        return (
            self._asked(holder, ReleaseLock(CROWDED, 0)),
            lambda: self.crowd.does(holder, AcquireLock(CROWDED, 0, wait=True)),
        )

    def join(self) -> Operation:
        """One more stands in the line, and leaves it."""
        session = self.crowd.sessions[-60]
        return (
            self._asked(session, AcquireLock(CROWDED, 1, wait=True)),
            lambda: self.crowd.does(session, ReleaseLock(CROWDED, 1)),
        )

    def join_looked_at_for_deadlocks(self) -> Operation:
        session = self.crowd.sessions[-60]
        return (
            self._asked(session, lock_commands.Acquire((CROWDED,), 1)),
            lambda: self.crowd.does(session, ReleaseLock(CROWDED, 1)),
        )

    def cancel(self) -> Operation:
        """A waiter in the middle of the line leaves it."""
        line = self.crowd.line
        session = line.pop(len(line) // 2)
        line.append(session)
        return (
            self._asked(session, CancelAcquire(CROWDED, 0, self.crowd.numbers[session])),
            lambda: self.crowd.does(session, AcquireLock(CROWDED, 0, wait=True)),
        )

    def keep_alive(self) -> Operation:
        self.count += 1
        crowd = self.crowd
        session = crowd.sessions[self.count * 7_919 % len(crowd.sessions)]

        def keep() -> None:
            crowd.now_us += 20
            crowd.tenure.leases.advance(crowd.now_us, connected=True)
            assert crowd.tenure.keep_alive(session, _CALLER, 1)
            crowd.tenure.due(crowd.now_us, list)

        return keep, self._nothing

    def expiry(self) -> Operation:
        """Of a session that stands in the middle of the line."""
        crowd = self.crowd
        place = len(crowd.line) // 2
        session = crowd.line.pop(place)
        entry = encode_node_entry(commands.ExpireSessions((session,)))

        def again() -> None:
            crowd.sessions.remove(session)
            new = crowd.open()
            crowd.sessions.insert(0, new)
            crowd.line.append(new)
            crowd.does(new, AcquireLock(CROWDED, 0, wait=True))

        return lambda: (crowd.apply(entry), None)[1], again


NAMES: Final = {
    "put": "a put that nobody watches",
    "put_that_wakes": "a put that wakes three watches, who are answered and ask anew",
    "lock_pair": "a lock pair on another name",
    "hand_over": "the crowded lock is handed on",
    "join": "one more stands in line for it",
    "join_looked_at_for_deadlocks": "the same, with a look for deadlocks",
    "cancel": "a waiter in the middle of the line leaves",
    "keep_alive": "a keep-alive, and the leader's turn with it",
    "expiry": "a session in the middle of the line expires",
}
AT_ONCE: Final = {
    "drain": "the lock goes down the whole line, and nobody joins: each",
    "wake_all": "one put wakes a watch of each waiter: each",
}


def figures(sessions: int) -> dict[str, float]:
    crowd = Crowd(sessions)
    operations = Operations(crowd)
    gc.collect()
    gc.freeze()
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(ROUNDS):
        for name in NAMES:
            make, spent = getattr(operations, name), 0.0
            for _ in range(TIMES):
                do, undo = make()
                began = time.process_time_ns()
                do()
                spent += time.process_time_ns() - began
                undo()
            found[name].append(spent / TIMES / 1_000)
    found |= {"drain": [crowd.drain()], "wake_all": [crowd.wake_all() for _ in range(ROUNDS)]}
    gc.unfreeze()
    medians = {name: round(statistics.median(times), 2) for name, times in found.items()}
    return {"sessions": sessions, "watches": crowd.crowd, "waiters": crowd.crowd} | medians


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of the largest crowd (default {SESSIONS})")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    if arguments.sessions < SESSIONS_MIN:
        parser.error(f"a crowd has {SESSIONS_MIN} sessions or more, got {arguments.sessions}")
    sizes = [arguments.sessions // less for less in (100, 10, 1)]
    crowds = [figures(size) for size in sizes if size >= SESSIONS_MIN]
    if arguments.json:
        print(json.dumps({"crowds": crowds, "reference_per_s": round(reference_per_s())}))
        return 0
    print(f"The reference loop: {reference_per_s():,.0f} a second.\n")
    print("| processor time, µs | " + " | ".join(f"{crowd['sessions']:,}" for crowd in crowds) + " |")
    print("| --- |" + " --- |" * len(crowds))
    for name, what in (NAMES | AT_ONCE).items():
        print(f"| {what} | " + " | ".join(f"{crowd[name]:.1f}" for crowd in crowds) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
