"""Each program of `bench/` starts by its name and by its path, from wherever somebody stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
