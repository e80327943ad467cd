"""Celery's broker stops answering, goes and comes back, or takes no writes: commands say so in good time, workers work
on."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from coordinator.config import PROJECT, Config
from tests.integration.installation import Installation
from tests.integration.quorum import web_client
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ANSWER_S_MAX = 15.0
"""Ten, and the start of the interpreter on a busy machine."""
BACK_S_MAX = 30.0
NODES = ("node1", "node2", "node3")
TRIES = 4
TRIES_S_MAX = 60.0
"""Where the pauses have become as long as they get."""
WORDS = {"CONFIG": "command not allowed when used memory", "REPLICAOF": "You can't write against a read only replica"}
"""What Redis answers, by the command that has it do so."""


def _run(installation: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=installation.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _run_together(installation: Installation, commands: list[list[str]]) -> list[subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(lambda command: _run(installation, *command), commands))


def _all_are_listed(installation: Installation) -> bool:
    listed = _run(installation, "manage.py", "cluster", "list")
    return listed.returncode == 0 and all(node in listed.stdout for node in NODES)


def _all_work(installation: Installation) -> bool:
    """Each has taken a task from its queue, and said what became of it."""
    commands = [["manage.py", "cluster", "compact", "default", node] for node in NODES]
    return all(ended.returncode == 0 for ended in _run_together(installation, commands))


@pytest.mark.alone
def test_while_redis_does_not_answer_commands_end_with_a_line_and_afterwards_all_is_well(
    installation: Installation,
) -> None:
    server = installation.part("redis")
    server.suspend()
    try:
        began = time.monotonic()
        commands = [["manage.py", "cluster", "list"], ["-m", "celery", "-A", "coordinator", "inspect", "replicas"]]
        for ended in _run_together(installation, commands):
            assert ended.returncode != 0
            (line,) = ended.stderr.splitlines()
            assert "broker" in line
        assert time.monotonic() - began < ANSWER_S_MAX
    finally:
        server.resume()
    eventually(lambda: _all_are_listed(installation), timeout_s=BACK_S_MAX, what="all nodes are listed")
    eventually(lambda: _all_work(installation), timeout_s=BACK_S_MAX, what="all nodes take tasks")


def test_workers_outlive_a_redis_that_dies(installation: Installation) -> None:
    workers = {node: installation.part(node).pid for node in NODES}
    installation.kill("redis")
    eventually(lambda: _all_are_listed(installation), timeout_s=BACK_S_MAX, what="all nodes are listed")
    eventually(lambda: _all_work(installation), timeout_s=BACK_S_MAX, what="all nodes take tasks")
    assert {node: installation.part(node).pid for node in NODES} == workers


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        pytest.param(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), marks=pytest.mark.slow),
    ],
    ids=["full", "read-only"],
)
def test_workers_outlive_a_redis_that_takes_no_writes(
    installation: Installation, refuse: tuple[str, ...], allow: tuple[str, ...]
) -> None:
    workers = {node: installation.part(node) for node in NODES}
    open_files = {node: worker.num_fds() for node, worker in workers.items()}
    url = installation.data.node_redis_url(Config.model_construct(redis_url=None))
    with redis.Redis.from_url(url) as operator, web_client(installation, timeout=10) as client:
        first = client.acquire("broker", ttl=60)
        operator.execute_command(*refuse)
        try:
            operator.execute_command("CLIENT", "KILL", "TYPE", "NORMAL")
            for node in NODES:
                eventually(
                    lambda node=node: installation.log(node).count(WORDS[refuse[0]]) >= TRIES,  # type: ignore[misc]
                    timeout_s=TRIES_S_MAX,
                    what=lambda node=node: f"{node} was refused {TRIES} times: {installation.log(node)[-2000:]}",  # type: ignore[misc]
                )
            client.acquire("broker 2", ttl=60).release()
            first.check()
        finally:
            operator.execute_command(*allow)
    eventually(lambda: _all_are_listed(installation), timeout_s=BACK_S_MAX, what="all nodes are listed")
    eventually(lambda: _all_work(installation), timeout_s=BACK_S_MAX, what="all nodes take tasks")
    assert {node: installation.part(node).pid for node in NODES} == {node: one.pid for node, one in workers.items()}
    for node, worker in workers.items():
        assert worker.num_fds() < open_files[node] + TRIES, "no connection that was refused stays open"
