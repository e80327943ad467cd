"""How a connection to the web process may be used: uvicorn's own HTTP, with bounds that it does not have.

A head has to be whole within a time, an answer has to be taken, a process has so many connections and no more, and a
caller that sends a next request before it is answered is cut off: the server stops to read then, and would not see that
the caller has gone, so that who waits for a lock would be kept in line, and granted it, with nobody there. Bodies are
bounded where they are taken in (`asgi.py`).
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S_MAX: Final = 10.0
"""From the connection, or from the first byte of a further request on it, until the head is whole."""
ANSWER_STANDS_S_MAX: Final = 60.0
"""How long a caller may take nothing of an answer that waits for it."""
CONNECTIONS_MAX: Final = 8_192
FILES_KEPT: Final = 256
"""Open files that are not for connections of callers: to Redis, the database, static files."""
FILES_WANTED: Final = CONNECTIONS_MAX + FILES_KEPT
NO_HANDSHAKE: Final = "Expected a WebSocket handshake without a body, of 128 headers of 8192 bytes each at the most."

_logger = logging.getLogger(__name__)


def allowed_connections() -> int:
    """How many connections this process may have at once. Raises its bound of open files as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(soft - FILES_KEPT, soft // 2))


class BoundedHttp(H11Protocol):
    """For uvicorn's `--http`."""

    head_s_max = HEAD_S_MAX
    answer_stands_s_max = ANSWER_STANDS_S_MAX
    connections_max = allowed_connections()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._stands: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            transport.abort()
            return
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()
        cycle = self.cycle
        # Who has the whole answer may ask again before the server knows that it was the whole.
        if cycle is not None and not (cycle.response_started or cycle.response_complete or cycle.more_body):
            further, _ = self.conn.trailing_data
            if further.strip():
                self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stands = self.loop.call_later(self.answer_stands_s_max, self.transport.abort)

    def resume_writing(self) -> None:
        self._no_longer_stands()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """What reads the head once more has smaller bounds, and says nothing of a head that it does not take: it would
        keep the connection, and nobody would look after that."""
        self._no_longer_stands()
        super().handle_websocket_upgrade(event)
        socket: Any = self.transport.get_protocol()
        if not socket.handshake_initiated:
            self.send_400_response(NO_HANDSHAKE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_deadline()
        self._no_longer_stands()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Is a head awaited?"""
        is_others = self.transport.get_protocol() is not self  # A WebSocket's by now.
        if is_others or (self.cycle is not None and not self.cycle.response_complete):
            self._no_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s_max, self._give_up)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _no_longer_stands(self) -> None:
        if self._stands is not None:
            self._stands.cancel()
            self._stands = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.abort()
