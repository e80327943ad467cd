"""A real Redis for tests: the server that `manage.py up` would run, with the same file and the same users."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from coordinator import embedded_redis
from coordinator.config import PROJECT, Config
from coordinator.data_directory import DataDirectory
from coordinator.supervision import launched
from tests.integration.waiting import eventually

ANSWER_S_MAX: Final = 10.0


class PrivateRedis:
    """Runs between `start` and `stop` (or as a context). Dies with the process that started it."""

    def __init__(self, directory: Path, server: embedded_redis.Server | None = None) -> None:
        self.data = DataDirectory(directory)
        self.server = server or embedded_redis.find_server()
        self._process: subprocess.Popen[bytes] | None = None
        config = Config.model_construct(redis_url=None)
        self.url = self.data.node_redis_url(config)
        self.client_url = self.data.client_redis_url(config)
        self.realm = self.data.realm()
        self.port = self.data.redis_state().port

    def start(self) -> None:
        command = embedded_redis.prepare(self.data, self.server)
        with open(self.data.log / "redis.log", "ab") as log:
            self._process = subprocess.Popen(
                launched(command, parent=os.getpid(), directory=PROJECT),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, timeout_s=ANSWER_S_MAX, what=f"Redis answers on port {self.port}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Redis ended: {(self.data.log / 'redis.log').read_text()[-2000:]}"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(64))
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """`how`: SIGKILL for a death without warning."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(ANSWER_S_MAX)
            self._process = None

    def pause(self) -> None:
        """It stays connected and answers nobody, as after a stalled disk or a suspended machine."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGKILL)
