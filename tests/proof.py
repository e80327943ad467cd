"""What `make prove` found, as a page: `python -m tests.proof STATE_DIRECTORY`.

Status 1 where it is less than was asked for, which is then said on standard error.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.simulation.checkers import CHECKERS, OF_MIXED_WORK
from tests.simulation.faults import KIND_NAMES
from tests.simulation.random_mutants import DIE_SHARE_MIN
from tests.simulation.run import LIVENESS
from tests.simulation.watch import NO_DEFECT

MEDIAN_MAX: Final = 50
"""Planted bugs are caught within so many seeds, half of them."""
EVENTS_MIN: Final = 2_000
"""Of every seed."""
COMMITTED_MIN: Final = 50
ELECTIONS_MIN: Final = 2
"""Of a seed on average."""
CHECKED: Final = (*(checker.name for checker in CHECKERS), LIVENESS, NO_DEFECT)
OF_PLAIN_WORK: Final = tuple(name for name in CHECKED if name not in {checker.name for checker in OF_MIXED_WORK})


def page(state: Path) -> str:
    plain, mixed = _plain(state), _mixed(state)
    lines = [
        "# What was proven",
        "",
        f"Written by `make prove`, which says of which code by the name of its state directory: `{state.name}`.",
        "",
        *(_seeds("Seeds", mixed) if mixed else ()),
        *(_seeds("Seeds of keys and locks alone", plain) if plain else ()),
        "## Planted bugs",
        "",
        "| planted bug | caught by | at seed |",
        "| --- | --- | --- |",
    ]
    seeds = []
    for path in sorted(state.glob("mutant-*")):
        found = _caught(path)
        seeds.append(int(found[3]))
        lines.append(f"| {found[1]} | {found[2]} | {found[3]} |")
    if seeds:
        lines += ["", f"{len(seeds)} of {len(seeds)} caught; median at seed {statistics.median(seeds):g}."]
    for path in _random_mutants(state):
        said = [line for line in path.read_text().splitlines() if not re.match(r"\d+ of \d+: ", line)]
        lines += ["", "## Bugs that nobody chose", "", *[f"    {line}" for line in said]]
    said = [*_said(state / "kills", r"from|service|\d+ pack"), *_said(state / "torture", r"\d+ rounds, ")]
    if said:
        lines += ["", "## Real processes", "", *[f"- {line}" for line in said]]
    return "\n".join(lines) + "\n"


def shortcomings(state: Path) -> list[str]:
    """What is less than was asked for, in words."""
    short = []
    for title, paths, checkers in (("plain", _plain(state), OF_PLAIN_WORK), ("mixed", _mixed(state), CHECKED)):
        runs = [json.loads(path.read_text()) for path in paths]
        if not runs:
            continue
        seeds = sum(run["seeds"] for run in runs)
        if violations := sum(run["violations"] for run in runs):
            short.append(f"{title} work: expected no violation, got {violations}")
        if (shortest := min(run["events_min"] for run in runs)) < EVENTS_MIN:
            short.append(f"{title} work: expected {EVENTS_MIN} events of every seed, the shortest has {shortest}")
        for key, least in (("committed", COMMITTED_MIN), ("elections", ELECTIONS_MIN)):
            if (mean := sum(run[key] for run in runs) / seeds) < least:
                short.append(f"{title} work: expected {least} {key} a seed on average, got {mean:.2f}")
        if lacking := _never(KIND_NAMES, [run["faults"] for run in runs]):
            short.append(f"{title} work: these kinds of fault never occurred: {', '.join(lacking)}")
        if lacking := _never(checkers, [run["checks"] for run in runs]):
            short.append(f"{title} work: these checkers never checked anything: {', '.join(lacking)}")
    caught = [found for path in sorted(state.glob("mutant-*")) if (found := _caught(path))]
    if caught and (median := statistics.median(int(found[3]) for found in caught)) > MEDIAN_MAX:
        short.append(f"planted bugs: expected a median of at most {MEDIAN_MAX} seeds, got {median:g}")
    for path in _random_mutants(state):
        died = re.search(r"^(\d+) of (\d+) died ", path.read_text(), re.MULTILINE)
        if died is None:
            short.append("random mutants: nothing says how many died")
        elif int(died[1]) < DIE_SHARE_MIN * int(died[2]):
            short.append(f"random mutants: expected {100 * DIE_SHARE_MIN:g} % to die, {died[1]} of {died[2]} did")
    return short


def _never(names: Iterable[str], counts: list[dict[str, int]]) -> list[str]:
    """Those that nobody counted."""
    return [name for name in names if not any(count.get(name) for count in counts)]


def _random_mutants(state: Path) -> list[Path]:
    """The last run's output, where there was one."""
    return sorted(state.glob("random-mutants-*"), key=lambda path: path.stat().st_mtime)[-1:]


def _plain(state: Path) -> list[Path]:
    return [path for path in sorted(state.glob("seeds-*.json")) if path not in _mixed(state)]


def _mixed(state: Path) -> list[Path]:
    return sorted(state.glob("seeds-mixed*.json"))


def _caught(path: Path) -> re.Match[str]:
    found = re.search(r"caught: (\S+) by (\S+) at seed (\d+)", path.read_text())
    assert found is not None, path
    return found


def _seeds(title: str, paths: list[Path]) -> list[str]:
    runs = [json.loads(path.read_text()) for path in paths]
    faults: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    for run in runs:
        faults.update(run["faults"])
        checks.update(run["checks"])
    totals = {key: sum(run[key] for run in runs) for key in ("seeds", "events", "elections", "committed", "violations")}
    shortest = min(run["events_min"] for run in runs) if runs else 0
    summary = (
        f"{totals['seeds']:,} seeds of five replicas: {totals['events']:,} events (at least {shortest:,} each), "
        f"{totals['elections']:,} elections, "
        f"{totals['committed']:,} committed entries, {totals['violations']:,} violations."
    )
    return [f"## {title}", "", summary, "", *_table("fault", faults), "", *_table("checker", checks), ""]


def _said(path: Path, pattern: str) -> list[str]:
    """The lines of a step's output that begin with `pattern`, behind the dots of a test run."""
    if not path.exists():
        return []
    lines = [line.lstrip(".") for line in path.read_text().splitlines()]
    return [line for line in lines if re.match(pattern, line)]


def _table(what: str, counts: Counter[str]) -> list[str]:
    return [
        f"| {what} | times |",
        "| --- | --- |",
        *[f"| {name} | {count:,} |" for name, count in sorted(counts.items())],
    ]


def main(state: Path) -> int:
    sys.stdout.write(page(state))
    short = shortcomings(state)
    print("\n".join(short), end="\n" if short else "", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
