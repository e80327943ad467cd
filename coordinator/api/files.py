"""Files and directories over HTTP: contents as raw bytes, everything else as JSON."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpResponse
from ninja import Body, Path, Query, Router, Status

from coordinator.api.auth import ApiRequest
from coordinator.api.errors import Refused
from coordinator.api.file_schemas import (
    GENERATION_MAX,
    AttachedOut,
    AttachIn,
    CompactedOut,
    CompactIn,
    CreatedOut,
    DeletedOut,
    DirectoryOut,
    StatOut,
    WrittenOut,
)
from coordinator.api.keys import BYTES
from coordinator.api.locks import REFUSALS
from coordinator.api.owning import with_session
from coordinator.api.schemas import ClusterName, Problem, SessionName, name_in_path, session_number
from coordinator.client import AsyncClient, conditional
from coordinator.client.errors import refuse
from coordinator.statemachine import commands, files

router = Router(tags=["files"])
directories = Router(tags=["files"])
stats = Router(tags=["files"])
attachments = Router(tags=["files"])
compactions = Router(tags=["files"])

_CONFLICTS: dict[Any, Any] = {409: Problem, **REFUSALS}
_CONTENT: dict[str, Any] = {"requestBody": {"required": True, "description": "The content, at most 1 MiB.", **BYTES}}

Generation = Annotated[
    int, Query(ge=-1, le=GENERATION_MAX, description="Only where the content generation is this; -1: any.")
]
Instance = Annotated[int, Query(ge=-1, le=GENERATION_MAX, description="Only where the instance is this; -1: any.")]
LastRevision = Annotated[
    int | None,
    Query(ge=0, le=GENERATION_MAX, description="Only where this revision wrote it last. Takes the right to read, too."),
]
Revision = Annotated[int, Query(ge=0, le=GENERATION_MAX, description="The state at this revision; 0: now.")]


def content_of(request: ApiRequest) -> bytes:
    if len(request.body) > commands.VALUE_BYTES_MAX:
        detail = f"a content has at most {commands.VALUE_BYTES_MAX} bytes; came {len(request.body)}"
        raise Refused(413, "too-large", detail)
    return request.body


@router.get(
    "/{path:path}",
    response={404: Problem, 410: Problem, **_CONFLICTS},
    summary="Read a file",
    openapi_extra={
        "responses": {
            200: {
                "description": "The content, as it was written",
                "headers": {
                    "Conclave-Revision": {"description": "What wrote it last.", "schema": {"type": "integer"}},
                    "Conclave-Version": {"description": "Its content generation.", "schema": {"type": "integer"}},
                    "Conclave-Instance": {"description": "What created it.", "schema": {"type": "integer"}},
                },
                **BYTES,
            }
        }
    },
)
async def read(
    request: ApiRequest, cluster: ClusterName, path: Annotated[str, Path()], revision: Revision = 0
) -> HttpResponse:
    """The content as raw bytes, now or at a revision that is still kept (410 where it is not)."""
    path = name_in_path(path)
    client, principal = await request.auth.acting()
    found = refuse(await client.query(files.ReadFile(path, revision), act_for=principal))
    assert isinstance(found, files.FileContent), found
    response = HttpResponse(found.value, content_type="application/octet-stream")
    response["Conclave-Revision"] = str(found.stat.revision)
    response["Conclave-Version"] = str(found.stat.version)
    response["Conclave-Instance"] = str(found.stat.instance)
    response["Content-Disposition"] = "attachment"
    return response


@router.post(
    "/{path:path}",
    response={201: CreatedOut, 410: Problem, 413: Problem, **_CONFLICTS},
    summary="Create a file",
    openapi_extra=_CONTENT,
)
async def create(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Path()],
    sequential: Annotated[bool, Query(description="Put 19 digits behind its name that only ever grow.")] = False,
    parents: Annotated[bool, Query(description="Make directories that are missing.")] = False,
    ephemeral: Annotated[
        SessionName | None, Query(description="A session: the file goes when that ends. Keep the session alive.")
    ] = None,
) -> Status[CreatedOut]:
    """The body is its content. 409 where there is one, 404 where there is no such directory."""
    path, value = name_in_path(path), content_of(request)
    client, principal = await request.auth.acting()

    async def ask(owner: int) -> Any:
        op = files.CreateFile(path, value, ephemeral is not None, sequential, parents, owner)
        return refuse(await client.command(op, act_for=principal))

    if ephemeral is not None:
        created = await ask(session_number(ephemeral))
    else:
        created = await with_session(client, cluster, principal, ask)
    assert isinstance(created, files.Created), created
    return Status(201, CreatedOut(path=created.path, revision=created.revision))


@router.put(
    "/{path:path}",
    response={200: WrittenOut, 413: Problem, **_CONFLICTS},
    summary="Write a file",
    openapi_extra=_CONTENT,
)
async def write(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Path()],
    generation: Generation = -1,
    instance: Instance = -1,
    revision: LastRevision = None,
) -> WrittenOut:
    """Replace the content of a file that is there. 409 `changed` where it is of another generation, instance or
    revision than was named; the refusal tells those of now. A revision is never used again, not even after a restore,
    as a generation may be."""
    path, value = name_in_path(path), content_of(request)
    client, principal = await request.auth.acting()
    done = await _where(client, principal, files.WriteFile(path, value, generation, instance), revision)
    assert isinstance(done, commands.Done), done
    return WrittenOut(path=path, revision=done.index)


@router.delete("/{path:path}", response={200: DeletedOut, **_CONFLICTS}, summary="Delete a file or a directory")
async def delete(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Path()],
    recursive: Annotated[bool, Query(description="A directory with all that is below it.")] = False,
    generation: Generation = -1,
    instance: Instance = -1,
    revision: LastRevision = None,
) -> DeletedOut:
    """404 where there is nothing, 409 where a directory is not empty or the file has changed."""
    path = name_in_path(path)
    client, principal = await request.auth.acting()
    op = files.DeletePath(path, recursive, generation, instance)
    deleted = await _where(client, principal, op, revision)
    assert isinstance(deleted, files.Deleted), deleted
    return DeletedOut(deleted=deleted.count, revision=deleted.revision)


async def _where(
    client: AsyncClient, principal: str, op: files.WriteFile | files.DeletePath, revision: int | None
) -> Any:
    if revision is None:
        return refuse(await client.command(op, act_for=principal))
    result = await client.command(conditional.unchanged(op.path, revision, op), act_for=principal)
    return refuse(conditional.outcome(op.path, result))


@stats.get("/{path:path}", response={200: StatOut, 410: Problem, **REFUSALS}, summary="Look at a file or a directory")
async def stat(
    request: ApiRequest, cluster: ClusterName, path: Annotated[str, Path()], revision: Revision = 0
) -> StatOut:
    """Now, or at a revision that is still kept (410 where it is not)."""
    path = name_in_path(path)
    client, principal = await request.auth.acting()
    query = files.ReadStat(path, revision) if revision else files.GetStat(path)
    found = refuse(await client.query(query, act_for=principal))
    assert isinstance(found, files.Stat), found
    return StatOut.of(found)


After = Annotated[str | None, Query(max_length=commands.NAME_BYTES_MAX, description="Names after this one.")]
Limit = Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)]


@directories.get("", response={200: DirectoryOut, 410: Problem, **_CONFLICTS}, summary="List the root")
async def list_root(
    request: ApiRequest, cluster: ClusterName, after: After = None, limit: Limit = 100, revision: Revision = 0
) -> DirectoryOut:
    return await _list(request, "", after, limit, revision)


@directories.get("/{path:path}", response={200: DirectoryOut, 410: Problem, **_CONFLICTS}, summary="List a directory")
async def list_directory(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Path()],
    after: After = None,
    limit: Limit = 100,
    revision: Revision = 0,
) -> DirectoryOut:
    """What is directly in it, in pages, now or at a revision that is still kept (410 where it is not)."""
    return await _list(request, name_in_path(path.rstrip("/")), after, limit, revision)


async def _list(request: ApiRequest, path: str, after: str | None, limit: int, revision: int) -> DirectoryOut:
    client, principal = await request.auth.acting()
    query: commands.Query = files.ListDirectory(path, after, limit)
    if revision:
        query = files.ReadDirectory(path, revision, after, limit)
    page = refuse(await client.query(query, act_for=principal))
    assert isinstance(page, files.DirectoryList), page
    return DirectoryOut.of(page)


@directories.post("/{path:path}", response={201: CreatedOut, **_CONFLICTS}, summary="Make a directory")
async def make_directory(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Path()],
    parents: Annotated[bool, Query(description="Also those above it; no error if it is there.")] = False,
) -> Status[CreatedOut]:
    """One that stays when it is empty."""
    path = name_in_path(path.rstrip("/"))
    client, principal = await request.auth.acting()
    created = refuse(await client.command(files.MakeDirectory(path, parents), act_for=principal))
    assert isinstance(created, files.Created), created
    return Status(201, CreatedOut(path=created.path, revision=created.revision))


@attachments.post("", response={200: AttachedOut, 410: Problem, **_CONFLICTS}, summary="Attach a session to a file")
async def attach(request: ApiRequest, cluster: ClusterName, payload: Annotated[AttachIn, Body()]) -> AttachedOut:
    """An ephemeral file then lives as long as this session does too. Said again it changes nothing."""
    path, session = name_in_path(payload.path), session_number(payload.session)
    client, principal = await request.auth.acting()
    done = refuse(await client.command(files.AttachFile(path, session), act_for=principal))
    assert isinstance(done, commands.Done), done
    return AttachedOut(path=path, session=payload.session, revision=done.index, was_attached=done.existed)


@attachments.delete("", response={200: AttachedOut, 410: Problem, **_CONFLICTS}, summary="Detach a session from a file")
async def detach(
    request: ApiRequest,
    cluster: ClusterName,
    path: Annotated[str, Query(max_length=commands.NAME_BYTES_MAX + 1, description="An ephemeral file.")],
    session: Annotated[SessionName, Query(description="What it is no longer to depend on.")],
) -> AttachedOut:
    """An ephemeral file then no longer depends on this session. It goes with the last one."""
    path, number = name_in_path(path), session_number(session)
    client, principal = await request.auth.acting()
    done = refuse(await client.command(files.DetachFile(path, number), act_for=principal))
    assert isinstance(done, commands.Done), done
    return AttachedOut(path=path, session=session, revision=done.index, was_attached=done.existed)


@compactions.post("", response={200: CompactedOut, 410: Problem, **REFUSALS}, summary="Give up old revisions")
async def compact(request: ApiRequest, cluster: ClusterName, payload: Annotated[CompactIn, Body()]) -> CompactedOut:
    """The history up to `revision`, which stays the oldest that can be read. Takes the right to administer. 410
    `compacted` where more is given up already."""
    client, principal = await request.auth.acting()
    refuse(await client.command(files.Compact(payload.revision), act_for=principal))
    return CompactedOut(oldest=payload.revision)
