"""`manage.py up` for real: it sets up, it keeps running what dies, and it leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from coordinator.data_directory import DataDirectory
from coordinator.ports import free_port
from coordinator.supervision import RESTART_DELAY_S_MAX
from tests.integration.installation import ADMIN_PASSWORD, Installation, lives
from tests.integration.private_redis import PrivateRedis
from tests.integration.waiting import eventually

READY_S_BAR = 15.0
BACK_AGAIN_S_MAX = RESTART_DELAY_S_MAX + 2.0
EXIT_S_MAX = 10.0
ALL_PARTS = {"redis", "node1", "node2", "node3", "web", "reconciler"}

New = Callable[..., Installation]


def _clusters(installation: Installation) -> list[tuple[str, str]]:
    with sqlite3.connect(installation.data.database) as database:
        return database.execute("SELECT name, cluster_id FROM conclave_cluster ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One of this module's own: what it says at the terminal is looked at, and it is ended again and again."""
    with Installation(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture
def to_end(installation: Installation) -> Iterator[Installation]:
    """The installation of the module, for a test that ends it: afterwards it runs again."""
    yield installation
    if installation.is_running:
        installation.kill_everything()
    installation.start()
    installation.wait_until_ready()


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an installation that has run and was stopped."""
    with Installation(tmp_path_factory.mktemp("set-up") / "data") as once:
        once.stop()
    return once.data.path


@pytest.fixture
def stopped(set_up: Path, new_installation: New) -> Installation:
    """One that has run and was stopped, on a copy of its own: to be changed before it starts again."""
    kept = DataDirectory(set_up).ports_kept()
    installation = new_installation(port=free_port(kept))
    shutil.copytree(set_up, installation.data.path)
    return installation


def _refusal(installation: Installation) -> str:
    """What it says when it does not start at all."""
    installation.start()
    eventually(lambda: not installation.is_running, timeout_s=EXIT_S_MAX, what=f"it ends: {installation.terminal}")
    assert installation.exit_status != 0
    assert "Traceback" not in installation.terminal
    return installation.terminal


# --- set up, and say so ---------------------------------------------------------------------------


@pytest.mark.alone
def test_an_empty_directory_becomes_a_cluster_with_a_leader(new_installation: New) -> None:
    installation = new_installation(settings={"CONCLAVE_ADMIN_PASSWORD": ""})
    installation.start()
    took = installation.wait_until_ready()
    assert took < READY_S_BAR
    assert set(installation.parts()) == ALL_PARTS
    assert [name for name, _ in _clusters(installation)] == ["default"]
    eventually(
        lambda: f"open {installation.url}/" in installation.terminal,
        timeout_s=5,
        what="the address is said once it serves",
    )
    passwords = re.findall(r"administrator admin, password (\S+)", installation.terminal)
    assert len(passwords) == 1
    assert len(passwords[0]) >= 12

    installation.stop()
    installation.start()
    installation.wait_until_ready()
    assert installation.terminal.count(passwords[0]) == 1, "said once and never again"


def test_a_given_password_is_taken_and_not_repeated(installation: Installation) -> None:
    assert "CONCLAVE_ADMIN_PASSWORD" in installation.terminal
    assert ADMIN_PASSWORD not in installation.terminal
    for process in (installation.supervisor, *installation.parts().values()):
        assert "CONCLAVE_ADMIN_PASSWORD" not in process.environ(), "it is handed to no part"


def test_each_part_writes_a_log_of_its_own(installation: Installation) -> None:
    for name in ALL_PARTS:  # The reconciler begins last, and is not waited for.
        eventually(partial(installation.log, name), timeout_s=EXIT_S_MAX, what=f"{name} has written something")


def test_what_it_keeps_is_for_nobody_else(installation: Installation) -> None:
    for path in installation.data.path.rglob("*"):
        if path.is_relative_to(installation.data.path / "static"):
            continue  # no secret, and below a directory that nobody else may enter
        assert path.stat().st_mode & 0o077 == 0, path


# --- refusals -------------------------------------------------------------------------------------


def test_a_second_one_on_the_same_directory_is_refused(installation: Installation) -> None:
    second = Installation(installation.data.path, port=free_port())
    second._terminal = installation.data.path.parent / "second.terminal"
    said = _refusal(second)
    assert f"Conclave already runs on {installation.data.path} (process {installation.supervisor.pid})" in said
    assert installation.get("/readyz/default").status == 200


def test_a_port_in_use_is_refused_at_once(new_installation: New) -> None:
    installation = new_installation()
    with socket.create_server(("127.0.0.1", installation.port)):
        said = _refusal(installation)
    assert f"CONCLAVE_PORT: expected a free port; another program listens on 127.0.0.1:{installation.port}" in said
    assert not installation.data.nodes.exists(), "nothing was begun"


def test_the_port_kept_for_redis_in_use_is_refused_at_once(new_installation: New) -> None:
    installation = new_installation()
    port = installation.data.redis_state().port
    with socket.create_server(("127.0.0.1", port)):
        said = _refusal(installation)
    assert f"the embedded Redis keeps port {port}" in said


def test_bad_settings_are_refused_by_name(new_installation: New) -> None:
    said = _refusal(new_installation(settings={"CONCLAVE_PORT": "http", "CONCLAVE_NODES": "many"}))
    assert "CONCLAVE_PORT: expected a port number from 1 to 65535; came 'http'" in said
    assert "CONCLAVE_NODES: expected a whole number from 1 to 9" in said


def test_a_place_that_cannot_be_written_is_refused(new_installation: New, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = _refusal(new_installation(settings={"CONCLAVE_DATA": str(tmp_path / "file" / "data")}))
    assert "CONCLAVE_DATA: expected a directory that this user can write" in said


# --- the end --------------------------------------------------------------------------------------


def test_kill_9_leaves_no_process_behind_and_the_next_one_goes_on(installation: Installation) -> None:
    before = _clusters(installation)
    family = installation.supervisor.children(recursive=True)
    assert len(family) >= len(ALL_PARTS)
    installation.supervisor.kill()
    eventually(lambda: not any(lives(process) for process in family), timeout_s=5, what=f"none is left of {family}")
    eventually(lambda: not installation.is_running, timeout_s=5, what="it is reaped")

    installation.start()
    installation.wait_until_ready()
    assert _clusters(installation) == before


SIGNALS = [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
"""A start takes 10 s: what differs little is left to `make prove`."""


@pytest.mark.alone
@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_ends_all_of_it_within_10_s(to_end: Installation, how: signal.Signals) -> None:
    said_before = len(to_end.terminal)
    assert to_end.stop(how) < 10
    assert "stopped" in to_end.terminal[said_before:]


def test_one_that_nohup_started_outlives_its_terminal(new_installation: New) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # What is started inherits that.
    try:
        installation = new_installation()
        installation.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    eventually(lambda: "Conclave keeps" in installation.terminal, timeout_s=EXIT_S_MAX, what="it began")
    installation.supervisor.send_signal(signal.SIGHUP)
    installation.wait_until_ready()
    installation.supervisor.send_signal(signal.SIGHUP)
    installation.kill("node1")
    eventually(lambda: "node1 started again" in installation.terminal, timeout_s=EXIT_S_MAX, what="it goes on")
    assert installation.stop(signal.SIGTERM) < 10


@pytest.mark.alone
def test_parts_that_hang_do_not_hold_up_the_end(to_end: Installation) -> None:
    for process in to_end.parts().values():
        process.suspend()
    assert to_end.stop(signal.SIGTERM) < 10


@pytest.mark.alone
@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_in_the_middle_of_setting_up_leaves_nothing_either(new_installation: New, how: signal.Signals) -> None:
    installation = new_installation()
    installation.start()
    eventually(lambda: "Conclave keeps" in installation.terminal, timeout_s=EXIT_S_MAX, what="it began")
    family = [installation.supervisor, *installation.supervisor.children(recursive=True)]
    installation.stop(how)
    eventually(lambda: not any(lives(process) for process in family), timeout_s=5, what="nothing is left")
    assert "Traceback" not in installation.terminal


# --- what dies comes back -------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("name", ["node1", "web", "redis"])
def test_a_part_that_dies_comes_back(installation: Installation, name: str) -> None:
    dead = installation.kill(name)
    eventually(
        lambda: installation.part(name).pid != dead, timeout_s=BACK_AGAIN_S_MAX, what=f"{name} has a process again"
    )
    installation.wait_until_ready()
    assert f"{name} died (terminated by SIGKILL)" in installation.terminal
    if name == "node1":  # Ready is the cluster also without it.
        takes_part = re.compile(r"^node1 +(votes|leads) .*lacks 0$", re.MULTILINE)
        eventually(
            lambda: takes_part.search(installation.manage("cluster", "status")),
            timeout_s=BACK_AGAIN_S_MAX,
            what="node1 takes part again",
        )


@pytest.mark.alone
def test_one_that_dies_again_and_again_still_comes_back_soon(installation: Installation) -> None:
    for _ in range(6):
        installation.kill("node2")
        began = time.monotonic()
        eventually(
            lambda: "node2" in installation.parts(), timeout_s=BACK_AGAIN_S_MAX, what="node2 has a process again"
        )
        assert time.monotonic() - began < BACK_AGAIN_S_MAX
    installation.wait_until_ready()


def test_variables_of_other_programs_change_nothing(new_installation: New) -> None:
    """Several web processes would outlive the one that is watched, and keep the port from the next."""
    others = {
        "WEB_CONCURRENCY": "2",
        "UVICORN_ROOT_PATH": "/shop",
        "CELERY_BROKER_URL": "amqp://guest@127.0.0.1:1//",
        "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
    }
    with new_installation(settings=others) as installation:
        assert not installation.part("web").children()
        installation.kill("web")
        installation.wait_until_ready()
        assert "web died (exit status" not in installation.terminal
        eventually(
            lambda: installation.manage("cluster", "list").count("node"), timeout_s=30, what="the broker is our own"
        )


# --- side by side ---------------------------------------------------------------------------------


def test_two_copies_run_side_by_side(installation: Installation, new_installation: New) -> None:
    with new_installation() as other:
        assert installation.get("/readyz/default").status == 200
        assert other.get("/readyz/default").status == 200
        assert _clusters(installation) != _clusters(other)
        assert installation.data.realm() != other.data.realm()
        assert installation.data.redis_state().port != other.data.redis_state().port
        other.stop()
    assert installation.get("/readyz/default").status == 200
    assert all(lives(process) for process in installation.parts().values())


# --- births happen once (rule 4) ------------------------------------------------------------------


MOMENTS = ("nodes.unborn", "nodes", "db.sqlite3", "run/supervisor.conf")
"""What setting up leaves behind, in this order; the first is there for some milliseconds only."""
QUICK = ("nodes.unborn", "db.sqlite3")
"""Of these, what runs with every change."""


@pytest.mark.parametrize(
    "moment", [moment if moment in QUICK else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_killed_while_it_sets_up_the_next_one_finds_all_or_nothing(new_installation: New, moment: str) -> None:
    installation = new_installation()
    installation.start()
    eventually(
        lambda: (
            any((installation.data.path / later).exists() for later in MOMENTS[MOMENTS.index(moment) :])
            or not installation.is_running
        ),
        timeout_s=EXIT_S_MAX,
        what=f"{moment} is there",
    )
    family = installation.supervisor.children(recursive=True)
    installation.supervisor.kill()
    eventually(lambda: not installation.is_running, timeout_s=5, what="it is dead")
    eventually(lambda: not any(lives(process) for process in family), timeout_s=5, what="so is all that it started")

    installation.start()
    installation.wait_until_ready()
    nodes = sorted(path.name for path in installation.data.nodes.iterdir())
    assert nodes == ["node1", "node2", "node3"]
    eventually(lambda: len(_clusters(installation)) == 1, timeout_s=10, what="the record has the one cluster")


def test_the_record_without_journals_makes_no_second_cluster(stopped: Installation) -> None:
    before = _clusters(stopped)
    shutil.rmtree(stopped.data.nodes)

    stopped.start()
    eventually(lambda: stopped.get("/healthz").status == 200, timeout_s=READY_S_BAR, what="the page is served")
    eventually(lambda: set(stopped.parts()) == ALL_PARTS, timeout_s=READY_S_BAR, what="all parts run")
    assert "the record knows the cluster, and no node has a journal" in stopped.terminal
    assert stopped.get("/readyz/default").status == 503
    assert _clusters(stopped) == before
    assert all(lives(process) for process in stopped.parts().values()), "they wait, they do not die"


def test_journals_without_the_record_are_enough(stopped: Installation) -> None:
    before = _clusters(stopped)
    for path in stopped.data.path.glob("db.sqlite3*"):
        path.unlink()

    stopped.start()
    stopped.wait_until_ready()
    eventually(lambda: _clusters(stopped) == before, timeout_s=10, what="the record is made again from the log")


@pytest.mark.parametrize("name", ["peer_key", "realm", "web_token"])
def test_keys_that_are_gone_are_not_made_anew_beside_a_cluster(stopped: Installation, name: str) -> None:
    path = stopped.data.keys / name
    text = path.read_text()
    path.unlink()
    assert f"lacks {name}, by which" in _refusal(stopped)
    assert not path.exists()
    path.write_text(text)


@pytest.mark.parametrize(
    ("nodes", "line"),
    [
        ("4", "node4: no directory under"),
        ("2", "node3: has a directory and is not started, because CONCLAVE_NODES is 2"),
    ],
)
def test_another_number_of_nodes_changes_no_cluster_and_says_so(stopped: Installation, nodes: str, line: str) -> None:
    before = _clusters(stopped)
    stopped.settings["CONCLAVE_NODES"] = nodes
    stopped.start()
    stopped.wait_until_ready()
    assert line in stopped.terminal
    assert _clusters(stopped) == before
    names = {name for name in stopped.parts() if name.startswith("node")}
    assert names == {f"node{number}" for number in range(1, int(nodes) + 1)}


def test_on_the_operators_redis_none_is_started(new_installation: New, redis_server: PrivateRedis) -> None:
    with new_installation(settings={"REDIS_URL": redis_server.url}) as installation:
        assert set(installation.parts()) == ALL_PARTS - {"redis"}
        assert f"Redis at 127.0.0.1:{redis_server.port}, from REDIS_URL" in installation.terminal
        assert "conclave-node" not in installation.terminal
