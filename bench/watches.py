"""What watches cost the leader: processor time of one change, by how many wait. `python -m bench.watches [--json]`

Of all that wait eight in ten watch a path of their own, one a prefix of its own, one a range of its own. Two kinds of
change: of a key that nobody watches, and of one that wakes three of them (a path, a prefix, a range), who are answered
and ask again. The change is applied by the real state machine, which is what 0 watches cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from coordinator.replica.callers import Caller
from coordinator.replica.watches import Watch, Watches
from coordinator.statemachine import commands
from coordinator.statemachine.commands import Command, PutKey
from coordinator.statemachine.files import ChangePage, ReadChanges
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

COUNTS = (0, 100, 1_000, 10_000, 50_000)
CHANGES = 2_000
ROUNDS = 5
_encode = msgspec.msgpack.encode


class Leader:
    """A state machine, and so many watches."""

    def __init__(self, count: int) -> None:
        self.machine = Machine()
        self.index = 0
        self.apply(
            encode_node_entry(
                commands.Genesis(1, "bench", 0, (commands.SetPrincipal("web", commands.RIGHTS),), (), commands.LEVEL)
            )
        )
        self.apply(encode_entry("web", "", _encode(Command(0, 0, 0, commands.OpenSession(60_000, b"")))))
        self.session, self.number = self.index, 0
        self.watches = Watches()
        for number in range(count):
            self.wait(number, self.selection(number))

    @staticmethod
    def selection(number: int) -> ReadChanges:
        group = f"team{number // 10:05}/"
        if number % 10 == 8:
            return ReadChanges(group, prefix=True)
        if number % 10 == 9:
            return ReadChanges(f"{group}app0", f"{group}app9")
        return ReadChanges(f"{group}app{number % 10}")

    def wait(self, number: int, selection: ReadChanges) -> None:
        query = msgspec.structs.replace(selection, since=self.index + 1)
        caller = Caller(f"channel{number % 100}", "0" * 16, b"k" * 32)
        assert self.watches.add(Watch(caller, number, "web", "", query), 1 << 60, self.machine.state)

    def apply(self, entry: bytes) -> None:
        self.index += 1
        self.machine.apply(self.index, entry)

    def change(self, key: str) -> int:
        """How many it woke."""
        self.number += 1
        command = _encode(Command(self.session, self.number, self.number, PutKey(key, b"v" * 64)))
        self.apply(encode_entry("web", "", command))
        self.watches.look(self.machine.state)
        woken = 0
        while (each := self.watches.take_woken()) is not None:
            page = self.machine.query(each.query, each.watch.principal, lambda session: 0)
            assert isinstance(page, ChangePage)
            told = each.page(page)
            assert isinstance(told, ChangePage)
            assert told.changes
            self.wait(each.watch.request_id, self.selection(each.watch.request_id))
            woken += 1
        return woken


def us_each(do: Callable[[int], int]) -> float:
    """Processor time of one of CHANGES, the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for number in range(CHANGES):
            do(number)
        rounds.append((time.process_time() - began_s) / CHANGES * 1e6)
    return statistics.median(rounds)


def figure(count: int) -> dict[str, float]:
    leader = Leader(count)
    groups = max(1, count // 10)

    def unwatched(number: int) -> int:
        return leader.change(f"nobody/{number % 100}")

    def watched(number: int) -> int:
        return leader.change(f"team{number * 7 % groups:05}/app{number % 8}")

    assert (unwatched(0), watched(0)) == (0, 3 if count else 0)
    return {
        "watches": count,
        "unwatched_us": round(us_each(unwatched), 2),
        "woken_3_us": round(us_each(watched), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watches", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    arguments = parser.parse_args()
    found = [figure(count) for count in COUNTS]
    if arguments.json:
        print(json.dumps(found))
        return 0
    print("| watches | a change that nobody watches | a change that wakes three |\n| --- | --- | --- |")
    for each in found:
        print(f"| {each['watches']:,} | {each['unwatched_us']:.1f} µs | {each['woken_3_us']:.1f} µs |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
