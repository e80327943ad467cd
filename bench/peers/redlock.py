"""Redlock over three Redis servers that sync before they answer, as its own page asks for safety over restarts.

Written here out of three `redis.lock.Lock`: a lock is held where a majority granted it within its time to live less the
time that took and a drift of 1 % and 2 ms; what was not enough is let go everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import MEMBERS, Operation, Peer, PeerClient, free_ports, members
from bench.peers.redis_alone import CONNECTIONS_MAX, LEASE_S
from bench.peers.redis_server import listens, redis_command, redis_version

QUORUM: Final = MEMBERS // 2 + 1
DRIFT_S: Final = LEASE_S * 0.01 + 0.002


class Server(Peer):
    name = "redlock"
    works: ClassVar[frozenset[str]] = frozenset({"lock"})
    about = "three servers with appendfsync always; the algorithm over three redis.lock.Lock, one after the other"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.ports = dict(zip(members(), free_ports(MEMBERS), strict=True))

    @classmethod
    def check(cls) -> str:
        import redis

        return f"{redis_version()}, redis-py {redis.__version__}"

    def start(self) -> None:
        for member, port in self.ports.items():
            self.launch(member, redis_command(self.directory / member, port, fsync=True))
        self.until(lambda: all(map(listens, self.ports.values())), "three Redis servers listen")

    def connection(self) -> dict[str, Any]:
        return {"ports": [*self.ports.values()]}


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        import redis

        super().__init__(connection, number)
        self.clients = [redis.Redis(port=port, max_connections=CONNECTIONS_MAX) for port in connection["ports"]]

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        from redis.exceptions import RedisError

        locks = [client.lock(name, timeout=LEASE_S, blocking=False) for client in self.clients]

        def granted(lock: Any) -> bool:
            with suppress(RedisError):
                return bool(lock.acquire())
            return False

        def release() -> None:
            for lock in locks:
                with suppress(RedisError):  # not held there, or not there
                    lock.release()

        def acquire() -> bool:
            until_s = time.monotonic() + LEASE_S - DRIFT_S
            if sum([granted(lock) for lock in locks]) >= QUORUM and time.monotonic() < until_s:
                return True
            release()
            return False

        return acquire, release

    def close(self) -> None:
        for client in self.clients:
            client.close()
