"""How the tests are handed out where several processes run them (`tests/conftest.py`)."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import ports
from coordinator.config import PORTS_MIN
from tests.conftest import SHARED, TESTS, marks_of, may_have, ports_of, share_of

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


@pytest.mark.parametrize(
    ("place", "wanted", "is_read"),
    [
        ("browser/test_live_page.py", "not slow and not alone and not clockless", False),
        ("browser", "not slow and not alone and not clockless", False),
        ("browser/test_live_page.py", "not slow", True),
        ("integration/test_up.py", "not slow and not alone and not clockless", True),
        ("integration/test_up.py", "alone and not slow", True),
        ("integration/test_addresses.py", "alone and not slow", False),
        ("simulation/test_faults.py", "not slow and not clockless", False),
        ("simulation", "not slow and not clockless", False),
        ("simulation/test_faults.py", "clockless and not slow", True),
        ("test_compiled.py", "clockless and not slow", True),
        ("test_compiled.py", "not slow and not clockless", True),
        ("unit/test_logs.py", "clockless and not slow", False),
        ("unit/test_logs.py", "clockless or alone", True),
        ("unit/test_logs.py", "not (slow or alone)", True),
        ("unit/test_logs.py", "", True),
        ("unit/replica", "not clockless", True),
        ("unit/replica/test_restore.py", "not clockless", True),
        ("unit/replica/test_turn.py", "not clockless", False),
        ("unit", "clockless", True),
        ("", "clockless", True),
    ],
)
def test_what_the_marks_of_a_run_leave_out_for_its_place_is_not_read(place: str, wanted: str, is_read: bool) -> None:
    assert (TESTS / place).exists()
    assert may_have(TESTS / place, wanted) == is_read


def test_each_test_has_the_marks_of_its_place(request: pytest.FixtureRequest) -> None:
    found = {path: marks_of(path) for path in TESTS.rglob("test_*.py")}
    assert {"integration"} == set().union(*(marks for path, marks in found.items() if "integration" in path.parts))
    assert {"browser", "alone"} == set().union(*(marks for path, marks in found.items() if "browser" in path.parts))
    assert found[TESTS / "unit" / "consensus" / "test_core.py"] == ("clockless",)
    assert found[request.path] == ()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_what_several_processes_read_first_is_together_all_of_it(count: int) -> None:
    files = [Path(f"test_{number}.py") for number in range(7)]
    assert [path for number in range(count) for path in share_of(number, count, files)] == files


def test_those_that_share_an_installation_are_known() -> None:
    """They go to one process."""
    found = []
    for path in sorted((TESTS / "integration").glob("test_*.py")):
        functions = [one for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.FunctionDef)]
        asking = [one.name for one in functions if "installation" in {each.arg for each in one.args.args}]
        own = "installation" in {one.name for one in functions}
        if not own and any(name.startswith("test_") for name in asking):
            found.append(path.relative_to(PROJECT).as_posix())
    assert found == [*SHARED]
