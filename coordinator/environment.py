"""Variables of other programs, which a team that runs Django and Celery may have set for its own, and which the parts
of an installation would heed: another settings module, another broker, several web servers at once, a Python
without assertions.
"""

from __future__ import annotations

import os
from typing import Final

SETTINGS_MODULE: Final = "coordinator.settings"
_OF_CELERY: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_LOADER",
)
"""Celery takes these before any settings."""
_OF_PYTHON: Final = ("PYTHONOPTIMIZE", "PYTHONSAFEPATH")
"""The first takes out the assertions, which state what must hold and are to stay on; with the second, parts that `up`
starts by the name of a module are not found in the clone."""
_OF_THE_WEB_SERVER: Final = "WEB_CONCURRENCY"
_PREFIX_OF_THE_WEB_SERVER: Final = "UVICORN_"


def is_ours() -> bool:
    """Is this a program of an installation? False where somebody else's Django project has the app installed."""
    from django.conf import settings

    return not settings.configured or settings.SETTINGS_MODULE == SETTINGS_MODULE


def disregard_others() -> None:
    """What is meant for others goes from the environment of this process, and of those that it starts."""
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS_MODULE
    for name in [*os.environ]:
        if name in {*_OF_CELERY, *_OF_PYTHON, _OF_THE_WEB_SERVER} or name.startswith(_PREFIX_OF_THE_WEB_SERVER):
            del os.environ[name]
