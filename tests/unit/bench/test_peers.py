"""How the comparison speaks to what it has started."""

from __future__ import annotations

import http.server
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.peers import conclave, etcd


@pytest.fixture
def _proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a company, behind which nobody knows this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.mark.usefixtures("_proxy")
def test_metrics_of_a_node_are_asked_for_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Node(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"conclave_turns 7\n")

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with http.server.HTTPServer(("127.0.0.1", 0), Node) as node:
        threading.Thread(target=node.serve_forever, daemon=True).start()
        server = conclave.Server(tmp_path)
        monkeypatch.setattr(type(server.data), "metrics_port", lambda *_: node.server_port)
        assert server.metrics("node1") == "conclave_turns 7\n"
        node.shutdown()


def test_a_member_of_etcd_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison waited two minutes for an etcd that served, and left it out."""
    asked: dict[str, Any] = {}

    def client(host: str, port: int, **options: Any) -> None:
        asked.update(options, host=host, port=port)

    monkeypatch.setitem(sys.modules, "etcd3", SimpleNamespace(client=client))
    etcd.client_of(2379, 0.25)
    assert asked == {
        "host": "127.0.0.1",
        "port": 2379,
        "timeout": 0.25,
        "grpc_options": [("grpc.enable_http_proxy", 0)],
    }
