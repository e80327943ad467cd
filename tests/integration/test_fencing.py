"""The pause that breaks other locks: a holder is stopped past its lease, another takes over, and the first goes on.

Each of its writes is refused, by a real file and a real database table, and its client says that the lock is lost the
first time that it is asked (`fenced_writer.py` is the holder, and prints what it saw).
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator.config import PROJECT
from tests.integration.installation import Installation
from tests.integration.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def begin(directory: Path, credentials: tuple[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.fenced_writer", str(directory), *arguments]
    url, token = credentials
    environment = os.environ | {"CONCLAVE_URL": url, "CONCLAVE_TOKEN": token}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("place", ["check", "write"])
def test_a_holder_that_was_stopped_past_its_lease_writes_nothing_more(
    installation: Installation, tmp_path: Path, place: str
):
    credentials = installation.new_token(f"fencing-{place}")
    holder = begin(tmp_path, credentials, "holder", place)
    try:
        assert holder.stdout is not None
        said: list[dict[str, Any]] = [json.loads(holder.stdout.readline())]
        assert (said[0]["file"], said[0]["row"], said[0]["lost"]) == (True, True, ""), "it holds the lock, and writes"
        holder.send_signal(signal.SIGUSR1)
        process = psutil.Process(holder.pid)
        eventually(lambda: process.status() == psutil.STATUS_STOPPED, timeout_s=20, what="it is stopped")
        # Who waits in line has the lock when the lease has run out, and no sooner.
        other = begin(tmp_path, credentials, "other")
        told, _ = other.communicate(timeout=60)
        later = json.loads(told)
        assert (later["file"], later["row"]) == (True, True)
        assert later["token"] > said[0]["token"]
        went_on_ns = time.monotonic_ns()
        holder.send_signal(signal.SIGCONT)
        said += [json.loads(line) for line in holder.stdout]
        assert holder.wait(30) == 0
    finally:
        holder.kill()
        holder.wait()
    before = [each for each in said if each["wrote_ns"] < went_on_ns]
    after = [each for each in said if each["wrote_ns"] >= went_on_ns]
    assert len(before) >= 1
    assert all(each["file"] and each["row"] and not each["lost"] for each in before)
    assert len(after) == 201
    assert not any(each["file"] or each["row"] for each in after), "every write after the pause is refused, by both"
    looked = [each for each in after if each["looked_ns"] >= went_on_ns]
    assert len(looked) == (201 if place == "check" else 200), "one had looked before the pause, and wrote after it"
    assert all(each["lost"] and not each["held"] for each in looked), "its client knew, before each write"
    assert not any(each["held"] for each in after)
    assert (tmp_path / "guarded").read_text() == "other 0"
    assert (tmp_path / "guarded.fence").read_text() == str(later["token"])
    with sqlite3.connect(tmp_path / "guarded.sqlite3") as database:
        assert database.execute("SELECT value, fencing_token FROM fenced_guarded").fetchall() == [
            ("other 0", later["token"])
        ]
