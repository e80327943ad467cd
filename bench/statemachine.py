"""How fast the state machine is, on one core and without any input or output: encoded entries in, encoded results out.

    python -m bench.statemachine [--json] [--keys N]

CPU time, the median of five rounds, each beside the rate of a reference loop (msgspec decode of a command, dict lookup,
encode of its result) in the same round: what this machine can do, for comparison with another. Entries are encoded
before the clock starts, since clients and the node encode them elsewhere.

- `lock_pairs_per_s`: acquire and release of one of 1,000 names, by one of 100 sessions.
- `puts_per_s`: 64 bytes to 30,000 new keys in directories of a hundred, and then to the same once more.
- `reads_per_s`: point reads of such keys.
- `bytes_per_key`: what the process grows by, for each of a million keys with 64 bytes.
- `snapshot_s`, `slice_ms_p99`: a dump of those, in slices of the usual size, while puts go on; the clock stands still
  during the puts. `load_s`, `load_slice_ms_p99`: and back.

What is asked of these (`bars.py`) is owed in proportion to the reference loop. `missed` (in the object, or the last
line) names what falls short of that; the time of a snapshot is judged with a million keys alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.bars import REFERENCE_PER_S, machine_judged, machine_report
from bench.core import reference_per_s
from bench.options import positive
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.commands import AcquireLock, Command, GetKey, OpenSession, PutKey, ReleaseLock
from coordinator.statemachine.machine import Machine, encode_entry, encode_node_entry

ROUNDS = 5
PAIRS = 30_000
PUTS = 60_000
READS = 100_000
KEYS = 1_000_000
SESSIONS = 100
NAMES = 1_000
VALUE = bytes(64)
PUTS_PER_SLICE = 20
TOKEN = "c" * 16
"""Entries say by which token they were asked for, and so do reads, as the node stamps them."""

_encode = msgspec.msgpack.Encoder().encode
_queries = msgspec.msgpack.Decoder(commands.Query)


class Driver:
    """A machine, and the entries that its clients' commands become."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.index = 0
        right = commands.SetPrincipal("ci", ("read", "write", "lock"))
        token = commands.AddToken(TOKEN, "ci", bytes(commands.KEY_BYTES))
        self._apply(encode_node_entry(commands.Genesis(1, "bench", 0, (right,), (token,), commands.LEVEL)))
        self.numbers: dict[int, int] = {}
        for _ in range(SESSIONS):
            self._apply(encode_entry("ci", "", _encode(Command(0, 0, 0, OpenSession(60_000, b"")))))
            self.numbers[self.index] = 0
        self.sessions = [*self.numbers]

    def _apply(self, entry: bytes) -> None:
        self.index += 1
        result = self.machine.apply(self.index, entry)
        assert not isinstance(result, commands.Failure), result

    def entry(self, session: int, op: commands.ClientOp) -> bytes:
        """As a client sends it that has the answers of all before."""
        number = self.numbers[session] = self.numbers[session] + 1
        return encode_entry("ci", "", _encode(Command(session, number, number, op)), TOKEN)

    def rate(self, entries: Sequence[bytes]) -> float:
        """Entries a second, each from bytes to the bytes of its result."""
        apply, index = self.machine.apply, self.index
        began = time.process_time()
        for entry in entries:
            index += 1
            _encode(apply(index, memoryview(entry)))
        passed = time.process_time() - began
        self.index = index
        self.machine.events.clear()
        return len(entries) / passed

    def lock_pairs_per_s(self) -> float:
        entries = []
        for turn in range(PAIRS):
            session, name = self.sessions[turn % SESSIONS], f"deploy/service-{turn % NAMES}"
            entries.append(self.entry(session, AcquireLock(name, turn, wait=True)))
            entries.append(self.entry(session, ReleaseLock(name, turn)))
        return self.rate(entries) / 2

    def puts_per_s(self, turn: int) -> float:
        half = PUTS // 2
        keys = [_key(turn * half + number) for number in range(half)] * 2
        return self.rate([self._put(number, key) for number, key in enumerate(keys)])

    def reads_per_s(self) -> float:
        encoded = [_encode(GetKey(_key(number * 7 % (PUTS // 2)))) for number in range(READS)]
        query, decode = self.machine.query, _queries.decode
        began = time.process_time()
        for data in encoded:
            _encode(query(decode(data), "ci", _remaining_ms, "", TOKEN))
        return READS / (time.process_time() - began)

    def _put(self, number: int, key: str) -> bytes:
        return self.entry(self.sessions[number % SESSIONS], PutKey(key, VALUE))

    def fill(self, keys: int) -> float:
        """Put so many keys; bytes that the process has grown by for each."""
        gc.collect()
        before = _resident_bytes()
        self.change(range(keys))
        self.machine.events.clear()
        return (_resident_bytes() - before) / keys

    def change(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._apply(self._put(number, _key(number)))


def _key(number: int) -> str:
    return f"bench/{number // 100:05}/{number % 100:02}"


def _remaining_ms(session: int) -> int:
    return 1_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _timed(act: Callable[[], bytes | None], times: list[float]) -> bytes | None:
    began = time.process_time()
    result = act()
    times.append(time.process_time() - began)
    return result


def snapshot_figures(driver: Driver, keys: int) -> dict[str, float]:
    dumped: list[float] = []
    loaded: list[float] = []
    dump = snapshot.begin(driver.machine)
    loader = snapshot.Loader()
    turn = 0
    while not dump.done:
        part = _timed(dump.slice, dumped)
        assert part is not None
        _timed(partial(loader.feed, part), loaded)
        driver.change((turn + step) * 7_919 % keys for step in range(PUTS_PER_SLICE))
        turn += PUTS_PER_SLICE
    began = time.process_time()
    state = loader.finish()
    loaded.append(time.process_time() - began)
    assert len(state.keys.rows) == keys
    return {
        "snapshot_s": sum(dumped),
        "slice_ms_p99": 1_000 * _p99(dumped),
        "load_s": sum(loaded),
        "load_slice_ms_p99": 1_000 * _p99(loaded),
    }


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def measure(keys: int) -> dict[str, float]:
    driver = Driver()
    rounds = [
        {
            "lock_pairs_per_s": driver.lock_pairs_per_s(),
            "puts_per_s": driver.puts_per_s(turn),
            "reads_per_s": driver.reads_per_s(),
            "reference_per_s": reference_per_s(),
        }
        for turn in range(ROUNDS)
    ]
    figures = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    large = Driver()
    figures["bytes_per_key"] = large.fill(keys)
    gc.collect()
    gc.freeze()  # As the node does after it has loaded.
    dumps = [snapshot_figures(large, keys) for _ in range(ROUNDS)]
    return figures | {name: statistics.median(one[name] for one in dumps) for name in dumps[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("--keys", type=positive, default=KEYS, help=f"in the snapshot (default {KEYS})")
    arguments = parser.parse_args()
    figures = {name: round(value, 3) for name, value in measure(arguments.keys).items()}
    outcomes = machine_judged(figures, arguments.keys)
    if arguments.json:
        missed = [outcome.bar.figure for outcome in outcomes if not outcome.met]
        print(json.dumps(figures | {"missed": missed, "bars": [outcome.to_json() for outcome in outcomes]}))
        return
    for name, value in figures.items():
        beside = f"  ({value / figures['reference_per_s']:.2f} of the reference)" if name.endswith("_per_s") else ""
        print(f"{name:>18} {value:>14,.2f}{beside}")
    print(f"\nThe reference loop does {figures['reference_per_s'] / REFERENCE_PER_S:.2f} times what it did there.")
    print(machine_report(outcomes))


if __name__ == "__main__":
    main()
