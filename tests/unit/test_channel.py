"""A connection to a Redis: how long the making of one may take, and what is refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

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


GREETING = b"%0\r\n+OK\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
"""What a Redis says to whoever connects, and listens to one channel."""


@contextlib.contextmanager
def answering(server: socket.socket, says: bytes = GREETING) -> Iterator[list[socket.socket]]:
    """Whoever has connected there, and was told that."""
    taken: list[socket.socket] = []

    def answer() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            taken.append(connection)
            connection.sendall(says)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield taken
    server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for connection in taken:
        connection.close()


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield server


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


@pytest.fixture(autouse=True)
def whoever_answers_has_time(monkeypatch):
    """A thread that answers may have to wait for a processor for longer than anybody waits for a Redis."""
    monkeypatch.setattr(channel_module, "CONNECT_TIMEOUT_S", 20.0)


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


def test_a_connection_is_made_though_the_tests_of_a_program_have_replaced_its_clock(monkeypatch):
    """freezegun's `time.monotonic` is frozen, but for some threads, and as deep as it looks."""
    days = count()
    monkeypatch.setattr(time, "monotonic", lambda: next(days) * 86_400.0)
    with listening() as server, answering(server):
        connected = Channel(f"redis://127.0.0.1:{port_of(server)}")
        connected.connect(["a"])
        assert connected.connected
        connected.close()


def test_an_address_that_swallows_what_it_is_sent_leaves_time_for_the_next(monkeypatch):
    monkeypatch.setattr(channel_module, "CONNECT_TIMEOUT_S", 0.4)
    with swallowing() as dead, listening() as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (dead, port_of(server))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with answering(server):
            channel = Channel("redis://somewhere")
            channel.connect(["a"])
            assert channel.connected
            channel.close()


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


# --- the same Redis on a Unix socket --------------------------------------------------------------


