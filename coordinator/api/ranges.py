"""Ranges, their changes and the events of their locks, transactions and counters over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from ninja import Body, Query, Router

from coordinator.api.auth import ApiRequest
from coordinator.api.errors import RETRY_AFTER_S
from coordinator.api.file_schemas import (
    GENERATION_MAX,
    AmountIn,
    ChangesOut,
    CountedOut,
    DeletedOut,
    RangeOut,
    TransactionIn,
    TransactionOut,
    range_named,
)
from coordinator.api.hold_schemas import LockEventsOut
from coordinator.api.locks import REFUSALS
from coordinator.api.owning import with_session
from coordinator.api.schemas import ClusterName, Problem, name_in_path
from coordinator.client import AsyncClient, errors
from coordinator.client.errors import refuse
from coordinator.statemachine import commands, files, lock_commands

ranges = Router(tags=["files"])
changes = Router(tags=["files"])
lock_events = Router(tags=["locks"])
transactions = Router(tags=["files"])
counters = Router(tags=["keys"])

WAIT_MS_MAX: Final = 60_000
"""Of a call that waits for a change."""
WATCHING_MAX: Final = 2_000
"""Calls of this process that may wait for changes at once; the next one is refused."""

_ONE = AmountIn.model_validate({})
_watching = 0
_waits: dict[asyncio.Task[Any], bool] = {}
"""The tasks of those that wait; True: it was told that this process ends."""

Start = Annotated[
    str,
    Query(
        max_length=commands.NAME_BYTES_MAX, description="A key, or where a range begins; with `prefix` may be empty."
    ),
]
End = Annotated[
    str, Query(max_length=commands.NAME_BYTES_MAX, description="Up to before this key; empty: `start` alone.")
]
Prefix = Annotated[bool, Query(description="All keys that begin with `start`.")]
Position = Annotated[int, Query(ge=0, le=GENERATION_MAX)]


@ranges.get("", response={200: RangeOut, 410: Problem, **REFUSALS}, summary="Read a range")
async def read(
    request: ApiRequest,
    cluster: ClusterName,
    start: Start,
    end: End = "",
    prefix: Prefix = False,
    revision: Annotated[int, Query(ge=0, le=GENERATION_MAX, description="The state at this revision; 0: now.")] = 0,
    limit: Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)] = 100,
    sort_by: Literal["key", "value", "version", "instance", "revision"] = "key",
    descending: bool = False,
    keys_only: bool = False,
    after: Annotated[str, Query(max_length=commands.NAME_BYTES_MAX, description="Only keys behind this one.")] = "",
) -> RangeOut:
    """A page of keys, all at one revision. 410 where that revision is not kept any more."""
    query = files.ReadRange(
        *range_named(start, end, prefix=prefix),
        revision,
        limit,
        sort_by,
        descending,
        keys_only,
        after=after and name_in_path(after),
    )
    client, principal = await request.auth.acting()
    view = refuse(await client.query(query, act_for=principal))
    assert isinstance(view, files.RangeView), view
    return RangeOut.of(view)


@ranges.delete("", response={200: DeletedOut, **REFUSALS}, summary="Delete a range")
async def delete(
    request: ApiRequest, cluster: ClusterName, start: Start, end: End = "", prefix: Prefix = False
) -> DeletedOut:
    """All its keys, in one revision."""
    op = files.DeleteRange(*range_named(start, end, prefix=prefix))
    client, principal = await request.auth.acting()
    deleted = refuse(await client.command(op, act_for=principal))
    assert isinstance(deleted, files.Deleted), deleted
    return DeletedOut(deleted=deleted.count, revision=deleted.revision)


@changes.get("", response={200: ChangesOut, 410: Problem, **REFUSALS}, summary="Wait for changes")
async def read_changes(
    request: ApiRequest,
    cluster: ClusterName,
    start: Start,
    end: End = "",
    prefix: Prefix = False,
    since: Annotated[int, Query(ge=0, le=GENERATION_MAX, description="From this revision on; 0: from now on.")] = 0,
    skip: Annotated[int, Query(ge=0, le=GENERATION_MAX, description="As the page before said.")] = 0,
    limit: Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)] = 100,
    puts: bool = True,
    deletes: bool = True,
    previous: Annotated[bool, Query(description="Tell what was there before, too.")] = False,
    wait_ms: Annotated[int, Query(ge=0, le=WAIT_MS_MAX, description="How long to wait for the first change.")] = 0,
) -> ChangesOut:
    """The changes to a range in their order, each once, over any change of leader: ask again from the `since` and
    `skip` of the page before. 410 `compacted` where they are not kept any more: read the range anew, and go on behind
    its revision."""
    query = files.ReadChanges(
        *range_named(start, end, prefix=prefix),
        since,
        skip,
        limit,
        puts,
        deletes,
        previous,
    )
    client, principal = await request.auth.acting()
    return ChangesOut.of(await _wait(client, principal, query, wait_ms / 1000))


@lock_events.get("", response={200: LockEventsOut, 410: Problem, **REFUSALS}, summary="Wait for events of locks")
async def read_lock_events(
    request: ApiRequest,
    cluster: ClusterName,
    start: Start,
    end: End = "",
    prefix: Prefix = False,
    since: Annotated[int, Query(ge=0, le=GENERATION_MAX, description="From this revision on; 0: from now on.")] = 0,
    skip: Annotated[int, Query(ge=0, le=GENERATION_MAX, description="As the page before said.")] = 0,
    limit: Annotated[int, Query(ge=1, le=commands.LIST_LIMIT_MAX)] = 100,
    acquired: Annotated[bool, Query(description="Somebody came to hold a name.")] = True,
    conflicts: Annotated[bool, Query(description="Somebody asked for a name that others hold.")] = True,
    released: Annotated[bool, Query(description="A hold ended, in whatever way.")] = True,
    term: Annotated[
        int, Query(ge=0, le=GENERATION_MAX, description="As the page before said; 0: fail-overs are not told.")
    ] = 0,
    wait_ms: Annotated[int, Query(ge=0, le=WAIT_MS_MAX, description="How long to wait for the first event.")] = 0,
) -> LockEventsOut:
    """What becomes of the locks of a range of names, in order, each once, as `changes` are told: ask again from the
    `since` and `skip` of the page before. With the `term` of that page it is also told, at once, that another leader
    took over (`fail_over`). 410 `compacted` where events are not kept any more."""
    span = range_named(start, end, prefix=prefix)
    query = lock_commands.events_of(span, since, skip, limit, acquired=acquired, conflicts=conflicts, released=released)
    client, principal = await request.auth.acting()
    with _one_more_waits():
        heard = await client.wait_for_lock_events(query, wait=wait_ms / 1000, term=term, act_for=principal)
    return LockEventsOut.of(heard, term)


async def _wait(client: AsyncClient, principal: str, query: files.ReadChanges, wait_s: float) -> files.ChangePage:
    with _one_more_waits():
        return await client.wait_for_changes(query, wait=wait_s, act_for=principal)


def end_all() -> None:
    """This process ends: answer every caller that waits."""
    for task in [task for task, is_told in _waits.items() if not is_told]:
        _waits[task] = True
        task.cancel()


@contextlib.contextmanager
def _one_more_waits() -> Iterator[None]:
    """Raises Busy where as many wait as may, Unavailable where this process ends meanwhile."""
    global _watching  # noqa: PLW0603 - a count of this process
    if _watching >= WATCHING_MAX:
        raise errors.Busy(
            f"this server has its {WATCHING_MAX} calls that wait for changes; ask again later",
            retry_after=float(RETRY_AFTER_S),
        )
    task = asyncio.current_task()
    assert task is not None, "a view runs in a task"
    _watching += 1
    _waits[task] = False
    try:
        yield
    except asyncio.CancelledError:
        if not _waits[task]:
            raise  # Its caller is gone.
        task.uncancel()
        raise errors.Unavailable("this web process ends; ask again from where you are") from None
    finally:
        _watching -= 1
        del _waits[task]


@transactions.post("", response={200: TransactionOut, 409: Problem, **REFUSALS}, summary="Do a transaction")
async def transact(
    request: ApiRequest, cluster: ClusterName, payload: Annotated[TransactionIn, Body()]
) -> TransactionOut:
    """Where all of `when` hold, do `then`, else `otherwise`: in one revision, all of it or nothing. 409 `aborted` where
    an operation was refused, with its `place`; then nothing was done."""
    payload.command(0)  # What makes no sense is refused before anything is asked.
    client, principal = await request.auth.acting()

    async def ask(session: int) -> Any:
        try:
            return refuse(await client.command(payload.command(session), act_for=principal))
        except errors.Aborted as aborted:
            if isinstance(aborted.cause, errors.SessionGone):
                raise aborted.cause from None
            raise

    done = await (with_session(client, cluster, principal, ask) if payload.creates() else ask(0))
    assert isinstance(done, commands.Transacted), done
    return TransactionOut.of(done)


@counters.post("/{path:key}", response={200: CountedOut, 409: Problem, **REFUSALS}, summary="Add to a counter")
async def add(
    request: ApiRequest,
    cluster: ClusterName,
    key: str,
    payload: Annotated[AmountIn, Body()] = _ONE,
) -> CountedOut:
    """A key whose value is a decimal number of 64 bits; one that is not there counts from 0."""
    key = name_in_path(key)
    client, principal = await request.auth.acting()
    counted = refuse(await client.command(files.AddToKey(key, payload.amount), act_for=principal))
    assert isinstance(counted, files.Counted), counted
    return CountedOut(value=counted.value, revision=counted.revision)
