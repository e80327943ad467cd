"""`make bench-setup` on machines that lack something: what is missing, and what to do, is said."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "bench" / "setup.sh"
JAR = Path("/usr/share/java/zookeeper.jar")


class Machine:
    """What is in PATH there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def add(self, name: str, script: str) -> None:
        program = self.directory / name
        program.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        program.chmod(0o755)

    def set_up(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash is not None
        return subprocess.run(
            [bash, str(SETUP), *arguments],
            cwd=cwd,
            env={"PATH": str(self.directory)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "bin")
    machine.add("python", 'for last; do :; done; [ -e "$last" ] || exit 1')
    return machine


def test_without_apt_it_says_what_to_put_where(bare: Machine, tmp_path: Path) -> None:
    done = bare.set_up("python", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "etcd-server: left out, for there is no apt-get here; put etcd into PATH yourself"
    lacking = "left out, for there is no apt-get here; put it into /usr/share/java, as zookeeper.jar, yourself"
    assert lines[1] == f"zookeeper: {'is here' if JAR.exists() else lacking}"
    assert lines[2].startswith("default-jre-headless: left out, for there is no apt-get here; put java into PATH")
    assert lines[3].startswith("redis-server: left out, for there is no apt-get here; put it into PATH yourself; ")
    assert lines[4] == "Python clients: installed", "from wherever one stands"


def test_only_root_may_install(bare: Machine, tmp_path: Path) -> None:
    bare.add("apt-get", "exit 9")
    bare.add("id", "echo 1000")
    said = bare.set_up("python", cwd=tmp_path).stdout
    assert "etcd-server: left out, for only root may install it: sudo apt-get install --no-install-recommends" in said
    bare.add("id", "echo 0")
    bare.add("python", "exit 1")
    said = bare.set_up("python", cwd=tmp_path).stdout
    assert "apt-get update failed" in said
    assert "etcd-server: left out, apt-get could not install it; put etcd into PATH yourself" in said
    assert "Python clients: left out, pip could not install requirements-bench.txt" in said


def test_what_the_comparison_would_find_is_here(bare: Machine, tmp_path: Path) -> None:
    """It looks in PATH, wherever that leads: what lies elsewhere than Debian puts it was left out, and java, without
    which there is no ZooKeeper, was not looked for."""
    for name in ("etcd", "java", "valkey-server"):
        bare.add(name, "exit 0")
    said = bare.set_up("python", cwd=tmp_path).stdout
    for package in ("etcd-server", "default-jre-headless", "redis-server"):
        assert f"{package}: is here\n" in said


def test_without_a_python_it_says_how_it_is_called(bare: Machine, tmp_path: Path) -> None:
    done = bare.set_up(cwd=tmp_path)
    assert done.returncode != 0
    assert "usage: bench/setup.sh PYTHON" in done.stderr
