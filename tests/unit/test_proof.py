"""The page of `make prove` tells everything that was proven, each kind of work apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.proof import main, page, shortcomings


def run(seeds: int, **other: int) -> str:
    return json.dumps(
        {
            "seeds": seeds,
            "events": 2_600 * seeds,
            "events_min": 2_000,
            "elections": 2 * seeds,
            "committed": 50 * seeds,
            "violations": 0,
            "faults": {"crash": 3},
            "checks": {"log-matching": 7},
        }
        | other
    )


def test_each_step_has_its_figures_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "seeds-1-500.json").write_text(run(500))
    (tmp_path / "seeds-501-1000.json").write_text(run(500))
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30))
    (tmp_path / "mutant-vote-twice").write_text("caught: vote-twice by election-safety at seed 4\n")
    (tmp_path / "random-mutants-a").write_text("1 of 2: log.py:3 — died\n1 of 2 died (50.0 %), by these judges:\n")
    (tmp_path / "torture").write_text("...200 rounds, 9,000 operations judged, killed: {}\n")
    said = page(tmp_path)
    mixed, _, plain = said.partition("keys and locks alone")
    assert "30 seeds of five replicas" in mixed
    assert "1,000 seeds of five replicas" in plain
    assert "| vote-twice | election-safety | 4 |" in said
    assert "1 of 2 died (50.0 %)" in said
    assert "1 of 2: log.py" not in said
    assert "(at least 2,000 each)" in said
    assert shortcomings(tmp_path) == []
    assert "- 200 rounds, 9,000 operations judged" in said


@pytest.mark.parametrize(
    ("short", "said"),
    [
        ({"violations": 1}, "plain work: expected no violation, got 1"),
        ({"events_min": 1_999}, "plain work: expected 2000 events of every seed, the shortest has 1999"),
        ({"committed": 499}, "plain work: expected 50 committed a seed on average, got 49.90"),
        ({"elections": 19}, "plain work: expected 2 elections a seed on average, got 1.90"),
    ],
)
def test_seeds_that_are_less_than_was_asked_for_are_no_proof(tmp_path: Path, short: dict[str, int], said: str) -> None:
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30))
    (tmp_path / "seeds-1-10.json").write_text(run(10, **short))
    assert shortcomings(tmp_path) == [said]


def test_planted_bugs_that_are_caught_late_are_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, seed in enumerate((3, 50, 900)):
        (tmp_path / f"mutant-a{number}").write_text(f"caught: a{number} by log-matching at seed {seed}\n")
    assert main(tmp_path) == 0
    (tmp_path / "mutant-a1").write_text("caught: a1 by log-matching at seed 51\n")
    assert main(tmp_path) == 1
    assert capsys.readouterr().err == "planted bugs: expected a median of at most 50 seeds, got 51\n"
