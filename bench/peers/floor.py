"""The floor (`bench.floor`) in the place of a peer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bench.floor import FOLLOWERS, FloorClient
from bench.peers.base import Operation, Peer, PeerClient
from bench.peers.redis_server import listens, redis_command, redis_version
from coordinator.ports import free_port


class Server(Peer):
    name = "floor"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write", "read"})
    about = "the same processes and hops with one fdatasync a turn, opaque bytes and nothing else (bench/floor.py)"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.socket = directory / "redis.sock"

    @classmethod
    def check(cls) -> str:
        return redis_version()

    def start(self) -> None:
        command = redis_command(self.directory / "redis", self.port, fsync=False)
        self.launch("redis", [*command, "--unixsocket", str(self.socket)])
        self.until(lambda: listens(self.port), "Redis listens")
        for number in (0, *FOLLOWERS):
            log = self.directory / f"log{number}"
            self.launch(f"replica{number}", [
                sys.executable, "-m", "bench.floor", "--replica", str(self.socket), str(log), str(number),
            ])  # fmt: skip
            self.until(log.exists, f"replica {number} listens")

    def connection(self) -> dict[str, Any]:
        return {"socket": str(self.socket)}


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        super().__init__(connection, number)
        floor = FloorClient(connection["socket"], number)
        self.drive = floor.drive

    def write(self, key: str) -> Operation:
        return lambda: None
