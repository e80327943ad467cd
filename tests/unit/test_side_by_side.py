"""How the tests are handed out where several processes run them (`tests/conftest.py`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FILES = ("tests/unit/test_orders.py", "tests/unit/test_logs.py", "tests/unit/consensus/test_spares.py")


@pytest.mark.long
def test_a_file_is_run_by_one_process():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "--no-loadscope-reorder", *FILES],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    by = {(file, process) for process, file in re.findall(r"^\[(gw\d)\].* PASSED (\S+?)::", ran, re.MULTILINE)}
    assert sorted(file for file, _ in by) == sorted(FILES)
    assert len({process for _, process in by}) == 2, "and both have something to do"
