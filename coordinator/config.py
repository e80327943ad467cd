"""Where settings come from: the environment, each variable checked by name, and the data directory with its secrets.

Belongs here: what an operator can set, what the data directory holds, and how both are read. Does not belong here: what
the parts do with it (Django's settings, the supervisor's, the embedded Redis).
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from coordinator import compiled, wire
from coordinator.channel import TLS_FILES, without_files

PROJECT: Final = Path(__file__).resolve().parent.parent
NODES_MAX: Final = 9
SECRET_BYTES: Final = 32
SOCKET_PATH_BYTES_MAX: Final = 107
"""Of a Unix socket, on Linux."""
LOG_MANNERS: Final = ("plain", "json")
METRICS_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{15,}[A-Za-z0-9._~+/=-]+")
NODE_USER: Final = "conclave-node"
CLIENT_USER: Final = "conclave-client"
PORT_CHOICES_MAX: Final = 200
"""How many ports are tried before giving up on finding a free one."""

SPARE_MS_MAX: Final = 60
"""A heartbeat."""
SPARE_US_OF_ONE_MACHINE: Final = 20_000

KEYS_OF_NODES: Final = ("peer_key", "realm", "web_token")
"""Files that are made before any node, and never anew beside one."""
_PORTS_OF_OUR_OWN: Final = range(20_000, 30_000)
"""Below those that Linux takes for outgoing connections, so that a port kept over restarts stays free."""

_HOST: Final = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")
_DATABASE_DRIVERS: Final = {
    "sqlite": ("sqlite3",),
    "postgres": ("psycopg", "psycopg2"),
    "postgresql": ("psycopg", "psycopg2"),
    "mysql": ("MySQLdb",),
    "oracle": ("oracledb",),
}
"""What a scheme needs, by the names under which it is imported. SQLite's comes with Python."""
_REDIS_EXPECTED: Final = (
    "redis://[user:password@]host[:port][/number of the database], or rediss:// for TLS, which may end in "
    "?ssl_cert_reqs=required, optional or none, and name files by ssl_ca_certs, ssl_certfile and ssl_keyfile"
)
_REDIS_PARAMETERS: Final = frozenset({"ssl_cert_reqs", *TLS_FILES})
"""Celery passes them on to its connections, and fails on any other."""
_CERT_REQS: Final = ("required", "optional", "none")
_DATABASE_EXPECTED: Final = "a database address such as postgres://user:password@host:5432/name or sqlite:////path/file"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class ConfigError(Exception):
    """What the operator gave cannot be used. The message has one line for each thing: its name, what was expected,
    what came."""


