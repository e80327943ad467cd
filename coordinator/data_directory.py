"""The data directory: everything that an installation keeps on disk, its secrets first of all.

Belongs here: what lies where in it, and how it comes into being once. Does not belong here: what an operator sets
(`coordinator/config.py`), and what is inside a node's directory (`coordinator/replica/`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from coordinator import wire
from coordinator.config import Config, ConfigError, load_config
from coordinator.ports import free_port

NODE_USER: Final = "conclave-node"
CLIENT_USER: Final = "conclave-client"
SECRET_BYTES: Final = 32
PASSWORD_BYTES: Final = 24
SOCKET_PATH_BYTES_MAX: Final = 107
"""Of a Unix socket, on Linux."""
KEYS_OF_NODES: Final = ("peer_key", "realm", "web_token")
"""Files that are made before any node, and never anew beside one."""


class RedisState(NamedTuple):
    """What the embedded Redis keeps over restarts, so that addresses and tokens given out stay good."""

    port: int
    node_password: str
    client_password: str


class DataDirectory:
    """Everything that an installation keeps. Directories and secrets come into being on first use; of two processes
    that race for a secret both get the same one. `ports`: from which it picks those that it keeps; None: those of our
    own. Raises ConfigError where the disk says no."""

    def __init__(self, path: Path, ports: range | None = None) -> None:
        self.path = path
        self._ports = ports

    @classmethod
    def of(cls, config: Config) -> DataDirectory:
        return cls(config.data, config.ports)

    @property
    def nodes(self) -> Path:
        """One directory for each node; made by births alone, all at once."""
        return self.path / "nodes"

    @property
    def database(self) -> Path:
        return self._ready() / "db.sqlite3"

    @property
    def log(self) -> Path:
        return self._directory("log")

    @property
    def run(self) -> Path:
        return self._directory("run")

    @property
    def keys(self) -> Path:
        return self._directory("keys")

    @property
    def redis(self) -> Path:
        return self._directory("redis")

    def secret_key(self) -> str:
        """What Django signs sessions with."""
        return self._hex_key("secret_key")

    def require_keys(self) -> None:
        """Raises ConfigError where nodes are there, and not all by which they know one another and this installation:
        what is made anew, they would not know."""
        missing = [name for name in KEYS_OF_NODES if not (self.path / "keys" / name).exists()]
        if missing and self.nodes_on_disk():
            raise ConfigError(
                f"{self.path / 'keys'} lacks {' and '.join(missing)}, by which the nodes in {self.nodes} know one "
                "another and this installation: put the files back from a copy of the data directory"
            )

    def nodes_on_disk(self) -> list[str]:
        return sorted(entry.name for entry in self.nodes.iterdir() if entry.is_dir()) if self.nodes.is_dir() else []

    def peer_key(self) -> bytes:
        """What nodes sign their messages to one another with. No client ever has it."""
        self.require_keys()
        return bytes.fromhex(self._hex_key("peer_key"))

    def realm(self) -> str:
        """The name of this installation in channel names, so that several can share a Redis."""
        self.require_keys()
        path = self.keys / "realm"
        text = _kept(path, lambda: secrets.token_hex(4))
        if not wire.REALM.fullmatch(text):
            raise ConfigError(f"{path}: expected 8 hex digits; came {text[:80]!r}")
        return text

    def web_token(self) -> wire.Token:
        """The credential of the web process, principal `web`, which may act for others."""
        path = self.keys / "web_token"
        realm = self.realm()
        text = _kept(path, lambda: str(wire.Token.new(realm)))
        try:
            return wire.Token.parse(text)
        except ValueError:
            raise ConfigError(
                f"{path}: expected a token of the form conclave_REALM_ID_SECRET; it holds something else"
            ) from None

    def make_secrets(self) -> None:
        """All of them, before anything is made that knows them: what was cut off then never lacks one later."""
        self.secret_key()
        self.peer_key()
        self.web_token()
        self.redis_state()

    def redis_state(self, kept: Collection[int] = ()) -> RedisState:
        """`kept`: ports that it must not pick where it has none yet."""
        path = self.redis / "state.json"
        text = _kept(path, lambda: self._new_redis_state(kept))
        try:
            fields = json.loads(text)
            state = RedisState(int(fields["port"]), str(fields["node_password"]), str(fields["client_password"]))
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}: expected an object with port, node_password and client_password") from None
        if not 1 <= state.port <= 65_535:
            raise ConfigError(f"{path}: expected a port number from 1 to 65535; came {state.port}")
        return state

    def metrics_port(self, node: str, config: Config) -> int:
        """The port that is kept for a node's metrics."""
        path = self._directory("metrics") / node
        text = _kept(path, lambda: str(free_port({config.port, *self.ports_kept()}, self._ports)))
        if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
            raise ConfigError(f"{path}: expected a port number from 1 to 65535; came {text[:80]!r}")
        return int(text)

    def _new_redis_state(self, kept: Collection[int]) -> str:
        """The clients' password follows from the peer key: a client that was given it on one machine of an installation
        goes on at the nodes of the others, each of which lets it in by what its own data directory says."""
        passwords = {
            "node_password": secrets.token_hex(PASSWORD_BYTES),
            "client_password": hashlib.blake2b(
                self.peer_key(), digest_size=PASSWORD_BYTES, person=b"conclave-redis"
            ).hexdigest(),
        }
        return json.dumps({"port": free_port(kept, self._ports), **passwords}, indent=2)

    def ports_kept(self) -> set[int]:
        """Those that nobody may listen on yet."""
        texts = [path.read_text(encoding="utf-8") for path in (self.path / "metrics").glob("[!.]*")]
        ports = {int(text) for text in texts if text.strip().isdecimal()}
        return ports | ({self.redis_state().port} if (self.redis / "state.json").exists() else set())

    def client_password(self) -> str:
        """The password of the clients' user, on whichever Redis."""
        return self.redis_state().client_password

    def redis_socket(self) -> Path | None:
        """The Unix socket of the embedded Redis, for processes of this user; None where none can have that path."""
        path = self.redis / "redis.sock"
        return path if path.is_absolute() and len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX else None

    def _socket_fragment(self) -> str:
        """As part of a URL, which whoever knows nothing of it overlooks (`channel.Endpoint`)."""
        path = self.redis_socket()
        return "" if path is None else f"#{quote(str(path))}"

    def node_redis_url(self, config: Config) -> str:
        """The Redis of the web tier, and of all nodes that have none of their own; it carries a password."""
        if config.redis_url is not None:
            return config.redis_url
        state = self.redis_state({config.port})
        return f"redis://{NODE_USER}:{state.node_password}@127.0.0.1:{state.port}/0{self._socket_fragment()}"

    def mailbox_redis_url(self, config: Config) -> str:
        """Where the web process and the commands look for a node first: its own Redis, where this machine's has one."""
        return config.node_redis or self.node_redis_url(config)

    def client_redis_url(self, config: Config) -> str:
        """The same Redis for a client: as the user that may only publish requests and hear its own answers."""
        if config.external_redis is None:
            state = self.redis_state({config.port})
            return f"redis://{CLIENT_USER}:{state.client_password}@127.0.0.1:{state.port}/0{self._socket_fragment()}"
        return external_client_url(config.external_redis, self.realm(), self.client_password())

    def _hex_key(self, name: str) -> str:
        path = self.keys / name
        text = _kept(path, lambda: secrets.token_hex(SECRET_BYTES))
        if not re.fullmatch(f"[0-9a-f]{{{2 * SECRET_BYTES}}}", text):
            raise ConfigError(f"{path}: expected {2 * SECRET_BYTES} hex digits; it holds something else")
        return text

    def _ready(self) -> Path:
        _make_directory(self.path, parents=True)
        return self.path

    def _directory(self, name: str) -> Path:
        directory = self._ready() / name
        _make_directory(directory)
        return directory


