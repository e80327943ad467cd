"""The bar of a quorum of real Celery workers on a real Redis: what dies, what waits, and what is never lost."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from coordinator.client import Client, LeaseLost, LockNotAcquired, Unavailable
from coordinator.config import PROJECT
from coordinator.statemachine.commands import GetLock
from tests.integration.installation import Installation
from tests.integration.quorum import NODES, LockLoop, PlainRedis, leader, reports, wait_in_step, web_client
from tests.integration.waiting import eventually

pytestmark = pytest.mark.timeout(400)

KILLS = int(os.environ.get("PROVE_KILLS", "5"))
"""`make prove` kills 20 leaders."""


@pytest.mark.alone
def test_a_killed_leader_costs_milliseconds_and_no_grant(installation: Installation) -> None:
    url, token = installation.new_token("torture")
    took = []
    with web_client(installation) as watcher, Client(url, token, timeout=20) as client:
        loop = LockLoop(client)
        loop.start()
        for _ in range(KILLS):
            node = wait_in_step(watcher)
            eventually(lambda: loop.grants, timeout_s=10, what="a first grant")
            process = installation.part(node)
            at_s = time.monotonic()
            process.kill()
            took.append(loop.gap_after(at_s))
        wait_in_step(watcher)
        loop.finish()
    print(f"from the kill to the next grant, {KILLS} kills: {sorted(round(s * 1000) for s in took)} ms")
    assert not loop.errors, loop.errors
    assert max(took) <= 2.0
    assert statistics.median(took) <= 0.25


@pytest.mark.alone
def test_every_node_says_how_it_is(installation: Installation) -> None:
    with web_client(installation) as client:
        wait_in_step(client)
        found = reports(client)
        assert set(found) == set(NODES)
        assert sorted(report.role for report in found.values()) == ["follower", "follower", "leader"]
        assert len({report.digest for report in found.values()}) == 1
        assert len({report.replica for report in found.values()}) == 3
        assert {report.voters for report in found.values()} == {NODES}


def refusal(installation: Installation, node: str, *options: str) -> str:
    """What a worker says that is started as `node` beside the installation, and ends by itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "coordinator", "worker", "-n", "another@conclave", *options],
        cwd=PROJECT,
        env=installation.environment | {"CONCLAVE_NODE": node},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    return ended.stderr + ended.stdout


@pytest.mark.alone
def test_a_node_started_twice_refuses(installation: Installation) -> None:
    said = refusal(installation, "node2", "--pool", "solo", "--without-gossip", "--without-mingle")
    assert "a node runs once" in said


@pytest.mark.alone
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--pool", "prefork"), "--pool solo"),
        (
            ("--pool", "solo", "-Q", "reports"),
            "takes that node's own tasks alone, -Q conclave.node.node9; got reports",
        ),
    ],
)
def test_a_node_hosts_under_the_solo_pool_alone_and_takes_its_own_tasks_alone(
    installation: Installation, options: tuple[str, ...], line: str
) -> None:
    assert line in refusal(installation, "node9", *options)
    assert not (installation.data.nodes / "node9").exists()


@pytest.mark.alone
def test_everything_killed_at_once_comes_back_with_the_same_locks(installation: Installation) -> None:
    url, token = installation.new_token("survivor")
    client = Client(url, token, timeout=30)
    held = {name: client.acquire(name, ttl=120) for name in ("a", "b/c", "d")}
    client.put("k", b"v")
    installation.kill_everything()
    installation.start()
    installation.wait_until_ready()
    for name, lease in held.items():
        view = client.query(GetLock(name))
        assert view.token == lease.token
        assert view.holder.session == lease.session
        lease.check()
    assert client.get("k") == b"v"
    last = client.acquire("e", ttl=10)
    assert last.token > max(lease.token for lease in held.values())
    assert all(lease.release() for lease in (last, *held.values()))
    client.close()


