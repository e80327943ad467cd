"""What is free on this machine, and what can be listened on at all."""

from __future__ import annotations

import socket

import pytest

from coordinator.config import ConfigError
from coordinator.ports import free_port, port_is_free


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
    assert port_is_free("127.0.0.1", port)


def test_where_nobody_can_listen_on_any_it_is_said_which_were_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^CONCLAVE_PORTS: expected ports of 127.0.0.1 .*; came {port}-{port}, "):
            free_port(among=range(port, port + 1))


def test_a_kept_port_lies_where_outgoing_connections_do_not_take_it() -> None:
    assert 20_000 <= free_port() < 30_000


@pytest.mark.parametrize("settings", ["CONCLAVE", "CONCLAVE_METRICS"])
def test_an_address_of_another_machine_is_refused_by_the_name_of_its_setting(settings: str) -> None:
    expected = rf"^{settings}_BIND: expected an address of this machine; came '192\.0\.2\.1'"
    with pytest.raises(ConfigError, match=expected):
        port_is_free("192.0.2.1", 8000, settings)
