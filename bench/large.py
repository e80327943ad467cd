"""A million keys: what a snapshot, a backup and a new member cost those who take locks meanwhile.

    python -m bench.large [--keys 1000000] [--value-bytes 230] [--callers 16] [--seconds 20] [--json FILE]

Real workers, one real Redis. In each phase it tells the longest way round the leader's loop and the followers', the
elections, how long a pair of acquire and release took, and whether `inspect` answered throughout. Phases: nothing else
(what the others are measured against), a snapshot on every node, a backup of the leader's, and a learner on a fourth
node, which is sent the snapshot and loads it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.options import at_least, ended_tidily, file_to_write, positive, seconds, some_of
from bench.peers.conclave import Server
from coordinator import client as shipped
from coordinator.config import PROJECT
from coordinator.consensus.members import Member
from coordinator.statemachine import commands
from coordinator.supervision import launched

PUTS_AT_ONCE: Final = 100
PHASE_S_MAX: Final = 300.0
WARM_UP_S: Final = 3.0
"""So long callers run before the first phase, once each has begun."""
BEGUN: Final = "begun"
LOOK_S: Final = 0.1
PAUSE_AFTER_ERROR_S: Final = 0.05
FILLERS: Final = 8
PHASES: Final = ("nothing", "snapshot", "backup", "learner")
FIRST: Final = frozenset({"node1", "node2", "node3"})
JOINING: Final = "node4"


# --- callers, in a process of their own -----------------------------------------------------------


def call(count: int, url: str, token: str) -> None:
    """Take and release locks until stdin ends, and say so when each caller has tried; then print when each pair was
    done and how long it took, and when what failed."""
    client = shipped.Client(url, token, timeout=60)
    ending = threading.Event()
    samples: list[tuple[float, float]] = []
    errors: list[tuple[float, str]] = []
    tried = [threading.Event() for _ in range(count)]

    def loop(number: int) -> None:
        name = f"lock{number}"
        while not ending.is_set():
            began_s = time.monotonic()
            try:
                client.acquire(name, ttl=30).release()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told of, and the others go on
                errors.append((time.monotonic(), repr(error)))
                ending.wait(PAUSE_AFTER_ERROR_S)
            else:
                ended_s = time.monotonic()
                samples.append((ended_s, ended_s - began_s))
            tried[number].set()

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for event in tried:
        event.wait()
    print(BEGUN, flush=True)
    sys.stdin.read()
    ending.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"samples": samples, "errors": errors}))


# --- what is looked at ----------------------------------------------------------------------------


class Loops(NamedTuple):
    """How often the way round a node's loop took how long, so far, and how many leaderships it has seen."""

    wall: dict[float, float]
    cpu: dict[float, float]
    """By the upper bound of the bucket."""
    leaders_seen: float


def loops(server: Server, node: str) -> Loops:
    wall: dict[float, float] = {}
    cpu: dict[float, float] = {}
    leaders_seen = 0.0
    for family in text_string_to_metric_families(server.metrics(node)):
        for sample in family.samples:
            if sample.name == "conclave_loop_duration_seconds_bucket":
                wall[float(sample.labels["le"])] = sample.value
            elif sample.name == "conclave_loop_cpu_seconds_bucket":
                cpu[float(sample.labels["le"])] = sample.value
            elif sample.name == "etcd_server_leader_changes_seen_total":
                leaders_seen += sample.value
    return Loops(wall, cpu, leaders_seen)


def longest(before: Loops, after: Loops) -> str:
    """The longest way round between two looks, by the bounds of the buckets: by the clock and in CPU time; and how many
    took more than 50 ms by the clock."""
    wall, slow = _longest(before.wall, after.wall)
    cpu, _ = _longest(before.cpu, after.cpu)
    return f"{wall} ({slow} above 50), {cpu} of CPU"


def _longest(before: dict[float, float], after: dict[float, float]) -> tuple[str, int]:
    new = {le: count - before.get(le, 0.0) for le, count in sorted(after.items())}
    total = new[float("inf")]
    bound = next(le for le, count in new.items() if count == total)
    return f"{'above 2000' if bound == float('inf') else round(bound * 1e3)} ms", int(total - new[0.05])


