"""A whole installation for tests: the real `manage.py up` on a data directory and ports of its own."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import psutil

from coordinator import ports
from coordinator.config import PROJECT
from coordinator.data_directory import DataDirectory
from coordinator.supervision import launched
from tests.integration.waiting import eventually

READY_S_MAX: Final = 30.0
STOPPED_S_MAX: Final = 10.0
COMMAND_S_MAX: Final = 60.0
ADMINISTRATOR: Final = "admin"
ADMIN_PASSWORD: Final = "a password of the tests"


class HttpAnswer(NamedTuple):
    status: int
    body: str


def environment_of(data: Path) -> dict[str, str]:
    """For a program on that data directory, with ports of this process of tests; none of the caller's settings gets
    through."""
    ours = ("CONCLAVE_", "REDIS_URL", "DATABASE_URL", "DJANGO_SETTINGS_MODULE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    among = f"{ports.OF_OUR_OWN[0]}-{ports.OF_OUR_OWN[-1]}"
    return kept | {"CONCLAVE_DATA": str(data), "CONCLAVE_PORTS": among}


def start_worker(arguments: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`celery` with these arguments; it dies with this process."""
    with open(log, "ab") as written:
        return subprocess.Popen(
            launched([sys.executable, "-m", "celery", *arguments], parent=os.getpid(), directory=PROJECT),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )


class Installation:
    """Runs between `start` and `stop`, or as a context, which also waits until it is ready.

    `settings`: environment variables beside the data directory, the port and the administrator's password; none of the
    caller's own settings gets through. It dies with the process that started it; start it from the main thread, for
    the kernel counts the end of the thread as that death.
    """

    def __init__(self, directory: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.data = DataDirectory(directory)
        self.port = port or ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = dict(settings or {})
        self._terminal = directory.parent / f"{directory.name}.terminal"
        self._process: subprocess.Popen[bytes] | None = None

    # --- its life ---

    @property
    def environment(self) -> dict[str, str]:
        own = {"CONCLAVE_PORT": str(self.port), "CONCLAVE_ADMIN_PASSWORD": ADMIN_PASSWORD}
        return environment_of(self.data.path) | own | self.settings

    def start(self) -> None:
        """Begin `manage.py up`; returns at once."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        command = [sys.executable, "manage.py", "up"]
        with open(self._terminal, "ab") as terminal:
            self._process = subprocess.Popen(
                launched(command, parent=os.getpid(), directory=PROJECT),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self, timeout_s: float = READY_S_MAX) -> float:
        """Until the page is served and a majority confirms a leader of `default`. Returns the seconds that took."""
        began = time.monotonic()

        def is_ready() -> bool:
            assert self.is_running, f"`up` ended:\n{self.terminal}"
            return self.get("/readyz/default").status == 200

        eventually(is_ready, timeout_s=timeout_s, what=self._not_ready)
        return time.monotonic() - began

    def _not_ready(self) -> str:
        return (
            f"/readyz/default answers 200; it says {self.get('/readyz/default')}; the terminal says:\n{self.terminal}\n"
            f"log/web.log ends:\n{self.log('web')[-2000:]}"
        )

    def stop(self, how: signal.Signals = signal.SIGINT) -> float:
        """Ask it to end, and wait. Returns the seconds that took. Raises AssertionError where something is left behind
        or it took longer than 10 s."""
        assert self._process is not None
        family = [self.supervisor, *self.supervisor.children(recursive=True)] if self.is_running else []
        began = time.monotonic()
        if self.is_running:
            self._process.send_signal(how)
        eventually(
            lambda: self._process is None or self._process.poll() is not None,
            timeout_s=STOPPED_S_MAX,
            what=lambda: f"`up` ends after {how.name}; the terminal says:\n{self.terminal}",
        )
        took = time.monotonic() - began
        eventually(
            lambda: not any(lives(process) for process in family),
            timeout_s=max(1.0, STOPPED_S_MAX - took),
            what=f"no process is left of {family}",
        )
        return took

    def kill_everything(self) -> None:
        """SIGKILL to all parts and the supervisor, as a power cut would do it."""
        family = [self.supervisor, *self.supervisor.children(recursive=True)]
        for process in family:
            _kill(process)
        assert self._process is not None
        self._process.wait(STOPPED_S_MAX)
        eventually(lambda: not any(lives(p) for p in family), timeout_s=STOPPED_S_MAX, what="all are dead")

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill_everything()

    # --- its parts ---

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    @property
    def supervisor(self) -> psutil.Process:
        """`manage.py up`, which becomes the supervisor under the same number."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def parts(self) -> dict[str, psutil.Process]:
        """The processes that run now, by name: redis, node1 and so on, web."""
        found = {}
        for process in self.supervisor.children():
            try:
                name = process.environ().get("SUPERVISOR_PROCESS_NAME")
            except psutil.Error:
                continue
            if name and lives(process):
                found[name] = process
        return found

    def part(self, name: str) -> psutil.Process:
        """Waits for it, where it is just being restarted."""
        return eventually(lambda: self.parts().get(name), timeout_s=STOPPED_S_MAX, what=f"{name} runs")

    def kill(self, name: str) -> int:
        """`kill -9` of one part; returns the number of the process that died."""
        process = self.part(name)
        _kill(process)
        eventually(lambda: not lives(process), timeout_s=STOPPED_S_MAX, what=f"{name} is dead")
        return process.pid

    def freeze(self, name: str) -> None:
        """SIGSTOP of one part; it stands still when this returns. Whoever freezes it lets it go on (SIGCONT)."""
        process = self.part(name)
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: stands_still(process), timeout_s=STOPPED_S_MAX, what=f"{name} stands still")

    # --- what it says ---

    @property
    def terminal(self) -> str:
        """Everything that a person at the terminal has read."""
        return self._terminal.read_text(encoding="utf-8", errors="replace") if self._terminal.exists() else ""

    def log(self, name: str) -> str:
        path = self.data.path / "log" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def get(self, path: str, timeout_s: float = 5.0) -> HttpAnswer:
        """A GET without credentials; status 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return HttpAnswer(answer.status, answer.read().decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException) as error:
            return HttpAnswer(0, str(error))
        finally:
            connection.close()

    def manage(self, *arguments: str) -> str:
        """What `manage.py ARGUMENTS` prints, beside the running installation. Raises CalledProcessError."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)  # What the exception would keep to itself.
        done.check_returncode()
        return done.stdout

    def new_token(self, name: str) -> tuple[str, str]:
        """CONCLAVE_URL and CONCLAVE_TOKEN of a new principal, as `manage.py token NAME` prints them."""
        printed = self.manage("token", name)
        found = dict(re.findall(r"^(CONCLAVE_URL|CONCLAVE_TOKEN)=(\S+)$", printed, re.MULTILINE))
        return found["CONCLAVE_URL"], found["CONCLAVE_TOKEN"]


def lives(process: psutil.Process) -> bool:
    """False for one that is dead and not yet reaped, too."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stands_still(process: psutil.Process) -> bool:
    """Every thread of it: the signal stops one, which stops the others."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads} == {"T"}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
