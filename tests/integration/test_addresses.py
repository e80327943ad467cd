"""Each node with a Redis of its own: any of them dies, and that costs its node alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.client import Client, ConclaveError
from coordinator.data_directory import DataDirectory
from coordinator.replica import births
from coordinator.wire import ReplicaReport
from tests.integration.installation import Installation, environment_of, start_worker
from tests.integration.quorum import NODES, PlainRedis
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


class Machines:
    """Three nodes, each on a Redis of its own, as on three machines; and the one of the web tier."""

    def __init__(self, directory: Path) -> None:
        self.data = DataDirectory(directory / "data")
        self.redis: dict[str, PlainRedis] = {}
        for name in (*NODES, "web"):
            place = directory / name
            place.mkdir()
            self.redis[name] = PlainRedis(place)
        self.directory = directory
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, addresses: dict[str, str]) -> None:
        """`addresses`: those that the log says from its first entry on."""
        self.data.make_secrets()
        births.create(self.data.nodes, list(NODES), "default", self.data.web_token(), addresses)
        for redis in self.redis.values():
            redis.start()
        for node in NODES:
            self._launch(node)

    def _launch(self, node: str) -> None:
        command = ["-A", "coordinator", "worker", "--pool", "solo"]
        command += ["--without-gossip", "--without-mingle", "-n", f"{node}@conclave", "-Q", f"conclave.node.{node}"]
        own = {
            "CONCLAVE_NODE": node,
            "CONCLAVE_NODE_REDIS": self.redis[node].url,
            "REDIS_URL": self.redis["web"].url,
            "DJANGO_SETTINGS_MODULE": "coordinator.settings",
        }
        environment = environment_of(self.data.path) | own
        self._workers[node] = start_worker(command, environment, self.directory / f"{node}.log")

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.wait(10)
        for redis in self.redis.values():
            redis.kill()

    def client(self, node: str) -> Client:
        return Client(self.redis[node].url, str(self.data.web_token()), timeout=3)

    def words(self) -> str:
        return "\n".join((self.directory / f"{node}.log").read_text()[-1500:] for node in NODES)


class Watch:
    """A client at every node, through that node's Redis."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.clients = {node: machines.client(node) for node in NODES}

    def reports(self) -> dict[str, ReplicaReport]:
        found = {}
        for node, client in self.clients.items():
            try:
                report = client.status().get(node)
            except ConclaveError:
                continue
            if report is not None:
                found[node] = report
        return found

    def leader(self, among: tuple[str, ...] = NODES) -> str:
        """The leader of `among`, once all of these are in step under it."""

        def in_step() -> str:
            found = {node: report for node, report in self.reports().items() if node in among}
            leaders = {report.leader for report in found.values()}
            applied = {report.applied_index for report in found.values()}
            whole = set(found) == set(among) and len(leaders) == 1 and len(applied) == 1
            return leaders.pop() if whole and leaders <= set(among) else ""

        return eventually(in_step, timeout_s=30, what=lambda: f"{among} are in step: {self.machines.words()}")


@pytest.fixture(params=["in the log", "one has moved"])
def watch(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Where all addresses are in the log, and where one node has moved to a Redis of its own since."""
    machines = Machines(tmp_path)
    addresses = {node: f"redis://127.0.0.1:{machines.redis[node].port}" for node in NODES}
    with ExitStack() as stack:
        stack.callback(machines.stop)
        if request.param == "one has moved":
            del addresses["node3"]
        machines.start(addresses)
        watch = Watch(machines)
        for client in watch.clients.values():
            stack.callback(client.close)
        yield watch


def test_a_dead_redis_costs_its_node_alone(watch: Watch) -> None:
    leader = watch.leader()
    client = watch.clients[leader]
    deaf = next(node for node in NODES if node != leader)
    others = tuple(node for node in NODES if node != deaf)
    token = client.acquire("kept", ttl=60).token

    watch.machines.redis[deaf].kill()
    gaps = []
    for number in range(200):
        began_s = time.monotonic()
        with client.lock(f"a{number % 4}", ttl=10) as lease:
            assert lease.token > token
            token = lease.token
        gaps.append(time.monotonic() - began_s)
    assert watch.leader(others) == leader, "nobody had reason to campaign"
    assert max(gaps) < 0.6, "no election, and nothing waited for the dead one"

    watch.machines.redis[deaf].start()
    assert watch.leader() == leader

    watch.machines.redis[leader].kill()
    rest = tuple(node for node in NODES if node != leader)
    second = watch.leader(rest)
    with watch.clients[second].lock("b", ttl=10) as lease:
        assert lease.token > token

    watch.machines.redis[leader].start()
    assert watch.leader() == second


@pytest.mark.parametrize("watch", ["in the log"], indirect=True)
def test_a_client_whose_own_redis_dies_with_the_leader_goes_on_at_the_others(watch: Watch) -> None:
    leader = watch.leader()
    client = watch.clients[leader]
    lease = client.acquire("kept", ttl=15)
    watch.machines.redis[leader].kill()

    def writes() -> bool:
        try:
            client.put("a", b"1")
        except ConclaveError:
            return False
        return True

    eventually(writes, timeout_s=10, what="it has found who leads now")
    lease.check()
    assert client.confirm()[0] != leader
    watch.machines.redis[leader].start()


def wait_until_told(client: Client, address: str) -> None:
    eventually(
        lambda: {there for _, there in client.directory().nodes} == {address},
        timeout_s=60,
        what=f"clients are told that all are at {address!r}",
    )


def test_nodes_that_are_moved_to_another_redis_all_at_once_find_each_other_there_and_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            servers.append(PlainRedis(tmp_path / name))
            servers[-1].start()
            stack.callback(servers[-1].kill)
        shared = {"REDIS_URL": servers[0].url}
        for moves, settings in enumerate([shared, shared | {"CONCLAVE_NODE_REDIS": servers[1].url}, shared], 1):
            installation = Installation(tmp_path / "data", settings=settings)
            installation.start()
            try:
                installation.wait_until_ready(90)
                url, token = installation.new_token(f"app{moves}")
                there = f"redis://127.0.0.1:{servers[1].port}" if "CONCLAVE_NODE_REDIS" in settings else ""
                with Client(url, token, timeout=20) as client:
                    assert client.add("served") == moves
                    wait_until_told(client, there)
            finally:
                installation.stop()
