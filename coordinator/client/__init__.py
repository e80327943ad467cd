"""The Python client: locks, keys and sessions, without Django and without Celery.

    from coordinator.client import Client

    client = Client()                                   # CONCLAVE_URL and CONCLAVE_TOKEN
    with client.lock("deploy", ttl=15, wait=30) as lease:
        lease.token                                     # send it along with what the lock guards
        lease.check()                                   # raises once the lease can not be proven held

`AsyncClient` is the same for asyncio. `client.files` has files, directories, ranges and watches, `client.locks` has
locks in all modes, `client.session` tells what becomes of a session; transactions are written with
`coordinator.client.transactions`, and what is made of all that is in `coordinator.client.recipes`. Errors are in
`coordinator.client.errors`, and here.
"""

from coordinator import compiled, records

compiled.use_in_client()  # before anything of what is compiled is imported

# ruff: noqa: E402

from coordinator.client.aio import AsyncClient, AsyncLease
from coordinator.client.errors import (
    Aborted,
    Broken,
    Busy,
    Changed,
    Closed,
    Compacted,
    ConclaveError,
    Deadlock,
    Exists,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    NotEmpty,
    NotFound,
    OutcomeUnknown,
    Refused,
    RequestCancelled,
    SessionGone,
    TooMany,
    Unavailable,
    WrongKind,
)
from coordinator.client.events import FailOver
from coordinator.client.jeopardy import Standing
from coordinator.client.locks import Hold
from coordinator.client.sync import Client, Lease
from coordinator.client.watches import Snapshot, Watch
from coordinator.statemachine.lock_commands import LockEvent

__all__ = [
    "Aborted",
    "AsyncClient",
    "AsyncLease",
    "Broken",
    "Busy",
    "Changed",
    "Client",
    "Closed",
    "Compacted",
    "ConclaveError",
    "Deadlock",
    "Exists",
    "FailOver",
    "Forbidden",
    "Hold",
    "InvalidRequest",
    "Lease",
    "LeaseLost",
    "LockEvent",
    "LockNotAcquired",
    "NotEmpty",
    "NotFound",
    "OutcomeUnknown",
    "Refused",
    "RequestCancelled",
    "SessionGone",
    "Snapshot",
    "Standing",
    "TooMany",
    "Unavailable",
    "Watch",
    "WrongKind",
]

records.quicken("coordinator")
