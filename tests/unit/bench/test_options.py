"""What the benches refuse, before they have started anything; and that they leave nothing behind when they end."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from bench import callers, compare, options
from bench.peers.base import PeerClient
from tests.integration.installation import lives
from tests.integration.waiting import eventually

ROOT = Path(__file__).parents[3]


def run(arguments: Sequence[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("compare", ["--rounds", "0"], "--rounds: expected a whole number of 1 or more; came '0'"),
        ("compare", ["--rounds", "3,5"], "--rounds: expected a whole number of 1 or more; came '3,5'"),
        ("compare", ["--seconds", "0"], "--seconds: expected seconds, 0.1 or more; came '0'"),
        ("compare", ["--seconds", "nan"], "--seconds: expected seconds"),
        ("compare", ["--json", "no/such/directory.json"], "--json: expected a file that can be written"),
        ("floor", ["--callers", "many"], "--callers: expected whole numbers of 1 or more"),
        ("processes", ["--cells", "reads:64"], "--cells: expected a work of lock, write, read, handover"),
        ("processes", ["--cells", "lock64"], "--cells: expected a work of"),
        ("turn", ["--works", "reads"], "--works: expected some works of lock, write, read; came 'reads'"),
        ("turn", ["--batches", "0"], "--batches: expected whole numbers of 1 or more"),
        ("turn", ["--evict-mb", "-1"], "--evict-mb: expected a whole number of 0 or more"),
        ("large", ["--phases", "snapshots"], "--phases: expected some phases of nothing, snapshot, backup, learner"),
        ("large", ["--json", "/"], "--json: expected a file that can be written"),
        ("many", ["--clusters", "1"], "--clusters: expected a whole number of 2 or more"),
        ("statemachine", ["--keys", "0"], "--keys: expected a whole number of 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once_and_says_what_does(
    program: str,
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unknown works were measured as writes, under the name that was given. (That each program starts at all is
    test_programs.py's.)"""
    module = importlib.import_module(f"bench.{program}")
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it has started something"))
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_caller_is_given_no_work_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no such work: 'reads'"):
        callers.attempt(PeerClient({}, 0), "reads", 0, callers.Tally())


def test_what_is_named_twice_is_done_once() -> None:
    parsed = compare.parse(["--works", "lock,read,lock", "--callers", "16,1,16"])
    assert (parsed.works, parsed.callers) == (["lock", "read"], [16, 1])


def test_a_directory_is_meant_from_where_its_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers run elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert compare.parse(["--directory", "here"]).directory == tmp_path / "here"
    assert compare.parse(["--json", "run.json"]).json == tmp_path / "run.json"


SHORT = ["--callers", "1", "--rounds", "1"]


@pytest.mark.long
def test_a_bench_runs_by_its_path_from_anywhere(tmp_path: Path) -> None:
    """Not only its `--help`."""
    done = run([str(ROOT / "bench" / "compare.py"), *SHORT, "--peers", "redis", "--works", "lock", "--seconds", "0.1",
                "--directory", "here"], cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| lock (pairs/s) " in done.stdout
    assert [*(tmp_path / "here").iterdir()] == []
    done = run([str(ROOT / "bench" / "floor.py"), "--callers", "x"], cwd=tmp_path)
    assert "--callers: expected whole numbers" in done.stderr


@pytest.mark.long
def test_who_is_ended_ends_its_servers_and_removes_their_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.compare", *SHORT, "--peers", "redis", "--works", "lock", "--seconds", "60"]
    process = subprocess.Popen(
        [*command, "--directory", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: [*tmp_path.glob("*/0-redis/client1.log")], timeout_s=30, what="it measures")
        driver = psutil.Process(process.pid)
        children = eventually(
            lambda: len(found := driver.children()) == 3 and found, timeout_s=30, what="a server and two clients"
        )
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, "it has no figure yet"
    assert said.endswith("cut off\n")
    assert [*tmp_path.iterdir()] == []
    assert not any(lives(child) for child in children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_way_to_be_ended_is_one(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit, match=str(options.CUT_OFF)), options.ended_tidily():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_what_nohup_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with options.ended_tidily():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
