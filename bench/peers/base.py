"""What the comparison asks of a peer: real servers on this machine, and the client that its users would take.

`Peer` lives in the program that compares: it starts, watches, kills and stops the servers. `PeerClient` lives in each
of the two client processes (`bench.callers`) and knows no more than what `Peer.connection` says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psutil

from coordinator.ports import free_port
from coordinator.supervision import PROJECT, launched

if TYPE_CHECKING:
    from bench.callers import Tally

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 10.0
VALUE_BYTES: Final = 64
MEMBERS: Final = 3
SETTINGS: Final = ("CONCLAVE_", "REDIS_URL", "DATABASE_URL", "DJANGO_SETTINGS_MODULE")

Operation = Callable[[], object]
Drive = Callable[[str, int, "Tally", Callable[[], None]], None]
"""(work, callers, tally, say that they have begun)"""


class Unusable(Exception):
    """The peer cannot be run here; the message says why, in one line."""


class PeerClient:
    """The peer's own Python client. One instance serves all callers of its process, each on a thread of its own."""

    drive: Drive | None = None
    """What runs the callers of a work, where they are not threads."""

    def __init__(self, connection: Mapping[str, Any], number: int) -> None:
        """`number`: which of the client processes this is, from 0."""
        self.connection = connection
        self.number = number

    def lock(self, name: str) -> tuple[Callable[[], bool], Operation]:
        """How a caller takes the lock `name` and lets it go. Taking waits for whoever holds it; False where that took
        longer than the client's own limit. Both return when the peer has acknowledged."""
        raise NotImplementedError

    def write(self, key: str) -> Operation:
        """Writes `VALUE_BYTES` to a key; returns once it is acknowledged."""
        raise NotImplementedError

    def read(self, key: str) -> Operation:
        """A linearizable read of a key."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of connections."""


class Peer(ABC):
    """Servers of one peer in a directory of their own. `start` and `stop` once each, from the main thread."""

    name: ClassVar[str]
    works: ClassVar[frozenset[str]]
    """Of `bench.works.WORKS`: those that this peer can do at all."""
    about: ClassVar[str]
    """What ran, in one line under the table."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @abstractmethod
    def check(cls) -> str:
        """The versions that would run. Raises Unusable, ImportError."""

    @abstractmethod
    def start(self) -> None:
        """Start the servers; returns when they serve."""

    @abstractmethod
    def connection(self) -> dict[str, Any]:
        """What `PeerClient` is told, in JSON's types."""

    def member_command(self, member: str) -> tuple[list[str], dict[str, str]]:
        """The program of one member and its environment beside ours."""
        raise NotImplementedError

    def leader(self) -> str:
        """The member that leads now. Raises LookupError where there is none yet."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        """All members run and follow one leader."""
        raise NotImplementedError

    # --- processes --------------------------------------------------------------------------------

    def launch(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a process that dies with this one; its words go to a file of its own. No settings of an
        installation that the caller may have get through."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        with open(self.directory / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                launched(command, parent=os.getpid(), directory=PROJECT),
                env={**kept, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def launch_member(self, member: str) -> None:
        command, environment = self.member_command(member)
        self.launch(member, command, environment)

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(process.pid) for process in self.running.values() if process.poll() is None]

    def must_run(self) -> None:
        """Raises Unusable where one has ended, with its last words."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Unusable(f"{name} ended with status {process.returncode}: {self.last_words(name)}")

    def signal(self, member: str, number: signal.Signals) -> None:
        self.running[member].send_signal(number)

    def kill(self, member: str) -> float:
        """`kill -9`; the moment of it, on the monotonic clock."""
        at_s = time.monotonic()
        self.running[member].kill()
        return at_s

    def restart(self, member: str) -> None:
        """Start a member again that was killed."""
        self.running[member].wait(STOP_S_MAX)
        self.launch_member(member)

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait(STOP_S_MAX)
        self.running.clear()

    def until(self, holds: Callable[[], object], what: str, timeout_s: float = START_S_MAX) -> None:
        """Wait until `holds()` is true; what it raises counts as not yet. Raises Unusable, with the last words."""
        until_s = time.monotonic() + timeout_s
        last: Exception | None = None
        while time.monotonic() < until_s:
            for name, process in self.running.items():
                if process.poll() not in (None, -signal.SIGKILL):
                    raise Unusable(f"{name} ended with status {process.returncode}: {self.last_words(name)}")
            try:
                if holds():
                    return
            except Exception as error:  # noqa: BLE001 - the clients of eight systems raise what they like
                last = error
            time.sleep(0.05)
        names = ", ".join(f"{name}: {self.last_words(name)}" for name in self.running)
        raise Unusable(f"{what}: not within {timeout_s:g} s ({last!r}; {names})")

    def last_words(self, name: str) -> str:
        return last_words(self.directory / f"{name}.log")


def last_words(log: Path) -> str:
    """The last line of a log, at most 200 characters of it."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else "it said nothing"
    return "it has no log"


def program(name: str, package: str) -> str:
    """The path of a program. Raises Unusable, naming the package of Debian that has it."""
    found = shutil.which(name)
    if found is None:
        raise Unusable(f"no {name} here: `make bench-setup` installs it (Debian's {package})")
    return found


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody listens on now, no two alike."""
    found: list[int] = []
    while len(found) < count:
        found.append(free_port(found))
    return found


def members() -> list[str]:
    return [f"node{number}" for number in range(1, MEMBERS + 1)]
