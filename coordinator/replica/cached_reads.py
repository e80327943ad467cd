"""Reads whose answers clients may keep, as a confirmed leader answers them (`caching.py`)."""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator import wire
from coordinator.replica.callers import Answers, Caller
from coordinator.replica.stamps import Stamp
from coordinator.replica.tenure import Tenure
from coordinator.statemachine import commands, files
from coordinator.statemachine.machine import Machine

_KEPT: Final = (files.FileContent, files.Stat, commands.KeyValue)


class Asker(NamedTuple):
    """Who asks, as a node verified it, and the term of the leader that is asked."""

    caller: Caller
    stamp: Stamp
    term: int


def answer(
    asker: Asker,
    request: wire.CachedQueryRequest | wire.RenewCacheRequest,
    tenure: Tenure,
    machine: Machine,
    answers: Answers,
) -> None:
    """Answer a read, or a renewal, that came before a majority confirmed this leader."""
    if isinstance(request, wire.RenewCacheRequest):
        return _renew(asker, request, tenure, machine, answers)
    query = request.query
    result = machine.query(query, asker.stamp.principal, tenure.leases.remaining_ms, *asker.stamp[1:])
    kept = None
    if _may_be_kept(query, result) and _is_own(asker, request.session, machine):
        path = query.key if isinstance(query, commands.GetKey) else query.path
        kept = tenure.caching.allow(request.session, asker.caller, path)
    if kept is None:
        answers.add(asker.caller, wire.Answer(request.id, result))
    else:
        answers.add(asker.caller, wire.CachedAnswer(request.id, result, asker.term, *kept, tenure.caching.lease_ms))
    return None


def _may_be_kept(query: wire.CachedQuery, result: commands.Result) -> bool:
    """What is there now, and that there is nothing."""
    if isinstance(query, files.ReadFile) and query.revision:
        return False
    return isinstance(result, _KEPT) or (isinstance(result, commands.Failure) and result.code == commands.NOT_FOUND)


def _is_own(asker: Asker, session: int, machine: Machine) -> bool:
    known = machine.sessions.get(session)
    return known is not None and known.principal == asker.stamp.principal


def _renew(asker: Asker, request: wire.RenewCacheRequest, tenure: Tenure, machine: Machine, answers: Answers) -> None:
    caching = tenure.caching
    if request.term != asker.term:
        number: int | None = caching.take_number()
    else:
        if _is_own(asker, request.session, machine):
            caching.hear(request.session, request.number)
        number = caching.renew(request.session, asker.caller, request.number, request.count)
    if number is not None:
        answers.add(asker.caller, wire.CacheRenewed(request.id, asker.term, number, tenure.caching.lease_ms))


def hear_dropped(asker: Asker, said: wire.DroppedRequest, tenure: Tenure, machine: Machine) -> None:
    tenure.caching.dropped(said.session, asker.caller, said.number, said.ticket)
    if _is_own(asker, said.session, machine):
        tenure.caching.hear(said.session, said.number)
