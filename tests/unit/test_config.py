"""Settings are refused by name, with what was expected and what came."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from coordinator import config
from coordinator.config import PROJECT, Config, ConfigError, address_for_others, load_config, url_for_celery
from tests.conftest import SETTINGS

pytestmark = pytest.mark.usefixtures("no_settings")


def _load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Config:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_config()


def _refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(monkeypatch, **variables)
    return str(caught.value)


def test_without_settings_it_is_three_nodes_on_loopback() -> None:
    config = load_config()
    assert config.data == PROJECT / "var"
    assert (config.port, config.bind, config.hosts) == (8000, "127.0.0.1", [])
    assert config.node_names == ["node1", "node2", "node3"]
    assert config.is_loopback
    assert config.faults
    assert not config.proxy_headers
    assert config.redis_url is config.database_url is config.admin_password is config.node is None


def test_a_clone_in_a_directory_whose_name_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "resolve", lambda _: tmp_path / "n\udce4me" / "coordinator" / "config.py")
    there = runpy.run_path(config.__file__)
    with pytest.raises(there["ConfigError"], match=r"^CONCLAVE_DATA: expected a path that is text in UTF-8"):
        there["load_config"]()


def test_a_directory_is_taken_whatever_its_name_looks_like(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = tmp_path / "a\N{NO-BREAK SPACE}b \N{RIGHT-TO-LEFT OVERRIDE}c \N{GRINNING FACE}"
    assert _load(monkeypatch, CONCLAVE_DATA=str(odd)).data == odd


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(monkeypatch, CONCLAVE_PORT="", REDIS_URL="", CONCLAVE_FAULTS="").port == 8000


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONCLAVE_PORT", "eighty", "a port number from 1 to 65535"),
        ("CONCLAVE_PORT", "0", "a port number from 1 to 65535"),
        ("CONCLAVE_PORT", "65536", "a port number from 1 to 65535"),
        ("CONCLAVE_PORT", "80.0", "a port number from 1 to 65535"),
        ("CONCLAVE_PORT", "-1", "a port number from 1 to 65535"),
        ("CONCLAVE_PORT", "٨٠", "a port number from 1 to 65535"),
        ("CONCLAVE_BIND", "example.org", "an IP address to listen on"),
        ("CONCLAVE_BIND", "127.0.0.1:80", "an IP address to listen on"),
        ("CONCLAVE_NODES", "0", "a whole number from 1 to 9"),
        ("CONCLAVE_NODES", "10", "a whole number from 1 to 9"),
        ("CONCLAVE_HOSTS", "https://example.org", "host names separated by commas"),
        ("CONCLAVE_PORTS", "20000", "20 or more ports"),
        ("CONCLAVE_PORTS", "20000-20018", "20 or more ports"),
        ("CONCLAVE_PORTS", "29999-20000", "20 or more ports"),
        ("CONCLAVE_PORTS", "80-20000", "20 or more ports"),
        ("CONCLAVE_PORTS", "65000-65536", "20 or more ports"),
        ("CONCLAVE_HOSTS", "a.org,*", "host names separated by commas"),
        ("CONCLAVE_HOSTS", "a.org/path", "host names separated by commas"),
        ("CONCLAVE_PROXIES", "proxy.example.org", "addresses or networks"),
        ("CONCLAVE_FAULTS", "perhaps", "1 or 0"),
        ("CONCLAVE_NODE", "Node 1", "a node's name"),
        ("CONCLAVE_NODE", "../node1", "a node's name"),
        ("REDIS_URL", "http://127.0.0.1", "redis://"),
        ("REDIS_URL", "redis://", "redis://"),
        ("REDIS_URL", "redis://host:port", "redis://"),
        ("REDIS_URL", "redis://host:0", "redis://"),
        ("REDIS_URL", "redis://host:65536", "redis://"),
        ("REDIS_URL", "redis://ho st", "redis://"),
        ("REDIS_URL", "redis://a..b", "redis://"),
        ("REDIS_URL", "unix:///run/redis.sock", "redis://"),
        ("REDIS_URL", "redis://host/notanumber", "number of the database"),
        ("REDIS_URL", "redis://host/-1", "number of the database"),
        ("REDIS_URL", "redis://host/0/1", "number of the database"),
        ("REDIS_URL", "redis://host/٣", "number of the database"),
        ("REDIS_URL", "redis://host/0?socket_timeout=x", "redis://"),
        ("REDIS_URL", "redis://host/0?ssl_cert_reqs=none", "rediss:// for TLS"),
        ("REDIS_URL", "rediss://host/0?ssl_cert_reqs=bogus", "ssl_cert_reqs=required, optional or none"),
        ("CONCLAVE_NODE_REDIS", "redis://host/notanumber", "number of the database"),
        ("CONCLAVE_NODE_REDIS", "host:6379", "redis://"),
        ("DATABASE_URL", "postgres://host:port/name", "a database address"),
        ("DATABASE_URL", "postgres://host:0/name", "a database address"),
        ("DATABASE_URL", "postgres://host", "a database address"),
        ("DATABASE_URL", "mysql://host/", "a database address"),
        ("DATABASE_URL", "sqlite://", "a database in a file"),
        ("DATABASE_URL", "sqlite:///", "a database in a file"),
        ("DATABASE_URL", "sqlite://:memory:", "a database in a file"),
        ("DATABASE_URL", "sqlite:///:memory:", "a database in a file"),
        ("DATABASE_URL", "sqlite:///file%3Aa%3Fmode=memory", "a database in a file"),
        ("DATABASE_URL", "postgres", "a database address"),
        ("DATABASE_URL", "postgres://", "a database address"),
        ("DATABASE_URL", "postgres:///", "a database address"),
        ("DATABASE_URL", "mysql:///name", "a database address"),
        ("DATABASE_URL", "mongodb://host/name", "a database address"),
        ("CONCLAVE_DATA", "/tmp/a\nb", "a path that is text in UTF-8, without line breaks"),
        ("CONCLAVE_DATA", "/tmp/n\udce4me", "a path that is text in UTF-8, without line breaks"),
        ("CONCLAVE_DATA", f"/tmp/{'a' * 300}", "a directory, or a path where one can be made (File name too long)"),
    ],
)
def test_a_bad_setting_is_refused_by_name_with_what_was_expected_and_what_came(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    line = _refusal(monkeypatch, **{name: value})
    assert line.startswith(f"{name}: expected ")
    assert expected in line
    shown = re.sub(r"(\?\w+)=\w+", r"\1=…", value)  # What a query says may be a password.
    assert f"came {shown!r}" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "field", "ends"),
    [
        ("CONCLAVE_NODES", "nodes", (1, 9)),
        ("CONCLAVE_PORT", "port", (1, 65_535)),
        ("CONCLAVE_METRICS_PORT", "metrics_port", (0, 1, 65_535)),
        ("CONCLAVE_SPARE_MS", "spare_ms", (0, 60)),
    ],
)
def test_a_setting_may_have_the_least_and_the_most_that_it_is_said_to_take(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str, ends: tuple[int, ...]
) -> None:
    assert [getattr(_load(monkeypatch, **{name: str(end)}), field) for end in ends] == [*ends]


def test_every_bad_setting_gets_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _refusal(monkeypatch, CONCLAVE_PORT="x", CONCLAVE_NODES="x", CONCLAVE_BIND="x").splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["CONCLAVE_BIND", "CONCLAVE_NODES", "CONCLAVE_PORT"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host/",
        "redis://u:p%40x@host:6380/15",
        "redis://[::1]:6379/0#/run/redis/redis.sock",
        "rediss://host/0?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem",
    ],
)
def test_an_address_of_redis_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    config = _load(monkeypatch, REDIS_URL=url, CONCLAVE_NODE_REDIS=url)
    assert config.redis_url == config.node_redis == url


@pytest.mark.parametrize(
    ("url", "for_celery"),
    [
        ("redis://host/1#/run/redis.sock", "redis://host/1#/run/redis.sock"),
        ("rediss://u:p@host/1", "rediss://u:p@host/1?ssl_cert_reqs=required"),
        ("rediss://host?ssl_ca_certs=/ca.pem", "rediss://host?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://host/1?ssl_cert_reqs=none", "rediss://host/1?ssl_cert_reqs=none"),
    ],
)
def test_celery_checks_the_certificate_of_a_redis_unless_told_not_to(url: str, for_celery: str) -> None:
    """Without the parameter its result backend raises ValueError, and its broker checks none."""
    assert url_for_celery(url) == for_celery
    app = Celery(broker=for_celery, backend=for_celery)
    assert ("ssl_cert_reqs" in app.backend.connparams) == url.startswith("rediss")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://u:p@10.0.0.1:6380/0#/run/redis/redis.sock", "redis://10.0.0.1:6380/0"),
        (
            "rediss://u:p@h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=optional&ssl_keyfile=/k",
            "rediss://h?ssl_cert_reqs=optional",
        ),
        ("rediss://h/1?ssl_ca_certs=/ca.pem", "rediss://h/1"),
    ],
)
def test_others_are_told_no_file_of_this_machine(url: str, told: str) -> None:
    """Under the same path theirs may be another: of a Unix socket, that was a Redis on which nobody heard them."""
    assert address_for_others(url) == told


@pytest.mark.parametrize("url", ["sqlite:////var/lib/db.sqlite3", "sqlite:///memory.sqlite3?timeout=5"])
def test_a_database_in_a_file_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert _load(monkeypatch, DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgres:///name",
        "postgresql://user@/name?host=/var/run/postgresql",
        "postgres://%2Fvar%2Frun%2Fpostgresql/name",
        "postgres:///?service=conclave",
    ],
)
def test_a_database_behind_the_socket_of_a_server_on_this_machine_is_taken(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert _load(monkeypatch, DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:s3cret@host:99999", "redis://…@host:99999"),
        ("http://user:s3cret@host/0", "http://…@host/0"),
        ("postgres://u:p@s3cret@host/db x", "postgres://…@host/db x"),
        ("http://u:p/s3cret@host/0", "http://…@host/0"),
        ("http://h:6379?password=s3cret", "http://h:6379?password=…"),
        ("http://h:6379?s3cret&db=s3cret", "http://h:6379?…&db=…"),
        ("http://h:6379?password=a@s3cret", "http://…"),
        ("http://u:s3cret?b@h", "http://…"),
        ("u:s3cret@host", "…@host"),
        ("http://u:\ns3cret@host", "http://…@host"),
    ],
)
def test_a_refusal_repeats_no_password(monkeypatch: pytest.MonkeyPatch, url: str, shown: str) -> None:
    for refusal in (_refusal(monkeypatch, REDIS_URL=url), _refusal(monkeypatch, DATABASE_URL=url)):
        assert "s3cret" not in refusal
        assert refusal.endswith(f"; came {shown!r}")


def test_a_refusal_repeats_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _refusal(monkeypatch, CONCLAVE_PORT="80?").endswith("came '80?'")


def test_a_database_without_its_driver_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = _refusal(monkeypatch, DATABASE_URL="postgres://user:s3cret@host/name")
    asked = 'DATABASE_URL: expected a database whose driver is installed; pip install "psycopg[binary]" into'
    assert line.startswith(asked)
    assert "s3cret" not in line
    assert "pip install mysqlclient into" in _refusal(monkeypatch, DATABASE_URL="mysql://host/name")


def test_a_printed_config_repeats_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load(
        monkeypatch,
        REDIS_URL="redis://u:s3cret@host",
        DATABASE_URL="sqlite://u:s3cret@host/name",
        CONCLAVE_ADMIN_PASSWORD="s3cret",
    )
    assert config.admin_password == "s3cret"
    assert "s3cret" not in repr(config)


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40))
def test_whatever_comes_is_read_or_refused_in_words(text: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in SETTINGS:
            monkeypatch.setenv(name, text)
        lines = []
        try:
            config = load_config()
        except ConfigError as error:
            lines = str(error).splitlines()
        else:
            assert 1 <= config.port <= 65_535
        assert all(re.match(r"(CONCLAVE_|REDIS_|DATABASE_)[A-Z_]+: expected ", line) for line in lines)


def test_a_data_directory_is_absolute_wherever_it_was_named_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _load(monkeypatch, CONCLAVE_DATA="here/../there").data == tmp_path / "there"


def test_a_data_directory_that_is_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert _refusal(monkeypatch, CONCLAVE_DATA=str(file)).startswith("CONCLAVE_DATA: expected a directory")


def test_listening_to_the_world_needs_the_names_by_which_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = _refusal(monkeypatch, CONCLAVE_BIND="0.0.0.0")
    assert line.startswith("CONCLAVE_HOSTS: expected ")
    assert "CONCLAVE_BIND is 0.0.0.0" in line


def test_beyond_loopback_no_faults_are_injected_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load(monkeypatch, CONCLAVE_BIND="0.0.0.0", CONCLAVE_HOSTS="a.example.org, b.example.org:8443")
    assert not config.is_loopback
    assert not config.faults
    assert config.hosts == ["a.example.org", "b.example.org:8443"]
    assert _load(monkeypatch, CONCLAVE_FAULTS="1").faults


def test_an_address_of_its_own_is_a_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(monkeypatch, CONCLAVE_BIND="10.1.2.3").hosts == ["10.1.2.3"]
    assert _load(monkeypatch, CONCLAVE_BIND="fd00::1").hosts == ["[fd00::1]"]


@pytest.mark.parametrize(
    ("variables", "page_host"),
    [
        ({}, "127.0.0.1:8000"),
        ({"CONCLAVE_BIND": "localhost", "CONCLAVE_PORT": "81"}, "127.0.0.1:81"),
        ({"CONCLAVE_BIND": "::1"}, "[::1]:8000"),
        ({"CONCLAVE_BIND": "0.0.0.0", "CONCLAVE_HOSTS": "a.example.org"}, "a.example.org:8000"),
        ({"CONCLAVE_BIND": "0.0.0.0", "CONCLAVE_HOSTS": "a.example.org:443"}, "a.example.org:443"),
    ],
)
def test_the_page_is_found_under_the_first_host(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], page_host: str
) -> None:
    assert _load(monkeypatch, **variables).page_host == page_host


def test_headers_are_believed_of_named_proxies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _load(monkeypatch, CONCLAVE_PROXIES="10.0.0.1,10.1.0.0/16")
    assert config.proxy_headers
    assert config.proxies == ["10.0.0.1", "10.1.0.0/16"]


# --- followers that wait ---------------------------------------------------------------------------


def test_followers_that_no_majority_needs_wait_where_all_nodes_are_on_one_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_config().spare_us == 20_000
    assert _load(monkeypatch, CONCLAVE_SPARE_MS="0").spare_us == 0
    monkeypatch.delenv("CONCLAVE_SPARE_MS")
    assert _load(monkeypatch, REDIS_URL="redis://elsewhere").spare_us == 0
    assert _load(monkeypatch, REDIS_URL="redis://elsewhere", CONCLAVE_SPARE_MS="60").spare_us == 60_000


@pytest.mark.parametrize("value", ["-1", "61", "ten", "1.5"])
def test_how_long_they_wait_is_at_most_a_heartbeat(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    expected = f"CONCLAVE_SPARE_MS: expected a whole number of milliseconds from 0 to 60; came {value!r}"
    assert _refusal(monkeypatch, CONCLAVE_SPARE_MS=value) == expected


# --- metrics and logs -----------------------------------------------------------------------------


def test_without_settings_metrics_are_on_loopback_and_logs_are_plain() -> None:
    config = load_config()
    assert (config.metrics_bind, config.metrics_port, config.metrics_token) == ("127.0.0.1", None, None)
    assert config.log == "plain"
    assert config.metrics_url(20_001) == "http://127.0.0.1:20001/metrics"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONCLAVE_METRICS_BIND", "everywhere", "an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::1"),
        ("CONCLAVE_METRICS_PORT", "65536", "a port number from 1 to 65535, or 0 for none"),
        ("CONCLAVE_METRICS_PORT", "-1", "a port number from 1 to 65535, or 0 for none"),
        ("CONCLAVE_LOG", "xml", "plain or json"),
        ("CONCLAVE_COMPILED", "yes", "auto or always or never"),
    ],
)
def test_bad_settings_of_metrics_and_logs_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    assert _refusal(monkeypatch, **{name: value}) == f"{name}: expected {expected}; came {value!r}"


@pytest.mark.parametrize("token", ["short", "with blanks in it all over", "no-line-breaks\nat-all"])
def test_a_token_for_metrics_that_no_header_can_carry_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    said = _refusal(monkeypatch, CONCLAVE_METRICS_TOKEN=token)
    assert said.startswith("CONCLAVE_METRICS_TOKEN: expected 16 or more letters")
    assert token not in said


def test_metrics_leave_loopback_only_behind_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CONCLAVE_METRICS_TOKEN: expected a token" in _refusal(monkeypatch, CONCLAVE_METRICS_BIND="0.0.0.0")
    config = _load(monkeypatch, CONCLAVE_METRICS_BIND="0.0.0.0", CONCLAVE_METRICS_TOKEN="s" * 16)
    assert config.metrics_bind == "0.0.0.0"
    assert "ssss" not in repr(config)
