"""A play of Raft: a few replicas, a network whose every message the test can see, and a script.

Each replica's turn is the contract of `coordinator/consensus/engine.py`: early messages leave, the journal takes what
is to be written, then committed entries are applied and late messages leave. A crash keeps what the journal took and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from coordinator.consensus.engine import HardState, Role, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration, encode_configuration
from coordinator.consensus.raft.core import Raft
from coordinator.consensus.raft.log import Log
from coordinator.consensus.raft.messages import Message
from coordinator.consensus.raft.options import Options

OPTIONS = Options()


class Letter(NamedTuple):
    sender: int
    receiver: int
    message: Message


@dataclass
class Disk:
    """What a crash leaves."""

    hard_state: HardState
    terms: list[int]
    entries: list[bytes]
    offset: int = 0
    offset_term: int = 0
    snapshot: Snapshot | None = None


@dataclass
class Play:
    """Replicas 1 to `size`, with the same first entry: the configuration. Those of `witnesses` have no state: what is
    applied there is for the test to see."""

    size: int = 3
    witnesses: tuple[int, ...] = ()
    options: Options = OPTIONS
    now_us: int = 0
    replicas: dict[int, Raft] = field(default_factory=dict)
    disks: dict[int, Disk] = field(default_factory=dict)
    applied: dict[int, list[bytes]] = field(default_factory=dict)
    reads: dict[int, list[int]] = field(default_factory=dict)
    indices: dict[int, list[int]] = field(default_factory=dict)
    post: list[Letter] = field(default_factory=list)
    lost: Callable[[Letter], bool] = lambda letter: False
    hosts_take_long: set[int] = field(default_factory=set)
    """Replicas whose host does not have a snapshot that came ready yet."""

    def __post_init__(self) -> None:
        members = tuple(
            Member(replica, f"node{replica}", witness=replica in self.witnesses) for replica in range(1, self.size + 1)
        )
        first = encode_configuration(Configuration(members))
        for replica in range(1, self.size + 1):
            self.disks[replica] = Disk(HardState(1, 0, 1), [1], [first])
            self.start(replica)

    def start(self, replica: int, *, seed: int = 0) -> Raft:
        disk = self.disks[replica]
        log = Log([*disk.terms], [*disk.entries], disk.hard_state.commit, disk.offset, disk.offset_term)
        self.applied[replica] = [] if disk.snapshot is None else bytes(disk.snapshot.data).split(b"\n")
        self.reads[replica] = []
        self.indices[replica] = []
        raft = Raft(
            replica,
            disk.hard_state,
            log,
            options=self.options,
            random=Random(seed or replica),
            now_us=self.now_us,
            snapshot=disk.snapshot,
        )
        self.replicas[replica] = raft
        return raft

    def join(self, replica: int) -> Raft:
        """A new replica, with nothing in its journal."""
        self.disks[replica] = Disk(HardState(0, 0, 0), [], [])
        return self.start(replica)

    def snapshot(self, replica: int, keep: int = 0) -> Snapshot:
        """Take a snapshot of what is applied, and cut the log `keep` entries before it."""
        raft, disk = self.replicas[replica], self.disks[replica]
        index = raft.applied_index
        if replica in self.witnesses:
            index = min(index, raft.settled)
        data = b"" if replica in self.witnesses else b"\n".join(self.applied[replica])
        taken = Snapshot(index, raft.term_at(index), raft.configuration_at(index), data)
        raft.compact(taken, index - keep + 1)
        disk.snapshot, disk.offset, disk.offset_term = taken, raft.log.offset, raft.log.offset_term
        disk.terms, disk.entries = [*raft.log.terms], [*raft.log.entries]
        return taken

    def crash(self, replica: int) -> None:
        del self.replicas[replica]
        self.post = [letter for letter in self.post if letter.receiver != replica]

    def isolate(self, *replicas: int) -> None:
        """Nothing passes between these and the others."""
        self.lost = lambda letter: (letter.sender in replicas) != (letter.receiver in replicas)

    def heal(self) -> None:
        self.lost = lambda letter: False

    def turn(self, replica: int, *, write: bool = True) -> None:
        """One turn. `write=False`: the process dies between its early messages and its journal."""
        raft = self.replicas[replica]
        raft.tick(self.now_us)
        if raft.arrived is not None and replica not in self.hosts_take_long:
            raft.install()
        ready = raft.ready(self.now_us)
        self._send(replica, ready.early)
        if not write:
            self.crash(replica)
            return
        disk = self.disks[replica]
        if ready.install is not None:
            cut = ready.install.last_index - disk.offset if ready.keep_tail else len(disk.entries)
            del disk.terms[:cut], disk.entries[:cut]
            disk.snapshot, disk.offset, disk.offset_term = ready.install, ready.install.last_index, ready.install.term
            self.applied[replica] = bytes(ready.install.data).split(b"\n")
        if ready.hard_state is not None:
            disk.hard_state = ready.hard_state
            if ready.entries:  # As the journal does it: what is not replaced stays.
                keep = ready.first_index - 1 - disk.offset
                disk.terms[keep:] = ready.terms
                disk.entries[keep:] = ready.entries
        raft.persisted(ready)
        self.applied[replica] += raft.take_committed(1 << 30).entries
        for read in raft.take_reads():
            self.reads[replica].append(read.ticket)
            self.indices[replica].append(read.read_index)
        self._send(replica, ready.late)

    def _send(self, sender: int, outgoing: list) -> None:
        for receiver, message in outgoing:
            letter = Letter(sender, receiver, message)
            if receiver in self.replicas and not self.lost(letter):
                self.post.append(letter)

    def deliver(self, *, only: Callable[[Letter], bool] = lambda letter: True) -> list[Letter]:
        """Hand over what is in the post, then give everyone a turn."""
        now, self.post = [x for x in self.post if only(x)], [x for x in self.post if not only(x)]
        for letter in now:
            if letter.receiver in self.replicas:
                self.replicas[letter.receiver].step(letter.sender, letter.message, self.now_us)
        for replica in [*self.replicas]:
            self.turn(replica)
        return now

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        for replica in [*self.replicas]:
            self.turn(replica)
        for _ in range(200):
            if not self.post:
                return
            self.deliver()
        raise AssertionError("the replicas never fall quiet")

    def pass_time(self, us: int, *, step_us: int = 10_000) -> None:
        for _ in range(us // step_us):
            self.now_us += step_us
            self.settle()

    def elect(self, replica: int) -> Raft:
        """Make `replica` the leader, by letting its timer run out first."""
        raft = self.replicas[replica]
        for other in self.replicas.values():
            other.heard_at_us = None
            other.election_due_us = self.now_us + 10_000_000
        raft.election_due_us = self.now_us
        self.settle()
        assert raft.role is Role.LEADER, f"{replica} is {raft.role}"
        return raft

    def elect_by_force(self, replica: int) -> Raft:
        """Make `replica` lead, whatever it would wait for, and look no further."""
        raft = self.replicas[replica]
        for other in self.replicas.values():
            other.heard_at_us = None
            other.election_due_us = self.now_us + 10_000_000
        raft.election_due_us = self.now_us
        for _ in range(20):
            self.deliver()
            if raft.role is Role.LEADER and raft.may_answer:
                return raft
        raise AssertionError(f"{replica} is {raft.role}")

    @property
    def leader(self) -> Raft | None:
        leaders = [raft for raft in self.replicas.values() if raft.role is Role.LEADER]
        return max(leaders, key=lambda raft: raft.term, default=None)

    def propose(self, replica: int, *words: str) -> int | None:
        return self.replicas[replica].propose([COMMAND_PREFIX + word.encode() for word in words])

    def words(self, replica: int) -> list[str]:
        """Commands that `replica` has applied since it started."""
        return [entry[1:].decode() for entry in self.applied[replica] if entry[:1] == COMMAND_PREFIX]
