"""Locks: acquire, release, look at one, list them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from ninja import Body, Query, Router

from coordinator import access
from coordinator.api.attempt import Attempt, Wanted
from coordinator.api.auth import ApiRequest
from coordinator.api.errors import Refused
from coordinator.api.schemas import (
    Acquired,
    AcquireIn,
    ClusterName,
    LockOut,
    LocksOut,
    NotAcquired,
    Problem,
    Released,
    ReleaseIn,
    name_in_path,
    session_name,
    session_number,
)
from coordinator.client.errors import refuse
from coordinator.statemachine import commands, lock_commands

router = Router(tags=["locks"])

_NO_BODY = AcquireIn.model_validate({})

REFUSALS: dict[Any, Any] = {frozenset({401, 403, 404, 422, 429, 503}): Problem}


@router.get("", response={200: LocksOut, **REFUSALS}, summary="List the locks that are held")
async def list_locks(
    request: ApiRequest,
    cluster: ClusterName,
    after: Annotated[str, Query(max_length=commands.NAME_BYTES_MAX, description="List names after this one.")] = "",
    limit: Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)] = 100,
) -> LocksOut:
    client, principal = await request.auth.acting()
    result = await client.query(commands.ListLocks(after, limit), act_for=principal)
    assert isinstance(result, commands.LockList), result
    is_full = len(result.locks) >= limit
    return LocksOut(
        locks=[LockOut.of(view) for view in result.locks],
        held=result.held,
        waiting=result.waiting,
        next=result.locks[-1].name if is_full else None,
    )


@router.post(
    "/{path:name}/acquire",
    response={200: Acquired, 409: NotAcquired, 410: Problem, **REFUSALS},
    summary="Acquire a lock",
)
async def acquire(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[AcquireIn, Body()] = _NO_BODY
) -> Acquired:
    """Take the lock, or wait in line for it. Without a session, one is opened and named in the answer.

    Asking again with the session that holds the lock answers 200 with the same token, so a lost answer can be asked for
    again; in other modes than the exclusive one of one name each call is an acquisition of its own, which the answer
    tells, but for calls that name the same `acquisition`: those answer the same hold, or wait in the same place. 409
    names the holder, or says how sessions would wait for one another (`deadlock`). A caller that closes the connection
    while it waits leaves the line at once, unless it named its acquisition.
    """
    name = name_in_path(name)
    client, act_for = await request.auth.acting()
    session = None if payload.session is None else session_number(payload.session)
    also = tuple(name_in_path(each) for each in payload.also)
    wanted = None if payload.is_plain else Wanted.of(payload)
    attempt = Attempt(
        client, cluster, request.auth.principal, name, also, wanted, act_for, refuse_deadlocks=payload.refuse_deadlocks
    )
    return await run_for(request, attempt, session, payload.ttl_ms, payload.wait_ms)


async def run_for(
    request: ApiRequest, attempt: Attempt, session: int | None, ttl_ms: int | None, wait_ms: int
) -> Acquired:
    """The attempt of a caller, for as long as there is one."""
    undo_when_gone(request).append(attempt.abandon)
    task = access.spawn(attempt.run(session, ttl_ms, wait_ms), f"acquire lock {attempt.name!r}")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        attempt.abandon()
        raise


def undo_when_gone(request: ApiRequest) -> list[Any]:
    """What to call when the caller is gone before it has the whole answer (`coordinator/asgi.py` calls it)."""
    scope = getattr(request, "scope", {})
    undo: list[Any] = scope.get("conclave.undo", [])
    return undo


@router.post(
    "/{path:name}/release",
    response={200: Released, 409: Problem, 410: Problem, **REFUSALS},
    summary="Release a lock",
)
async def release(request: ApiRequest, cluster: ClusterName, name: str, payload: ReleaseIn) -> Released:
    """Let go of the lock; the next in line has it at once. The session lives on. 409 where it does not hold it."""
    name = name_in_path(name)
    client, principal = await request.auth.acting()
    session = session_number(payload.session)
    acquisition = commands.ANY_ACQUISITION if payload.acquisition is None else payload.acquisition
    op: commands.ClientOp = commands.ReleaseLock(name, acquisition, session)
    if payload.also:
        if payload.acquisition is None:
            raise Refused(422, "invalid", "acquisition: expected the acquisition that took several names")
        op = lock_commands.Release((name, *(name_in_path(each) for each in payload.also)), acquisition, session)
    result = refuse(await client.command(op, act_for=principal))
    if isinstance(result, commands.NotHeld):
        raise Refused(409, "not-held", f"session {session_name(session)} neither holds lock {name!r} nor waits for it")
    return Released(name=name, session=session_name(session))


async def _look(request: ApiRequest, name: str) -> LockOut:
    name = name_in_path(name)
    client, principal = await request.auth.acting()
    view = await client.query(commands.GetLock(name), act_for=principal)
    assert isinstance(view, commands.LockView), view
    return LockOut.of(view)


@router.get("/{path:name}/acquire", include_in_schema=False, response=LockOut)
async def look_at_a_name_that_ends_in_acquire(request: ApiRequest, cluster: ClusterName, name: str) -> LockOut:
    return await _look(request, f"{name}/acquire")


@router.get("/{path:name}/release", include_in_schema=False, response=LockOut)
async def look_at_a_name_that_ends_in_release(request: ApiRequest, cluster: ClusterName, name: str) -> LockOut:
    return await _look(request, f"{name}/release")


@router.get("/{path:name}", response={200: LockOut, **REFUSALS}, summary="Look at a lock")
async def look(request: ApiRequest, cluster: ClusterName, name: str) -> LockOut:
    """Who holds it and who waits, linearizable. A name that nobody holds is free; it need not have been used before."""
    return await _look(request, name)