def inspect() -> None:
    """Ask the first three nodes what they host until stdin ends, and say so behind the first look; then print of each
    when it was, how long it took, and who did not answer."""
    import django

    django.setup()
    from coordinator.membership import nodes

    ending = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ending.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    looks: list[tuple[float, float, list[str]]] = []
    expected = set(FIRST)
    while not ending.wait(0.2):
        began_s = time.monotonic()
        found = nodes.look(expected, 2.0)
        expected |= set(found)
        looks.append((began_s, time.monotonic() - began_s, sorted(FIRST - set(found))))
        if len(looks) == 1:
            print(BEGUN, flush=True)
    print(json.dumps(looks))


# --- the phases -----------------------------------------------------------------------------------


class Bench:
    def __init__(self, server: Server, arguments: argparse.Namespace) -> None:
        self.server = server
        self.arguments = arguments
        self.rows: list[dict[str, Any]] = []
        self.spans: list[tuple[str, float, float]] = []
        assert server.watcher is not None
        self.client = server.watcher

    def fill(self) -> None:
        session_s = time.monotonic()
        value = os.urandom(self.arguments.value_bytes)
        keys = self.arguments.keys

        def put(first: int) -> None:
            puts = tuple(
                commands.PutKey(f"load/{number // 1000}/{number:07}", value)
                for number in range(first, min(first + PUTS_AT_ONCE, keys))
            )
            self.client.command(commands.Transact((), puts), timeout=60)

        with ThreadPoolExecutor(FILLERS) as fillers:
            for _ in fillers.map(put, range(0, keys, PUTS_AT_ONCE)):
                pass  # It raises what one of them raised, and the rest is not begun.
        print(f"{keys:,} keys put in {time.monotonic() - session_s:.0f} s", flush=True)

    def phase(self, name: str, work: Callable[[], None]) -> None:
        leader = self.server.leader()
        before = {node: loops(self.server, node) for node in sorted(FIRST)}
        began_s = time.monotonic()
        work()
        ended_s = time.monotonic()
        after = {node: loops(self.server, node) for node in before}
        self.spans.append((name, began_s, ended_s))
        row: dict[str, Any] = {"phase": name, "seconds": round(ended_s - began_s, 1), "leader": leader}
        row |= {node: longest(seen, after[node]) for node, seen in before.items()}
        row["elections"] = sum(after[node].leaders_seen - before[node].leaders_seen for node in before)
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + PHASE_S_MAX
        while not holds():
            if time.monotonic() > until_s:
                raise SystemExit(f"{what}: not within {PHASE_S_MAX:g} s")
            time.sleep(LOOK_S)

    def nothing(self) -> None:
        time.sleep(self.arguments.seconds)

    def snapshot(self) -> None:
        """On all three: each cuts its log behind it."""
        marks = {node: self.client.compact(node) for node in sorted(FIRST)}

        def cut() -> bool:
            from coordinator.membership import nodes

            reports = nodes.look(FIRST, 2.0)
            files = {node: [*(self.server.data.nodes / node / "snapshots").glob("*.snapshot")] for node in marks}
            return len(reports) == len(marks) and all(
                any(int(path.name.split("-")[1]) >= marks[node] for path in found) for node, found in files.items()
            )

        self.wait(cut, "every node has its snapshot on disk")

    def backup(self) -> None:
        from coordinator.membership import nodes

        leader = self.server.leader()
        request = f"bench-{time.time_ns()}"
        nodes.ask(leader, "back_up_replica", request, cluster=f"{self.client.cluster_id:x}")

        def done() -> bool:
            outcome = nodes.outcomes({leader: request}, 2.0).get(leader)
            assert outcome is None or outcome.state == nodes.DONE, outcome
            return outcome is not None

        self.wait(done, "the backup is written")

    def learner(self) -> None:
        """A fourth node, with an empty journal: it is sent everything, and loads it."""
        from coordinator.membership import nodes

        self.server.launch_member(JOINING)
        cluster = f"{self.client.cluster_id:x}"
        self.wait(lambda: JOINING in nodes.look({JOINING}, 2.0), "the fourth node is there")
        asked = nodes.ask_and_wait(JOINING, "host_replica", "bench-host", 20, cluster=cluster, cluster_name="default")
        assert asked.outcome is not None, "the fourth node hosts"
        seen = self.client.progress()
        member = Member(int(asked.outcome.replica, 16), JOINING)
        self.client.change(seen, seen.voters, (member,))

        def caught_up() -> bool:
            progress = self.client.progress()
            of = next((m for m in progress.members if m.replica == member.replica), None)
            return of is not None and of.match > 0 and progress.commit_index - of.match < 5_000

        self.wait(caught_up, "the learner has caught up")


