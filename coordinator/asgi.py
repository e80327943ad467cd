"""The web process: HTTP goes to Django, WebSockets to the live pages, start and end to whoever must know.

Three things are seen here and nowhere else: how large and how slow a body is before it is stored, whether a caller was
gone before it had its whole answer, and whom the end of the process cuts off.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from types import FrameType
from typing import Any, Final

from coordinator import compiled, environment

gc.disable()  # until all is imported: next to nothing of that is garbage

compiled.use_in_client()  # before anything of what is compiled is imported

environment.disregard_others()

from django.core.asgi import get_asgi_application

# Django is set up by this, and what follows needs that.
django_application = get_asgi_application()

# ruff: noqa: E402
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from coordinator import access, accounts, database_errors, record, web_metrics
from coordinator.api import attempt, ranges
from coordinator.seldom import Seldom
from dashboard import feed_reader
from dashboard.consumers import TRY_AGAIN
from dashboard.routing import websocket_urlpatterns

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
BODY_S_MAX: Final = 30.0
"""From the head of a request until its body is whole."""
BODIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of all requests together that are under way: bodies come in before it is known whose they are."""
TAKE_BACK_S_MAX: Final = 2.0
"""At the end of the process, how long waiting calls may take to leave their lines."""


# --- HTTP -----------------------------------------------------------------------------------------


class _Refused(Exception):
    """A call that is answered here, and why."""

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error


def _ends(scope: Scope) -> _Refused:
    """What is answered to a call that the end of this process cuts off."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return _Refused(503, "unavailable", "this web process ends; ask again")
    return _Refused(503, "outcome-unknown", "this web process ends; what was asked may have been done all the same")


_TOO_LARGE: Final = (413, "too-large", f"a body has at most {BODY_BYTES_MAX} bytes")
_TOO_SLOW: Final = (408, "too-slow", f"a body has to be whole within {BODY_S_MAX:g} s")
_TOO_MANY: Final = (503, "busy", f"all bodies under way have at most {BODIES_BYTES_MAX} bytes; ask again later")


class _Body:
    """A body on its way in, counted with all others until the request is over."""

    _all_bytes = 0

    def __init__(self, scope: Scope, receive: Receive) -> None:
        """Raises _Refused where it says that it will be too large."""
        self._receive = receive
        self._bytes = 0
        self._is_whole = False
        self._until = asyncio.get_running_loop().time() + BODY_S_MAX
        if _announced_bytes(scope) > BODY_BYTES_MAX:
            raise _Refused(*_TOO_LARGE)

    async def receive(self) -> Message:
        """The server's next message. Raises _Refused."""
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise _Refused(*_TOO_SLOW) from None
        size = len(message.get("body", b""))
        self._bytes += size
        _Body._all_bytes += size
        self._is_whole = not message.get("more_body", False)
        if self._bytes > BODY_BYTES_MAX:
            raise _Refused(*_TOO_LARGE)
        if _Body._all_bytes > BODIES_BYTES_MAX:
            raise _Refused(*_TOO_MANY)
        return message

    def over(self) -> None:
        _Body._all_bytes -= self._bytes
        self._bytes = 0


class Http:
    """Refuses bodies that are too large, too slow, or too much together with others, before Django spools them, and
    undoes what nobody is there to hear of.

    A view leaves in `scope["conclave.undo"]` what to call when its caller is gone before the last byte of the answer.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        undo: list[Callable[[], None]] = []
        scope["conclave.undo"] = undo
        measured = web_metrics.Measured(scope)
        body: _Body | None = None
        is_answered = is_gone = has_begun = False
        status = ""

        async def watching_receive() -> Message:
            nonlocal is_gone
            assert body is not None, "it is there before the application runs"
            message = await body.receive()
            if message["type"] == "http.disconnect":
                is_gone = is_gone or not is_answered
            return message

        async def watching_send(message: Message) -> None:
            nonlocal is_answered, has_begun, status
            has_begun = True
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            body = _Body(scope, receive)
            await self._application(scope, watching_receive, watching_send)
        except _Refused as refused:
            if not has_begun:
                await _refuse(watching_send, refused)
        except asyncio.CancelledError:
            # By the server, whose patience is over; it would answer with 500.
            if not has_begun and not is_gone:
                await _refuse(watching_send, _ends(scope))
        finally:
            if body is not None:
                body.over()
            measured.ended("gone" if is_gone or not is_answered else status)
            if is_gone or not is_answered:
                for each in undo:
                    each()


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send, refused: _Refused) -> None:
    body = f'{{"error": "{refused.error}", "detail": "{refused}"}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# --- WebSockets -----------------------------------------------------------------------------------


class OwnOriginOnly:
    """Lets a WebSocket in only from a page of our own: the browser's Origin is the very scheme, host and port that it
    connects to, or an origin that the operator named. Without an Origin nobody comes in."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_own_origin(scope):
            await self._application(scope, receive, send)
            return
        message = await receive()
        assert message["type"] == "websocket.connect", message["type"]
        await send({"type": "websocket.close", "code": 4403})


