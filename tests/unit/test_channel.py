"""A connection to a Redis: how long the making of one may take, and what is refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from coordinator import channel as channel_module
from coordinator.channel import Channel, ChannelError, Endpoint


@contextlib.contextmanager
def listening(backlog: int = 8) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """The port of somebody who answers no SYN: nobody takes what waits there already."""
    with listening(0) as server, contextlib.ExitStack() as waiting:
        for _ in range(2):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(server.getsockname())
        yield port_of(server)


@contextlib.contextmanager
def dripping() -> Iterator[int]:
    """The port of somebody who begins an answer, and goes on with it for ever."""
    with listening() as server:
        ends = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"+")
                while not ends.wait(0.01):
                    connection.sendall(b"a")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield port_of(server)
        ends.set()
        thread.join(10)


def test_the_time_to_connect_is_one_for_all_that_is_said(monkeypatch):
    monkeypatch.setattr(channel_module, "CONNECT_TIMEOUT_S", 0.1)
    with dripping() as port:
        connects, failed = Channel(f"redis://127.0.0.1:{port}"), []

        def connect() -> None:
            with pytest.raises(ChannelError, match="timed out") as caught:
                connects.connect(["a"])
            failed.append(caught.value)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(5)
        assert failed, "it waits for as long as something comes"
    assert not connects.connected


def test_an_address_that_swallows_what_it_is_sent_leaves_time_for_the_next(monkeypatch):
    monkeypatch.setattr(channel_module, "CONNECT_TIMEOUT_S", 0.4)
    with swallowing() as dead, listening() as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (dead, port_of(server))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        taken = []

        def answer() -> None:
            connection, _ = server.accept()
            taken.append(connection)
            connection.sendall(b"%0\r\n+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        channel = Channel("redis://somewhere")
        channel.connect(["a"])
        assert channel.connected
        channel.close()
        thread.join(5)
        taken[0].close()


def test_of_addresses_that_all_fail_the_last_error_is_told(monkeypatch):
    with listening() as server:
        closed = port_of(server)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed)),
        (12_345, socket.SOCK_STREAM, 6, "", ("::1", closed)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ChannelError, match=r"Redis at somewhere:6379: .*Address family"):
        Channel("redis://somewhere").connect([])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(ChannelError, match="it has no address"):
        Channel("redis://somewhere").connect([])


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), ValueError("embedded null character")])
def test_a_host_that_the_resolver_can_not_spell_is_a_connection_that_can_not_be_made(monkeypatch, error):
    def resolve(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ChannelError, match=str(error)):
        Channel("redis://somewhere").connect([])


@pytest.mark.parametrize("host", ["redis..svc", f"{'a' * 64}.svc"])
def test_a_name_that_no_host_can_have_is_refused(host):
    with pytest.raises(ValueError, match=rf"expected the name or the address of a host, got '{host[:8]}"):
        Endpoint.parse(f"redis://user:secret@{host}:6379")


@pytest.mark.parametrize("host", ["redis", "redis.svc.", "127.0.0.1", "[::1]", "[fe80::1%25eth0]", "bücher.example"])
def test_a_host_is_a_name_or_an_address(host):
    assert Endpoint.parse(f"redis://{host}").port == 6379
