"""What an entry brought about that the host must tell others: it takes them from `Machine.events`, in order."""

from __future__ import annotations

from typing import NamedTuple


class GrantMade(NamedTuple):
    """A waiter became the holder."""

    session: int
    name: str
    acquisition: int
    token: int


class SessionBegan(NamedTuple):
    session: int
    ttl_ms: int


class SessionEnded(NamedTuple):
    session: int


Event = GrantMade | SessionBegan | SessionEnded
