"""Who asks a leader to be told of changes or of events of locks, and what is answered: in the words of the wire.

Who waits is in `watches.py`. A plain `WatchRequest` is answered as a query is. An `EventsRequest` is told the leader's
term besides, and whoever was told by another leader before is answered at once: from here on this one speaks.
"""

from __future__ import annotations

from coordinator import wire
from coordinator.replica.callers import READ_BYTES_MAX, Answers, Caller
from coordinator.replica.stamps import Stamp
from coordinator.replica.tenure import Tenure
from coordinator.replica.watches import Watch
from coordinator.statemachine import commands
from coordinator.statemachine.machine import Machine

WatchRequest = wire.WatchRequest | wire.EventsRequest


def begin(
    tenure: Tenure,
    machine: Machine,
    term: int,
    now_us: int,
    caller: Caller,
    request: WatchRequest,
    stamp: Stamp,
    answers: Answers,
) -> None:
    """Answer it now, or let it wait."""
    is_told = isinstance(request, wire.EventsRequest)
    watch = Watch(caller, request.id, stamp.principal, stamp.actor, request.query, *stamp[2:], is_told)
    heard_another = isinstance(request, wire.EventsRequest) and request.term not in (0, term)
    wait_ms = 0 if heard_another else request.wait_ms
    now = tenure.watches.begin(watch, wait_ms, now_us, machine, tenure.leases.remaining_ms)
    if now is not None:
        _say(watch, now, term, answers)


def answer(tenure: Tenure, machine: Machine, term: int, now_us: int, answers: Answers, rows_max: int) -> None:
    """Answer those that were woken, as far as the turn's bytes and `rows_max` go."""
    tenure.watches.pass_time(now_us, machine.applied)
    work = machine.state.work
    size, rows = answers.size, work.rows
    while answers.size - size <= READ_BYTES_MAX and work.rows - rows <= rows_max:
        answered = tenure.watches.answer(machine, tenure.leases.remaining_ms)
        if answered is None:
            return
        _say(*answered, term, answers)


def _say(watch: Watch, result: commands.Result, term: int, answers: Answers) -> None:
    if watch.tells_term:
        answers.add(watch.caller, wire.Told(watch.request_id, result, term))
    else:
        answers.add(watch.caller, wire.Answer(watch.request_id, result))
