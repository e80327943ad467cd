"""The page of `make prove` tells everything that was proven, each kind of work apart."""

from __future__ import annotations

import json
from pathlib import Path

from tests.proof import page


def run(seeds: int) -> str:
    return json.dumps(
        {
            "seeds": seeds,
            "events": 10 * seeds,
            "elections": 2 * seeds,
            "committed": 50 * seeds,
            "violations": 0,
            "faults": {"crash": 3},
            "checks": {"log-matching": 7},
        }
    )


def test_each_step_has_its_figures_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "seeds-1-500.json").write_text(run(500))
    (tmp_path / "seeds-501-1000.json").write_text(run(500))
    (tmp_path / "seeds-mixed.json").write_text(run(30))
    (tmp_path / "mutant-vote-twice").write_text("caught: vote-twice by election-safety at seed 4\n")
    (tmp_path / "random-mutants-a").write_text("1 of 2: log.py:3 — died\n1 of 2 died (50.0 %), by these judges:\n")
    (tmp_path / "torture").write_text("...200 rounds, 9,000 operations judged, killed: {}\n")
    said = page(tmp_path)
    assert "1,000 seeds of five replicas" in said
    assert "30 seeds of five replicas" in said.partition("mixed work")[2]
    assert "| vote-twice | election-safety | 4 |" in said
    assert "1 of 2 died (50.0 %)" in said
    assert "1 of 2: log.py" not in said
    assert "- 200 rounds, 9,000 operations judged" in said
