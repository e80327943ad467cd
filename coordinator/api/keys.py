"""Keys: small values as raw bytes, read linearizably."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from ninja import Router

from coordinator.api.auth import ApiRequest
from coordinator.api.errors import Refused
from coordinator.api.locks import REFUSALS
from coordinator.api.schemas import ClusterName, KeyDeleted, KeyWritten, Problem, name_in_path
from coordinator.statemachine import commands

router = Router(tags=["keys"])

BYTES: dict[str, Any] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/{path:key}",
    response={404: Problem, **REFUSALS},
    summary="Read a key",
    openapi_extra={
        "responses": {
            200: {
                "description": "The value, as it was written",
                "headers": {
                    "Conclave-Revision": {
                        "description": "The log index that wrote the value.",
                        "schema": {"type": "integer"},
                    },
                    "Conclave-Version": {
                        "description": "How often the key was written.",
                        "schema": {"type": "integer"},
                    },
                },
                **BYTES,
            }
        }
    },
)
async def read(request: ApiRequest, cluster: ClusterName, key: str) -> HttpResponse:
    """The value as raw bytes, as of a moment after the call came in. 404 where there is no such key."""
    key = name_in_path(key)
    client, principal = await request.auth.acting()
    item = await client.query(commands.GetKey(key), act_for=principal)
    assert isinstance(item, commands.KeyValue), item
    if item.value is None:
        raise Refused(404, "not-found", f"there is no key {key!r}")
    response = HttpResponse(item.value, content_type="application/octet-stream")
    response["Conclave-Revision"] = str(item.revision)
    response["Conclave-Version"] = str(item.version)
    response["Content-Disposition"] = "attachment"
    return response


@router.put(
    "/{path:key}",
    response={200: KeyWritten, 413: Problem, **REFUSALS},
    summary="Write a key",
    openapi_extra={"requestBody": {"required": True, "description": "The value, at most 1 MiB.", **BYTES}},
)
async def write(request: ApiRequest, cluster: ClusterName, key: str) -> KeyWritten:
    """The body is the value, as it is."""
    key = name_in_path(key)
    value = request.body
    if len(value) > commands.VALUE_BYTES_MAX:
        raise Refused(413, "too-large", f"a value has at most {commands.VALUE_BYTES_MAX} bytes; came {len(value)}")
    client, principal = await request.auth.acting()
    done = await client.command(commands.PutKey(key, value), act_for=principal)
    assert isinstance(done, commands.Done), done
    return KeyWritten(key=key, revision=done.index, existed=done.existed)


@router.delete("/{path:key}", response={200: KeyDeleted, **REFUSALS}, summary="Delete a key")
async def delete(request: ApiRequest, cluster: ClusterName, key: str) -> KeyDeleted:
    """Deleting what is not there is no error; `deleted` says which it was."""
    key = name_in_path(key)
    client, principal = await request.auth.acting()
    done = await client.command(commands.DeleteKey(key), act_for=principal)
    assert isinstance(done, commands.Done), done
    return KeyDeleted(key=key, deleted=done.existed, revision=done.index)
