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


class CheckpointReset(NamedTuple):
    """The keep-alives of this session that waited for that may be answered."""

    session: int


class StateMarked(NamedTuple):
    """Here the replicas compare their states."""


class LevelUnknown(NamedTuple):
    """From here on the cluster is of a level that this program does not know: what is behind it must not be applied."""

    level: int


class LockDelayed(NamedTuple):
    """A holder died: `name` stays unavailable until the leader, after `delay_ms`, proposes the end of the delay that is
    `since` this index."""

    name: str
    since: int
    delay_ms: int


class LockDelayEnded(NamedTuple):
    """The delay of `name` that was `since` this index is over: it has passed, or an operator ended it."""

    name: str
    since: int


class LockBroken(NamedTuple):
    """A hold was ended by force."""

    session: int
    name: str
    acquisition: int


Event = (
    GrantMade
    | SessionBegan
    | SessionEnded
    | StateMarked
    | CheckpointReset
    | LevelUnknown
    | LockDelayed
    | LockDelayEnded
    | LockBroken
)
