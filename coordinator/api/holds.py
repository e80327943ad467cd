"""Holds in all modes: look at them, change them, take them away; sequencers and elections. Acquire and release are in
`locks.py`."""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Body, Query, Router

from coordinator import audit
from coordinator.api.audited import audited
from coordinator.api.auth import ApiRequest
from coordinator.api.errors import Refused
from coordinator.api.hold_schemas import (
    BreakOut,
    BreaksOut,
    ChangeModeIn,
    ForcedOut,
    ForceReleaseIn,
    HandedOver,
    HandOverIn,
    HoldOut,
    LeaderOut,
    ModeChanged,
    ProclaimedOut,
    ProclaimIn,
    SequencerOut,
)
from coordinator.api.locks import REFUSALS, run_for
from coordinator.api.schemas import ClusterName, Problem, name_in_path, session_name, session_number
from coordinator.api.upgrade import Upgrade, not_held
from coordinator.client import errors
from coordinator.client.errors import refuse
from coordinator.client.recipes.election import LOOKS_MAX, is_of
from coordinator.statemachine import commands, files, lock_commands

router = Router(tags=["locks"])
forced = Router(tags=["locks"])
sequencers = Router(tags=["locks"])
elections = Router(tags=["elections"])

_CONFLICTS: dict[Any, Any] = {409: Problem, 410: Problem, **REFUSALS}


@router.post("/{path:name}/mode", response={200: ModeChanged, **_CONFLICTS}, summary="Upgrade or downgrade a hold")
async def change_mode(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[ChangeModeIn, Body()]
) -> ModeChanged:
    """To `shared`: by the same token, and others that share it are let in. To `exclusive`: by a higher one, once nobody
    else shares it; 409 `not-acquired` where somebody does after `wait_ms` (it is still shared then), `deadlock` where
    another holder waits for the same. Ask again, and it goes on waiting."""
    name, session = name_in_path(name), session_number(payload.session)
    client, principal = await request.auth.acting()
    if payload.wait_ms:
        upgrade = Upgrade(client, cluster, request.auth.principal, name, payload.acquisition, principal)
        done = await run_for(request, upgrade, session, None, payload.wait_ms)
        return ModeChanged(name=name, mode=payload.mode, token=done.token, sequencer=done.sequencer)
    op = lock_commands.ChangeMode(name, payload.acquisition, payload.mode, wait=False, owner=session)
    result = refuse(await client.command(op, act_for=principal))
    match result:
        case commands.Granted(token):
            sequencer = lock_commands.sequencer(name, payload.mode, token)
            return ModeChanged(name=name, mode=payload.mode, token=token, sequencer=sequencer)
        case commands.Held(holder):
            who = f"{holder.principal} (session {session_name(holder.session)})"
            raise Refused(409, "not-acquired", f"lock {name!r} is shared with {who}")
    raise not_held(name, session, payload.acquisition)


@router.post("/{path:name}/hand-over", response={200: HandedOver, **_CONFLICTS}, summary="Hand a lock over")
async def hand_over(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[HandOverIn, Body()]
) -> HandedOver:
    """Give a hold to another session, past the line and by a higher token. A shared or counting one only to one that
    stands in line for the same."""
    name, session = name_in_path(name), session_number(payload.session)
    client, principal = await request.auth.acting()
    op = lock_commands.HandOver(
        name, payload.acquisition, session_number(payload.to_session), payload.to_acquisition, session
    )
    result = refuse(await client.command(op, act_for=principal))
    if isinstance(result, commands.NotHeld):
        raise not_held(name, session, payload.acquisition)
    return HandedOver(name=name, to_session=payload.to_session, to_acquisition=payload.to_acquisition)


async def _look(request: ApiRequest, name: str) -> HoldOut:
    name = name_in_path(name)
    client, principal = await request.auth.acting()
    state = refuse(await client.query(lock_commands.GetLockState(name), act_for=principal))
    assert isinstance(state, lock_commands.LockState), state
    return HoldOut.of(state)


@router.get("/{path:name}/mode", include_in_schema=False, response=HoldOut)
async def look_at_a_name_that_ends_in_mode(request: ApiRequest, cluster: ClusterName, name: str) -> HoldOut:
    return await _look(request, f"{name}/mode")


@router.get("/{path:name}/hand-over", include_in_schema=False, response=HoldOut)
async def look_at_a_name_that_ends_in_hand_over(request: ApiRequest, cluster: ClusterName, name: str) -> HoldOut:
    return await _look(request, f"{name}/hand-over")


