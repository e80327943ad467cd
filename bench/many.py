"""A hundred clusters on three nodes: what they cost while nobody asks, and how fast they are together.

    python -m bench.many [--clusters 100] [--callers 64] [--seconds 10] [--json FILE]

Real workers, one real Redis. CPU time of each node is read over a span in which nobody asks anything, with one cluster
and with all. Then callers take and release locks, each through a client of its own: all of them in one cluster, and
spread over all clusters, one after the other and twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.options import at_least, ended_tidily, file_to_write, positive, seconds
from bench.peers.base import MEMBERS
from bench.peers.conclave import PRINCIPAL, Server
from coordinator import client as shipped
from coordinator.config import PROJECT
from coordinator.statemachine import commands
from coordinator.supervision import launched
from coordinator.wire import Token

SETTLE_S: Final = 3.0
QUIET_S: Final = 20.0
"""So long after the last client has gone, its session has run out and its cluster has nothing to count."""
CALLER_PROCESSES: Final = 2
FORMED_S_MAX: Final = 120.0


async def call(url: str, token: str, clusters: list[str], span_s: float) -> None:
    """One caller for each of `clusters`; prints how many pairs all of them did in the span, once each has done one.
    Raises what one of them raised, and prints nothing then."""
    clients = [shipped.AsyncClient(url, token, cluster=cluster, timeout=30) for cluster in clusters]
    begun = asyncio.Semaphore(0)
    count = 0
    counting = ending = False

    async def loop(client: shipped.AsyncClient, name: str) -> None:
        nonlocal count
        first = True
        while not ending:
            lease = await client.acquire(name, ttl=30)
            await lease.release()
            if first:
                begun.release()
                first = False
            if counting:
                count += 1

    tasks = [asyncio.create_task(loop(client, f"lock{number}-{os.getpid()}")) for number, client in enumerate(clients)]
    beginning = asyncio.gather(*(begun.acquire() for _ in tasks))
    everyone: list[asyncio.Future[Any]] = [beginning, *tasks]
    await asyncio.wait(everyone, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # It failed, and this says how.
    await beginning
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    counting = True
    await asyncio.sleep(span_s)
    counting = False
    ending = True
    await asyncio.gather(*tasks)
    print(count, flush=True)
    for client in clients:
        await client.aclose()


class Bench:
    def __init__(self, server: Server, arguments: argparse.Namespace) -> None:
        self.server = server
        self.arguments = arguments
        assert server.watcher is not None
        self.watcher = server.watcher
        self.names = [f"many{number}" for number in range(arguments.clusters - 1)]

    def form(self) -> None:
        """As `manage.py cluster create` does it, for all of them at once and without a database."""
        from coordinator.membership import nodes

        members = sorted(name for name in self.server.running if name != "redis")
        drawn: dict[str, dict[str, str]] = {}
        identities = {name: f"{secrets.randbits(63) or 1:x}" for name in self.names}
        for name, cluster in identities.items():
            for node in members:
                nodes.ask(node, "host_replica", f"host-{name}", cluster=cluster, cluster_name=name)
        fingerprint = ""
        for name in self.names:
            outcomes = nodes.outcomes(dict.fromkeys(members, f"host-{name}"), FORMED_S_MAX)
            drawn[name] = {node: outcome.replica for node, outcome in outcomes.items()}
            fingerprint = next(iter(outcomes.values())).fingerprint
        for name, cluster in identities.items():
            document = [[drawn[name][node], node, "", 0] for node in members]
            for node in members:
                nodes.ask(
                    node,
                    "form_cluster",
                    f"form-{name}",
                    cluster=cluster,
                    cluster_name=name,
                    epoch=0,
                    members=document,
                    fingerprint=fingerprint,
                )
        token = Token.new(self.server.data.realm())
        for name in self.names:
            url = self.server.data.node_redis_url(self.server.config)
            with shipped.Client(url, str(self.server.data.web_token()), cluster=name, timeout=60) as client:
                rights = (commands.READ, commands.WRITE, commands.LOCK)
                client.command(commands.SetPrincipal(PRINCIPAL, rights, ()))
                client.command(commands.AddToken(token.token_id, PRINCIPAL, token.key))
        self.watcher.command(commands.AddToken(token.token_id, PRINCIPAL, token.key))
        self.token = str(token)

    def idle(self, settle_s: float = SETTLE_S) -> dict[str, float]:
        """Share of one core that each node takes while nobody asks."""
        time.sleep(settle_s)
        processes = {name: psutil.Process(process.pid) for name, process in self.server.running.items()}
        before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        began_s = time.monotonic()
        time.sleep(self.arguments.seconds)
        passed_s = time.monotonic() - began_s
        return {
            name: round((sum(process.cpu_times()[:2]) - before[name]) / passed_s, 4)
            for name, process in processes.items()
        }

    def asleep(self) -> dict[str, int]:
        """How many replicas sleep on each node."""
        found = {}
        for node in sorted(name for name in self.server.running if name != "redis"):
            lines = self.server.metrics(node).splitlines()
            (line,) = [line for line in lines if line.startswith("conclave_replicas_asleep{")]
            found[node] = int(float(line.split()[-1]))
        return found

    def rate(self, clusters: list[str]) -> float:
        """Pairs a second of all callers, who take the clusters in turn."""
        chosen = [clusters[number % len(clusters)] for number in range(self.arguments.callers)]
        running = []
        for number in range(CALLER_PROCESSES):
            part = ",".join(chosen[number::CALLER_PROCESSES])
            if not part:
                continue  # There are fewer callers than processes.
            url = self.server.data.client_redis_url(self.server.config)
            command = [sys.executable, "-m", "bench.many", "callers", url, self.token, part]
            running.append(
                subprocess.Popen(
                    launched([*command, str(self.arguments.seconds)], parent=os.getpid(), directory=PROJECT),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        total = 0
        try:
            for process in running:
                assert process.stdout is not None
                if process.stdout.readline().strip() != "begun":
                    raise SystemExit("the callers do not begin; what they said of it stands above")
            for process in running:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            for process in running:
                said, _ = process.communicate(timeout=self.arguments.seconds + 60)
                if process.returncode:
                    raise SystemExit("a caller failed, and what is left is no rate; what it said of it stands above")
                total += int(said)
        finally:
            for process in running:
                process.kill()
        return total / self.arguments.seconds


def main() -> None:
    if sys.argv[1:2] == ["callers"]:
        url, token, clusters, span_s = sys.argv[2:6]
        return asyncio.run(call(url, token, clusters.split(","), float(span_s)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=at_least(2), default=100)
    parser.add_argument("--callers", type=positive, default=64)
    parser.add_argument("--seconds", type=seconds, default=10.0)
    parser.add_argument("--json", type=file_to_write)
    arguments = parser.parse_args()
    with ended_tidily(), tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory))
        os.environ |= {"CONCLAVE_DATA": str(server.data.path), "DJANGO_SETTINGS_MODULE": "coordinator.settings"}
        try:
            server.start()
            import django

            django.setup()
            found = run(Bench(server, arguments))
        finally:
            server.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    return None


def run(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {"idle, 1 cluster": bench.idle()}
    print(f"idle, 1 cluster: {found['idle, 1 cluster']}", flush=True)
    began_s = time.monotonic()
    bench.form()
    print(f"{bench.arguments.clusters} clusters on {MEMBERS} nodes in {time.monotonic() - began_s:.0f} s", flush=True)
    found["idle, all"] = bench.idle(QUIET_S)
    found["asleep"] = bench.asleep()
    print(f"idle, all: {found['idle, all']}, asleep {found['asleep']}", flush=True)
    rates: dict[str, list[float]] = {"in one": [], "spread": []}
    for _ in range(2):
        rates["in one"].append(bench.rate(["default"]))
        rates["spread"].append(bench.rate(bench.names))
        print({name: [round(rate) for rate in each] for name, each in rates.items()}, flush=True)
    share = statistics.median(rates["spread"]) / statistics.median(rates["in one"])
    print(f"spread over all: {share:.0%} of the rate in one")
    return found | {"rates": rates, "share": round(share, 3)}


if __name__ == "__main__":
    main()
