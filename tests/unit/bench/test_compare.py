"""The order of a run, its options, and that Conclave is run as `manage.py up` runs it."""

from __future__ import annotations

import argparse
import errno
import json
import math
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import callers, compare
from bench.figures import Cell
from bench.peers import conclave, redis_alone, server_class
from bench.peers.base import MEMBERS, Operation, Peer, PeerClient, Unusable, free_ports, members
from coordinator import ports
from coordinator.config import Config
from coordinator.management.commands import up
from coordinator.ports import free_port


def test_each_round_begins_with_another_peer() -> None:
    peers = ["a", "b", "c"]
    assert [compare.in_turn(peers, number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


@pytest.mark.parametrize(("total", "rounds"), [(30, 3), (10, 3), (1, 3), (7, 7)])
def test_deaths_are_spread_over_the_rounds(total: int, rounds: int) -> None:
    shares = [compare.share_of_round(total, rounds, number) for number in range(rounds)]
    assert [death for share in shares for death in share] == [*range(total)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "options",
    [["--peers", "conclave,consul"], ["--works", ""], ["--callers", "0"], ["--callers", "1,x"], ["--rounds", "-1"]],
)
def test_options_that_make_no_sense_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.parse(options)
    assert "expected" in capsys.readouterr().err


def test_the_workers_are_those_of_manage_py_up(tmp_path: Path) -> None:
    server = conclave.Server(tmp_path)
    part = up.Command()._node(Config(), "node2", 0)
    command, environment = server.member_command("node2")
    assert command == part.command
    assert environment.items() >= {"CONCLAVE_NODE": part.environment["CONCLAVE_NODE"]}.items()
    ports = {server.data.metrics_port(member, server.config) for member in members()}
    assert len(ports) == MEMBERS, "each serves its metrics, as by default"


@pytest.mark.parametrize("choice", ["never", "always", None])
def test_nodes_run_the_program_that_the_clients_run(
    choice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And which of the two that is the line under the table says. All other settings are kept from the nodes."""
    monkeypatch.setenv("CONCLAVE_METRICS_PORT", "9")
    if choice is None:
        monkeypatch.delenv("CONCLAVE_COMPILED", raising=False)
    else:
        monkeypatch.setenv("CONCLAVE_COMPILED", choice)
    server = conclave.Server(tmp_path)
    _, environment = server.member_command("node1")
    show = "import os; print(*sorted(name for name in os.environ if name.startswith('CONCLAVE_')))"
    server.launch("node1", [sys.executable, "-c", f"{show}; print(os.environ.get('CONCLAVE_COMPILED'))"], environment)
    try:
        server.running["node1"].wait(10)
    finally:
        server.stop()
    names, found = (tmp_path / "node1.log").read_text().splitlines()
    assert found == str(choice)
    assert names.split() == ["CONCLAVE_COMPILED"] * (choice is not None) + ["CONCLAVE_DATA", "CONCLAVE_NODE"]


def test_no_two_members_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([20_001, 20_001, 20_002, 20_002, 20_001, 20_003])
    monkeypatch.setattr(ports, "secrets", SimpleNamespace(choice=lambda _: next(drawn)))
    monkeypatch.setattr(ports, "port_is_free", lambda address, port: True)
    assert free_ports(3) == [20_001, 20_002, 20_003]


@pytest.mark.long
def test_who_lost_a_port_to_another_program_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "0-redis"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        drawn = iter([taken, free_port(), taken, taken])
        monkeypatch.setattr(redis_alone, "free_port", lambda: next(drawn))
        peer = compare.started("redis", directory)
        try:
            assert peer.connection()["port"] != taken
        finally:
            peer.stop()
        said = capsys.readouterr().err
        assert "redis did not start, and is started once more, on other ports: redis ended with status 1: " in said
        assert (tmp_path / "0-redis-first" / "redis.log").exists(), "what it said is kept with --keep"
        directory = tmp_path / "1-redis"
        directory.mkdir()
        with pytest.raises(Unusable, match="redis ended with status 1: "):
            compare.started("redis", directory)


def test_what_is_left_out_is_said_where_the_figures_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that is missing, or of fewer rounds, and bars that nobody judged, looked as if nobody had asked."""

    def check(cls: type[Peer]) -> str:
        if cls.name == "zookeeper":
            raise TypeError("Descriptors cannot be created directly")
        return "1.0"

    def visit(name: str, number: int, options: argparse.Namespace, directory: Path) -> Iterator[Cell]:
        yield Cell(name, number, "lock", 16, 100.0, None)
        if name == "etcd" and number == 1:
            raise Unusable("node1 ended with status 1: no space left")
        yield Cell(name, number, "lock", 64, 300.0, None)

    for name in ("conclave", "etcd", "zookeeper"):
        monkeypatch.setattr(server_class(name), "check", classmethod(check))
    monkeypatch.setattr(compare, "visit", visit)
    file = tmp_path / "run.json"
    options = ["--peers", "conclave,etcd,zookeeper", "--works", "lock,handover", "--callers", "16", "--rounds", "2"]
    assert compare.main([*options, "--json", str(file), "--directory", str(tmp_path / "data")]) == 1
    whole = json.loads(file.read_text())
    said = capsys.readouterr().out
    assert whole["left_out"] == {
        "zookeeper": "TypeError('Descriptors cannot be created directly')",
        "etcd": "from round 2 of 2 on: node1 ended with status 1: no space left",
    }
    for name, why in whole["left_out"].items():
        assert f"- {name} is left out: {why}" in said
    assert whole["not_judged"] == [
        "handover, 16 callers: rate, as it is",
        "handover, 16 callers: rate, zookeeper's",
        "handover, 16 callers: rate, etcd's",
    ]
    assert f"Not judged, for there is no figure: {'; '.join(whole['not_judged'])}." in said
    assert (whole["options"]["callers"], whole["cut_off"]) == ([16], "")
    for record in whole["summary"]:
        assert f"{record['work']} ({whole['units'][record['work']]})" in said
    for bar in whole["bars"]:
        assert bar["text"] in said
    for name in ("conclave", "etcd"):
        assert f"- {name}: {whole['about'][name]} ({whole['versions'][name]})" in said


def test_figures_outlive_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And whatever else of the driver's own fails in a later round."""

    def fdatasync_us(directory: Path) -> float:
        if times.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        return 100.0

    def visit(name: str, number: int, options: argparse.Namespace, directory: Path) -> Iterator[Cell]:
        yield Cell(name, number, "lock", 16, 100.0, None)

    times = [True, False]
    monkeypatch.setattr(server_class("redis"), "check", classmethod(lambda _: "1.0"))
    monkeypatch.setattr(compare, "fdatasync_us", fdatasync_us)
    monkeypatch.setattr(compare, "visit", visit)
    options = ["--peers", "redis", "--rounds", "2", "--directory", str(tmp_path / "data")]
    assert compare.main([*options, "--json", str(tmp_path / "run.json")]) == 1
    said = capsys.readouterr()
    assert "the run ends here: [Errno 28] No space left on device" in said.err
    assert "| lock (pairs/s) | 16      | 100 ±0% |" in said.out
    assert "Cut off ([Errno 28] No space left on device): there is less of it than was asked for." in said.out
    assert json.loads((tmp_path / "run.json").read_text())["cut_off"] == "[Errno 28] No space left on device"
    assert [*(tmp_path / "data").iterdir()] == []


def test_without_a_compiler_for_its_slower_disk_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(server_class("redis"), "check", classmethod(lambda _: "1.0"))
    options = ["--peers", "redis", "--slower-disk-us", "10", "--directory", str(tmp_path)]
    assert compare.main(options) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[1].startswith("the run ends here: a slower disk needs a C compiler: ")
    assert [*tmp_path.iterdir()] == []


class Fake(PeerClient):
    """Writes that take a millisecond; every third fails."""

    def __init__(self) -> None:
        super().__init__({}, 0)
        self.asked = 0

    def write(self, key: str) -> Operation:
        def write() -> None:
            self.asked += 1
            time.sleep(0.001)
            if self.asked % 3 == 0:
                raise ConnectionError("lost")

        return write


def test_callers_count_what_ended_within_the_span_and_what_failed() -> None:
    client = Fake()
    running, _ = callers.obey(client, {"do": "begin", "work": "write", "callers": [0, 1]}, None)
    from_s = time.monotonic()
    line = {"do": "measure", "from_s": from_s, "until_s": from_s + 0.3}
    after, answer = callers.obey(client, line, running)
    assert after is None
    assert 0 < answer["count"] < client.asked
    assert 0 < answer["errors"] < client.asked
    assert answer["first_error"] == "ConnectionError('lost')"
    assert sum(count for _, count in answer["histogram"]) == answer["count"]


def test_nothing_is_counted_before_the_span() -> None:
    tally = callers.Tally()
    tally.failed("early")
    assert (tally.errors, tally.first_error) == (0, "early")
    assert tally.from_s == math.inf
