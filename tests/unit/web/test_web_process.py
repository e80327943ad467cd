"""What the web process does around Django: bodies, callers that are gone, origins of sockets, start and end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import SyncToAsync
from uvicorn.server import ServerState

from coordinator import access, asgi
from coordinator.api import attempt, ranges
from coordinator.http_connections import BoundedHttp
from tests.unit.web.fake_cluster import FakeClient, FakeCluster
from tests.unit.web.helpers import API, Bearer, settled, until


def scope(method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """As the web server hands it in: the address decoded as UTF-8, beside its raw form."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in ({"Host": "127.0.0.1:8000"} | (headers or {})).items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }


class Exchange:
    """One HTTP exchange with the whole application. `hang_up()`: what a web server says when the connection closes."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes = b"", chunks: int = 1) -> None:
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for number in range(chunks):
            self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": number < chunks - 1})
        self.status = 0
        self.body = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self._scope = scope(method, path, headers)

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")

    def keep_back(self) -> None:
        """Only the first part of the body comes."""
        first = self._incoming.get_nowait()
        while not self._incoming.empty():
            self._incoming.get_nowait()
        self._incoming.put_nowait(first)

    def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> Exchange:
        await asgi.application(self._scope, self._incoming.get, self._send)
        return self

    def json(self) -> Any:
        return json.loads(self.body)


@pytest.mark.parametrize(
    ("address", "name"), [("caf%C3%A9", "café"), ("%F0%9F%94%92", "🔒"), ("billing%2Fmonth-end", "billing/month-end")]
)
async def test_names_are_percent_encoded_utf8(worker: Bearer, address: str, name: str) -> None:
    exchange = await Exchange("POST", f"{API}/locks/{address}/acquire", worker.headers, b"{}").run()
    assert exchange.status == 200
    assert exchange.json()["name"] == name


@pytest.mark.parametrize("address", ["%FF", "%ED%A0%80", "a%C3"])
async def test_names_that_are_no_utf8_are_refused(worker: Bearer, address: str) -> None:
    exchange = await Exchange("POST", f"{API}/locks/{address}/acquire", worker.headers, b"{}").run()
    assert exchange.status == 422


async def test_a_name_with_a_line_feed_is_refused_as_other_names_that_are_none(worker: Bearer) -> None:
    for path in ("locks/a%0d%0aX:y", "locks/a%0ab/acquire", "files/%0a", "keys/a%0a"):
        exchange = await Exchange("GET", f"{API}/{path}", worker.headers).run()
        assert (exchange.status, exchange.json()["error"]) == (422, "invalid"), path
        assert "a name holds no control characters" in exchange.json()["detail"]
    assert (await Exchange("GET", f"{API}/locks/a%0a", {}).run()).status == 401


# --- bodies ---------------------------------------------------------------------------------------


async def test_a_body_that_announces_itself_too_large_is_refused_unread(worker: Bearer) -> None:
    headers = worker.headers | {"Content-Length": str(asgi.BODY_BYTES_MAX + 1)}
    exchange = await Exchange("PUT", f"{API}/keys/a", headers).run()
    assert exchange.status == 413
    assert exchange.json()["error"] == "too-large"


async def test_a_body_that_grows_too_large_is_cut_off(worker: Bearer) -> None:
    exchange = await Exchange("PUT", f"{API}/keys/a", worker.headers, b"x" * 65_536, chunks=10_000).run()
    assert exchange.status == 413


async def test_a_body_that_is_not_whole_in_time_is_cut_off(worker: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_S_MAX", 0.01)
    exchange = Exchange("PUT", f"{API}/keys/a", worker.headers, b"x", chunks=2)
    exchange.keep_back()
    await exchange.run()
    assert (exchange.status, exchange.json()["error"]) == (408, "too-slow")


async def test_all_bodies_under_way_are_bounded_together_and_forgotten_when_they_are_over(
    worker: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in before anybody is asked who they are."""
    monkeypatch.setattr(asgi, "BODIES_BYTES_MAX", 10_000)
    unfinished = [Exchange("PUT", f"{API}/keys/a", {}, b"x" * 4_000, chunks=2) for _ in range(2)]
    for exchange in unfinished:
        exchange.keep_back()
    running = [asyncio.ensure_future(exchange.run()) for exchange in unfinished]
    await until(lambda: asgi._Body._all_bytes == 8_000)
    refused = await Exchange("PUT", f"{API}/keys/a", worker.headers, b"x" * 4_000).run()
    assert (refused.status, refused.json()["error"]) == (503, "busy")
    for exchange in unfinished:
        exchange.hang_up()
    await asyncio.gather(*running)
    assert asgi._Body._all_bytes == 0
    taken = await Exchange("PUT", f"{API}/keys/a", worker.headers, b"x" * 4_000).run()
    assert taken.status == 200


