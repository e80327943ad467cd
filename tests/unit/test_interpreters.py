"""Which Python the virtual environment is made of (coordinator/interpreters.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from coordinator import interpreters
from coordinator.interpreters import Interpreter, ask, chosen, paths

QUICK = Interpreter("/usr/bin/python3.11", "/usr/bin/python3.11", (3, 11), compiles=True, is_slow=False)
SLOW = Interpreter("/built/python3.12", "/built/python3.12", (3, 12), compiles=True, is_slow=True)


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ([QUICK], QUICK),
        ([SLOW], SLOW),
        ([SLOW, QUICK], QUICK),
        ([SLOW, SLOW._replace(path="/other"), QUICK], QUICK),
        ([QUICK, QUICK._replace(version=(3, 12))], QUICK),
        ([SLOW, QUICK._replace(compiles=False)], SLOW),
        ([SLOW._replace(compiles=False), QUICK._replace(compiles=False)], QUICK._replace(compiles=False)),
        ([SLOW, QUICK._replace(version=(3, 13))], SLOW),
        ([SLOW._replace(version=(3, 13)), QUICK._replace(version=(3, 13))], QUICK._replace(version=(3, 13))),
    ],
)
def test_another_is_taken_only_in_place_of_a_slow_one(found: list[Interpreter], taken: Interpreter) -> None:
    assert chosen(found) == taken


def _program(directory: Path, name: str, *lines: str) -> Path:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text("\n".join(("#!/bin/sh", *lines, "")))
    program.chmod(0o755)
    return program


def _pretender(directory: Path, name: str, **said: object) -> Path:
    answer = {"real_path": str(directory / name), "version": [3, 11], "compiles": True, "is_slow": False} | said
    return _program(directory, name, f"echo '{json.dumps(answer)}'")


def test_names_come_before_directories_and_what_cannot_run_is_none(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    expected = [_program(other, "python3.12"), _program(one, "python3.11"), _program(other, "python3.11")]
    (one / "python3.12").write_text("no program")
    assert paths(["", str(one), str(tmp_path / "nowhere"), str(other)]) == [str(path) for path in expected]


def test_the_python_of_these_tests_says_what_it_is() -> None:
    found = ask(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:2]
    assert found.real_path == str(Path(sys.executable).resolve())
    assert found.compiles == (Path(sysconfig.get_path("include")) / "Python.h").exists()
    maps = Path("/proc/self/maps")
    behind_a_library = maps.exists() and "libpython" in maps.read_text()
    has_profile = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    assert found.is_slow == (behind_a_library and not has_profile)


@pytest.mark.parametrize(
    "line",
    [
        "echo no such command >&2; exit 127",
        "echo",
        "echo 3",
        "echo '[]'",
        "echo '{}'",
        'echo \'{"real_path": "/", "version": 3, "compiles": true, "is_slow": true}\'',
        "kill -9 $$",
    ],
)
def test_a_shim_that_pretends_is_passed_over(tmp_path: Path, line: str) -> None:
    assert ask(str(_program(tmp_path, "python3.11", line))) is None


def test_what_is_too_old_is_passed_over(tmp_path: Path) -> None:
    assert ask(str(_pretender(tmp_path, "python3", version=[3, 10]))) is None
    assert ask(str(_pretender(tmp_path, "python3", version=[3, 11]))) is not None


def _run(*directories: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", interpreters.__file__],
        env={"PATH": ":".join(map(str, directories))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_path_is_printed_and_why(tmp_path: Path) -> None:
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    first, other = _pretender(slow, "python3.11", is_slow=True), _pretender(quick, "python3.11")
    _pretender(slow, "python3", is_slow=True, real_path=str(first))

    told = _run(slow, quick)
    assert told.stdout == f"{other}\n"
    assert told.stderr == f"{other} is taken: {first} was built without its profile and is slower\n"
    assert (_run(quick, slow).stdout, _run(quick, slow).stderr) == (f"{other}\n", "")
    assert (_run(slow).stdout, _run(slow).stderr) == (f"{first}\n", "")


def test_where_there_is_none_nothing_is_printed(tmp_path: Path) -> None:
    told = _run(tmp_path)
    assert (told.stdout, told.returncode) == ("", 1)
