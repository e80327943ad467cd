"""What a node takes in for one turn, of what has come through a real socket."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from random import Random

import pytest

from coordinator.replica import mailbox
from coordinator.replica.mailbox import RedisBus
from tests.unit.replica.stage import CHANNELS

VALUES = 15
GREETING = b"%0\r\n+OK\r\n" + 3 * b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"


def message(channel: str, data: bytes) -> bytes:
    said = b">3\r\n$7\r\nmessage\r\n"
    for part in (channel.encode(), data):
        said += b"$%d\r\n%s\r\n" % (len(part), part)
    return said


@pytest.mark.interpreted
def test_what_a_peer_says_does_not_lie_behind_large_values_for_a_turn_each(tmp_path, monkeypatch):
    """A read from a Unix socket gives some 200 kB of them."""
    monkeypatch.setattr(mailbox, "READ_ON_WAIT_MS", 10_000)  # However busy this machine is.
    monkeypatch.setattr(mailbox, "READ_ON_NS_MAX", 10_000_000_000)
    path = tmp_path / "redis.sock"
    value = message(CHANNELS.client("node1"), bytes(900_000))
    says = GREETING + VALUES * value + message(CHANNELS.peer("node1"), b"a heartbeat")
    wake, _ = pipe = os.pipe()
    with socket.create_server(str(path), family=socket.AF_UNIX) as server:

        def be_redis() -> None:
            connection, _ = server.accept()
            connection.sendall(says)

        thread = threading.Thread(target=be_redis, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:1#{path}"
        bus = RedisBus("node1", url, CHANNELS, Random(1), greet=lambda: None, drops=Counter())
        bus.keep(0)
        turns = [bus.drain()]
        while not any(one.from_peers for one in turns[-1]):
            bus.wait(wake, mailbox.LOOK_US)
            turns.append(bus.drain())
        thread.join()
    for end in pipe:
        os.close(end)
    assert sum(map(len, turns)) == VALUES + 1
    assert len([turn for turn in turns if turn]) <= 3
