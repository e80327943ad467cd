"""One connection to a Redis, for publishing and listening at once (RESP3), without blocking.

Nodes and clients share it: each message costs about what hiredis takes to parse it. It knows Redis and nothing of
Conclave. It never reconnects by itself: a lost connection is news to its owner, because messages may be lost with it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from random import Random
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import hiredis
from mypy_extensions import mypyc_attr

CONNECT_TIMEOUT_S: Final = 1.0
"""For one try to connect, from the moment at which the resolver has named the host's addresses."""
SOCKET_TIMEOUT_S: Final = 0.25
"""For one try on a Unix socket, before the host is tried."""
BACK_OFF_US_MIN: Final = 20_000
BACK_OFF_US_MAX: Final = 500_000
"""Between two tries to connect, doubled each time and jittered."""
UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""A Redis that stops reading is given up above this; nothing is queued without bound."""
ADDRESSES_MAX: Final = 1_024
"""Taken apart once, and remembered without their credentials: each answer of who is there names all members."""
TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""What a URL of `rediss://` says by these names are files of the machine on which it is used."""
_READ_BYTES: Final = 1 << 18
_SKIP: Final = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n"
"""Redis says nothing to the command that follows: a reply costs it a write, and wakes its reader for nothing."""
NO_REDIS: Final = (hiredis.HiredisError, TypeError)
"""What hiredis raises of what no Redis says; TypeError: a map whose key is a list."""
_READS_MAX: Final = 64
"""Reads of one `receive`, so that a flood can not hold the loop: 16 MiB."""


class ChannelError(Exception):
    """The connection could not be made or is lost."""


class BackOff:
    """When the owner of a connection may try again to make it."""

    def __init__(self, random: Random) -> None:
        self.retry_us = 0
        self._pause_us = BACK_OFF_US_MIN
        self._random = random

    def failed(self, now_us: int) -> None:
        self.retry_us = now_us + self._pause_us // 2 + self._random.randrange(self._pause_us)
        self._pause_us = min(2 * self._pause_us, BACK_OFF_US_MAX)

    def succeeded(self) -> None:
        self._pause_us = BACK_OFF_US_MIN


@mypyc_attr(native_class=False)
class _Refused(OSError):
    """Redis answered a command of the handshake with an error."""


class Endpoint(NamedTuple):
    """Where a Redis is and who we are there, as its URL says."""

    host: str
    port: int
    username: str
    password: str
    tls: bool
    verify: bool
    socket: str = ""
    """Path of a Unix socket on which the same Redis listens; "" where none is known."""
    ca_certs: str = ""
    """Path of a file with the authorities that may vouch for this Redis; "": those that the system trusts."""
    certificate: str = ""
    """Path of the certificate by which this Redis knows us, and of its key; "" where it wants none."""
    key: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.host!r}, {self.port}, {self.username!r})"

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Parse `redis://` or `rediss://`. Raises ValueError; the message never repeats a password.

        Publish and subscribe know no database numbers, so that a path is accepted and means nothing. A fragment is the
        path of a Unix socket of the same Redis: a message costs half as much there, and whoever can not reach it
        (another machine, another user, a library that knows nothing of it) uses host and port.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError:
            raise ValueError("expected redis://[user:password@]host[:port], got a URL that can not be parsed") from None
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError(f"expected redis:// or rediss:// and a host, got scheme {parts.scheme!r}")
        try:
            parts.hostname.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"expected the name or the address of a host, got {parts.hostname!r}: {error}") from None
        parameters = parse_qs(parts.query)
        return cls(
            parts.hostname,
            port,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            parts.scheme == "rediss",
            parameters.get("ssl_cert_reqs", ["required"])[-1] != "none",
            unquote(parts.fragment) if parts.scheme == "redis" and parts.fragment.startswith("/") else "",
            *(parameters.get(name, [""])[-1] for name in TLS_FILES),
        )


def with_credentials(address: str, own_url: str) -> str:
    """The URL of another Redis. An address need not say who we are there: then we are who we are at our own, and over
    TLS go by the same files of this machine."""
    theirs, own = urlsplit(address), urlsplit(own_url)
    if "@" in theirs.netloc:
        return address
    credentials, at, _ = own.netloc.rpartition("@")
    query = theirs.query
    if theirs.scheme == "rediss":
        files = [part for part in own.query.split("&") if part.partition("=")[0] in TLS_FILES]
        query = "&".join([*filter(None, [without_files(theirs.query)]), *files])
    return urlunsplit(theirs._replace(netloc=f"{credentials}{at}{theirs.netloc}", query=query))


def without_files(query: str) -> str:
    """What the query of a URL says that holds on any machine."""
    return "&".join(part for part in query.split("&") if part.partition("=")[0] not in TLS_FILES)


