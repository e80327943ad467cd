"""A command that runs under something: it is ended, with all that it has started, where that is lost, and no later; at
a terminal it is as if it ran by itself."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.command_line import running
from coordinator.client.command_line.running import run
from coordinator.client.errors import InvalidRequest, LeaseLost
from tests.integration.waiting import eventually

TEXT_S_MAX = 30.0


@pytest.fixture(autouse=True)
def _signals_stay() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in running.PASSED_ON}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Held:
    """Held until something holds; `left` of the lease then."""

    def __init__(self, is_lost: Callable[[], bool], left: float = 0.0) -> None:
        self._is_lost = is_lost
        self._left = left
        self._looks = 0

    @property
    def expires_in(self) -> float:
        self._looks += 1
        return self._left if self._looks > 1 and self._is_lost() else 15.0

    def check(self) -> None:
        if not self._left and self._is_lost():
            raise LeaseLost("planted")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def numbers(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("own_group", ["", "setsid "])
def test_what_a_command_has_started_is_ended_with_it(tmp_path: Path, own_group: str):
    """Only the command itself was, and what it waited for went on under nothing."""
    file = tmp_path / "pids"
    script = f"{own_group}sh -c 'echo $$ >> {file}; exec sleep 600' & echo $$ >> {file}; wait"
    with pytest.raises(LeaseLost, match="planted; the command was ended"):
        run(["sh", "-c", script], Held(lambda: len(numbers(file)) == 2), {})
    eventually(lambda: all(map(is_gone, numbers(file))), timeout_s=5, what="all of it is ended")


def test_of_what_is_lost_nothing_is_left_to_end_by_itself(tmp_path: Path):
    """It had five seconds beside whoever held the lock by then."""
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = f"trap 'echo > {told}' TERM; echo > {ready}; while :; do sleep 0.01; done"
    with pytest.raises(LeaseLost, match="planted"):
        run(["sh", "-c", script], Held(ready.exists), {})
    assert not told.exists()


def test_a_command_whose_lease_runs_out_ends_by_itself_before(tmp_path: Path):
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = f"trap 'echo > {told}; exit 0' TERM; echo > {ready}; while :; do sleep 0.01; done"
    with pytest.raises(LeaseLost, match="about to be lost"):
        run(["sh", "-c", script], Held(ready.exists, left=2.9), {})
    assert told.exists()


def test_signals_are_passed_on_to_all_of_it(tmp_path: Path):
    file = tmp_path / "pids"
    script = f"sh -c 'echo $$ >> {file}; exec sleep 600' & echo $$ >> {file}; wait"

    def interrupts() -> bool:
        if len(numbers(file)) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    assert run(["sh", "-c", script], Held(interrupts), {}) == 128 + signal.SIGTERM
    eventually(lambda: all(map(is_gone, numbers(file))), timeout_s=5, what="all of it is ended")


def test_a_signal_that_comes_as_it_is_started_is_for_it(monkeypatch: pytest.MonkeyPatch):
    """Who ran it ended and let the lock go, and the command worked on."""
    popen = subprocess.Popen

    def is_told_to_end(*arguments: Any, **how: Any) -> subprocess.Popen[bytes]:
        process = popen(*arguments, **how)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", is_told_to_end)
    assert run(["sleep", "600"], Held(lambda: False), {}) == 128 + signal.SIGTERM


def test_what_is_ignored_is_ignored_by_the_command_too(tmp_path: Path):
    """As by `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    file = tmp_path / "done"
    signal.raise_signal(signal.SIGHUP)
    assert run(["sh", "-c", f"kill -HUP $$; echo > {file}"], Held(lambda: False), {}) == 0
    assert file.exists()


@pytest.mark.parametrize("is_lost", [False, True])
def test_once_it_has_ended_signals_are_for_who_ran_it(is_lost: bool):
    """`queue take --each` waited for its second item, and could be ended by nothing but a kill."""
    before = [signal.getsignal(number) for number in running.PASSED_ON]
    if is_lost:
        with pytest.raises(LeaseLost):
            run(["sleep", "600"], Held(lambda: True), {})
    else:
        assert run(["true"], Held(lambda: False), {}) == 0
    assert [signal.getsignal(number) for number in running.PASSED_ON] == before


def test_what_a_command_does_not_read_keeps_nobody_from_its_lease(tmp_path: Path):
    """An item above what a pipe holds: nobody looked at its lease, or passed signals on, until all of it was read."""
    with pytest.raises(LeaseLost, match="planted"):
        run(["sleep", "600"], Held(lambda: True), {}, b"x" * 1_000_000)
    file = tmp_path / "read"
    given = os.urandom(200_000)
    assert run(["sh", "-c", f"sleep 0.2; cat > {file}"], Held(lambda: False), {}, given) == 0
    assert file.read_bytes() == given


def test_what_can_not_be_started_is_said():
    with pytest.raises(InvalidRequest, match="/no/such: No such file"):
        run(["/no/such"], Held(lambda: False), {})


SHELL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # As in a terminal: who began the tests may ignore it.
os.close(os.open(os.ttyname(0), os.O_RDWR))  # From here on it controls this session.
def foreground(group):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    os.tcsetpgrp(0, group)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})
job = os.fork()
if not job:
    os.setpgid(0, 0)
    foreground(os.getpid())
    from coordinator.client.command_line.running import run
    class Held:
        expires_in = 60.0
        def check(self): pass
    script = "trap 'echo interrupted; exit 7' INT; echo ready; while read word; do echo got $word; done"
    sys.exit(run(["sh", "-c", script], Held(), {}))
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    foreground(os.getpgrp())
    print("stopped", flush=True)
    foreground(job)
    os.kill(-job, signal.SIGCONT)
foreground(os.getpgrp())
print("ended with", os.waitstatus_to_exitcode(status), flush=True)
"""


def test_at_a_terminal_it_reads_is_stopped_continued_and_interrupted():
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    told = b""

    def until(text: bytes) -> None:
        nonlocal told
        deadline_s = time.monotonic() + TEXT_S_MAX
        while text not in told:
            assert select.select([ours], [], [], max(0.0, deadline_s - time.monotonic()))[0], told
            told += os.read(ours, 4_096)
        told = told.partition(text)[2]

    try:
        until(b"ready")
        os.write(ours, b"one\n")
        until(b"got one")
        os.write(ours, b"\x1a")
        until(b"stopped")
        os.write(ours, b"two\n")
        until(b"got two")
        os.write(ours, b"\x03")
        until(b"interrupted")
        until(b"ended with 7")
        assert shell.wait(TEXT_S_MAX) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


LOOKED_AFTER = """
import sys
from coordinator.client import clock
from coordinator.client.command_line.running import run
from coordinator.client.errors import LeaseLost

class Held:
    until_us = clock.now_us() + int(float(sys.argv[1]) * 1e6)

    @property
    def expires_in(self):
        return max(0, self.until_us - clock.now_us()) / 1e6

    def check(self):
        if not self.expires_in:
            raise LeaseLost("planted")

class Known(Held):
    expires_in = 0.0

    def check(self): ...

try:
    sys.exit(run(["sh", "-c", sys.argv[2]], Held() if float(sys.argv[1]) else Known(), {}))
except LeaseLost as error:
    sys.exit(str(error))
"""


@contextlib.contextmanager
def looked_after(left_s: float, script: str) -> Iterator[subprocess.Popen[str]]:
    """By a process of its own, with a lease of so many seconds; 0: of which nobody can say how long it holds."""
    arguments = [sys.executable, "-c", LOOKED_AFTER, str(left_s), script]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("left_s", "is_told"), [(600.0, True), (0.0, False)])
@pytest.mark.parametrize("own_group", ["", "setsid "])
def test_a_command_is_ended_though_who_looked_after_it_is_killed(
    tmp_path: Path, own_group: str, left_s: float, is_told: bool
):
    """It worked on beside the next holder."""
    file, told = tmp_path / "pids", tmp_path / "told"
    script = f"{own_group}sh -c 'echo $$ >> {file}; exec sleep 600' & echo $$ >> {file}; wait"
    script = f"trap 'echo > {told}; exit' TERM; {script}"
    with looked_after(left_s, script) as process:
        eventually(lambda: len(numbers(file)) == 2, timeout_s=TEXT_S_MAX, what="it runs")
        process.kill()
        eventually(lambda: all(map(is_gone, numbers(file))), timeout_s=TEXT_S_MAX, what="all of it is ended")
    assert told.exists() == is_told


def test_a_command_is_ended_before_its_lease_is_though_who_looks_after_it_is_stopped(tmp_path: Path):
    file, told = tmp_path / "pids", tmp_path / "told"
    script = f"trap 'echo > {told}' TERM; sh -c 'echo $$ >> {file}; exec sleep 600' & echo $$ >> {file}; wait; wait"
    began_s = time.monotonic()
    with looked_after(4.0, script) as process:
        eventually(lambda: len(numbers(file)) == 2, timeout_s=TEXT_S_MAX, what="it runs")
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: all(map(is_gone, numbers(file))), timeout_s=TEXT_S_MAX, what="all of it is ended")
        assert time.monotonic() - began_s > 3.0
        assert told.exists()
        process.send_signal(signal.SIGCONT)
        assert "stood still; the command was ended" in process.communicate(timeout=TEXT_S_MAX)[1]


def test_what_a_command_leaves_behind_goes_on_when_it_has_ended(tmp_path: Path):
    """And who looked after it ends, with nobody left who does."""
    file = tmp_path / "pids"
    with looked_after(600.0, f"sh -c 'exec sleep 600' & echo $! > {file}; exit 3") as process:
        assert process.wait(TEXT_S_MAX) == 3
        (pid,) = numbers(file)
        assert not is_gone(pid)
        os.kill(pid, signal.SIGKILL)
