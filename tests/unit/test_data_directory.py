"""Secrets, passwords and ports come into being once, and what is damaged is refused by name."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import stat
from pathlib import Path

import pytest

from coordinator import wire
from coordinator.channel import Endpoint
from coordinator.config import ConfigError, load_config
from coordinator.data_directory import DataDirectory
from coordinator.ports import free_port
from tests.unit.loss_of_power import Disk

pytestmark = pytest.mark.usefixtures("no_settings")


def test_secrets_are_kept_over_restarts_and_nobody_else_reads_them(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "new" / "data"), DataDirectory(tmp_path / "new" / "data")
    assert first.secret_key() == second.secret_key()
    assert first.peer_key() == second.peer_key()
    assert len(first.peer_key()) == 32
    assert first.realm() == second.realm()
    assert wire.REALM.fullmatch(first.realm())
    assert first.web_token() == second.web_token()
    assert first.web_token().realm == first.realm()
    assert first.redis_state() == second.redis_state()
    for path in first.path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    assert not list(first.keys.glob(".*")), "nothing is left aside"


def test_no_loss_of_power_takes_a_secret_that_somebody_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes are born with them, and what is made anew they would not know."""
    disk = Disk(monkeypatch)
    DataDirectory(tmp_path / "data").make_secrets()
    assert disk.could_lose() == []


def _read_all(path: str) -> tuple[object, ...]:
    data = DataDirectory(Path(path))
    return data.secret_key(), data.peer_key(), data.realm(), str(data.web_token()), data.redis_state()


@pytest.mark.long
def test_processes_that_race_for_secrets_get_the_same_ones(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for round_number in range(5):
            answers = pool.map(_read_all, [str(tmp_path / str(round_number))] * 8, chunksize=1)
            assert len(set(answers)) == 1


@pytest.mark.parametrize("name", ["secret_key", "peer_key", "realm", "web_token"])
@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"conclave_1_2_3\n"])
def test_a_damaged_secret_is_refused_and_never_made_anew(tmp_path: Path, name: str, content: bytes) -> None:
    data = DataDirectory(tmp_path)
    getattr(data, name)()
    (data.keys / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(data.keys / name))):
        getattr(data, name)()
    assert (data.keys / name).read_bytes() == content


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"port": "x", "node_password": "", "client_password": ""}', "null"]
)
def test_a_damaged_state_of_redis_is_refused(tmp_path: Path, content: str) -> None:
    data = DataDirectory(tmp_path)
    (data.redis / "state.json").write_text(content)
    with pytest.raises(ConfigError, match=r"state\.json: expected an object with port"):
        data.redis_state()


def test_the_port_of_redis_is_one_that_there_is(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    for port in (1, 65_535, 0, 65_536, -1):
        state = {"port": port, "node_password": "n", "client_password": "c"}
        (data.redis / "state.json").write_text(json.dumps(state))
        if 1 <= port <= 65_535:
            assert data.redis_state().port == port
            continue
        with pytest.raises(ConfigError, match=f"expected a port number from 1 to 65535; came {port}"):
            data.redis_state()


def test_a_place_where_no_directory_can_be_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="CONCLAVE_DATA: expected a directory that this user can write"):
        DataDirectory(tmp_path / "file" / "data").secret_key()


def test_nodes_and_clients_are_different_users_of_the_embedded_redis(tmp_path: Path) -> None:
    data, config = DataDirectory(tmp_path), load_config()
    state = json.loads((data.redis / "state.json").read_text()) if (data.redis / "state.json").exists() else None
    assert state is None, "made on first use"
    node, client = data.node_redis_url(config), data.client_redis_url(config)
    state = json.loads((data.redis / "state.json").read_text())
    socket_of_it = f"#{data.redis / 'redis.sock'}"
    assert node == f"redis://conclave-node:{state['node_password']}@127.0.0.1:{state['port']}/0{socket_of_it}"
    assert client == f"redis://conclave-client:{state['client_password']}@127.0.0.1:{state['port']}/0{socket_of_it}"
    assert data.client_password() == state["client_password"] != state["node_password"]


@pytest.mark.parametrize("name", ["d" * 120, "ü" * 60])
def test_where_no_socket_can_have_that_path_the_port_must_do(tmp_path: Path, name: str) -> None:
    data = DataDirectory(tmp_path / name)
    assert data.redis_socket() is None
    assert "#" not in data.node_redis_url(load_config()) + data.client_redis_url(load_config())


def test_a_socket_whose_path_hangs_on_the_working_directory_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataDirectory(Path("data")).redis_socket() is None