class Config(BaseSettings):
    """What the operator set. Read it with `load_config()`, which words the errors."""

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, env_ignore_empty=True, extra="ignore", validate_default=False
    )

    data: Path = Field(PROJECT / "var", validation_alias="CONCLAVE_DATA")
    """Everything that this installation keeps."""
    port: int = Field(8000, validation_alias="CONCLAVE_PORT")
    bind: str = Field("127.0.0.1", validation_alias="CONCLAVE_BIND")
    """The address on which the web server listens."""
    hosts: Annotated[list[str], NoDecode] = Field([], validation_alias="CONCLAVE_HOSTS")
    """Names by which people reach the page, where it is not loopback alone; `host` or `host:port`."""
    proxies: Annotated[list[str], NoDecode] = Field([], validation_alias="CONCLAVE_PROXIES")
    """Addresses or networks of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    nodes: int = Field(3, validation_alias="CONCLAVE_NODES")
    """How many workers with a node `up` starts; a new data directory gets that many voters."""
    redis_url: str | None = Field(None, validation_alias="REDIS_URL", repr=False)
    node_redis: str | None = Field(None, validation_alias="CONCLAVE_NODE_REDIS", repr=False)
    """The Redis of this node's own mailbox, as other nodes reach it too; None: all nodes listen on the one that the web
    tier has. User and password are the same on all of them."""
    database_url: str | None = Field(None, validation_alias="DATABASE_URL", repr=False)
    admin_password: str | None = Field(None, validation_alias="CONCLAVE_ADMIN_PASSWORD", repr=False)
    faults: bool = Field(default=False, validation_alias="CONCLAVE_FAULTS")
    """Whether a person may crash a node from the page. Where it is not set: on loopback alone."""
    metrics_bind: str = Field("127.0.0.1", validation_alias="CONCLAVE_METRICS_BIND")
    """The address on which each node serves its metrics. Off loopback it takes a token."""
    metrics_port: int | None = Field(None, validation_alias="CONCLAVE_METRICS_PORT")
    """The port of this worker's node; for `up` that of the first one, the others follow it. Where it is not set: a free
    one that the data directory keeps. 0: no metrics."""
    metrics_token: str | None = Field(None, validation_alias="CONCLAVE_METRICS_TOKEN", repr=False)
    """What a caller has to bring as a bearer token; it opens the nodes' metrics and the web process' alike."""
    log: str = Field("plain", validation_alias="CONCLAVE_LOG")
    """How log lines are written: `plain`, or `json`, one object a line."""
    compiled: str = Field("auto", validation_alias="CONCLAVE_COMPILED")
    """Whether nodes run the compiled modules (coordinator/compiled.py): where there are any, `always` or `never`."""
    spare_ms: int | None = Field(None, validation_alias="CONCLAVE_SPARE_MS")
    """At moments so far apart, in milliseconds, a leader sends what is new to those followers that no majority needs;
    0: at once, as to the others. Where it is not set, see `spare_us`."""
    node: str | None = Field(None, validation_alias="CONCLAVE_NODE")
    """The node that this worker hosts; None in every other process."""

    @property
    def spare_us(self) -> int:
        """`spare_ms` in microseconds. Nodes that share the embedded Redis share its machine: there what one follower
        does for an entry is taken from all, and elsewhere from itself alone."""
        if self.spare_ms is not None:
            return self.spare_ms * 1_000
        return 0 if self.redis_url or self.node_redis else SPARE_US_OF_ONE_MACHINE

    @property
    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.bind).is_loopback

    @property
    def proxy_headers(self) -> bool:
        """Whether headers of a proxy are believed at all. The web server then rewrites scheme and client address of a
        request itself, for requests that come from `proxies` alone; Django needs no setting for it."""
        return bool(self.proxies)

    @property
    def page_host(self) -> str:
        """Host and port for a person's browser, as the Host header will say."""
        if self.is_loopback or not self.hosts:
            return _with_port(self.bind, self.port)
        first = self.hosts[0].lstrip(".")
        return first if re.search(r":\d+$", first) else _with_port(first, self.port)

    def metrics_url(self, port: int) -> str:
        """Of a node's metrics, for a person or a scraper on this machine."""
        return f"http://{_with_port(self.metrics_bind, port)}/metrics"

    # --- checks: each says what it expected; load_config adds the name and what came ---

    @field_validator("data", mode="before")
    @classmethod
    def _a_directory(cls, value: Any) -> Path:
        path = Path(os.path.abspath(os.path.expanduser(str(value))))
        if not str(path).isprintable():
            raise ValueError("a path without line breaks or control characters")
        try:
            is_taken = path.exists() and not path.is_dir()
        except OSError as error:  # It lies in a directory of somebody else's, or no path is so long.
            raise ValueError(f"a directory, or a path where one can be made ({error.strerror})") from None
        if is_taken:
            raise ValueError("a directory, or a path where one can be made")
        return path

    @field_validator("port", mode="before")
    @classmethod
    def _a_port(cls, value: Any) -> int:
        return _whole_number(value, 1, 65_535, "a port number from 1 to 65535")

    @field_validator("nodes", mode="before")
    @classmethod
    def _a_number_of_nodes(cls, value: Any) -> int:
        return _whole_number(value, 1, NODES_MAX, f"a whole number from 1 to {NODES_MAX}; 3 or 5 are sensible")

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _a_port_or_none(cls, value: Any) -> int:
        return _whole_number(value, 0, 65_535, "a port number from 1 to 65535, or 0 for none")

    @field_validator("spare_ms", mode="before")
    @classmethod
    def _a_short_time(cls, value: Any) -> int:
        return _whole_number(value, 0, SPARE_MS_MAX, f"a whole number of milliseconds from 0 to {SPARE_MS_MAX}")

    @field_validator("metrics_token", mode="before")
    @classmethod
    def _a_token_of_the_operator(cls, value: Any) -> str:
        if not METRICS_TOKEN.fullmatch(str(value)):
            raise ValueError("16 or more letters, digits and - . _ ~ + / =, as a bearer token may have them")
        return str(value)

    @field_validator("log", mode="before")
    @classmethod
    def _a_manner(cls, value: Any) -> str:
        text = str(value).strip().lower()
        if text not in LOG_MANNERS:
            raise ValueError(" or ".join(LOG_MANNERS))
        return text

    @field_validator("compiled", mode="before")
    @classmethod
    def _a_choice(cls, value: Any) -> str:
        if value not in compiled.CHOICES:
            raise ValueError(" or ".join(compiled.CHOICES))
        return str(value)

    @field_validator("bind", "metrics_bind", mode="before")
    @classmethod
    def _an_address(cls, value: Any) -> str:
        text = str(value).strip()
        if text == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError("an IP address to listen on, such as 127.0.0.1, 0.0.0.0 or ::1") from None

    @field_validator("hosts", mode="before")
    @classmethod
    def _host_names(cls, value: Any) -> list[str]:
        hosts = _listed(value)
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    "host names separated by commas, such as conclave.example.org,10.0.0.5:8000; no scheme, path or *"
                )
        return hosts

    @field_validator("proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> list[str]:
        networks = _listed(value)
        try:
            for network in networks:
                ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(
                "addresses or networks of proxies separated by commas, such as 10.0.0.1,10.1.0.0/16"
            ) from None
        return networks

    @field_validator("redis_url", "node_redis", mode="before")
    @classmethod
    def _a_redis_url(cls, value: Any) -> str:
        text = _url(value, {"redis", "rediss"}, _REDIS_EXPECTED)
        parts = urlsplit(text)
        parameters = parse_qs(parts.query, keep_blank_values=True)
        if not re.fullmatch(r"(/\d{0,9})?", parts.path, re.ASCII):
            raise ValueError(_REDIS_EXPECTED)
        if parameters.keys() - (_REDIS_PARAMETERS if parts.scheme == "rediss" else set()):
            raise ValueError(_REDIS_EXPECTED)
        if not {*parameters.get("ssl_cert_reqs", ())} <= {*_CERT_REQS}:
            raise ValueError(_REDIS_EXPECTED)
        return text

    @field_validator("database_url", mode="before")
    @classmethod
    def _a_database_url(cls, value: Any) -> str:
        if _is_in_memory(str(value).strip()):
            raise ValueError(
                "a database in a file, such as sqlite:////path/file: one in memory would be another for each process"
            )
        text = _url(value, set(_DATABASE_DRIVERS), _DATABASE_EXPECTED)
        parts = urlsplit(text)
        if parts.scheme != "sqlite" and not parts.path.strip("/") and "service" not in parse_qs(parts.query):
            raise ValueError(_DATABASE_EXPECTED)
        drivers = _DATABASE_DRIVERS[parts.scheme]
        if not any(importlib.util.find_spec(driver) for driver in drivers):
            raise ValueError(f"a database whose driver is installed; pip install {drivers[0]} into this environment")
        return text

    @field_validator("faults", mode="before")
    @classmethod
    def _a_claim(cls, value: Any) -> bool:
        text = str(value).strip().lower()
        if text not in _TRUE | _FALSE:
            raise ValueError("1 or 0")
        return text in _TRUE

    @field_validator("node", mode="before")
    @classmethod
    def _a_node(cls, value: Any) -> str:
        if not wire.NODE_NAME.fullmatch(str(value)):
            raise ValueError("a node's name: lower-case letters, digits and hyphens, such as node1")
        return str(value)

    @model_validator(mode="after")
    def _what_depends_on_the_address(self) -> Config:
        address = ipaddress.ip_address(self.bind)
        if not address.is_loopback and not self.hosts:
            if address.is_unspecified:
                raise ValueError(
                    "CONCLAVE_HOSTS: expected the names by which people reach the page, separated by commas, because "
                    f"CONCLAVE_BIND is {self.bind}; nothing came"
                )
            object.__setattr__(self, "hosts", [f"[{address}]" if address.version == 6 else str(address)])
        if not ipaddress.ip_address(self.metrics_bind).is_loopback and not self.metrics_token:
            raise ValueError(
                "CONCLAVE_METRICS_TOKEN: expected a token that callers bring, because CONCLAVE_METRICS_BIND is "
                f"{self.metrics_bind}; nothing came"
            )
        if "faults" not in self.model_fields_set:
            object.__setattr__(self, "faults", address.is_loopback)
        return self


def load_config() -> Config:
    """The configuration of this process. Raises ConfigError with a line for each variable that cannot be used."""
    try:
        return Config()
    except ValidationError as error:
        raise ConfigError("\n".join(_line(detail) for detail in error.errors(include_url=False))) from None


def _line(detail: Any) -> str:
    expected = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return expected
    name = str(detail["loc"][0])
    came = (
        "a value that is not repeated here"
        if name.endswith(("PASSWORD", "TOKEN"))
        else repr(_without_password(str(detail["input"])))
    )
    return f"{name}: expected {expected}; came {came}"


def _whole_number(value: Any, low: int, high: int, expected: str) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
        raise ValueError(expected)
    return int(text)


def _listed(value: Any) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)


