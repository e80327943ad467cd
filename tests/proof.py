"""What `make prove` found, as a page: `python -m tests.proof STATE_DIRECTORY`."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path


def page(state: Path) -> str:
    mixed = state / "seeds-mixed.json"
    plain = [path for path in sorted(state.glob("seeds-*.json")) if path != mixed]
    lines = [
        "# What was proven",
        "",
        f"Written by `make prove`, which says of which code by the name of its state directory: `{state.name}`.",
        "",
        *_seeds("Seeds", plain),
        *(_seeds("Seeds of the mixed work", [mixed]) if mixed.exists() else ()),
        "## Planted bugs",
        "",
        "| planted bug | caught by | at seed |",
        "| --- | --- | --- |",
    ]
    seeds = []
    for path in sorted(state.glob("mutant-*")):
        found = re.search(r"caught: (\S+) by (\S+) at seed (\d+)", path.read_text())
        assert found is not None, path
        seeds.append(int(found[3]))
        lines.append(f"| {found[1]} | {found[2]} | {found[3]} |")
    if seeds:
        lines += ["", f"{len(seeds)} of {len(seeds)} caught; median at seed {statistics.median(seeds):g}."]
    for path in sorted(state.glob("random-mutants-*"), key=lambda path: path.stat().st_mtime)[-1:]:
        said = [line for line in path.read_text().splitlines() if not re.match(r"\d+ of \d+: ", line)]
        lines += ["", "## Bugs that nobody chose", "", *[f"    {line}" for line in said]]
    said = [*_said(state / "kills", r"from|service|\d+ pack"), *_said(state / "torture", r"\d+ rounds, ")]
    if said:
        lines += ["", "## Real processes", "", *[f"- {line}" for line in said]]
    return "\n".join(lines) + "\n"


def _seeds(title: str, paths: list[Path]) -> list[str]:
    runs = [json.loads(path.read_text()) for path in paths]
    faults: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    for run in runs:
        faults.update(run["faults"])
        checks.update(run["checks"])
    totals = {key: sum(run[key] for run in runs) for key in ("seeds", "events", "elections", "committed", "violations")}
    summary = (
        f"{totals['seeds']:,} seeds of five replicas: {totals['events']:,} events, {totals['elections']:,} elections, "
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


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
