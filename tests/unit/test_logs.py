"""Log lines as JSON: what stands in one, and that everybody writes them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator import logs
from coordinator.config import PROJECT


def line(node: str | None = None, **more: Any) -> dict[str, Any]:
    """What the formatter makes of one record."""
    fields = {
        "name": "coordinator.x",
        "levelno": logging.WARNING,
        "levelname": "WARNING",
        "process": 7,
        "created": 1.25,
    }
    record = logging.makeLogRecord(fields | {"msg": "%s is deaf: %s", "args": ("node1", "“gone”\nand gone")} | more)
    text = logs.JsonLines(node).format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_says_when_how_bad_who_and_what() -> None:
    assert line() == {
        "time": "1970-01-01T00:00:01.250Z",
        "level": "WARNING",
        "logger": "coordinator.x",
        "message": "node1 is deaf: “gone”\nand gone",
        "process": 7,
    }


def test_a_worker_names_its_node() -> None:
    assert line("node2")["node"] == "node2"


def test_an_exception_is_in_the_line_and_what_is_extra_too() -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        found = line(exc_info=sys.exc_info(), status_code=500, odd=Path("/x"))
    assert found["exc_info"].endswith("ValueError: no such thing")
    assert found["status_code"] == 500
    assert "/x" in found["odd"]


def test_a_request_does_not_get_into_the_line() -> None:
    assert "request" not in line(request=object())


PROGRAM = """
import logging, warnings
import coordinator.celery
from coordinator.celery import app
app.log.setup(loglevel="INFO")
for name in ("celery.worker", "kombu", "django", "django.request", "uvicorn.error", "coordinator.replica.host"):
    logging.getLogger(name).error("said by %s", name)
warnings.warn("said by warnings")
"""


@pytest.mark.parametrize("manner", ["json", "plain"])
def test_celery_django_and_the_web_server_write_as_we_do(tmp_path: Path, manner: str) -> None:
    environment = os.environ | {
        "CONCLAVE_DATA": str(tmp_path),
        "CONCLAVE_LOG": manner,
        "CONCLAVE_NODE": "node1",
        "DJANGO_SETTINGS_MODULE": "coordinator.settings",
    }
    program = [sys.executable, "-c", PROGRAM]
    said = subprocess.run(program, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert not said.stdout
    lines = said.stderr.splitlines()
    names = ["celery.worker", "kombu", "django", "django.request", "uvicorn.error", "coordinator.replica.host"]
    if manner == "json":
        found = [json.loads(text) for text in lines]
        assert [(each["logger"], each["message"]) for each in found[:-1]] == [(n, f"said by {n}") for n in names]
        assert {each["node"] for each in found} == {"node1"}
        assert found[-1]["logger"] == "py.warnings"
        assert "said by warnings" in found[-1]["message"]
    else:
        for name, text in zip(names, lines, strict=False):
            assert text.endswith(f" ERROR {name}: said by {name}")