class WithoutDatabase:
    """A socket of which nobody can tell whose it is, since the database cannot be asked, is to come again. Each open
    page does, all the while: it is no mistake of this process, and a line of the log is enough for all."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._unasked = Seldom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting_receive() -> Message:
            nonlocal has_begun
            has_begun = True
            return await receive()

        try:
            await self._application(scope, noting_receive, send)
        except Exception as error:
            if has_begun or not database_errors.is_of_the_database(error):
                raise
            text = database_errors.in_words(error)
            if self._unasked.is_due(text):
                log.warning("pages cannot come back: %s", text)
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": TRY_AGAIN})
        else:
            self._unasked.over()


def is_own_origin(scope: Scope) -> bool:
    """Whether the Origin of a WebSocket's handshake is one of ours."""
    headers = {
        name: value.decode("latin-1").lower() for name, value in scope["headers"] if name in (b"origin", b"host")
    }
    origin, host = headers.get(b"origin", ""), headers.get(b"host", "")
    if not origin or not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        return False
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    return origin == f"{scheme}://{host}" or _is_trusted(origin)


def _is_trusted(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    for trusted in settings.CSRF_TRUSTED_ORIGINS:
        trusted_scheme, _, pattern = trusted.lower().partition("://")
        if scheme == trusted_scheme and (host == pattern or (pattern[:2] == "*." and host.endswith(pattern[1:]))):
            return True
    return False


# --- start and end --------------------------------------------------------------------------------


def _hear_of_the_end() -> None:
    """Answer callers that wait in line as soon as the process is told to end. The server itself would let them wait on
    until its patience is over, and only then say that it stops."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _also(partial(loop.call_soon_threadsafe, _answer_all), before))


def _answer_all() -> None:
    attempt.end_all()
    ranges.end_all()


def _also(
    first: Callable[[], Any], then: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], Any]:
    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed already.
            first()
        then(number, frame)

    return handle


_lasting: list[asyncio.Task[None]] = []
"""What runs for as long as this process serves."""


async def _start() -> None:
    _hear_of_the_end()
    await feed_reader.start()
    access.spawn(record.make_from_log(), "make the record from the log")
    _lasting.append(asyncio.create_task(accounts.forget_expired_sign_ins(), name="forget sign-ins that have run out"))


async def _stop() -> None:
    _answer_all()
    try:
        await asyncio.wait_for(attempt.all_finished(), TAKE_BACK_S_MAX)
    except TimeoutError:
        log.warning("some waiting calls could not leave their lines; their leases end by themselves")
    while _lasting:
        task = _lasting.pop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await feed_reader.stop()
    await access.close()


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Start and end of the web process, as the server tells them."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await _start()
            except Exception as error:
                log.exception("the web process could not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
            else:
                await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            try:
                await _stop()
            except Exception:
                log.exception("the web process did not end cleanly")
            await send({"type": "lifespan.shutdown.complete"})
            return


_pages = AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
application = ProtocolTypeRouter(
    {
        "http": Http(django_application),
        "websocket": web_metrics.CountedSockets(OwnOriginOnly(WithoutDatabase(_pages))),
        "lifespan": lifespan,
    }
)

# What is here now stays. To look through it again and again would hold up every request for a tenth of a second.
gc.collect()
gc.freeze()
gc.enable()
