"""What the command line is asked for, it does, or says that it does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import __main__ as command_line
from tests.simulation.campaign import Order
from tests.simulation.run import AS_DRAWN, nodes_of, run_seed

ROOT = Path(__file__).parents[2]
PLANTED = ("--mutant", "vote-not-persisted")


def _refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        command_line.main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "1", "--seeds", "1-2"], "--seed does not go with --seeds"),
        (["--seeds", "1-2", "--trace"], "--seeds does not go with --trace"),
        ([*PLANTED, "--trace"], "--mutant does not go with --trace"),
        ([*PLANTED, "--json"], "--mutant does not go with --json"),
        ([*PLANTED, "--seed", "1", "--json"], "--seed with --json does not go with --mutant"),
        (["--seed", "1", "--trace", "--json"], "--seed with --json does not go with --trace"),
        (["--random-mutants", "2", *PLANTED], "--random-mutants does not go with --mutant"),
        (["--random-mutants", "2", "--nodes", "5"], "--random-mutants does not go with --nodes"),
        (["--random-mutants", "2", "--workload", "mixed"], "--random-mutants does not go with --workload"),
        (["--random-mutants", "2", "--seed", "1"], "--random-mutants does not go with --seed"),
        (["--random-mutants", "2", "--json"], "--random-mutants does not go with --json"),
        (["--random-mutants", "2", "--trace"], "--random-mutants does not go with --trace"),
        (["--seeds", "1-2", "--random-seed", "3"], "--seeds does not go with --random-seed"),
        (["--list-mutants", "--seed", "0"], "--list-mutants does not go with --seed"),
        (["--nodes", "3"], "expected --seed N, --seeds A-B, --mutant NAME, --random-mutants N or --list-mutants"),
        (["--mutant", ""], "there is no mutant ''"),
        (["--seeds", "1-99999999999999999999999"], "expected seeds up to 1000000000000000, got "),
        (["--seeds", "2-1"], "expected FIRST-LAST"),
        (["--seed", "-3"], "argument --seed: expected a seed from 0 to 1000000000000000, got '-3'"),
        (["--seed", "1000000000000001"], "argument --seed: expected a seed from 0 to 1000000000000000, got "),
        (["--seed", "one"], "argument --seed: expected a seed from 0 to 1000000000000000, got 'one'"),
    ],
)
def test_what_would_be_passed_over_in_silence_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _refusal(arguments, capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "0"],
        ["--seed", "3", "--nodes", "3", "--workload", "plain"],
        ["--engine", "raft", "--seeds", "1-2", "--nodes", "3", "--jobs", "2"],
        ["--mutant", "no-room-for-what-was-proposed", "--seed", "1"],
        ["--mutant", "no-room-for-what-was-proposed", "--seeds", "1-2", "--jobs", "2", "--nodes", "3"],
    ],
)
def test_what_goes_together_is_done(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(arguments) == 0
    assert capsys.readouterr().out


def test_one_seed_is_one_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--seed", "3", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert command_line.main(["--seeds", "3-3", "--json"]) == 0
    many = json.loads(capsys.readouterr().out)
    measured = ("took_s", "seeds_per_s")
    assert [value for key, value in one.items() if key not in measured] == [
        value for key, value in many.items() if key not in measured
    ]
    assert one["seeds"] == 1


def test_whoever_has_read_enough_of_a_trace_ends_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3", "--trace"]
    run = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (run.returncode, run.stderr) == (2, "")


def test_a_failure_is_replayed_and_cut_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([*PLANTED, "--seed", "1", "--trace"]) == 1
    said = capsys.readouterr().out
    assert said.startswith(command_line.LEGEND)
    assert "caught: vote-not-persisted by " in said
    assert " violation " in said
    assert re.search(r"^of \d+ faults it needs \d+:$", said, re.MULTILINE)


def test_so_many_nodes_run_as_are_asked_for_or_as_a_planted_bug_needs_or_as_the_seed_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[Order] = []
    for name in ("_hunt", "_many"):
        monkeypatch.setattr(command_line, name, lambda order, *_, **__: orders.append(order))
    for arguments in (
        ["--seeds", "1-2"],
        ["--seeds", "1-2", "--nodes", "4"],
        ["--mutant", "left-to-one-of-many"],
        ["--mutant", "vote-not-persisted"],
        ["--mutant", "left-to-one-of-many", "--nodes", "3"],
    ):
        command_line.main(["--engine", "raft", *arguments])
    assert [order.nodes for order in orders] == [AS_DRAWN, 4, 5, AS_DRAWN, 3]
    assert [nodes_of(seed) for seed in range(8)] == [5, 5, 5, 3, 5, 5, 5, 3]
    assert run_seed(3) == run_seed(3, nodes=3) != run_seed(3, nodes=5)
