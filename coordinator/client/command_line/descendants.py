"""What a process has started, and that what they have started, as Linux tells it in /proc."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple


class Process(NamedTuple):
    """Numbers come again; with the time at which it began it is one alone."""

    pid: int
    began: str


def of(pid: int) -> set[Process]:
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


def kill(processes: set[Process]) -> None:
    """Those of them that live still."""
    for process in processes:
        found = _look(process.pid)
        if found is not None and found[1] == process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)


def _look(pid: int) -> tuple[int, Process] | None:
    """Its parent, and itself."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # Behind its name, which may hold anything: state, parent, and so on; the 20th is when it began.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), Process(pid, fields[19])
