"""The states of one replica, beside the one in memory: marks, at which all replicas compare theirs, and snapshots, that
take the place of the log up to their index. Its host is the `Replica`; nothing here answers callers.

A snapshot is the state at a mark that most replicas agree on, or, where an operator asks, the state as it is then.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from coordinator import wire
from coordinator.consensus.engine import Engine, Outgoing, Ready, Snapshot
from coordinator.consensus.entries import COMMAND_PREFIX
from coordinator.consensus.membership import Configuration
from coordinator.replica.comparison import Comparison, Verdict
from coordinator.replica.meters import Meters
from coordinator.replica.ports import Head
from coordinator.statemachine import commands, snapshot
from coordinator.statemachine.machine import Machine, encode_node_entry

COMPARE_US: Final = 60_000_000
"""The leader has the replicas compare their states this often, where something was applied since."""


class Compaction(NamedTuple):
    """When the log is cut: a snapshot each `snapshot_entries` applied, behind which `trailing_entries` are kept for
    followers that are a little behind."""

    snapshot_entries: int = 20_000
    trailing_entries: int = 5_000


class _Dumping(NamedTuple):
    """The state after the entry `at`. `is_mark`: the replicas compare this one."""

    dump: snapshot.Dump
    at: int
    term: int
    configuration: Configuration
    is_mark: bool
    parts: list[bytes]


class States:
    def __init__(
        self,
        replica: int,
        engine: Engine,
        machine: Machine,
        meters: Meters,
        now_us: int,
        compaction: Compaction,
        compare_us: int,
    ) -> None:
        self.compaction = compaction
        self.snapshot_wanted = 0
        """An operator wants a snapshot at this index or later."""
        self.comparison = Comparison(replica)
        self.marked_index = 0
        """The last mark that was applied here, or proposed."""
        self.compare_due_us = now_us + compare_us
        self._compare_us = compare_us
        self._replica = replica
        self._engine = engine
        self._machine = machine
        self._meters = meters
        self._answers_to_peers: list[Outgoing] = []
        self._snapshot_index = engine.applied_index
        self._dumping: _Dumping | None = None
        """A state on its way into bytes, a slice a turn."""
        self._offered: Snapshot | None = None
        """The state at a mark, to be kept once a majority has the same."""
        self._taken: Snapshot | None = None
        """A snapshot that is not on disk yet."""

    @property
    def snapshot_index(self) -> int:
        """Of the last snapshot, on disk or about to be."""
        return self._snapshot_index if self._taken is None else self._taken.last_index

    @property
    def is_busy(self) -> bool:
        """Is there work for the next turn at once?"""
        return self._dumping is not None

    # --- marks ------------------------------------------------------------------------------------

    def put_off(self, now_us: int) -> None:
        """A leadership begins: its first mark is due after the whole time."""
        self.compare_due_us = now_us + self._compare_us

    def tick(self, now_us: int) -> None:
        """Let time pass, on a leader that serves."""
        unmarked = self._engine.applied_index - max(self.marked_index, self._snapshot_index)
        if now_us >= self.compare_due_us or unmarked >= self.compaction.snapshot_entries:
            self.mark(now_us)

    def mark(self, now_us: int) -> None:
        """Have all replicas compare their states, where something was applied since the last time."""
        self.compare_due_us = now_us + self._compare_us
        if self._machine.applied > self.marked_index:
            index = self._engine.propose([COMMAND_PREFIX + encode_node_entry(commands.MarkState())])
            if index is not None:
                self.marked_index = index

    def marked(self, index: int) -> None:
        """Here the replicas compare their states. One at a time: a mark that comes meanwhile is another's chance."""
        self.marked_index = index
        if self._dumping is None:
            self._begin_dump(index, is_mark=True)

    def hear_digest(self, sender: int, said: wire.StateDigest) -> None:
        """Another replica says what its state is after an entry; it is told this one's, where it asks."""
        if said.version != snapshot.VERSION:
            return  # Other bytes for the same state.
        self.comparison.hear(sender, said.at, said.digest)
        own = self.comparison.own(said.at)
        if said.wanted and own is not None:
            self._answers_to_peers.append(
                Outgoing(sender, wire.StateDigest(snapshot.VERSION, said.at, own, wanted=False))
            )

    @property
    def has_news(self) -> bool:
        """Is there something to judge by, or a doubt that may be over?"""
        return self.comparison.has_news or self.comparison.is_in_doubt

    def judge(self) -> Verdict:
        """What to think of the own state. The engine is told of a doubt."""
        verdict = self.comparison.judge(self._engine.configuration.full_voter_ids)
        self._engine.doubt(verdict is Verdict.IN_DOUBT, self.comparison.agreed)
        return verdict

    def take_peer_words(self, now_us: int) -> list[Outgoing]:
        """What is to be said to other replicas beside the engine's messages, after the journal."""
        words, self._answers_to_peers = self._answers_to_peers, []
        if not self.comparison.is_due(now_us):
            return words
        members = self._engine.configuration.members
        others = [member.replica for member in members if not member.witness and member.replica != self._replica]
        due = self.comparison.due(others, now_us)
        if due is not None:
            words += [
                Outgoing(other, wire.StateDigest(snapshot.VERSION, due.at, due.digest, wanted=True))
                for other in due.receivers
            ]
        return words

    # --- snapshots --------------------------------------------------------------------------------

    def head(self, ready: Ready, *, stopping: bool) -> Head | None:
        """The snapshot that the journal is to take in this turn; None where none. `stopping`: one that comes from
        elsewhere alone."""
        if ready.install is not None:
            self._offered = self._taken = None
            return Head(ready.install, ready.install.last_index, ready.install.term, ready.keep_tail)
        if self._taken is None or stopping:
            return None
        offset = max(self._engine.first_index - 1, self._taken.last_index - self.compaction.trailing_entries)
        return Head(self._taken, offset, self._engine.term_at(offset), keep_tail=True)

    def begin_behind(self, installed: Snapshot | None) -> None:
        """A snapshot is on disk, one that came or one that was taken here: begin behind it."""
        if installed is not None:
            self.stop()
            self._snapshot_index = installed.last_index
            if not self._engine.is_witness:
                with self._meters.snapshot_loads.time():
                    snapshot.load(self._machine, installed.data)
        elif self._taken is not None:
            self._engine.compact(self._taken, self._taken.last_index - self.compaction.trailing_entries + 1)
            self._snapshot_index, self._taken = self._taken.last_index, None

    def advance(self, now_us: int) -> None:
        """Note a snapshot, where one is due; the next turn's commit of the journal takes it, and then the log is cut. A
        witness cuts off what every full voter has."""
        engine = self._engine
        if engine.is_witness:
            index = min(engine.applied_index, engine.settled)
            if index - self._snapshot_index >= self.compaction.snapshot_entries:
                self._taken = Snapshot(index, engine.term_at(index), engine.configuration_at(index), b"")
            return
        index = engine.applied_index
        wanted = self.snapshot_index < self.snapshot_wanted <= index
        if wanted and self._dumping is None and self.comparison.may_keep(index):
            self._begin_dump(index, is_mark=False)
        if self._dumping is not None:
            self._go_on_dumping(self._dumping, now_us)
        if self._offered is not None and self.comparison.may_keep(self._offered.last_index):
            self._taken, self._offered = self._offered, None

    def _begin_dump(self, index: int, *, is_mark: bool) -> None:
        """Take the state as it is after the entry at `index`, in slices, while the machine goes on."""
        engine = self._engine
        dump = snapshot.begin(self._machine)
        self._dumping = _Dumping(dump, index, engine.term_at(index), engine.configuration_at(index), is_mark, [])

    def _go_on_dumping(self, dumping: _Dumping, now_us: int) -> None:
        with self._meters.snapshot_dumps.time():
            dumping.parts.append(dumping.dump.slice())
        if not dumping.dump.done:
            return
        self._dumping = None
        data = b"".join(dumping.parts)
        taken = Snapshot(dumping.at, dumping.term, dumping.configuration, data)
        if not dumping.is_mark:
            self._taken = taken
            return
        self.comparison.marked(dumping.at, bytes.fromhex(dumping.dump.digest), now_us)
        if dumping.at - self._snapshot_index >= self.compaction.snapshot_entries:
            self._offered = taken

    def stop(self) -> None:
        """Give up what is on its way into bytes."""
        if self._dumping is not None:
            self._dumping.dump.close()
            self._dumping = None
