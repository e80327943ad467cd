"""How the tests are handed out where several processes run them (`tests/conftest.py`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import ports
from coordinator.config import PORTS_MIN
from tests.conftest import ports_of

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


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_no_two_processes_have_a_port_in_common(processes):
    among = range(20_000, 30_000)
    own = [ports_of(number, processes, among) for number in range(processes)]
    assert all(len(each) >= PORTS_MIN for each in own)
    assert len(set().union(*own)) == sum(map(len, own)) <= len(among)


def test_a_process_among_others_has_a_part_of_the_ports_alone():
    assert ("PYTEST_XDIST_WORKER" in os.environ) == (len(ports.OF_OUR_OWN) < 10_000)
