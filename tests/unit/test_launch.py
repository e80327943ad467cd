"""What the launcher starts cannot outlive the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coordinator import launch
from coordinator.supervision import launched
from tests.integration.installation import lives
from tests.integration.waiting import eventually

LAUNCHER = launch.__file__


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", LAUNCHER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_it_becomes_the_program_in_the_directory(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), sys.argv[1:])"
    done = _run(str(os.getpid()), str(tmp_path), sys.executable, "-c", program, "a b", "--c")
    assert done.stdout == f"{tmp_path} ['a b', '--c']\n"
    assert done.returncode == 0


def test_the_exit_status_is_the_programs() -> None:
    assert _run(str(os.getpid()), "/", "sh", "-c", "exit 7").returncode == 7


def test_it_starts_nothing_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = _run(str(os.getpid() + 1), "/", "touch", str(trace))
    assert done.returncode == launch.EXIT_ORPHAN
    assert not trace.exists()


@pytest.mark.parametrize("arguments", [[], ["1"], ["1", "/"], ["x", "/", "true"], ["-1", "/", "true"]])
def test_a_wrong_call_says_how_it_is_called(arguments: list[str]) -> None:
    done = _run(*arguments)
    assert done.returncode == launch.EXIT_USAGE
    assert "usage: launch.py PARENT_PID DIRECTORY PROGRAM" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel offers this on Linux alone")
def test_kill_9_of_the_parent_takes_the_program_along(tmp_path: Path) -> None:
    parent_program = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from coordinator.supervision import launched\n"
        "command = launched(['sleep', '600'], parent=os.getpid(), directory=Path('/'))\n"
        "child = subprocess.Popen(command)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    root = Path(LAUNCHER).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", parent_program], cwd=root, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        eventually(lambda: child.name() == "sleep", timeout_s=10, what="the launcher became the program")
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    eventually(lambda: not lives(child), timeout_s=5, what="the program died with its parent")


def test_it_loads_the_standard_library_alone_and_little_of_it() -> None:
    program = (
        "import runpy, sys\n"
        f"runpy.run_path({LAUNCHER!r}, run_name='not main')\n"
        "print('\\n'.join(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= set(sys.stdlib_module_names) | {"__main__", "sitecustomize", "usercustomize"}
    assert not loaded & {"coordinator", "asyncio", "subprocess", "logging"}


def test_every_part_is_started_by_the_launcher() -> None:
    command = launched(["redis-server", "x"], parent=7, directory=Path("/somewhere"))
    assert command[1:] == ["-I", "-S", LAUNCHER, "7", "/somewhere", "redis-server", "x"]
