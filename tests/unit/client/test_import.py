"""`import coordinator.client` loads neither Celery nor Django: it goes into other people's programs."""

from __future__ import annotations

import subprocess
import sys

from coordinator.config import PROJECT

BLOCKED = """
import sys
for name in ("celery", "kombu", "django", "channels", "redis", "sqlite3"):
    sys.modules[name] = None
import coordinator.client
import coordinator.client.__main__
assert not [m for m in sys.modules if m.startswith(("coordinator.replica", "dashboard"))]
"""


def test_the_client_imports_with_celery_and_django_blocked() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
