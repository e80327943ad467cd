"""Fault injection: crash a node's process, where that is allowed, and leave it in the audit."""

from __future__ import annotations

from typing import Annotated, Any

from django.conf import settings
from ninja import Body, Router

from coordinator import audit
from coordinator.api.audited import audited
from coordinator.api.auth import ApiRequest
from coordinator.api.errors import Refused
from coordinator.api.locks import REFUSALS
from coordinator.api.schemas import ClusterName, CrashedOut, CrashIn
from coordinator.wire import NODE_NAME

router = Router(tags=["faults"])
_NO_BODY = CrashIn.model_validate({})


@router.post("/{node}/crash", response={200: CrashedOut, **REFUSALS}, summary="Crash a node")
async def crash(
    request: ApiRequest, cluster: ClusterName, node: str, payload: Annotated[CrashIn, Body()] = _NO_BODY
) -> CrashedOut:
    """End the node's process at once, as `kill -9` would; its supervisor starts it again.

    Takes the right to administer, and an installation where faults may be injected (CONCLAVE_FAULTS).
    """
    entry: dict[str, Any] = {
        "actor": request.auth.actor,
        "principal": request.auth.principal,
        "action": audit.NODE_CRASHED,
    }
    entry |= {"target": f"{cluster}/{node}", "reason": payload.reason}
    await audited(entry, lambda: _crash(request, node))
    return CrashedOut(node=node)


async def _crash(request: ApiRequest, node: str) -> None:
    if not settings.CONCLAVE.faults:
        raise Refused(403, "faults-off", "faults may not be injected here; CONCLAVE_FAULTS=1 allows it")
    if not NODE_NAME.fullmatch(node):
        raise Refused(404, "not-found", "there is no such node")
    client, principal = await request.auth.acting()
    directory = await client.directory()
    if node not in {name for name, _ in directory.nodes}:
        raise Refused(404, "not-found", f"there is no node {node!r}")
    await client.crash(node, act_for=principal)
