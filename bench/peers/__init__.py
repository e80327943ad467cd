"""The peers of the comparison, one file each, all behind `bench.peers.base`."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from coordinator import compiled

# ruff: noqa: E402
compiled.use_in_client()  # Before anything of it is imported, as it is by what starts a peer's servers.

from bench.peers.base import Peer, PeerClient

MODULES: Final = {
    "conclave": "bench.peers.conclave",
    "floor": "bench.peers.floor",
    "etcd": "bench.peers.etcd",
    "zookeeper": "bench.peers.zookeeper",
    "pysyncobj": "bench.peers.pysyncobj",
    "redlock": "bench.peers.redlock",
    "redis": "bench.peers.redis_alone",
    "redis-fsync": "bench.peers.redis_fsync",
}
"""In the order of the table. Each module has one class `Server(Peer)` and one class `Client(PeerClient)`."""


def server_class(name: str) -> type[Peer]:
    """Raises KeyError."""
    found: type[Peer] = import_module(MODULES[name]).Server
    return found


def client_class(name: str) -> type[PeerClient]:
    """Raises KeyError, and ImportError where the peer's Python client is not installed."""
    found: type[PeerClient] = import_module(MODULES[name]).Client
    return found