def summed(said: dict[str, Any], began_s: float, ended_s: float) -> dict[str, Any]:
    """What callers said of one phase."""
    took = sorted(each_s for at_s, each_s in said["samples"] if began_s <= at_s < ended_s)
    errors = [error for at_s, error in said["errors"] if began_s <= at_s < ended_s]
    failed = {"errors": len(errors), "first_error": errors[0] if errors else ""}
    if not took:
        return failed | {"pairs_per_s": 0, "p50_ms": None, "p99_ms": None, "max_ms": None}
    return failed | {
        "pairs_per_s": round(len(took) / (ended_s - began_s)),
        "p50_ms": round(took[len(took) // 2] * 1e3, 2),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 2),
        "max_ms": round(took[-1] * 1e3, 1),
    }


def main() -> None:
    if sys.argv[1:2] == ["callers"]:
        return call(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    if sys.argv[1:2] == ["inspect"]:
        return inspect()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=positive, default=1_000_000)
    parser.add_argument("--value-bytes", type=at_least(0), default=230)
    parser.add_argument("--callers", type=positive, default=16)
    parser.add_argument("--seconds", type=seconds, default=20.0)
    parser.add_argument("--phases", type=some_of(PHASES, "some phases"), default=[*PHASES])
    parser.add_argument("--json", type=file_to_write)
    arguments = parser.parse_args()
    with ended_tidily(), tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory))
        os.environ |= {"CONCLAVE_DATA": str(server.data.path), "DJANGO_SETTINGS_MODULE": "coordinator.settings"}
        try:
            server.start()
            import django

            django.setup()
            run(server, arguments)
        finally:
            server.stop()
    return None


def beside(*command: str) -> subprocess.Popen[str]:
    """A process of this program; it says what it has seen when its stdin ends."""
    whole = [sys.executable, "-m", "bench.large", *command]
    return subprocess.Popen(
        launched(whole, parent=os.getpid(), directory=PROJECT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def has_begun(process: subprocess.Popen[str], who: str) -> None:
    """Waits for it: what a phase is measured against is to have all callers from its first moment on."""
    assert process.stdout is not None
    if process.stdout.readline().strip() != BEGUN:
        raise SystemExit(f"{who} ended before they had begun; what they said of it stands above")


def told(process: subprocess.Popen[str], who: str, within_s: float) -> Any:
    """What it says at its end."""
    said, _ = process.communicate("", timeout=within_s)
    if process.returncode:
        raise SystemExit(f"{who} ended with status {process.returncode}; what they said of it stands above")
    return json.loads(said)


def run(server: Server, arguments: argparse.Namespace) -> None:
    bench = Bench(server, arguments)
    bench.fill()
    connection = server.connection()
    callers = beside("callers", str(arguments.callers), connection["url"], connection["token"])
    inspector = beside("inspect")
    try:
        has_begun(callers, "callers")
        has_begun(inspector, "who inspects")
        time.sleep(WARM_UP_S)
        for name in arguments.phases:
            bench.phase(name, getattr(bench, name))
        said = told(callers, "callers", 120)
        looks = told(inspector, "who inspects", 30)
    finally:
        callers.kill()
        inspector.kill()
    for row, (_, began_s, ended_s) in zip(bench.rows, bench.spans, strict=True):
        row |= summed(said, began_s, ended_s)
        within = [(took_s, silent) for at_s, took_s, silent in looks if began_s <= at_s < ended_s]
        row["inspect_longest_s"] = round(max((took_s for took_s, _ in within), default=0.0), 2)
        row["inspect_unanswered"] = sum(len(silent) for _, silent in within)
        print(json.dumps(row), flush=True)
    print(f"errors of callers: {len(said['errors'])} {[error for _, error in said['errors'][:3]] or ''}")
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.rows, indent=1))


if __name__ == "__main__":
    main()
