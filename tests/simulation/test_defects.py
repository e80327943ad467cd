"""Whatever is raised, and whatever does not end, is a violation of its seed: named, counted, and to be replayed."""

from __future__ import annotations

import json
import os
import signal
from typing import Any, NoReturn

import pytest

from coordinator.consensus.raft.core import Raft
from tests.simulation import __main__ as command_line
from tests.simulation import campaign
from tests.simulation import world as world_module
from tests.simulation.clients import Client
from tests.simulation.follower_reads import FollowerReads
from tests.simulation.injector import Injector
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants.edits import Edit, Mutant
from tests.simulation.run import Probes, run_seed
from tests.simulation.watch import Watch


def _raises(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(
    ("whose", "name"),
    [
        (Raft, "transfer"),
        (FollowerReads, "_ask"),
        (Injector, "heal"),
        (Probes, "missing"),
        (Client, "die"),
        (world_module, "first_log"),
    ],
)
def test_what_is_raised_outside_of_everybodys_turns_is_a_violation_that_says_where(
    whose: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whose, name, _raises)
    violation = next(violation for seed in range(1, 13) if (violation := run_seed(seed).violation) is not None)
    assert violation[0] == "no-defect"
    assert "ZeroDivisionError('planted') in _raises (test_defects.py:" in violation[1]


def test_what_is_raised_in_a_turn_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raft, "step", _raises)
    violation = run_seed(1).violation
    assert violation is not None
    assert violation[0] == "no-defect"
    assert violation[1].startswith("node")
    assert "in _raises (test_defects.py:" in violation[1]


def test_the_command_line_names_the_seeds_whose_run_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Raft, "transfer", _raises)
    assert command_line.main(["--seeds", "1-12", "--json"]) == 1
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary["seeds"] == 12
    assert summary["violations"] == len(summary["failures"]) > 0
    seed = summary["failures"][0]["seed"]
    assert f"--seed {seed} --trace" in said.err
    assert command_line.main(["--seed", str(seed)]) == 1
    assert f"seed {seed}: VIOLATION of no-defect" in capsys.readouterr().out


def test_a_planted_bug_that_raises_in_an_operators_hand_is_caught(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = Edit(
        "coordinator.consensus.raft.core:Raft.transfer", "return transfer.begin", "return 1 // 0, transfer.begin"
    )
    monkeypatch.setitem(MUTANTS, "planted", Mutant("planted", ("no-defect",), "", (edit,)))
    assert command_line.main(["--mutant", "planted"]) == 1
    assert capsys.readouterr().out.startswith("caught: planted by no-defect at seed ")


@pytest.mark.parametrize("way", [["--seeds", "1-2"], ["--seed", "1"], ["--mutant", "hangs"], ["--jobs", "2"]])
def test_a_run_that_never_ends_is_a_violation(
    way: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = Edit("coordinator.consensus.raft.core:Raft.ready", "    snapshots.drop_overtaken(self)\n", _LOOP)
    monkeypatch.setitem(MUTANTS, "hangs", Mutant("hangs", ("no-defect",), "", (edit,)))
    monkeypatch.setattr("tests.simulation.run.SEED_CPU_S_MAX", 0.2)
    if way[0] == "--jobs":
        way = ["--seeds", "1-2", *way]
    if "--mutant" not in way:
        way = ["--mutant", "hangs", *way]
    assert command_line.main(way) == 1
    said = capsys.readouterr()
    assert "caught: hangs by no-defect at seed 1" in said.out
    assert "still runs after 0.2 s" in said.out + said.err


_LOOP = "    while True:\n        pass\n"


def test_a_seed_that_ended_well_leaves_no_limit_behind() -> None:
    assert run_seed(1, cpu_s_max=60.0).violation is None
    assert run_seed(1, cpu_s_max=0.02).violation == (
        "no-defect",
        "the run: still runs after 0.02 s of the processor's time",
    )
    assert run_seed(1) == run_seed(1, cpu_s_max=60.0)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_planted_bug_that_does_not_fit_ends_the_run_and_says_which_and_where(
    jobs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = Edit("coordinator.consensus.quorum:majority", "no such text", "")
    monkeypatch.setitem(MUTANTS, "misfit", Mutant("misfit", ("no-defect",), "", (edit,)))
    assert command_line.main(["--mutant", "misfit", "--seeds", "1-4", "--jobs", jobs]) == 2
    said = capsys.readouterr().err
    assert "the mutant misfit does not fit" in said
    assert "coordinator.consensus.quorum:majority" in said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("asked", [["--seeds", "1-8"], ["--mutant", "vote-not-persisted"]])
def test_a_process_that_is_killed_ends_the_run_and_is_no_violation(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the system does it where memory is short. Nobody waits for what it had in hand."""

    def killed(seed: int, **_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(campaign, "run_seed", killed)
    assert command_line.main([*asked, "--jobs", "2"]) == 2
    said = capsys.readouterr()
    assert "a process that ran seeds was killed" in said.err
    assert "Traceback" not in said.err
    assert "caught" not in said.out


def test_a_read_index_that_nobody_asked_for_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the checker hears of every read, of leaders and of followers: it is deaf to what it is not told of."""
    tell = Watch.tell

    def forgets(self: Watch, what: str, *details: Any) -> None:
        if what != "read_begun" or details[0].leads:
            tell(self, what, *details)

    monkeypatch.setattr(Watch, "tell", forgets)
    found = (run_seed(seed) for seed in range(1, 40))
    violation = next(result.violation for result in found if result.violation is not None)
    assert violation[0] == "reads-never-stale"
    assert "for a read that nobody began" in violation[1]


def test_liveness_and_defects_are_counted_as_what_was_put_to_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = run_seed(1).checks
    assert (checks["liveness"], checks["no-defect"]) == (1, 1)
    monkeypatch.setattr(Raft, "step", _raises)
    checks = run_seed(1).checks
    assert (checks["liveness"], checks["no-defect"]) == (0, 1)
