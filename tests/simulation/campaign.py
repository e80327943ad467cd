"""Many seeds: run, counted and summed up, on one process or several."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Final, NamedTuple

from tests.simulation.mutants import planted
from tests.simulation.run import MIXED, Result, run_seed

PROGRESS_S: Final = 1.0
SEEDS_A_COLLECTION: Final = 16
"""A run leaves garbage in circles; it is collected between seeds and never within one."""
RUN_AHEAD: Final = 32
"""Of seeds, for each process: so many are run or wait while the first of them is not done."""


class ProcessKilled(Exception):
    """A process that ran seeds was ended by somebody else, and its seeds with it."""


class Order(NamedTuple):
    """What to run each seed with."""

    engine: str
    nodes: int
    mutant: str = ""
    workload: str = MIXED


class Summary:
    """Sums over seeds, and the violations by seed."""

    def __init__(self) -> None:
        self.seeds = 0
        self.events = 0
        self.events_min = 0
        """Of the shortest seed that held; 0: none did."""
        self.elections = 0
        self.committed = 0
        self.operations = 0
        self.locks = 0
        self.faults: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.failures: list[tuple[int, str, str]] = []
        self.healed_us_max = 0
        self.simulated_us = 0
        self.took_s = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.events += result.events
        if result.violation is None:
            self.events_min = min(self.events_min or result.events, result.events)
        self.elections += result.elections
        self.committed += result.committed
        self.operations += result.operations
        self.locks += result.locks
        self.faults.update(result.faults)
        self.checks.update(result.checks)
        self.healed_us_max = max(self.healed_us_max, result.healed_us)
        self.simulated_us += result.lived_us
        if result.violation is not None:
            self.failures.append((result.seed, *result.violation))

    def as_json(self) -> dict[str, Any]:
        return {
            "seeds": self.seeds,
            "events": self.events,
            "events_min": self.events_min,
            "faults": dict(sorted(self.faults.items())),
            "elections": self.elections,
            "committed": self.committed,
            "checks": dict(sorted(self.checks.items())),
            "violations": len(self.failures),
            "failures": [{"seed": seed, "checker": checker, "what": what} for seed, checker, what in self.failures],
            "operations": self.operations,
            "locks": self.locks,
            "simulated_s": round(self.simulated_us / 1e6, 1),
            "healed_s_max": round(self.healed_us_max / 1e6, 3),
            "took_s": round(self.took_s, 1),
            "seeds_per_s": round(self.seeds / self.took_s, 1) if self.took_s else 0.0,
        }

    def __str__(self) -> str:
        seeds = max(1, self.seeds)
        took_s = max(self.took_s, 1e-9)
        lines = [
            f"{self.seeds} seeds in {self.took_s:.1f} s: {self.seeds / took_s:.1f} a second",
            f"{self.simulated_us / 1e6:.0f} s were simulated: {self.simulated_us / 1e6 / took_s:.0f} times real time",
            f"{self.events} events ({self.events / seeds:.0f} a seed, {self.events_min} in the shortest)",
            f"{self.elections} elections ({self.elections / seeds:.1f} a seed)",
            f"{self.committed} committed entries ({self.committed / seeds:.0f} a seed)",
            f"{self.operations} operations of clients, {self.locks} locks taken",
            f"the healed cluster served again within {self.healed_us_max / 1e6:.2f} s",
            "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items())),
            "checks: " + ", ".join(f"{name} {count}" for name, count in sorted(self.checks.items())),
        ]
        lines += [f"VIOLATION seed {seed}: {checker}: {what}" for seed, checker, what in self.failures]
        lines.append(f"{len(self.failures)} violations")
        return "\n".join(lines)


def results(order: Order, seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """Run the seeds in order; with several jobs they come in order too, run ahead."""
    if jobs == 1:
        with planted(order.mutant):
            for number, seed in enumerate(seeds):
                yield run_one(order, seed, collect=number % SEEDS_A_COLLECTION == 0)
        return
    # Planted before the fork, so that one that does not fit is known at once.
    with planted(order.mutant):
        # No `multiprocessing.Pool`: it waits for ever for what a process had in hand that was killed.
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), gc.freeze)
        try:
            yield from _in_order(pool, order, seeds, jobs * RUN_AHEAD)
        except BrokenProcessPool:
            raise ProcessKilled(
                "a process that ran seeds was killed, as the system does where memory is short"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, order: Order, seeds: Iterable[int], ahead: int) -> Iterator[Result]:
    left = iter(seeds)
    begun: deque[Future[Result]] = deque(pool.submit(run_one, order, seed) for seed in islice(left, ahead))
    while begun:
        yield begun.popleft().result()
        begun.extend(pool.submit(run_one, order, seed) for seed in islice(left, 1))


def run_one(order: Order, seed: int, *, collect: bool | None = None, cpu_s_max: float | None = None) -> Result:
    """One seed, with the collector off while it runs."""
    if collect or (collect is None and seed % SEEDS_A_COLLECTION == 0):
        gc.collect()
    gc.disable()
    try:
        return run_seed(seed, engine=order.engine, nodes=order.nodes, workload=order.workload, cpu_s_max=cpu_s_max)
    finally:
        gc.enable()


def run_many(order: Order, seeds: range, jobs: int, *, quiet: bool, stop_at_violation: bool) -> Summary:
    """Run seeds, with a line of progress on standard error."""
    summary = Summary()
    begun = told = time.monotonic()
    for result in results(order, seeds, jobs):
        summary.add(result)
        now = time.monotonic()
        if not quiet and now - told >= PROGRESS_S:
            told = now
            rate = summary.seeds / (now - begun)
            left_s = (len(seeds) - summary.seeds) / rate
            print(
                f"\r{summary.seeds} of {len(seeds)} seeds, {rate:.1f} a second, {left_s:.0f} s to go, "
                f"{len(summary.failures)} violations ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        if stop_at_violation and summary.failures:
            break
    summary.took_s = time.monotonic() - begun
    if told != begun:
        print(file=sys.stderr)
    return summary
