"""Conclave: the parts that `manage.py up` starts, less the web server, which no lock needs: Redis and three workers.

Driven by the shipped client for threads, with a token of its own, so that every request and answer is signed.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.peers.base import MEMBERS, VALUE_BYTES, Operation, Peer, PeerClient, members
from coordinator import client as shipped
from coordinator import compiled, embedded_redis
from coordinator.client import parker
from coordinator.config import Config
from coordinator.data_directory import DataDirectory
from coordinator.replica import births
from coordinator.statemachine import commands
from coordinator.wire import Token

CLUSTER: Final = "default"
PRINCIPAL: Final = "bench"
METRICS_S_MAX: Final = 10.0


def _program() -> str:
    """Which of the two a node runs here, and a client, which is a process of its own, too."""
    is_built = bool(compiled.modules_of(compiled.BUILDS / compiled.digest()))
    return "compiled" if is_built and os.environ.get(compiled.VARIABLE) != "never" else "interpreted"


class Server(Peer):
    name = "conclave"
    works: ClassVar[frozenset[str]] = frozenset({"lock", "write", "read", "handover", "failover", "silence"})
    about = (
        f"three Celery workers and one Redis; SQLite with synchronous=FULL; its own client, signed, "
        f"all of them {_program()}, "
        f"{'with' if parker.Parker is not parker.PlainParker else 'without'} its parker in C"
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.data = DataDirectory(directory / "data")
        self.config = Config.model_construct(data=self.data.path, redis_url=None)
        self.watcher: shipped.Client | None = None
        self.token = ""

    @classmethod
    def check(cls) -> str:
        redis = embedded_redis.find_server()
        return f"Redis {'.'.join(map(str, redis.version))}, Python {sys.version.split()[0]}"

    def start(self) -> None:
        self.data.make_secrets()
        births.create(self.data.nodes, members(), CLUSTER, self.data.web_token())
        self.launch("redis", embedded_redis.prepare(self.data, embedded_redis.find_server()))
        for member in members():
            self.launch_member(member)
        self.watcher = shipped.Client(self.data.node_redis_url(self.config), str(self.data.web_token()), timeout=5)
        self.until(self.is_whole, "conclave serves")
        token = Token.new(self.data.realm())
        self.watcher.command(commands.SetPrincipal(PRINCIPAL, (commands.READ, commands.WRITE, commands.LOCK), ()))
        self.watcher.command(commands.AddToken(token.token_id, PRINCIPAL, token.key))
        self.token = str(token)

    def member_command(self, member: str) -> tuple[list[str], dict[str, str]]:
        """As `manage.py up` starts it; a test holds the two together."""
        command = [sys.executable, "-m", "celery", "-A", "coordinator", "worker", "--pool", "solo"]
        command += ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        command += ["-n", f"{member}@conclave", "-Q", f"conclave.node.{member}"]
        environment = {
            "CONCLAVE_NODE": member,
            "CONCLAVE_DATA": str(self.data.path),
            "DJANGO_SETTINGS_MODULE": "coordinator.settings",
            "PYTHONUNBUFFERED": "1",
        }
        if compiled.VARIABLE in os.environ:
            environment[compiled.VARIABLE] = os.environ[compiled.VARIABLE]  # As the clients, who inherit it.
        return command, environment

    def connection(self) -> dict[str, Any]:
        return {"url": self.data.client_redis_url(self.config), "token": self.token}

    def leader(self) -> str:
        assert self.watcher is not None
        return self.watcher.confirm(timeout=2)[0]

    def is_whole(self) -> bool:
        assert self.watcher is not None
        reports = [report for report in self.watcher.status().values() if report is not None]
        leaders = {report.leader for report in reports}
        applied = {report.applied_index for report in reports}
        pids = {process.pid for name, process in self.running.items() if name != "redis"}
        here = {report.pid for report in reports} == pids and len(reports) == MEMBERS
        return here and len(leaders) == 1 and all(leaders) and max(applied) - min(applied) < 100

    def metrics(self, member: str) -> str:
        """What it serves now, from this machine, to which no proxy leads."""
        port = self.data.metrics_port(member, self.config)
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with directly.open(f"http://127.0.0.1:{port}/metrics", timeout=METRICS_S_MAX) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self) -> None:
        try:
            if self.watcher is not None:
                self.watcher.close()
        finally:
            super().stop()


class Client(PeerClient):
    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        super().__init__(connection, number)
        runs = "compiled" if compiled.is_used() else "interpreted"
        if runs != _program():
            raise RuntimeError(f"expected a client that is {_program()}, as a program of users is here; it is {runs}")
        self.client = shipped.Client(connection["url"], connection["token"])
        self.value = bytes(VALUE_BYTES)

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        lease: shipped.Lease

        def acquire() -> bool:
            nonlocal lease
            lease = self.client.acquire(name)
            return True

        return acquire, lambda: lease.release()  # noqa: PLW0108 - of the lease of that moment

    def write(self, key: str) -> Operation:
        return lambda: self.client.put(key, self.value)

    def read(self, key: str) -> Operation:
        return lambda: self.client.get(key)

    def close(self) -> None:
        self.client.close()
