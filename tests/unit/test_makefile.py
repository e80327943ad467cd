"""What `make` does to the virtual environment, by what is there of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config import PROJECT
from tests.conftest import without
from tests.unit.pages import DOCS

MADE_ANEW = "-m venv --clear .venv"


@pytest.fixture(autouse=True)
def make() -> None:
    if shutil.which("make") is None:
        without("make", by="the system's package manager")


def would_do(clone: Path, *targets: str) -> str:
    shutil.copy(PROJECT / "Makefile", clone)
    for requirements in PROJECT.glob("requirements*.txt"):
        shutil.copy(requirements, clone)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", f"PYTHON={sys.executable}", *(targets or [".venv/.runtime"])]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True).stdout


def environment_with(clone: Path, *names: str) -> None:
    for name in names:
        path = clone / ".venv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_one_that_was_cut_off_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    environment_with(tmp_path, "bin/python")
    assert MADE_ANEW in would_do(tmp_path)


def test_one_in_which_nothing_is_installed_yet_is_gone_on_with(tmp_path: Path) -> None:
    environment_with(tmp_path, "bin/python", "bin/pip")
    assert MADE_ANEW not in would_do(tmp_path)


def test_one_in_which_something_is_installed_is_kept(tmp_path: Path) -> None:
    environment_with(tmp_path, "bin/python", ".runtime")
    assert MADE_ANEW not in would_do(tmp_path)


def test_one_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    environment_with(tmp_path, "bin/pip", ".runtime")
    (tmp_path / ".venv/bin/python").symlink_to(tmp_path / "an older Python")
    os.utime(tmp_path / ".venv/.runtime", (0, 0))
    assert MADE_ANEW in would_do(tmp_path)


def test_all_that_it_runs_on_can_be_installed_without_a_start(tmp_path: Path) -> None:
    assert "manage.py up" in would_do(tmp_path, "up")
    installed = would_do(tmp_path, "install")
    assert MADE_ANEW in installed
    assert "-r requirements.txt" in installed
    assert "coordinator.compiling --if-possible" in installed
    assert "manage.py up" not in installed


def test_programs_have_their_assertions_and_find_the_clone_whatever_is_set_for_others(tmp_path: Path) -> None:
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    theirs |= {"PYTHONOPTIMIZE": "2", "PYTHONSAFEPATH": "1", "PYTHONPATH": "theirs"}
    command = ["make", "-f", str(PROJECT / "Makefile"), "--eval", "said: ; @env | grep ^PYTHON", "said"]
    said = subprocess.run(command, cwd=tmp_path, env=theirs, capture_output=True, text=True, check=True).stdout
    assert "PYTHONPATH=theirs" in said
    assert "PYTHONOPTIMIZE" not in said
    assert "PYTHONSAFEPATH" not in said


@pytest.mark.parametrize("page", [*PROJECT.glob("*.md"), *DOCS.glob("*.md")], ids=lambda page: page.name)
def test_whatever_a_page_has_made_can_be_made(page: Path) -> None:
    targets = {*re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)}
    said = re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {*said} <= targets


def test_of_two_at_once_the_second_waits_and_keeps_what_the_first_has_made(tmp_path: Path) -> None:
    if shutil.which("flock") is None:
        without("flock", "apt-get install util-linux")
    would_do(tmp_path)  # Its files are there.
    (tmp_path / "var").mkdir()
    asked, python = tmp_path / "asked", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    python.chmod(0o755)
    with (tmp_path / "var/environment.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = subprocess.Popen(
            ["make", f"PYTHON={python}", ".venv/.runtime"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        )
        assert second.stdout is not None
        assert "another make is at .venv in this clone: waiting for it" in second.stdout.readline()
        (tmp_path / ".venv/bin").mkdir(parents=True)
        shutil.copy(python, tmp_path / ".venv/bin/python")
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert "venv --clear" not in asked.read_text()
    assert "pip install" in asked.read_text()
