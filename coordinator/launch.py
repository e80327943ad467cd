"""Run a program that cannot outlive the process that started it, not even where that one dies by `kill -9`.

    python launch.py PARENT_PID DIRECTORY PROGRAM [ARGUMENT ...]

Asks the kernel for SIGKILL at the death of the parent, makes sure that the parent has not died already, and becomes the
program. The standard library alone, and little of it: this runs before every part of an installation.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From <sys/prctl.h>. What it sets survives exec, unless the program gains privileges by it."""
EXIT_USAGE: Final = 64
EXIT_ORPHAN: Final = 75


def die_with_parent(parent: int) -> None:
    """From here on, this process is killed when its parent's thread that started it ends. Exits at once where the
    parent is no longer `parent`: it died before the kernel was asked. Linux only; elsewhere just the second check."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent:
        sys.exit(EXIT_ORPHAN)


def main(arguments: list[str]) -> None:
    if len(arguments) < 3 or not arguments[0].isdecimal():
        sys.stderr.write("usage: launch.py PARENT_PID DIRECTORY PROGRAM [ARGUMENT ...]\n")
        sys.exit(EXIT_USAGE)
    parent, directory, *command = arguments
    die_with_parent(int(parent))
    os.chdir(directory)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
