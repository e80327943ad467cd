"""Membership, on a whole installation: replicas come, move and go under load; nodes die in the middle of it; the
database is lost and put back. Four nodes, of which the default cluster has three."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from coordinator.client import Client, ConclaveError
from coordinator.config import PROJECT
from tests.integration.installation import Installation
from tests.integration.memory import directory_in_memory
from tests.integration.quorum import LockLoop, leader, web_client
from tests.integration.waiting import eventually

WAIT = ("--wait", "50")
START_S_MAX = 90.0
"""Five workers and a page on two cores that others use, too. How fast a start is has a test of its own (test_up)."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with directory_in_memory(tmp_path_factory.mktemp("membership")) as directory:
        running = Installation(directory / "data", settings={"CONCLAVE_NODES": "4"})
        try:
            running.start()
            running.wait_until_ready(START_S_MAX)
            running.manage("cluster", "remove-replica", "default", "node4", *WAIT)
            yield running
        finally:
            running.__exit__(None, None, None)


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with web_client(installation, timeout=10) as client:
        yield client


def celery(installation: Installation, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "coordinator", *arguments],
        cwd=PROJECT,
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def hosted(installation: Installation) -> dict[str, list[dict]]:
    nodes = ",".join(f"{part}@conclave" for part in installation.parts() if part.startswith("node"))
    answers = json.loads(celery(installation, "inspect", "replicas", "--json", "--timeout", "3", "-d", nodes))
    return {said["node"]: said["replicas"] for said in answers.values()}


def voters(client: Client) -> list[str]:
    return sorted(member.node for member in client.progress().voters)


def spare(client: Client) -> str:
    (name,) = {"node1", "node2", "node3", "node4"} - set(voters(client))
    return name


def settled(installation: Installation, cluster: str = "default") -> None:
    eventually(
        lambda: _status_that_says(installation, "as wanted", cluster),
        timeout_s=40,
        what=lambda: installation.manage("cluster", "status", cluster),
    )


def test_the_leaders_replica_moves_to_another_node_under_load(installation, client):
    source, target = leader(client), spare(client)
    loop = LockLoop(client)
    loop.start()
    installation.manage("cluster", "move", "default", source, target, *WAIT)
    eventually(
        lambda: not [r for r in hosted(installation)[source] if r["cluster_name"] == "default"],
        timeout_s=30,
        what=f"{source} has deleted its replica",
    )
    loop.finish()
    assert loop.errors == []
    assert target in voters(client)
    assert source not in voters(client)


def test_a_node_killed_in_the_middle_of_a_move_delays_it_and_no_more(installation, client):
    source, target = leader(client), spare(client)
    client.put("before", b"kept")
    installation.manage("cluster", "move", "default", source, target)
    eventually(
        lambda: [r for r in hosted(installation)[target] if r["cluster_name"] == "default"],
        timeout_s=30,
        what=f"{target} hosts a replica",
    )
    installation.kill(target)
    installation.kill(leader(client))
    eventually(
        lambda: target in voters(client) and source not in voters(client),
        timeout_s=60,
        what=lambda: installation.manage("cluster", "status"),
    )
    assert client.get("before") == b"kept"
    settled(installation)


def test_a_second_cluster_is_made_on_running_nodes_and_lives_beside_the_first(installation, client):
    installation.manage("cluster", "create", "second", "--replicas", "3")
    with web_client(installation, cluster="second", timeout=10) as second:
        second.put("a", b"of the second")
        client.put("a", b"of the default")
        assert second.get("a") == b"of the second"
        assert second.acquire("deploy", ttl=5, wait=5).held
    assert "second" in installation.manage("cluster", "list")
    answers = [installation.get("/readyz/second").status for _ in range(10)]
    assert answers == [200] * 10, "whichever node is asked who is there"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        installation.manage("cluster", "create", "second", "--replicas", "3")
    assert "there is a cluster second" in refused.value.stderr
    installation.kill(leader(client))
    with web_client(installation, cluster="second", timeout=20) as second:
        assert second.get("a") == b"of the second"


def test_a_birth_that_is_cut_off_is_gone_on_with(installation):
    """kill -9 of the command as soon as the birth is written down; given again, it makes that very cluster."""
    command = [sys.executable, "manage.py", "cluster", "create", "third", "--replicas", "3"]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=installation.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        begun = eventually(lambda: _births(installation, "third"), timeout_s=40, what="the birth is written down")
    finally:
        process.kill()
        process.wait(10)
    installation.manage("cluster", "create", "third", "--replicas", "3")
    assert _births(installation, "third") == begun
    with web_client(installation, cluster="third", timeout=10) as third:
        assert third.put("a", b"1") > 0


def _births(installation: Installation, name: str) -> list[str]:
    with closing(sqlite3.connect(installation.data.database)) as database:
        rows = database.execute("SELECT cluster_id FROM conclave_birth WHERE name = ?", (name,))
        return [row[0] for row in rows]


