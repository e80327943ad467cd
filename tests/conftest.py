"""What all tests share: marks by directory, tools that may be missing, and a private Redis."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from coordinator import compiled, ports
from tests.integration.private_redis import PrivateRedis

TESTS = Path(__file__).parent

settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")  # How long an example takes on the wall is the machine's affair.

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


SLOW_ROOMS = ("integration", "browser")
"""In the order in which they come, after all others. The browser is last for another reason, too: its driver keeps an
event loop running in the main thread, beside which no asynchronous test can run its own."""


CLOCKLESS = (
    "simulation",
    "test_core_coverage.py",
    "unit/consensus",
    "unit/linearizability",
    "unit/replica",
    "unit/statemachine",
)
"""Rooms and files in which nothing is judged by a clock: no time passes but what a test says, or a processor counts."""

CLOCKED = tuple(
    f"unit/replica/test_{what}.py"
    for what in ("backups", "births", "damaged_replicas", "lifecycle", "metrics", "restore", "snapshot_files", "states")
)
"""What is there all the same, and waits for threads of its own."""

OF_PLACES = ("integration", "browser", "alone", "clockless")
"""Marks that a test may have for where it stands."""

SHARED = tuple(
    f"tests/integration/test_{what}.py"
    for what in (
        "broker",
        "clients",
        "compiled",
        "fencing",
        "garbage",
        "http_api",
        "http_api_failures",
        "leaders_duties",
        "lock_events",
        "quorum",
        "recipes",
        "restore",
    )
)
"""What runs on the one installation of its process (`tests/integration/conftest.py`)."""

SETTINGS = (
    "CONCLAVE_DATA",
    "CONCLAVE_PORT",
    "CONCLAVE_PORTS",
    "CONCLAVE_BIND",
    "CONCLAVE_HOSTS",
    "CONCLAVE_PROXIES",
    "CONCLAVE_NODES",
    "CONCLAVE_ADMIN_PASSWORD",
    "CONCLAVE_FAULTS",
    "CONCLAVE_NODE",
    "CONCLAVE_METRICS_BIND",
    "CONCLAVE_METRICS_PORT",
    "CONCLAVE_METRICS_TOKEN",
    "CONCLAVE_LOG",
    "CONCLAVE_COMPILED",
    "CONCLAVE_NODE_REDIS",
    "CONCLAVE_SPARE_MS",
    "REDIS_URL",
    "DATABASE_URL",
)
"""Environment variables of an operator."""


class ByFile(LoadScopeScheduling):
    """A file goes to one process, and so do all files that share an installation: to start a second one and to keep it
    costs more of the processors than most of these tests. (Not `--dist loadfile`, since what is first is to begin
    first.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED[0] if file in SHARED else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Of several processes each has ports of its own. One that is kept is free while nobody runs there."""
    if hasattr(config, "workerinput"):
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        own = ports_of(number, config.workerinput["workercount"])
        mock.patch.object(ports, "OF_OUR_OWN", own).start()


def ports_of(number: int, processes: int, among: range = ports.OF_OUR_OWN) -> range:
    """Those of the process of that number, from 0 on."""
    count = len(among) // processes
    return among[number * count : (number + 1) * count]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in marks_of(item.path):
            item.add_marker(mark)
    # Side by side what takes longest begins first; the browser is not among that.
    last = -1 if hasattr(config, "workerinput") else 1
    items.sort(key=lambda item: last * (SLOW_ROOMS.index(room) + 1 if (room := _room(item.path)) in SLOW_ROOMS else 0))


@functools.cache
def marks_of(path: Path) -> tuple[str, ...]:
    """Of all tests in that file or directory, for where it stands."""
    room = _room(path)
    marks = [room] if room in SLOW_ROOMS else []
    if room == "browser":
        marks.append("alone")
    clocked = any((TESTS / place).is_relative_to(path) for place in CLOCKED)
    if not clocked and any(path.is_relative_to(TESTS / place) for place in CLOCKLESS):
        marks.append("clockless")
    return tuple(marks)


@functools.cache
def _room(path: Path) -> str:
    return next(iter(path.relative_to(TESTS).parts), "") if path.is_relative_to(TESTS) else ""


# --- what is read ---------------------------------------------------------------------------------


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `-m` leaves out for where it stands is not read: that takes longer than many tests."""
    return True if not may_have(collection_path, config.option.markexpr) else None


def may_have(path: Path, wanted: str) -> bool:
    """Whether a file or directory may have tests of these marks: those that it has for its place, and those that stand
    in the file. Of an expression with more than `and` and `not` nothing is known."""
    if " or " in wanted or "(" in wanted:
        return True
    terms = {term.strip() for term in wanted.split(" and ")}
    if any(f"not {mark}" in terms for mark in marks_of(path)):
        return False
    missing = terms.intersection(OF_PLACES).difference(marks_of(path))
    if not missing or not path.name.startswith("test_") or path.is_dir():
        return True
    text = path.read_text(encoding="utf-8")
    return all(f"mark.{mark}" in text for mark in missing)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Where several processes read the same, each begins with another part of it: of what is new, pytest rewrites each
    assertion, and what one has rewritten the others find in a file."""
    if collector.path != TESTS:
        return
    gc.disable()  # Next to nothing of what is read is garbage.
    worker = getattr(collector.config, "workerinput", None)
    if worker is None:
        return
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in share_of(number, count, files_of(collector.config)):
        # Whatever it raises, it raises again where pytest reads it, and says whose it is.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))


def files_of(config: pytest.Config) -> list[Path]:
    """Of tests, below what pytest was asked for."""
    asked = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    found = {path for each in asked for path in (each.rglob("test_*.py") if each.is_dir() else [each])}
    return sorted(path for path in found if path.is_relative_to(TESTS) and may_have(path, config.option.markexpr))


def share_of(number: int, count: int, files: list[Path]) -> list[Path]:
    """Of the process of that number, from 0 on."""
    return files[len(files) * number // count : len(files) * (number + 1) // count]


def pytest_collection_finish() -> None:
    """What was read stays to the end: it is not looked through for garbage with each test."""
    gc.collect()
    gc.freeze()
    gc.enable()


# --- what tests need ------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") is not None and chromium() is None:
        without("Chromium")
    if item.get_closest_marker("interpreted") is not None and compiled.is_used():
        pytest.skip("it patches what compiled modules have built in, or reads their source")


def without(tool: str, by: str = "tests/tools.sh") -> None:
    """Skip the test because a tool is not installed; where CI=true that is a failure instead."""
    reason = f"{tool} is not installed; {by} installs it where that is allowed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def chromium() -> str | None:
    """The path of the browser."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name)) is not None), None)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which the operator has set nothing."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def build() -> Path:
    """Where what was compiled of these very sources is."""
    path = compiled.BUILDS / compiled.digest()
    if not compiled.modules_of(path):
        without("a build of these sources (make compile)")
    return path


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """A real Redis of this test run, with `.url` for nodes and `.client_url` for clients, as `manage.py up` runs it."""
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server
