"""What belongs into the audit: it is done to its end and written down, also where its caller is gone meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from coordinator import access, audit

Done = TypeVar("Done")


async def audited(entry: dict[str, Any], work: Callable[[], Awaitable[Done]]) -> Done:
    """What `work` comes to. It runs as a task of its own: what was asked of a cluster may be done though nobody waits
    for the answer any more. `entry` is what the audit is told; `work` may add to its `details`."""
    return await asyncio.shield(access.spawn(_run(entry, work), f"{entry['action']} {entry['target']}"))


async def _run(entry: dict[str, Any], work: Callable[[], Awaitable[Done]]) -> Done:
    try:
        done = await work()
    except Exception as error:
        entry["details"] = entry.get("details", {}) | {"error": str(error)}
        await audit.akeep(**entry, outcome=audit.outcome_of(error))
        raise
    await audit.akeep(**entry)
    return done
