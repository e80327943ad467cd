"""Django's settings for tests: those of an installation of its own, in a directory that goes when the tests end.

Nothing that the environment says about a real installation gets through.
"""

import atexit
import os
import shutil
import tempfile

for _name in list(os.environ):
    if _name.startswith("CONCLAVE_") or _name in {"REDIS_URL", "DATABASE_URL"}:
        del os.environ[_name]
_directory = tempfile.mkdtemp(prefix="conclave-tests-")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
os.environ["CONCLAVE_DATA"] = _directory

from coordinator.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""Fast, where nothing is to be kept from anybody."""

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
"""Pages can be rendered without collecting their files first."""
