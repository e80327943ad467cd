"""A session of the principal that a call speaks for, where a command must have one and the call names none.

A file is created by a session, also one that does not go with it; the web process's own session is not its callers'.
So a principal that creates files gets a session here, used again for a while and then left to expire: nothing depends
on it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from coordinator.client import AsyncClient, errors
from coordinator.client.errors import refuse
from coordinator.statemachine import commands

TTL_MS: Final = 60_000
USED_S_MAX: Final = 30.0
"""Well within its time to live, so that it is not gone when it is used."""
SESSIONS_MAX: Final = 4_096

_sessions: dict[tuple[str, str], tuple[float, int]] = {}


async def with_session(client: AsyncClient, cluster: str, principal: str, ask: Callable[[int], Awaitable[Any]]) -> Any:
    """What `ask` answers of a session that is the principal's. `ask` refuses a session that is gone by SessionGone, and
    has done nothing then."""
    session = await _session(client, cluster, principal)
    try:
        return await ask(session)
    except errors.SessionGone:
        _sessions.pop((cluster, principal), None)  # An operator may have ended it.
        return await ask(await _session(client, cluster, principal))


async def _session(client: AsyncClient, cluster: str, principal: str) -> int:
    until, session = _sessions.get((cluster, principal), (0.0, 0))
    if time.monotonic() < until:
        return session
    sent = time.monotonic()
    opened = refuse(await client.command(commands.OpenSession(TTL_MS, secrets.token_bytes(16)), act_for=principal))
    assert isinstance(opened, commands.SessionOpened), opened
    if len(_sessions) >= SESSIONS_MAX:
        _sessions.clear()
    _sessions[cluster, principal] = (sent + USED_S_MAX, opened.session)
    return opened.session