def installation() -> tuple[Config, DataDirectory]:
    """The settings of this process, and the data directory with what Django's settings take from it. Where they cannot
    be used the process ends, with a line for each: whichever program reads them, nobody has to search a traceback."""
    try:
        config = load_config()
        data = DataDirectory.of(config)
        for read in (data.secret_key, data.realm, lambda: data.node_redis_url(config), lambda: data.database):
            read()
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    return config, data


def external_client_user(realm: str) -> str:
    """The clients' user on a Redis that other installations may share."""
    return f"{CLIENT_USER}-{realm}"


def external_client_url(url: str, realm: str, password: str) -> str:
    """The same Redis for that user."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(external_client_user(realm), safe='')}:{password}@{address}"))


def _make_directory(path: Path, *, parents: bool = False) -> None:
    """Where there is none. Its name is on disk when this returns, and those of what was made above it: what is synced
    in a directory that a loss of power takes away is gone."""
    try:
        for directory in reversed([path, *path.parents] if parents else [path]):
            if not directory.is_dir():
                directory.mkdir(mode=0o700 if directory == path else 0o777, exist_ok=True)
                with contextlib.suppress(PermissionError):  # One that may be written and not be read.
                    sync_directory(directory.parent)
    except OSError as error:
        raise _no_room(path, error) from None


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds. Where there is none, what `make` gives, put there whole and on disk, or not at all."""
    try:
        if not path.exists():
            _put_once(path, make())
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected text; it holds something else") from None
    except OSError as error:
        raise _no_room(path, error) from None


def _put_once(path: Path, text: str) -> None:
    """Written aside, synced, then linked into place: the link fails for all but the first of those that race."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names that were put into a directory outlive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"CONCLAVE_DATA: expected a directory that this user can write; {path}: {error.strerror}")
