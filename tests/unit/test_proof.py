"""The page of `make prove` tells everything that was proven, each kind of work apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import PROJECT
from tests.proof import main, page, shortcomings
from tests.simulation.checkers import CHECKERS, OF_MIXED_WORK
from tests.simulation.faults import KIND_NAMES

CHECKED = [*(checker.name for checker in CHECKERS), "liveness", "no-defect"]
OF_PLAIN = [name for name in CHECKED if name not in {checker.name for checker in OF_MIXED_WORK}]


def run(seeds: int, **other: Any) -> str:
    return json.dumps(
        {
            "seeds": seeds,
            "events": 2_600 * seeds,
            "events_min": 2_000,
            "elections": 2 * seeds,
            "committed": 50 * seeds,
            "violations": 0,
            "faults": dict.fromkeys(KIND_NAMES, 3),
            "checks": dict.fromkeys(CHECKED, 7),
        }
        | other
    )


def test_each_step_has_its_figures_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "seeds-1-500.json").write_text(run(500))
    (tmp_path / "seeds-501-1000.json").write_text(run(500))
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30))
    (tmp_path / "mutant-vote-twice").write_text("caught: vote-twice by election-safety at seed 4\n")
    (tmp_path / "random-mutants-a").write_text("1 of 2: log.py:3 — died\n9 of 10 died (90.0 %), by these judges:\n")
    (tmp_path / "torture").write_text("...200 rounds, 9,000 operations judged, killed: {}\n")
    said = page(tmp_path)
    mixed, _, plain = said.partition("keys and locks alone")
    assert "30 seeds of five replicas" in mixed
    assert "1,000 seeds of five replicas" in plain
    assert "| vote-twice | election-safety | 4 |" in said
    assert "9 of 10 died (90.0 %)" in said
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


def test_every_kind_of_fault_occurs_in_the_work(tmp_path: Path) -> None:
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30, faults=dict.fromkeys(KIND_NAMES, 0) | {"busy": 9}))
    assert shortcomings(tmp_path) == [f"mixed work: these kinds of fault never occurred: {', '.join(KIND_NAMES)}"]
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30, faults=dict.fromkeys(KIND_NAMES[1:], 1)))
    assert shortcomings(tmp_path) == [f"mixed work: these kinds of fault never occurred: {KIND_NAMES[0]}"]
    (tmp_path / "seeds-mixed-31-60.json").write_text(run(30, faults={KIND_NAMES[0]: 1}))
    assert shortcomings(tmp_path) == []


def test_every_checker_checks_what_there_is_of_its_work(tmp_path: Path) -> None:
    (tmp_path / "seeds-1-30.json").write_text(run(30, checks=dict.fromkeys(OF_PLAIN, 1)))
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30))
    assert shortcomings(tmp_path) == []
    (tmp_path / "seeds-1-30.json").write_text(run(30, checks=dict.fromkeys(OF_PLAIN[:-1], 1)))
    (tmp_path / "seeds-mixed-1-30.json").write_text(run(30, checks=dict.fromkeys(OF_PLAIN, 1) | {"deadlocks": 0}))
    plain, mixed = shortcomings(tmp_path)
    assert plain == "plain work: these checkers never checked anything: no-defect"
    lacking = mixed.removeprefix("mixed work: these checkers never checked anything: ").split(", ")
    assert sorted(lacking) == sorted({*CHECKED} - {*OF_PLAIN})


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("180 of 200 died (90.0 %), by these judges:\n", []),
        ("179 of 200 died (89.5 %), by these judges:\n", ["random mutants: expected 90 % to die, 179 of 200 did"]),
        ("3 of 200: log.py:3 — died\n", ["random mutants: nothing says how many died"]),
    ],
)
def test_so_many_random_mutants_die(tmp_path: Path, said: str, short: list[str]) -> None:
    (tmp_path / "random-mutants-a").write_text(said)
    assert shortcomings(tmp_path) == short


def test_planted_bugs_that_are_caught_late_are_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, seed in enumerate((3, 50, 900)):
        (tmp_path / f"mutant-a{number}").write_text(f"caught: a{number} by log-matching at seed {seed}\n")
    assert main(tmp_path) == 0
    (tmp_path / "mutant-a1").write_text("caught: a1 by log-matching at seed 51\n")
    assert main(tmp_path) == 1
    assert capsys.readouterr().err == "planted bugs: expected a median of at most 50 seeds, got 51\n"


def test_what_is_proven_is_this_code_where_git_does_not_say_what_there_is(tmp_path: Path) -> None:
    """In an archive of the sources, or somebody else's clone, all code had one name, that of none."""
    for name in ("coordinator", "tests/simulation", "tests/linearizability", "tests/integration"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(PROJECT / "tests/prove.sh", tmp_path / "tests")
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}

    def names_of_code() -> set[str]:
        """With a Python that fails: the name is there before it is asked for anything."""
        command = ["bash", "tests/prove.sh", "false", "state", "1-2", "1"]
        subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return {path.name for path in (tmp_path / "state").iterdir()}

    (tmp_path / "coordinator/a b.py").write_text("1")
    first = names_of_code()
    (tmp_path / "coordinator/__pycache__").mkdir()
    (tmp_path / "coordinator/__pycache__/a.pyc").write_text("compiled")
    assert names_of_code() == first
    (tmp_path / "coordinator/a b.py").write_text("2")
    assert len(names_of_code()) == 2
