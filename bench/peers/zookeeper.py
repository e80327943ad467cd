"""ZooKeeper with the times of its own example configuration, driven by kazoo.

A linearizable read is `sync` and `get`, sent one after the other without waiting between them: a session keeps their
order. In fail-over the clients know the followers alone, so that none is connected to who dies.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import MEMBERS, VALUE_BYTES, Operation, Peer, PeerClient, Unusable, free_ports, members, program

JARS: Final = Path("/usr/share/java")
LOCK_WAIT_S: Final = 10.0
OPERATION_S_MAX: Final = 5.0
"""Of a write in fail-over; kazoo by itself waits without end."""
CONFIGURATION: Final = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir={directory}
clientPort={client_port}
clientPortAddress=127.0.0.1
admin.enableServer=false
maxClientCnxns=0
4lw.commands.whitelist=srvr
{servers}
"""


class Server(Peer):
    name = "zookeeper"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write", "read", "handover", "failover", "silence"})
    about = "three members, tickTime 2000, syncLimit 5; kazoo and its lock recipe; reads are sync and get"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        ports = iter(free_ports(3 * MEMBERS))
        self.client_ports = {member: next(ports) for member in members()}
        self.quorum_ports = {member: (next(ports), next(ports)) for member in members()}

    @classmethod
    def check(cls) -> str:
        from importlib.metadata import version

        import kazoo.client

        assert kazoo.client.KazooClient
        java = program("java", "default-jre-headless")
        jar = JARS / "zookeeper.jar"
        if not jar.exists():
            raise Unusable("no ZooKeeper here: `make bench-setup` installs it (Debian's zookeeper)")
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr.splitlines()[0]
        found = ", ".join(path.stem.removeprefix("zookeeper-") for path in JARS.glob("zookeeper-[0-9]*.jar"))
        return f"ZooKeeper {found}, kazoo {version('kazoo')}, {said}"

    def start(self) -> None:
        for number, member in enumerate(members(), 1):
            directory = self.directory / member
            directory.mkdir()
            (directory / "myid").write_text(f"{number}\n")
            servers = "\n".join(
                f"server.{other}=127.0.0.1:{quorum}:{election}"
                for other, (quorum, election) in enumerate(self.quorum_ports.values(), 1)
            )
            text = CONFIGURATION.format(directory=directory, client_port=self.client_ports[member], servers=servers)
            (directory / "zoo.cfg").write_text(text)
        for member in members():
            self.launch_member(member)
        self.until(self.is_whole, "ZooKeeper serves")

    def member_command(self, member: str) -> tuple[list[str], dict[str, str]]:
        command = [program("java", "default-jre-headless"), "-Xmx512m", "-Dzookeeper.log.dir=" + str(self.directory)]
        command += ["-cp", str(JARS / "zookeeper.jar"), "org.apache.zookeeper.server.quorum.QuorumPeerMain"]
        return [*command, str(self.directory / member / "zoo.cfg")], {}

    def connection(self) -> dict[str, Any]:
        leader = self.leader()
        followers = [f"127.0.0.1:{port}" for member, port in self.client_ports.items() if member != leader]
        everyone = [f"127.0.0.1:{port}" for port in self.client_ports.values()]
        return {"hosts": ",".join(everyone), "followers": ",".join(followers)}

    def leader(self) -> str:
        for member in members():
            try:
                if self._asked(member).get("Mode") == "leader":
                    return member
            except OSError:
                continue
        raise LookupError("no leader")

    def is_whole(self) -> bool:
        modes = sorted(self._asked(member).get("Mode", "") for member in members())
        return modes == ["follower"] * (MEMBERS - 1) + ["leader"]

    def _asked(self, member: str) -> dict[str, str]:
        with socket.create_connection(("127.0.0.1", self.client_ports[member]), timeout=1) as connection:
            connection.sendall(b"srvr")
            answer = b""
            while data := connection.recv(4_096):
                answer += data
        pairs = (line.partition(": ") for line in answer.decode("utf-8", "replace").splitlines())
        return {name: value for name, _, value in pairs}


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        from kazoo.client import KazooClient

        super().__init__(connection, number)
        self.dies = bool(connection.get("failover"))
        self.client = KazooClient(connection["followers"] if self.dies else connection["hosts"])
        self.client.start()
        self.value = bytes(VALUE_BYTES)

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        from kazoo.exceptions import LockTimeout

        lock = self.client.Lock(f"/locks/{name}")

        def acquire() -> bool:
            try:
                return bool(lock.acquire(timeout=LOCK_WAIT_S))
            except LockTimeout:
                return False

        return acquire, lock.release

    def write(self, key: str) -> Operation:
        path, made = f"/keys/{key}", False

        def write() -> object:
            nonlocal made
            if not made:
                self.client.ensure_path(path)
                made = True
            if self.dies:
                return self.client.set_async(path, self.value).get(timeout=OPERATION_S_MAX)
            return self.client.set(path, self.value)

        return write

    def read(self, key: str) -> Operation:
        path = f"/keys/{key}"

        def read() -> object:
            self.client.sync_async(path)
            return self.client.get_async(path).get()

        return read

    def close(self) -> None:
        self.client.stop()
        self.client.close()
