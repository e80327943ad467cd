"""Who dies, fails or hangs while something is measured is told of, and never counted as a figure."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import callers, clients, compare
from bench.clients import ClientProcess, Clients, clients_of
from bench.peers import etcd
from bench.peers.base import Operation, Peer, PeerClient, Unusable


class Idle(Peer):
    """Members that do nothing; its clients are those of a Redis that is nowhere."""

    name = "redis"

    @classmethod
    def check(cls) -> str:
        return ""

    def start(self) -> None:
        for member in ("node1", "node2"):
            self.launch(member, [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(600)"])

    def connection(self) -> dict[str, Any]:
        return {"port": 1}


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Idle]:
    peer = Idle(tmp_path)
    try:
        peer.start()
        peer.until(lambda: peer.last_words("node2") == "here", "they are here")
        yield peer
    finally:
        peer.stop()


@pytest.fixture
def nobody(peer: Idle, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Clients without processes."""
    monkeypatch.setattr(clients, "CLIENT_PROCESSES", 0)
    return Clients(peer)


def test_processor_time_is_not_read_of_fewer_servers_than_there_are(peer: Idle, nobody: Clients) -> None:
    assert compare.cpu_s(peer, nobody) > 0
    peer.kill("node2")
    peer.running["node2"].wait(10)
    with pytest.raises(Unusable, match="node2 ended with status -9: here"):
        compare.cpu_s(peer, nobody)


def test_a_client_process_that_ended_says_why(peer: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "connection", lambda: {"no": "port"})
    with clients_of(peer) as both:
        for client in both.all:
            client.process.wait(10)
        with pytest.raises(Unusable, match="a client process ended: KeyError: 'port'"):
            both.begin("lock", 2)


def test_a_client_process_that_hangs_is_given_up(peer: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ANSWER_S_MAX", 0.1)
    with clients_of(peer) as both, pytest.raises(Unusable, match=r"has not answered within 0\.3 s"):
        both.all[0].answer(0.2)


def test_what_one_client_process_failed_with_leaves_no_other_behind(
    peer: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[ClientProcess] = []

    class Second(ClientProcess):
        def say(self, line: dict[str, Any]) -> None:
            begun.append(self)
            if len(begun) == 2:
                raise Unusable("the second is not to be had")
            super().say(line)

    monkeypatch.setattr(clients, "ClientProcess", Second)
    with pytest.raises(Unusable, match="the second"):
        Clients(peer)
    assert begun[0].process.poll() is not None


def test_of_etcd_it_is_said_what_went_wrong_and_not_where_it_stood(tmp_path: Path) -> None:
    server = etcd.Server(tmp_path)
    log = tmp_path / "node1.log"
    trouble = "listen tcp 127.0.0.1:20001: bind: address already in use"
    log.write_text(f'{{"level":"fatal","msg":"discovery failed","error":"{trouble}","stacktrace":"{"x" * 300}"}}\n')
    assert server.last_words("node1") == f"discovery failed: {trouble}"
    log.write_text("no JSON\n")
    assert server.last_words("node1") == "no JSON"
    assert server.last_words("node2") == "it has no log"


class Driven(PeerClient):
    """Its callers are driven as the floor's are, and end with an error, before or behind their first operation."""

    def __init__(self, *, begins: bool) -> None:
        super().__init__({}, 0)
        self.begins = begins
        self.drive = self._drive

    def write(self, key: str) -> Operation:
        return lambda: None

    def _drive(self, work: str, count: int, tally: callers.Tally, started: Callable[[], None]) -> None:
        if self.begins:
            started()
            time.sleep(0.05)
            tally.latencies_s.append(0.001)
        raise ConnectionError("Redis is gone")


def test_callers_that_end_early_are_no_lower_rate() -> None:
    """Those of the floor, of which half a span was counted as a whole one, without an error."""
    running, _ = callers.obey(Driven(begins=True), {"do": "begin", "work": "write", "callers": [0, 1]}, None)
    from_s = time.monotonic()
    with pytest.raises(RuntimeError, match="the callers ended early: ConnectionError"):
        callers.obey(Driven(begins=True), {"do": "measure", "from_s": from_s, "until_s": from_s + 0.2}, running)


def test_callers_that_never_begin_are_not_waited_for() -> None:
    began_s = time.monotonic()
    with pytest.raises(RuntimeError, match="the callers ended early: ConnectionError"):
        callers.obey(Driven(begins=False), {"do": "begin", "work": "write", "callers": [0]}, None)
    assert time.monotonic() - began_s < callers.FIRST_S_MAX / 2