def test_where_a_socket_is_named_it_is_used(tmp_path):
    path = tmp_path / "redis.sock"
    with listening() as elsewhere, listening_at(path) as server, answering(server) as taken:
        channel = Channel(f"redis://127.0.0.1:{port_of(elsewhere)}#{path}")
        channel.connect(["a"])
        assert [connection.family for connection in taken] == [socket.AF_UNIX]
        channel.publish([("b", b"said")])
        assert b"said" in taken[0].recv(1_000)
        taken[0].sendall(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nheard\r\n")
        assert [message.data for message in channel.receive().messages] == [b"heard"]
        channel.close()


@contextlib.contextmanager
def broken_socket(path, how) -> Iterator[None]:
    if how == "nothing is there":
        yield
    elif how == "nobody listens":
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        yield
    elif how == "a file":
        path.write_text("")
        yield
    else:
        says = {
            "nobody answers": b"",
            "it is none of ours": b"-WRONGPASS invalid password\r\n",
            "no Redis": b"HTTP/1.1",
        }
        with listening_at(path) as server, answering(server, says[how]):
            yield


@pytest.mark.parametrize(
    "how",
    ["nothing is there", "nobody listens", "a file", "nobody answers", "it is none of ours", "no Redis"],
)
def test_whoever_can_not_use_the_socket_uses_the_port(tmp_path, monkeypatch, how):
    monkeypatch.setattr(channel_module, "SOCKET_TIMEOUT_S", 0.05)
    path = tmp_path / "redis.sock"
    with broken_socket(path, how), listening() as server, answering(server) as taken:
        channel = Channel(f"redis://127.0.0.1:{port_of(server)}/0#{path}")
        channel.connect(["a"])
        assert [connection.family for connection in taken] == [socket.AF_INET]
        channel.close()


def test_what_came_before_the_end_of_a_connection_is_good_and_then_it_is_lost():
    with listening() as server, answering(server) as taken:
        channel = Channel(f"redis://127.0.0.1:{port_of(server)}")
        channel.connect(["a"])
        taken[0].sendall(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nheard\r\n")
        taken[0].shutdown(socket.SHUT_WR)
        assert [message.data for message in channel.receive().messages] == [b"heard"]
        with pytest.raises(ChannelError, match="closed by Redis"):
            channel.receive()
        assert not channel.connected


@pytest.mark.parametrize(
    "says",
    [
        b">0\r\n",
        b">1\r\n$7\r\nmessage\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n",
        b">3\r\n$7\r\nmessage\r\n*0\r\n$1\r\nb\r\n",
        b"%1\r\n*0\r\n:1\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
    ids=["of nothing", "without data", "a number", "on no channel", "a list as a key", "another protocol"],
)
def test_what_no_redis_says_is_the_end_of_the_connection_and_no_defect(says):
    with listening() as server, answering(server) as taken:
        channel = Channel(f"redis://127.0.0.1:{port_of(server)}")
        channel.connect(["a"])
        taken[0].sendall(says)
        with pytest.raises(ChannelError):
            channel.receive()
        assert not channel.connected


@pytest.mark.parametrize("says", [b">0\r\n", b"%1\r\n*0\r\n:1\r\n"], ids=["of nothing", "a list as a key"])
def test_what_no_redis_says_while_it_connects_is_a_connection_that_can_not_be_made(says):
    with listening() as server, answering(server, says), pytest.raises(ChannelError):
        Channel(f"redis://127.0.0.1:{port_of(server)}").connect(["a"])


def test_where_neither_answers_the_port_says_why(tmp_path):
    with listening() as server:
        port = port_of(server)
    with pytest.raises(ChannelError, match=rf"Redis at 127\.0\.0\.1:{port}: .*refused"):
        Channel(f"redis://127.0.0.1:{port}#{tmp_path}/redis.sock").connect([])


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("redis://h", ""),
        ("redis://h/0#/run/redis.sock", "/run/redis.sock"),
        ("redis://h#/a%23b%20c", "/a#b c"),
        ("redis://h#redis.sock", ""),
        ("redis://h#%00/x", ""),
        ("rediss://h#/run/redis.sock", ""),
    ],
)
def test_a_socket_is_the_absolute_path_behind_the_hash_and_carries_no_tls(url, path):
    assert Endpoint.parse(url).socket == path
    with pytest.raises(ChannelError):
        Channel("redis://127.0.0.1:1#/nul%00byte").connect([])


# --- TLS ------------------------------------------------------------------------------------------

SELF_SIGNED = Path(__file__).with_name("self_signed.pem")
"""A certificate that vouches for itself, and its key."""


@contextlib.contextmanager
def answering_over_tls() -> Iterator[int]:
    """The port of a server that shows that certificate, and wants to be shown it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=SELF_SIGNED)
    context.load_cert_chain(SELF_SIGNED)
    context.verify_mode = ssl.CERT_REQUIRED
    with listening() as server, context.wrap_socket(server, server_side=True) as over_tls, answering(over_tls):
        yield port_of(over_tls)


def test_the_files_of_a_url_say_who_is_believed_and_who_we_are():
    with answering_over_tls() as port:
        files = f"ssl_ca_certs={SELF_SIGNED}&ssl_certfile={SELF_SIGNED}&ssl_keyfile={SELF_SIGNED}"
        channel = Channel(f"rediss://127.0.0.1:{port}/0?{files}")
        channel.connect(["a"])
        channel.close()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "CERTIFICATE_VERIFY_FAILED"),
        (f"ssl_ca_certs={SELF_SIGNED}", "(?i)certificate.required|closed|reset|EOF"),
        ("ssl_ca_certs=/no/ca.pem", "of the files /no/ca.pem one can not be used: No such file or directory"),
        (f"ssl_ca_certs={SELF_SIGNED}&ssl_certfile={__file__}", "test_channel.py one can not be used: .*PEM"),
    ],
)
def test_without_the_files_that_it_takes_a_redis_is_not_connected_to(query, why):
    with answering_over_tls() as port, pytest.raises(ChannelError, match=why):
        Channel(f"rediss://127.0.0.1:{port}?{query}").connect(["a"])
