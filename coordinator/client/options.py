"""What a caller may choose, checked: every message says what was expected and what came."""

from __future__ import annotations

import os
from typing import Final, NamedTuple, get_args

from coordinator.channel import Endpoint
from coordinator.client.errors import InvalidRequest
from coordinator.statemachine import commands, files
from coordinator.statemachine.files import ANY_GENERATION
from coordinator.wire import Token

DEFAULT_TTL_S: Final = 15.0
DEFAULT_TIMEOUT_S: Final = 10.0
TIMEOUT_S_MAX: Final = 3_600.0
WAIT_S_MAX: Final = 30 * 86_400.0


class Options(NamedTuple):
    url: str
    token: Token
    cluster: str
    timeout_us: int

    def __repr__(self) -> str:
        return f"Options({self.cluster!r}, {self.token!r})"  # The URL may carry a password.


def resolve(url: str | None, token: str | None, cluster: str, timeout: float) -> Options:
    """Fill in CONCLAVE_URL and CONCLAVE_TOKEN. Raises InvalidRequest."""
    url = url if url is not None else os.environ.get("CONCLAVE_URL")
    text = token if token is not None else os.environ.get("CONCLAVE_TOKEN")
    for what, said in (("url", url or ""), ("token", text or ""), ("cluster", cluster)):
        if not isinstance(said, str):
            raise InvalidRequest(f"{what}: expected a str, got {type(said).__name__}")
    if not url:
        raise InvalidRequest("no url: give one, or set CONCLAVE_URL (`manage.py token NAME` prints it)")
    if not text:
        raise InvalidRequest("no token: give one, or set CONCLAVE_TOKEN (`manage.py token NAME` prints it)")
    try:
        url, text, cluster = url[:], text[:], cluster[:]  # See `name`.
        Endpoint.parse(url)
    except ValueError as error:
        raise InvalidRequest(f"url: {error}") from None
    try:
        parsed = Token.parse(text)
    except ValueError as error:
        raise InvalidRequest(f"token: {error}") from None
    return Options(url, parsed, cluster, seconds("timeout", timeout, 0.01, TIMEOUT_S_MAX))


def seconds(what: str, value: float, least: float, most: float) -> int:
    """A time in microseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise InvalidRequest(f"{what} is a number of seconds from {least:g} to {most:.12g}, got {value!r}")
    return int(value * 1_000_000)


def ttl_ms(value: float) -> int:
    least, most = commands.TTL_MS_MIN / 1_000, commands.TTL_MS_MAX / 1_000
    return seconds("ttl", value, least, most) // 1_000


def wait_us(value: float | None, what: str = "wait") -> int | None:
    return None if value is None else seconds(what, value, 0, WAIT_S_MAX)


def name(value: str) -> str:
    try:
        # Of a kind of str (an enum's, Django's safe or lazy ones) the str: nothing else is encoded.
        return commands.canonical_name(value[:] if isinstance(value, str) else value)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def member(value: str) -> str:
    """What one of a group is called in it."""
    if not isinstance(value, str) or not value or "/" in value:
        raise InvalidRequest(f"a member has a name without slashes, got {value!r}")
    return value


def key_value(value: bytes) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidRequest(f"a value is bytes, got {type(value).__name__}")
    if len(value) > commands.VALUE_BYTES_MAX:
        raise InvalidRequest(f"a value has at most {commands.VALUE_BYTES_MAX} bytes, got {len(value)}")
    return bytes(value)


def amount(value: int) -> int:
    """What may be added to a counter: a whole number of 64 bits."""
    if not _is_whole(value) or not -(2**63) <= value < 2**63:
        raise InvalidRequest(f"an amount is a whole number of 64 bits, got {value!r}")
    return value


def truth(what: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{what} is True or False, got {value!r}")
    return value


def node(value: str) -> str:
    """What a node is called."""
    if not isinstance(value, str):
        raise InvalidRequest(f"a node is known by its name, got {value!r}")
    return value[:]


def _is_whole(value: object) -> bool:
    """A whole number, and no truth, which Python takes for one."""
    return isinstance(value, int) and not isinstance(value, bool)


def identity(what: str, number: int) -> int:
    """The number of a session, or of an acquisition."""
    if not _is_whole(number) or not 0 <= number < 2**63:
        raise InvalidRequest(f"{what} is known by a whole number from 0 to {2**63 - 1}, got {number!r}")
    return number


def principal(what: str, name: str) -> str:
    """The name of a principal."""
    if not isinstance(name, str) or not _is_text(name):
        raise InvalidRequest(f"{what} is the name of a principal, got {name!r}")
    return name


def text(what: str, value: str) -> str:
    if not isinstance(value, str) or not _is_text(value):
        raise InvalidRequest(f"{what} is a str, got {value!r}")
    return value[:]  # See `name`.


def _is_text(value: str) -> bool:
    """Can it be encoded? A half of a pair of surrogates can not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def revision(number: int) -> int:
    """A revision, or how much of one is skipped."""
    if not _is_whole(number) or number < 0:
        raise InvalidRequest(f"a revision is a whole number from 0 on, got {number!r}")
    return number


def generation(number: int | None) -> int:
    """A generation or an instance; None: whatever it is."""
    if number is None:
        return ANY_GENERATION
    if not _is_whole(number) or number < 0:
        raise InvalidRequest(f"a generation or an instance is a whole number from 0 on, got {number!r}")
    return number


def limit(number: int) -> int:
    """How many of a page."""
    if not _is_whole(number) or not 1 <= number <= commands.LIST_LIMIT_MAX:
        raise InvalidRequest(f"a limit is a whole number from 1 to {commands.LIST_LIMIT_MAX}, got {number!r}")
    return number


def limit_or_all(number: int) -> int:
    """The same, or 0: as many as a page holds."""
    return number if number == 0 and type(number) is int else limit(number)


def sort_by(what: files.SortBy) -> files.SortBy:
    """By what a range is sorted."""
    if not isinstance(what, str) or what not in get_args(files.SortBy):
        raise InvalidRequest(f"a range is sorted by one of {', '.join(get_args(files.SortBy))}, got {what!r}")
    return what


def directory(path: str) -> str:
    """The path of a directory that is not the root; slashes at its end do no harm."""
    return name(path.rstrip("/") if isinstance(path, str) else path)
