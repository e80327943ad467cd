"""The two client processes (`bench.callers`) as a program that measures has them: started, spoken to, closed."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from bench.peers.base import Peer, Unusable, last_words
from bench.works import CLIENT_PROCESSES
from coordinator.config import PROJECT
from coordinator.supervision import launched

ANSWER_S_MAX: Final = 180.0
"""Behind the span that is counted. A client process bounds its own waits (`bench.callers`), but not those of a peer's
client that waits without end."""
CLOSE_S_MAX: Final = 10.0


class ClientProcess:
    """One `bench.callers`, spoken to in lines of JSON."""

    def __init__(self, peer: Peer, connection: dict[str, Any], number: int) -> None:
        self._log = peer.directory / f"client{number}.log"
        command = [sys.executable, "-m", "bench.callers", peer.name, str(number)]
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                launched(command, parent=os.getpid(), directory=PROJECT),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.say(connection)

    def say(self, line: dict[str, Any]) -> None:
        """Raises Unusable where it has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self, span_s: float = 0.0) -> dict[str, Any]:
        """Raises Unusable where it failed, ended, or says nothing for ANSWER_S_MAX behind a span of `span_s`."""
        stdout = self.process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], span_s + ANSWER_S_MAX)[0]:
            raise Unusable(f"a client process has not answered within {span_s + ANSWER_S_MAX:g} s")
        line = stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Unusable(f"a client process: {answer['failed']}")
        return answer

    def _ended(self) -> Unusable:
        return Unusable(f"a client process ended: {last_words(self._log)}")

    def close(self) -> None:
        with suppress(Unusable, subprocess.TimeoutExpired):
            self.say({"do": "close"})
            self.process.wait(CLOSE_S_MAX)
        self.process.kill()
        self.process.wait(CLOSE_S_MAX)
        for end in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):  # It was not told all.
                assert end is not None
                end.close()


class Clients:
    """Both client processes as one."""

    def __init__(self, peer: Peer, **more: Any) -> None:
        connection = {**peer.connection(), **more}
        self.all: list[ClientProcess] = []
        try:
            for number in range(CLIENT_PROCESSES):
                self.all.append(ClientProcess(peer, connection, number))
        except BaseException:
            self.close()
            raise

    def ask(self, *lines: dict[str, Any]) -> list[dict[str, Any]]:
        """The same line for all, or one for each; all answers."""
        for client, line in zip(self.all, lines * (len(self.all) // len(lines)), strict=True):
            client.say(line)
        return [client.answer() for client in self.all]

    def begin(self, work: str, callers: int) -> None:
        mine = [[*range(number, callers, len(self.all))] for number in range(len(self.all))]
        self.ask(*({"do": "begin", "work": work, "callers": some} for some in mine))

    def close(self) -> None:
        for client in self.all:
            client.close()


@contextmanager
def clients_of(peer: Peer, **more: Any) -> Iterator[Clients]:
    clients = Clients(peer, **more)
    try:
        yield clients
    finally:
        clients.close()
