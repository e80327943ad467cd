"""The floor: the least that replication over one Redis can cost here, as a program.

    python -m bench.floor [--callers 1,64] [--seconds 3] [--rounds 3]

The same processes and hops as Conclave's: client process → Redis → leader → Redis → followers → Redis → leader →
Redis → client; three replicas, one Redis, one fdatasync a turn on the leader and on each follower, the leader's after
its publish. And nothing else: opaque bytes, no protocol, no terms, no state machine, no signatures, no recovery. A turn
takes whatever has come, so that load makes batches larger. A client process is one thread that keeps so many requests
in flight as it has callers; what they ask together leaves in one message. A read goes the same way without its
fdatasync; a lock pair is two entries, one after the other.

Messages are a header and opaque bytes:

    R client seq count write? payload...    client → leader      (channel l)
    E turn write? payload...                leader → followers   (channels f1, f2)
    A follower turn                         follower → leader    (channel l)
    D (seq)...                              leader → client      (channel c NUMBER)
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hiredis

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

if TYPE_CHECKING:
    from bench.callers import Tally

ENTRY_BYTES: Final = 80
"""A 64-byte write with its key."""
FOLLOWERS: Final = (1, 2)
_READ_BYTES: Final = 1 << 18
_WAIT_S: Final = 1
_REQUEST: Final = struct.Struct("<cBQI?")
_ENTRIES: Final = struct.Struct("<cQ?")
_ACK: Final = struct.Struct("<cBQ")
_SEQ: Final = struct.Struct("<Q")


class Line:
    """A blocking connection to Redis, on its Unix socket as Conclave's are, that publishes and listens (RESP3)."""

    def __init__(self, path: str, channel: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _WAIT_S, 0))
        self.reader = hiredis.Reader()
        self.socket.sendall(_packed("HELLO", "3") + _packed("SUBSCRIBE", channel))

    def publish(self, messages: list[tuple[str, bytes]]) -> None:
        self.socket.sendall(b"".join(_packed("PUBLISH", channel, data) for channel, data in messages))

    def receive(self) -> Iterator[bytes]:
        """Waits until something has come, for a second at the most; all of it."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("Redis is gone")
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification) and reply[0] == b"message":
                yield reply[2]


def _packed(*words: Any) -> bytes:
    packed: bytes = hiredis.pack_command(words)
    return packed


def _log(directory: Path) -> int:
    return os.open(directory, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def lead(path: str, log: Path) -> None:
    line, file = Line(path, "l"), _log(log)
    turn, acknowledged = 0, 0
    pending: deque[tuple[int, list[tuple[int, int]]]] = deque()
    while True:
        asked: list[tuple[int, int]] = []
        payloads: list[bytes] = []
        writes = False
        for message in line.receive():
            if message[:1] == b"A":
                acknowledged = max(acknowledged, _ACK.unpack(message)[2])
            else:
                _, client, seq, _, is_write = _REQUEST.unpack_from(message)
                asked.append((client, seq))
                payloads.append(message[_REQUEST.size :])
                writes = writes or is_write
        if asked:
            turn += 1
            pending.append((turn, asked))
            payload = b"".join(payloads)
            entries = _ENTRIES.pack(b"E", turn, writes) + payload
            line.publish([(f"f{follower}", entries) for follower in FOLLOWERS])
            if writes:
                os.write(file, payload)
                os.fdatasync(file)
        answers: dict[int, list[int]] = {}
        while pending and pending[0][0] <= acknowledged:
            for client, seq in pending.popleft()[1]:
                answers.setdefault(client, []).append(seq)
        if answers:
            line.publish([(f"c{client}", b"D" + struct.pack(f"<{len(s)}Q", *s)) for client, s in answers.items()])


def follow(path: str, log: Path, number: int) -> None:
    line, file = Line(path, f"f{number}"), _log(log)
    while True:
        turn, payloads, writes = 0, [], False
        for message in line.receive():
            _, turn, is_write = _ENTRIES.unpack_from(message)
            payloads.append(message[_ENTRIES.size :])
            writes = writes or is_write
        if writes:
            os.write(file, b"".join(payloads))
            os.fdatasync(file)
        if turn:
            line.publish([("l", _ACK.pack(b"A", number, turn))])


class FloorClient:
    """One client process: `drive` keeps so many requests in flight."""

    def __init__(self, path: str, number: int) -> None:
        self.line, self.number = Line(path, f"c{number}"), number
        self.seq = 0
        self.in_flight: dict[int, tuple[int, list[tuple[float, int]]]] = {}
        """By sequence number: which entry of an operation it is, and (began, callers) of those it carries."""

    def ask(self, stage: int, carried: list[tuple[float, int]], *, is_write: bool) -> None:
        self.seq += 1
        self.in_flight[self.seq] = (stage, carried)
        count = sum(callers for _, callers in carried)
        header = _REQUEST.pack(b"R", self.number, self.seq, count, is_write)
        self.line.publish([("l", header + bytes(ENTRY_BYTES * count if is_write else 0))])

    def drive(self, work: str, callers: int, tally: Tally, started: Callable[[], None]) -> None:
        """Until `tally.until_s`. An operation of `lock` is two entries, of the others one."""
        stages, is_write, is_first = (2 if work == "lock" else 1), work != "read", True
        self.ask(0, [(time.monotonic(), callers)], is_write=is_write)
        while self.in_flight:
            following: list[list[tuple[float, int]]] = [[] for _ in range(stages)]
            for message in self.line.receive():
                ended_s = time.monotonic()
                for (seq,) in _SEQ.iter_unpack(message[1:]):
                    stage, carried = self.in_flight.pop(seq)
                    if stage + 1 < stages:
                        following[stage + 1] += carried
                        continue
                    if tally.from_s <= ended_s <= tally.until_s:
                        for began_s, count in carried:
                            tally.latencies_s += [ended_s - began_s] * count
                    following[0].append((ended_s, sum(count for _, count in carried)))
                    if is_first:
                        is_first = False
                        started()
            over = time.monotonic() >= tally.until_s
            for stage, carried in enumerate(following):
                if carried and not (over and stage == 0):
                    self.ask(stage, carried, is_write=is_write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", default="1,16,64,256")
    parser.add_argument("--seconds", default="3")
    parser.add_argument("--rounds", default="3")
    parser.add_argument("--replica", nargs=3, metavar=("SOCKET", "LOG", "NUMBER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replica is not None:
        path, log, number = arguments.replica[0], Path(arguments.replica[1]), int(arguments.replica[2])
        if number == 0:
            lead(path, log)
        else:
            follow(path, log, number)
        return
    from bench import compare

    options = ["--callers", arguments.callers, "--seconds", arguments.seconds, "--rounds", arguments.rounds]
    sys.exit(compare.main(["--peers", "floor", "--works", "lock,write,read", *options]))


if __name__ == "__main__":
    main()
