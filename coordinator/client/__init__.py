"""The Python client: locks, keys and sessions, without Django and without Celery.

    from coordinator.client import Client

    client = Client()                                   # CONCLAVE_URL and CONCLAVE_TOKEN
    with client.lock("deploy", ttl=15, wait=30) as lease:
        lease.token                                     # send it along with what the lock guards
        lease.check()                                   # raises once the lease can not be proven held

`AsyncClient` is the same for asyncio. Errors are in `coordinator.client.errors`, and here.
"""

from coordinator.client.aio import AsyncClient, AsyncLease
from coordinator.client.errors import (
    Busy,
    ConclaveError,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    LockNotAcquired,
    NotFound,
    OutcomeUnknown,
    Refused,
    RequestCancelled,
    SessionGone,
    Unavailable,
)
from coordinator.client.sync import Client, Lease

__all__ = [
    "AsyncClient",
    "AsyncLease",
    "Busy",
    "Client",
    "ConclaveError",
    "Forbidden",
    "InvalidRequest",
    "Lease",
    "LeaseLost",
    "LockNotAcquired",
    "NotFound",
    "OutcomeUnknown",
    "Refused",
    "RequestCancelled",
    "SessionGone",
    "Unavailable",
]
