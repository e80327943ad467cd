"""Settings: the environment, each variable checked by name.

Belongs here: what an operator can set, and how it is read. Does not belong here: what an installation keeps by itself
(`coordinator/data_directory.py`), and what the parts do with a setting (Django's settings, the supervisor's, Redis').
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from coordinator import compiled, wire
from coordinator.channel import TLS_FILES, without_files

PROJECT: Final = Path(__file__).resolve().parent.parent
NODES_MAX: Final = 9
PORTS_MIN: Final = 2 * (NODES_MAX + 1)
"""One for Redis and each node, and as many on which others may listen."""
LOG_MANNERS: Final = ("plain", "json")
METRICS_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{15,}[A-Za-z0-9._~+/=-]+")

SPARE_MS_MAX: Final = 60
"""A heartbeat."""
SPARE_US_OF_ONE_MACHINE: Final = 20_000

_HOST: Final = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")
_DATABASE_DRIVERS: Final = {
    "sqlite": ("sqlite3",),
    "postgres": ("psycopg", "psycopg2"),
    "postgresql": ("psycopg", "psycopg2"),
    "mysql": ("MySQLdb",),
    "oracle": ("oracledb",),
}
"""What a scheme needs, by the names under which it is imported. SQLite's comes with Python."""
_INSTALLED_AS: Final = {"psycopg": '"psycopg[binary]"', "MySQLdb": "mysqlclient"}
"""Drivers that pip has under another name, or that are whole only so."""
_OF_THIS_MACHINE: Final = frozenset({"sqlite", "postgres", "postgresql"})
"""Schemes of databases that are reached without a host: a file, or a server's Unix socket."""
_REDIS_EXPECTED: Final = (
    "redis://[user:password@]host[:port][/number of the database], or rediss:// for TLS, which may end in "
    "?ssl_cert_reqs=required, optional or none, and name files by ssl_ca_certs, ssl_certfile and ssl_keyfile"
)
_REDIS_PARAMETERS: Final = frozenset({"ssl_cert_reqs", *TLS_FILES})
"""Celery passes them on to its connections, and fails on any other."""
_CERT_REQS: Final = ("required", "optional", "none")
_DATABASE_EXPECTED: Final = "a database address such as postgres://user:password@host:5432/name or sqlite:////path/file"
_NOT_IN_A_PATH: Final = frozenset({"Cc", "Zl", "Zp", "Cs"})
"""Control characters, line breaks, and surrogates, by which Python names bytes that are no text: an address of Redis,
a line of a log or of supervisor's file could not hold them."""
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

    data: Path = Field(PROJECT / "var", validation_alias="CONCLAVE_DATA", validate_default=True)
    """Everything that this installation keeps."""
    port: int = Field(8000, validation_alias="CONCLAVE_PORT")
    port_choices: Annotated[tuple[int, int] | None, NoDecode] = Field(None, validation_alias="CONCLAVE_PORTS")
    """See `ports`: the first and the last."""
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
    def has_database_server(self) -> bool:
        """Is the web tier's database somebody else's to run, and no file?"""
        return self.database_url is not None and urlsplit(self.database_url).scheme != "sqlite"

    @property
    def external_redis(self) -> str | None:
        """The Redis that this process' node has its mailbox on, where it is not the one that comes along."""
        return self.node_redis or self.redis_url

    @property
    def ports(self) -> range | None:
        """From which the data directory picks the ports that it keeps; None: wherever it picks by itself."""
        return None if self.port_choices is None else range(self.port_choices[0], self.port_choices[1] + 1)

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
        if any(unicodedata.category(character) in _NOT_IN_A_PATH for character in str(path)):
            raise ValueError("a path that is text in UTF-8, without line breaks or control characters")
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

    @field_validator("port_choices", mode="before")
    @classmethod
    def _a_range_of_ports(cls, value: Any) -> tuple[int, int]:
        expected = f"the first and the last of {PORTS_MIN} or more ports from 1024 to 65535, such as 20000-29999"
        first, _, last = str(value).partition("-")
        low, high = _whole_number(first, 1_024, 65_535, expected), _whole_number(last, 1_024, 65_535, expected)
        if high - low + 1 < PORTS_MIN:
            raise ValueError(expected)
        return low, high

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
            package = _INSTALLED_AS.get(drivers[0], drivers[0])
            raise ValueError(f"a database whose driver is installed; pip install {package} into this environment")
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
    if name == "data":  # So it is called where it is the default.
        name = "CONCLAVE_DATA"
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
    if not is_good or not (host or parts.scheme in _OF_THIS_MACHINE):
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
