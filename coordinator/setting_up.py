"""The steps that make an installation out of an empty data directory, each of which may be cut off and run again.

Belongs here: taking hold of the data directory, the first births, the database, static files, the administrator. Does
not belong here: keeping anything running (`coordinator.supervision`), and any decision about a cluster that exists:
that is the log's alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import itertools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, Self

import django
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection, transaction

from coordinator import database_errors
from coordinator.config import PROJECT, Config, ConfigError, address_for_others
from coordinator.data_directory import DataDirectory
from coordinator.models import Cluster
from coordinator.supervision import launched

CLUSTER: Final = "default"
ADMINISTRATOR: Final = "admin"
BIRTHS_S_MAX: Final = 60.0
PASSWORD_BYTES: Final = 12
LOOPBACK: Final = "127.0.0.1"
PORT_MAX: Final = 65_535


SETTING_UP: Final = 0x636F6E636C617665
"""The number of PostgreSQL's advisory lock for setting a database up; any, that nobody else takes."""


class SetUpError(Exception):
    """A step could not be done; the message says which and why."""


class NotThereNow(SetUpError):
    """The database does not answer, or lets nobody in."""


# --- one `up` for each data directory -------------------------------------------------------------


def hold(data: DataDirectory) -> None:
    """Lock the data directory for as long as this process lives, whatever program it becomes. Raises SetUpError where
    another holds it, or where part of it is not this user's to write."""
    for name in ("keys", "log", "metrics", "nodes", "redis", "run", "static"):
        path = data.path / name
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            raise SetUpError(
                f"CONCLAVE_DATA: expected a directory that this user can write; {path} is not: whose is it?"
            )
    lock = data.run / "up.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetUpError(
            f"CONCLAVE_DATA: expected a directory that this user can write; {lock}: {error.strerror}"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode("ascii", "replace").strip()
        raise SetUpError(
            f"Conclave already runs on {data.path} (process {holder}). Stop that one first, or give this one another "
            "CONCLAVE_DATA and CONCLAVE_PORT"
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    os.set_inheritable(handle, True)  # noqa: FBT003


# --- ports ----------------------------------------------------------------------------------------


def metrics_ports(config: Config, data: DataDirectory) -> dict[str, int]:
    """The port of each node's metrics; none where they are off. Raises ConfigError where there is no room for all."""
    if config.metrics_port == 0:
        return {}
    if config.metrics_port is None:
        return {name: data.metrics_port(name, config) for name in config.node_names}
    if config.metrics_port + config.nodes - 1 > PORT_MAX:
        raise ConfigError(
            f"CONCLAVE_METRICS_PORT: expected a port with room for {config.nodes} of them up to {PORT_MAX}; "
            f"came {config.metrics_port}"
        )
    return dict(zip(config.node_names, itertools.count(config.metrics_port), strict=False))


def require_ports_of_their_own(config: Config, data: DataDirectory) -> None:
    """Nobody listens yet, so that all ports look free: what two parts are to have, one would never get. Raises
    ConfigError."""
    redis = None if config.redis_url else data.redis_state({config.port}).port
    if redis == config.port and _meet(config.bind, LOOPBACK):
        raise ConfigError(
            f"CONCLAVE_PORT: expected another port than the embedded Redis keeps ({data.redis / 'state.json'}); "
            f"came {config.port}"
        )
    for node, port in metrics_ports(config, data).items():
        if port == config.port and _meet(config.metrics_bind, config.bind):
            raise _shared(config, data, node, "the page", port)
        if port == redis and _meet(config.metrics_bind, LOOPBACK):
            raise _shared(config, data, node, "the embedded Redis", port)


def _shared(config: Config, data: DataDirectory, node: str, other: str, port: int) -> ConfigError:
    if config.metrics_port is None:
        kept = data.path / "metrics" / node
        return ConfigError(
            f"CONCLAVE_PORT: expected another port than is kept for the metrics of {node} ({kept}); came {port}"
        )
    return ConfigError(
        f"CONCLAVE_METRICS_PORT: expected the first of {config.nodes} ports in a row, for a node each, none of which "
        f"is that of {other}, {port}; came {config.metrics_port}"
    )


def _meet(one: str, other: str) -> bool:
    """Can two servers not have the same port at these addresses?"""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first == second or first.is_unspecified or second.is_unspecified


# --- nodes and their first cluster ----------------------------------------------------------------


def _has_record() -> bool:
    try:
        tables = connection.introspection.table_names()
        return Cluster._meta.db_table in tables and Cluster.objects.filter(name=CLUSTER).exists()
    except DatabaseError as error:
        raise _no_database(error) from None
    finally:
        connection.close()


class Births:
    """The first journals of all nodes, made by a process of its own while the database is prepared."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @classmethod
    def begin(cls, config: Config, data: DataDirectory) -> Self | None:
        """None where anything says that the cluster exists or existed: a node's directory, or a record of it. Then its
        workers start with what they have, and wait where they have nothing; no `up` ever makes it a second time."""
        if data.nodes_on_disk() or _has_record():
            data.require_keys()
            data.make_secrets()
            return None
        data.make_secrets()
        if data.nodes.is_dir():
            data.nodes.rmdir()
        command = [sys.executable, "-m", "coordinator.replica.births", "--nodes-directory", str(data.nodes)]
        command += ["--nodes", ",".join(config.node_names), "--cluster", CLUSTER]
        if config.node_redis:  # Before they have heard one another nothing else tells them where.
            command += ["--address", address_for_others(config.node_redis)]
        process = subprocess.Popen(
            launched(command, parent=os.getpid(), directory=PROJECT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stdin: IO[str] | None = process.stdin
        assert stdin is not None
        stdin.write(f"{data.web_token()}\n")
        stdin.close()
        process.stdin = None
        return cls(process)

    def finish(self) -> str:
        """Wait for the journals, then write the record; returns the cluster's identity. Raises SetUpError."""
        try:
            answer, complaint = self.process.communicate(timeout=BIRTHS_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SetUpError(f"making the first journals took longer than {BIRTHS_S_MAX:.0f} s") from None
        identity = answer.strip()
        if self.process.returncode != 0 or not re.fullmatch(r"[0-9a-f]{1,16}", identity):
            last = (complaint.strip().splitlines() or ["no reason given"])[-1]
            raise SetUpError(f"the first journals could not be made: {last}")
        try:
            Cluster.objects.get_or_create(cluster_id=identity, defaults={"name": CLUSTER})
        except DatabaseError as error:
            raise _no_database(error) from None
        return identity


def about_nodes(config: Config, data: DataDirectory) -> list[str]:
    """What it means that the nodes on disk are not those that CONCLAVE_NODES asks for. Empty before first births."""
    present, wanted = data.nodes_on_disk(), config.node_names
    if not present:
        return (
            ["the record knows the cluster, and no node has a journal: the nodes start and wait"]
            if _has_record()
            else []
        )
    lines = []
    without = [name for name in wanted if name not in present]
    if without:
        lines.append(
            f"{', '.join(without)}: no directory under {data.nodes}, so no journal. Starts and waits: CONCLAVE_NODES "
            "is how many workers run here and adds nobody to a cluster, and a node that lost its disk is a new one"
        )
    left_out = [name for name in present if name not in wanted]
    if left_out:
        lines.append(
            f"{', '.join(left_out)}: has a directory and is not started, because CONCLAVE_NODES is {config.nodes}. "
            "It is still a member of its clusters, which count it as one that is down"
        )
    return lines


# --- the web tier ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One after the other, where several set up the same database at the same time. SQLite sees to that by itself.

    A connection of its own holds the lock, in a transaction: so it is let go with the process, and through a pooler.
    """
    if connection.vendor != "postgresql":
        yield
        return
    holding: Any = connection.copy()
    try:
        holding.set_autocommit(False)
        with holding.cursor() as cursor:
            for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):  # The role may have some.
                cursor.execute(f"SET LOCAL {limit} = 0")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SETTING_UP])
        yield
    finally:
        holding.close()


def _require_encoding() -> None:
    """Else what people write is refused there, and the audit lacks it. Raises SetUpError."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone()
    if encoding != "UTF8":
        raise SetUpError(f"DATABASE_URL: expected a database that was made with the encoding UTF8; came {encoding}")


def migrate() -> None:
    """Bring the database's tables up to date. Raises SetUpError; NotThereNow where the database does not answer."""
    try:
        connection.ensure_connection()
    except OperationalError as error:
        raise NotThereNow(str(_no_database(error))) from None
    except DatabaseError as error:  # A file that is damaged: all that is left is said, and no server comes back.
        raise _no_database(error) from None
    try:
        with _alone():
            _require_encoding()
            call_command("migrate", interactive=False, verbosity=0)
    except DatabaseError as error:
        raise _no_database(error) from None


def _no_database(error: DatabaseError) -> SetUpError:
    advice = database_errors.what_to_do(error)
    return SetUpError(
        f"the database (DATABASE_URL, or db.sqlite3 in the data directory) cannot be used: {error}{advice}"
    )


def collect_static_files(data: DataDirectory) -> None:
    """Gather the pages' files, unless none has changed since they were last gathered: that takes seconds."""
    from django.conf import settings

    stamp = data.run / "static.stamp"
    fingerprint = _fingerprint_of_static_files()
    manifest = os.path.join(settings.STATIC_ROOT, "staticfiles.json")
    if os.path.exists(manifest) and stamp.exists() and stamp.read_text() == fingerprint:
        return
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(fingerprint)


def _fingerprint_of_static_files() -> str:
    digest = hashlib.blake2b(django.__version__.encode(), digest_size=16)
    for finder in get_finders():
        for name, storage in finder.list([]):
            status = os.stat(storage.path(name))
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def make_administrator(config: Config, say: Callable[[str], None]) -> None:
    """The first administrator, where there is none yet. A generated password is said once, before the account is
    committed: cut off between the two, the next `up` makes another. Raises ConfigError where the one that was given
    would not be taken on a page either."""
    people = get_user_model().objects
    try:
        if people.filter(is_superuser=True).exists():
            return
        if people.filter(username=ADMINISTRATOR).exists():
            say(f"nobody is an administrator, and {ADMINISTRATOR} is somebody's name: run manage.py createsuperuser")
            return
        with _alone(), transaction.atomic():
            if people.filter(is_superuser=True).exists():
                return  # Another `up` was quicker.
            if config.admin_password:
                _require_a_good_password(config.admin_password)
            password = config.admin_password or secrets.token_urlsafe(PASSWORD_BYTES)
            people.create_superuser(ADMINISTRATOR, "", password)
            if config.admin_password:
                say(f"made the administrator {ADMINISTRATOR}, with the password from CONCLAVE_ADMIN_PASSWORD")
            else:
                say(f"made the administrator {ADMINISTRATOR}, password {password} (said this once)")
    except DatabaseError as error:
        raise _no_database(error) from None
    finally:
        connection.close()


def _require_a_good_password(password: str) -> None:
    """Raises ConfigError, which does not name it."""
    try:
        validate_password(password, get_user_model()(username=ADMINISTRATOR))
    except ValidationError as error:
        raise ConfigError(
            f"CONCLAVE_ADMIN_PASSWORD: expected a password that the pages would take, too. {' '.join(error.messages)}"
        ) from None
