"""Each program of `bench/` starts by its name and by its path, from wherever somebody stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import compiled

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(path for path in (ROOT / "bench").glob("*.py") if "add_argument" in path.read_text())


def test_there_are_programs() -> None:
    assert {"compare.py", "core.py", "turn.py"} <= {path.name for path in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_starts_by_its_path(program: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("usage: ")


def test_a_client_process_that_nobody_speaks_to_says_what_it_is() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench.callers", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1
    assert "python -m bench.callers PEER NUMBER" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_small_crowd_is_measured() -> None:
    """It stands on the real leader's parts: whatever they come to need, it must have."""
    run = subprocess.run(
        [sys.executable, "-m", "bench.crowd", "--sessions", "100", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    (crowd,) = json.loads(run.stdout)["crowds"]
    assert {"sessions": 100, "watches": 10, "waiters": 10}.items() <= crowd.items()
    assert {"put", "hand_over", "join_looked_at_for_deadlocks", "keep_alive", "drain"} <= crowd.keys()
    assert all(figure > 0 for figure in crowd.values())


def test_a_crowd_of_too_few_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bench.crowd", "--sessions", "99"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 2
    assert "100 sessions or more, got 99" in run.stderr


TAKES_NATIVE_CODE = """
import sys
from coordinator import compiled, compiling
names = [file.removesuffix(".py").replace("/", ".") for file in compiling.sources()]
early = []
compiled.use = lambda *_: early.append([name for name in names if name in sys.modules])
import bench.{program}
print(early[0])
"""


@pytest.mark.parametrize("program", ["callers", "many", "large"])
def test_a_client_takes_native_code_before_anything_of_it_is_imported(program: str) -> None:
    """For half a day all of them ran interpreted, and the table said that they were compiled."""
    environment = os.environ | {compiled.VARIABLE: "auto"}
    run = subprocess.run(
        [sys.executable, "-c", TAKES_NATIVE_CODE.format(program=program)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")
