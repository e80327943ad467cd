"""Ends a command with all that it has started, as Linux tells it in /proc.

Run as a program of its own, it is the guardian of a command (`guardian.py`): it ends it where whoever looks after it no
longer can, since it was killed, or stands still while the lease runs out. Its standard input is a socket; each line
there replaces the one before: the command's process (0: none), when that began, and until when what it runs under can
be proven held, in microseconds of the clock that leases are counted on (0: for as long as the other end is open). One
byte goes back before it ends a command. It is to be there at once, so it imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

LOOK_S: Final = 0.1
TERM_S_MAX: Final = 5.0
"""As long as this a command has at the most to end by itself."""
GRACE_SHARE: Final = 5
"""The last part of a lease, one in so many, is the command's to end by itself."""
LATE_SHARE: Final = 2
"""And of that, one in so many is left where nobody but the guardian has it end."""
LINE_BYTES_MAX: Final = 4_096


class Process(NamedTuple):
    """Numbers come again; with the time at which it began it is one alone."""

    pid: int
    began: str


def descendants_of(pid: int) -> set[Process]:
    """All that live now. Whoever lost its parent is none any more."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = _look(int(name))
            if found is not None:
                children.setdefault(found[0], []).append(found[1])
    descendants: set[Process] = set()
    parents = [pid]
    while parents:
        for child in children.get(parents.pop(), ()):
            descendants.add(child)
            parents.append(child.pid)
    return descendants


def process_of(pid: int) -> Process | None:
    found = _look(pid)
    return None if found is None else found[1]


def _look(pid: int) -> tuple[int, Process] | None:
    """Its parent, and itself."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # Behind its name, which may hold anything: state, parent, and so on; the 20th is when it began.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), Process(pid, fields[19])


def end(pid: int, grace_s: float, is_there: Callable[[], bool]) -> None:
    """With all that runs in its group, and that it has started: a `lock` within it has a group of its own."""
    until_s = time.monotonic() + grace_s
    started = descendants_of(pid)
    if grace_s:
        signal_group(pid, signal.SIGTERM)
        signal_group(pid, signal.SIGCONT)  # What is stopped hears of nothing else.
    while is_there() and time.monotonic() < until_s:
        time.sleep(min(LOOK_S, max(0.0, until_s - time.monotonic())))
    started |= descendants_of(pid)
    signal_group(pid, signal.SIGKILL)
    for process in started:
        if process_of(process.pid) == process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def signal_group(pid: int, number: int) -> bool:
    """False where nothing of it is there."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


class Guarded(NamedTuple):
    process: Process
    until_us: int

    @property
    def left_s(self) -> float:
        return max(0, self.until_us - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000) / 1e6

    @classmethod
    def of(cls, line: bytes) -> Guarded | None:
        pid, began, until_us = line.split()
        return cls(Process(int(pid), began.decode()), int(until_us)) if int(pid) else None

    def is_there(self) -> bool:
        return process_of(self.process.pid) == self.process


def guard(words: socket.socket) -> None:
    guarded: Guarded | None = None
    spare_s = 0.0
    """What is left of its lease at the least, unless whoever looks after it stands still."""
    rest = b""
    while True:
        wait_s = None if guarded is None or not guarded.until_us else max(0.0, guarded.left_s - spare_s)
        if select.select([words], [], [], wait_s)[0]:
            data = words.recv(LINE_BYTES_MAX)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                before, guarded = guarded, Guarded.of(line)
                if guarded is not None:
                    own_s = min(guarded.left_s / GRACE_SHARE, TERM_S_MAX) / LATE_SHARE
                    spare_s = max(own_s, spare_s if before and before.process == guarded.process else 0.0)
        elif guarded is not None and guarded.left_s <= spare_s:
            with contextlib.suppress(OSError):
                words.send(b"!")
            _end(guarded)
            guarded = None
    if guarded is not None:
        _end(guarded)


def _end(guarded: Guarded) -> None:
    if guarded.is_there():
        end(guarded.process.pid, min(guarded.left_s, TERM_S_MAX), guarded.is_there)


if __name__ == "__main__":
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # It ends with whom it stands in for.
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=0) as standard_input:
        guard(standard_input)
