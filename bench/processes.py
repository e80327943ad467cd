"""Where Conclave's CPU time goes: for each operation, in the clients, the leader, the followers and Redis.

    python -m bench.processes [--cells lock:64,write:1,handover:16] [--seconds 3]

The same servers, clients and moments as `bench.compare`; beside CPU time how many messages went through Redis, and how
often threads went to sleep and had to be woken, which no neighbour changes much.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
import redis

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.clients import clients_of
from bench.compare import BEGINS_IN_S
from bench.figures import changes_of_owner
from bench.options import cells, ended_tidily, seconds
from bench.peers.conclave import Server
from bench.works import RATES

CELLS: Final = [("lock", 1), ("lock", 64), ("write", 1), ("write", 64), ("read", 1), ("read", 64), ("handover", 16)]
ENDS_IN_S: Final = 0.03
"""So much before the callers end, what was used is read: threads take what they have counted along."""


def used_us(groups: dict[str, list[psutil.Process]]) -> dict[str, tuple[float, float]]:
    """In user mode and in the kernel, so far, of each kind of process."""
    found = {}
    for kind, processes in groups.items():
        times = [process.cpu_times() for process in processes]
        found[kind] = sum(t.user for t in times) * 1e6, sum(t.system for t in times) * 1e6
    return found


def wake_ups(groups: dict[str, list[psutil.Process]]) -> dict[str, int]:
    """How often threads have gone to sleep so far, of each kind of process."""
    return {
        kind: sum(
            int(line.split()[1])
            for process in processes
            for status in Path(f"/proc/{process.pid}/task").glob("*/status")
            for line in _lines(status)
            if line.startswith("voluntary_ctxt_switches")
        )
        for kind, processes in groups.items()
    }


def _lines(status: Path) -> list[str]:
    try:
        return status.read_text().splitlines()
    except OSError:
        return []  # The thread has ended.


def each(used: float, done: int, span_s: float) -> float:
    """Of what was used until ENDS_IN_S before the end of a span, for one of those that were done in all of it."""
    return used / max(done * (1 - ENDS_IN_S / span_s), 1)


def publishes(connection: redis.Redis) -> int:
    return int(connection.info("commandstats").get("cmdstat_publish", {}).get("calls", 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=cells((*RATES, "handover")), default=CELLS)
    parser.add_argument("--seconds", type=seconds, default=3.0)
    arguments = parser.parse_args()
    with ended_tidily(), tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory))
        try:
            server.start()
            for work, callers in arguments.cells:
                print(measure(server, work, callers, arguments.seconds), flush=True)
        finally:
            server.stop()


def measure(server: Server, work: str, callers: int, span_s: float) -> str:
    leader = server.leader()
    groups: dict[str, list[psutil.Process]] = {"client": [], "leader": [], "follower": [], "redis": []}
    for name, process in server.running.items():
        kind = "redis" if name == "redis" else "leader" if name == leader else "follower"
        groups[kind].append(psutil.Process(process.pid))
    with (
        clients_of(server) as clients,
        redis.Redis.from_url(server.data.node_redis_url(server.config)) as connection,
    ):
        groups["client"] = [psutil.Process(client.process.pid) for client in clients.all]
        clients.begin(work, callers)
        from_s = time.monotonic() + BEGINS_IN_S
        for client in clients.all:
            client.say({"do": "measure", "from_s": from_s, "until_s": from_s + span_s})
        time.sleep(max(0.0, from_s - time.monotonic()))
        before, woken, sent = used_us(groups), wake_ups(groups), publishes(connection)
        time.sleep(max(0.0, from_s + span_s - ENDS_IN_S - time.monotonic()))
        after, later, sent = used_us(groups), wake_ups(groups), publishes(connection) - sent
        server.must_run()
        answers = [client.answer(span_s) for client in clients.all]
    if work == "handover":
        done = changes_of_owner((at, owner) for answer in answers for at, owner in answer["grants"])
    else:
        done = sum(answer["count"] for answer in answers)
    parts, total_us = [], 0.0
    for kind, (user_us, kernel_us) in after.items():
        user = each(user_us - before[kind][0], done, span_s)
        kernel = each(kernel_us - before[kind][1], done, span_s)
        total_us += user + kernel
        slept = each(later[kind] - woken[kind], done, span_s)
        parts.append(f"{kind} {user + kernel:5.0f} ({kernel:.0f} in the kernel, {slept:.1f} wake-ups)")
    rate = f"{work:8} {callers:3}: {done / span_s:7,.0f}/s"
    errors = sum(answer["errors"] for answer in answers)
    first = next((answer["first_error"] for answer in answers if answer["first_error"]), "")
    failed = f"; {errors} failed: {first}" if errors else ""
    return (
        f"{rate}, {total_us:5.0f} us of CPU each: {', '.join(parts)}; {each(sent, done, span_s):.2f} publishes{failed}"
    )


if __name__ == "__main__":
    main()
