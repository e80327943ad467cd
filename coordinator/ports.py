"""Ports of this machine: one that is free to keep, and whether one is free.

Belongs here: looking at addresses of this machine. Does not belong here: who gets which port, and where that is kept.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Collection
from typing import Final

from coordinator.config import ConfigError

CHOICES_MAX: Final = 200
"""How many ports are tried before giving up on finding a free one."""
OF_OUR_OWN: Final = range(20_000, 30_000)
"""Below those that Linux takes for outgoing connections, so that a port kept over restarts stays free."""


def free_port(kept: Collection[int] = (), among: range | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on now, and none of those that are `kept`. `among` which; None: those of
    our own. Raises ConfigError where none was found."""
    choices = among or OF_OUR_OWN
    for _ in range(CHOICES_MAX):
        port = secrets.choice(choices)
        if port not in kept and port_is_free("127.0.0.1", port):
            return port
    raise ConfigError(
        f"CONCLAVE_PORTS: expected ports of 127.0.0.1 on which nobody listens; came {choices[0]}-{choices[-1]}, and "
        f"{CHOICES_MAX} tries found none"
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
