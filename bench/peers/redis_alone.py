"""`redis.lock.Lock` on one Redis without fsync: what most teams run. One process that dies takes every lock with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import VALUE_BYTES, Operation, Peer, PeerClient
from bench.peers.redis_server import listens, redis_command, redis_version
from coordinator.ports import free_port

LEASE_S: Final = 15.0
CONNECTIONS_MAX: Final = 1_024
"""One for each caller at the most; redis-py refuses above its own, smaller bound."""


class Server(Peer):
    name = "redis"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "handover"})
    about = "redis.lock.Lock on one server, nothing on disk, waiting by its default sleep of 0.1 s"
    fsync: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

    @classmethod
    def check(cls) -> str:
        import redis

        return f"{redis_version()}, redis-py {redis.__version__}"

    def start(self) -> None:
        self.launch("redis", redis_command(self.directory / "redis", self.port, fsync=self.fsync))
        self.until(lambda: listens(self.port), "Redis listens")

    def connection(self) -> dict[str, Any]:
        return {"port": self.port}


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        import redis

        super().__init__(connection, number)
        self.client = redis.Redis(port=connection["port"], max_connections=CONNECTIONS_MAX)
        self.value = bytes(VALUE_BYTES)

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        lock = self.client.lock(name, timeout=LEASE_S)
        return lambda: bool(lock.acquire()), lock.release

    def write(self, key: str) -> Operation:
        return lambda: self.client.set(key, self.value)

    def close(self) -> None:
        self.client.close()
