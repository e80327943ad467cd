"""What docs/operations.md says of nodes on several machines, done as it stands there: each machine has a data directory
and a Redis of its own, and of the first one's no more than its keys."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from coordinator.client import Client
from coordinator.config import PROJECT
from tests.integration.installation import Installation, environment_of, start_worker
from tests.integration.quorum import PlainRedis
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.timeout(300)]

PAGE: Final = PROJECT / "docs" / "operations.md"
NODES: Final = ("node2", "node3")


def section() -> str:
    return PAGE.read_text(encoding="utf-8").partition("## Nodes on several machines")[2].partition("\n## ")[0]


def commands(program: str) -> list[list[str]]:
    """Those that stand on lines of their own, as a shell would take them apart."""
    return [shlex.split(line) for line in section().splitlines() if re.match(rf"\s+{program} ", line)]


class Machine:
    """One that hosts a node and nothing else."""

    def __init__(self, node: str, directory: Path, broker: str) -> None:
        self.node, self.directory, self.broker = node, directory, broker
        self.redis = PlainRedis(directory)
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self, keys: Path) -> None:
        shutil.copytree(keys, self.directory / "data" / "keys")
        self.redis.start()
        ((_, *arguments),) = commands("celery")
        own = {"CONCLAVE_NODE": self.node, "CONCLAVE_NODE_REDIS": self.redis.url, "REDIS_URL": self.broker}
        self._worker = start_worker(
            [word.replace("node2", self.node) for word in arguments],
            environment_of(self.directory / "data") | own,
            self.directory / "worker.log",
        )

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait(10)
        self.redis.kill()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Installation]:
    """The machine of the web tier. Its node's Redis is another than that of the broker, where no node listens then."""
    broker, own = (tmp_path / name for name in ("broker", "own"))
    with ExitStack() as stack:
        servers = []
        for place in (broker, own):
            place.mkdir()
            servers.append(PlainRedis(place))
            servers[-1].start()
            stack.callback(servers[-1].kill)
        settings = {"CONCLAVE_NODES": "1", "REDIS_URL": servers[0].url, "CONCLAVE_NODE_REDIS": servers[1].url}
        yield stack.enter_context(Installation(tmp_path / "data", settings=settings))


def test_three_machines_become_one_cluster_and_a_client_is_served_whoever_of_them_leads(
    first: Installation, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        machines = []
        for node in NODES:
            (tmp_path / node).mkdir()
            machines.append(Machine(node, tmp_path / node, first.settings["REDIS_URL"]))
            stack.callback(machines[-1].stop)
            machines[-1].start(first.data.keys)
        known, *changes, status = commands("python")
        assert [change[2:5] for change in changes] == [["cluster", "add-replica", "default"]] * len(NODES)
        eventually(
            lambda: all(f"{node}  " in first.manage(*known[2:]) for node in NODES),
            timeout_s=60,
            what="the nodes are known",
        )
        for change in changes:
            first.manage(*change[2:])
        assert len(re.findall(r"^node\d +(?:votes|leads)", first.manage(*status[2:]), re.MULTILINE)) == 1 + len(NODES)
        url, token = first.new_token("app")
        with Client(url, token, timeout=20) as client:
            for served, node in enumerate((*NODES, "node1"), 1):
                first.manage("cluster", "transfer", "default", node)
                assert client.add("served") == served
                assert client.status()[node].role == "leader"
            first.stop()
            assert client.add("served") == len(NODES) + 2
        elsewhere = re.sub(r":\d+$", f":{machines[0].redis.port}", url)
        assert elsewhere != url
        with Client(elsewhere, token, timeout=20) as client:
            assert client.get("served") == b"%d" % (len(NODES) + 2)
