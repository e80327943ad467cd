"""Keeps the parts of an installation running: Redis, one worker for each node, the web server.

`Part` says what a part is, `write_settings` turns parts into supervisor's own file, and `become_supervisor` runs
supervisor over it, with four manners of our own: the back-off is bounded, what happens is said in one short line, a
hang-up of the terminal ends everything as Ctrl-C does, unless nohup had it ignored, and a log that its disk does not
take ends nothing. No Django here: this process lives as long as all the others and does nothing but watch them.

How soon a part is restarted: at once where it had run for `HEALTHY_S`; else after 1, 2 and then always
`RESTART_DELAY_S_MAX` seconds, until it has run for `HEALTHY_S` again.
"""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

from supervisor import loggers
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ProcessConfig, ServerOptions, decode_wait_status
from supervisor.poller import Poller
from supervisor.process import Subprocess
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from coordinator.announce import say

HEALTHY_S: Final = 10
RESTART_DELAY_S_MAX: Final = 3
RESTARTS_MAX: Final = 1_000_000_000
"""Never give up: a part that cannot run today may run once its cause is mended."""
GLANCE_S_MAX: Final = 0.2
"""How long a death, a signal or the end of a delay may go unnoticed."""
DEATHS_SAID_SINGLY: Final = 3
DEATHS_SAID_EVERY: Final = 20
LOSS_SAID_EVERY_S: Final = 600
LOG_BYTES_MAX: Final = 10_000_000
LOG_BACKUPS: Final = 3

LAUNCHER: Final = Path(__file__).resolve().with_name("launch.py")
PROJECT: Final = LAUNCHER.parent.parent


_OWN_SECTION: Final = f"""\
; Written by `manage.py up` at each start; changes here are lost.
[supervisord]
nodaemon=true
silent=true
nocleanup=true
logfile=log/supervisor.log
logfile_maxbytes={LOG_BYTES_MAX}
logfile_backups={LOG_BACKUPS}
pidfile=run/supervisor.pid
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One program to keep running. `rank`: parts are started in rising and stopped in falling order, those of one
    `group` together; `stop_s_max`: what it gets for an orderly end before it is killed."""

    name: str
    command: list[str]
    rank: int
    stop_s_max: int
    group: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


# --- supervisor's file ----------------------------------------------------------------------------


def write_settings(path: Path, parts: Iterable[Part], *, supervisor_pid: int, directory: Path) -> None:
    """The file for supervisor. Log files in it are relative: supervisor runs in the data directory.

    `supervisor_pid`: every part dies with the process of that number. `directory`: where the parts run."""
    parts = list(parts)
    sections = [_OWN_SECTION]
    for group in dict.fromkeys(part.group for part in parts if part.group):
        members = [part for part in parts if part.group == group]
        names = ",".join(part.name for part in members)
        sections.append(f"[group:{group}]\nprograms={names}\npriority={members[0].rank}\n")
    sections += [_program(part, supervisor_pid, directory) for part in parts]
    path.write_text("\n".join(sections), encoding="utf-8")