@lru_cache(ADDRESSES_MAX)
def without_credentials(address: str) -> str:
    """An address for people, and for those who are somebody else there."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Message(NamedTuple):
    channel: bytes
    data: bytes


class Received(NamedTuple):
    """`replies`: the tag that a command was sent with, and what Redis answered."""

    messages: list[Message]
    replies: list[tuple[Any, Any]]


class Channel:
    """`connect` blocks: for SOCKET_TIMEOUT_S at the most where there is a socket, for as long as the resolver takes to
    name the host's addresses, and then for CONNECT_TIMEOUT_S at the most; nothing else blocks."""

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint.parse(url)
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()
        self._buffer = bytearray(_READ_BYTES)
        self.received_bytes = 0
        """In all, whether or not they are a whole message by now."""
        self._unsent = bytearray()
        self._tags: deque[Any] = deque()
        self._may_skip = False
        """Does this Redis let us have no reply to a command?"""
        self.is_local = False
        """Is the connection one through a Unix socket, and so the Redis on this machine?"""

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent)

    @property
    def is_amid_a_message(self) -> bool:
        """Has a part of one come, so that the rest is on its way?"""
        amid: bool = self._reader.has_data()
        return amid

    def fileno(self) -> int:
        if self._socket is None:
            raise ChannelError("not connected")
        return self._socket.fileno()

    def connect(self, channels: Iterable[str]) -> None:
        """Connect, say who we are, and listen to `channels`; they are heard when this returns.

        Raises ChannelError with what went wrong.
        """
        self.close()
        if not (self._endpoint.socket and self._is_on_socket([*channels])):
            self._connect_to_host([*channels])

    def _is_on_socket(self, channels: list[str]) -> bool:
        """Connect there; False where that did not work: why is nobody's concern, for the host is tried next."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            until_s = _now_s() + SOCKET_TIMEOUT_S
            connection.settimeout(SOCKET_TIMEOUT_S)
            connection.connect(self._endpoint.socket)
            self._handshake(connection, channels, until_s)
        except (OSError, ValueError, *NO_REDIS):  # ValueError: no path is called so.
            connection.close()
            return False
        self._adopt(connection)
        return True

    def _connect_to_host(self, channels: list[str]) -> None:
        endpoint = self._endpoint
        connection: socket.socket | None = None
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
            until_s = _now_s() + CONNECT_TIMEOUT_S
            connection = _dial(found, until_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls:
                connection.settimeout(_left_s(until_s))
                connection = self._wrap_tls(connection)
            self._handshake(connection, channels, until_s)
        except (OSError, ValueError, *NO_REDIS) as error:  # ValueError: no host is called so.
            if connection is not None:
                connection.close()
            raise ChannelError(f"Redis at {endpoint.host}:{endpoint.port}: {error}") from error
        self._adopt(connection)

    def _adopt(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's own name for it
        self.is_local = connection.family == socket.AF_UNIX
        self._socket = connection

    def _wrap_tls(self, plain: socket.socket) -> socket.socket:
        endpoint = self._endpoint
        try:
            context = ssl.create_default_context(cafile=endpoint.ca_certs or None)
            if endpoint.certificate:
                # Without a password, one whose key has a passphrase would have the terminal asked for it.
                context.load_cert_chain(endpoint.certificate, endpoint.key or None, password="-")  # noqa: S106
        except OSError as error:
            named = ", ".join(filter(None, (endpoint.ca_certs, endpoint.certificate, endpoint.key)))
            raise OSError(f"of the files {named} one can not be used: {error.strerror or error}") from error
        if not endpoint.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=endpoint.host)

    def _handshake(self, connection: socket.socket, channels: list[str], until_s: float) -> None:
        self._reader = hiredis.Reader()
        self._unsent.clear()
        self._tags.clear()
        hello: list[str] = ["HELLO", "3"]
        if self._endpoint.password:
            hello += ["AUTH", self._endpoint.username or "default", self._endpoint.password]
        self._say(connection, until_s, *hello)
        self._expect(connection, 1, until_s)
        self._say(connection, until_s, "CLIENT", "REPLY", "ON")
        self._may_skip = self._is_permitted(connection, until_s)
        if channels:
            self._say(connection, until_s, "SUBSCRIBE", *channels)
            self._expect(connection, len(channels), until_s)

    @staticmethod
    def _say(connection: socket.socket, until_s: float, *words: str) -> None:
        connection.settimeout(_left_s(until_s))
        connection.sendall(_pack(*words))

    def _expect(self, connection: socket.socket, count: int, until_s: float) -> None:
        """Read `count` replies of the handshake; messages that come between them are lost, as they were before it."""
        while count:
            reply = self._reader.gets()
            if reply is False:
                connection.settimeout(_left_s(until_s))
                data = connection.recv(_READ_BYTES)
                if not data:
                    raise OSError("closed while connecting")
                self._reader.feed(data)
            elif isinstance(reply, hiredis.ReplyError):
                raise _Refused(str(reply))
            elif not isinstance(reply, hiredis.PushNotification) or _kind_of(reply) == b"subscribe":
                count -= 1

    def _is_permitted(self, connection: socket.socket, until_s: float) -> bool:
        try:
            self._expect(connection, 1, until_s)
        except _Refused:
            return False
        return True

    def send(self, commands: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
        """Send (tag, command) pairs in one write. What the socket does not take now goes with `flush`.

        Raises ChannelError where the connection is lost, or takes nothing any more.
        """
        if self._socket is None:
            raise ChannelError("not connected")
        pack = hiredis.pack_command
        for tag, command in commands:
            self._tags.append(tag)
            self._unsent += pack(command)
        self._flush_bounded()

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish (channel, data) pairs in one write; what becomes of them is not told. Raises as `send` does."""
        if self._socket is None:
            raise ChannelError("not connected")
        pack: Any = hiredis.pack_command
        for channel, data in messages:
            if self._may_skip:
                self._unsent += _SKIP
            else:
                self._tags.append(None)
            self._unsent += pack(("PUBLISH", channel, data))
        self._flush_bounded()

    def _flush_bounded(self) -> None:
        self.flush()
        if len(self._unsent) > UNSENT_BYTES_MAX:
            self.close()
            raise ChannelError(f"Redis took nothing while {UNSENT_BYTES_MAX} bytes waited")

    def flush(self) -> None:
        if self._socket is None:
            raise ChannelError("not connected")
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self.close()
            raise ChannelError(str(error)) from error

    def receive(self) -> Received:
        """Everything that has come, without waiting. Raises ChannelError where the connection is lost."""
        if self._socket is None:
            raise ChannelError("not connected")
        messages: list[Message] = []
        replies: list[tuple[Any, Any]] = []
        buffer: Any = self._buffer  # The stub of `feed` knows no bytearray.
        try:
            for _ in range(_READS_MAX):
                size = self._socket.recv_into(buffer)
                if not size:
                    raise OSError("closed by Redis")
                self.received_bytes += size
                self._reader.feed(buffer, 0, size)
                self._parse(messages, replies)
                if size < _READ_BYTES and not self._endpoint.tls:
                    break  # That was all. (TLS gives no more than a record at a time.)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, *NO_REDIS) as error:
            self.close()
            if messages or replies:
                return Received(messages, replies)  # What came before the end is good; the loss shows next time.
            raise ChannelError(str(error)) from error
        return Received(messages, replies)

    def _parse(self, messages: list[Message], replies: list[tuple[Any, Any]]) -> None:
        gets = self._reader.gets
        push = hiredis.PushNotification
        while (reply := gets()) is not False:
            if type(reply) is push:
                if _kind_of(reply) == b"message":
                    messages.append(_message_of(reply))
            elif self._tags:
                replies.append((self._tags.popleft(), reply))

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


