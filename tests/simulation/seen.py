"""What a node is made of, each seen where the checkers look on: state machine, replica, its reads, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordinator import wire
from coordinator.consensus.engine import ConfirmedRead, Engine
from coordinator.replica.callers import Answers, Caller
from coordinator.replica.delegation import Delegate, Leaving
from coordinator.replica.reading import Reading
from coordinator.replica.reads import Read
from coordinator.replica.replica import Replica
from coordinator.replica.tenure import Tenure
from coordinator.statemachine.commands import Result
from coordinator.statemachine.machine import Machine


class SeenMachine(Machine):
    """The state machine, seen."""

    def __init__(self, see: Callable[[int, bytes, Result, list[Any]], None]) -> None:
        super().__init__()
        self._see = see

    def apply(self, index: int, entry: bytes | memoryview) -> Result:
        known = len(self.events)
        result = super().apply(index, entry)
        self._see(index, bytes(entry), result, self.events[known:])
        return result


class SeenReading(Reading):
    """The reads of a replica, seen where one is begun, may be answered, and is answered."""

    see_answer: Callable[[int], None]
    see_begun: Callable[[int, bool], None]
    see_confirmed: Callable[[ConfirmedRead], None]
    see_left: Callable[[int, int], None]

    def begin_round(self, *, lease_ok: bool) -> int | None:
        ticket = super().begin_round(lease_ok=lease_ok)
        if ticket is not None:
            self.see_begun(ticket, lease_ok)
        return ticket

    def confirmed_reads(self) -> list[ConfirmedRead]:
        confirmed = super().confirmed_reads()
        for one in confirmed:
            self.see_confirmed(one)
        return confirmed

    def leave(self, delegate: int, leaving: Leaving, now_us: int) -> None:
        first = self.left.number + 1
        super().leave(delegate, leaving, now_us)
        for number in range(first, self.left.number + 1):
            self.see_left(delegate, number)

    def answer_one(self, read: Read, tenure: Tenure | None, answers: Answers, now_us: int) -> None:
        self.see_answer(read.read_index)
        super().answer_one(read, tenure, answers, now_us)


class SeenDelegate(Delegate):
    """What was left to a replica, seen where it takes that."""

    see_taken: Callable[[int, wire.LeftReads], None]

    def take(self, leader: int, said: wire.LeftReads, reads: list[Read]) -> None:
        super().take(leader, said, reads)
        self.see_taken(leader, said)


class SeenReplica(Replica):
    """The replica, seen where a client asks it."""

    see_keep_alive: Callable[[Caller, wire.KeepAliveRequest], None]

    def ask(self, caller: Caller, request: Any, answers: Answers, now_us: int) -> None:
        if type(request) is wire.KeepAliveRequest:
            self.see_keep_alive(caller, request)
        super().ask(caller, request, answers, now_us)

    def _new_reading(self, engine: Engine, machine: Machine) -> Reading:
        reading = SeenReading(self.replica, engine, machine, self._stamps, self._waiters, self.bounds)
        reading.delegate = SeenDelegate()
        return reading


class SeenAnswers(Answers):
    """A turn's answers, seen where one says that a session was kept alive."""

    see_kept_alive: Callable[[int], None]

    def add(self, caller: Caller, reply: wire.Reply) -> None:
        if type(reply) is wire.KeptAlive:
            self.see_kept_alive(reply.session)
        super().add(caller, reply)
