"""How tests of the web tier call the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from django.test import AsyncClient as DjangoAsyncClient

from coordinator import access, wire
from coordinator.statemachine import commands
from tests.unit.web.fake_cluster import FakeCluster

API: Final = "/api/v1/clusters/default"
PASSWORD: Final = "correct horse battery staple"


class Bearer:
    """Calls the API with a bearer token, as JSON."""

    def __init__(self, token: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}"}
        self._client = DjangoAsyncClient()

    async def get(self, path: str, **query: Any) -> Any:
        return await self._client.get(path, query or None, headers=self.headers)

    async def post(self, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body)
        return await self._client.post(path, data, content_type="application/json", headers=self.headers)

    async def post_bytes(self, path: str, body: bytes) -> Any:
        return await self._client.post(path, body, content_type="application/octet-stream", headers=self.headers)

    async def put_json(self, path: str, body: Any) -> Any:
        return await self._client.put(path, json.dumps(body), content_type="application/json", headers=self.headers)

    async def put(self, path: str, body: bytes) -> Any:
        return await self._client.put(path, body, content_type="application/octet-stream", headers=self.headers)

    async def delete(self, path: str) -> Any:
        return await self._client.delete(path, headers=self.headers)


def new_token(
    cluster: FakeCluster, name: str, rights: tuple[str, ...] = ("read", "write", "lock"), prefixes: tuple[str, ...] = ()
) -> wire.Token:
    """What `manage.py token NAME` does to the log."""
    token = wire.Token.new("0123abcd")
    session = cluster.apply(
        "web", "", commands.Command(0, 0, 0, commands.OpenSession(commands.TTL_MS_MAX, name.encode()))
    )
    assert isinstance(session, commands.SessionOpened)
    number = session.session
    cluster.apply("web", "", commands.Command(number, 1, 1, commands.SetPrincipal(name, rights, prefixes)))
    cluster.apply("web", "", commands.Command(number, 2, 2, commands.AddToken(token.token_id, name, token.key)))
    return token


async def until(holds: Callable[[], Any]) -> None:
    """Let everything else run until a condition holds; bounded by the test's own time-out."""
    while not holds():  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0)


async def settled() -> None:
    """Until nothing runs in the background any more."""
    while access._background:
        await asyncio.gather(*access._background, return_exceptions=True)
