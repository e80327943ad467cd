"""How log lines are written, by Django, Celery, the web server and our own code alike: to standard error, which the
supervisor keeps.

`plain` is for a person. `json` is for a machine that gathers them: one object a line, with `time` (UTC), `level`,
`logger`, `message` and `process`; `node` in a worker that hosts one; `exc_info` where an exception is logged; and what
a call gives in `extra`.
"""

from __future__ import annotations

import datetime
import logging
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_HELD_BACK: Final = ("request", "server_time", "data", "args", "color_message")
"""What others give in `extra` and is no plain value (Django's request), or says again what the message says."""


class JsonLines(JsonFormatter):
    def __init__(self, node: str | None = None) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message", "process"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields={"node": node} if node else {},
            reserved_attrs=[*RESERVED_ATTRS, *_HELD_BACK],
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settings(manner: str, *, node: str | None = None) -> dict[str, Any]:
    """For `logging.config.dictConfig`. `manner`: one of `coordinator.config.LOG_MANNERS`."""
    own: dict[str, Any] = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            # Without a leader every call and every probe answers 503: that is an answer, and no line in the log each
            # time.
            "no_503": {
                "()": "django.utils.log.CallbackFilter",
                "callback": lambda record: getattr(record, "status_code", 0) != 503,
            }
        },
        "formatters": {
            "plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
            "json": {"()": JsonLines, "node": node},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": manner}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "django": own,
            "django.request": {"level": "ERROR", "filters": ["no_503"]},
            "httpx": {"level": "WARNING"},
            # The web server brings handlers of its own, which these replace.
            "uvicorn": own,
            "uvicorn.error": {"handlers": [], "level": "INFO", "propagate": True},
            # A line for each request would name every lock and key, and stand in every request's way where the log's
            # reader stalls. The server switches it off, and whatever is below a logger that is named here is on again.
            "uvicorn.access": {"handlers": [], "propagate": False},
        },
    }