def _kind_of(push: Any) -> Any:
    """Raises ProtocolError where it is none: whoever says so is no Redis, and the connection is lost."""
    if not push:
        raise hiredis.ProtocolError("expected a push of a kind, got an empty one: no Redis says so")
    return push[0]


def _message_of(push: Any) -> Message:
    if len(push) != 3 or type(push[1]) is not bytes or type(push[2]) is not bytes:
        raise hiredis.ProtocolError("expected a channel and data of a message, got something else: no Redis says so")
    return Message(push[1], push[2])


def _dial(found: list[Any], until_s: float) -> socket.socket:
    """A connection to the first of these addresses that answers. Each has its share of the time: one that swallows
    what it is sent leaves some for the others."""
    trouble: OSError = OSError("it has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        share_s = _left_s(until_s) / (len(found) - tried)
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:  # This machine speaks none of this family.
            trouble = error
            continue
        try:
            connection.settimeout(share_s)
            connection.connect(address)
        except OSError as error:
            connection.close()
            trouble = error
        else:
            return connection
    raise trouble


def _now_s() -> float:
    """By the system's own clock. Tests of a program that uses a client may put another in the place of
    `time.monotonic`, one that is frozen, and has another time on some threads."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _left_s(until_s: float) -> float:
    left_s = until_s - _now_s()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _pack(*words: str) -> bytes:
    command: Any = words  # The stub of `pack_command` knows commands of one word only.
    packed: bytes = hiredis.pack_command(command)
    return packed
