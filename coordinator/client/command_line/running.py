"""A command that runs while something is held, and is ended where that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from types import FrameType
from typing import Final, Protocol

from coordinator.client.errors import InvalidRequest, LeaseLost

EXIT_LEASE_LOST: Final = 76
"""What the command ran under could not be proven held any more; it was ended, where it had not ended by itself."""
LOOK_S: Final = 0.1
"""How often the lease is looked at while the command runs."""
TERM_S_MAX: Final = 5.0
"""How long a command whose lease is lost has to end by itself."""


class Held(Protocol):
    @property
    def expires_in(self) -> float: ...
    def check(self) -> None: ...


def run(command: list[str], held: Held, variables: dict[str, str], given: bytes | None = None) -> int:
    """Run it to its end; its status. `given`: what it reads on its standard input. Raises LeaseLost where it was ended
    because what it ran under is lost, and InvalidRequest where it can not be started."""
    try:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdin=None if given is None else subprocess.PIPE
        )
    except OSError as error:
        raise InvalidRequest(f"{command[0]}: {error.strerror}") from error
    if given is not None:
        _give(process, given)
    return _guard(process, held)


def _give(process: subprocess.Popen[bytes], given: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(given)
        process.stdin.close()
    except BrokenPipeError:
        pass  # It does not want to read all of it.


def _guard(process: subprocess.Popen[bytes], held: Held) -> int:
    """Wait for the command; end it where the lease is lost, so that two never work under one lock."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    while True:
        try:
            status = process.wait(LOOK_S)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            pass
        try:
            held.check()
        except LeaseLost as error:
            process.terminate()
            try:
                process.wait(min(TERM_S_MAX, held.expires_in or TERM_S_MAX))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise LeaseLost(f"{error}; the command was ended") from error
