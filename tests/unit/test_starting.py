"""Whichever program is started with settings that it cannot use says so in a line, and ends: no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config import PROJECT
from coordinator.data_directory import DataDirectory

pytestmark = pytest.mark.long

START_S_MAX = 60
PROGRAMS = {
    "celery": ["-m", "celery", "-A", "coordinator", "inspect", "replicas"],
    "node": ["-m", "celery", "-A", "coordinator", "worker", "--pool", "solo"],
    "reconciler": ["-m", "coordinator.membership"],
    "web": ["-m", "uvicorn", "coordinator.asgi:application"],
    "manage": ["manage.py", "cluster", "list"],
}


def _start(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CONCLAVE_") and name not in {"REDIS_URL", "DATABASE_URL", "DJANGO_SETTINGS_MODULE"}
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=kept | variables,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_setting_that_cannot_be_used_is_said_in_a_line_by_every_program(program: str, tmp_path: Path) -> None:
    node = {"CONCLAVE_NODE": "node1"} if program == "node" else {}
    ended = _start(PROGRAMS[program], CONCLAVE_DATA=str(tmp_path / "data"), CONCLAVE_NODES="x", **node)
    expected = "CONCLAVE_NODES: expected a whole number from 1 to 9; 3 or 5 are sensible; came 'x'\n"
    assert (ended.returncode, ended.stdout + ended.stderr) == (1, expected)


@pytest.mark.parametrize("program", PROGRAMS)
def test_settings_and_a_broker_of_another_project_are_not_taken_for_ours(program: str, tmp_path: Path) -> None:
    others = {"DJANGO_SETTINGS_MODULE": "shop.settings", "CELERY_LOADER": "shop.loader", "CONCLAVE_NODES": "x"}
    ended = _start(PROGRAMS[program], CONCLAVE_DATA=str(tmp_path / "data"), **others)
    assert ended.returncode == 1
    assert (ended.stdout + ended.stderr).startswith("CONCLAVE_NODES: expected")


def test_a_node_does_not_run_without_its_assertions(tmp_path: Path) -> None:
    node = {"CONCLAVE_DATA": str(tmp_path / "data"), "CONCLAVE_NODE": "node1"}
    ended = _start(PROGRAMS["node"], PYTHONOPTIMIZE="1", **node)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("PYTHONOPTIMIZE: expected not to be set")


@pytest.mark.parametrize("name", ["PYTHONOPTIMIZE", "PYTHONSAFEPATH"])
def test_what_is_set_for_a_python_of_others_does_not_reach_the_parts_of_up(name: str) -> None:
    script = (
        "import manage, os; from coordinator import environment as e; e.disregard_others(); print(sorted(os.environ))"
    )
    ended = _start(["-c", f"import sys; sys.path.insert(0, ''); {script}"], **{name: "1"})
    assert ended.returncode == 0
    assert name not in ended.stdout


def test_the_command_line_finds_the_clone_wherever_python_looks_for_modules(tmp_path: Path) -> None:
    ended = _start(PROGRAMS["manage"], PYTHONSAFEPATH="1", CONCLAVE_DATA=str(tmp_path / "data"), CONCLAVE_NODES="x")
    assert ended.stderr.startswith("CONCLAVE_NODES: expected")


def test_a_build_can_be_asked_for_where_python_keeps_no_docstrings() -> None:
    assert _start(["-m", "coordinator.compiling", "--help"], PYTHONOPTIMIZE="2").returncode == 0


def test_in_a_project_of_somebody_else_its_variables_stay() -> None:
    script = (
        "import os; from django.conf import settings; settings.configure(); import coordinator.celery as ours; "
        "print(os.environ['DJANGO_SETTINGS_MODULE'], ours.app.conf.broker_url)"
    )
    theirs = {"DJANGO_SETTINGS_MODULE": "shop.settings", "CELERY_BROKER_URL": "redis://theirs"}
    assert _start(["-c", script], **theirs).stdout == "shop.settings redis://theirs\n"


@pytest.mark.parametrize("program", ["celery", "reconciler", "manage"])
def test_a_data_directory_that_nobody_can_write_is_said_in_a_line(program: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = _start(PROGRAMS[program], CONCLAVE_DATA=str(tmp_path / "file" / "data"))
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert line.startswith("CONCLAVE_DATA: expected a directory that this user can write; ")


def test_a_node_whose_keys_are_damaged_says_which_in_a_line(tmp_path: Path) -> None:
    key = DataDirectory(tmp_path / "data").keys / "peer_key"
    key.write_text("short")
    node = [*PROGRAMS["node"], "-Q", "conclave.node.node1"]
    ended = _start(node, CONCLAVE_DATA=str(tmp_path / "data"), CONCLAVE_NODE="node1")
    assert ended.returncode == 1
    assert f"{key}: expected 64 hex digits; it holds something else\n" in ended.stderr
    assert "Traceback" not in ended.stderr


INTERRUPTED = """
import signal
import manage
signal.signal(signal.SIGINT, signal.default_int_handler)  # What was begun in the background has it ignored.
manage.execute_from_command_line = lambda _: signal.raise_signal(signal.SIGINT)
manage.main()
"""


def test_a_command_that_is_interrupted_ends_without_a_traceback() -> None:
    ended = _start(["-c", INTERRUPTED])
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGINT, "")
    assert ended.stderr == "interrupted; what was asked for until then may be done all the same\n"


@pytest.mark.parametrize("module", ["coordinator.announce", "coordinator.supervision"])
@pytest.mark.parametrize("arguments", [[], ["x"]])
def test_a_part_of_up_that_is_started_alone_says_how_it_is_used(module: str, arguments: list[str]) -> None:
    ended = _start(["-m", module, *arguments])
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"usage: python -m {module} ")


WITHOUT_PAGES = """
import sys
import coordinator.celery
coordinator.celery.app.loader.init_worker()
from coordinator.replica import bootstep
pages = {"django.db.models", "django.urls", "ninja", "unfold", "coordinator.api"}
print(sorted(pages & set(sys.modules)))
"""


def test_a_node_loads_nothing_of_pages_and_database(tmp_path: Path) -> None:
    ended = _start(["-c", WITHOUT_PAGES], CONCLAVE_DATA=str(tmp_path / "data"), CONCLAVE_NODE="node1")
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr


def test_what_is_asked_of_any_celery_program_is_answered(tmp_path: Path) -> None:
    """It shows all of Django's settings, those of the admin among them."""
    ended = _start(["-m", "celery", "-A", "coordinator", "report"], CONCLAVE_DATA=str(tmp_path / "data"))
    assert ended.returncode == 0, ended.stderr
    assert "UNFOLD" in ended.stdout
    node = {"CONCLAVE_DATA": str(tmp_path / "data"), "CONCLAVE_NODE": "node1"}
    ended = _start(["-c", "import coordinator.celery; print(coordinator.celery.app.bugreport())"], **node)
    assert ended.returncode == 0, ended.stderr
    assert "UNFOLD" not in ended.stdout


