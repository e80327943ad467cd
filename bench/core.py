"""How much an engine step costs: proposals through a core of three replicas in memory, without any input or output.

    python -m bench.core [--json]

Entries of 80 bytes in batches of 64, each batch committed and applied by the leader before the next is proposed, on one
core, in CPU time; the median of five rounds. Beside it the rate of a reference loop (msgspec decode of a command, dict
lookup, encode of its result) in the same round: what this machine can do, for comparison with another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from random import Random

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from coordinator.consensus.engine import HardState, Outgoing, Role
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.options import Options
from coordinator.statemachine.commands import AcquireLock, Command, Entry, Granted
from coordinator.statemachine.machine import encode_entry

ROUNDS = 5
BATCH = 64
BATCHES = 1_000
REFERENCE = 200_000


class Cluster:
    """Three engines that hand one another everything at once."""

    def __init__(self) -> None:
        members = tuple(Member(replica, f"node{replica}") for replica in (1, 2, 3))
        first = encode_configuration(Configuration(members))
        self.now_us = 0
        self.replicas = {
            replica: Raft(
                replica, HardState(1, 0, 1), Log([1], [first], 1), options=Options(), random=Random(replica), now_us=0
            )
            for replica in (1, 2, 3)
        }
        self.applied = 0
        self.replicas[1].election_due_us = 0
        while self.replicas[1].role is not Role.LEADER:
            self.settle()

    def turn(self, replica: int) -> list[tuple[int, Outgoing]]:
        raft = self.replicas[replica]
        raft.tick(self.now_us)
        ready = raft.ready(self.now_us)
        raft.persisted(ready)
        committed = raft.take_committed(1 << 30)
        if replica == 1:
            self.applied += len(committed.entries)
        raft.take_reads()
        return [(replica, outgoing) for outgoing in (*ready.early, *ready.late)]

    def settle(self) -> None:
        """Give everyone a turn, and then whoever was sent something, until nothing is under way."""
        due = [*self.replicas]
        while due:
            post = [letter for replica in due for letter in self.turn(replica)]
            for sender, (receiver, message) in post:
                self.replicas[receiver].step(sender, message, self.now_us)
            due = [*dict.fromkeys(receiver for _, (receiver, _) in post)]


def entries_per_s() -> float:
    cluster = Cluster()
    batch = [COMMAND_PREFIX + bytes(79)] * BATCH
    began = time.process_time()
    for _ in range(BATCHES):
        cluster.now_us += 1_000
        assert cluster.replicas[1].propose([*batch]) is not None
        cluster.settle()
    passed = time.process_time() - began
    assert cluster.applied >= BATCH * BATCHES
    return BATCH * BATCHES / passed


def reference_per_s() -> float:
    decoder = msgspec.msgpack.Decoder(Entry)
    encoder = msgspec.msgpack.Encoder()
    data = encode_entry("ci", "", encoder.encode(Command(17, 4, 3, AcquireLock("deploy", 1, wait=True))))
    table = {"deploy": 1}
    began = time.process_time()
    for _ in range(REFERENCE):
        entry = decoder.decode(data)
        encoder.encode(Granted(table[entry.command.op.name] + entry.command.number))  # type: ignore[union-attr]
    return REFERENCE / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rounds = [(entries_per_s(), reference_per_s()) for _ in range(ROUNDS)]
    entries, reference = (statistics.median(column) for column in zip(*rounds, strict=True))
    if arguments.json:
        print(json.dumps({"entries_per_s": round(entries), "reference_per_s": round(reference)}))
        return
    ratio = entries / reference
    print(f"{entries:,.0f} entries/s through three replicas; the reference loop {reference:,.0f}/s ({ratio:.2f})")


if __name__ == "__main__":
    main()