def test_wiped_nodes_wait_and_nothing_forms_anew(new_installation: Callable[..., Installation]) -> None:
    installation = new_installation()
    installation.start()
    installation.wait_until_ready()
    with web_client(installation, timeout=5) as client:
        lease = client.acquire("kept", ttl=120)
        wait_in_step(client)
        shutil.rmtree(installation.data.nodes / "node1")  # It ends by itself: what it has open is kept by nobody.
        waiting = eventually(
            lambda: next((r for n, r in reports(client).items() if n == "node1" and r.role == "waiting"), None),
            timeout_s=20,
            what="node1 waits",
        )
        assert "empty" in waiting.waiting_for
        assert "was deleted or put elsewhere while this process had it open" in installation.log("node1")
        assert "waits" in installation.log("node1")
        assert leader(client) in {"node2", "node3"}
        with client.lock("other", ttl=5):
            lease.check()

        with web_client(installation, timeout=1) as impatient:
            impatient.confirm()  # Which is long enough, while there is a majority.
            shutil.rmtree(installation.data.nodes / "node2")
            eventually(
                lambda: {n for n, r in reports(client).items() if r.role == "waiting"} == {"node1", "node2"},
                timeout_s=20,
                what="node1 and node2 wait",
            )
            with pytest.raises(Unavailable):
                impatient.confirm()
            with pytest.raises(Unavailable):
                impatient.acquire("new", ttl=5, wait=0)
        assert reports(client)["node3"].role != "leader"
        assert installation.get("/readyz/default").status == 503
    installation.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainRedis]:
    plain = PlainRedis(tmp_path_factory.mktemp("redis"))
    plain.start()
    yield plain
    plain.kill()


@pytest.fixture(scope="module")
def on_plain_redis(redis: PlainRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation on a Redis that can be taken away and given back; it ends in time after that, too."""
    directory = tmp_path_factory.mktemp("on-plain-redis") / "data"
    with Installation(directory, settings={"REDIS_URL": redis.url}) as running:
        yield running
        running.stop()


@pytest.mark.alone
@pytest.mark.parametrize("outage_s", [3.0, 7.0])
def test_redis_gone_for_less_and_for_more_than_the_time_to_live(
    redis: PlainRedis, on_plain_redis: Installation, outage_s: float
) -> None:
    url, token = on_plain_redis.new_token("holder")
    ttl_s = 5.0
    client, other = Client(url, token, timeout=1), Client(url, token, timeout=1)
    lease = client.acquire("held", ttl=ttl_s)
    other.get("warm")
    redis.kill()
    gone_s = time.monotonic()

    with pytest.raises(Unavailable, match="Redis"):
        other.acquire("held", ttl=ttl_s, wait=0)
    with pytest.raises(Unavailable):
        other.acquire("free", ttl=ttl_s, wait=0)
    if outage_s > ttl_s:
        eventually(lambda: not lease.held, timeout_s=ttl_s + 1, what="the lease can not be proven held any more")
        assert time.monotonic() - gone_s <= ttl_s
        with pytest.raises(LeaseLost, match="no leader has confirmed"):
            lease.check()
    eventually(lambda: time.monotonic() - gone_s >= outage_s, timeout_s=outage_s + 1, what="the outage is over")
    redis.start()
    back_s = time.monotonic()

    def serves() -> bool:
        try:
            with other.lock("free", ttl=ttl_s, wait=0):
                return True
        except Unavailable:
            return False

    eventually(serves, timeout_s=3, what="service within 3 s of the return of Redis")
    print(f"service {time.monotonic() - back_s:.2f} s after the return of Redis")
    view = other.query(GetLock("held"), timeout=5)
    assert (view.token, view.holder.session) == (lease.token, lease.session)
    eventually(lambda: lease.held, timeout_s=3, what="a leader confirms the lease again")
    with pytest.raises(LockNotAcquired):
        other.acquire("held", ttl=ttl_s, wait=0)
    assert lease.release()
    client.close()
    other.close()