@pytest.mark.alone
def test_inspect_and_control_answer_from_the_nodes(installation, client):
    eventually(lambda: len(hosted(installation)) == 4, timeout_s=30, what="all four nodes say what they host")
    nodes = hosted(installation)
    roles = [r["role"] for replicas in nodes.values() for r in replicas if r["cluster_name"] == "default"]
    assert sorted(roles) == ["follower", "follower", "leader"]
    before = leader(client)
    target = next(name for name in voters(client) if name != before)
    assert f"{before} hands default over" in celery(installation, "control", "transfer", "default", target)
    eventually(lambda: leader(client) == target, timeout_s=5, what=f"{target} leads")
    celery(installation, "control", "-d", f"{target}@conclave", "drain")
    eventually(lambda: leader(client) != target, timeout_s=5, what=f"{target} leads no longer")
    celery(installation, "control", "-d", f"{target}@conclave", "drain", "off")


@pytest.mark.alone
def test_nodes_restarted_one_after_the_other_cost_callers_no_error(installation, client):
    """A warm shutdown hands leadership over first; callers in flight are sent on."""
    loop = LockLoop(client)
    loop.start()
    for name in voters(client):
        _restart(installation, client, name)
    loop.finish()
    assert loop.errors == []
    gaps = [b.at_s - a.at_s for a, b in zip(loop.grants, loop.grants[1:], strict=False)]
    assert max(gaps) < 1.0, f"the longest silence was {max(gaps):.2f} s"


def test_a_wiped_node_gets_a_new_replica_and_the_old_identity_goes(installation, client):
    """Once it answers again: while it does not, a spare would take its place."""
    installation.manage("cluster", "replace-after", "default", "600")
    victim = next(name for name in voters(client) if name != leader(client))
    before = {member.replica for member in client.progress().voters if member.node == victim}
    process = installation.part(victim)
    shutil.rmtree(installation.data.nodes / victim)
    process.kill()
    eventually(
        lambda: f"{victim} has lost its replica" in installation.manage("cluster", "status"),
        timeout_s=60,
        what=lambda: installation.manage("cluster", "status"),
    )
    installation.manage("cluster", "replace-after", "default", "3")
    eventually(
        lambda: (
            victim in voters(client)
            and not before & {member.replica for member in client.progress().voters}
            and not client.progress().outgoing
        ),
        timeout_s=60,
        what=lambda: installation.manage("cluster", "status"),
    )
    installation.manage("cluster", "replace-after", "default", "600")
    settled(installation)


def test_a_database_that_is_lost_or_a_day_old_removes_nothing_and_is_made_again_from_the_log(installation, client):
    settled(installation)
    database = installation.data.database
    old = database.with_name("a-day-old.sqlite3")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(old)) as copy:
        source.backup(copy)
    removed, kept = spare(client), voters(client)
    installation.manage("cluster", "add-replica", "default", removed, *WAIT)
    settled(installation)
    client.put("during", b"1")

    _put_in_place(installation, None)
    installation.manage("migrate", "-v", "0")
    status = eventually(
        lambda: _status_that_says(installation, "refused"), timeout_s=40, what="the reconciler refuses the new database"
    )
    assert "the database has nothing of the wanted membership" in status
    with pytest.raises(subprocess.CalledProcessError) as refused:
        installation.manage("cluster", "remove-replica", "default", removed)
    assert "cluster rebuild default" in refused.value.stderr

    _put_in_place(installation, old)
    status = eventually(
        lambda: _status_that_says(installation, "refused"), timeout_s=40, what="the reconciler refuses the old database"
    )
    assert "the database was lost or put back" in status
    assert voters(client) == sorted([*kept, removed])
    client.put("during", b"2")
    assert client.get("during") == b"2"

    installation.manage("cluster", "rebuild", "default")
    settled(installation)
    installation.manage("cluster", "remove-replica", "default", removed, *WAIT)
    assert voters(client) == kept


def _restart(installation: Installation, client: Client, name: str) -> None:
    """Ask a node's worker to end, as a person would, and wait until another one answers in its place."""
    process = installation.part(name)
    process.terminate()
    process.wait(10)
    eventually(lambda: name in installation.parts(), timeout_s=10, what=f"{name} runs again")
    eventually(lambda: client.status().get(name) is not None, timeout_s=20, what=f"{name} answers again")


def _put_in_place(installation: Installation, database) -> None:
    path = installation.data.database
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)
    if database is not None:
        shutil.copy(database, path)


def _status_that_says(installation: Installation, word: str, cluster: str = "default") -> str:
    try:
        status = installation.manage("cluster", "status", cluster)
    except (subprocess.CalledProcessError, ConclaveError):
        return ""
    return status if f"UTC: {word}" in status else ""
