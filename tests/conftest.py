"""What all tests share: marks by directory, tools that may be missing, and a private Redis."""

from __future__ import annotations

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
    f"unit/replica/test_{what}.py" for what in ("lifecycle", "metrics", "restore", "snapshot_files", "states")
)
"""What is there all the same, and waits for threads of its own."""

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
    """A file goes to one process. (Not `--dist loadfile`, since what is first is to begin first.)"""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


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
        room = _room(item)
        if room in SLOW_ROOMS:
            item.add_marker(room)
        if room == "browser":
            item.add_marker("alone")
        if _is_in(item, CLOCKLESS) and not _is_in(item, CLOCKED):
            item.add_marker("clockless")
    # Side by side what takes longest begins first; the browser is not among that.
    last = -1 if hasattr(config, "workerinput") else 1
    items.sort(key=lambda item: last * (SLOW_ROOMS.index(_room(item)) + 1 if _room(item) in SLOW_ROOMS else 0))


def _is_in(item: pytest.Item, places: tuple[str, ...]) -> bool:
    return any(item.path.is_relative_to(TESTS / place) for place in places)


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") is not None and chromium() is None:
        without("Chromium")
    if item.get_closest_marker("interpreted") is not None and compiled.is_used():
        pytest.skip("it patches what compiled modules have built in")


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
