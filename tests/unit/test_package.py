"""`pip install` of a clone gives a program the Python client, with what it imports and nothing else; and who runs a
command with a Python that has nothing installed is told which one has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement

from coordinator.config import PROJECT

pytestmark = pytest.mark.long
USES: Final = """
import sys
for name in ("celery", "django", "redis"):
    sys.modules[name] = None
import coordinator.client.__main__, coordinator.client.fencing
from coordinator.client.recipes import barrier, counter, double_barrier, election, group, queue
print(coordinator.client.__file__)
print(*sorted({name.partition(".")[0] for name, module in sys.modules.items()
    if "site-packages" in (getattr(module, "__file__", None) or "")}))
"""
NEVER_THE_CLIENTS: Final = {"_distutils_hack", "typing_extensions"}
"""What an environment loads by itself, and what mypy_extensions does where it is there."""


def project() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `pip install` put what a clone gives, without what it depends on."""
    clone, site = (tmp_path_factory.mktemp("package") / name for name in ("clone", "site"))
    shutil.copytree(PROJECT / "coordinator", clone / "coordinator", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE.md"):
        shutil.copy(PROJECT / name, clone)
    for name in ("bench", "dashboard", "docs", "static", "templates", "tests"):
        (clone / name).mkdir()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(clone)], check=True, capture_output=True, timeout=120)
    return site


def test_a_program_that_installs_it_has_the_client(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USES],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, imported = done.stdout.splitlines()
    assert Path(file).is_relative_to(installed)
    needed = {Requirement(line).name for line in project()["project"]["dependencies"]}
    assert {*imported.split()} - NEVER_THE_CLIENTS == needed


def test_what_it_depends_on_is_what_is_pinned() -> None:
    pinned = dict(
        line.partition(" ;")[0].strip().split("==")
        for line in (PROJECT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    for line in project()["project"]["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), line
        assert distribution(wanted.name).version == pinned[wanted.name]


def test_a_python_that_has_nothing_installed_says_which_one_has() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "manage.py", "token", "worker"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{sys.executable} lacks django. `make up` puts all that is needed into .venv" in done.stderr