@router.get("/{path:name}", response={200: HoldOut, **REFUSALS}, summary="Look at all holders of a lock")
async def look(request: ApiRequest, cluster: ClusterName, name: str) -> HoldOut:
    """Who holds a name, how, and who waits for it, in all modes."""
    return await _look(request, name)


@forced.post("", response={200: ForcedOut, **REFUSALS}, summary="Take a lock away by force")
async def force_release(
    request: ApiRequest, cluster: ClusterName, payload: Annotated[ForceReleaseIn, Body()]
) -> ForcedOut:
    """Also the lock-delay of a holder that died. It is free at once: only fencing tokens keep a former holder out. Who
    did it and why is kept, and told the holder. Takes the right to administer."""
    name = name_in_path(payload.name)
    entry: dict[str, Any] = {
        "actor": request.auth.actor,
        "principal": request.auth.principal,
        "action": audit.LOCK_BROKEN,
        "target": f"{cluster}/{name}",
        "reason": payload.reason,
    }
    session = 0 if payload.session is None else session_number(payload.session)

    async def release() -> Any:
        client, principal = await request.auth.acting()
        op = lock_commands.ForceRelease(name, payload.reason, session)
        return refuse(await client.command(op, act_for=principal))

    result = await audited(entry, release)
    return ForcedOut(name=name, released=isinstance(result, commands.Done))


@forced.get("", response={200: BreaksOut, **REFUSALS}, summary="List what was taken away by force")
async def list_breaks(
    request: ApiRequest,
    cluster: ClusterName,
    after: Annotated[int, Query(ge=0, description="From the first behind this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)] = 100,
) -> BreaksOut:
    """The last 1,000 are kept. Takes the right to administer."""
    client, principal = await request.auth.acting()
    found = refuse(await client.query(lock_commands.ListBreaks(after, limit), act_for=principal))
    assert isinstance(found, lock_commands.BreakList), found
    return BreaksOut(breaks=[BreakOut.of(broken) for broken in found.breaks])


@sequencers.get("", response={200: SequencerOut, **REFUSALS}, summary="Check a sequencer")
async def check_sequencer(
    request: ApiRequest,
    cluster: ClusterName,
    sequencer: Annotated[str, Query(max_length=600, description="`name:mode:token`, as acquire answered it.")],
) -> SequencerOut:
    """Anyone may ask."""
    client, principal = await request.auth.acting()
    found = refuse(await client.query(lock_commands.CheckSequencer(sequencer), act_for=principal))
    assert isinstance(found, lock_commands.SequencerState), found
    return SequencerOut(sequencer=sequencer, valid=found.valid)


@elections.get("/{path:name}", response={200: LeaderOut, **REFUSALS}, summary="See who leads")
async def leader(request: ApiRequest, cluster: ClusterName, name: str) -> LeaderOut:
    """Who holds the lock of this name, and what it proclaimed. 404 where nobody leads. To stand as a candidate is to
    acquire the lock; to resign, to release it; to observe, to wait for changes of the key."""
    name = name_in_path(name)
    client, principal = await request.auth.acting()
    seen: lock_commands.Grant | None = None
    value: bytes | None = None
    for _ in range(LOOKS_MAX):
        state = refuse(await client.query(lock_commands.GetLockState(name), act_for=principal))
        if not state.holders:
            raise Refused(404, "not-found", f"nobody leads {name!r}")
        if seen is not None and state.holders[0] == seen:
            return LeaderOut.of(name, seen, value)
        seen = state.holders[0]
        try:
            found = refuse(await client.query(files.ReadFile(name), act_for=principal))
            value = found.value if is_of(found.stat, seen.token) else None
        except errors.NotFound:
            value = None
    raise errors.Unavailable(f"election {name!r} changes its leader faster than one can look")


@elections.put("/{path:name}", response={200: ProclaimedOut, **_CONFLICTS}, summary="Proclaim a value")
async def proclaim(
    request: ApiRequest, cluster: ClusterName, name: str, payload: Annotated[ProclaimIn, Body()]
) -> ProclaimedOut:
    """As the leader that holds the lock of this name by this token. 409 `not-held` where another leads."""
    name = name_in_path(name)
    client, principal = await request.auth.acting()
    op = commands.Transact(
        (files.Compare(name, "lock", "=", payload.token),), (commands.PutKey(name, payload.content),)
    )
    done = refuse(await client.command(op, act_for=principal))
    assert isinstance(done, commands.Transacted), done
    if not done.succeeded:
        raise Refused(409, "not-held", f"nobody leads {name!r} by token {payload.token}")
    return ProclaimedOut(revision=done.revision)
