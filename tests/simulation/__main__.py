"""The command line of the simulator; see `--help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections import Counter
from typing import Final

from coordinator import compiled
from tests.simulation.campaign import Order, ProcessKilled, Summary, results, run_many
from tests.simulation.engines import ENGINES
from tests.simulation.faults import Fault
from tests.simulation.mutants import MUTANTS, MutantDoesNotFit, planted
from tests.simulation.run import AS_DRAWN, MIXED, WORKLOADS, Result, run_seed
from tests.simulation.shrink import shrink
from tests.simulation.trace import LEGEND, line

HELD, VIOLATED, UNUSABLE = 0, 1, 2
MUTANT_SEEDS: Final = range(1, 1_001)
SEED_MAX: Final = 10**15
REPLAY_CPU_S_MAX: Final = 10.0
"""Of the processor's time, for each of the many runs that cut down a failure: some never end."""


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    _refuse_what_is_not_heeded(parser, options)
    if options.list_mutants:
        print("\n".join(MUTANTS))
        return HELD
    if options.mutant is not None and options.mutant not in MUTANTS:
        parser.error(f"there is no mutant {options.mutant!r}; --list-mutants names them")
    if (options.mutant or options.random_mutants) and compiled.is_used():
        parser.error(f"a bug can be planted in interpreted modules alone: unset {compiled.VARIABLE}")
    order = Order(options.engine, _nodes_for(options), options.mutant or "", options.workload or MIXED)
    seeds, jobs = options.seeds or MUTANT_SEEDS, options.jobs or 1
    try:
        if options.random_mutants:
            drawn_by = 1 if options.random_seed is None else options.random_seed
            return _random_mutants(options.random_mutants, drawn_by, seeds, jobs)
        if options.seed is not None and not options.json:
            return _one(order, options.seed, trace=options.trace)
        if options.mutant:
            return _hunt(order, seeds, jobs)
        if options.seed is not None:
            seeds = range(options.seed, options.seed + 1)
        return _many(order, seeds, jobs, as_json=options.json)
    except (BrokenPipeError, _NobodyReads):
        # Whoever read has had enough, as `head` has; nothing more is to be written, not even at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNUSABLE
    except MutantDoesNotFit as error:
        name = f" {order.mutant}" if order.mutant else ""
        print(f"the mutant{name} does not fit the code any more: {error}", file=sys.stderr)
        return UNUSABLE
    except ProcessKilled as death:
        print(death, file=sys.stderr)
        return UNUSABLE
    except Exception:  # noqa: BLE001 - whatever it is, it is printed
        # Status 1 is a violation's alone: a defect of the simulator must not look like one.
        traceback.print_exc()
        return UNUSABLE


class _NobodyReads(BaseException):
    """Whoever read the trace has had enough. Nothing that is simulated may catch it."""


_HEEDED: Final = {
    "list_mutants": "",
    "random_mutants": "random_seed seeds jobs",
    "seed": "nodes workload mutant jobs trace json",
    "mutant": "nodes workload seeds jobs",
    "seeds": "nodes workload jobs json",
}
"""What is asked for, the first that is there, to what it heeds besides `--engine`."""


