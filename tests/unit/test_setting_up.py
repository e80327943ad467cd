"""A cluster is born once, and nothing on disk is made anew. How it goes for real is tests/integration/test_up.py's."""

from __future__ import annotations

import contextlib
import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

from coordinator import setting_up
from coordinator.config import Config, ConfigError, load_config
from coordinator.consensus.membership import decode_configuration
from coordinator.data_directory import DataDirectory
from coordinator.management.commands import up
from coordinator.models import Cluster
from coordinator.replica.journal import SqliteJournal
from coordinator.setting_up import (
    Births,
    NotThereNow,
    SetUpError,
    about_nodes,
    hold,
    make_administrator,
    metrics_ports,
    require_ports_of_their_own,
)
from coordinator.static_storage import OWN_SCRIPTS, StaticStorage

pytestmark = pytest.mark.django_db


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("CONCLAVE_NODES", "3")
    return load_config()


@pytest.fixture(autouse=True)
def _one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps close theirs before this process becomes another; a test needs its own until it ends."""
    monkeypatch.setattr("django.db.connection.close", lambda: None)


def _nodes(data: DataDirectory, *names: str) -> None:
    data.make_secrets()
    for name in names:
        (data.nodes / name).mkdir(parents=True)


def test_a_database_server_that_is_away_keeps_no_node_from_starting(
    config: Config, data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise NotThereNow("the database (DATABASE_URL, …) cannot be used: refused")

    said: list[str] = []
    command = up.Command()
    monkeypatch.setattr(command, "_say", said.append)
    monkeypatch.setattr(setting_up, "migrate", away)
    elsewhere = config.model_copy(update={"database_url": "postgres://host/name"})
    with pytest.raises(SetUpError):
        command._migrate(elsewhere, data)  # Whether it is there already, nobody can say.
    _nodes(data, "node1", "node2", "node3")
    assert not command._migrate(elsewhere, data)
    assert said[0].startswith("the database (DATABASE_URL, …) cannot be used: refused; all the rest starts")
    for a_file in (config, config.model_copy(update={"database_url": "sqlite:////var/lib/db.sqlite3"})):
        with pytest.raises(SetUpError):
            command._migrate(a_file, data)


def test_births_put_all_journals_in_place_and_write_the_record(config: Config, data: DataDirectory) -> None:
    births = Births.begin(config, data)
    assert births is not None
    identity = births.finish()
    assert sorted(path.name for path in data.nodes.iterdir()) == ["node1", "node2", "node3"]
    assert list(Cluster.objects.values_list("name", "cluster_id")) == [("default", identity)]
    assert Births.begin(config, data) is None, "once"


def test_nodes_that_begin_on_a_redis_of_their_own_know_where_the_others_are(
    config: Config, data: DataDirectory
) -> None:
    """Each wrote to the others on that of the web tier, where none listens: nobody ever led."""
    births = Births.begin(config.model_copy(update={"node_redis": "redis://:secret@10.0.0.1/0"}), data)
    assert births is not None
    births.finish()
    with contextlib.closing(SqliteJournal(data.nodes / "node2")) as journal:
        (stored,) = journal.replicas()
        log = journal.load(stored.replica)
    members = decode_configuration(log.entries[0]).voters
    assert {member.node: member.address for member in members} == dict.fromkeys(
        ("node1", "node2", "node3"), "redis://10.0.0.1/0"
    )


def test_an_empty_nodes_directory_is_no_node(config: Config, data: DataDirectory) -> None:
    data.run.parent.joinpath("nodes").mkdir()
    births = Births.begin(config, data)
    assert births is not None
    births.finish()


def test_one_directory_is_enough_for_no_second_birth(config: Config, data: DataDirectory) -> None:
    _nodes(data, "node2")
    assert Births.begin(config, data) is None
    assert not Cluster.objects.exists(), "the record is made again from the log, not from a guess"


def test_a_record_is_enough_for_no_second_birth(config: Config, data: DataDirectory) -> None:
    Cluster.objects.create(name="default", cluster_id="abc")
    assert Births.begin(config, data) is None
    assert not data.nodes.exists()
    assert about_nodes(config, data) == [
        "the record knows the cluster, and no node has a journal: the nodes start and wait"
    ]


@pytest.mark.parametrize("name", ["peer_key", "realm", "web_token"])
def test_nodes_without_the_keys_that_they_know_are_not_given_new_ones(
    config: Config, data: DataDirectory, name: str
) -> None:
    _nodes(data, "node1", "node2", "node3")
    (data.keys / name).unlink()
    for read in (lambda: Births.begin(config, data), data.realm, data.peer_key, data.web_token):
        with pytest.raises(ConfigError, match=f"lacks {name}, by which"):
            read()
    assert not (data.keys / name).exists()


def test_births_that_fail_say_why(config: Config, data: DataDirectory) -> None:
    data.run.parent.joinpath("nodes").write_text("in the way")
    births = Births.begin(config, data)
    assert births is not None
    with pytest.raises(SetUpError, match=r"the first journals could not be made: .*nodes"):
        births.finish()
    assert not Cluster.objects.exists()


def test_nothing_is_said_where_the_nodes_are_those_asked_for(config: Config, data: DataDirectory) -> None:
    assert about_nodes(config, data) == []
    _nodes(data, "node1", "node2", "node3")
    assert about_nodes(config, data) == []


def test_what_differs_is_explained(config: Config, data: DataDirectory) -> None:
    _nodes(data, "node1", "node3", "node9")
    missing, left_out = about_nodes(config, data)
    assert missing.startswith("node2: no directory under")
    assert left_out.startswith("node9: has a directory and is not started, because CONCLAVE_NODES is 3")


def test_a_directory_has_one_holder(data: DataDirectory) -> None:
    hold(data)
    with pytest.raises(SetUpError, match="Conclave already runs on"):
        hold(data)


def test_a_directory_whose_lock_cannot_be_opened_is_said_in_a_line(data: DataDirectory) -> None:
    (data.run / "up.lock").mkdir()
    with pytest.raises(SetUpError, match=r"this user can write; .*/up\.lock: Is a directory"):
        hold(data)


# --- the administrator ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "log", "static", "nodes"])
def test_a_directory_in_it_that_another_user_made_is_named(
    monkeypatch: pytest.MonkeyPatch, data: DataDirectory, name: str
) -> None:
    theirs = data.path / name
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs)
    with pytest.raises(SetUpError, match=f"that this user can write; {theirs} is not"):
        hold(data)


def test_the_first_administrator_can_sign_in_with_what_was_said(config: Config, django_user_model: type) -> None:
    said: list[str] = []
    make_administrator(config, said.append)
    password = said[0].split("password ")[1].split()[0]
    assert django_user_model.objects.get(username="admin", is_superuser=True).check_password(password)  # type: ignore[attr-defined]
    make_administrator(config, said.append)
    assert len(said) == 1


def test_a_given_password_is_taken_and_not_said(monkeypatch: pytest.MonkeyPatch, django_user_model: type) -> None:
    monkeypatch.setenv("CONCLAVE_ADMIN_PASSWORD", "given by an operator")
    said: list[str] = []
    make_administrator(load_config(), said.append)
    assert django_user_model.objects.get(username="admin").check_password("given by an operator")  # type: ignore[attr-defined]
    assert "password from CONCLAVE_ADMIN_PASSWORD" in said[0]
    assert "given" not in said[0]


@pytest.mark.parametrize("password", ["z7", "48151623420815", "qwerty123", "admin1"])
def test_a_password_that_the_pages_would_not_take_is_refused_and_not_said(
    monkeypatch: pytest.MonkeyPatch, django_user_model: type, password: str
) -> None:
    monkeypatch.setenv("CONCLAVE_ADMIN_PASSWORD", password)
    with pytest.raises(ConfigError, match=r"CONCLAVE_ADMIN_PASSWORD: expected .*password is ") as refused:
        make_administrator(load_config(), print)
    assert password not in str(refused.value)
    assert not django_user_model.objects.exists()  # type: ignore[attr-defined]
    django_user_model.objects.create_superuser("eve", "", "hers")  # type: ignore[attr-defined]
    make_administrator(load_config(), print)  # There is one: what was given is for nobody.


def test_somebody_elses_name_is_not_taken(config: Config, django_user_model: type) -> None:
    django_user_model.objects.create_user("admin", "", "theirs")  # type: ignore[attr-defined]
    said: list[str] = []
    make_administrator(config, said.append)
    assert not django_user_model.objects.filter(is_superuser=True).exists()  # type: ignore[attr-defined]
    assert "createsuperuser" in said[0]


# --- static files ---------------------------------------------------------------------------------


def test_files_are_gathered_again_only_after_a_change(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    gathered: list[str] = []

    def collect(name: str, **options: object) -> None:
        gathered.append(name)
        (tmp_path / "static").mkdir(exist_ok=True)
        (tmp_path / "static" / "staticfiles.json").write_text("{}")

    monkeypatch.setattr(setting_up, "call_command", collect)
    settings.STATIC_ROOT = tmp_path / "static"  # type: ignore[attr-defined]
    setting_up.collect_static_files(data)
    setting_up.collect_static_files(data)
    assert gathered == ["collectstatic"]

    monkeypatch.setattr(setting_up, "_fingerprint_of_static_files", lambda: "another")
    setting_up.collect_static_files(data)
    assert len(gathered) == 2

    (tmp_path / "static" / "staticfiles.json").unlink()
    setting_up.collect_static_files(data)
    assert len(gathered) == 3


def test_no_scripts_but_our_own_import_one_another() -> None:
    """Others are not looked through: what one of them imported would be served without a hash in its name."""
    imports = [re.compile(pattern) for pattern, _ in StaticStorage._js_module_import_aggregation_patterns[1]]
    importing = [
        name
        for finder in get_finders()
        for name, storage in finder.list([])
        if name.endswith(".js") and any(each.search(Path(storage.path(name)).read_text()) for each in imports)
    ]
    assert any(fnmatch(name, OWN_SCRIPTS) for name in importing)
    assert [name for name in importing if not fnmatch(name, OWN_SCRIPTS)] == []


def test_what_our_scripts_import_is_served_by_its_hash(tmp_path: Path, settings: object) -> None:
    settings.STATIC_ROOT = tmp_path / "static"  # type: ignore[attr-defined]
    settings.STORAGES = settings.STORAGES | {"staticfiles": {"BACKEND": "coordinator.static_storage.StaticStorage"}}  # type: ignore[attr-defined]
    call_command("collectstatic", interactive=False, verbosity=0)
    manifest = json.loads((tmp_path / "static" / "staticfiles.json").read_text())["paths"]
    served = (tmp_path / "static" / manifest["conclave/js/dialogs.js"]).read_text()
    assert f'from "./{Path(manifest["conclave/js/dom.js"]).name}";' in served
    assert "./dom.js" not in served


# --- ports ----------------------------------------------------------------------------------------


def _refused(monkeypatch: pytest.MonkeyPatch, data: DataDirectory, **variables: object) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(f"CONCLAVE_{name}", str(value))
    with pytest.raises(ConfigError) as refused:
        require_ports_of_their_own(load_config(), data)
    return str(refused.value)


def test_the_page_takes_no_port_that_redis_or_a_node_keeps(
    monkeypatch: pytest.MonkeyPatch, config: Config, data: DataDirectory
) -> None:
    require_ports_of_their_own(config, data)
    redis, node = data.redis_state().port, data.metrics_port("node2", config)
    assert _refused(monkeypatch, data, PORT=redis) == (
        f"CONCLAVE_PORT: expected another port than the embedded Redis keeps ({data.redis / 'state.json'}); "
        f"came {redis}"
    )
    assert _refused(monkeypatch, data, PORT=node) == (
        f"CONCLAVE_PORT: expected another port than is kept for the metrics of node2 ({data.path / 'metrics/node2'}); "
        f"came {node}"
    )


def test_metrics_of_all_nodes_have_a_port_or_it_is_said_that_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, data: DataDirectory
) -> None:
    """A node that finds none goes without metrics."""
    monkeypatch.setenv("CONCLAVE_METRICS_PORT", "65533")
    assert metrics_ports(load_config(), data) == {"node1": 65_533, "node2": 65_534, "node3": 65_535}
    monkeypatch.setenv("CONCLAVE_METRICS_PORT", "65534")
    with pytest.raises(ConfigError, match="expected a port with room for 3 of them up to 65535; came 65534"):
        metrics_ports(load_config(), data)


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_the_metrics_ports_leave_out_the_pages_and_that_of_redis(
    monkeypatch: pytest.MonkeyPatch, data: DataDirectory, bind: str
) -> None:
    monkeypatch.setenv("CONCLAVE_HOSTS", "conclave.example.org")
    redis = data.redis_state().port
    said = _refused(monkeypatch, data, BIND=bind, PORT=7_002, METRICS_PORT=7_000)
    assert said == (
        "CONCLAVE_METRICS_PORT: expected the first of 3 ports in a row, for a node each, none of which is that of "
        "the page, 7002; came 7000"
    )
    assert f"that of the embedded Redis, {redis}; came {redis - 1}" in _refused(
        monkeypatch, data, METRICS_PORT=redis - 1
    )


def test_ports_that_are_free_beside_each_other_are_taken(monkeypatch: pytest.MonkeyPatch, data: DataDirectory) -> None:
    port = data.redis_state().port
    several = [
        {"CONCLAVE_PORT": "7003", "CONCLAVE_METRICS_PORT": "7000"},
        {"CONCLAVE_PORT": str(port), "CONCLAVE_BIND": "127.0.0.2", "CONCLAVE_METRICS_PORT": "0"},
        {"CONCLAVE_PORT": str(port), "REDIS_URL": "redis://127.0.0.1:6379", "CONCLAVE_METRICS_PORT": "0"},
    ]
    for variables in several:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            require_ports_of_their_own(load_config(), data)
