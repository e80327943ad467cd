"""A process that ends a command where this one no longer can: killed by SIGKILL, for want of memory, or stopped."""

from __future__ import annotations

import atexit
import contextlib
import functools
import socket
import subprocess
import sys

from coordinator.client import clock
from coordinator.client.command_line import ending


class Guardian:
    """For one command after another."""

    def __init__(self) -> None:
        """Raises OSError where it can not be started."""
        self._words, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", ending.__file__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # What comes from the terminal is not for it.
            )
        self._words.settimeout(0)

    @property
    def has_ended_it(self) -> bool:
        """Has it ended a command since this was asked before?"""
        try:
            return bool(self._words.recv(1))
        except OSError:
            return False

    def guards(self, process: ending.Process, left_s: float) -> None:
        """It can be proven that what this runs under is held so long; 0.0: nobody can say how long."""
        self._say(process, clock.now_us() + int(left_s * 1e6) if left_s else 0)

    def rests(self) -> None:
        """There is nothing to guard any more, and what it did of itself is over."""
        self._say(ending.Process(0, "-"), 0)
        with contextlib.suppress(OSError):
            self._words.recv(ending.LINE_BYTES_MAX)

    def _say(self, process: ending.Process, until_us: int) -> None:
        with contextlib.suppress(OSError):  # It is gone, or does not read: then the command is as it is without one.
            self._words.send(f"{process.pid} {process.began} {until_us}\n".encode())

    def close(self) -> None:
        self._words.close()
        self._process.wait()


@functools.cache
def of_this_process() -> Guardian:
    guardian = Guardian()
    atexit.register(guardian.close)
    return guardian