def launched(command: list[str], *, parent: int, directory: Path) -> list[str]:
    """The same command, run in `directory` and bound to die with the process `parent`, which must be who starts it."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(parent), str(directory), *command]


def _program(part: Part, supervisor_pid: int, directory: Path) -> str:
    launch = launched(part.command, parent=supervisor_pid, directory=directory)
    environment = ",".join(f"{name}={_quoted(value)}" for name, value in part.environment.items())
    lines = [
        f"[program:{part.name}]",
        f"command={' '.join(map(_quoted, launch))}",
        f"environment={environment}",
        f"priority={part.rank}",
        "autorestart=true",
        f"startsecs={HEALTHY_S}",
        f"startretries={RESTARTS_MAX}",
        "stopsignal=TERM",
        f"stopwaitsecs={part.stop_s_max}",
        "killasgroup=true",
        "redirect_stderr=true",
        f"stdout_logfile=log/{part.name}.log",
        f"stdout_logfile_maxbytes={LOG_BYTES_MAX}",
        f"stdout_logfile_backups={LOG_BACKUPS}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """A word for supervisor's file, where the shell's quotes hold, `%` starts an expansion, and `;` or `#` after a
    blank starts a comment even within quotes."""
    quoted = shlex.quote(word).replace("%", "%%")
    for mark in ";#":
        quoted = quoted.replace(f" {mark}", f" ''{mark}")
    return quoted


# --- supervisor itself ----------------------------------------------------------------------------


class _KeptPart(Subprocess):  # type: ignore[misc]  # supervisor carries no types
    """A part under supervision. Supervisor's own back-off grows by a second with each failure and has no bound; a cap
    on its counter is one."""

    backoff: int
    deaths = 0
    """In a row: since it last ran for HEALTHY_S."""

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        if new_state == ProcessStates.BACKOFF:
            self.backoff = min(self.backoff, RESTART_DELAY_S_MAX - 1)
        if new_state == ProcessStates.RUNNING:
            self.deaths = 0
        return super().change_state(new_state, expected)

    def finish(self, pid: int, status: int) -> None:
        died = not self.killing and bool(self.config.autorestart)
        super().finish(pid, status)
        if died:
            self.deaths += 1
            if self._is_worth_a_line():
                _, how = decode_wait_status(status)
                often = f", {self.deaths} times in a row" if self.deaths > 1 else ""
                say(f"{self.config.name} died ({how}){often}; starting it again. See {self.config.stdout_logfile}")

    def spawn(self) -> Any:
        pid = super().spawn()
        if pid is not None and self.deaths and self._is_worth_a_line():
            say(f"{self.config.name} started again, pid {pid}")
        return pid

    def _is_worth_a_line(self) -> bool:
        return self.deaths <= DEATHS_SAID_SINGLY or self.deaths % DEATHS_SAID_EVERY == 0


class _LogFile(loggers.RotatingFileHandler):  # type: ignore[misc]
    """A log, of a part or of the supervisor. What a full disk does not take is lost, and that is said now and then.
    Supervisor itself prints a traceback of each line that is lost; where its own output is on that disk, it ends of
    that, and all parts with it."""

    stream: Any
    _said_s: ClassVar[dict[str, float]] = {}
    """When that was said, by the name of the file: each start of a part opens it anew."""

    def emit(self, record: Any) -> None:
        try:
            if self.stream.closed:  # To begin the next file came to nothing.
                self.stream = open(self.baseFilename, "ab")  # noqa: SIM115 - it stays open
            super().emit(record)
        except (OSError, ValueError):
            self.handleError()

    def handleError(self) -> None:  # noqa: N802 - supervisor's own name
        now_s = time.monotonic()
        if now_s - self._said_s.get(self.baseFilename, -LOSS_SAID_EVERY_S) >= LOSS_SAID_EVERY_S:
            self._said_s[self.baseFilename] = now_s
            say(f"{self.baseFilename} can not be written, and what comes is lost until it can: {sys.exc_info()[1]}")


loggers.RotatingFileHandler = _LogFile  # By this name supervisor makes all of them.


class _PartSettings(ProcessConfig):  # type: ignore[misc]
    def make_process(self, group: Any = None) -> _KeptPart:
        process = _KeptPart(self)
        process.group = group
        return process


class _AttentivePoller(Poller):  # type: ignore[misc]
    """Python goes on waiting after a signal whose handler returned; supervisor would see it up to a second late."""

    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, GLANCE_S_MAX))


class _Options(ServerOptions):  # type: ignore[misc]
    minfds: int
    minprocs: int

    def __init__(self) -> None:
        super().__init__()
        self.poller = _AttentivePoller(self)

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        return super().processes_from_section(parser, section, group_name, _PartSettings)

    def set_rlimits_or_exit(self) -> None:
        """Supervisor raises what it may open and start to 1024 and 200, and refuses to run where that may not be. Six
        parts need far less: it is raised as far as it may be."""
        self.minfds = _allowed(resource.RLIMIT_NOFILE, self.minfds)
        self.minprocs = _allowed(resource.RLIMIT_NPROC, self.minprocs)
        super().set_rlimits_or_exit()

    def setsignals(self) -> None:
        is_hang_up_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        super().setsignals()
        if is_hang_up_ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def get_signal(self) -> Any:
        received = super().get_signal()
        if received in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if self.mood == SupervisorStates.RUNNING:
                say("stopping")
            return signal.SIGTERM
        return received


def _allowed(kind: int, wanted: int) -> int:
    _, hard = resource.getrlimit(kind)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class _Supervisor(Supervisor):  # type: ignore[misc]
    def __init__(self, options: _Options, companion: list[str]) -> None:
        super().__init__(options)
        self.companion = companion

    def runforever(self) -> None:
        """Called once the handlers are in place, so from here on signals are heeded: `become_supervisor` held them
        back, so that none is lost while one program becomes the other."""
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if self.companion:
            subprocess.Popen(launched(self.companion, parent=os.getpid(), directory=PROJECT), stdin=subprocess.DEVNULL)
        super().runforever()


def become_supervisor(settings: Path, data: Path, companion: list[str]) -> NoReturn:
    """Replace this process by supervisor, under the same process number.

    `companion`: a program that is started with it and may end; it speaks to the same terminal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    os.chdir(PROJECT)
    os.execv(sys.executable, [sys.executable, "-m", "coordinator.supervision", str(settings), str(data), *companion])


def main(settings: str, data: str, companion: list[str]) -> None:
    os.chdir(data)
    options = _Options()
    options.realize(["-n", "-c", settings])
    options.first = True
    options.test = False
    try:
        _Supervisor(options, companion).main()
    except asyncore.ExitNow:
        say("stopped")
    finally:
        options.close_logger()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.stderr.write("usage: python -m coordinator.supervision SETTINGS DIRECTORY [PROGRAM [ARGUMENT ...]]\n")
        sys.exit(2)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
