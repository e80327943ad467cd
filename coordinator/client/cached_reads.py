"""Reads whose answers the client keeps (`cache.py`): asked of the cluster once, and again when they have changed."""

from __future__ import annotations

from coordinator import wire
from coordinator.client import flows
from coordinator.client.core import Core
from coordinator.client.errors import ConclaveError, Forbidden, InvalidRequest, OutcomeUnknown, refuse
from coordinator.client.flows import Clock, Flow
from coordinator.statemachine.files import BeginCaching

TRY_AGAIN_US = 5_000_000
"""After a cluster would not let this client cache, as one of an earlier level does."""


def read(core: Core, clock: Clock, query: wire.CachedQuery, ttl_ms: int, deadline_us: int) -> Flow:
    """What is kept, where it may be served at this moment; else a linearizable read, whose answer is kept where the
    cluster allows it."""
    found = core.cache.look(query, clock)
    if found is not None:
        return refuse(found)
    session = yield from _begin(core, clock, ttl_ms, deadline_us)
    if session is None:
        return refuse((yield core.query(query, clock(), deadline_us)))
    return refuse((yield core.cached_query(session, query, clock(), deadline_us)))


def _begin(core: Core, clock: Clock, ttl_ms: int, deadline_us: int) -> Flow:
    """A session under which this client may cache; None where there is none to be had."""
    cache = core.cache
    if cache.session is not None and not cache.session.gone:
        return cache.session
    if clock() < cache.try_us:
        return None
    own = yield from flows.session(core, clock, ttl_ms, deadline_us)
    try:
        yield core.command(own, BeginCaching(), clock(), deadline_us)
    except (InvalidRequest, Forbidden):
        cache.try_us = clock() + TRY_AGAIN_US
        return None
    except ConclaveError as error:
        if isinstance(error, OutcomeUnknown) and error.session_gone:
            core.lose_session(own)
        return None
    cache.session = own
    return own
