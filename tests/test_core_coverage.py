"""The gate of coverage: every branch of `coordinator/consensus/` is taken by its own unit tests, with no help from the
simulator, and whatever is left out of the count says why, in its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = "coordinator/consensus"
LEFT_OUT = re.compile(r"#\s*pragma:\s*no\s*(?:cover|branch)\b")
LEFT_OUT_WITH_REASON = re.compile(r"#\s*pragma:\s*no\s*(?:cover|branch) - \w+")


@pytest.mark.timeout(600)
def test_every_branch_of_the_core_is_taken_by_its_unit_tests(tmp_path: Path) -> None:
    data = f"--data-file={tmp_path / 'coverage'}"
    # The models are left out for their time: what they reach, named tests reach too.
    tests = ["tests/unit/consensus", "--ignore=tests/unit/consensus/test_models.py", "-m", "not slow"]
    run = _python("coverage", "run", "--branch", f"--source={CORE}", data, "-m", "pytest", "-q", *tests)
    assert run.returncode == 0, run.stdout + run.stderr
    report = _python("coverage", "report", data, "--precision=2", "--fail-under=100")
    assert report.returncode == 0, report.stdout + report.stderr
    assert re.search(r"TOTAL .* 100\.00%", report.stdout), report.stdout


def test_what_the_count_leaves_out_says_why() -> None:
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / CORE).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFT_OUT.search(line) and not LEFT_OUT_WITH_REASON.search(line)
    ]
    assert unexplained == []


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
