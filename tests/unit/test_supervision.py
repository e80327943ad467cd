"""Supervisor's file says what was meant, and its back-off is bounded. How it runs for real is test_up.py's."""

from __future__ import annotations

import errno
import resource
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from supervisor import loggers
from supervisor.states import ProcessStates

from coordinator import supervision
from coordinator.supervision import HEALTHY_S, RESTART_DELAY_S_MAX, Part, launched, write_settings

ODD_WORDS = [
    "plain",
    "two words",
    "a ;b",
    "a #b",
    ";",
    "100% %(here)s %%",
    "it's",
    'say "so"',
    "back\\slash",
    "$HOME `x` *",
    "ünï",
    "",
]


def _read(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (path.parent / "log").mkdir(exist_ok=True)
    (path.parent / "run").mkdir(exist_ok=True)
    monkeypatch.chdir(path.parent)
    options = supervision._Options()
    options.realize(["-n", "-c", str(path)])
    return options


def _parts() -> list[Part]:
    return [
        Part("redis", ["redis-server", *ODD_WORDS], rank=10, stop_s_max=1),
        Part("node1", ["worker"], rank=20, stop_s_max=4, group="nodes", environment={"CONCLAVE_NODE": "node1"}),
        Part("node2", ["worker"], rank=20, stop_s_max=4, group="nodes", environment={"CONCLAVE_NODE": "node2"}),
        Part("web", ["server"], rank=30, stop_s_max=2),
    ]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "a ;directory" / "supervisor.conf"
    path.parent.mkdir()
    write_settings(path, _parts(), supervisor_pid=7, directory=Path("/some where"))
    return _read(path, monkeypatch)


def test_every_word_of_a_command_arrives_as_it_was(options: Any) -> None:
    redis = options.process_group_configs[0].process_configs[0]
    expected = launched(["redis-server", *ODD_WORDS], parent=7, directory=Path("/some where"))
    assert shlex.split(redis.command) == expected


def test_parts_of_a_group_stop_together_and_the_web_server_first(options: Any) -> None:
    groups = sorted(options.process_group_configs)
    assert [group.name for group in groups] == ["redis", "nodes", "web"], "stopped from the last to the first"
    assert [config.name for config in groups[1].process_configs] == ["node1", "node2"]
    assert groups[1].process_configs[1].environment == {"CONCLAVE_NODE": "node2"}


def test_all_that_stops_one_after_the_other_has_stopped_within_10_s() -> None:
    from coordinator.management.commands import up

    assert up.WEB_STOP_S_MAX + up.NODE_STOP_S_MAX + up.REDIS_STOP_S_MAX <= 8


def test_each_part_has_a_log_that_is_bounded(options: Any) -> None:
    for group in options.process_group_configs:
        for config in group.process_configs:
            assert config.stdout_logfile == f"log/{config.name}.log"
            assert config.redirect_stderr
            assert config.stdout_logfile_maxbytes == supervision.LOG_BYTES_MAX
            assert config.stdout_logfile_backups == supervision.LOG_BACKUPS


def _logger(path: Path, size_max: int) -> Any:
    logger = loggers.getLogger()
    loggers.handle_file(logger, str(path), "%(message)s\n", rotating=True, maxbytes=size_max, backups=1)
    return logger


def test_a_log_on_a_full_disk_ends_nothing_and_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where what the supervisor says to the terminal goes to that disk, too."""
    path = tmp_path / "node1.log"
    path.symlink_to("/dev/full")
    logger = _logger(path, 1_000)
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        for _ in range(100):
            logger.info("one that is lost")
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{path} can not be written" in line
    assert "No space left on device" in line
    path.unlink()
    logger.handlers[0].stream = open(path, "ab")  # noqa: SIM115 - it takes what is written again
    logger.info("one that is kept")
    assert path.read_text() == "one that is kept\n"
    assert capsys.readouterr().out == ""
    logger.close()


def test_a_log_that_can_not_begin_its_next_file_goes_on_in_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "node1.log"
    logger = _logger(path, 30)
    lines = [f"line {number} of the log" for number in range(5)]
    with monkeypatch.context() as patched:
        patched.setattr(logger.handlers[0], "removeAndRename", full)
        for line in lines:
            logger.info(line)
    assert "can not be written" in capsys.readouterr().out
    logger.info("the last line")
    logger.close()
    kept = [part.read_text() for part in (path.with_name("node1.log.1"), path)]
    assert "".join(kept).splitlines() == [*lines, "the last line"]


def test_a_part_that_dies_at_once_is_tried_again_after_a_bounded_delay_for_ever(options: Any) -> None:
    process = options.process_group_configs[0].process_configs[0].make_process()
    delays = []
    for _ in range(50):
        process.state = ProcessStates.STARTING
        process.change_state(ProcessStates.BACKOFF)
        delays.append(process.backoff)
    assert delays[:4] == [1, 2, 3, 3]
    assert max(delays) == RESTART_DELAY_S_MAX
    assert process.config.startretries > 1_000_000
    assert process.config.startsecs == HEALTHY_S


def test_one_that_ran_well_starts_again_at_once_and_counts_anew(options: Any) -> None:
    process = options.process_group_configs[0].process_configs[0].make_process()
    process.state, process.deaths = ProcessStates.STARTING, 7
    process.change_state(ProcessStates.RUNNING)
    assert process.deaths == 0


@pytest.mark.parametrize("soft", [100, 150])
def test_where_more_files_and_processes_are_not_allowed_it_runs_with_what_is(
    soft: int, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = dict.fromkeys((resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC), (soft, 150))

    def raised(kind: int, bound: tuple[int, int]) -> None:
        if bound[1] > 150:
            raise ValueError("not allowed to raise maximum limit")
        bounds[kind] = bound

    monkeypatch.setattr(resource, "getrlimit", lambda kind: bounds[kind])
    monkeypatch.setattr(resource, "setrlimit", raised)
    options.set_rlimits_or_exit()
    assert set(bounds.values()) == {(150, 150)}


@pytest.mark.parametrize("received", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_every_way_to_ask_for_the_end_ends_it(
    options: Any, received: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    options.signal_receiver.receive(received, None)
    assert options.get_signal() == signal.SIGTERM
    assert "stopping" in capsys.readouterr().out


def test_other_signals_are_supervisors_own(options: Any) -> None:
    options.signal_receiver.receive(signal.SIGCHLD, None)
    assert options.get_signal() == signal.SIGCHLD
    assert options.get_signal() is None
