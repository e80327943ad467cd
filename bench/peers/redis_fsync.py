"""One Redis that syncs its append-only file before it answers a write (`appendfsync always`): one disk, no replica."""

from __future__ import annotations

from typing import ClassVar

from bench.peers import redis_alone


class Server(redis_alone.Server):
    name = "redis-fsync"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write"})
    about = "one server with appendfsync always; redis.lock.Lock, SET"
    fsync: ClassVar[bool] = True


class Client(redis_alone.Client):
    pass