OTHER_THREAD = """
import threading
import coordinator.celery
from celery import current_app
threading.Thread(target=lambda: print(current_app.main)).start()
"""


def test_a_task_is_sent_by_our_app_from_any_thread(tmp_path: Path) -> None:
    ended = _start(["-c", OTHER_THREAD], CONCLAVE_DATA=str(tmp_path / "data"))
    assert (ended.returncode, ended.stdout) == (0, "coordinator\n"), ended.stderr


MODULES_ARE_KEPT = "import gc, coordinator.asgi; print(gc.isenabled(), gc.get_freeze_count() > 50_000)"


def test_the_web_process_collects_garbage_and_does_not_look_for_it_among_its_modules(tmp_path: Path) -> None:
    ended = _start(["-c", MODULES_ARE_KEPT], CONCLAVE_DATA=str(tmp_path / "data"))
    assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr


@pytest.mark.parametrize("arguments", [["help"], ["cluster", "--help"]], ids=" ".join)
def test_whoever_has_read_enough_of_a_command_ends_it_without_a_traceback(arguments: list[str], tmp_path: Path) -> None:
    """Where nothing is buffered, argparse itself passes over a reader that is gone, and newer Pythons keep nothing that
    could be written later."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    gone, theirs = os.pipe()
    os.close(gone)
    try:
        ended = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=buffered | {"CONCLAVE_DATA": str(tmp_path / "data")},
            cwd=PROJECT,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            timeout=START_S_MAX,
            check=False,
        )
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_who_serves_no_page_does_not_import_the_admins() -> None:
    """Where a driver of PostgreSQL is installed, they were half of what `up`, the reconciler and a command took."""
    script = (
        "import sys, django; django.setup(); "
        "print([name for name in ('coordinator.admin', 'coordinator.api', 'unfold.admin') if name in sys.modules])"
    )
    ended = _start(["-c", script], DJANGO_SETTINGS_MODULE="coordinator.settings")
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
