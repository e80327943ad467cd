"""Clients for threads, one for each cluster, as principal `web`: for the reconciler and the management commands."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

from django.conf import settings

from coordinator.client import Client

TIMEOUT_S: Final = 5.0
CLIENTS_MAX: Final = 128
"""Each has a connection and a thread: with one for each of hundreds of clusters a process has no file left to open."""


class Clients:
    """Called with a cluster's name it gives that cluster's client. Closes all of them at its end.

    Where there are as many as may be, the one that came last makes way: the first holds the reconciler's lock, and
    whoever goes over all clusters again and again finds most of theirs still there. So a caller has one in use at a
    time, beside the first."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._clients: dict[str, Client] = {}

    def __call__(self, cluster: str) -> Client:
        if cluster not in self._clients:
            if len(self._clients) >= CLIENTS_MAX:
                self._clients.popitem()[1].close()
            self._clients[cluster] = Client(
                settings.DATA.mailbox_redis_url(settings.CONCLAVE),
                str(settings.DATA.web_token()),
                cluster=cluster,
                timeout=self._timeout_s,
            )
        return self._clients[cluster]

    def keep(self, clusters: Collection[str]) -> None:
        """Close those of other clusters: each has a connection and a thread, and clusters come and go."""
        for cluster in self._clients.keys() - {*clusters}:
            self._clients.pop(cluster).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()
