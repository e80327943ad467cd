"""etcd at its defaults, driven by python-etcd3: a client process speaks to one member, as that client does.

In the throughput works that is the leader, which saves etcd a hop. In fail-over it is a follower, so that no connection
has to be made anew, with a time-out of a quarter of a second on each write: without one, python-etcd3 waits 7 s for
what the dead leader took along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import MEMBERS, VALUE_BYTES, Operation, Peer, PeerClient, free_ports, members, program

LOCK_WAIT_S: Final = 10.0
FAILOVER_TIMEOUT_S: Final = 0.25
WATCH_TIMEOUT_S: Final = 2.0


def client_of(port: int, timeout_s: float | None = None) -> Any:
    """Of a member on this machine, to which no proxy leads: gRPC would ask the one that `http_proxy` names."""
    import etcd3

    return etcd3.client("127.0.0.1", port, timeout=timeout_s, grpc_options=[("grpc.enable_http_proxy", 0)])


class Server(Peer):
    name = "etcd"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write", "read", "handover", "failover", "silence"})
    about = "three members at their defaults; python-etcd3 0.12.0, locks with its own default of 60 s to live"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        ports = free_ports(2 * MEMBERS)
        self.client_ports = dict(zip(members(), ports[:MEMBERS], strict=True))
        self.peer_ports = dict(zip(members(), ports[MEMBERS:], strict=True))
        self.watchers: dict[str, Any] = {}

    @classmethod
    def check(cls) -> str:
        import subprocess
        from importlib.metadata import version

        import etcd3

        assert etcd3.Lock
        etcd = program("etcd", "etcd-server")
        said = subprocess.run([etcd, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        return f"{said}, python-etcd3 {version('etcd3')}, grpcio {version('grpcio')}, protobuf {version('protobuf')}"

    def start(self) -> None:
        for member in members():
            self.launch_member(member)
        self.watchers = {member: client_of(port, WATCH_TIMEOUT_S) for member, port in self.client_ports.items()}
        self.until(self.is_whole, "etcd serves")

    def member_command(self, member: str) -> tuple[list[str], dict[str, str]]:
        client = f"http://127.0.0.1:{self.client_ports[member]}"
        peers = {name: f"http://127.0.0.1:{port}" for name, port in self.peer_ports.items()}
        command = [program("etcd", "etcd-server"), "--name", member, "--data-dir", str(self.directory / member)]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peers[member], "--initial-advertise-peer-urls", peers[member]]
        command += ["--initial-cluster", ",".join(f"{name}={url}" for name, url in peers.items())]
        command += ["--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error"]
        return command, {}

    def connection(self) -> dict[str, Any]:
        leader = self.leader()
        follower = next(member for member in members() if member != leader)
        return {"leader": self.client_ports[leader], "follower": self.client_ports[follower]}

    def leader(self) -> str:
        for watcher in self.watchers.values():
            leader = None
            try:
                leader = watcher.status().leader
            except Exception:  # noqa: BLE001 - one of them may be dead
                continue
            if leader is not None:
                return str(leader.name)
        raise LookupError("no leader")

    def is_whole(self) -> bool:
        found = [watcher.status() for watcher in self.watchers.values()]
        leaders = {status.leader.id for status in found if status.leader is not None}
        applied = [status.raft_index for status in found]
        return len(found) == MEMBERS and len(leaders) == 1 and max(applied) - min(applied) < 100

    def last_words(self, name: str) -> str:
        """Of its last line, which is JSON and ends with a trace of its stack, what went wrong."""
        with suppress(OSError, ValueError, IndexError, AttributeError):
            said = json.loads((self.directory / f"{name}.log").read_text().strip().splitlines()[-1])
            return ": ".join(str(said[part]) for part in ("msg", "error") if part in said)
        return super().last_words(name)

    def stop(self) -> None:
        super().stop()
        for watcher in self.watchers.values():
            watcher.close()


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        super().__init__(connection, number)
        if connection.get("failover"):
            self.client = client_of(connection["follower"], FAILOVER_TIMEOUT_S)
        else:
            self.client = client_of(connection["leader"])
        self.value = "v" * VALUE_BYTES

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        lock = self.client.lock(name)
        return lambda: bool(lock.acquire(timeout=LOCK_WAIT_S)), lock.release

    def write(self, key: str) -> Operation:
        return lambda: self.client.put(key, self.value)

    def read(self, key: str) -> Operation:
        return lambda: self.client.get(key)

    def close(self) -> None:
        self.client.close()
