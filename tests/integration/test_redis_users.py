"""What the two users of the embedded Redis may and may not do, asked of a real server."""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.connection import Connection

from coordinator import clients_user
from coordinator.channel import Channel
from coordinator.clients_user import ClientsUser
from coordinator.embedded_redis import SELECTORS_SINCE, client_user_problem, ensure_client_user
from coordinator.wire import Channels
from tests.integration.private_redis import PrivateRedis
from tests.integration.waiting import eventually

ANSWER_S_MAX = 5


def _connect(url: str) -> Connection:
    connection = redis.ConnectionPool.from_url(url, socket_timeout=ANSWER_S_MAX, protocol=2).get_connection()
    assert isinstance(connection, Connection)
    return connection


@pytest.fixture
def client(redis_server: PrivateRedis) -> Iterator[Connection]:
    connection = _connect(redis_server.client_url)
    yield connection
    connection.disconnect()


@pytest.fixture
def administrator(redis_server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as connection:
        yield connection


def _ask(connection: Connection, *command: object) -> object:
    connection.send_command(*command)
    return connection.read_response()


def _may(connection: Connection, *command: object) -> bool:
    try:
        _ask(connection, *command)
    except redis.exceptions.NoPermissionError:
        return False
    return True


def _users(administrator: redis.Redis) -> list[str]:
    names = administrator.acl_users()
    assert isinstance(names, list)
    return [str(name) for name in names]


def test_nobody_gets_in_without_a_password(redis_server: PrivateRedis) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        _ask(_connect(f"redis://127.0.0.1:{redis_server.port}"), "PUBLISH", "anything", "x")


def test_a_node_may_do_everything(administrator: redis.Redis) -> None:
    assert administrator.execute_command("ACL", "WHOAMI") == "conclave-node"
    assert administrator.publish("anything", "x") == 0
    assert administrator.set("key", "value")
    assert administrator.delete("key") == 1


def test_a_client_sends_requests_and_hears_its_answers(redis_server: PrivateRedis, client: Connection) -> None:
    assert _ask(client, "PING") == b"PONG"
    assert _ask(client, "PUBLISH", f"conclave:{redis_server.realm}:c:node1", "a request") == 0
    assert _may(client, "SUBSCRIBE", f"conclave:{redis_server.realm}:r:0123")


@pytest.mark.parametrize(
    "command",
    [
        ("PUBLISH", "conclave:{realm}:p:node1", "x"),
        ("PUBLISH", "conclave:{realm}:f:node1", "x"),
        ("PUBLISH", "conclave:00000000:c:node1", "x"),
        ("SUBSCRIBE", "conclave:{realm}:p:node1"),
        ("SUBSCRIBE", "conclave:{realm}:f:node1"),
        ("PSUBSCRIBE", "conclave:{realm}:r:*"),
        ("PSUBSCRIBE", "*"),
        ("PUBSUB", "CHANNELS"),
        ("PUBSUB", "NUMSUB", "conclave:{realm}:c:node1"),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "pubsub"),
        ("GET", "key"),
        ("SET", "key", "value"),
        ("KEYS", "*"),
        ("EVAL", "return 1", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("INFO",),
        ("MONITOR",),
        ("SHUTDOWN", "NOSAVE"),
        ("FLUSHALL",),
    ],
)
def test_a_client_may_do_nothing_else(redis_server: PrivateRedis, client: Connection, command: tuple[str, ...]) -> None:
    assert not _may(client, *(word.format(realm=redis_server.realm) for word in command))


def test_a_client_overhears_others_only_where_the_server_cannot_prevent_it(
    redis_server: PrivateRedis, client: Connection
) -> None:
    """6.2 has one list of channels for publishing and subscribing; SECURITY.md says so."""
    can_tell = redis_server.server.version >= SELECTORS_SINCE
    assert _may(client, "PUBLISH", f"conclave:{redis_server.realm}:r:0123", "x") is not can_tell
    assert _may(client, "SUBSCRIBE", f"conclave:{redis_server.realm}:c:node1") is not can_tell


def test_on_the_operators_redis_a_node_makes_the_clients_user(
    redis_server: PrivateRedis, administrator: redis.Redis
) -> None:
    administrator.acl_setuser(
        "operator", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["*"], channels=["*"]
    )
    url = f"redis://operator:pw@127.0.0.1:{redis_server.port}/0"
    assert ensure_client_user(url, redis_server.realm, "a password") == "set"
    client = _connect(f"redis://conclave-client-{redis_server.realm}:a password@127.0.0.1:{redis_server.port}/0")
    answers = f"conclave:{redis_server.realm}:r:0123"
    assert _ask(client, "SUBSCRIBE", answers) == [b"subscribe", answers.encode(), 1]

    # A node does so at each of its connections: those who listen are not cut off by it.
    assert ensure_client_user(url, redis_server.realm, "a password") == "set"
    administrator.publish(answers, "an answer")
    assert client.read_response() == [b"message", answers.encode(), b"an answer"]
    client.disconnect()


def test_a_clients_user_that_is_gone_while_a_node_listens_is_made_again(
    redis_server: PrivateRedis, administrator: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr(clients_user, "LOOK_S", 0.05)
    administrator.acl_setuser("owner", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["*"], channels=["*"])
    url, name = f"redis://owner:pw@127.0.0.1:{redis_server.port}/0", f"conclave-client-{redis_server.realm}"
    ClientsUser(url, redis_server.realm, "a password").greet()
    client = _connect(f"redis://{name}:a password@127.0.0.1:{redis_server.port}/0")
    administrator.acl_deluser(name)
    with pytest.raises(redis.exceptions.ConnectionError):
        _ask(client, "PING")
    eventually(lambda: name in _users(administrator), timeout_s=ANSWER_S_MAX, what="the user is there again")
    client = _connect(f"redis://{name}:a password@127.0.0.1:{redis_server.port}/0")
    assert _ask(client, "PING") == b"PONG"
    client.disconnect()
    assert [record.getMessage() for record in caplog.records] == [
        "the clients' user was gone from Redis, and is made again"
    ]
    administrator.execute_command("ACL", "SETUSER", "owner", "-acl")
    eventually(
        lambda: "conclave-clients-user" not in {thread.name for thread in threading.enumerate()},
        timeout_s=ANSWER_S_MAX,
        what="who may not look any more does not",
    )


def test_a_clients_user_that_is_there_is_left_as_it_is_and_where_nobody_may_look_nobody_does(
    redis_server: PrivateRedis, administrator: redis.Redis
) -> None:
    administrator.acl_setuser("owner", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["*"], channels=["*"])
    administrator.acl_setuser("tenant", enabled=True, passwords=["+pw"], commands=["+info", "+publish"])
    owned, rented = (f"redis://{user}:pw@127.0.0.1:{redis_server.port}/0" for user in ("owner", "tenant"))
    assert ensure_client_user(owned, redis_server.realm, "a password") == "set"
    administrator.acl_setuser(f"conclave-client-{redis_server.realm}", enabled=False)
    assert ClientsUser(owned, redis_server.realm, "a password").look()
    assert any(f" conclave-client-{redis_server.realm} off " in line for line in administrator.acl_list())
    assert not ClientsUser(rented, redis_server.realm, "a password").look()


def test_where_it_may_not_it_says_so(redis_server: PrivateRedis, administrator: redis.Redis) -> None:
    administrator.acl_setuser("tenant", enabled=True, passwords=["+pw"], commands=["+info", "+publish"])
    url = f"redis://tenant:pw@127.0.0.1:{redis_server.port}/0"
    assert ensure_client_user(url, redis_server.realm, "a password") == "denied"


def test_where_somebody_else_has_to_make_the_clients_user_the_operator_is_told_how(
    redis_server: PrivateRedis, administrator: redis.Redis
) -> None:
    administrator.acl_setuser("tenant", enabled=True, passwords=["+pw"], commands=["+info", "+publish"])
    url = f"redis://tenant:pw@127.0.0.1:{redis_server.port}/0"
    problem = client_user_problem(url, redis_server.realm, "0a1b")
    assert "the user of its URL may not administer users" in problem
    assert f"no client can connect to Redis at 127.0.0.1:{redis_server.port}" in problem
    newer, older = re.findall(r"redis-cli (ACL SETUSER .*?)(?: \(before Redis 7|\)$)", problem)
    command = newer if redis_server.server.version >= SELECTORS_SINCE else older
    assert administrator.execute_command(*shlex.split(command)) in {"OK", True}
    assert client_user_problem(url, redis_server.realm, "0a1b") == ""
    client = _connect(f"redis://conclave-client-{redis_server.realm}:0a1b@127.0.0.1:{redis_server.port}/0")
    assert _ask(client, "PING") == b"PONG"
    client.disconnect()


def test_a_wrong_password_is_no_crash(redis_server: PrivateRedis) -> None:
    url = f"redis://operator:wrong@127.0.0.1:{redis_server.port}/0"
    assert ensure_client_user(url, redis_server.realm, "a password") in {"unreachable", "denied"}


def test_processes_of_the_same_user_meet_on_the_socket_and_others_at_the_port(redis_server: PrivateRedis) -> None:
    socket_of_it = redis_server.data.redis_socket()
    assert socket_of_it is not None
    assert stat.S_IMODE(socket_of_it.stat().st_mode) == 0o700
    answers = Channels(redis_server.realm).reply()
    client, node = Channel(redis_server.client_url), Channel(redis_server.url)
    far = Channel(redis_server.client_url.partition("#")[0])
    client.connect([answers])
    node.connect([])
    assert family_of(client) == family_of(node) == socket.AF_UNIX
    node.publish([(answers, b"said")])
    heard = eventually(lambda: client.receive().messages, timeout_s=ANSWER_S_MAX, what="it is heard")
    assert [message.data for message in heard] == [b"said"]
    far.connect([Channels(redis_server.realm).reply()])
    assert family_of(far) == socket.AF_INET
    for channel in (client, node, far):
        channel.close()


def family_of(channel: Channel) -> socket.AddressFamily:
    with socket.socket(fileno=os.dup(channel.fileno())) as copy:
        return copy.family
