"""Other people on the same cluster: programs that hold locks, wait for them, and write keys while a page is open."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from coordinator.client import Client
from coordinator.statemachine import commands
from coordinator.wire import Token
from tests.integration.installation import Installation
from tests.integration.quorum import client_url, web_client

HELD: Final = (("invoices", "billing/month-end", 10.0), ("search", "search/reindex", 15.0), ("beat", "beat", 12.0))
"""Who holds what, and for how many seconds a lease of theirs lasts."""
WAITING: Final = (("worker-7", "billing/month-end"), ("worker-2", "billing/month-end"), ("worker-4", "search/reindex"))
WRITE_EVERY_S: Final = 0.4
TTL_S: Final = 10.0
RIGHTS: Final = (commands.READ, commands.WRITE, commands.LOCK)


class Company:
    """Holds, waits and writes between `__enter__` and `__exit__`, each as a principal of its own."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clients: list[Client] = []

    def _client(self, administrator: Client, name: str) -> Client:
        """Not by `manage.py token`: seven processes of it take longer than all that the page is looked at for."""
        token = Token.new(self._installation.data.realm())
        administrator.command(commands.SetPrincipal(name, RIGHTS, ()))
        administrator.command(commands.AddToken(token.token_id, name, token.key))
        client = Client(client_url(self._installation), str(token))
        self._clients.append(client)
        return client

    def __enter__(self) -> Self:
        names = ["counter", *(name for name, *_ in (*HELD, *WAITING))]
        with web_client(self._installation) as administrator:
            clients = {name: self._client(administrator, name) for name in names}
        for name, lock, ttl_s in HELD:
            clients[name].acquire(lock, ttl=ttl_s)
        for name, lock in WAITING:
            self._begin(self._wait, clients[name], lock)
        self._begin(self._write, clients["counter"])
        return self

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    @staticmethod
    def _wait(client: Client, lock: str) -> None:
        with contextlib.suppress(Exception):
            client.acquire(lock, ttl=TTL_S)

    def _write(self, client: Client) -> None:
        count = 0
        while not self._leaving.wait(WRITE_EVERY_S):
            count += 1
            with contextlib.suppress(Exception):
                client.put("config/limits", str(count).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        for client in self._clients:
            client.close()
        for thread in self._threads:
            thread.join(TTL_S)