def _url(value: Any, schemes: set[str], expected: str) -> str:
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in schemes and parts.port != 0 and text.isprintable() and " " not in text
        host = (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError(expected) from None
    if not is_good or not (host or parts.scheme == "sqlite"):
        raise ValueError(expected)
    return text


def _is_in_memory(url: str) -> bool:
    """Whether SQLite would keep the database of such a URL in memory."""
    scheme, _, rest = url.partition("://")
    name = unquote(rest)
    has_path = bool(rest.partition("?")[0].partition("/")[2])
    return scheme == "sqlite" and (not has_path or ":memory:" in name or "mode=memory" in name)


def _without_password(text: str) -> str:
    """What may be an address, without user and password, and with the names alone of what its query says. Where an @
    stands behind a ?, which may be of either, nothing is left but the scheme."""
    if "//" not in text and "@" not in text:
        return text
    address, mark, query = text.partition("?")
    scheme, slashes, rest = address.partition("//") if "//" in address else ("", "", address)
    if "@" in query:
        return f"{scheme}{slashes}…"
    _, at, place = rest.rpartition("@")
    said = [f"{name}=…" if equals else "…" for name, equals, _ in (part.partition("=") for part in query.split("&"))]
    return "".join((scheme, slashes, at and "…@", place, mark, "&".join(said) if mark else ""))


def url_for_celery(redis_url: str) -> str:
    """The same Redis as Celery takes it: over TLS it must be told to check certificates, as everybody else here does
    where nothing is said."""
    parts = urlsplit(redis_url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return redis_url
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))))


