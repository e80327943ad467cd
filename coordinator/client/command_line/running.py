"""A command that runs while something is held, and is ended where that is lost.

It runs in a process group of its own, so that what it has started is ended with it (`ending.py`); signals are passed on
to the group, and at a terminal it is in the foreground (`terminal.py`). Where this process can not end it, for it is
killed or stopped itself, another one does (`guardian.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from types import FrameType
from typing import IO, Any, Final, Protocol

from coordinator.client.command_line import ending, guardian
from coordinator.client.command_line.ending import GRACE_SHARE, LOOK_S, TERM_S_MAX
from coordinator.client.command_line.terminal import Terminal
from coordinator.client.errors import InvalidRequest, LeaseLost

EXIT_LEASE_LOST: Final = 76
"""What the command ran under could not be proven held any more; it was ended, where it had not ended by itself."""
PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Held(Protocol):
    @property
    def expires_in(self) -> float:
        """Seconds for which it can be proven held; always 0.0 where only `check` can say."""

    def check(self) -> None: ...


def run(command: list[str], held: Held, variables: dict[str, str], given: bytes | None = None) -> int:
    """Run it to its end; its status. `given`: what it reads on its standard input. Raises LeaseLost where it was ended
    because what it ran under is lost, and InvalidRequest where it can not be started."""
    try:
        guard = _Guard(held, guardian.of_this_process())
    except OSError as error:
        raise InvalidRequest(f"a process that ends it where this one can not: {error.strerror}") from error
    with guard.passing_signals_on():
        try:
            with _input(given) as stdin:
                guard.begin(subprocess.Popen(command, env=os.environ | variables, stdin=stdin, process_group=0))
        except OSError as error:
            raise InvalidRequest(f"{command[0]}: {error.strerror}") from error
        return guard.wait()


@contextlib.contextmanager
def _input(given: bytes | None) -> Iterator[IO[bytes] | None]:
    """No pipe: who writes into one waits for its reader, and looks after nothing meanwhile."""
    if given is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        yield file


class _Guard:
    """Waits for a command; ends it where the lease is lost, so that two never work under one lock."""

    def __init__(self, held: Held, stand_in: guardian.Guardian) -> None:
        self._held = held
        self._stand_in = stand_in
        self._began: ending.Process | None = None
        self._process: subprocess.Popen[bytes]
        self._terminal: Terminal
        self._has_begun = False
        self._came_before: list[int] = []
        """Signals that came before the command was there: they are for it, too, or it would go on with nobody."""
        self._whole_s = 0.0
        """As much of the lease as was ever seen."""

    @contextlib.contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """But those that whoever ran this ignores, which the command does then (`nohup`)."""
        before: dict[signal.Signals, Any] = {}
        try:
            for number in PASSED_ON:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._pass_on)
            yield
        finally:  # Whoever ran it may wait for something else now, and must not be deaf to them.
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._has_begun = True
        self._began = ending.process_of(process.pid)
        self._tell()
        for number in self._came_before:
            self._pass_on(number, None)

    def wait(self) -> int:
        self._terminal = Terminal()
        try:
            self._terminal.pass_on(os.getpgrp(), self._process.pid)
            return self._wait()
        except BaseException:
            if self._process.poll() is None:  # Nobody will look after it any more.
                self.end(0.0)
            raise
        finally:
            self._stand_in.rests()
            self._terminal.pass_on(self._process.pid, os.getpgrp())
            self._terminal.close()

    def _wait(self) -> int:
        while True:
            try:
                status = self._process.wait(LOOK_S)
                if self._stand_in.has_ended_it:
                    raise LeaseLost(
                        "what it ran under was about to be lost, for this stood still; the command was ended"
                    )
                return status if status >= 0 else 128 - status
            except subprocess.TimeoutExpired:
                pass
            try:
                self._stop_with_it()
                self._held.check()
            except LeaseLost as error:
                self.end(0.0)
                raise LeaseLost(f"{error}; the command was ended") from error
            self._look_ahead()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if not self._has_begun:
            self._came_before.append(number)
        elif self._process.poll() is None:
            ending.signal_group(self._process.pid, number)

    def _look_ahead(self) -> None:
        """A lease that nobody has confirmed for most of its time is about to be lost: what is left is for the end."""
        left_s = self._tell()
        if left_s < self._whole_s / GRACE_SHARE:
            self.end(min(left_s, TERM_S_MAX))
            raise LeaseLost("what it ran under was about to be lost, for no leader confirmed it; the command was ended")

    def _tell(self) -> float:
        """Whoever stands in for this how much is left of the lease; that."""
        left_s = self._held.expires_in
        self._whole_s = max(self._whole_s, left_s)
        if self._began is not None and (left_s or not self._whole_s):
            self._stand_in.guards(self._began, left_s)
        return left_s

    def end(self, grace_s: float) -> None:
        ending.end(self._process.pid, grace_s, self._is_there)
        self._process.wait()

    def _is_there(self) -> bool:
        self._process.poll()  # Else it would be there for good.
        return ending.signal_group(self._process.pid, 0)

    def _stop_with_it(self) -> None:
        """Where it was stopped from the terminal (Ctrl-Z), so is this, and goes on with it: to the shell they are one
        job. Raises LeaseLost where it must not go on. What stops it by SIGSTOP stops it alone."""
        try:
            stopped = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:  # It has ended in this moment.
            return
        if stopped is None or stopped.si_status == signal.SIGSTOP:
            return
        reads_too_soon = stopped.si_status != signal.SIGTSTP and self._terminal.is_of(self._process.pid)
        if not reads_too_soon:
            had_it = self._terminal.pass_on(self._process.pid, os.getpgrp())
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(0 if had_it else os.getpid(), signal.SIGTSTP)  # And is back here when it is continued.
            signal.signal(signal.SIGTSTP, self._pass_on)
            self._held.check()
            self._terminal.pass_on(os.getpgrp(), self._process.pid)
        ending.signal_group(self._process.pid, signal.SIGCONT)
