"""The terminal at which a command runs in a process group of its own, as a shell has it.

Only the group in the foreground reads the terminal, and gets its Ctrl-C and Ctrl-Z. So it is passed on to the command,
and comes back when that ends or is stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal


class Terminal:
    """The terminal that controls this process; there may be none."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def is_of(self, group: int) -> bool:
        """Is that group in the foreground?"""
        try:
            return self._file is not None and os.tcgetpgrp(self._file) == group
        except OSError:  # It has hung up.
            return False

    def pass_on(self, giver: int, taker: int) -> bool:
        """Put a group in the foreground in the place of another; False where that one was not there."""
        if self._file is None or not self.is_of(giver):
            return False
        # Who is not in the foreground is stopped for this, unless it blocks that.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(self._file, taker)
        except OSError:  # It has hung up, or nobody is left in that group.
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return True
