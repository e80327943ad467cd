"""Django's settings, and Celery's under the prefix CELERY_.

Everything that differs between two installations comes from the environment and the data directory, by way of
`coordinator.config`; this file only says what Django makes of it. It opens no connection, and writes nothing but what
the data directory creates on first use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dj_database_url

from coordinator import logs
from coordinator.config import url_for_celery
from coordinator.data_directory import installation

BASE_DIR = Path(__file__).resolve().parent.parent

CONCLAVE, DATA = installation()

# --- what answers, and to whom --------------------------------------------------------------------

DEBUG = False
SECRET_KEY = DATA.secret_key()

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *(re.sub(r":\d+$", "", host) for host in CONCLAVE.hosts)]
CSRF_TRUSTED_ORIGINS = [
    f"{scheme}://{re.sub(r'^[.]', '*.', host)}" for host in CONCLAVE.hosts for scheme in ("https", "http")
]
"""Beside the origin that a request was itself made to, which always counts. Scheme and client address that a trusted
proxy tells are put into the request by the web server, so nothing here reads a proxy's headers."""

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

SESSION_ENGINE = "coordinator.sign_ins"
# Cookies know no ports: without the port in their names, signing in to one copy would sign out of the one beside it,
# and keep its open pages from renewing their locks.
SESSION_COOKIE_NAME = f"conclave_session_{CONCLAVE.port}"
SESSION_COOKIE_AGE = 7 * 24 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = f"conclave_csrf_{CONCLAVE.port}"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"

DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
"""Twice the largest value that a key may have; `coordinator.asgi` refuses more before it is spooled."""

LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = LOGIN_URL

# --- the parts ------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "coordinator.apps.ConclaveConfig",
    "dashboard.apps.DashboardConfig",
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    # Its pages are registered with the addresses (coordinator/urls.py): who serves none, as `manage.py up`, the
    # reconciler and most commands, is spared importing them, a third of such a program's start.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "channels",
    "ninja",
]

# Each of them is async-capable: one that is not would put the rest of the request into a thread, where the
# departure of an HTTP client no longer cancels the view that waits for its lock.
MIDDLEWARE = [
    "coordinator.middleware.NoteRoute",
    "coordinator.middleware.content_security_policy",
    "coordinator.middleware.api_errors_are_json",
    "coordinator.middleware.WithoutDatabase",
    "coordinator.on_the_loop.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "coordinator.on_the_loop.SessionMiddleware",
    "coordinator.on_the_loop.CommonMiddleware",
    "coordinator.on_the_loop.CsrfViewMiddleware",
    "coordinator.on_the_loop.AuthenticationMiddleware",
    "coordinator.middleware.LoginRequired",
    "coordinator.on_the_loop.MessageMiddleware",
    "coordinator.on_the_loop.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "coordinator.urls"
ASGI_APPLICATION = "coordinator.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- the database: a record, never a decision (rule 1) --------------------------------------------

DATABASE_BUSY_S_MAX = 5

_POSTGRES_OPTIONS = {
    "connect_timeout": DATABASE_BUSY_S_MAX,
    "tcp_user_timeout": DATABASE_BUSY_S_MAX * 1_000,
    "keepalives_idle": DATABASE_BUSY_S_MAX,
    "keepalives_interval": DATABASE_BUSY_S_MAX,
}
"""One that does not answer, or is cut off, is given up as soon as SQLite gives up a file that another has locked. Its
driver would wait for ever for the first, and for a quarter of an hour or longer for the second."""


_SQLITE_OPTIONS = {
    "timeout": DATABASE_BUSY_S_MAX,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
"""Who reads and then writes waits for others from the beginning: else two of them that meet fail at once."""


def database_at(url: str) -> dict[str, Any]:
    """What Django is told of the database at such an address. What its query says goes before what is said here. A file
    without a directory is in the clone, where all parts run, from wherever a command is given."""
    database: dict[str, Any] = {**dj_database_url.parse(url)}
    if database["ENGINE"] == "django.db.backends.postgresql":
        database["OPTIONS"] = _POSTGRES_OPTIONS | database.get("OPTIONS", {})
    elif database["ENGINE"] == "django.db.backends.sqlite3":
        database["OPTIONS"] = _SQLITE_OPTIONS | database.get("OPTIONS", {})
        if not database["NAME"].startswith("file:"):
            database["NAME"] = str(BASE_DIR / database["NAME"])
    return database


DATABASES: dict[str, Any] = {
    "default": database_at(CONCLAVE.database_url)
    if CONCLAVE.database_url
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA.database, "OPTIONS": _SQLITE_OPTIONS}
}

# --- static files ---------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = DATA.path / "static"
"""In the data directory: two copies that run from one checkout do not rewrite each other's files."""
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "coordinator.static_storage.StaticStorage"},
}
SERVESTATIC_ALLOW_ALL_ORIGINS = False

# --- Celery ---------------------------------------------------------------------------------------

_celery_prefix = {"global_keyprefix": f"conclave:{DATA.realm()}:celery:"}
BROKER_ANSWER_S_MAX = 5.0
"""A Redis that takes longer to answer a command counts as lost. Well above the second for which a worker without work
has Redis hold back its answer (BRPOP), and above any pause of a Redis that is well."""
BROKER_CONNECT_S_MAX = 3.0

CELERY_BROKER_URL = url_for_celery(DATA.node_redis_url(CONCLAVE))
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
CELERY_BROKER_TRANSPORT_OPTIONS = _celery_prefix | {
    "socket_timeout": BROKER_ANSWER_S_MAX,
    "socket_connect_timeout": BROKER_CONNECT_S_MAX,
}
CELERY_BROKER_CONNECTION_TIMEOUT = BROKER_CONNECT_S_MAX
"""A command that connects tries once more only where it was told no within this time. Workers try for ever."""
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = _celery_prefix
CELERY_REDIS_SOCKET_TIMEOUT = BROKER_ANSWER_S_MAX
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = BROKER_CONNECT_S_MAX
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
"""For ever: with the default of 100 a worker, and the replica on it, would end after 45 minutes without a broker."""
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
"""A Redis that answers with an error, since it is full, read-only, or lacks a permission, counts as lost, too: else it
would end every worker, and the replica on it, at once. `coordinator.replica.consumer` sees to the rest."""
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_RESULT_EXPIRES = 3600
CELERY_TASK_DEFAULT_QUEUE = "conclave"
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = False

# --- logging: to standard error, which the supervisor keeps -----------------------------------------

LOGGING = logs.settings(CONCLAVE.log, node=CONCLAVE.node)

# --- the admin's look -----------------------------------------------------------------------------

if CONCLAVE.node is None:  # A node reads these settings, too, and loads nothing of pages.
    from coordinator.admin_look import UNFOLD  # noqa: F401
