"""The wanted membership: make the database say again what the log says."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from ninja import Router

from coordinator import audit
from coordinator.api.audited import audited
from coordinator.api.auth import ApiRequest
from coordinator.api.locks import REFUSALS
from coordinator.api.schemas import ClusterName, RebuiltOut
from coordinator.membership import edits
from coordinator.statemachine import commands

router = Router(tags=["membership"])


@router.post("/rebuild", response={200: RebuiltOut, **REFUSALS}, summary="Take the log's word on the membership")
async def rebuild(request: ApiRequest, cluster: ClusterName) -> RebuiltOut:
    """Make the database say what the log says of the wanted membership, after it was lost or put back.

    Nothing else changes: locks, keys and votes are not in the database. Takes the right to administer.
    """
    entry: dict[str, Any] = {
        "actor": request.auth.actor,
        "principal": request.auth.principal,
        "action": audit.CLUSTER_REBUILT,
        "target": cluster,
    }

    async def take_word() -> int:
        generation = await _rebuild(request)
        entry["details"] = {"generation": generation}
        return generation

    return RebuiltOut(generation=await audited(entry, take_word))


async def _rebuild(request: ApiRequest) -> int:
    client, principal = await request.auth.acting()
    view = await client.query(commands.GetWantedMembership(), act_for=principal)
    word = edits.Word(client.cluster_id, view, await client.directory(), await client.status())
    return await sync_to_async(edits.take_word)(request.auth.cluster, word)
