"""A real PostgreSQL for tests, with a database of its own and nobody else on it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from coordinator.ports import free_port
from tests.integration.waiting import eventually

ANSWER_S_MAX: Final = 30.0
DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu have it, apart from PATH."""
USERS: Final = ("postgres", "nobody")
"""Who runs it where we are root, as whom it refuses to run."""
OWNER: Final = "conclave"


def programs() -> Path | None:
    """The directory of its programs; None where it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class PrivatePostgres:
    """Runs between `start` and `stop` (or as a context). Dies with the thread that started it: start it from the main
    one. Its files are in a directory that the user whom it runs as may reach, and go with it."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None, "PostgreSQL is not installed"
        self.programs = found
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="conclave-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "postgres") -> str:
        """What DATABASE_URL says of the database of that name."""
        return f"postgres://{OWNER}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            if os.geteuid() == 0:
                os.chown(self.directory, *_identity())
            made = [str(self.programs / "initdb"), "-D", str(data), "-U", OWNER, "-A", "trust"]
            subprocess.run(
                [*_as_somebody(), *made, "-E", "UTF8", "--locale=C", "--no-sync"],
                cwd=self.directory,
                check=True,
                capture_output=True,
            )
        served = [str(self.programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*_as_somebody(), *served, "-c", "fsync=off"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, timeout_s=ANSWER_S_MAX, what=f"PostgreSQL answers on port {self.port}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"PostgreSQL ended: {(self.directory / 'log').read_text()[-2000:]}"
        asked = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def new_database(self, name: str, encoding: str = "UTF8") -> str:
        """Make an empty one; its URL."""
        self._run("createdb", "-T", "template0", "-E", encoding, name)
        return self.url(name)

    def ask(self, name: str, query: str) -> list[str]:
        """The lines of its answer, asked of the database of that name."""
        return self._run("psql", "-d", name, "-Atc", query).splitlines()

    def _run(self, program: str, *arguments: str) -> str:
        """What one of its programs prints."""
        asked = [str(self.programs / program), "-h", "127.0.0.1", "-p", str(self.port), "-U", OWNER]
        done = subprocess.run([*asked, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """`how`: SIGKILL for a death without warning. All of its processes are gone when this returns."""
        if self._process is None:
            return
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(how)
        self._process.wait(ANSWER_S_MAX)
        self._process = None
        psutil.wait_procs(family, timeout=ANSWER_S_MAX)

    def pause(self) -> None:
        """It takes connections and answers nobody, as on a machine that is suspended. What it serves goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _identity() -> tuple[int, int]:
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam(next(name for name in USERS if name in names))
    return user.pw_uid, user.pw_gid


def _as_somebody() -> list[str]:
    """What stands before a command of it: it dies with us, and is not run as root. (Not by `launched`: what is asked of
    the kernel there is forgotten as the user changes.)"""
    bound = ["setpriv", "--pdeathsig", "QUIT"]
    if os.geteuid() != 0:
        return bound
    user, group = _identity()
    return [*bound, "--reuid", str(user), "--regid", str(group), "--clear-groups"]
