"""Starting a plain Redis server, for the peers that are made of some."""

from __future__ import annotations

import socket
from pathlib import Path

from coordinator.embedded_redis import find_server


def redis_command(directory: Path, port: int, *, fsync: bool) -> list[str]:
    """A server on 127.0.0.1. `fsync`: every write is in its append-only file and synced before it is answered."""
    directory.mkdir(exist_ok=True)
    command = [str(find_server().program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    command += ["--save", "", "--daemonize", "no"]
    return [*command, *(["--appendonly", "yes", "--appendfsync", "always"] if fsync else ["--appendonly", "no"])]


def redis_version() -> str:
    server = find_server()
    return f"Redis {'.'.join(map(str, server.version))}"


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(7).startswith(b"+PONG")
