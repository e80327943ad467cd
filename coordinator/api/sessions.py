"""Sessions: open, look at, keep alive, close."""

from __future__ import annotations

import secrets
from typing import Annotated

from ninja import Body, Router, Status

from coordinator.api.attempt import lease_left_ms
from coordinator.api.auth import ApiRequest
from coordinator.api.locks import REFUSALS
from coordinator.api.schemas import (
    ClosedOut,
    ClusterName,
    KeptAliveOut,
    OpenSessionIn,
    Problem,
    SessionOut,
    session_in_path,
    session_name,
)
from coordinator.client import clock
from coordinator.statemachine import commands

router = Router(tags=["sessions"])
_NO_BODY = OpenSessionIn.model_validate({})


@router.post("", response={201: SessionOut, **REFUSALS}, summary="Open a session")
async def open_session(
    request: ApiRequest, cluster: ClusterName, payload: Annotated[OpenSessionIn, Body()] = _NO_BODY
) -> Status[SessionOut]:
    """For several locks that live and end together. Acquire opens one by itself where none is named."""
    client, principal = await request.auth.acting()
    sent_us = clock.now_us()
    opened = await client.command(commands.OpenSession(payload.ttl_ms, secrets.token_bytes(16)), act_for=principal)
    assert isinstance(opened, commands.SessionOpened), opened
    return Status(
        201,
        SessionOut(
            session=session_name(opened.session),
            principal=request.auth.principal,
            ttl_ms=opened.ttl_ms,
            expires_in_ms=lease_left_ms(opened.ttl_ms, sent_us + opened.ttl_ms * 1000),
            locks=[],
        ),
    )


@router.post(
    "/{session}/keepalive", response={200: KeptAliveOut, 410: Problem, **REFUSALS}, summary="Keep a session alive"
)
async def keep_alive(request: ApiRequest, cluster: ClusterName, session: str) -> KeptAliveOut:
    """Give the session its full time to live again, and with it everything that it holds."""
    number = session_in_path(session)
    client, principal = await request.auth.acting()
    sent_us = clock.now_us()
    kept = await client.keep_alive(number, act_for=principal)
    return KeptAliveOut(
        session=session, ttl_ms=kept.ttl_ms, expires_in_ms=lease_left_ms(kept.ttl_ms, sent_us + kept.ttl_ms * 1000)
    )


@router.get("/{session}", response={200: SessionOut, 410: Problem, **REFUSALS}, summary="Look at a session")
async def look(request: ApiRequest, cluster: ClusterName, session: str) -> SessionOut:
    """One of your own: another's answers as one that is gone."""
    number = session_in_path(session)
    client, principal = await request.auth.acting()
    view = await client.query(commands.GetSession(number), act_for=principal)
    assert isinstance(view, commands.SessionView), view
    return SessionOut(
        session=session_name(view.session),
        principal=view.principal,
        ttl_ms=view.ttl_ms,
        expires_in_ms=view.expires_in_ms,
        locks=list(view.locks),
    )


@router.delete("/{session}", response={200: ClosedOut, 410: Problem, **REFUSALS}, summary="Close a session")
async def close(request: ApiRequest, cluster: ClusterName, session: str) -> ClosedOut:
    """Its locks are let go, its waiters leave their lines, and whoever is next has them at once."""
    number = session_in_path(session)
    client, principal = await request.auth.acting()
    await client.command(commands.CloseSession(number), act_for=principal)
    return ClosedOut(session=session)
