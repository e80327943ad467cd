"""`/metrics` of a node, over plain HTTP on a thread of its own.

It answers one request at a time, each within a bound: whoever asks too often or too slowly waits for himself, and costs
the loop at most one busy thread beside it. What it says has no names of locks, keys or principals.
"""

from __future__ import annotations

import hmac
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

SILENCE_S_MAX: Final = 2.0
"""A caller that says nothing for so long is hung up on."""
STOP_S_MAX: Final = 1.0

logger = logging.getLogger(__name__)

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MetricsAddress(NamedTuple):
    """Where to listen. `token`: what a caller has to bring as a bearer token; "" nothing."""

    host: str
    port: int
    token: str = ""

    def __repr__(self) -> str:
        return f"MetricsAddress({self.url!r})"  # The token is secret.

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"


class MetricsServer:
    def __init__(self, address: MetricsAddress, registry: CollectorRegistry) -> None:
        """Takes hold of the port. Raises OSError."""
        family = _Server6 if ":" in address.host else _Server
        self._server = family((address.host, address.port), _Handler)
        self._server.set_app(_guarded(make_wsgi_app(registry), address.token))
        self._thread = threading.Thread(target=self._server.serve_forever, name="conclave-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let go of the port. Does not wait for a caller that is being answered."""
        if self._thread.is_alive():
            stopper = threading.Thread(target=self._server.shutdown, daemon=True)
            stopper.start()
            stopper.join(STOP_S_MAX)
        self._server.server_close()


def _guarded(metrics: _Application, token: str) -> _Application:
    expected = f"Bearer {token}".encode()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            return _refused(HTTPStatus.NOT_FOUND, start_response)
        given = str(environ.get("HTTP_AUTHORIZATION", "")).encode("utf-8", "surrogateescape")
        if token and not hmac.compare_digest(given, expected):
            return _refused(HTTPStatus.UNAUTHORIZED, start_response, ("WWW-Authenticate", "Bearer"))
        return metrics(environ, start_response)

    return application


def _refused(status: HTTPStatus, start_response: Callable[..., Any], *headers: tuple[str, str]) -> list[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain"), *headers])
    return [f"{status.phrase}\n".encode()]


class _Server(WSGIServer):
    address_family = socket.AF_INET

    def server_bind(self) -> None:
        """Without the standard library's look-up of this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a scrape from %s came to nothing", client_address, exc_info=sys.exc_info())


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_S_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Scrapes are no news."""