# --- connections ----------------------------------------------------------------------------------


class Quick(BoundedHttp):
    head_s_max = 0.05
    answer_stands_s_max = 0.05


class Few(BoundedHttp):
    connections_max = 3


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Connect]:
    """The whole application behind the server's own HTTP; opens connections to it."""
    async with serving(asgi.application) as (connect, _):
        yield connect


@asynccontextmanager
async def serving(application: Any, http: type[BoundedHttp] = Quick) -> AsyncIterator[tuple[Connect, ServerState]]:
    config = uvicorn.Config(application, http=http, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: http(config, state, {}, loop), "127.0.0.1", 0)
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writers.append(writer)
        return reader, writer

    yield connect, state
    for writer in writers:
        writer.close()
    server.close()
    await until(lambda: not state.connections and not state.tasks)


def request_of(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8000", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came before the connection was closed."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_whose_head_is_not_whole_in_time_is_closed(served: Any, head: bytes) -> None:
    reader, writer = await served()
    writer.write(head)
    assert await ended(reader) == b""


async def test_a_further_head_has_its_time_too_and_a_request_under_way_has_none(served: Any) -> None:
    reader, writer = await served()
    writer.write(request_of("GET", "/healthz", {}))
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"GET /healthz HTT")
    assert b"200 OK" not in await ended(reader)


async def test_who_has_asked_is_given_all_the_time_that_the_answer_takes() -> None:
    """The bound is one of heads: whoever waits in line for an hour has said all."""
    goes_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await goes_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(application) as (connect, _):
        reader, writer = await connect()
        writer.write(request_of("GET", "/", {}))
        await ended((await connect())[0])  # It came later, so that the time of both heads has passed.
        goes_on.set()
        assert b"200 OK" in await reader.readuntil(b"ok")


async def test_connections_beyond_the_bound_are_closed_and_those_before_go_on() -> None:
    async with serving(asgi.application, Few) as (connect, _):
        first = await connect()
        others = [await connect() for _ in range(3)]
        assert await ended(others[-1][0]) == b""
        first[1].write(request_of("GET", "/healthz", {}))
        assert b"200 OK" in await first[0].readuntil(b"\r\n\r\n")


async def test_a_waiter_that_sends_a_next_request_and_is_gone_leaves_the_line(
    worker: Bearer, other: Bearer, cluster: FakeCluster, served: Any
) -> None:
    """The server stops to read at the next request, and never saw the end: the waiter was kept in line for its whole
    wait, kept alive, and granted the lock."""
    await worker.post(f"{API}/locks/deploy/acquire")
    _, writer = await served()
    writer.write(request_of("POST", f"{API}/locks/deploy/acquire", other.headers, b'{"wait_ms": 60000}'))
    await until(lambda: cluster.machine.waiting)
    await ended((await served())[0])
    assert cluster.machine.waiting == 1, "a request under way is no head that is late"
    writer.write(request_of("GET", "/healthz", {}))
    writer.close()
    await until(lambda: not cluster.machine.waiting and not attempt._live)


async def test_who_has_the_whole_answer_may_ask_again_before_the_server_has_said_its_last_word() -> None:
    """The size is in the answer's head; that there is no more is said by the application later."""
    said = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await said.wait()
        await send({"type": "http.response.body"})

    async with serving(application) as (connect, server):
        reader, writer = await connect()
        writer.write(request_of("GET", "/", {}))
        await reader.readuntil(b"ok")
        writer.write(request_of("GET", "/", {}))
        await until(lambda: all(connection.conn.trailing_data[0] for connection in server.connections))
        said.set()
        assert b"200 OK" in await reader.readuntil(b"ok")