def address_for_others(redis_url: str) -> str:
    """Where nodes and clients on other machines find that Redis: without user and password, and without what names
    files of this machine, its Unix socket among them. On theirs another Redis may listen under the same path."""
    parts = urlsplit(redis_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query=without_files(parts.query), fragment=""))


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


# --- the data directory ---------------------------------------------------------------------------


class RedisState(NamedTuple):
    """What the embedded Redis keeps over restarts, so that addresses and tokens given out stay good."""

    port: int
    node_password: str
    client_password: str


class DataDirectory:
    """Everything that an installation keeps. Directories and secrets come into being on first use; of two processes
    that race for a secret both get the same one. Raises ConfigError where the disk says no."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
        text = _kept(path, lambda: _new_redis_state(kept))
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
        text = _kept(path, lambda: str(free_port({config.port, *self._ports_kept()})))
        if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
            raise ConfigError(f"{path}: expected a port number from 1 to 65535; came {text[:80]!r}")
        return int(text)

    def _ports_kept(self) -> set[int]:
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
        """The Redis over which nodes and the web process speak; it carries a password."""
        if config.redis_url is not None:
            return config.redis_url
        state = self.redis_state({config.port})
        return f"redis://{NODE_USER}:{state.node_password}@127.0.0.1:{state.port}/0{self._socket_fragment()}"

    def client_redis_url(self, config: Config) -> str:
        """The same Redis for a client: as the user that may only publish requests and hear its own answers."""
        if config.redis_url is None:
            state = self.redis_state({config.port})
            return f"redis://{CLIENT_USER}:{state.client_password}@127.0.0.1:{state.port}/0{self._socket_fragment()}"
        parts = urlsplit(config.redis_url)
        user = quote(external_client_user(self.realm()), safe="")
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{user}:{self.client_password()}@{address}"))

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
        data = DataDirectory(config.data)
        for read in (data.secret_key, data.realm, lambda: data.node_redis_url(config), lambda: data.database):
            read()
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    return config, data


def external_client_user(realm: str) -> str:
    """The clients' user on a Redis that other installations may share."""
    return f"{CLIENT_USER}-{realm}"


def _new_redis_state(kept: Collection[int]) -> str:
    return json.dumps(
        {"port": free_port(kept), "node_password": secrets.token_hex(24), "client_password": secrets.token_hex(24)},
        indent=2,
    )


def free_port(kept: Collection[int] = ()) -> int:
    """A port of 127.0.0.1 that nobody listens on now, and none of those that are `kept`. Raises ConfigError where none
    was found."""
    for _ in range(PORT_CHOICES_MAX):
        port = secrets.choice(_PORTS_OF_OUR_OWN)
        if port not in kept and port_is_free("127.0.0.1", port):
            return port
    raise ConfigError(
        f"no free port found on 127.0.0.1 in {PORT_CHOICES_MAX} tries; set REDIS_URL to a Redis that runs"
    )


def port_is_free(address: str, port: int, settings: str = "") -> bool:
    """Whether a server could listen there now. Raises ConfigError where the address is not of this machine, or this
    user may not listen there. `settings`: how the variables begin that say where, as CONCLAVE_METRICS of
    CONCLAVE_METRICS_BIND; "": none say it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except PermissionError:
            name = f"{settings}_PORT: " if settings else ""
            raise ConfigError(
                f"{name}expected a port on which this user may listen, as one above 1023; came {port}, on {address}"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            name = f"{settings}_BIND: " if settings else ""
            raise ConfigError(
                f"{name}expected an address of this machine; came {address!r}: {error.strerror}"
            ) from None
    return True


def _make_directory(path: Path, *, parents: bool = False) -> None:
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
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