def test_a_path_with_any_letters_is_found_again(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "a #b%20c ?ü")
    assert Endpoint.parse(data.client_redis_url(load_config())).socket == str(data.redis_socket())


@pytest.mark.parametrize(
    ("url", "rest"),
    [
        ("redis://host:6380/2", "@host:6380/2"),
        ("redis://localhost/0#/run/redis/redis.sock", "@localhost/0#/run/redis/redis.sock"),
        ("rediss://root:pw%40x@host/0?ssl_cert_reqs=none", "@host/0?ssl_cert_reqs=none"),
        ("redis://:pw@[::1]:6379", "@[::1]:6379"),
    ],
)
def test_on_the_operators_redis_clients_have_a_user_of_this_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, rest: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    data, config = DataDirectory(tmp_path), load_config()
    assert data.node_redis_url(config) == url
    scheme = url.partition("://")[0]
    expected = f"{scheme}://conclave-client-{data.realm()}:{data.client_password()}{rest}"
    assert data.client_redis_url(config) == expected


def test_where_the_node_has_a_redis_of_its_own_the_web_tier_and_clients_look_for_it_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody listens on the web tier's, which is left to Celery and to the live pages."""
    monkeypatch.setenv("REDIS_URL", "redis://:pw@web/0")
    monkeypatch.setenv("CONCLAVE_NODE_REDIS", "redis://:pw@10.0.0.1/0")
    data, config = DataDirectory(tmp_path), load_config()
    assert data.mailbox_redis_url(config) == "redis://:pw@10.0.0.1/0"
    assert data.node_redis_url(config) == "redis://:pw@web/0"
    user = f"conclave-client-{data.realm()}:{data.client_password()}"
    assert data.client_redis_url(config) == f"redis://{user}@10.0.0.1/0"


def test_machines_that_share_the_keys_let_clients_in_by_the_same_password(tmp_path: Path) -> None:
    """Each node makes the clients' user on its own Redis, and a client goes to whichever node leads."""
    one, other = DataDirectory(tmp_path / "one"), DataDirectory(tmp_path / "other")
    one.make_secrets()
    shutil.copytree(one.keys, other.path / "keys")
    assert other.client_password() == one.client_password()
    assert one.client_password() != DataDirectory(tmp_path / "a stranger").client_password()


# --- ports ----------------------------------------------------------------------------------------


def test_each_node_keeps_a_metrics_port_of_its_own(tmp_path: Path) -> None:
    config = load_config()
    data = DataDirectory(tmp_path)
    ports = [data.metrics_port(f"node{number}", config) for number in range(1, 10)]
    assert len({*ports, data.redis_state().port, config.port}) == 11
    assert [DataDirectory(tmp_path).metrics_port(f"node{number}", config) for number in range(1, 10)] == ports
    (tmp_path / "metrics" / "node1").write_text("http")
    with pytest.raises(ConfigError, match="expected a port number from 1 to 65535"):
        data.metrics_port("node1", config)


def test_no_port_is_kept_twice_though_nobody_listens_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config()
    monkeypatch.setattr("coordinator.ports.OF_OUR_OWN", [config.port, *range(20_000, 20_004)])
    monkeypatch.setattr("coordinator.ports.port_is_free", lambda address, number: True)
    data = DataDirectory(tmp_path)
    kept = [data.redis_state({config.port}).port, *(data.metrics_port(node, config) for node in config.node_names)]
    assert sorted(kept) == [20_000, 20_001, 20_002, 20_003]


def test_kept_ports_are_among_those_that_the_operator_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONCLAVE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_PORTS", "31000-31199")
    config = load_config()
    data = DataDirectory.of(config)
    ports = {data.redis_state().port, *(data.metrics_port(node, config) for node in config.node_names)}
    assert len(ports) == 4
    assert all(31_000 <= port <= 31_199 for port in ports)


def test_the_embedded_redis_never_takes_the_pages_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is picked before the page is served, and kept: then no `up` on that directory would ever serve it."""
    port = free_port()
    monkeypatch.setattr("coordinator.ports.OF_OUR_OWN", [port, port + 1])
    monkeypatch.setattr("coordinator.ports.port_is_free", lambda address, number: True)
    monkeypatch.setenv("CONCLAVE_PORT", str(port))
    config = load_config()
    for number in range(20):
        data = DataDirectory(tmp_path / str(number))
        assert f"127.0.0.1:{port + 1}/" in data.node_redis_url(config)
        assert data.redis_state().port == port + 1