@pytest.mark.parametrize(
    "more", [f"Cookie: {'x' * 9_000}", "\r\n".join(f"X-{number}: x" for number in range(200)), "Content-Length: 3"]
)
async def test_a_handshake_of_a_socket_that_is_not_taken_is_refused_and_its_connection_closed(
    served: Any, more: str
) -> None:
    """It was kept for ever, without an answer: a stranger could take all connections."""
    reader, writer = await served()
    handshake = (
        "Origin: http://127.0.0.1:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    )
    writer.write(f"GET /ws/live/default/ HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n{handshake}\r\n{more}\r\n\r\n".encode())
    assert b"400 Bad Request" in await ended(reader)


async def test_who_takes_nothing_of_an_answer_is_cut_off_and_who_takes_it_is_not() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await send({"type": "http.response.body", "body": b"all"})

    async with serving(application) as (connect, server):
        _, writer = await connect()
        writer.write(request_of("GET", "/", {}))
        await until(lambda: server.tasks)
        await until(lambda: not server.connections and not server.tasks)
    async with serving(application, BoundedHttp) as (connect, _):
        reader, writer = await connect()
        writer.write(request_of("GET", "/", {"Connection": "close"}))
        assert b"all" in (await ended(reader))[-16:]


def test_the_server_writes_no_line_for_each_request() -> None:
    """It would name every lock and key. In a process of its own, since it is about how all logging is set up."""
    program = (
        "import uvicorn, logging; config = uvicorn.Config('coordinator.asgi:application', access_log=False);"
        "config.load(); print(logging.getLogger('uvicorn.access').hasHandlers())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "False"


# --- callers that are gone ------------------------------------------------------------------------


async def test_a_waiter_whose_connection_closes_leaves_the_line(
    worker: Bearer, other: Bearer, cluster: FakeCluster
) -> None:
    await worker.post(f"{API}/locks/deploy/acquire")
    before = set(cluster.machine.sessions)
    exchange = Exchange("POST", f"{API}/locks/deploy/acquire", other.headers, b'{"wait_ms": 60000}')
    running = asyncio.ensure_future(exchange.run())
    await until(lambda: cluster.machine.waiting)
    exchange.hang_up()
    await running
    await settled()
    assert cluster.machine.waiting == 0
    assert set(cluster.machine.sessions) == before
    assert not attempt._live


@pytest.mark.parametrize("address", ["changes?start=a&wait_ms=60000", "lock-events?start=a&wait_ms=60000"])
async def test_who_waits_for_changes_is_answered_as_soon_as_the_process_is_told_to_end(
    worker: Bearer, address: str
) -> None:
    """The server cut them off when its patience was over, with 500 and a traceback."""
    running = asyncio.ensure_future(worker.get(f"{API}/{address}"))
    await until(lambda: ranges._watching)
    asgi._answer_all()
    answer = await running
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert answer.json()["detail"] == "this web process ends; ask again from where you are"
    assert (answer["Retry-After"], ranges._watching, ranges._waits) == ("1", 0, {})


@pytest.mark.parametrize(("method", "code"), [("GET", "unavailable"), ("PUT", "outcome-unknown")])
async def test_whom_the_end_of_the_process_cuts_off_is_told_so(
    worker: Bearer, cluster: FakeCluster, method: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where nobody leads, so that the answer takes longer than the server's patience."""
    asked = asyncio.Event()

    async def silent(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeClient, "command", silent)
    monkeypatch.setattr(FakeClient, "query", silent)
    exchange = Exchange(method, f"{API}/keys/a", worker.headers, b"x")
    running = asyncio.ensure_future(exchange.run())
    await asked.wait()
    running.cancel("timeout graceful shutdown exceeded")
    await running
    assert (exchange.status, exchange.json()["error"]) == (503, code)


async def test_a_grant_whose_answer_nobody_takes_is_given_back(worker: Bearer, cluster: FakeCluster) -> None:
    """The connection closes after the view has answered and before the answer is out."""
    exchange = Exchange("POST", f"{API}/locks/deploy/acquire", worker.headers, b"{}")
    exchange.reading.clear()
    running = asyncio.ensure_future(exchange.run())
    await until(lambda: "deploy" in cluster.machine.locks and not attempt._live)
    exchange.hang_up()
    await asyncio.sleep(0.01)
    exchange.reading.set()
    await running
    await settled()
    assert "deploy" not in cluster.machine.locks


async def test_a_grant_whose_answer_was_taken_stays(worker: Bearer, cluster: FakeCluster) -> None:
    exchange = Exchange("POST", f"{API}/locks/deploy/acquire", worker.headers, b"{}")
    await exchange.run()
    exchange.hang_up()
    await settled()
    assert cluster.machine.locks["deploy"].token == exchange.json()["token"]


async def test_a_call_of_the_api_stays_on_the_event_loop(
    worker: Bearer, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what Django itself does in a thread at the start and the end of each request."""
    await Exchange("POST", f"{API}/locks/deploy/acquire", worker.headers, b"{}").run()
    hops: list[Any] = []
    original = SyncToAsync.__call__

    async def counted(self: Any, *args: Any, **options: Any) -> Any:
        hops.append(self.func)
        return await original(self, *args, **options)

    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    exchange = await Exchange("GET", f"{API}/locks/deploy", worker.headers).run()
    assert exchange.status == 200
    assert len(hops) <= 2, hops


# --- sockets --------------------------------------------------------------------------------------


def _socket(origin: str | None, host: str = "127.0.0.1:8000", scheme: str = "ws") -> dict[str, Any]:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    return {"type": "websocket", "scheme": scheme, "path": "/ws/live/default/", "headers": headers}


def test_a_socket_is_let_in_from_our_own_pages_alone(settings: Any) -> None:
    own = asgi.is_own_origin
    assert own(_socket("http://127.0.0.1:8000"))
    assert own(_socket("http://localhost:8000", "localhost:8000"))
    assert own(_socket("http://[::1]:8000", "[::1]:8000"))
    assert own(_socket("https://127.0.0.1:8000", scheme="wss"))
    assert not own(_socket(None))
    assert not own(_socket(""))
    assert not own(_socket("null"))
    assert not own(_socket("http://evil.example"))
    assert not own(_socket("http://127.0.0.1:9000"))
    assert not own(_socket("https://127.0.0.1:8000"))
    assert not own(_socket("http://localhost:8000"))
    assert not own(_socket("http://evil.example", "evil.example"))
    assert not own(_socket("http://127.0.0.1:8000.evil.example"))


def test_a_socket_is_let_in_from_origins_that_the_operator_named(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["conclave.example", ".example.org"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://conclave.example", "https://*.example.org"]
    own = asgi.is_own_origin
    assert own(_socket("https://conclave.example", "conclave.example"))
    assert own(_socket("https://a.example.org", "a.example.org"))
    assert not own(_socket("https://aexample.org", "conclave.example"))
    assert not own(_socket("https://evil.example", "conclave.example"))


async def test_a_foreign_socket_is_refused_before_anything_else_sees_it() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await asgi.application(_socket("http://evil.example"), receive, send)
    assert sent == [{"type": "websocket.close", "code": 4403}]


# --- start and end --------------------------------------------------------------------------------


@pytest.mark.usefixtures("transactional_db")
async def test_start_and_end_reach_whoever_must_know(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    async def start() -> None:
        happened.append("reader started")

    async def stop() -> None:
        happened.append("reader stopped")

    monkeypatch.setattr(asgi.feed_reader, "start", start)
    monkeypatch.setattr(asgi.feed_reader, "stop", stop)
    incoming: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.ensure_future(asgi.application({"type": "lifespan"}, incoming.get, sent.put))
    incoming.put_nowait({"type": "lifespan.startup"})
    assert await sent.get() == {"type": "lifespan.startup.complete"}
    await settled()
    client = access.client()
    (lasting,) = asgi._lasting
    incoming.put_nowait({"type": "lifespan.shutdown"})
    assert await sent.get() == {"type": "lifespan.shutdown.complete"}
    await running
    assert happened == ["reader started", "reader stopped"]
    assert client.is_closed  # type: ignore[attr-defined]
    assert lasting.cancelled()


async def test_the_client_of_a_cluster_that_nobody_asks_about_any_more_is_closed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters come and go, and each client that there ever was kept its connections."""
    seconds = 1_000.0
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: seconds))
    default, gone, used, asked = (access.client(name) for name in ("default", "gone", "used", "asked"))
    asked.calls_pending = 1  # type: ignore[attr-defined]
    seconds += access.UNUSED_S_MAX
    access.client("used")
    seconds += 1.0
    access.client("new")
    await settled()
    assert {*access.clients()} == {"default", "used", "asked", "new"}
    assert [each.is_closed for each in (default, gone, used, asked)] == [False, True, False, False]  # type: ignore[attr-defined]