def _refuse_what_is_not_heeded(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Nobody is to take for said what nothing came of."""
    said = {name: value for name, value in vars(options).items() if name != "engine"}
    given = [name for name, value in said.items() if value is not None and value is not False]
    asked = next((name for name in _HEEDED if name in given), None)
    if asked is None:
        parser.error("expected --seed N, --seeds A-B, --mutant NAME, --random-mutants N or --list-mutants")
    heeded = {asked, *_HEEDED[asked].split()}
    if asked == "seed" and options.json:
        heeded -= {"trace", "mutant"}
        asked = "seed with --json"
    for name in given:
        if name not in heeded:
            parser.error(f"--{asked.replace('_', '-')} does not go with --{name.replace('_', '-')}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run the real core, state machine, turn and client under faults, in simulated time.",
        epilog="Status: 0 all properties held; 1 one did not (a mutant: it was caught); 2 the run is good for nothing.",
    )
    parser.add_argument("--engine", choices=sorted(ENGINES), default="raft")
    parser.add_argument(
        "--workload",
        choices=WORKLOADS,
        help="what clients do (default mixed: all that the state machine can; plain: keys and exclusive locks)",
    )
    parser.add_argument("--nodes", type=_nodes, help="replicas, 1 to 9 (default: 3 or 5, as the seed says)")
    parser.add_argument("--seed", type=_seed, metavar="N", help="run one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print each event, and shrink a failure")
    parser.add_argument("--seeds", type=seeds_of, metavar="A-B", help="run many seeds and sum them up")
    parser.add_argument("--jobs", type=_jobs, help="processes (default 1)")
    parser.add_argument("--json", action="store_true", help="with --seeds or --seed: the summary as one JSON object")
    parser.add_argument("--mutant", metavar="NAME", help="plant a bug; stop at the first violation")
    parser.add_argument("--list-mutants", action="store_true", help="the names of the planted bugs")
    parser.add_argument(
        "--random-mutants", type=_jobs_or_more, metavar="N", help="plant N bugs that nobody chose, one at a time"
    )
    parser.add_argument("--random-seed", type=int, metavar="S", help="which N are drawn (default 1)")
    return parser


def seeds_of(text: str) -> range:
    """FIRST-LAST, or one number. Raises ArgumentTypeError."""
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() if dash else True)) or (dash and int(last) < int(first)):
        raise argparse.ArgumentTypeError(f"expected FIRST-LAST, like 1-100, got {text!r}")
    if int(last or first) > SEED_MAX:
        raise argparse.ArgumentTypeError(f"expected seeds up to {SEED_MAX}, got {text!r}")
    return range(int(first), int(last or first) + 1)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > SEED_MAX:
        raise argparse.ArgumentTypeError(f"expected a seed from 0 to {SEED_MAX}, got {text!r}")
    return int(text)


def _nodes_for(options: argparse.Namespace) -> int:
    """As asked, else as the mutant that is to be caught needs it, else as each seed says."""
    mutant = MUTANTS.get(options.mutant or "")
    return int(options.nodes) if options.nodes else AS_DRAWN if mutant is None else mutant.nodes


def _nodes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 9:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 9, got {text!r}")
    return int(text)


def _jobs_or_more(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 64, got {text!r}")
    return int(text)


def _many(order: Order, seeds: range, jobs: int, *, as_json: bool) -> int:
    summary = run_many(order, seeds, jobs, quiet=as_json, stop_at_violation=False)
    print(json.dumps(summary.as_json()) if as_json else summary)
    for seed, *_ in summary.failures[:3]:
        print(f"replay: python -m tests.simulation {_arguments(order)} --seed {seed} --trace", file=sys.stderr)
    return VIOLATED if summary.failures else HELD


def _hunt(order: Order, seeds: range, jobs: int) -> int:
    """Plant a bug and look for it."""
    for result in results(order, seeds, jobs):
        if result.violation is not None:
            print(f"caught: {order.mutant} by {result.violation[0]} at seed {result.seed}")
            print(f"  {result.violation[1]}", file=sys.stderr)
            return VIOLATED
    print(f"alive: {order.mutant} after seeds {seeds[0]} to {seeds[-1]}")
    return HELD


def _one(order: Order, seed: int, *, trace: bool) -> int:
    with planted(order.mutant):
        if trace:
            print(LEGEND)
        result = run_seed(
            seed,
            engine=order.engine,
            nodes=order.nodes,
            workload=order.workload,
            trace=_tell if trace else None,
        )
        summary = Summary()
        summary.add(result)
        if result.violation is None:
            print(f"seed {seed}: {result.events} events, {result.committed} committed entries; all properties held")
            return HELD
        if order.mutant:
            print(f"caught: {order.mutant} by {result.violation[0]} at seed {seed}")
        print(f"seed {seed}: VIOLATION of {result.violation[0]}: {result.violation[1]}")
        if trace:
            _print_shortest(order, result)
        return VIOLATED


def _tell(now_us: int, who: str, what: str) -> None:
    try:
        print(line(now_us, who, what))
    except BrokenPipeError:
        raise _NobodyReads from None


def _print_shortest(order: Order, result: Result) -> None:
    assert result.violation is not None
    checker = result.violation[0]

    def fails(plan: list[Fault]) -> bool:
        found = run_seed(
            result.seed,
            engine=order.engine,
            nodes=order.nodes,
            workload=order.workload,
            plan=plan,
            cpu_s_max=REPLAY_CPU_S_MAX,
        ).violation
        return found is not None and found[0] == checker

    planned = sorted(result.happened)
    if not fails(planned):
        print("(with only the faults that had begun, the violation does not come; nothing to shrink)")
        return
    needed = shrink(planned, fails)
    print(f"of {len(planned)} faults it needs {len(needed)}:")
    for fault in needed:
        print(f"  {fault}")


def _random_mutants(count: int, drawn_by: int, seeds: range, jobs: int) -> int:
    """Plant bugs that nobody chose. Those that nothing notices are printed at the end: a violation, where they are too
    many or the page of survivors does not explain one."""
    from tests.simulation import random_mutants

    points = random_mutants.draw(count, drawn_by)
    judges: Counter[str] = Counter()
    survivors = []
    for number, fate in enumerate(random_mutants.fates(points, seeds, jobs), 1):
        print(f"{number} of {len(points)}: {fate}", flush=True)
        if fate.by is None:
            survivors.append(fate.point)
        else:
            judges["unit tests" if fate.by.startswith("unit test") else f"{fate.by} in a seed"] += 1
    died = len(points) - len(survivors)
    print(f"{died} of {len(points)} died ({100 * died / len(points):.1f} %), by these judges:")
    for judge, many in judges.most_common():
        print(f"  {judge}: {many}")
    unexplained = [point for point in survivors if not random_mutants.is_explained(point)]
    print(f"alive after the unit tests and seeds {seeds[0]} to {seeds[-1]}:")
    for point in sorted(survivors):
        print(f"  {point}{' (not in docs/survivors.md)' if point in unexplained else ''}")
    print(f"{len(unexplained)} of {len(survivors)} survivors are not explained in docs/survivors.md")
    return VIOLATED if unexplained or died < random_mutants.DIE_SHARE_MIN * len(points) else HELD


def _arguments(order: Order) -> str:
    words = [f"--engine {order.engine}"]
    if order.workload != MIXED:
        words.append(f"--workload {order.workload}")
    if order.nodes != AS_DRAWN:
        words.append(f"--nodes {order.nodes}")
    if order.mutant:
        words.append(f"--mutant {order.mutant}")
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
