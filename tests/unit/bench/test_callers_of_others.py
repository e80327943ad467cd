"""The callers of `bench.large` and `bench.many`: what one of them raises is told of, and is no lower rate."""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from bench import large, many


class Lease:
    def __init__(self, wait_s: float = 0.001) -> None:
        self.wait_s = wait_s

    def release(self) -> None:
        time.sleep(self.wait_s)


class Client:
    """Each third lock cannot be had, for a reason that is none of the client's own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked = itertools.count(1)

    def acquire(self, name: str, ttl: int) -> Lease:
        if next(self.asked) % 3 == 0:
            raise ConnectionResetError("gone")
        return Lease()


class AsyncClient:
    """The fourth lock cannot be had."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked = 0

    async def acquire(self, name: str, ttl: int) -> SimpleNamespace:
        self.asked += 1
        if self.asked == 4:
            raise ConnectionResetError("gone")

        async def release() -> None:
            await asyncio.sleep(0.005)

        return SimpleNamespace(release=release)

    async def aclose(self) -> None:
        """Nothing is open."""


def test_a_caller_of_a_large_cluster_that_fails_is_counted_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(large.shipped, "Client", Client)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=lambda: time.sleep(0.3)))
    began_s = time.monotonic()
    large.call(1, "", "")
    begun, whole = capsys.readouterr().out.splitlines()
    said = json.loads(whole)
    assert begun == large.BEGUN
    row = large.summed(said, began_s, time.monotonic())
    assert row["errors"] >= 2
    assert row["first_error"] == "ConnectionResetError('gone')"
    assert len(said["samples"]) >= 2 * row["errors"], "it went on"
    later = large.summed(said, time.monotonic(), time.monotonic() + 1)
    assert later == {
        "errors": 0, "first_error": "", "pairs_per_s": 0, "p50_ms": None, "p99_ms": None, "max_ms": None,
    }  # fmt: skip


def test_keys_that_could_not_be_put_are_not_said_to_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def command(op: Any, timeout: int) -> None:
        asked.append(op)
        raise TimeoutError("no leader")

    server: Any = SimpleNamespace(watcher=SimpleNamespace(command=command))
    bench = large.Bench(server, argparse.Namespace(keys=100_000, value_bytes=1))
    with pytest.raises(TimeoutError, match="no leader"):
        bench.fill()
    assert "keys put" not in capsys.readouterr().out
    assert len(asked) < 1_000, "and the rest is not tried"


def test_a_caller_of_many_clusters_that_fails_leaves_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(many.shipped, "AsyncClient", AsyncClient)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(ConnectionResetError, match="gone"):
        asyncio.run(many.call("", "", ["one", "two"], 0.2))
    assert capsys.readouterr().out == "begun\n"
