"""Looking at a running quorum, for the integration tests."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

from coordinator import embedded_redis
from coordinator.client import Client, ConclaveError, Lease
from coordinator.config import Config
from coordinator.ports import free_port, port_is_free
from coordinator.supervision import launched
from coordinator.wire import ReplicaReport
from tests.integration.installation import Installation
from tests.integration.waiting import eventually

NODES = ("node1", "node2", "node3")
AROUND_S = 0.5


def web_client(installation: Installation, **options: object) -> Client:
    """A client as the web process has it: every right, and the answers of every node."""
    data = installation.data
    return Client(data.node_redis_url(_config(installation)), str(data.web_token()), **options)  # type: ignore[arg-type]


def client_url(installation: Installation) -> str:
    """Where programs with a token of their own find the nodes, as `manage.py token` prints it."""
    return installation.data.client_redis_url(_config(installation))


def _config(installation: Installation) -> Config:
    return Config.model_construct(redis_url=installation.settings.get("REDIS_URL"))


def reports(client: Client) -> dict[str, ReplicaReport]:
    return {node: report for node, report in client.status().items() if report is not None}


def leader(client: Client) -> str:
    """The node of the leader that a majority confirms."""
    return client.confirm(timeout=5)[0]


def wait_in_step(client: Client, nodes: tuple[str, ...] = NODES, timeout_s: float = 30) -> str:
    """Wait until all of `nodes` have applied the same, under one leader; its node."""

    def in_step() -> str:
        found = reports(client)
        if set(nodes) - set(found):
            return ""
        applied = {found[node].applied_index for node in nodes}
        leaders = {found[node].leader for node in nodes}
        return leaders.pop() if len(applied) == 1 and len(leaders) == 1 else ""

    return eventually(in_step, timeout_s=timeout_s, what=lambda: f"all nodes are in step: {client.status()}")


class Handed(NamedTuple):
    at_s: float
    token: int


class LockLoop(threading.Thread):
    """Takes and releases one lock without end, and notes each grant that was acknowledged."""

    def __init__(self, client: Client, name: str = "torture") -> None:
        super().__init__(daemon=True)
        self.client = client
        self.name_of_lock = name
        self.grants: list[Handed] = []
        self.errors: list[ConclaveError] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                lease: Lease = self.client.acquire(self.name_of_lock, ttl=10, wait=30)
                self.grants.append(Handed(time.monotonic(), lease.token))
                lease.release()
            except ConclaveError as error:
                self.errors.append(error)

    def gap_after(self, at_s: float, timeout_s: float = 10) -> float:
        """Seconds from `at_s` to the end of the longest silence that began around it. What the dead leader had answered
        and was still on its way does not count as its successor's first grant."""
        settled_s = at_s + AROUND_S
        eventually(lambda: self.grants[-1].at_s > settled_s, timeout_s=timeout_s, what="grants after the kill")
        pairs = [(a, b) for a, b in itertools.pairwise(self.grants) if b.at_s > at_s and a.at_s < settled_s]
        _, after = max(pairs, key=lambda pair: pair[1].at_s - pair[0].at_s)
        return after.at_s - at_s

    def finish(self) -> None:
        self.stopping.set()
        self.join(30)
        assert not self.is_alive()
        tokens = [grant.token for grant in self.grants]
        assert all(a < b for a, b in itertools.pairwise(tokens)), "a token came twice or went back"


class PlainRedis:
    """Somebody's own Redis, with a password and nothing of ours in it; forgets everything when it dies."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:external@127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        server = embedded_redis.find_server()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", "external", "--save", ""]
        self._process = subprocess.Popen(
            launched([str(server.program), *options], parent=os.getpid(), directory=self._directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        eventually(lambda: not port_is_free("127.0.0.1", self.port), timeout_s=10, what="Redis listens")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
