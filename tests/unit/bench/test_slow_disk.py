"""A disk that is slower on demand, for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import slow_disk

SYNC = (
    "import os, sys, time; file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); began = time.perf_counter();"
    "os.fdatasync(file); os.fsync(file); print(time.perf_counter() - began)"
)


def sync_s(file: Path) -> float:
    done = subprocess.run([sys.executable, "-c", SYNC, str(file)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_processes_that_begin_meanwhile_wait_longer_for_their_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "LD_PRELOAD" in os.environ:
        monkeypatch.delenv("LD_PRELOAD")
    try:
        with slow_disk.slower(tmp_path, 300_000):
            assert sync_s(tmp_path / "file") >= 0.6
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert "LD_PRELOAD" not in os.environ
    monkeypatch.setenv("LD_PRELOAD", "")
    with slow_disk.slower(tmp_path, 0):
        assert os.environ["LD_PRELOAD"] == ""


@pytest.mark.parametrize("name", ["a b", "a:b"])
def test_a_library_that_would_not_be_loaded_is_not_built(name: str, tmp_path: Path) -> None:
    """What cannot be preloaded is passed over, and the disk would be as quick as ever."""
    (tmp_path / name).mkdir()
    with pytest.raises(RuntimeError, match="without blanks and colons"), slow_disk.slower(tmp_path / name, 1):
        pass


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeError, match="needs a C compiler"), slow_disk.slower(tmp_path, 1):
        pass
    monkeypatch.setenv("CC", "false")
    with pytest.raises(RuntimeError, match="false -shared"), slow_disk.slower(tmp_path, 1):
        pass
